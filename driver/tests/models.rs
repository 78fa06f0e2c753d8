//! The whole way: golden models through the command, held against what `transformers` computed.

use safetensors::SafeTensors;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The models whose weights lie beside their config.
const DECODERS: [&str; 14] = [
    "gemma2",
    "gpt2",
    "gpt_neox",
    "gpt_neox_sequential",
    "llama",
    "llama3_rope",
    "llama_linear_rope",
    "llama_sharded",
    "llama_tied_bias",
    "llama_yarn",
    "mistral_window",
    "phi3",
    "qwen2",
    "qwen3",
];

fn root(parts: &[&str]) -> String {
    let path: PathBuf = [&[env!("CARGO_MANIFEST_DIR"), ".."], parts].concat().iter().collect();
    path.display().to_string()
}

fn golden(name: &str) -> String {
    root(&["testsuite", "goldens", name])
}

/// Runs the command with some stdin and returns its stdout.
fn sinter(args: &[&str], stdin: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
    command.args(args).env("SINTER_CACHE", cache()).env("HF_HUB_CACHE", "/nonexistent");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn cache() -> PathBuf {
    std::env::temp_dir().join("sinter-model-tests")
}

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&sinter(&[args, &["--json"]].concat(), "")).unwrap()
}

fn floats(file: &Path, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data();
    data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn integers(file: &Path, name: &str) -> Vec<i64> {
    let bytes = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data();
    data.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn joined(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

/// The rows that `sinter logits` writes.
fn rows(model: &str, tokens: &str, flags: &[&str]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let args =
        ["logits", model, "--tokens", tokens, "--dtype", "f32", "--out", out.to_str().unwrap(), "--json"];
    let value: serde_json::Value = serde_json::from_str(&sinter(&[&args[..], flags].concat(), "")).unwrap();
    floats(&out, value["name"].as_str().unwrap())
}

/// Every number within `bound` standard deviations of what is expected.
fn near(name: &str, found: &[f32], wanted: &[f32], bound: f64) {
    assert_eq!(found.len(), wanted.len(), "{name}");
    let mean = wanted.iter().map(|x| f64::from(*x)).sum::<f64>() / wanted.len() as f64;
    let variance = wanted.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / wanted.len() as f64;
    let error = found.iter().zip(wanted).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    assert!(error <= bound * variance.sqrt(), "{name}: off by {:.1e} deviations", error / variance.sqrt());
}

#[test]
fn decoders_agree_with_transformers_however_they_are_fed() {
    for name in DECODERS {
        let (model, expected) = (golden(name), PathBuf::from(golden(name)).join("expected.safetensors"));
        let tokens = joined(&integers(&expected, "tokens"));
        let whole = rows(&model, &tokens, &[]);
        near(name, &whole, &floats(&expected, "logits"), 1e-4);
        for flags in [&["--decode", "3"][..], &["--chunk", "3"], &["--chunk", "1"], &["--threads", "1"]] {
            let same =
                rows(&model, &tokens, flags).iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{name} {flags:?} differs");
        }
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    for name in DECODERS {
        let (model, expected) = (golden(name), PathBuf::from(golden(name)).join("expected.safetensors"));
        let (mut tokens, greedy) = (integers(&expected, "tokens"), integers(&expected, "greedy"));
        let prompt = tokens.len();
        tokens.extend(&greedy);
        let logits = rows(&model, &joined(&tokens), &["--decode", &greedy.len().to_string()]);
        let width = logits.len() / tokens.len();
        for (at, wanted) in greedy.iter().enumerate() {
            let row = &logits[(prompt + at - 1) * width..(prompt + at) * width];
            let best = (0..width).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
            assert_eq!(best as i64, *wanted, "{name}, token {at}");
        }
    }
}

#[test]
fn encoders_agree_with_transformers_also_under_a_mask() {
    let (model, expected) = (golden("bert"), PathBuf::from(golden("bert")).join("expected.safetensors"));
    let (tokens, mask) = (integers(&expected, "tokens"), integers(&expected, "mask"));
    near("bert", &rows(&model, &joined(&tokens), &[]), &floats(&expected, "hidden"), 1e-4);
    let masked = rows(&model, &joined(&tokens), &["--mask", &joined(&mask)]);
    let wanted = floats(&expected, "hidden_masked");
    let width = wanted.len() / tokens.len();
    for (at, counts) in mask.iter().enumerate() {
        let row = at * width..(at + 1) * width;
        match counts {
            1 => near("masked bert", &masked[row.clone()], &wanted[row], 1e-4),
            _ => assert!(masked[row].iter().all(|x| *x == 0.0)),
        }
    }
}

#[test]
fn a_bundle_gives_the_bits_of_its_model() {
    let folder = tempfile::tempdir().unwrap();
    for (name, dtype) in [("llama", "f32"), ("qwen3", "f32"), ("bert", "f32")] {
        let bundle = folder.path().join(name).display().to_string();
        let made = json(&["compile", &golden(name), "-o", &bundle, "--dtype", dtype]);
        assert_eq!(made["dtype"], dtype);
        let again = json(&["compile", &golden(name), "-o", &bundle, "--dtype", dtype]);
        assert_eq!(made["id"], again["id"]);
        assert_eq!(json(&["verify", &bundle])["ok"], true);
        assert_eq!(rows(&bundle, "3,1,4,1,5", &[]), rows(&golden(name), "3,1,4,1,5", &[]));
        assert_eq!(json(&["inspect", &bundle])["kind"], "bundle");
    }
}

#[test]
fn bf16_is_near_f32() {
    let model = golden("llama_sharded");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    sinter(&["logits", &model, "--tokens", "3,1,4,1,5", "--dtype", "bf16", "--out", &out], "");
    near("bf16", &floats(Path::new(&out), "logits"), &rows(&model, "3,1,4,1,5", &[]), 0.1);
}

#[test]
fn plans_are_cached_and_a_damaged_one_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
        let out = folder.path().join("out");
        command.args(["logits", &golden("gpt2"), "--tokens", "1,2", "--device", "host", "--out"]).arg(out);
        let output = command.env("SINTER_CACHE", folder.path().join("cache")).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        // The memory plan is told in any case.
        let lines = String::from_utf8(output.stderr).unwrap();
        lines.lines().filter(|line| !line.starts_with("note: host: ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(run(), "");
    let plans: Vec<_> = std::fs::read_dir(folder.path().join("cache/plans")).unwrap().collect();
    assert_eq!(plans.len(), 1);
    let plan = plans[0].as_ref().unwrap().path();
    let text = std::fs::read(&plan).unwrap();
    std::fs::write(&plan, &text[..text.len() / 2]).unwrap();
    assert!(run().contains("is not used: its hash is wrong"));
    assert_eq!(run(), "");
    assert_eq!(std::fs::read(&plan).unwrap(), text);
}

#[test]
fn the_bench_checks_what_it_measures() {
    let flags = ["--prompt", "16", "--decode", "8", "--repetitions", "2"];
    let value = json(&[&["bench", &golden("llama")], &flags[..]].concat());
    assert_eq!(value["chunked_equals_whole"], true);
    assert!(value["prefill"]["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(value["decode"]["seconds"].as_array().unwrap().len(), 2);
    assert!(value["read_bandwidth_bytes_per_second"].as_f64().unwrap() > 1e8);
    let kernels = json(&[&["bench", &golden("llama"), "kernels"], &flags[..]].concat());
    assert!(!kernels["decode_kernels"].as_array().unwrap().is_empty());
    let prefill = ["--prompt", "16", "--repetitions", "2"];
    assert!(json(&[&["bench", &golden("bert"), "prefill"], &prefill[..]].concat())["prefill"].is_object());
    let flags = ["--decode", "40", "--repetitions", "3", "--sequences", "4"];
    let together = json(&[&["bench", &golden("llama"), "decode"], &flags[..]].concat());
    assert_eq!(together["together_equals_alone"], true);
    assert_eq!(together["together"]["tokens"], 160);
    assert!(together["ratio"].as_f64().unwrap() > 0.0);
}

#[test]
fn fusions_are_explained() {
    let report = json(&["explain", &golden("llama")]);
    assert!(report["launches"].as_u64().unwrap() > 0);
    let attention = json(&["explain", &golden("llama"), "attention"]);
    let groups = |report: &serde_json::Value| {
        let blocks = report["blocks"].as_array().unwrap().iter();
        blocks.map(|block| block["groups"].as_array().unwrap().len()).sum::<usize>()
    };
    assert!(groups(&attention) < groups(&report));
}

#[test]
fn a_small_model_talks() {
    let model = root(&["examples", "tiny_chat", "model"]);
    let flags = ["--dtype", "f32", "--max-tokens", "12"];
    let once = json(&[&["run", &model, "hello"], &flags[..]].concat());
    assert!(!once["tokens"].as_array().unwrap().is_empty());
    let text = sinter(&[&["run", &model, "hello"], &flags[..]].concat(), "");
    assert_eq!(text.trim_end(), once["text"].as_str().unwrap().trim_end());
    assert_eq!(sinter(&[&["run", &model, "-"], &flags[..]].concat(), "hello\n"), text);
    // The same seed gives the same text, whatever the chunks and threads.
    let sampled = |more: &[&str]| {
        let seeded = ["run", &model, "hello there", "--temperature", "1", "--seed", "5"];
        json(&[&seeded[..], &flags, more].concat())["tokens"].clone()
    };
    assert_eq!(sampled(&[]), sampled(&["--chunk", "1", "--threads", "1"]));
    let lines =
        sinter(&[&["chat", &model, "--json"], &flags[..]].concat(), "hello\nhow are you?\n/reset\nhello\n");
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["text"], once["text"]);
    assert_eq!(lines[2]["text"], once["text"]);
    assert!(lines[1]["cached_tokens"].as_u64().unwrap() > 0);
    let tokens = json(&["tokenize", &model, "hello"]);
    assert_eq!(tokens["chars"], 5);
    assert_eq!(tokens["ids"].as_array().unwrap().len(), tokens["pieces"].as_array().unwrap().len());
}

#[test]
fn heads_that_score_texts_agree_with_transformers() {
    for name in ["bert_scores", "roberta_scores", "distilbert_scores", "modernbert_scores"] {
        let (model, expected) = (golden(name), PathBuf::from(golden(name)).join("expected.safetensors"));
        let tokens = joined(&integers(&expected, "tokens"));
        near(name, &rows(&model, &tokens, &[]), &floats(&expected, "scores"), 1e-4);
    }
}

/// Whatever a directory holds, what can be known of it is told.
#[test]
fn inspect_tells_what_is_not_supported_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let source = PathBuf::from(golden("llama"));
    std::fs::copy(source.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(source.join("config.json")).unwrap();
    let path = folder.path().display().to_string();
    let inspect = |config: &str| {
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        json(&["inspect", &path])
    };
    let known = inspect(&config);
    assert_eq!(
        (&known["supported"], &known["gives"]),
        (&true.into(), &"logits, for `sinter run` and `sinter chat`".into())
    );
    let field = inspect(&config.replacen('{', "{\"grout_width\": 3,", 1));
    let family = inspect(&config.replace("\"llama\"", "\"tessera\""));
    for (value, reason) in
        [(&field, "unsupported field `grout_width` = 3"), (&family, "unknown model_type `tessera`")]
    {
        assert_eq!(value["supported"], false);
        assert!(value["reason"].as_str().unwrap().contains(reason), "{value}");
        assert_eq!(value["elements"], known["model"]["parameters"]);
        for told in ["checkpoint_bytes", "memory_bytes", "kv_bytes_per_token"] {
            assert_eq!(value[told], known[told], "{told}");
        }
    }
}

/// A directory that holds no model as it should be.
struct Odd {
    folder: tempfile::TempDir,
}

impl Odd {
    /// A golden's config with some fields set, and its weights.
    fn of(name: &str, fields: serde_json::Value) -> Odd {
        let odd = Odd::config(name, fields);
        odd.copy(name, "model.safetensors", "model.safetensors")
    }

    /// The config alone.
    fn config(name: &str, fields: serde_json::Value) -> Odd {
        let config = std::fs::read_to_string(PathBuf::from(golden(name)).join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        for (field, value) in fields.as_object().unwrap() {
            config[field] = value.clone();
        }
        Odd::empty().with("config.json", config.to_string().as_bytes())
    }

    fn empty() -> Odd {
        Odd { folder: tempfile::tempdir().unwrap() }
    }

    fn with(self, file: &str, bytes: &[u8]) -> Odd {
        let path = self.folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    fn copy(self, name: &str, from: &str, to: &str) -> Odd {
        let bytes = std::fs::read(PathBuf::from(golden(name)).join(from)).unwrap();
        self.with(to, &bytes)
    }

    /// The llama golden with its first tensor's type renamed.
    fn typed(dtype: &str) -> Odd {
        let bytes = std::fs::read(PathBuf::from(golden("llama")).join("model.safetensors")).unwrap();
        let from = b"\"dtype\":\"F32\"".as_slice();
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        let mut renamed = bytes.clone();
        renamed[at + 9..at + 12].copy_from_slice(dtype.as_bytes());
        Odd::config("llama", serde_json::json!({})).with("model.safetensors", &renamed)
    }

    /// What `inspect` says, and whether it could tell of the model.
    fn inspect(&self) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
        command.args(["inspect", "--json", &self.folder.path().display().to_string()]);
        let output =
            command.env("SINTER_CACHE", cache()).env("HF_HUB_CACHE", "/nonexistent").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => {
                let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!(value["supported"], false, "{value}");
                (true, value["reason"].as_str().unwrap().to_owned())
            }
            Some(1) => (false, stderr),
            code => panic!("ended with {code:?}: {stderr}"),
        }
    }
}

/// Models that are whole, but not for this compiler: what can be known of them is told, and why they are not supported.
#[test]
fn inspect_tells_of_models_that_are_not_supported() {
    use serde_json::json;
    let t5 = json!({ "model_type": "t5", "is_encoder_decoder": true });
    let dense = br#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]"#;
    let long = 10u64.pow(18);
    let cases = [
        (Odd::of("llama", t5), "unknown model_type `t5`"),
        (Odd::of("llama", json!({ "model_type": null })), "`model_type` is missing"),
        (Odd::of("llama", json!({ "is_encoder_decoder": true })), "`is_encoder_decoder` = true"),
        (Odd::of("llama", json!({ "hidden_size": 26 })), "wanted shape [101, 26], found [101, 24]"),
        (Odd::of("llama", json!({ "num_hidden_layers": 4 })), "`model.layers.3."),
        (Odd::of("llama", json!({ "num_hidden_layers": long })), "an integer from 1 to 4096"),
        (Odd::of("llama", json!({ "num_attention_heads": 0 })), "an integer from 1 to 16384, found 0"),
        (Odd::of("llama", json!({ "hidden_size": -3 })), "found -3"),
        (Odd::of("llama", json!({ "architectures": ["LlamaForSequenceClassification"] })), "`architectures`"),
        (Odd::of("llama", json!({ "rope_parameters": { "rope_type": "spiral" } })), "spiral"),
        (Odd::of("llama", json!({ "quantization_config": { "quant_method": "hqq" } })), "quant_method `hqq`"),
        (Odd::of("llama", json!({ "quantization_config": "awq" })), "wanted an object, found \"awq\""),
        (Odd::of("bert", json!({})).with("modules.json", dense), "`Dense`"),
        (Odd::typed("I32"), "wanted BF16, F16 or F32, found I32"),
    ];
    for (odd, wanted) in cases {
        let (told, reason) = odd.inspect();
        assert!(told && reason.contains(wanted), "wanted {wanted}: {reason}");
    }
}

/// Directories that miss something: the error names it, and what to do.
#[test]
fn inspect_says_what_a_directory_lacks() {
    let plain = || Odd::config("llama", serde_json::json!({}));
    let shards = Odd::config("llama_sharded", serde_json::json!({}));
    let shards = shards.copy("llama_sharded", "model.safetensors.index.json", "model.safetensors.index.json");
    let first = "model-00001-of-00002.safetensors";
    let outside = br#"{"weight_map": {"a": "../llama/model.safetensors"}}"#;
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let weights = "model.safetensors";
    let cases = [
        (Odd::empty(), "config.json: file not found"),
        (Odd::empty().copy("llama", weights, weights), "config.json: file not found"),
        (plain(), "found no file of weights"),
        (plain().with("pytorch_model.bin", b"PK"), "pytorch_model.bin (PyTorch weights; convert them"),
        (plain().copy("llama", weights, "adapter_model.safetensors"), "this is an adapter"),
        (plain().copy("llama", weights, "consolidated.safetensors"), "the model's makers"),
        (plain().copy("llama", weights, "weights.safetensors"), "rename the file"),
        (plain().with(weights, pointer), "git lfs pull"),
        (plain().with(weights, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"), "not a safetensors file"),
        (plain().with("model.safetensors.index.json", outside), "refused file name"),
        (Odd::empty().with("adapter_config.json", b"{}"), "merge_and_unload"),
        (Odd::empty().with("model_index.json", b"{}"), "pipeline that makes images"),
        (Odd::empty().with("0_Transformer/config.json", b"{}"), "lies in 0_Transformer"),
        (Odd::empty().with("a.gguf", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), "a.gguf"),
        (Odd::empty().with("a.gguf", b"").with("b.gguf", b""), "wanted one GGUF file, found a.gguf, b.gguf"),
        (shards.copy("llama_sharded", first, first), "model-00002-of-00002.safetensors: shard not found"),
        (Odd::typed("XYZ"), "XYZ"),
    ];
    for (odd, wanted) in cases {
        let (told, error) = odd.inspect();
        assert!(!told && error.contains(wanted), "wanted {wanted}: {error}");
    }
}
