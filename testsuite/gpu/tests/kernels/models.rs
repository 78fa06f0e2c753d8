//! Whole golden models, compiled and run on the virtual GPU.

use sinter_codegen_nvptx::compile;
use sinter_codegen_weights::pack_rows;
use sinter_frontend::build::BuildOptions;
use sinter_ir::{DType, Layout, Plan, Target};
use sinter_runtime::{GpuConfig, GpuModel};
use sinter_testsuite::compiled::{greedy, limits, logits, plan, plan_of, weights, whole};
use sinter_testsuite::golden::{Golden, error_in_deviations, open};
use sinter_vgpu::VirtualGpu;
use std::sync::Arc;

/// Models of different structure; the arithmetic of all families is tested elsewhere.
const MODELS: [&str; 9] =
    ["bert", "gemma2", "gpt2", "gpt_neox", "llama", "llama_tied_bias", "mistral_window", "phi3", "qwen3"];

fn load(golden: &Golden, dtype: DType, target: Target) -> GpuModel {
    load_plan(golden, plan(&golden.model, dtype), target)
}

fn load_plan(golden: &Golden, plan: Plan, target: Target) -> GpuModel {
    let weights = weights(&golden.model, &plan, |def, source| pack_rows(def, source));
    let context = golden.tokens.len() + golden.greedy.as_ref().map_or(0, Vec::len);
    let config = GpuConfig { limits: limits(&golden.model, context), profile: false };
    let program = compile(&plan, target).unwrap_or_else(|error| panic!("{}: {error}", golden.name));
    let device = Box::new(VirtualGpu::new(target));
    let weight = |at: usize| Ok(weights[at].clone());
    GpuModel::new(Arc::new(plan), Arc::new(program), &weight, device, config)
        .unwrap_or_else(|error| panic!("{}: {error}", golden.name))
}

#[test]
fn golden_models_agree_with_transformers_in_f32() {
    for (name, target) in MODELS.iter().zip(Target::ALL.iter().cycle()) {
        let golden = open(name);
        let mut model = load(&golden, DType::F32, *target);
        let found = whole(&mut model, &golden.tokens);
        let error = error_in_deviations(&found, &golden.expected);
        println!("{name} for {target}: off by {error:.1e} deviations");
        assert!(error < 1e-3, "{name}: off by {error:.1e} deviations");
        if let Some(expected) = &golden.greedy {
            let count = expected.len().min(4);
            assert_eq!(greedy(&mut model, &golden.tokens, count), expected[..count], "{name}");
        }
    }
}

#[test]
fn any_chunking_gives_the_same_bits() {
    for dtype in [DType::F32, DType::Bf16] {
        for (name, target) in [("llama", Target::Sm80), ("qwen3", Target::Sm90a)] {
            let golden = open(name);
            let mut model = load(&golden, dtype, target);
            let tokens = &golden.tokens;
            let whole = logits(&mut model, tokens, [tokens.len()]);
            for chunk in [1, 3] {
                let chunks = std::iter::repeat_n(chunk, tokens.len());
                assert_eq!(logits(&mut model, tokens, chunks), whole, "{name} in {dtype}, chunks of {chunk}");
            }
        }
    }
}

/// Quantised checkpoints with their codes in memory: the logits of transformers on the dequantised weights, and in any chunks the
/// bits of the weights dequantised at load.
#[test]
fn codes_in_memory_give_the_bits_of_numbers() {
    for (name, target) in
        [("gptq_4", Target::Sm90a), ("awq", Target::Sm80), ("ct_w8_group_asymmetric", Target::Sm89)]
    {
        let golden = open(&format!("quantised/{name}"));
        for dtype in [DType::F32, DType::Bf16] {
            let options = BuildOptions::new(dtype);
            let [codes, numbers] = [true, false].map(|codes| {
                let plan = plan_of(&golden.model, options, codes);
                let coded =
                    plan.weights.values().filter(|def| matches!(def.layout, Layout::Codes(_))).count();
                assert_eq!(coded > 0, codes, "{name}");
                let mut model = load_plan(&golden, plan, target);
                let chunks = if codes { [1, 3, golden.tokens.len()] } else { [golden.tokens.len(), 0, 0] };
                logits(&mut model, &golden.tokens, chunks)
            });
            assert!(codes.iter().zip(&numbers).all(|(a, b)| a.to_bits() == b.to_bits()), "{name} in {dtype}");
            let error = error_in_deviations(&codes, &golden.expected);
            println!("{name} in {dtype} for {target}: off by {error:.1e} deviations");
            assert!(dtype == DType::Bf16 || error < 1e-3, "{name}: off by {error:.1e} deviations");
        }
    }
}
