//! `sinter quantize` on the small chat model: what it writes is read again, and gives nearly the same logits.

use safetensors::SafeTensors;
use sinter_driver::checkpoint::Checkpoint;
use sinter_driver::cli::{ActivationsArg, BuildArgs, DTypeArg, KvCacheArg, QuantArg};
use sinter_driver::device::{BuildTarget, DeviceArg};
use sinter_driver::environment::Environment;
use sinter_driver::output;
use sinter_driver::quantize::{Calibration, Format, Method, Report, Rounding, quantise};
use sinter_frontend::build::{KvCache, KvCodes};
use sinter_ir::Target;
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
fn every_target_keeps_codes() {
    let (env, output) = (Environment::default(), output::Output::new(true));
    let checkpoint = Checkpoint::open(&model(), &env, &output).unwrap();
    let build = |kv_cache| BuildArgs {
        dtype: DTypeArg::Auto,
        quant: QuantArg::None,
        activations: ActivationsArg::Auto,
        kv_cache,
        device: DeviceArg::Auto,
        threads: None,
    };
    let targets = [BuildTarget::Host, BuildTarget::Gpu(Target::Sm80)];
    for (codes, wanted) in [
        (KvCacheArg::Auto, KvCache::Exact),
        (KvCacheArg::Int8, KvCache::Codes(KvCodes::Int8)),
        (KvCacheArg::Int4, KvCache::Codes(KvCodes::Int4)),
        (KvCacheArg::Fp8, KvCache::Codes(KvCodes::Fp8)),
    ] {
        for targets in [&targets[..], &targets[..1], &targets[1..]] {
            let choice = checkpoint.choice(&build(codes), targets).unwrap();
            assert_eq!(choice.options.kv_cache, wanted, "{targets:?}");
        }
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

fn example(name: &str) -> String {
    let eval: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "examples", "tiny_chat", "eval"].iter().collect();
    eval.join(name).display().to_string()
}

/// What `sinter quantize` tells of the small chat model in 4 bits with a scale a row, which is coarse, so that there is much to
/// mend: how far products are off over the calibration text, and how many matrices have factors of their columns.
fn calibrated(place: &Path, method: &str) -> (f64, usize) {
    let out = place.join(method).display().to_string();
    let text = example("calibration.txt");
    let command = ["quantize", &model(), "-o", &out, "--format", "int4", "--group", "row", "--json"];
    let calibration = ["--calibration", &text, "--calibration-tokens", "512", "--method", method];
    let told: serde_json::Value =
        serde_json::from_str(&done(&[&command[..], &calibration].concat())).unwrap();
    let matrices = told["report"]["matrices"].as_array().unwrap();
    assert_eq!(matrices.len(), 42);
    let scaled = matrices.iter().filter(|one| one["power"].is_f64()).count();
    (told["mean_output_error"].as_f64().unwrap(), scaled)
}

/// What becomes of the answers, and what GPTQ makes of this model, is measured by `testsuite/peers/check_quantised.py`.
#[test]
fn awq_keeps_products_better_than_the_nearest_codes() {
    let place = tempfile::tempdir().unwrap();
    let [nearest, found] = ["rtn", "awq"].map(|method| calibrated(place.path(), method));
    assert!(found.0 < 0.9 * nearest.0, "{found:?} {nearest:?}");
    // Norms before q, k, v, gate and up, and the rows of up before down, take factors.
    assert_eq!((nearest.1, found.1), (0, 36));
}

#[test]
fn experts_that_no_token_reaches_take_the_nearest_codes_and_say_so() {
    let golden: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "..", "testsuite", "goldens", "mixtral"].iter().collect();
    let (env, output) = (Environment::default(), output::Output::new(true));
    let checkpoint = Checkpoint::open(&golden.display().to_string(), &env, &output).unwrap();
    let place = tempfile::tempdir().unwrap();
    let rounding = Rounding { format: Format::Int4, group: None, asymmetric: false };
    let report = |method, texts: Vec<Vec<u32>>| {
        let calibration = Calibration { method, texts };
        let out = place.path().join(format!("{method:?}{}", calibration.texts.len()));
        let report = quantise(&checkpoint, (&rounding, Some(&calibration)), &out, &output).unwrap();
        let again = Checkpoint::open(&out.display().to_string(), &env, &output).unwrap();
        assert_eq!(again.model.spec.stored.len(), report.matrices.len());
        report
    };
    // One token takes two of five experts in each of three layers, each of three matrices.
    let one = report(Method::Gptq { by_size: false }, vec![vec![7]]);
    let unreached: Vec<_> = one.matrices.iter().filter(|matrix| matrix.output_error.is_none()).collect();
    assert_eq!(unreached.len(), 3 * 3 * 3);
    for matrix in unreached {
        let note = matrix.note.unwrap();
        assert!(matrix.name.contains("experts") && note.starts_with("no token"), "{} {note}", matrix.name);
    }
    let texts = || (0..24u32).map(|at| (0..32).map(|i| (at * 37 + i * i * 11) % 101).collect()).collect();
    let mean = |report: &Report| {
        let experts = report.matrices.iter().filter(|matrix| matrix.name.contains("experts"));
        let errors: Vec<f64> = experts.map(|matrix| matrix.output_error.unwrap()).collect();
        assert_eq!(errors.len(), 3 * 5 * 3);
        errors.iter().sum::<f64>() / errors.len() as f64
    };
    let nearest = mean(&report(Method::Nearest, texts()));
    for by_size in [false, true] {
        let gptq = mean(&report(Method::Gptq { by_size }, texts()));
        assert!(gptq < 0.95 * nearest, "{by_size} {gptq} {nearest}");
    }
}

