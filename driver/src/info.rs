//! What the commands need to know of a model besides its plan: a few facts that a bundle keeps in its manifest.

use crate::bundle::WeightLayout;
use serde::{Deserialize, Serialize};
use sinter_ir::{Binding, DType, Layout, Plan};

/// The facts of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The architecture's name in config.json.
    pub architecture: String,
    /// Whether it continues texts; an encoder otherwise.
    pub decoder: bool,
    /// Token ids are below this.
    pub vocab: usize,
    /// Positions are below this.
    pub context: usize,
    /// Layers.
    pub layers: usize,
    /// The width of the hidden state.
    pub hidden: usize,
    /// Weights, one by one.
    pub parameters: u64,
    /// The type of most weights in the checkpoint.
    pub stored: DType,
}

/// Bytes that one token takes in the KV cache.
pub fn kv_bytes_per_token(plan: &Plan) -> u64 {
    let one = Binding::new(1, 1, 1, 1);
    plan.states.iter().map(|state| state.ty.bytes(&one)).sum()
}

/// The type of what the KV cache keeps of keys and values: of its largest tensors.
pub fn kv_dtype(plan: &Plan) -> Option<DType> {
    let one = Binding::new(1, 1, 1, 1);
    plan.states.iter().max_by_key(|state| state.ty.bytes(&one)).map(|state| state.ty.dtype)
}

/// Bytes of all packed weights.
pub fn weight_bytes(plan: &Plan, layout: WeightLayout) -> u64 {
    plan.weights.values().filter_map(|weight| layout.bytes(weight)).sum()
}

/// Bytes of weights that every step reads whole. Tables that are gathered from lie in rows and are not read whole; the
/// other weights in rows, biases and norms, are too small to matter.
pub fn streamed_bytes(plan: &Plan, layout: WeightLayout) -> u64 {
    let panels = plan.weights.values().filter(|weight| weight.layout != Layout::Rows);
    panels.filter_map(|weight| layout.bytes(weight)).sum()
}
