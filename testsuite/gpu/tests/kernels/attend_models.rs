//! Whole golden models on the virtual GPU: masks, windows, caps, ALiBi and encoders as the front end writes them.

use sinter_codegen_nvptx::compile;
use sinter_codegen_weights::pack_rows;
use sinter_ir::{DType, Target};
use sinter_runtime::{GpuConfig, GpuModel};
use sinter_testsuite::compiled::{limits, logits, plan, weights, whole};
use sinter_testsuite::golden::{Golden, error_in_deviations, open};
use sinter_vgpu::VirtualGpu;
use std::convert::Infallible;
use std::sync::Arc;

/// Groups of heads, a window with caps, ALiBi, an encoder, and one head a group.
const MODELS: [&str; 6] = ["llama", "gemma2", "mistral_window", "bloom", "bert", "gpt2"];

fn load(golden: &Golden, dtype: DType, target: Target) -> GpuModel {
    let plan = plan(&golden.model, dtype);
    let packed = weights(&golden.model, &plan, |def, source| pack_rows(def, source));
    let program = compile(&plan, target).unwrap_or_else(|error| panic!("{}: {error}", golden.name));
    let attention = program.kernels.iter().filter(|kernel| kernel.name.starts_with("attend")).count();
    assert!(attention >= 1, "{}: no kernel of attention", golden.name);
    let config = GpuConfig { limits: limits(&golden.model, golden.tokens.len()), profile: false };
    let device = Box::new(VirtualGpu::new(target));
    let weight = |at: usize| Ok(packed[at].clone());
    GpuModel::new(Arc::new(plan), Arc::new(program), &weight, device, config)
        .unwrap_or_else(|error| panic!("{}: {error}", golden.name))
}

#[test]
fn attend_in_whole_models_in_f32() {
    for name in MODELS {
        let golden = open(name);
        let mut model = load(&golden, DType::F32, Target::Sm80);
        let found = whole(&mut model, &golden.tokens);
        let error = error_in_deviations(&found, &golden.expected);
        eprintln!("{name}: {error:.1e} deviations");
        assert!(error <= 1e-3, "{name}: {error} deviations");
    }
}

/// The yardstick is transformers' own bfloat16 run of the same model.
#[test]
fn attend_in_whole_models_in_bf16() {
    for name in MODELS {
        let golden = open(name);
        let mut model = load(&golden, DType::Bf16, Target::Sm80);
        let Ok((ours, theirs)) = golden.half(|tokens| Ok::<_, Infallible>(whole(&mut model, tokens)));
        eprintln!("{name}: {ours:.4} deviations, transformers {theirs:.4}");
        assert!(ours <= 1.1 * theirs, "{name}: {ours} deviations, transformers {theirs}");
    }
}

#[test]
fn attend_in_whole_models_whatever_the_chunks() {
    for (name, dtype) in [("llama", DType::F32), ("llama", DType::Bf16), ("gemma2", DType::Bf16)] {
        let golden = open(name);
        let mut model = load(&golden, dtype, Target::Sm90a);
        let count = golden.tokens.len();
        let together = logits(&mut model, &golden.tokens, [count]);
        for chunk in [1, 5] {
            let found = logits(&mut model, &golden.tokens, std::iter::repeat_n(chunk, count));
            let same = together.iter().zip(&found).all(|(x, y)| x.to_bits() == y.to_bits());
            assert!(same, "{name} in {dtype}: chunks of {chunk} change the result");
        }
    }
}
