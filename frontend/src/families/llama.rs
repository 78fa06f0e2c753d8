//! Decoders like Llama: one branch after the other, gated MLPs, norms over the root mean square.

use super::{
    LLAMA_KEYS, NO, ONE, PLAIN, PLAIN_ATTENTION, PLAIN_EMBEDDING, PLAIN_HEAD, PLAIN_ROPE, SEQUENTIAL, YES,
};
use crate::family::*;
use crate::spec::{HeadNormScope, NormKind};

pub(super) const LLAMA: Family = Family {
    model_type: "llama",
    ignored: &["is_llama_config"],
    only: &[("rope_interleaved", "false")],
    prefixes: &["model.", ""],
    embedding: EmbeddingRow { tokens: "embed_tokens", ..PLAIN_EMBEDDING },
    norm: NormRow { kind: NormKind::Rms, weight: true, one_plus: false, bias: false },
    norms: NormPlaces {
        attention: BranchPlaces { before: Some("layers.{i}.input_layernorm"), ..NO_NORMS },
        mlp: BranchPlaces { before: Some("layers.{i}.post_attention_layernorm"), ..NO_NORMS },
        last: Some("norm"),
        ..PLAIN.norms
    },
    attention: AttentionRow {
        qkv: QkvRow::Separate(
            "layers.{i}.self_attn.q_proj",
            "layers.{i}.self_attn.k_proj",
            "layers.{i}.self_attn.v_proj",
        ),
        qkv_bias: Switch::Field("attention_bias", false),
        out: "layers.{i}.self_attn.o_proj",
        out_bias: Switch::Field("attention_bias", false),
        rope: Some(PLAIN_ROPE),
        ..PLAIN_ATTENTION
    },
    mlp: MlpRow {
        input: MlpInputRow::Gated("layers.{i}.mlp.gate_proj", "layers.{i}.mlp.up_proj"),
        down: "layers.{i}.mlp.down_proj",
        bias: Switch::Field("mlp_bias", false),
    },
    head: Some(PLAIN_HEAD),
    ..PLAIN
};

pub(super) const MISTRAL: Family = Family {
    model_type: "mistral",
    ignored: &[],
    only: &[],
    attention: AttentionRow {
        qkv_bias: NO,
        out_bias: NO,
        window: WindowRow::AllLayers(Some(4096)),
        ..LLAMA.attention
    },
    mlp: MlpRow { bias: NO, ..LLAMA.mlp },
    ..LLAMA
};

/// The first Ministral: the layers with a window are listed.
pub(super) const MINISTRAL: Family = Family { model_type: "ministral", ..MISTRAL };

pub(super) const ARCEE: Family = Family {
    model_type: "arcee",
    ignored: &[],
    only: &[],
    mlp: MlpRow { input: MlpInputRow::Plain("layers.{i}.mlp.up_proj"), ..LLAMA.mlp },
    ..LLAMA
};

pub(super) const HELIUM: Family = Family {
    model_type: "helium",
    ignored: &[],
    only: &[],
    attention: AttentionRow {
        out_bias: NO,
        rope: Some(RopeRow { theta: 1e5, interleaved: true, ..PLAIN_ROPE }),
        ..LLAMA.attention
    },
    ..LLAMA
};

pub(super) const QWEN2: Family = Family {
    model_type: "qwen2",
    keys: Keys { head_dim: None, ..LLAMA_KEYS },
    ignored: &[],
    only: &[("use_mrope", "false")],
    attention: AttentionRow {
        qkv_bias: YES,
        out_bias: NO,
        window: WindowRow::IfUsed(UsedWindow::FromLayer),
        ..LLAMA.attention
    },
    mlp: MlpRow { bias: NO, ..LLAMA.mlp },
    ..LLAMA
};

pub(super) const QWEN3: Family = Family {
    model_type: "qwen3",
    keys: LLAMA_KEYS,
    attention: AttentionRow {
        qkv_bias: Switch::Field("attention_bias", false),
        out_bias: Switch::Field("attention_bias", false),
        head_norms: Some(HeadNormRow {
            q: "layers.{i}.self_attn.q_norm",
            k: "layers.{i}.self_attn.k_norm",
            scope: HeadNormScope::Head,
            values: false,
            after_rope: false,
            present: YES,
        }),
        ..QWEN2.attention
    },
    ..QWEN2
};

/// The text models of Qwen2-VL. Where there is text alone, the three positions of a token are one.
pub(super) const QWEN2_VL: Family = Family {
    model_type: "qwen2_vl_text",
    attention: AttentionRow { rope: Some(RopeRow { theta: 1e6, ..PLAIN_ROPE }), ..QWEN2.attention },
    ..QWEN2
};

