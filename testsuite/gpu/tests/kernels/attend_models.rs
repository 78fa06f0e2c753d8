//! Whole golden models on the virtual GPU: masks, windows, caps, ALiBi and encoders as the front end writes them.

use sinter_codegen_host::micro::Isa;
use sinter_codegen_nvptx::compile;
use sinter_codegen_weights::pack_rows;
use sinter_frontend::build::{BuildOptions, KvCache, KvCodes};
use sinter_frontend::model::Model;
use sinter_frontend::source::ModelDir;
use sinter_ir::{DType, Target};
use sinter_runtime::{GpuConfig, GpuModel};
use sinter_testsuite::compiled::{greedy, limits, logits, plan_of, weights, whole};
use sinter_testsuite::golden::{Golden, distance_in_deviations, error_in_deviations, open};
use sinter_testsuite::host;
use sinter_vgpu::VirtualGpu;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

/// Groups of heads, a window with caps, ALiBi, an encoder, and one head a group.
const MODELS: [&str; 6] = ["llama", "gemma2", "mistral_window", "bloom", "bert", "gpt2"];

fn load(golden: &Golden, dtype: DType, target: Target) -> GpuModel {
    load_built(golden, BuildOptions::new(dtype), target)
}

fn load_built(golden: &Golden, options: BuildOptions, target: Target) -> GpuModel {
    on_virtual_gpu(&golden.model, options, (target, golden.tokens.len()))
}

/// A model for texts of so many tokens.
fn on_virtual_gpu(model: &Model, options: BuildOptions, (target, tokens): (Target, usize)) -> GpuModel {
    let plan = plan_of(model, options, false);
    let packed = weights(model, &plan, |def, source| pack_rows(def, source));
    let program = compile(&plan, target).unwrap_or_else(|error| panic!("{}: {error}", plan.name));
    let attention = program.kernels.iter().filter(|kernel| kernel.name.starts_with("attend")).count();
    assert!(attention >= 1, "{}: no kernel of attention", plan.name);
    let config = GpuConfig { limits: limits(model, tokens), profile: false };
    let device = Box::new(VirtualGpu::new(target));
    let weight = |at: usize| Ok(packed[at].clone());
    GpuModel::new(Arc::new(plan), Arc::new(program), &weight, device, config)
        .unwrap_or_else(|error| panic!("{error}"))
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

/// With caches of codes: what the host computes with the same codes, in f32 within float rounding and in bf16 as near to the
/// golden numbers as it; and the same bits in any chunks.
#[test]
fn attend_on_codes_in_whole_models() {
    for (name, dtype, codes, target) in [
        ("llama", DType::F32, KvCodes::Int8, Target::Sm80),
        ("mistral_window", DType::F32, KvCodes::Int4, Target::Sm90a),
        ("llama", DType::Bf16, KvCodes::Int8, Target::Sm90a),
        ("gemma2", DType::Bf16, KvCodes::Fp8, Target::Sm80),
    ] {
        let golden = open(name);
        let options = BuildOptions { kv_cache: KvCache::Codes(codes), ..BuildOptions::new(dtype) };
        let count = golden.tokens.len();
        let mut wanted =
            host::load_built(&golden.model, options, Isa::detect(), limits(&golden.model, count));
        let wanted = whole(&mut wanted, &golden.tokens);
        let mut model = load_built(&golden, options, target);
        let found = logits(&mut model, &golden.tokens, [count]);
        if dtype == DType::F32 {
            let error = error_in_deviations(&found, &wanted);
            eprintln!("{name} {codes}: {error:.1e} deviations from the host");
            assert!(error <= 1e-3, "{name} {codes}: {error} deviations");
        } else {
            let [ours, theirs] = [&found, &wanted].map(|rows| distance_in_deviations(rows, &golden.expected));
            eprintln!("{name} {codes}: {ours:.4} deviations, on the host {theirs:.4}");
            assert!(ours <= 1.1 * theirs, "{name} {codes}: {ours} deviations, on the host {theirs}");
        }
        let chunked = logits(&mut model, &golden.tokens, [1, 5, count]);
        let same = found.iter().zip(&chunked).all(|(x, y)| x.to_bits() == y.to_bits());
        assert!(same && found.len() == chunked.len(), "{name} {codes}: other bits in other chunks");
    }
}

/// The example model with a cache of codes answers on the virtual GPU what it answers on the host.
#[test]
fn the_example_answers_on_codes_as_on_the_host() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/tiny_chat/model");
    let model = Model::open(ModelDir::open(&path).expect("the example")).expect("the example opens");
    let prompt = [1, 5, 77, 300, 12, 900, 41, 8];
    let options = BuildOptions { kv_cache: KvCache::Codes(KvCodes::Int8), ..BuildOptions::new(DType::F32) };
    let mut on_host = host::load_built(&model, options, Isa::detect(), limits(&model, 32));
    let wanted = greedy(&mut on_host, &prompt, 4);
    let mut on_gpu = on_virtual_gpu(&model, options, (Target::Sm80, 32));
    assert_eq!(greedy(&mut on_gpu, &prompt, 4), wanted);
}
