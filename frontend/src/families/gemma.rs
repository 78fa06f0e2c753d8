//! Gemma: norms by 1 + γ, scaled embeddings, a gate with GELU.

use super::experts::MIXTRAL;
use super::llama::{LLAMA, QWEN3};
use super::{LLAMA_KEYS, NO, ONE, PLAIN_ROPE};
use crate::family::*;
use crate::spec::{Activation, MatrixLayout};

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

/// Without experts: E2B, E4B and 31B.
pub(super) const GEMMA4: Family = Family {
    model_type: "gemma4_text",
    when: &[("enable_moe_block", "false")],
    ignored: &["num_experts", "top_k_experts", "moe_intermediate_size"],
    only: &[("use_bidirectional_attention", "\"vision\"")],
    norm: LLAMA.norm,
    attention: AttentionRow {
        head_norms: match QWEN3.attention.head_norms {
            Some(norms) => Some(HeadNormRow { values: true, ..norms }),
            None => None,
        },
        rope: Some(RopeRow { theta: 1e6, local: Some(("rope_local_base_freq", 1e4)), ..PLAIN_ROPE }),
        scale: ONE,
        softcap: None,
        global: Some(GlobalRow {
            head_dim: ("global_head_dim", 512),
            keys_are_values: "attention_k_eq_v",
            kv_heads: "num_global_key_value_heads",
        }),
        window: WindowRow::Listed { absent: 512 },
        shared: Some(SharedLayersRow { count: "num_kv_shared_layers", wide: "use_double_wide_mlp" }),
        ..GEMMA3.attention
    },
    per_layer: Some(PerLayerRow {
        scalar: "layers.{i}.layer_scalar",
        width: "hidden_size_per_layer_input",
        vocab: "vocab_size_per_layer_input",
        tables: ["embed_tokens_per_layer", "per_layer_model_projection", "per_layer_projection_norm"],
        branch: [
            "layers.{i}.per_layer_input_gate",
            "layers.{i}.per_layer_projection",
            "layers.{i}.post_per_layer_input_norm",
        ],
    }),
    ..GEMMA3
};

/// With experts beside the MLP: 26B-A4B.
pub(super) const GEMMA4_EXPERTS: Family = Family {
    when: &[("enable_moe_block", "true")],
    ignored: &[],
    moe: match MIXTRAL.moe {
        Some(moe) => Some(MoeRow {
            count: &["num_experts"],
            chosen: "top_k_experts",
            inner: "moe_intermediate_size",
            router: "layers.{i}.router.proj",
            experts: ExpertsRow::Joined(JoinedRow {
                names: ["layers.{i}.experts.gate_up_proj", "layers.{i}.experts.down_proj"],
                layout: MatrixLayout::OutIn,
                turns: false,
                bias: false,
            }),
            shared: Some(SharedRow {
                input: LLAMA.mlp.input,
                down: LLAMA.mlp.down,
                width: SharedWidth::Field("intermediate_size"),
                gate: None,
            }),
            norms: Some(MoeNormsRow {
                router: ["layers.{i}.router.scale", "layers.{i}.router.per_expert_scale"],
                parts: [
                    "layers.{i}.pre_feedforward_layernorm_2",
                    "layers.{i}.post_feedforward_layernorm_2",
                    "layers.{i}.post_feedforward_layernorm_1",
                ],
            }),
            ..moe
        }),
        None => None,
    },
    ..GEMMA4
};
