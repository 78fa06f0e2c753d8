//! Quantised checkpoints: logits equal those of the dequantised weights in float32, and the fast way of computing weights
//! gives the bits of the naive one.

use sinter_codegen_host::micro::Isa;
use sinter_codegen_weights::{RawTensor, pack_rows};
use sinter_frontend::build::{Activations, BuildOptions};
use sinter_ir::{Binding, DType, Layout, Op, Tensor, WeightDef, evaluate};
use sinter_testsuite::compiled;
use sinter_testsuite::golden::{self, Golden, error_in_deviations};
use sinter_testsuite::host::{instruction_sets, load, load_built, logits};

/// The distance that float32 sums in another order make.
const BOUND: f64 = 1e-5;

fn cases() -> Vec<Golden> {
    let names = golden::quantised_names();
    assert!(names.len() >= 21, "found only {}", names.len());
    names.iter().map(|name| golden::open(name)).collect()
}

#[test]
fn logits_are_those_of_the_dequantised_weights() {
    for golden in cases() {
        let mut model = load(&golden.model, DType::F32, Isa::detect(), golden.tokens.len());
        let found = logits(&mut model, &golden.tokens, [golden.tokens.len()]);
        let error = error_in_deviations(&found, &golden.expected);
        println!("{}: {error:.1e} deviations", golden.name);
        assert!(error <= BOUND, "{}: {error} deviations", golden.name);
        let unused = golden.model.notes.iter().find(|note| note.contains("not used"));
        assert!(unused.is_none(), "{}: {unused:?}", golden.name);
    }
}

/// Checkpoints whose codes are whole numbers with scales for runs of columns: in memory they stay codes.
const CODES: [&str; 10] = [
    "awq",
    "ct_int8",
    "ct_int8_static_asymmetric",
    "ct_w4_group",
    "ct_w4_group_asymmetric",
    "ct_w8_channel",
    "ct_w8_group_asymmetric",
    "gptq_2",
    "gptq_4",
    "gptq_8_v2",
];

fn of_codes(golden: &Golden) -> bool {
    CODES.contains(&golden.name.trim_start_matches("quantised/"))
}

#[test]
fn codes_stay_codes_in_memory() {
    for golden in cases() {
        for dtype in [DType::F32, DType::Bf16] {
            let plan = compiled::plan_of(&golden.model, BuildOptions::new(dtype), true);
            let codes = |def: &&WeightDef| matches!(def.layout, Layout::Codes(_));
            let wanted = if of_codes(&golden) { 5 } else { 0 };
            assert_eq!(plan.weights.values().filter(codes).count(), wanted, "{} in {dtype}", golden.name);
        }
    }
}

/// Activations of 8 bits round once more: logits are near those of exact ones, and not the same.
#[test]
fn activations_of_eight_bits_stay_near() {
    for golden in cases().into_iter().filter(of_codes) {
        let options = BuildOptions { activations: Activations::Int8, ..BuildOptions::new(DType::F32) };
        let limits = compiled::limits(&golden.model, golden.tokens.len());
        let plan = compiled::plan_of(&golden.model, options, true);
        let whole = |def: &&WeightDef| matches!(def.layout, Layout::Codes(_));
        assert_eq!(plan.weights.values().filter(whole).count(), 5, "{}", golden.name);
        let mut found = Vec::new();
        for isa in instruction_sets() {
            let mut model = load_built(&golden.model, options, isa, limits);
            found.push(logits(&mut model, &golden.tokens, [golden.tokens.len()]));
            let mut model = load_built(&golden.model, options, isa, limits);
            let chunked = logits(&mut model, &golden.tokens, [1, 3, golden.tokens.len()]);
            let same = found
                .last()
                .is_some_and(|whole| whole.iter().zip(&chunked).all(|(a, b)| a.to_bits() == b.to_bits()));
            assert!(same, "{}: other bits in other chunks", golden.name);
        }
        let error = error_in_deviations(&found[0], &golden.expected);
        println!("{}: {error:.1e} deviations", golden.name);
        assert!((1e-4..0.2).contains(&error), "{}: {error} deviations", golden.name);
    }
}

#[test]
fn weights_have_the_bits_of_the_naive_evaluator() {
    for golden in cases() {
        let graph = golden.model.build(BuildOptions::new(DType::F32)).unwrap();
        let wanted = |name: &str| {
            let node = graph.nodes.values().find(|node| node.op.leaf_name() == Some(name))?;
            let (dtype, shape, bytes) = golden.model.tensor(name)?;
            let raw = RawTensor { dtype, shape, bytes: &bytes }.seen_as(node.ty.dtype);
            let data = raw.bytes.chunks_exact(raw.dtype.bytes()).map(|b| raw.dtype.read(b) as f32).collect();
            Some(Tensor::<f32>::new(raw.shape, data))
        };
        let plan = sinter_passes::compile(&graph, &sinter_passes::Options::default()).unwrap().plan;
        let computed = |def: &&WeightDef| def.source.nodes.values().any(|node| matches!(node.op, Op::Map(_)));
        let weights: Vec<&WeightDef> = plan.weights.values().filter(computed).collect();
        assert_eq!(weights.len(), 5, "{}: q, k and v in one, o, gate, up, down", golden.name);
        for weight in weights {
            let weight = WeightDef { layout: Layout::Rows, ..weight.clone() };
            let naive = evaluate(&weight.source, &Binding { values: [1; 5] }, &wanted).unwrap().remove(0).1;
            let leaves = weight.source.nodes.values().filter_map(|node| node.op.leaf_name());
            let tensors: std::collections::BTreeMap<_, _> =
                leaves.map(|name| (name, golden.model.tensor(name).unwrap())).collect();
            let raw = |name: &str| {
                let (dtype, shape, bytes) = tensors.get(name)?;
                Some(RawTensor { dtype: *dtype, shape: shape.clone(), bytes })
            };
            let packed = pack_rows(&weight, &raw).unwrap();
            let bytes: Vec<u8> = naive.data.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert!(packed[..] == bytes[..], "{}: {}", golden.name, weight.source);
        }
    }
}
