//! Quantised checkpoints: logits equal those of the dequantised weights in float32, and the fast way of computing weights
//! gives the bits of the naive one.

use sinter_codegen_host::micro::Isa;
use sinter_codegen_weights::{RawTensor, pack_rows};
use sinter_frontend::build::BuildOptions;
use sinter_ir::{Binding, DType, Layout, Op, Tensor, WeightDef, evaluate};
use sinter_testsuite::golden::{self, Golden, error_in_deviations};
use sinter_testsuite::host::{load, logits};

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

#[test]
fn weights_have_the_bits_of_the_naive_evaluator() {
    let blocks = ["formats_32", "formats_256"].map(golden::open_gguf);
    for golden in cases().into_iter().chain(blocks) {
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
        // GGUF files have their embeddings in blocks too.
        let wanted_count = if golden.name.starts_with("formats") { 6 } else { 5 };
        assert_eq!(weights.len(), wanted_count, "{}: q, k and v in one, o, gate, up, down", golden.name);
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
