//! Decoders with experts in place of the MLP.

use super::llama::*;
use super::{LLAMA_KEYS, NO, ONE, PLAIN_ROPE, YES};
use crate::family::*;
use crate::spec::{MatrixLayout, Scoring};

/// What training alone asks for.
const UNTRAINED: &[&str] = &["output_router_logits", "router_aux_loss_coef"];

pub(super) const MIXTRAL: Family = Family {
    model_type: "mixtral",
    ignored: &["output_router_logits", "router_aux_loss_coef", "router_jitter_noise"],
    attention: AttentionRow {
        rope: Some(RopeRow { theta: 1e6, ..PLAIN_ROPE }),
        window: WindowRow::AllLayers(None),
        ..MISTRAL.attention
    },
    moe: Some(MoeRow {
        count: &["num_local_experts"],
        chosen: "num_experts_per_tok",
        inner: "intermediate_size",
        router: "layers.{i}.block_sparse_moe.gate",
        router_bias: false,
        scoring: Scoring::Softmax,
        correction: None,
        groups: None,
        normalise: YES,
        scale: ONE,
        experts: ExpertsRow::Each([
            "layers.{i}.block_sparse_moe.experts.{e}.w1",
            "layers.{i}.block_sparse_moe.experts.{e}.w3",
            "layers.{i}.block_sparse_moe.experts.{e}.w2",
        ]),
        clamp: None,
        shared: None,
        norms: None,
        dense: DenseLayers::Never,
    }),
    ..MISTRAL
};

pub(super) const MINIMAX_M2: Family = Family {
    model_type: "minimax_m2",
    ignored: &[
        // Training, the heads that guess several tokens, and what the first files say besides; transformers reads none of it.
        "output_router_logits",
        "router_aux_loss_coef",
        "router_jitter_noise",
        "attn_type_list",
        "layernorm_full_attention_beta",
        "layernorm_linear_attention_beta",
        "layernorm_mlp_beta",
        "mlp_intermediate_size",
        "mtp_transformer_layers",
        "num_mtp_modules",
        "qk_norm_type",
        "shared_moe_mode",
        "use_mtp",
    ],
    only: &[
        ("scoring_func", "\"sigmoid\""),
        ("shared_intermediate_size", "0"),
        ("sliding_window", "null"),
        ("use_qk_norm", "true"),
        ("use_routing_bias", "true"),
    ],
    attention: AttentionRow {
        head_norms: OLMO2.attention.head_norms,
        rope: Some(RopeRow { theta: 5e6, dim: Some("rotary_dim"), partial: Some(1.0), ..PLAIN_ROPE }),
        window: WindowRow::Never,
        ..MISTRAL.attention
    },
    moe: match MIXTRAL.moe {
        Some(moe) => Some(MoeRow {
            scoring: Scoring::Sigmoid,
            correction: Some("layers.{i}.block_sparse_moe.e_score_correction_bias"),
            ..moe
        }),
        None => None,
    },
    ..MIXTRAL
};

pub(super) const GRANITE_MOE: Family = Family {
    model_type: "granitemoe",
    ignored: UNTRAINED,
    moe: match MIXTRAL.moe {
        Some(moe) => Some(MoeRow {
            router: "layers.{i}.block_sparse_moe.router.layer",
            scoring: Scoring::SoftmaxOfChosen,
            normalise: NO,
            experts: ExpertsRow::Joined(JoinedRow {
                names: [
                    "layers.{i}.block_sparse_moe.input_linear.weight",
                    "layers.{i}.block_sparse_moe.output_linear.weight",
                ],
                layout: MatrixLayout::OutIn,
                turns: false,
                bias: false,
            }),
            ..moe
        }),
        None => None,
    },
    ..GRANITE
};

pub(super) const GRANITE_MOE_SHARED: Family = Family {
    model_type: "granitemoeshared",
    moe: match GRANITE_MOE.moe {
        Some(moe) => Some(MoeRow {
            shared: Some(SharedRow {
                input: MlpInputRow::GatedStacked("layers.{i}.shared_mlp.input_linear"),
                down: "layers.{i}.shared_mlp.output_linear",
                width: SharedWidth::Field("shared_intermediate_size"),
                gate: None,
            }),
            ..moe
        }),
        None => None,
    },
    ..GRANITE_MOE
};

const QWEN_EXPERTS: MoeRow = MoeRow {
    count: &["num_experts", "num_local_experts"],
    chosen: "num_experts_per_tok",
    inner: "moe_intermediate_size",
    router: "layers.{i}.mlp.gate",
    router_bias: false,
    scoring: Scoring::Softmax,
    correction: None,
    groups: None,
    normalise: Switch::Field("norm_topk_prob", false),
    scale: ONE,
    experts: ExpertsRow::Each([
        "layers.{i}.mlp.experts.{e}.gate_proj",
        "layers.{i}.mlp.experts.{e}.up_proj",
        "layers.{i}.mlp.experts.{e}.down_proj",
    ]),
    clamp: None,
    shared: None,
    norms: None,
    dense: DenseLayers::ListAndStep("mlp_only_layers", "decoder_sparse_step"),
};

