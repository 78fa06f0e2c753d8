//! A model on the host back end, for any instruction set that this machine has.

use sinter_codegen_host::micro::Isa;
use sinter_codegen_host::{AlignedBytes, RawTensor, compile_all, pack};
use sinter_frontend::build::BuildOptions;
use sinter_frontend::model::Model;
use sinter_ir::{DType, PAGE};
use sinter_runtime::{HostConfig, HostModel, Limits, Rows, Session, WeightBytes};
use std::sync::Arc;

/// The instruction sets that this machine has.
pub fn instruction_sets() -> Vec<Isa> {
    let all = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];
    all.into_iter().filter(|isa| *isa <= Isa::detect()).collect()
}

/// Compiles and loads a model for one sequence of at most `context` tokens.
pub fn load(model: &Model, dtype: DType, isa: Isa, context: usize) -> HostModel {
    let graph = model.build(BuildOptions::new(dtype)).expect("the graph builds");
    let compiled =
        sinter_passes::compile(&graph, &sinter_passes::Options::default()).expect("the graph compiles");
    let tiles: Vec<_> = compiled.plan.kernels.values().collect();
    let kernels = compile_all(&tiles, isa).expect("the kernels compile");
    let weights = compiled.plan.weights.values().map(|weight| {
        let tensor = |name: &str| model.tensor(name);
        let leaves = weight.source.nodes.values().filter_map(|node| node.op.leaf_name());
        let tensors: std::collections::BTreeMap<_, _> =
            leaves.map(|name| (name, tensor(name).expect("the weight is there"))).collect();
        let raw = |name: &str| {
            let (dtype, shape, bytes) = tensors.get(name)?;
            Some(RawTensor { dtype: *dtype, shape: shape.clone(), bytes })
        };
        WeightBytes::new(Arc::new(Owned(pack(weight, &raw).expect("the weight packs").bytes)))
    });
    let limits = Limits {
        vocab: model.spec.vocab,
        max_positions: context,
        max_tokens: context,
        max_sequences: 1,
        pages: context.div_ceil(PAGE as usize),
    };
    let weights = weights.collect();
    let config = HostConfig { threads: 2, limits, profile: false };
    HostModel::new(Arc::new(compiled.plan), kernels, weights, config).expect("the model loads")
}

struct Owned(AlignedBytes);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The logits of all tokens, fed in the given chunks.
pub fn logits(model: &mut HostModel, tokens: &[u32], chunks: impl IntoIterator<Item = usize>) -> Vec<f32> {
    let mut session = Session::new(model);
    let (mut values, mut at) = (Vec::new(), 0);
    for chunk in chunks {
        let end = (at + chunk).min(tokens.len());
        if at < end {
            values.extend_from_slice(session.feed(&tokens[at..end], Rows::All).expect("the step runs"));
        }
        at = end;
    }
    assert_eq!(at, tokens.len(), "the chunks cover the tokens");
    values
}
