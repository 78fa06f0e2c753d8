//! Gemma: norms by 1 + γ, scaled embeddings, a gate with GELU.

use super::llama::{LLAMA, QWEN3};
use super::{LLAMA_KEYS, NO, ONE, PLAIN_ROPE};
use crate::family::*;
use crate::spec::Activation;

/// The first files say `gelu` and mean the approximation by tanh.
const ACTIVATION_NAMES: &[(&str, Activation)] =
    &[("gelu", Activation::GeluTanh), ("gelu_pytorch_tanh", Activation::GeluTanh)];

pub(super) const GEMMA: Family = Family {
    model_type: "gemma",
    keys: Keys { activation: ActivationRow::FieldOf("hidden_act", ACTIVATION_NAMES), ..LLAMA_KEYS },
    ignored: &[],
    only: &[("hidden_activation", "\"gelu_pytorch_tanh\"")],
    embedding: EmbeddingRow { scale: Factor::SqrtHidden, ..LLAMA.embedding },
    norm: NormRow { one_plus: true, ..LLAMA.norm },
    mlp: MlpRow { bias: NO, ..LLAMA.mlp },
    head: Some(HeadRow { name: "lm_head", bias: NO, tied: true, scale: ONE, softcap: None }),
    ..LLAMA
};

pub(super) const GEMMA2: Family = Family {
    model_type: "gemma2",
    keys: Keys { activation: ActivationRow::Field("hidden_activation"), ..LLAMA_KEYS },
    ignored: &["hidden_act", "cache_implementation"],
    only: &[],
    embedding: EmbeddingRow { scale: Factor::SqrtHidden, ..LLAMA.embedding },
    norm: NormRow { one_plus: true, ..LLAMA.norm },
    norms: NormPlaces {
        attention: BranchPlaces {
            before: Some("layers.{i}.input_layernorm"),
            after: Some("layers.{i}.post_attention_layernorm"),
            ..NO_NORMS
        },
        mlp: BranchPlaces {
            before: Some("layers.{i}.pre_feedforward_layernorm"),
            after: Some("layers.{i}.post_feedforward_layernorm"),
            ..NO_NORMS
        },
        ..LLAMA.norms
    },
    attention: AttentionRow {
        scale: Factor::InverseSqrtField("query_pre_attn_scalar"),
        softcap: Some("attn_logit_softcapping"),
        window: WindowRow::AllButEvery { period: 2, period_field: "sliding_window_pattern", absent: 4096 },
        ..LLAMA.attention
    },
    mlp: MlpRow { bias: NO, ..LLAMA.mlp },
    head: Some(HeadRow {
        name: "lm_head",
        bias: NO,
        tied: true,
        scale: ONE,
        softcap: Some("final_logit_softcapping"),
    }),
    ..LLAMA
};

pub(super) const GEMMA3: Family = Family {
    model_type: "gemma3_text",
    ignored: &["cache_implementation"],
    attention: AttentionRow {
        head_norms: QWEN3.attention.head_norms,
        rope: Some(RopeRow { theta: 1e6, local: Some(("rope_local_base_freq", 1e4)), ..PLAIN_ROPE }),
        window: WindowRow::AllButEvery { period: 6, period_field: "sliding_window_pattern", absent: 4096 },
        ..GEMMA2.attention
    },
    ..GEMMA2
};
