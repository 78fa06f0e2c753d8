//! Whole golden models, compiled for each target, through the model for GPUs on the virtual GPU.
//!
//! Each type and target is a test of its own, and `SINTER_GOLDENS=llama,bert` checks those models alone, so the whole can be
//! done in pieces.

use sinter_codegen_nvptx::compile;
use sinter_codegen_weights::pack_rows;
use sinter_ir::{DType, Target};
use sinter_runtime::{GpuConfig, GpuModel, Rows, RuntimeError, Session, encode};
use sinter_testsuite::compiled::{limits, plan, weights};
use sinter_testsuite::golden::{Golden, chosen, error_in_deviations, open};
use sinter_vgpu::VirtualGpu;
use std::sync::Arc;
use std::time::Instant;

/// Checks the chosen models for a target. They share the machine with the tests beside this one, so each runs on one thread.
fn sweep(target: Target, check: impl Fn(&Golden) -> Result<String, String>) {
    let mut wrong = Vec::new();
    for golden in chosen().iter().map(|name| open(name)) {
        let start = Instant::now();
        let result = check(&golden);
        let seconds = start.elapsed().as_secs_f64();
        let (Ok(said) | Err(said)) = &result;
        println!("{} for {target}: {said} ({seconds:.1} s)", golden.name);
        wrong.extend(result.err().map(|reason| format!("{} for {target}: {reason}", golden.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A golden model on the virtual GPU, with room for its prompt and its continuation.
fn load(golden: &Golden, dtype: DType, target: Target) -> Result<GpuModel, String> {
    let plan = plan(&golden.model, dtype);
    let program = compile(&plan, target).map_err(|error| error.to_string())?;
    let weights = weights(&golden.model, &plan, |def, source| pack_rows(def, source));
    let context = golden.tokens.len() + golden.greedy.as_ref().map_or(0, Vec::len);
    let config = GpuConfig { limits: limits(&golden.model, context), profile: false };
    let weight = |at: usize| Ok(weights[at].clone());
    let device = Box::new(VirtualGpu::new(target).with_workers(1));
    let model = GpuModel::new(Arc::new(plan), Arc::new(program), &weight, device, config);
    model.map_err(|error| error.to_string())
}

/// The logits of all tokens in chunks of so many, or an encoder's hidden values.
fn rows(
    (model, decoder): (&mut GpuModel, bool),
    tokens: &[u32],
    chunk: usize,
) -> Result<Vec<f32>, RuntimeError> {
    if !decoder {
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

/// How far a model in f32 is off, fed at once, or what is wrong with it so, in chunks or token by token.
fn float(golden: &Golden, target: Target) -> Result<String, String> {
    let mut model = load(golden, DType::F32, target)?;
    let mut feed = |tokens: &[u32], chunk| {
        rows((&mut model, golden.is_decoder()), tokens, chunk).map_err(|error| error.to_string())
    };
    let found = feed(&golden.tokens, golden.tokens.len())?;
    let error = error_in_deviations(&found, &golden.expected);
    let said = format!("off by {error:.1e} deviations in f32");
    if error.is_nan() || error > 1e-3 {
        return Err(said);
    }
    if !golden.is_decoder() {
        return Ok(said);
    }
    let greedy = golden.greedy.clone().unwrap_or_default();
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
    Ok(said)
}

#[test]
fn f32_sm_80() {
    sweep(Target::Sm80, |golden| float(golden, Target::Sm80));
}

#[test]
fn f32_sm_90a() {
    sweep(Target::Sm90a, |golden| float(golden, Target::Sm90a));
}

/// How far a model in bf16 is off, or what is wrong. The yardstick is transformers' own bfloat16 run of the same model.
fn half(golden: &Golden, target: Target) -> Result<String, String> {
    let mut model = load(golden, DType::Bf16, target)?;
    let mut feed = |tokens: &[u32], chunk| {
        rows((&mut model, golden.is_decoder()), tokens, chunk).map_err(|error| error.to_string())
    };
    let (ours, theirs) = golden.half(|tokens| feed(tokens, tokens.len()))?;
    let said = format!("{ours:.4} deviations in bf16, transformers {theirs:.4}");
    if ours.is_nan() || ours > 1.1 * theirs {
        return Err(said);
    }
    let tokens = &golden.tokens;
    match !golden.is_decoder() || same_bits(&feed(tokens, 1)?, &feed(tokens, tokens.len())?) {
        true => Ok(said),
        false => Err("one by one and at once give other bits".into()),
    }
}

#[test]
fn bf16_sm_80() {
    sweep(Target::Sm80, |golden| half(golden, Target::Sm80));
}

#[test]
fn bf16_sm_90a() {
    sweep(Target::Sm90a, |golden| half(golden, Target::Sm90a));
}
