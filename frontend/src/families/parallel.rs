//! Decoders whose attention and MLP run side by side, or may.

use super::gpt::{BLOOM, GPT2};
use super::llama::LLAMA;
use super::{
    LLAMA_KEYS, NO, ONE, PLAIN, PLAIN_ATTENTION, PLAIN_EMBEDDING, PLAIN_HEAD, PLAIN_ROPE, SEQUENTIAL, YES,
};
use crate::family::*;
use crate::spec::{HeadNormScope, NormKind, Residual};

/// Both branches see the same normalised input.
const ONE_NORM: ResidualRow = ResidualRow { parallel: YES, form: Residual::ParallelOneNorm, ..SEQUENTIAL };

pub(super) const GPT_NEOX: Family = Family {
    model_type: "gpt_neox",
    keys: Keys {
        kv_heads: KvHeads::AsQueries,
        head_dim: None,
        eps: Factor::Field("layer_norm_eps"),
        ..LLAMA_KEYS
    },
    prefixes: &["gpt_neox.", ""],
    embedding: EmbeddingRow { tokens: "embed_in", ..PLAIN_EMBEDDING },
    norms: NormPlaces { last: Some("final_layer_norm"), ..LLAMA.norms },
    residual: ResidualRow { parallel: Switch::Field("use_parallel_residual", true), ..SEQUENTIAL },
    attention: AttentionRow {
        qkv: QkvRow::Grouped("layers.{i}.attention.query_key_value"),
        qkv_bias: Switch::Field("attention_bias", true),
        out: "layers.{i}.attention.dense",
        out_bias: Switch::Field("attention_bias", true),
        rope: Some(RopeRow { partial: Some(0.25), ..PLAIN_ROPE }),
        ..PLAIN_ATTENTION
    },
    mlp: MlpRow {
        input: MlpInputRow::Plain("layers.{i}.mlp.dense_h_to_4h"),
        down: "layers.{i}.mlp.dense_4h_to_h",
        bias: YES,
    },
    head: Some(HeadRow { name: "embed_out", ..PLAIN_HEAD }),
    ..PLAIN
};

pub(super) const GPTJ: Family = Family {
    model_type: "gptj",
    keys: GPT2.keys,
    prefixes: &["transformer.", ""],
    embedding: EmbeddingRow { tokens: "wte", ..LLAMA.embedding },
    norms: GPT2.norms,
    residual: ONE_NORM,
    attention: AttentionRow {
        qkv: QkvRow::Separate("h.{i}.attn.q_proj", "h.{i}.attn.k_proj", "h.{i}.attn.v_proj"),
        qkv_bias: NO,
        out: "h.{i}.attn.out_proj",
        out_bias: NO,
        rope: Some(RopeRow { interleaved: true, dim: Some("rotary_dim"), ..PLAIN_ROPE }),
        ..LLAMA.attention
    },
    mlp: MlpRow { input: MlpInputRow::Plain("h.{i}.mlp.fc_in"), down: "h.{i}.mlp.fc_out", bias: YES },
    head: Some(HeadRow { name: "lm_head", bias: YES, tied: false, scale: ONE, softcap: None }),
    ..GPT_NEOX
};

pub(super) const PHI: Family = Family {
    model_type: "phi",
    keys: Keys { kv_heads: LLAMA_KEYS.kv_heads, ..GPT_NEOX.keys },
    prefixes: &["model.", ""],
    embedding: LLAMA.embedding,
    norms: NormPlaces { last: Some("final_layernorm"), ..LLAMA.norms },
    residual: ONE_NORM,
    attention: AttentionRow {
        qkv_bias: YES,
        out: "layers.{i}.self_attn.dense",
        out_bias: YES,
        head_norms: Some(HeadNormRow {
            q: "layers.{i}.self_attn.q_layernorm",
            k: "layers.{i}.self_attn.k_layernorm",
            scope: HeadNormScope::Head,
            values: false,
            after_rope: false,
            present: Switch::Field("qk_layernorm", false),
        }),
        rope: Some(RopeRow { partial: Some(0.5), ..PLAIN_ROPE }),
        ..LLAMA.attention
    },
    mlp: MlpRow { input: MlpInputRow::Plain("layers.{i}.mlp.fc1"), down: "layers.{i}.mlp.fc2", bias: YES },
    head: Some(HeadRow { name: "lm_head", bias: YES, tied: false, scale: ONE, softcap: None }),
    ..GPT_NEOX
};

/// Falcon 40B and 180B: heads in groups, each branch with a norm of its own.
pub(super) const FALCON_GROUPED: Family = Family {
    model_type: "falcon",
    when: &[("new_decoder_architecture", "true")],
    keys: Keys {
        kv_heads: KvHeads::Field("num_kv_heads"),
        inner: "ffn_hidden_size",
        inner_multiple: 4,
        positions_absent: 2048,
        eps: Factor::FieldOr("layer_norm_epsilon", 1e-5),
        activation: ActivationRow::Field("activation"),
        ..GPT_NEOX.keys
    },
    ignored: &["multi_query", "parallel_attn"],
    only: &[("alibi", "false"), ("num_ln_in_parallel_attn", "2")],
    equal: &[("n_embed", "hidden_size")],
    prefixes: &["transformer.", ""],
    embedding: EmbeddingRow { tokens: "word_embeddings", ..LLAMA.embedding },
    norms: NormPlaces {
        attention: BranchPlaces { before: Some("h.{i}.ln_attn"), ..NO_NORMS },
        mlp: BranchPlaces { before: Some("h.{i}.ln_mlp"), ..NO_NORMS },
        ..GPT2.norms
    },
    residual: ResidualRow { parallel: YES, ..SEQUENTIAL },
    attention: AttentionRow {
        qkv: BLOOM.attention.qkv,
        qkv_bias: Switch::Field("bias", false),
        out: BLOOM.attention.out,
        out_bias: Switch::Field("bias", false),
        ..LLAMA.attention
    },
    mlp: MlpRow { bias: Switch::Field("bias", false), ..BLOOM.mlp },
    head: Some(HeadRow { name: "lm_head", bias: NO, tied: true, scale: ONE, softcap: None }),
    ..GPT_NEOX
};

