//! `sinter quantize` on the small chat model: what it writes is read again, and gives nearly the same logits.

use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn sinter(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
    command.args(args).env("SINTER_CACHE", "").env("HF_HUB_CACHE", "/nonexistent");
    command.output().unwrap()
}

fn done(args: &[&str]) -> String {
    let output = sinter(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn model() -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "examples", "tiny_chat", "model"].iter().collect();
    path.display().to_string()
}

fn logits(model: &str, place: &Path) -> Vec<f32> {
    logits_with(model, place, &[])
}

fn logits_with(model: &str, place: &Path, flags: &[&str]) -> Vec<f32> {
    let out = place.join("logits.safetensors").display().to_string();
    let tokens = "1,5,77,300,12,900,41,8";
    let command = ["logits", model, "--tokens", tokens, "--out", &out, "--dtype", "f32", "--device", "host"];
    done(&[&command, flags].concat());
    let bytes = std::fs::read(out).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor("logits").unwrap().data();
    data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// The root mean square of differences, in standard deviations of the first.
fn distance(wanted: &[f32], found: &[f32]) -> f64 {
    let mean = wanted.iter().map(|x| f64::from(*x)).sum::<f64>() / wanted.len() as f64;
    let spread: f64 = wanted.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
    let apart: f64 = wanted.iter().zip(found).map(|(x, y)| f64::from(x - y).powi(2)).sum();
    (apart / spread).sqrt()
}

#[test]
fn quantised_copies_are_read_again_and_stay_near() {
    let place = tempfile::tempdir().unwrap();
    let wanted = logits(&model(), place.path());
    // Formats, and between which bounds the logits are expected: a copy that is too near was not quantised.
    for (flags, low, high) in [
        (&["--format", "int8"][..], 1e-3, 0.05),
        (&["--format", "int8", "--group", "64", "--asymmetric"], 1e-3, 0.05),
        (&["--format", "int4"], 0.01, 0.4),
        (&["--format", "int4", "--group", "64", "--asymmetric"], 0.01, 0.4),
        (&["--format", "fp8"], 3e-3, 0.15),
    ] {
        let out = place.path().join(flags.join("_")).display().to_string();
        let told = done(&[&["quantize", &model(), "-o", &out, "--json"], flags].concat());
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["report"]["matrices"].as_array().unwrap().len(), 42, "{flags:?}");
        let apart = distance(&wanted, &logits(&out, place.path()));
        assert!((low..high).contains(&apart), "{flags:?}: {apart}");
        let again = sinter(&[&["quantize", &out, "-o", &format!("{out}2")], flags].concat());
        assert!(String::from_utf8_lossy(&again.stderr).contains("quantised already"), "{flags:?}");
    }
}

#[test]
fn weights_are_quantised_while_they_are_loaded() {
    let place = tempfile::tempdir().unwrap();
    let wanted = logits(&model(), place.path());
    for (quant, low, high) in [("int8", 1e-3, 0.05), ("int4", 0.01, 0.4)] {
        let of = |activations: &str| {
            let flags = ["--quant", quant, "--activations", activations];
            logits_with(&model(), place.path(), &flags)
        };
        let (exact, int8) = (of("exact"), of("int8"));
        assert!((low..high).contains(&distance(&wanted, &exact)), "{quant}: {}", distance(&wanted, &exact));
        assert!((low..high).contains(&distance(&wanted, &int8)), "{quant}: {}", distance(&wanted, &int8));
        assert!((1e-4..0.05).contains(&distance(&exact, &int8)), "{quant}: {}", distance(&exact, &int8));
        assert_eq!(of("auto"), int8, "{quant}");
        let bundle = place.path().join(quant).display().to_string();
        done(&["compile", &model(), "-o", &bundle, "--quant", quant, "--dtype", "f32"]);
        assert_eq!(logits(&bundle, place.path()), int8, "{quant} from a bundle");
    }
}

#[test]
fn keys_and_values_are_kept_as_codes() {
    let place = tempfile::tempdir().unwrap();
    let wanted = logits(&model(), place.path());
    // Six layers, keys and values, two heads of 32 and a scale.
    for (codes, dtype, bytes, low, high) in [
        ("int8", "i8", 6 * 2 * 2 * (32 + 4), 1e-5, 0.05),
        ("int4", "u8", 6 * 2 * 2 * (16 + 4), 1e-3, 0.5),
        ("fp8", "f8e4m3", 6 * 2 * 2 * (32 + 4), 1e-4, 0.1),
    ] {
        let found = logits_with(&model(), place.path(), &["--kv-cache", codes]);
        let apart = distance(&wanted, &found);
        println!("{codes}: {apart:.1e}");
        assert!((low..high).contains(&apart), "{codes}: {apart}");
        let fed = ["--kv-cache", codes, "--decode", "3", "--chunk", "2"];
        assert_eq!(logits_with(&model(), place.path(), &fed), found, "{codes} in chunks");
        let bundle = place.path().join(codes).display().to_string();
        done(&["compile", &model(), "-o", &bundle, "--kv-cache", codes, "--dtype", "f32"]);
        assert_eq!(logits(&bundle, place.path()), found, "{codes} from a bundle");
        let told: serde_json::Value = serde_json::from_str(&done(&["inspect", &bundle, "--json"])).unwrap();
        assert_eq!((&told["kv_cache"], &told["kv_bytes_per_token"]), (&dtype.into(), &bytes.into()));
        let told: serde_json::Value = serde_json::from_str(&done(&["inspect", &model(), "--json"])).unwrap();
        assert_eq!(told["kv_bytes_per_token"][codes], bytes);
        let output = sinter(&["run", &bundle, "p", "--kv-cache", codes]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("leave out --kv-cache"));
    }
}

#[test]
fn what_cannot_be_quantised_says_why() {
    let place = tempfile::tempdir().unwrap();
    let int8 = place.path().join("int8").display().to_string();
    done(&["quantize", &model(), "-o", &int8, "--format", "int8"]);
    let fp8 = place.path().join("fp8").display().to_string();
    done(&["quantize", &model(), "-o", &fp8, "--format", "fp8"]);
    for (model, flags, reason) in [
        (&int8, ["--quant", "int8"], "quantised already"),
        (&fp8, ["--activations", "int8"], "whole numbers, the model has none"),
        (&model(), ["--activations", "int8"], "wants quantised weights"),
    ] {
        let output = sinter(&[&["run", model, "p"], &flags[..]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{reason}");
    }
    let there = place.path().display().to_string();
    let output = sinter(&["quantize", &model(), "-o", &there, "--format", "int8"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("exists"));
    assert_eq!(
        std::fs::read_dir(place.path().parent().unwrap())
            .unwrap()
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(&format!(".{}", place.path().file_name().unwrap().to_string_lossy()))
            })
            .count(),
        0,
        "nothing is left beside it"
    );
    let output = sinter(&["quantize", &model(), "-o", "x", "--format", "fp8", "--group", "32"]);
    assert_eq!(output.status.code(), Some(2));
    let output = sinter(&["quantize", &model(), "-o", "x", "--format", "int4", "--group", "48"]);
    assert_eq!(output.status.code(), Some(2));
}