pub(super) const QWEN2_MOE: Family = Family {
    model_type: "qwen2_moe",
    ignored: UNTRAINED,
    only: &[],
    attention: AttentionRow {
        qkv_bias: Switch::Field("qkv_bias", true),
        window: WindowRow::IfUsed(UsedWindow::EverySecondBefore),
        ..QWEN2.attention
    },
    moe: Some(MoeRow {
        shared: Some(SharedRow {
            input: MlpInputRow::Gated(
                "layers.{i}.mlp.shared_expert.gate_proj",
                "layers.{i}.mlp.shared_expert.up_proj",
            ),
            down: "layers.{i}.mlp.shared_expert.down_proj",
            width: SharedWidth::Field("shared_expert_intermediate_size"),
            gate: Some("layers.{i}.mlp.shared_expert_gate"),
        }),
        ..QWEN_EXPERTS
    }),
    ..QWEN2
};

pub(super) const QWEN3_MOE: Family = Family {
    model_type: "qwen3_moe",
    ignored: UNTRAINED,
    only: &[],
    attention: AttentionRow { window: WindowRow::IfUsed(UsedWindow::All), ..QWEN3.attention },
    moe: Some(QWEN_EXPERTS),
    ..QWEN3
};

pub(super) const OLMOE: Family = Family {
    model_type: "olmoe",
    keys: Keys { head_dim: None, ..LLAMA_KEYS },
    ignored: UNTRAINED,
    only: &[],
    attention: AttentionRow {
        head_norms: OLMO2.attention.head_norms,
        clip: Some(ClipRow::Normed("clip_qkv")),
        ..LLAMA.attention
    },
    mlp: MlpRow { bias: NO, ..LLAMA.mlp },
    moe: Some(MoeRow { inner: "intermediate_size", dense: DenseLayers::Never, ..QWEN_EXPERTS }),
    ..LLAMA
};

pub(super) const FLEX_OLMO: Family = Family {
    model_type: "flex_olmo",
    ignored: UNTRAINED,
    attention: AttentionRow { rope: Some(RopeRow { theta: 5e5, ..PLAIN_ROPE }), ..OLMO2.attention },
    moe: OLMOE.moe,
    ..OLMO2
};

pub(super) const HUNYUAN_MOE: Family = Family {
    model_type: "hunyuan_v1_moe",
    ignored: &["eod_token_id", "output_router_logits"],
    moe: Some(MoeRow {
        chosen: "moe_topk",
        inner: "intermediate_size",
        router: "layers.{i}.mlp.gate.wg",
        normalise: YES,
        shared: Some(SharedRow {
            input: MlpInputRow::Gated(
                "layers.{i}.mlp.shared_mlp.gate_proj",
                "layers.{i}.mlp.shared_mlp.up_proj",
            ),
            down: "layers.{i}.mlp.shared_mlp.down_proj",
            width: SharedWidth::Field("intermediate_size"),
            gate: None,
        }),
        dense: DenseLayers::Never,
        ..QWEN_EXPERTS
    }),
    ..HUNYUAN
};

pub(super) const GPT_OSS: Family = Family {
    model_type: "gpt_oss",
    ignored: &["output_router_logits", "router_aux_loss_coef", "experts_per_token", "initial_context_length"],
    only: &[],
    attention: AttentionRow {
        qkv_bias: Switch::Field("attention_bias", true),
        out_bias: Switch::Field("attention_bias", true),
        rope: Some(RopeRow { theta: 150_000.0, ..PLAIN_ROPE }),
        window: WindowRow::AllButEvery { period: 2, period_field: "sliding_window_pattern", absent: 128 },
        sinks: Some("layers.{i}.self_attn.sinks"),
        ..LLAMA.attention
    },
    moe: Some(MoeRow {
        count: &["num_local_experts", "num_experts"],
        inner: "intermediate_size",
        router: "layers.{i}.mlp.router",
        router_bias: true,
        scoring: Scoring::SoftmaxOfChosen,
        normalise: NO,
        experts: ExpertsRow::Joined(JoinedRow {
            names: ["layers.{i}.mlp.experts.gate_up_proj", "layers.{i}.mlp.experts.down_proj"],
            layout: MatrixLayout::InOut,
            turns: true,
            bias: true,
        }),
        clamp: Some(ClampRow {
            alpha: Factor::FieldOr("swiglu_alpha", 1.702),
            limit: Factor::FieldOr("swiglu_limit", 7.0),
        }),
        dense: DenseLayers::Never,
        ..QWEN_EXPERTS
    }),
    ..LLAMA
};