/// Falcon 2: one norm for both branches.
pub(super) const FALCON_GROUPED_ONE_NORM: Family = Family {
    when: &[("new_decoder_architecture", "true"), ("num_ln_in_parallel_attn", "1")],
    only: &[("alibi", "false")],
    norms: BLOOM.norms,
    residual: ONE_NORM,
    ..FALCON_GROUPED
};

/// Falcon 7B: one key head.
pub(super) const FALCON_MULTI_QUERY: Family = Family {
    when: &[("new_decoder_architecture", "false"), ("multi_query", "true"), ("parallel_attn", "true")],
    keys: Keys { kv_heads: KvHeads::Fixed(1), ..FALCON_GROUPED.keys },
    ignored: &["num_kv_heads"],
    ..FALCON_GROUPED_ONE_NORM
};

/// As many key heads as query heads.
pub(super) const FALCON_MULTI_HEAD: Family = Family {
    when: &[("new_decoder_architecture", "false"), ("multi_query", "false"), ("parallel_attn", "true")],
    keys: Keys { kv_heads: KvHeads::AsQueries, ..FALCON_GROUPED.keys },
    ignored: &[],
    equal: &[("n_embed", "hidden_size"), ("num_kv_heads", "num_attention_heads")],
    ..FALCON_MULTI_QUERY
};

/// One branch after the other.
pub(super) const FALCON_SEQUENTIAL: Family = Family {
    when: &[("new_decoder_architecture", "false"), ("multi_query", "false"), ("parallel_attn", "false")],
    residual: SEQUENTIAL,
    ..FALCON_MULTI_HEAD
};

/// Falcon-RW: a bias by position in place of the rotary embedding.
pub(super) const FALCON_ALIBI: Family = Family {
    when: &[
        ("alibi", "true"),
        ("new_decoder_architecture", "false"),
        ("multi_query", "false"),
        ("parallel_attn", "false"),
    ],
    ignored: &["rope_theta", "rope_parameters", "rope_scaling"],
    only: &[],
    attention: AttentionRow { rope: None, alibi: AlibiRow::RoundedAndScaled, ..FALCON_SEQUENTIAL.attention },
    ..FALCON_SEQUENTIAL
};

pub(super) const STABLELM: Family = Family {
    model_type: "stablelm",
    keys: Keys { kv_heads: LLAMA_KEYS.kv_heads, ..GPT_NEOX.keys },
    only: &[],
    prefixes: LLAMA.prefixes,
    embedding: LLAMA.embedding,
    norms: LLAMA.norms,
    residual: ResidualRow { parallel: Switch::Field("use_parallel_residual", false), ..ONE_NORM },
    attention: AttentionRow {
        qkv_bias: Switch::Field("use_qkv_bias", false),
        out_bias: NO,
        head_norms: Some(HeadNormRow {
            q: "layers.{i}.self_attn.q_layernorm.norms.{h}",
            k: "layers.{i}.self_attn.k_layernorm.norms.{h}",
            scope: HeadNormScope::OwnTensors,
            values: false,
            after_rope: false,
            present: Switch::Field("qk_layernorm", false),
        }),
        rope: Some(RopeRow { partial: Some(0.25), ..PLAIN_ROPE }),
        ..LLAMA.attention
    },
    mlp: MlpRow { bias: NO, ..LLAMA.mlp },
    head: LLAMA.head,
    ..GPT_NEOX
};

pub(super) const COHERE: Family = Family {
    model_type: "cohere",
    keys: Keys { head_dim: Some("head_dim"), ..STABLELM.keys },
    only: &[],
    norm: NormRow { kind: NormKind::Layer, weight: true, one_plus: false, bias: false },
    residual: ONE_NORM,
    attention: AttentionRow {
        head_norms: Some(HeadNormRow {
            q: "layers.{i}.self_attn.q_norm",
            k: "layers.{i}.self_attn.k_norm",
            scope: HeadNormScope::EachHead,
            values: false,
            after_rope: false,
            present: Switch::Field("use_qk_norm", false),
        }),
        rope: Some(RopeRow { theta: 5e5, interleaved: true, ..PLAIN_ROPE }),
        ..LLAMA.attention
    },
    head: Some(HeadRow {
        name: "lm_head",
        bias: NO,
        tied: true,
        scale: Factor::FieldOr("logit_scale", 0.0625),
        softcap: None,
    }),
    ..STABLELM
};

pub(super) const COHERE2: Family = Family {
    model_type: "cohere2",
    ignored: &[
        "cache_implementation",
        "order_of_interleaved_layers",
        "rotary_pct",
        "position_embedding_type",
    ],
    only: &[
        ("use_embedding_sharing", "true"),
        ("use_gated_activation", "true"),
        ("use_parallel_block", "true"),
        ("use_parallel_embedding", "true"),
    ],
    attention: AttentionRow {
        head_norms: None,
        rope: Some(RopeRow { interleaved: true, layers: RopeLayers::Sliding, ..PLAIN_ROPE }),
        window: WindowRow::AllButEvery { period: 4, period_field: "sliding_window_pattern", absent: 4096 },
        ..COHERE.attention
    },
    ..COHERE
};
