//! Encoders.

use super::gpt::GPT2;
use super::llama::LLAMA;
use super::parallel::GPT_NEOX;
use super::{NO, PLAIN, PLAIN_ATTENTION, PLAIN_EMBEDDING, PLAIN_ROPE, YES};
use crate::family::*;
use crate::spec::{Activation, ModelKind, NormKind};

const BERT_SCORES: ClassifierRow = ClassifierRow {
    dense: ("pooler.dense", true),
    dense_bias: YES,
    activation: ActivationRow::Fixed(Activation::Tanh),
    norm: None,
    linear: "classifier",
    pooling: None,
};

pub(super) const BERT: Family = Family {
    model_type: "bert",
    kind: ModelKind::Encoder,
    keys: GPT_NEOX.keys,
    ignored: &[
        "tie_word_embeddings",
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    ],
    prefixes: &["", "bert."],
    embedding: EmbeddingRow {
        tokens: "embeddings.word_embeddings",
        token_types: Some(("embeddings.token_type_embeddings", "type_vocab_size")),
        positions: Some(PositionRow { table: "embeddings.position_embeddings", offset: 0, counted: false }),
        norm: Some("embeddings.LayerNorm"),
        ..PLAIN_EMBEDDING
    },
    norms: after_sums("encoder.layer.{i}.attention.output.LayerNorm", "encoder.layer.{i}.output.LayerNorm"),
    attention: AttentionRow {
        qkv: QkvRow::Separate(
            "encoder.layer.{i}.attention.self.query",
            "encoder.layer.{i}.attention.self.key",
            "encoder.layer.{i}.attention.self.value",
        ),
        qkv_bias: YES,
        out: "encoder.layer.{i}.attention.output.dense",
        out_bias: YES,
        ..PLAIN_ATTENTION
    },
    mlp: MlpRow {
        input: MlpInputRow::Plain("encoder.layer.{i}.intermediate.dense"),
        down: "encoder.layer.{i}.output.dense",
        bias: YES,
    },
    classifier: Some(BERT_SCORES),
    ..PLAIN
};

/// A norm behind each sum, as the first encoders have it.
const fn after_sums(attention: &'static str, mlp: &'static str) -> NormPlaces {
    NormPlaces {
        attention: BranchPlaces { after_sum: Some(attention), ..NO_NORMS },
        mlp: BranchPlaces { after_sum: Some(mlp), ..NO_NORMS },
        ..PLAIN.norms
    }
}

pub(super) const ROBERTA: Family = Family {
    model_type: "roberta",
    only: &[("pad_token_id", "1")],
    prefixes: &["", "roberta."],
    embedding: EmbeddingRow {
        positions: Some(PositionRow { table: "embeddings.position_embeddings", offset: 2, counted: true }),
        ..BERT.embedding
    },
    classifier: Some(ClassifierRow {
        dense: ("classifier.dense", false),
        dense_bias: YES,
        activation: ActivationRow::Fixed(Activation::Tanh),
        norm: None,
        linear: "classifier.out_proj",
        pooling: None,
    }),
    ..BERT
};

pub(super) const XLM_ROBERTA: Family = Family { model_type: "xlm-roberta", ..ROBERTA };

pub(super) const CAMEMBERT: Family = Family { model_type: "camembert", ..ROBERTA };

const DISTILBERT_SCORES: ClassifierRow = ClassifierRow {
    dense: ("pre_classifier", false),
    dense_bias: YES,
    activation: ActivationRow::Fixed(Activation::Relu),
    norm: None,
    linear: "classifier",
    pooling: None,
};

pub(super) const DISTILBERT: Family = Family {
    model_type: "distilbert",
    keys: Keys {
        hidden: "dim",
        layers: "n_layers",
        heads: "n_heads",
        inner: "hidden_dim",
        eps: Factor::Fixed(1e-12),
        activation: ActivationRow::Field("activation"),
        ..BERT.keys
    },
    ignored: &["dropout", "qa_dropout", "seq_classif_dropout", "tie_word_embeddings", "tie_weights_"],
    only: &[("sinusoidal_pos_embds", "false")],
    prefixes: &["", "distilbert."],
    embedding: EmbeddingRow { token_types: None, ..BERT.embedding },
    norms: after_sums("transformer.layer.{i}.sa_layer_norm", "transformer.layer.{i}.output_layer_norm"),
    attention: AttentionRow {
        qkv: QkvRow::Separate(
            "transformer.layer.{i}.attention.q_lin",
            "transformer.layer.{i}.attention.k_lin",
            "transformer.layer.{i}.attention.v_lin",
        ),
        out: "transformer.layer.{i}.attention.out_lin",
        ..BERT.attention
    },
    mlp: MlpRow {
        input: MlpInputRow::Plain("transformer.layer.{i}.ffn.lin1"),
        down: "transformer.layer.{i}.ffn.lin2",
        bias: YES,
    },
    classifier: Some(DISTILBERT_SCORES),
    ..BERT
};

