//! Whole golden models, compiled for each target, through the model for GPUs on the virtual GPU.

use sinter_codegen_nvptx::compile;
use sinter_codegen_weights::pack_rows;
use sinter_ir::{DType, Target};
use sinter_runtime::{DeviceModel, GpuConfig, GpuModel, Rows, RuntimeError, Session, encode};
use sinter_testsuite::compiled::{limits, plan, weights};
use sinter_testsuite::golden::{Golden, distance_in_deviations, error_in_deviations, folder, names, open};
use sinter_vgpu::VirtualGpu;
use std::collections::BTreeMap;
use std::sync::Arc;

const TARGETS: [Target; 2] = [Target::Sm80, Target::Sm90a];

/// A golden model on the virtual GPU, with room for its prompt and its continuation.
fn load(golden: &Golden, dtype: DType, target: Target) -> Result<GpuModel, String> {
    let plan = plan(&golden.model, dtype);
    let program = compile(&plan, target).map_err(|error| error.to_string())?;
    let weights = weights(&golden.model, &plan, |def, source| pack_rows(def, source));
    let context = golden.tokens.len() + golden.greedy.as_ref().map_or(0, Vec::len);
    let config = GpuConfig { limits: limits(&golden.model, context), profile: false };
    let weight = |at: usize| Ok(weights[at].clone());
    let device = Box::new(VirtualGpu::new(target));
    let model = GpuModel::new(Arc::new(plan), Arc::new(program), &weight, device, config);
    model.map_err(|error| error.to_string())
}

/// The logits of all tokens in chunks of so many, or an encoder's hidden values.
fn rows(model: &mut GpuModel, tokens: &[u32], chunk: usize) -> Result<Vec<f32>, RuntimeError> {
    if model.result_name() != "logits" {
        return Ok(encode(model, tokens)?.to_vec());
    }
    let mut session = Session::new(model);
    let mut rows = Vec::new();
    for piece in tokens.chunks(chunk) {
        rows.extend_from_slice(session.feed(piece, Rows::All)?);
    }
    Ok(rows)
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// What is wrong with a model in f32, fed at once, in chunks and token by token.
fn float(golden: &Golden, target: Target) -> Result<(), String> {
    let mut model = load(golden, DType::F32, target)?;
    let mut feed = |tokens: &[u32], chunk| rows(&mut model, tokens, chunk).map_err(|error| error.to_string());
    let found = feed(&golden.tokens, golden.tokens.len())?;
    let error = error_in_deviations(&found, &golden.expected);
    println!("{} for {target}: {error:.1e} deviations", golden.name);
    if error.is_nan() || error > 1e-3 {
        return Err(format!("off by {error:.1e} deviations"));
    }
    let Some(greedy) = &golden.greedy else { return Ok(()) };
    // Prompt and continuation one by one are the prompt by chunks of 1, and a decode after it.
    let all = [&golden.tokens[..], &greedy[..]].concat();
    let one_by_one = feed(&all, 1)?;
    if !same_bits(&one_by_one[..found.len()], &found) {
        return Err("one by one and at once give other bits".into());
    }
    if !same_bits(&feed(&golden.tokens, 3)?, &found) {
        return Err("chunks of 3 and at once give other bits".into());
    }
    let width = found.len() / golden.tokens.len();
    for (at, wanted) in greedy.iter().enumerate() {
        let row = &one_by_one[(golden.tokens.len() + at - 1) * width..][..width];
        let best = (0..width).max_by(|a, b| row[*a].total_cmp(&row[*b]).then(b.cmp(a)));
        if best != Some(*wanted as usize) {
            return Err(format!("token {at} is {best:?}, transformers has {wanted}"));
        }
    }
    Ok(())
}

#[test]
fn models_agree_with_transformers_and_with_themselves() {
    let mut wrong = Vec::new();
    for golden in names().iter().map(|name| open(name)) {
        for target in TARGETS {
            let result = float(&golden, target);
            wrong.extend(result.err().map(|reason| format!("{} for {target}: {reason}", golden.name)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with a model in bf16, whose distance transformers has from its own float32.
fn half(golden: &Golden, target: Target, theirs: f64) -> Result<(), String> {
    let mut model = load(golden, DType::Bf16, target)?;
    let mut feed = |chunk| rows(&mut model, &golden.tokens, chunk).map_err(|error| error.to_string());
    let found = feed(golden.tokens.len())?;
    let ours = distance_in_deviations(&found, &golden.expected);
    println!("{} for {target}: {ours:.4} deviations, transformers {theirs:.4}", golden.name);
    if ours.is_nan() || ours > 1.1 * theirs {
        return Err(format!("{ours:.4} deviations, transformers {theirs:.4}"));
    }
    match golden.greedy.is_none() || same_bits(&feed(1)?, &found) {
        true => Ok(()),
        false => Err("one by one and at once give other bits".into()),
    }
}

/// The yardstick is transformers' own bfloat16 run of the same model (`goldens/make_bf16.py`).
#[test]
fn bf16_is_as_near_to_float32_as_transformers_is() {
    let table = std::fs::read_to_string(folder().join("bf16.json")).expect("the table");
    let table: BTreeMap<String, f64> = serde_json::from_str(&table).expect("names and distances");
    let mut wrong = Vec::new();
    for (name, theirs) in table {
        let golden = open(&name);
        for target in TARGETS {
            let result = half(&golden, target, theirs);
            wrong.extend(result.err().map(|reason| format!("{name} for {target}: {reason}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