#[test]
fn wrong_calibrations_say_what_is_wanted() {
    let place = tempfile::tempdir().unwrap();
    let (short, wrong) = (place.path().join("short.txt"), place.path().join("wrong.jsonl"));
    std::fs::write(&short, "Hello!").unwrap();
    std::fs::write(&wrong, "{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"prompt\": 3}\n").unwrap();
    let (short, wrong, text) =
        (short.display().to_string(), wrong.display().to_string(), example("calibration.txt"));
    let out = place.path().join("out").display().to_string();
    for (code, flags, reason) in [
        (2, &["--method", "gptq"][..], "--calibration"),
        (2, &["--method", "awq"], "--calibration"),
        (2, &["--method", "best"], "gptq"),
        (2, &["--act-order"], "--method gptq"),
        (2, &["--method", "awq", "--calibration", &text, "--act-order"], "--method gptq"),
        (2, &["--group", "48"], "32, 64, 128 or row"),
        (1, &["--method", "gptq", "--calibration", "/nonexistent"], "cannot read"),
        (1, &["--method", "gptq", "--calibration", &short], "too few to calibrate with; wanted 256"),
        (1, &["--evaluate", &wrong], "wrong.jsonl:2"),
        (1, &["--evaluate", &short], "short.txt:1"),
        (1, &["--group", "128"], "whole groups"),
    ] {
        let output = sinter(&[&["quantize", &model(), "-o", &out, "--format", "int4"], flags].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {told}");
        assert!(told.contains(reason), "{flags:?}: {told}");
        assert!(!Path::new(&out).exists(), "{flags:?}");
    }
}

#[test]
fn columns_that_are_no_whole_groups_stay_and_are_named() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out").display().to_string();
    // Of 192 and 448 columns, 64 divides both; of a model with 24 columns nothing is left.
    let golden: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "..", "testsuite", "goldens", "mixtral"].iter().collect();
    let command = ["quantize", &golden.display().to_string(), "-o", &out, "--format", "int4"];
    let output = sinter(&command);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("its columns are no whole groups"));
    let told = done(&[&command[..], &["--group", "row", "--json"]].concat());
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["report"]["left"].as_array().unwrap().len(), 0);
}