pub(super) const GLM4_MOE: Family = Family {
    model_type: "glm4_moe",
    ignored: &["output_router_logits", "num_mtp_layers", "num_nextn_predict_layers"],
    only: &[],
    attention: AttentionRow {
        out_bias: NO,
        head_norms: match QWEN3.attention.head_norms {
            Some(norms) => Some(HeadNormRow { present: Switch::Field("use_qk_norm", false), ..norms }),
            None => None,
        },
        rope: Some(RopeRow { partial: Some(0.5), ..PLAIN_ROPE }),
        ..LLAMA.attention
    },
    mlp: MlpRow { bias: NO, ..LLAMA.mlp },
    moe: Some(MoeRow {
        count: &["n_routed_experts", "num_local_experts"],
        scoring: Scoring::Sigmoid,
        correction: Some("layers.{i}.mlp.gate.e_score_correction_bias"),
        groups: Some(("n_group", "topk_group", 2)),
        normalise: Switch::Field("norm_topk_prob", true),
        scale: Factor::FieldOr("routed_scaling_factor", 1.0),
        shared: Some(SharedRow {
            input: MlpInputRow::Gated(
                "layers.{i}.mlp.shared_experts.gate_proj",
                "layers.{i}.mlp.shared_experts.up_proj",
            ),
            down: "layers.{i}.mlp.shared_experts.down_proj",
            width: SharedWidth::Experts("n_shared_experts"),
            gate: None,
        }),
        dense: DenseLayers::First("first_k_dense_replace", 1),
        ..QWEN_EXPERTS
    }),
    ..LLAMA
};

pub(super) const DOTS1: Family = Family {
    model_type: "dots1",
    ignored: UNTRAINED,
    only: &[],
    attention: AttentionRow { window: WindowRow::FromLayer("max_window_layers"), ..QWEN3.attention },
    moe: match GLM4_MOE.moe {
        Some(moe) => Some(MoeRow {
            normalise: Switch::Field("norm_topk_prob", false),
            dense: DenseLayers::First("first_k_dense_replace", 0),
            ..moe
        }),
        None => None,
    },
    ..QWEN3
};

pub(super) const DEEPSEEK_V3: Family = Family {
    model_type: "deepseek_v3",
    keys: Keys { head_dim: Some("qk_rope_head_dim"), ..LLAMA_KEYS },
    ignored: &[
        "output_router_logits",
        "num_mtp_layers",
        "num_nextn_predict_layers",
        "head_dim",
        "qk_head_dim",
    ],
    only: &[
        ("rope_interleave", "true"),
        ("scoring_func", "\"sigmoid\""),
        ("topk_method", "\"noaux_tc\""),
        ("moe_layer_freq", "1"),
    ],
    attention: AttentionRow {
        qkv: QkvRow::Latent(LatentRow {
            widths: ["kv_lora_rank", "qk_nope_head_dim", "v_head_dim"],
            query_rank: "q_lora_rank",
            query: (
                "layers.{i}.self_attn.q_proj",
                [
                    "layers.{i}.self_attn.q_a_proj",
                    "layers.{i}.self_attn.q_a_layernorm",
                    "layers.{i}.self_attn.q_b_proj",
                ],
            ),
            key_value: [
                "layers.{i}.self_attn.kv_a_proj_with_mqa",
                "layers.{i}.self_attn.kv_a_layernorm",
                "layers.{i}.self_attn.kv_b_proj",
            ],
            eps: 1e-6,
        }),
        rope: Some(RopeRow { interleaved: true, ..PLAIN_ROPE }),
        scale: Factor::InverseSqrtSum("qk_nope_head_dim", "qk_rope_head_dim"),
        ..LLAMA.attention
    },
    moe: match GLM4_MOE.moe {
        Some(moe) => Some(MoeRow { dense: DenseLayers::First("first_k_dense_replace", 3), ..moe }),
        None => None,
    },
    ..GLM4_MOE
};

pub(super) const DEEPSEEK_V2: Family = Family {
    model_type: "deepseek_v2",
    ignored: &[
        "output_router_logits",
        "n_group",
        "topk_group",
        "head_dim",
        "qk_head_dim",
        "ep_size",
        "aux_loss_alpha",
        "seq_aux",
    ],
    only: &[
        ("topk_method", "\"greedy\""),
        ("scoring_func", "\"softmax\""),
        ("norm_topk_prob", "false"),
        ("moe_layer_freq", "1"),
    ],
    mlp: LLAMA.mlp,
    moe: match GLM4_MOE.moe {
        Some(moe) => Some(MoeRow {
            scoring: Scoring::Softmax,
            correction: None,
            groups: None,
            normalise: NO,
            dense: DenseLayers::First("first_k_dense_replace", 0),
            ..moe
        }),
        None => None,
    },
    ..DEEPSEEK_V3
};

pub(super) const DEEPSEEK_V2_GROUPS: Family = Family {
    when: &[("topk_method", "\"group_limited_greedy\"")],
    ignored: &[
        "output_router_logits",
        "topk_method",
        "head_dim",
        "qk_head_dim",
        "ep_size",
        "aux_loss_alpha",
        "seq_aux",
    ],
    only: match DEEPSEEK_V2.only.split_first() {
        Some((_, rest)) => rest,
        None => &[],
    },
    moe: match DEEPSEEK_V2.moe {
        Some(moe) => Some(MoeRow { groups: Some(("n_group", "topk_group", 1)), ..moe }),
        None => None,
    },
    ..DEEPSEEK_V2
};
