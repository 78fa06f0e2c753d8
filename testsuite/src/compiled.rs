//! A golden model on the way to a device: its plan, its weights, and the limits of its steps.

use sinter_codegen_weights::{AlignedBytes, PackError, RawTensor, Source};
use sinter_frontend::build::BuildOptions;
use sinter_frontend::model::Model;
use sinter_ir::{DType, PAGE, Plan, WeightDef};
use sinter_runtime::{DeviceModel, Limits, Rows, Session, WeightBytes, encode};
use std::sync::Arc;

/// The plan of a model, for any device: quantised weights are numbers in memory.
pub fn plan(model: &Model, dtype: DType) -> Plan {
    plan_of(model, BuildOptions::new(dtype), false)
}

/// The plan of a model built so, with quantised weights as codes in memory or as numbers.
pub fn plan_of(model: &Model, options: BuildOptions, codes: bool) -> Plan {
    let graph = model.build(options).expect("the graph builds");
    let options = sinter_passes::Options { codes, ..sinter_passes::Options::default() };
    sinter_passes::compile(&graph, &options).expect("the graph compiles").plan
}

/// The weights of a plan, packed one by one.
pub fn weights(
    model: &Model,
    plan: &Plan,
    pack: impl Fn(&WeightDef, Source<'_, '_>) -> Result<AlignedBytes, PackError>,
) -> Vec<WeightBytes> {
    let one = |weight: &WeightDef| {
        let leaves = weight.source.nodes.values().filter_map(|node| node.op.leaf_name());
        let tensors: std::collections::BTreeMap<_, _> =
            leaves.map(|name| (name, model.tensor(name).expect("the weight is there"))).collect();
        let raw = |name: &str| {
            let (dtype, shape, bytes) = tensors.get(name)?;
            Some(RawTensor { dtype: *dtype, shape: shape.clone(), bytes })
        };
        WeightBytes::new(Arc::new(Owned(pack(weight, &raw).expect("the weight packs"))))
    };
    plan.weights.values().map(one).collect()
}

/// Steps of one sequence of at most `context` tokens.
pub fn limits(model: &Model, context: usize) -> Limits {
    Limits {
        vocab: model.spec.vocab,
        max_positions: context,
        max_tokens: context,
        max_sequences: 1,
        pages: context.div_ceil(PAGE as usize),
    }
}

struct Owned(AlignedBytes);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The logits of all tokens, fed in the given chunks.
pub fn logits(
    model: &mut dyn DeviceModel,
    tokens: &[u32],
    chunks: impl IntoIterator<Item = usize>,
) -> Vec<f32> {
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

/// What a golden expects: logits of all tokens at once, or an encoder's hidden values.
pub fn whole(model: &mut dyn DeviceModel, tokens: &[u32]) -> Vec<f32> {
    if model.result_name() != "logits" {
        return encode(model, tokens).expect("the step runs").to_vec();
    }
    logits(model, tokens, [tokens.len()])
}

/// The likeliest tokens after a prompt, one by one.
pub fn greedy(model: &mut dyn DeviceModel, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut session = Session::new(model);
    let (mut next, mut found) = (prompt.to_vec(), Vec::new());
    for _ in 0..count {
        let row = session.feed(&next, Rows::Last).expect("the step runs");
        let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]).then(b.cmp(a))).expect("a row");
        next = vec![best as u32];
        found.extend(&next);
    }
    found
}
