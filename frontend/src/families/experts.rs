//! Decoders with experts in place of the MLP.

use super::llama::*;
use super::{ONE, PLAIN_ROPE, YES};
use crate::family::*;
use crate::spec::Scoring;

pub(super) const MIXTRAL: Family = Family {
    model_type: "mixtral",
    ignored: &["output_router_logits", "router_aux_loss_coef", "router_jitter_noise"],
    attention: AttentionRow {
        rope: Some(RopeRow { theta: 1e6, ..PLAIN_ROPE }),
        window: WindowRow::AllLayers(None),
        ..MISTRAL.attention
    },
    moe: Some(MoeRow {
        count: "num_local_experts",
        chosen: "num_experts_per_tok",
        inner: "intermediate_size",
        router: "layers.{i}.block_sparse_moe.gate",
        scoring: Scoring::Softmax,
        correction: None,
        groups: None,
        normalise: YES,
        scale: ONE,
        experts: [
            "layers.{i}.block_sparse_moe.experts.{e}.w1",
            "layers.{i}.block_sparse_moe.experts.{e}.w3",
            "layers.{i}.block_sparse_moe.experts.{e}.w2",
        ],
        shared: None,
        dense: DenseLayers::Never,
    }),
    ..MISTRAL
};
