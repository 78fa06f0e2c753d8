//! Files of weights, sound and broken.

mod support;

use sinter_frontend::header::parse_header;
use sinter_frontend::source::ModelDir;
use sinter_frontend::weights::Weights;
use sinter_ir::DType;
use support::{Model, safetensors, says, with_header};

fn single(bytes: impl AsRef<[u8]>) -> Model {
    Model::new().file("model.safetensors", bytes)
}

fn refused(model: &Model, words: &[&str]) {
    says(Weights::open(&model.open()).unwrap_err(), words);
}

#[test]
fn a_sound_file_gives_its_tensors() {
    let mut bytes = safetensors(&[("a", "F32", &[2, 1]), ("b", "BF16", &[3]), ("c", "F16", &[1])]);
    let data = bytes.len() - 16;
    bytes[data..data + 4].copy_from_slice(&1.5f32.to_le_bytes());
    bytes[data + 8..data + 10].copy_from_slice(&0x3fc0u16.to_le_bytes());
    let model = single(&bytes);
    let weights = Weights::open(&model.open()).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    let a = weights.require("a", &[2, 1]).unwrap();
    assert_eq!((a.dtype, a.bytes.len()), (DType::F32, 8));
    assert_eq!(a.to_f32(), [1.5, 0.0]);
    assert_eq!(weights.get("b").unwrap().to_f32(), [1.5, 0.0, 0.0]);
    assert_eq!(weights.total_bytes(), 16);
}

#[test]
fn missing_and_wrong_tensors_are_named() {
    let tensors: &[(&str, &str, &[usize])] =
        &[("model.layers.0.mlp.up.weight", "F32", &[2, 3]), ("model.ids", "I64", &[1]), ("x", "F32", &[1])];
    let model = single(safetensors(tensors));
    let weights = Weights::open(&model.open()).unwrap();
    let missing = weights.get("model.layers.0.mlp.up_proj.weight").unwrap_err();
    says(missing, &["up_proj", "the nearest names are `model.layers.0.mlp.up.weight`"]);
    let shape = weights.require("model.layers.0.mlp.up.weight", &[3, 2]).unwrap_err();
    says(shape, &["wanted shape [3, 2]", "found [2, 3]", "model.safetensors"]);
    says(weights.get("model.ids").unwrap_err(), &["model.ids", "wanted BF16, F16 or F32", "I64"]);
}

