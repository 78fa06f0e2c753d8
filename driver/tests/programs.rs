//! Programs beyond one text: sentence vectors as the model's files ask for them, and steps that requests share.

use sinter_driver::cli::{Cli, Command as Parsed};
use sinter_driver::environment::Environment;
use sinter_driver::output::Output;
use sinter_driver::pipeline;
use sinter_runtime::{Batch, BatchBuilder, Chunk, Limits, Rows, encode};
use std::path::{Path, PathBuf};
use std::process::Command;

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "testsuite", "goldens", name].iter().collect()
}

/// The golden encoder as a sentence encoder of at most five tokens.
fn sentence_encoder(folder: &Path) {
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("bert").join(name), folder.join(name)).unwrap();
    }
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write(
        "tokenizer.json",
        r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"[UNK]":0,"one":1,"two":2,"three":3,"four":4},"unk_token":"[UNK]"}}"#,
    );
    write(
        "modules.json",
        r#"[{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},
        {"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
        {"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}]"#,
    );
    std::fs::create_dir(folder.join("1_Pooling")).unwrap();
    write("1_Pooling/config.json", r#"{"word_embedding_dimension":30,"pooling_mode_mean_tokens":true}"#);
    write("sentence_bert_config.json", r#"{"max_seq_length":5,"do_lower_case":false}"#);
}

fn sinter(args: &[&str]) -> serde_json::Value {
    let cache = std::env::temp_dir().join("sinter-embed-tests");
    let output =
        Command::new(env!("CARGO_BIN_EXE_sinter")).args(args).env("SINTER_CACHE", cache).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The program of a golden model in f32.
fn program(model: &Path) -> pipeline::Program {
    let line = ["sinter", "bench", "m", "--dtype", "f32", "--threads", "2", "--device", "host"];
    let Parsed::Bench(args) = <Cli as clap::Parser>::parse_from(line).command else {
        panic!("another command")
    };
    let env = Environment::default();
    pipeline::prepare(model.to_str().unwrap(), &args.build.unwrap(), &env, &Output::new(false)).unwrap()
}

#[test]
fn vectors_are_normalised_means_also_from_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let (model, bundle) = (folder.path().join("m"), folder.path().join("b"));
    std::fs::create_dir(&model).unwrap();
    sentence_encoder(&model);
    let flags = ["two one four", "three", "one two three four one two", "--json"];
    let value = sinter(&[&["embed", model.to_str().unwrap(), "--dtype", "f32"], &flags[..]].concat());
    assert_eq!(value["tokens"], serde_json::json!([3, 1, 5]));
    let program = program(&model);
    let mut loaded = program.load(8, 8, false).unwrap();
    for (at, ids) in [&[2, 1, 4][..], &[3], &[1, 2, 3, 4, 1]].iter().enumerate() {
        let hidden = encode(&mut *loaded, ids).unwrap();
        let mut mean = [0.0f64; 30];
        hidden.chunks(30).for_each(|row| mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x)));
        let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
        for (wanted, found) in mean.iter().zip(value["embeddings"][at].as_array().unwrap()) {
            assert!((wanted / length - found.as_f64().unwrap()).abs() < 1e-6);
        }
    }
    let (model, bundle) = (model.to_str().unwrap(), bundle.to_str().unwrap());
    sinter(&["compile", model, "-o", bundle, "--dtype", "f32", "--json"]);
    assert_eq!(sinter(&[&["embed", bundle], &flags[..]].concat()), value);
}

/// A chunk of a sequence whose pages are given.
fn push(builder: &mut BatchBuilder, tokens: &[u32], start: usize, pages: &[u32]) {
    builder.push(Chunk { tokens, start, pages, rows: Rows::All });
}

#[test]
fn a_request_has_the_same_bits_whoever_shares_its_step() {
    let limits = Limits { vocab: 101, max_positions: 64, max_tokens: 64, max_sequences: 3, pages: 9 };
    let (a, b): (Vec<u32>, Vec<u32>) = ((0..23).collect(), (40..75).collect());
    for name in ["llama", "gemma2", "gpt2", "mistral_window"] {
        let program = program(&golden(name));
        let step = |batch: Batch| -> Vec<u32> {
            let mut model = program.load_with(limits, false).unwrap();
            model.step(&batch).unwrap().iter().map(|logit| logit.to_bits()).collect()
        };
        let alone = |tokens: &[u32], pages: &[u32]| {
            let mut builder = BatchBuilder::new();
            push(&mut builder, tokens, 0, pages);
            step(builder.finish())
        };
        let mut builder = BatchBuilder::new();
        push(&mut builder, &a, 0, &[7, 2]);
        push(&mut builder, &b, 0, &[1, 8, 4]);
        let together = step(builder.finish());
        let apart = [alone(&a, &[0, 1]), alone(&b, &[5, 3, 6])].concat();
        assert!(together == apart, "{name}");
    }
}

#[test]
fn texts_of_one_step_do_not_see_each_other() {
    let limits = Limits { vocab: 101, max_positions: 16, max_tokens: 32, max_sequences: 2, pages: 0 };
    let program = program(&golden("bert"));
    let step = |texts: &[&[u32]]| -> Vec<f32> {
        let mut model = program.load_with(limits, false).unwrap();
        let mut builder = BatchBuilder::new();
        texts.iter().for_each(|text| push(&mut builder, text, 0, &[]));
        model.step(&builder.finish()).unwrap().to_vec()
    };
    let (a, b) = (&[5u32, 6, 7][..], &[8u32, 9, 10, 11, 12][..]);
    let (together, apart) = (step(&[a, b]), [step(&[a]), step(&[b])].concat());
    let most = together.iter().zip(&apart).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most < 1e-5, "they differ by {most}");
    assert!(together == apart, "an encoder's bits depend on its neighbours");
}
