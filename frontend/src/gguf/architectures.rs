//! The architectures that GGUF files name: one row each.
//!
//! A row says which family of models an architecture is and where it departs from what the family's own row tells: most
//! fields of `config.json` and all names of tensors follow from that one.

/// An architecture.
#[derive(Debug)]
pub(super) struct Row {
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// A tensor that files of this row have; the first row that fits is taken.
    pub(super) when: Option<&'static str>,
    /// The family.
    pub(super) model_type: &'static str,
    /// The activation, which files do not tell.
    pub(super) activation: &'static str,
    /// Whether the rows of each head of queries and keys are stored with the two halves of the rotation taking turns.
    pub(super) turns: bool,
    /// Fields of `config.json` besides the common ones.
    pub(super) fields: &'static [(&'static str, From)],
    /// Tensors whose names stand for something else than in other architectures: of a file, of a checkpoint.
    pub(super) names: &'static [(&'static str, &'static str)],
}

/// Where a field of `config.json` comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// It is always this, as JSON.
    Always(&'static str),
    /// The number of an entry, which must be there.
    Entry(&'static str),
    /// The number of an entry, if it is there.
    MayEntry(&'static str),
    /// The width of a head, or with so many layers that of the residual stream over the number of heads.
    ScoreWidth(u64),
    /// Whether there is one head of keys.
    OneKeyHead,
}

const PLAIN: Row =
    Row { name: "", when: None, model_type: "", activation: "silu", turns: false, fields: &[], names: &[] };

const TANH: &str = "gelu_pytorch_tanh";

/// All architectures.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "llama",
        when: Some("blk.0.ffn_gate_exps.weight"),
        model_type: "mixtral",
        turns: true,
        fields: &[("sliding_window", From::Always("null"))],
        ..PLAIN
    },
    Row { name: "llama", model_type: "llama", turns: true, ..PLAIN },
    Row { name: "qwen2", model_type: "qwen2", ..PLAIN },
    Row { name: "qwen3", model_type: "qwen3", ..PLAIN },
    Row {
        name: "qwen3moe",
        model_type: "qwen3_moe",
        fields: &[("norm_topk_prob", From::Always("true"))],
        ..PLAIN
    },
    Row { name: "gemma", model_type: "gemma", activation: TANH, ..PLAIN },
    Row {
        name: "gemma2",
        model_type: "gemma2",
        activation: TANH,
        fields: &[("query_pre_attn_scalar", From::ScoreWidth(46))],
        ..PLAIN
    },
    Row {
        name: "gemma3",
        model_type: "gemma3_text",
        activation: TANH,
        fields: &[("query_pre_attn_scalar", From::ScoreWidth(62))],
        ..PLAIN
    },
    Row { name: "phi3", model_type: "phi3", ..PLAIN },
    Row { name: "phi2", model_type: "phi", activation: "gelu_new", ..PLAIN },
    Row { name: "gpt2", model_type: "gpt2", activation: "gelu_new", ..PLAIN },
    Row { name: "gptneox", model_type: "gpt_neox", activation: "gelu", ..PLAIN },
    Row { name: "bloom", model_type: "bloom", activation: "gelu", ..PLAIN },
    Row {
        name: "falcon",
        when: Some("blk.0.attn_norm_2.weight"),
        model_type: "falcon",
        activation: "gelu",
        fields: &[("new_decoder_architecture", From::Always("true"))],
        names: &[("blk.{i}.attn_norm_2", "h.{i}.ln_attn"), ("blk.{i}.attn_norm", "h.{i}.ln_mlp")],
        ..PLAIN
    },
    Row {
        name: "falcon",
        model_type: "falcon",
        activation: "gelu",
        fields: &[
            ("new_decoder_architecture", From::Always("false")),
            ("multi_query", From::OneKeyHead),
            ("parallel_attn", From::Always("true")),
        ],
        ..PLAIN
    },
    Row {
        name: "starcoder",
        model_type: "gpt_bigcode",
        activation: TANH,
        fields: &[("multi_query", From::OneKeyHead)],
        ..PLAIN
    },
    Row { name: "starcoder2", model_type: "starcoder2", activation: TANH, ..PLAIN },
    Row {
        name: "olmo",
        model_type: "olmo",
        turns: true,
        fields: &[("clip_qkv", From::MayEntry("attention.clamp_kqv"))],
        ..PLAIN
    },
    Row { name: "olmo2", model_type: "olmo2", ..PLAIN },
    Row {
        name: "granite",
        model_type: "granite",
        turns: true,
        fields: &[
            ("attention_multiplier", From::MayEntry("attention.scale")),
            ("embedding_multiplier", From::MayEntry("embedding_scale")),
            ("residual_multiplier", From::MayEntry("residual_scale")),
            ("logits_scaling", From::Entry("logit_scale")),
        ],
        ..PLAIN
    },
    Row { name: "smollm3", model_type: "smollm3", turns: true, ..PLAIN },
    Row { name: "stablelm", model_type: "stablelm", ..PLAIN },
    Row {
        name: "command-r",
        model_type: "cohere",
        fields: &[("logit_scale", From::Entry("logit_scale"))],
        ..PLAIN
    },
    Row { name: "nemotron", model_type: "nemotron", activation: "relu2", ..PLAIN },
    Row { name: "glm4", model_type: "glm4", ..PLAIN },
    Row { name: "ernie4_5", model_type: "ernie4_5", ..PLAIN },
    Row {
        name: "seed_oss",
        model_type: "seed_oss",
        names: &[("blk.{i}.post_attention_norm", "layers.{i}.post_attention_layernorm")],
        ..PLAIN
    },
    Row { name: "hunyuan-dense", model_type: "hunyuan_v1_dense", ..PLAIN },
    Row { name: "exaone4", model_type: "exaone4", ..PLAIN },
];

/// The names of all architectures, each once.
pub(super) fn known() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = ROWS.iter().map(|row| row.name).collect();
    names.dedup();
    names
}