#[test]
fn broken_headers_are_refused() {
    let bad = |header: &str, data: usize, words: &[&str]| refused(&single(with_header(header, data)), words);
    refused(&single(b""), &["0 bytes", "at least 8"]);
    refused(&single([0; 7]), &["7 bytes"]);
    refused(&single([0; 8]), &["does not begin with"]);
    refused(&single([0xff; 64]), &["claims 18446744073709551615"]);
    refused(&single(200u64.to_le_bytes()), &["claims 200 bytes", "download it again"]);
    refused(&single(100_000_001u64.to_le_bytes()), &["at most 100000000"]);
    bad(" {}", 0, &["does not begin with `{`"]);
    bad("{\"a\u{0}", 0, &["not a table"]);
    bad(r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#, 4, &["F99"]);
    bad(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4, &["-1"]);
    bad(r#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#, 4, &["1.5"]);
    bad(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 3, &["truncated"]);
    bad(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 5, &["stray bytes"]);
    bad(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8, &["tensor `a`", "leaves a gap"]);
    bad(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4, &["tensor `a`"]);
    bad(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4, &["wants 8 bytes", "give 4"]);
    bad(
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
        0,
        &["tensor `a`", "no byte length"],
    );
    bad(
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
        3,
        &["tensor `b`", "overlaps"],
    );
    bad(
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#,
        4,
        &["tensor `a`", "twice"],
    );
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    bad(&deep, 0, &["not a table"]);
    let deep = format!(r#"{{"__metadata__":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    bad(&deep, 0, &["not a table"]);
    let many = format!(r#"{{"a":{{"dtype":"U8","shape":{:?},"data_offsets":[0,1]}}}}"#, [1; 17]);
    bad(&many, 1, &["more than 16 dimensions"]);
}

#[test]
fn every_truncation_is_refused() {
    let bytes = safetensors(&[("a", "F32", &[4]), ("b", "U8", &[3])]);
    assert!(parse_header(&bytes, bytes.len() as u64).is_ok());
    for len in 0..bytes.len() {
        assert!(parse_header(&bytes[..len], len as u64).is_err(), "{len}");
    }
}

const INDEX: &str = "model.safetensors.index.json";

fn sharded(weight_map: &str) -> Model {
    Model::new()
        .file("one.safetensors", safetensors(&[("a", "F32", &[1])]))
        .file("two.safetensors", safetensors(&[("b", "F32", &[1])]))
        .file(INDEX, format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{weight_map}}}"#))
}

#[test]
fn shards_are_read_together() {
    let model = sharded(r#"{"a":"one.safetensors","b":"two.safetensors"}"#);
    let weights = Weights::open(&model.open()).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
    let (quick, full) = (weights.content_hash(), weights.full_sha256());
    let again = Weights::open(&model.open()).unwrap();
    assert_eq!((again.content_hash(), again.full_sha256()), (quick, full));
    let mut bytes = safetensors(&[("b", "F32", &[1])]);
    *bytes.last_mut().unwrap() = 1;
    let model = model.file("two.safetensors", bytes);
    assert_ne!(Weights::open(&model.open()).unwrap().full_sha256(), full);
}

#[test]
fn broken_indexes_are_refused() {
    refused(
        &sharded(r#"{"a":"one.safetensors","b":"three.safetensors"}"#),
        &["three.safetensors", "not found"],
    );
    refused(&sharded(r#"{"a":"one.safetensors","c":"two.safetensors"}"#), &["tensor `c`", "two.safetensors"]);
    refused(&sharded(r#"{"a":"../one.safetensors"}"#), &["../one.safetensors", "`..`"]);
    refused(&sharded(r#"{"a":"/etc/passwd"}"#), &["/etc/passwd", "absolute"]);
    refused(&sharded(r#"{"a":"one\u0000.safetensors"}"#), &["control character"]);
    refused(&sharded(r#"{"a":"a\\..\\one.safetensors"}"#), &["backslash"]);
    refused(&sharded(r#"{"a":""}"#), &["empty name"]);
    refused(&sharded(r#"{"a":3}"#), &[INDEX]);
    refused(&sharded("{}"), &["names no tensor"]);
    refused(&sharded("[]"), &[INDEX]);
    refused(&sharded(r#"{"a":"one.safetensors","a":"two.safetensors"}"#), &["listed twice"]);
    let both = sharded(r#"{"a":"one.safetensors","b":"two.safetensors"}"#)
        .file("two.safetensors", safetensors(&[("a", "F32", &[1]), ("b", "F32", &[1])]));
    refused(&both, &["tensor `a`", "one.safetensors", "two.safetensors"]);
    let whole = safetensors(&[("b", "F32", &[1])]);
    let cut = sharded(r#"{"a":"one.safetensors","b":"two.safetensors"}"#)
        .file("two.safetensors", &whole[..whole.len() - 1]);
    refused(
        &cut,
        &["two.safetensors", "truncated", &whole.len().to_string(), &(whole.len() - 1).to_string()],
    );
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    refused(&sharded(&deep), &[INDEX]);
}

#[test]
fn other_kinds_of_weights_are_named() {
    refused(&Model::new(), &["wanted model.safetensors", "no file of weights"]);
    refused(&Model::new().file("pytorch_model.bin", "x"), &["pytorch_model.bin", "convert"]);
    let named = Model::new().file("m.gguf", "x");
    says(ModelDir::open(named.path()).unwrap_err(), &["m.gguf", "GGUF"]);
}

#[test]
fn a_million_entries_take_no_time() {
    let entries: Vec<String> = (0..1_000_000).map(|n| format!(r#""t{n}":"s{n}.safetensors""#)).collect();
    let model = sharded(&format!("{{{}}}", entries.join(",")));
    let start = std::time::Instant::now();
    refused(&model, &["1000000 shards"]);
    assert!(start.elapsed().as_secs_f64() < 3.0, "{:?}", start.elapsed());
}