pub(super) const QWEN2_5_VL: Family = Family { model_type: "qwen2_5_vl_text", ..QWEN2_VL };

pub(super) const QWEN3_VL: Family = Family {
    model_type: "qwen3_vl_text",
    attention: AttentionRow { rope: Some(RopeRow { theta: 5e5, ..PLAIN_ROPE }), ..QWEN3.attention },
    ..QWEN3
};

pub(super) const PHI3: Family = Family {
    model_type: "phi3",
    keys: Keys { head_dim: None, ..LLAMA_KEYS },
    ignored: &[],
    only: &[
        ("attention_bias", "false"),
        ("mlp_bias", "false"),
        ("lm_head_bias", "false"),
        ("full_attn_mod", "1"),
        ("interpolate_factor", "1"),
    ],
    attention: AttentionRow {
        qkv: QkvRow::Stacked("layers.{i}.self_attn.qkv_proj"),
        qkv_bias: NO,
        out_bias: NO,
        rope: Some(RopeRow { partial: Some(1.0), ..PLAIN_ROPE }),
        window: WindowRow::AllLayers(None),
        ..LLAMA.attention
    },
    mlp: MlpRow { input: MlpInputRow::GatedStacked("layers.{i}.mlp.gate_up_proj"), bias: NO, ..LLAMA.mlp },
    ..LLAMA
};

pub(super) const SMOLLM3: Family = Family {
    model_type: "smollm3",
    ignored: &[],
    only: &[("use_sliding_window", "false")],
    attention: AttentionRow {
        rope: Some(RopeRow {
            theta: 2e6,
            layers: RopeLayers::Listed("no_rope_layers", ("no_rope_layer_interval", 4)),
            ..PLAIN_ROPE
        }),
        window: WindowRow::AllLayers(None),
        ..LLAMA.attention
    },
    head: Some(HeadRow { name: "lm_head", bias: NO, tied: true, scale: ONE, softcap: None }),
    ..LLAMA
};

pub(super) const GRANITE: Family = Family {
    model_type: "granite",
    ignored: &[],
    only: &[],
    embedding: EmbeddingRow { scale: Factor::FieldOr("embedding_multiplier", 1.0), ..LLAMA.embedding },
    residual: ResidualRow { scale: Factor::FieldOr("residual_multiplier", 1.0), ..SEQUENTIAL },
    attention: AttentionRow { scale: Factor::FieldOr("attention_multiplier", 1.0), ..LLAMA.attention },
    head: Some(HeadRow {
        name: "lm_head",
        bias: NO,
        tied: false,
        scale: Factor::InverseField("logits_scaling"),
        softcap: None,
    }),
    ..LLAMA
};

pub(super) const ERNIE: Family = Family {
    model_type: "ernie4_5",
    ignored: &[],
    only: &[],
    attention: AttentionRow {
        qkv_bias: Switch::Field("use_bias", false),
        out_bias: Switch::Field("use_bias", false),
        rope: Some(RopeRow { theta: 5e5, interleaved: true, ..PLAIN_ROPE }),
        ..LLAMA.attention
    },
    mlp: MlpRow { bias: Switch::Field("use_bias", false), ..LLAMA.mlp },
    head: Some(HeadRow { name: "lm_head", bias: NO, tied: true, scale: ONE, softcap: None }),
    ..LLAMA
};

pub(super) const SEED: Family = Family {
    model_type: "seed_oss",
    ignored: &["residual_dropout"],
    only: &[],
    attention: AttentionRow {
        qkv_bias: Switch::Field("attention_bias", true),
        out_bias: Switch::Field("attention_out_bias", false),
        ..LLAMA.attention
    },
    ..LLAMA
};

pub(super) const HUNYUAN: Family = Family {
    model_type: "hunyuan_v1_dense",
    ignored: &["eod_token_id"],
    only: &[],
    attention: AttentionRow {
        head_norms: Some(HeadNormRow {
            q: "layers.{i}.self_attn.query_layernorm",
            k: "layers.{i}.self_attn.key_layernorm",
            scope: HeadNormScope::Head,
            values: false,
            after_rope: true,
            present: YES,
        }),
        ..LLAMA.attention
    },
    mlp: MlpRow { bias: NO, ..LLAMA.mlp },
    ..LLAMA
};

pub(super) const OLMO: Family = Family {
    model_type: "olmo",
    keys: Keys { head_dim: None, eps: Factor::Fixed(1e-5), ..LLAMA_KEYS },
    ignored: &[],
    only: &[],
    norm: NormRow { kind: NormKind::Layer, weight: false, one_plus: false, bias: false },
    attention: AttentionRow { clip: Some(ClipRow::Projections("clip_qkv")), ..LLAMA.attention },
    mlp: MlpRow { bias: NO, ..LLAMA.mlp },
    ..LLAMA
};

