//! The table of families. A new family is a new row, most often an old row with the differences.

use crate::family::*;
use crate::spec::{HeadNormScope, MatrixLayout, ModelKind, NormKind, Residual};

/// Every family, in the order in which errors list them.
pub const FAMILIES: &[&Family] = &[&LLAMA, &MISTRAL, &QWEN2, &QWEN3, &GEMMA2, &PHI3, &GPT2, &GPT_NEOX, &BERT];

const LLAMA_KEYS: Keys = Keys {
    hidden: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    kv_heads: Some("num_key_value_heads"),
    head_dim: Some("head_dim"),
    inner: "intermediate_size",
    inner_multiple: 0,
    positions: "max_position_embeddings",
    eps: "rms_norm_eps",
    activation: "hidden_act",
};

const NO: Switch = Switch::Fixed(false);
const YES: Switch = Switch::Fixed(true);
const ONE: Factor = Factor::Fixed(1.0);
const PLAIN_ROPE: RopeRow = RopeRow { theta: 10000.0, partial: None };
const SEQUENTIAL: ResidualRow = ResidualRow { parallel: NO, form: Residual::Parallel, scale: ONE };

const LLAMA: Family = Family {
    model_type: "llama",
    kind: ModelKind::Decoder,
    keys: LLAMA_KEYS,
    ignored: &["is_llama_config"],
    only: &[("rope_interleaved", "false")],
    prefixes: &["model.", ""],
    embedding: EmbeddingRow {
        tokens: "embed_tokens",
        scale: ONE,
        token_types: None,
        positions: None,
        norm: None,
    },
    norm: NormRow { kind: NormKind::Rms, one_plus: false, bias: false },
    norms: NormPlaces {
        attention: BranchPlaces { before: Some("layers.{i}.input_layernorm"), ..NO_NORMS },
        mlp: BranchPlaces { before: Some("layers.{i}.post_attention_layernorm"), ..NO_NORMS },
        last: Some("norm"),
    },
    residual: SEQUENTIAL,
    attention: AttentionRow {
        qkv: QkvRow::Separate(
            "layers.{i}.self_attn.q_proj",
            "layers.{i}.self_attn.k_proj",
            "layers.{i}.self_attn.v_proj",
        ),
        qkv_bias: Switch::Field("attention_bias", false),
        out: "layers.{i}.self_attn.o_proj",
        out_bias: Switch::Field("attention_bias", false),
        head_norms: None,
        rope: Some(PLAIN_ROPE),
        scale: Factor::InverseSqrtHead,
        softcap: None,
        window: WindowRow::Never,
        layout: MatrixLayout::OutIn,
    },
    mlp: MlpRow {
        input: MlpInputRow::Gated("layers.{i}.mlp.gate_proj", "layers.{i}.mlp.up_proj"),
        down: "layers.{i}.mlp.down_proj",
        bias: Switch::Field("mlp_bias", false),
    },
    head: Some(HeadRow { name: "lm_head", bias: NO, tied: false, scale: ONE, softcap: None }),
};

