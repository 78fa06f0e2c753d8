//! The command line: exit codes, reasons, and what stands on which stream.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn sinter(args: &[&str]) -> Output {
    let cache = std::env::temp_dir().join("sinter-cli-tests");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
    command.args(args).env("SINTER_CACHE", cache).env("HF_HUB_CACHE", "/nonexistent").stdin(Stdio::null());
    command.output().unwrap()
}

fn golden(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "testsuite", "goldens", name].iter().collect();
    path.display().to_string()
}

/// The reason of a failure: one paragraph on stderr, nothing on stdout.
fn reason(code: i32, args: &[&str]) -> String {
    let output = sinter(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?}");
    assert!(!stderr.contains("panicked") && !stderr.contains("bug in sinter"), "{args:?}: {stderr}");
    let reason = stderr.lines().filter(|line| !line.starts_with("note: ")).collect::<Vec<_>>();
    if code == 1 {
        assert_eq!(reason.len(), 1, "{args:?}: {stderr}");
    }
    reason.join("\n")
}

fn json(args: &[&str]) -> serde_json::Value {
    let output = sinter(&[args, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn bad_usage_is_2() {
    for args in [
        &["frobnicate"][..],
        &["run"],
        &["logits", "m"],
        &["logits", "m", "--tokens", "1,-2", "--out", "f"],
        &["logits", "m", "--tokens", "1,2", "--out", "f", "--decode", "2"],
        &["logits", "m", "--tokens", "1,2", "--out", "f", "--mask", "1"],
        &["logits", "m", "--tokens", "1,2", "--out", "f", "--mask", "1,7"],
        &["run", "m", "p", "--device", "tpu"],
        &["run", "m", "p", "--device", "vgpu:sm_70"],
        &["compile", "m", "--target", "sm_70"],
        &["run", "m", "p", "--threads", "0"],
        &["compile", "m", "--dtype", "f64"],
        &["bench", "m", "serve", "--rate", "0"],
        &["bench", "m", "serve", "--rate", "1", "--concurrency", "2"],
        &["bench", "m", "serve", "--goodput", "itl:5"],
        &["bench", "m", "decode", "--url", "http://127.0.0.1:8000"],
        &["bench", "m", "serve", "--decode", "3"],
        &["bench", "m", "--prompt", "3", "decode"],
    ] {
        assert!(!reason(2, args).is_empty());
    }
}

#[test]
fn what_is_not_built_in_says_so() {
    let llama = golden("llama");
    for (args, word) in [
        (&["run", &llama, "p", "--activations", "int8"][..], "--quant int8"),
        (&["run", &llama, "p", "--device", "cuda:77"], "cuda:77"),
    ] {
        let reason = reason(1, args);
        assert!(reason.contains(word) || reason.contains("CUDA driver"), "{reason}");
    }
    if sinter_driver::gpu::CAN_COMPILE {
        return;
    }
    for args in [
        &["run", &llama, "p", "--device", "vgpu"][..],
        &["run", &llama, "p", "--device", "vgpu:sm_90a"],
        &["compile", &llama, "--target", "sm_90a"],
        &["compile", &llama, "--target", "sm_80", "--emit", "ptx"],
        &["inspect", &llama, "--target", "sm_80"],
    ] {
        let reason = reason(1, args);
        assert!(
            reason.contains("cannot compile for GPUs") && reason.contains("--features nvptx"),
            "{reason}"
        );
    }
}

#[test]
fn missing_models_have_a_reason() {
    assert!(reason(1, &["inspect", "/nonexistent/model"]).contains("was not found"));
    assert!(reason(1, &["inspect", "org/name"]).contains("hub cache"));
    assert!(reason(1, &["inspect", "org/name\n"]).contains("was not found"));
    assert!(reason(1, &["verify", "/nonexistent"]).contains("cannot open manifest.json"));
    assert!(reason(1, &["tokenize", &golden("llama"), "hello"]).contains("tokenizer.json"));
}

#[test]
fn encoders_are_not_asked_to_write() {
    let bert = golden("bert");
    for args in [&["run", &bert, "hello"][..], &["chat", &bert]] {
        assert!(reason(1, args).contains("is an encoder, it writes no text; use `sinter embed`"), "{args:?}");
    }
}

#[test]
fn broken_models_have_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().display().to_string();
    assert!(reason(1, &["inspect", &model]).contains("config.json"));
    std::fs::write(folder.path().join("config.json"), "{\"model_type\": \"llama\"").unwrap();
    reason(1, &["inspect", &model]);
    copy(Path::new(&golden("llama")), folder.path());
    json(&["inspect", &model]);
    let weights = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    assert!(reason(1, &["inspect", &model]).contains("model.safetensors"));
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::copy(&entry, to.join(entry.file_name().unwrap())).unwrap();
    }
}

#[test]
fn models_can_be_inspected() {
    let value = json(&["inspect", &golden("llama")]);
    assert_eq!(value["kind"], "model");
    assert_eq!(value["model"]["architecture"], "llama");
    assert_eq!(value["model"]["decoder"], true);
    let parameters = value["model"]["parameters"].as_u64().unwrap();
    assert_eq!(value["memory_bytes"]["f32"], parameters * 4);
    assert_eq!(json(&["inspect", &golden("bert")])["model"]["decoder"], false);
    assert_eq!(json(&["inspect", &golden("llama_sharded")])["model"]["stored"], "bf16");
}

#[test]
fn what_is_asked_of_kernels_needs_kernels() {
    let llama = golden("llama");
    for flag in [&["--gpu", "h200"][..], &["--ptxas", "x"], &["--context", "9"], &["--prompt", "9"]] {
        let reason = reason(2, &[&["inspect", &llama], flag].concat());
        assert!(reason.contains("add --target"), "{reason}");
    }
    assert!(reason(2, &["inspect", &llama, "--gpu", "H300"]).contains("wanted A100, L40S, RTX 4090"));
    assert!(reason(2, &["inspect", &llama, "--target", "host"]).contains("wanted sm_80, sm_89, sm_90a"));
    assert!(reason(2, &["inspect", &llama, "--sequences", "0"]).contains("65536"));
}

#[test]
fn graphs_can_be_printed_and_parsed() {
    let output = sinter(&["compile", &golden("llama"), "--emit", "graph", "--dtype", "f32"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(sinter_ir::Graph::parse(&text).unwrap().to_string(), text);
}

#[test]
fn the_doctor_reports() {
    let value = json(&["doctor"]);
    assert!(value["threads"].as_u64().unwrap() > 0);
    assert!(value["advice"].is_array());
    assert_eq!(value["hub_models"], 0);
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = sinter(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains("tokenize"));
    }
}

#[test]
fn a_closed_pipe_is_quiet() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
    command.args(["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}