const MODERNBERT_WINDOW: WindowRow =
    WindowRow::BothSides { width: ("local_attention", 128), period: ("global_attn_every_n_layers", 3) };

const MODERNBERT_SCORES: ClassifierRow = ClassifierRow {
    dense: ("head.dense", false),
    dense_bias: Switch::Field("classifier_bias", false),
    activation: ActivationRow::Field("classifier_activation"),
    norm: Some("head.norm"),
    linear: "classifier",
    pooling: Some("classifier_pooling"),
};

pub(super) const MODERNBERT: Family = Family {
    model_type: "modernbert",
    keys: Keys {
        eps: Factor::Field("norm_eps"),
        activation: ActivationRow::Field("hidden_activation"),
        ..BERT.keys
    },
    ignored: &[
        "tie_word_embeddings",
        "cls_token_id",
        "classifier_activation",
        "classifier_bias",
        "classifier_pooling",
        "decoder_bias",
        "deterministic_flash_attn",
        "embedding_dropout",
        "initializer_cutoff_factor",
        "layer_norm_eps",
        "mlp_dropout",
        "reference_compile",
        "repad_logits_with_grad",
        "sparse_pred_ignore_index",
        "sparse_prediction",
    ],
    only: &[("norm_bias", "false"), ("position_embedding_type", "\"absolute\"")],
    prefixes: &["", "model."],
    embedding: EmbeddingRow {
        tokens: "embeddings.tok_embeddings",
        norm: Some("embeddings.norm"),
        ..LLAMA.embedding
    },
    norm: NormRow { kind: NormKind::Layer, weight: true, one_plus: false, bias: false },
    norms: NormPlaces {
        attention: BranchPlaces { before: Some("layers.{i}.attn_norm"), ..NO_NORMS },
        mlp: BranchPlaces { before: Some("layers.{i}.mlp_norm"), ..NO_NORMS },
        first_is_bare: true,
        last: Some("final_norm"),
    },
    attention: AttentionRow {
        qkv: QkvRow::Stacked("layers.{i}.attn.Wqkv"),
        qkv_bias: Switch::Field("attention_bias", false),
        out: "layers.{i}.attn.Wo",
        out_bias: Switch::Field("attention_bias", false),
        rope: Some(RopeRow { theta: 160_000.0, local: Some(("local_rope_theta", 1e4)), ..PLAIN_ROPE }),
        window: MODERNBERT_WINDOW,
        ..BERT.attention
    },
    mlp: MlpRow {
        input: MlpInputRow::GatedStacked("layers.{i}.mlp.Wi"),
        down: "layers.{i}.mlp.Wo",
        bias: Switch::Field("mlp_bias", false),
    },
    classifier: Some(MODERNBERT_SCORES),
    ..BERT
};

pub(super) const NOMIC_BERT: Family = Family {
    model_type: "nomic_bert",
    keys: Keys { head_dim: Some("head_dim"), ..BERT.keys },
    prefixes: &["", "nomic_bert."],
    embedding: EmbeddingRow { positions: None, norm: Some("emb_ln"), ..BERT.embedding },
    norms: after_sums("encoder.layers.{i}.norm1", "encoder.layers.{i}.norm2"),
    attention: AttentionRow {
        qkv: QkvRow::Stacked("encoder.layers.{i}.attn.Wqkv"),
        qkv_bias: NO,
        out: "encoder.layers.{i}.attn.out_proj",
        out_bias: NO,
        rope: Some(RopeRow { theta: 1000.0, ..PLAIN_ROPE }),
        ..LLAMA.attention
    },
    mlp: MlpRow {
        input: MlpInputRow::Gated("encoder.layers.{i}.mlp.fc12", "encoder.layers.{i}.mlp.fc11"),
        down: "encoder.layers.{i}.mlp.fc2",
        bias: NO,
    },
    classifier: None,
    ..BERT
};

/// The same as its first files spell it: GPT-2's names.
pub(super) const NOMIC_BERT_OLD: Family = Family {
    when: &[("activation_function", "\"swiglu\"")],
    keys: Keys {
        kv_heads: KvHeads::AsQueries,
        head_dim: None,
        eps: Factor::Field("layer_norm_epsilon"),
        activation: ActivationRow::Fixed(Activation::Silu),
        ..GPT2.keys
    },
    ignored: &[
        "activation_function",
        "dense_seq_output",
        "fused_bias_fc",
        "fused_dropout_add_ln",
        "last_layer_subset",
        "max_trained_positions",
        "pad_vocab_size_multiple",
        "tie_word_embeddings",
        "use_flash_attn",
        "use_xentropy",
    ],
    only: &[
        ("causal", "false"),
        ("mlp_fc1_bias", "false"),
        ("mlp_fc2_bias", "false"),
        ("parallel_block", "false"),
        ("prenorm", "false"),
        ("qkv_proj_bias", "false"),
        ("rotary_emb_fraction", "1.0"),
        ("rotary_emb_interleaved", "false"),
        ("use_rms_norm", "false"),
    ],
    ..NOMIC_BERT
};