const MISTRAL: Family = Family {
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

const QWEN2: Family = Family {
    model_type: "qwen2",
    keys: Keys { head_dim: None, ..LLAMA_KEYS },
    ignored: &[],
    only: &[("use_mrope", "false")],
    attention: AttentionRow { qkv_bias: YES, out_bias: NO, window: WindowRow::FromLayer, ..LLAMA.attention },
    mlp: MlpRow { bias: NO, ..LLAMA.mlp },
    ..LLAMA
};

const QWEN3: Family = Family {
    model_type: "qwen3",
    keys: LLAMA_KEYS,
    attention: AttentionRow {
        qkv_bias: Switch::Field("attention_bias", false),
        out_bias: Switch::Field("attention_bias", false),
        head_norms: Some(HeadNormRow {
            q: "layers.{i}.self_attn.q_norm",
            k: "layers.{i}.self_attn.k_norm",
            scope: HeadNormScope::Head,
        }),
        ..QWEN2.attention
    },
    ..QWEN2
};

const GEMMA2: Family = Family {
    model_type: "gemma2",
    keys: Keys { activation: "hidden_activation", ..LLAMA_KEYS },
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
        window: WindowRow::AllButEvery(2, 4096),
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

const PHI3: Family = Family {
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

const GPT2: Family = Family {
    model_type: "gpt2",
    kind: ModelKind::Decoder,
    keys: Keys {
        hidden: "n_embd",
        layers: "n_layer",
        heads: "n_head",
        kv_heads: None,
        head_dim: None,
        inner: "n_inner",
        inner_multiple: 4,
        positions: "n_positions",
        eps: "layer_norm_epsilon",
        activation: "activation_function",
    },
    ignored: &[],
    only: &[],
    prefixes: &["transformer.", ""],
    embedding: EmbeddingRow {
        tokens: "wte",
        scale: ONE,
        token_types: None,
        positions: Some(("wpe", 0)),
        norm: None,
    },
    norm: NormRow { kind: NormKind::Layer, one_plus: false, bias: true },
    norms: NormPlaces {
        attention: BranchPlaces { before: Some("h.{i}.ln_1"), ..NO_NORMS },
        mlp: BranchPlaces { before: Some("h.{i}.ln_2"), ..NO_NORMS },
        last: Some("ln_f"),
    },
    residual: SEQUENTIAL,
    attention: AttentionRow {
        qkv: QkvRow::Stacked("h.{i}.attn.c_attn"),
        qkv_bias: YES,
        out: "h.{i}.attn.c_proj",
        out_bias: YES,
        rope: None,
        layout: MatrixLayout::InOut,
        ..LLAMA.attention
    },
    mlp: MlpRow { input: MlpInputRow::Plain("h.{i}.mlp.c_fc"), down: "h.{i}.mlp.c_proj", bias: YES },
    head: Some(HeadRow { name: "lm_head", bias: NO, tied: true, scale: ONE, softcap: None }),
};

const GPT_NEOX: Family = Family {
    model_type: "gpt_neox",
    kind: ModelKind::Decoder,
    keys: Keys { kv_heads: None, head_dim: None, eps: "layer_norm_eps", ..LLAMA_KEYS },
    ignored: &[],
    only: &[],
    prefixes: &["gpt_neox.", ""],
    embedding: EmbeddingRow { tokens: "embed_in", ..LLAMA.embedding },
    norm: GPT2.norm,
    norms: NormPlaces { last: Some("final_layer_norm"), ..LLAMA.norms },
    residual: ResidualRow { parallel: Switch::Field("use_parallel_residual", true), ..SEQUENTIAL },
    attention: AttentionRow {
        qkv: QkvRow::Grouped("layers.{i}.attention.query_key_value"),
        qkv_bias: Switch::Field("attention_bias", true),
        out: "layers.{i}.attention.dense",
        out_bias: Switch::Field("attention_bias", true),
        rope: Some(RopeRow { partial: Some(0.25), ..PLAIN_ROPE }),
        ..LLAMA.attention
    },
    mlp: MlpRow {
        input: MlpInputRow::Plain("layers.{i}.mlp.dense_h_to_4h"),
        down: "layers.{i}.mlp.dense_4h_to_h",
        bias: YES,
    },
    head: Some(HeadRow { name: "embed_out", bias: NO, tied: false, scale: ONE, softcap: None }),
};

const BERT: Family = Family {
    model_type: "bert",
    kind: ModelKind::Encoder,
    keys: Keys { kv_heads: None, head_dim: None, eps: "layer_norm_eps", ..LLAMA_KEYS },
    ignored: &[
        "tie_word_embeddings",
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    ],
    only: &[],
    prefixes: &["", "bert."],
    embedding: EmbeddingRow {
        tokens: "embeddings.word_embeddings",
        scale: ONE,
        token_types: Some(("embeddings.token_type_embeddings", "type_vocab_size")),
        positions: Some(("embeddings.position_embeddings", 0)),
        norm: Some("embeddings.LayerNorm"),
    },
    norm: GPT2.norm,
    norms: NormPlaces {
        attention: BranchPlaces {
            after_sum: Some("encoder.layer.{i}.attention.output.LayerNorm"),
            ..NO_NORMS
        },
        mlp: BranchPlaces { after_sum: Some("encoder.layer.{i}.output.LayerNorm"), ..NO_NORMS },
        last: None,
    },
    residual: SEQUENTIAL,
    attention: AttentionRow {
        qkv: QkvRow::Separate(
            "encoder.layer.{i}.attention.self.query",
            "encoder.layer.{i}.attention.self.key",
            "encoder.layer.{i}.attention.self.value",
        ),
        qkv_bias: YES,
        out: "encoder.layer.{i}.attention.output.dense",
        out_bias: YES,
        rope: None,
        ..LLAMA.attention
    },
    mlp: MlpRow {
        input: MlpInputRow::Plain("encoder.layer.{i}.intermediate.dense"),
        down: "encoder.layer.{i}.output.dense",
        bias: YES,
    },
    head: None,
};