pub(super) const OLMO2: Family = Family {
    model_type: "olmo2",
    keys: Keys { head_dim: None, ..LLAMA_KEYS },
    norm: LLAMA.norm,
    norms: NormPlaces {
        attention: BranchPlaces { after: Some("layers.{i}.post_attention_layernorm"), ..NO_NORMS },
        mlp: BranchPlaces { after: Some("layers.{i}.post_feedforward_layernorm"), ..NO_NORMS },
        ..LLAMA.norms
    },
    attention: AttentionRow {
        head_norms: Some(HeadNormRow {
            q: "layers.{i}.self_attn.q_norm",
            k: "layers.{i}.self_attn.k_norm",
            scope: HeadNormScope::All,
            values: false,
            after_rope: false,
            present: YES,
        }),
        ..LLAMA.attention
    },
    ..OLMO
};

pub(super) const OLMO3: Family = Family {
    model_type: "olmo3",
    attention: AttentionRow {
        rope: Some(RopeRow { theta: 5e5, local: Some(("rope_theta", 5e5)), ..PLAIN_ROPE }),
        window: WindowRow::AllButEvery { period: 4, period_field: "sliding_window_pattern", absent: 4096 },
        ..OLMO2.attention
    },
    ..OLMO2
};

pub(super) const EXAONE4: Family = Family {
    model_type: "exaone4",
    keys: LLAMA_KEYS,
    attention: AttentionRow {
        qkv_bias: NO,
        out_bias: NO,
        head_norms: QWEN3.attention.head_norms,
        rope: Some(RopeRow { layers: RopeLayers::SlidingOrAll, ..PLAIN_ROPE }),
        window: WindowRow::AllButEvery { period: 4, period_field: "sliding_window_pattern", absent: 4096 },
        ..LLAMA.attention
    },
    ..OLMO2
};

pub(super) const GLM4: Family = Family {
    model_type: "glm4",
    ignored: &[],
    only: &[],
    norms: NormPlaces {
        attention: BranchPlaces {
            after: Some("layers.{i}.post_self_attn_layernorm"),
            ..LLAMA.norms.attention
        },
        mlp: BranchPlaces { after: Some("layers.{i}.post_mlp_layernorm"), ..LLAMA.norms.mlp },
        ..LLAMA.norms
    },
    attention: AttentionRow {
        qkv_bias: Switch::Field("attention_bias", true),
        out_bias: NO,
        rope: Some(RopeRow { interleaved: true, partial: Some(0.5), ..PLAIN_ROPE }),
        ..LLAMA.attention
    },
    mlp: MlpRow { input: MlpInputRow::GatedStacked("layers.{i}.mlp.gate_up_proj"), bias: NO, ..LLAMA.mlp },
    ..LLAMA
};

pub(super) const GLM: Family = Family { model_type: "glm", norms: LLAMA.norms, ..GLM4 };

pub(super) const NEMOTRON: Family = Family {
    model_type: "nemotron",
    keys: Keys { eps: Factor::Field("norm_eps"), ..LLAMA_KEYS },
    ignored: &[],
    only: &[],
    norm: NormRow { kind: NormKind::Layer, weight: true, one_plus: true, bias: true },
    attention: AttentionRow { rope: Some(RopeRow { partial: Some(0.5), ..PLAIN_ROPE }), ..LLAMA.attention },
    mlp: MlpRow { input: MlpInputRow::Plain("layers.{i}.mlp.up_proj"), ..LLAMA.mlp },
    ..LLAMA
};

pub(super) const STARCODER2: Family = Family {
    model_type: "starcoder2",
    keys: Keys { head_dim: None, eps: Factor::Field("norm_epsilon"), ..LLAMA_KEYS },
    ignored: &["residual_dropout", "embedding_dropout"],
    only: &[],
    norm: NormRow { kind: NormKind::Layer, weight: true, one_plus: false, bias: true },
    attention: AttentionRow {
        qkv_bias: Switch::Field("use_bias", true),
        out_bias: Switch::Field("use_bias", true),
        window: WindowRow::AllLayers(None),
        ..LLAMA.attention
    },
    mlp: MlpRow {
        input: MlpInputRow::Plain("layers.{i}.mlp.c_fc"),
        down: "layers.{i}.mlp.c_proj",
        bias: Switch::Field("use_bias", true),
    },
    head: Some(HeadRow { name: "lm_head", bias: NO, tied: true, scale: ONE, softcap: None }),
    ..LLAMA
};
