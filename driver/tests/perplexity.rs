//! `sinter perplexity` against transformers on the small chat model.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sinter(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
    command.args(args).env("SINTER_CACHE", "").env("HF_HUB_CACHE", "/nonexistent");
    command.output().unwrap()
}

#[test]
fn perplexities_are_those_of_transformers() {
    let expected = std::fs::read_to_string(root().join("testsuite/goldens/perplexity.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let model = root().join("examples/tiny_chat/model").display().to_string();
    let text = root().join("examples/tiny_chat").join(expected["text"].as_str().unwrap());
    let text = std::fs::read_to_string(text).unwrap();
    let lines: Vec<&str> = text.lines().take(expected["lines"].as_u64().unwrap() as usize).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let text = file.path().display().to_string();
    for case in expected["cases"].as_array().unwrap() {
        let [window, stride] = ["window", "stride"].map(|field| case[field].to_string());
        let flags =
            ["--window", &window, "--stride", &stride, "--dtype", "f32", "--device", "host", "--json"];
        let output = sinter(&[&["perplexity", &model, &text], &flags[..]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["scored"], case["scored"], "{case}");
        let [found, wanted] = [&found, case].map(|value| value["perplexity"].as_f64().unwrap());
        assert!((found / wanted - 1.0).abs() < 1e-5, "{case}: {found}");
    }
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let model = root().join("examples/tiny_chat/model").display().to_string();
    let text = root().join("README.md").display().to_string();
    for (flags, wanted) in [(["--window", "513"], "context of 512"), (["--stride", "400"], "at most as many")]
    {
        let flags = if wanted.contains("most") {
            [&flags[..], &["--window", "300"]].concat()
        } else {
            flags.to_vec()
        };
        let output = sinter(&[&["perplexity", &model, &text], &flags[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(wanted), "{flags:?}");
    }
}
