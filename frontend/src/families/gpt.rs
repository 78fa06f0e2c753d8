//! Decoders like GPT-2: learned positions or ALiBi, plain MLPs, norms with a mean and biases.

use super::llama::LLAMA;
use super::{LLAMA_KEYS, PLAIN, PLAIN_ATTENTION, PLAIN_EMBEDDING, PLAIN_HEAD, YES};
use crate::family::*;
use crate::spec::{Activation, MatrixLayout};

const GPT2_KEYS: Keys = Keys {
    hidden: "n_embd",
    layers: "n_layer",
    heads: "n_head",
    kv_heads: KvHeads::AsQueries,
    head_dim: None,
    inner: "n_inner",
    inner_multiple: 4,
    positions: "n_positions",
    positions_absent: 0,
    eps: Factor::Field("layer_norm_epsilon"),
    activation: ActivationRow::Field("activation_function"),
};

pub(super) const GPT2: Family = Family {
    model_type: "gpt2",
    keys: GPT2_KEYS,
    prefixes: &["transformer.", ""],
    embedding: EmbeddingRow {
        tokens: "wte",
        positions: Some(PositionRow { table: "wpe", offset: 0, counted: false }),
        ..PLAIN_EMBEDDING
    },
    norms: NormPlaces {
        attention: BranchPlaces { before: Some("h.{i}.ln_1"), ..NO_NORMS },
        mlp: BranchPlaces { before: Some("h.{i}.ln_2"), ..NO_NORMS },
        last: Some("ln_f"),
        ..PLAIN.norms
    },
    attention: AttentionRow {
        qkv: QkvRow::Stacked("h.{i}.attn.c_attn"),
        qkv_bias: YES,
        out: "h.{i}.attn.c_proj",
        out_bias: YES,
        layout: MatrixLayout::InOut,
        ..PLAIN_ATTENTION
    },
    mlp: MlpRow { input: MlpInputRow::Plain("h.{i}.mlp.c_fc"), down: "h.{i}.mlp.c_proj", bias: YES },
    head: Some(HeadRow { tied: true, ..PLAIN_HEAD }),
    ..PLAIN
};

pub(super) const GPT_BIGCODE: Family = Family {
    model_type: "gpt_bigcode",
    when: &[("multi_query", "true")],
    keys: Keys { kv_heads: KvHeads::Fixed(1), ..GPT2.keys },
    ignored: &["attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"],
    only: &[("num_key_value_heads", "1")],
    attention: AttentionRow { layout: MatrixLayout::OutIn, ..GPT2.attention },
    ..GPT2
};

pub(super) const GPT_BIGCODE_MULTI_HEAD: Family = Family {
    when: &[("multi_query", "false")],
    keys: GPT2.keys,
    only: &[],
    equal: &[("num_key_value_heads", "n_head")],
    attention: AttentionRow { qkv: QkvRow::Grouped("h.{i}.attn.c_attn"), ..GPT_BIGCODE.attention },
    ..GPT_BIGCODE
};

pub(super) const OPT: Family = Family {
    model_type: "opt",
    keys: Keys {
        kv_heads: KvHeads::AsQueries,
        head_dim: None,
        inner: "ffn_dim",
        eps: Factor::Fixed(1e-5),
        activation: ActivationRow::Field("activation_function"),
        ..LLAMA_KEYS
    },
    ignored: &["dropout", "layerdrop", "init_std"],
    only: &[
        ("do_layer_norm_before", "true"),
        ("enable_bias", "true"),
        ("layer_norm_elementwise_affine", "true"),
        ("_remove_final_layer_norm", "false"),
    ],
    equal: &[],
    prefixes: &["model.decoder.", "decoder.", ""],
    embedding: EmbeddingRow {
        positions: Some(PositionRow { table: "embed_positions", offset: 2, counted: false }),
        project: Some(("word_embed_proj_dim", ["project_in", "project_out"])),
        ..LLAMA.embedding
    },
    norms: NormPlaces {
        attention: BranchPlaces { before: Some("layers.{i}.self_attn_layer_norm"), ..NO_NORMS },
        mlp: BranchPlaces { before: Some("layers.{i}.final_layer_norm"), ..NO_NORMS },
        last: Some("final_layer_norm"),
        ..GPT2.norms
    },
    attention: AttentionRow {
        qkv: LLAMA.attention.qkv,
        out: "layers.{i}.self_attn.out_proj",
        layout: MatrixLayout::OutIn,
        ..GPT2.attention
    },
    mlp: MlpRow { input: MlpInputRow::Plain("layers.{i}.fc1"), down: "layers.{i}.fc2", bias: YES },
    ..GPT2
};

/// OPT 350M: norms behind the sums.
pub(super) const OPT_POST_NORM: Family = Family {
    when: &[("do_layer_norm_before", "false")],
    only: &[
        ("enable_bias", "true"),
        ("layer_norm_elementwise_affine", "true"),
        ("_remove_final_layer_norm", "false"),
    ],
    norms: NormPlaces {
        attention: BranchPlaces { after_sum: Some("layers.{i}.self_attn_layer_norm"), ..NO_NORMS },
        mlp: BranchPlaces { after_sum: Some("layers.{i}.final_layer_norm"), ..NO_NORMS },
        last: None,
        ..OPT.norms
    },
    ignored: &["dropout", "layerdrop", "init_std", "do_layer_norm_before"],
    ..OPT
};

pub(super) const BLOOM: Family = Family {
    model_type: "bloom",
    keys: Keys {
        hidden: "hidden_size",
        positions: "seq_length",
        positions_absent: 2048,
        activation: ActivationRow::Fixed(Activation::GeluTanh),
        ..GPT2.keys
    },
    ignored: &["attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi"],
    only: &[
        ("apply_residual_connection_post_layernorm", "false"),
        ("slow_but_exact", "false"),
        ("skip_bias_add", "true"),
        ("skip_bias_add_qkv", "false"),
    ],
    equal: &[("n_embed", "hidden_size")],
    embedding: EmbeddingRow {
        tokens: "word_embeddings",
        positions: None,
        norm: Some("word_embeddings_layernorm"),
        ..GPT2.embedding
    },
    norms: NormPlaces {
        attention: BranchPlaces { before: Some("h.{i}.input_layernorm"), ..NO_NORMS },
        mlp: BranchPlaces { before: Some("h.{i}.post_attention_layernorm"), ..NO_NORMS },
        ..GPT2.norms
    },
    attention: AttentionRow {
        qkv: QkvRow::Grouped("h.{i}.self_attention.query_key_value"),
        out: "h.{i}.self_attention.dense",
        alibi: AlibiRow::Plain,
        layout: MatrixLayout::OutIn,
        ..GPT2.attention
    },
    mlp: MlpRow {
        input: MlpInputRow::Plain("h.{i}.mlp.dense_h_to_4h"),
        down: "h.{i}.mlp.dense_4h_to_h",
        bias: YES,
    },
    ..GPT2
};
