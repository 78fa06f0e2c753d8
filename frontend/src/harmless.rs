//! The fields of `config.json` that change nothing in what is computed here.

use serde_json::Value;

/// Fields that never matter for inference: bookkeeping, training, and ids that the tokenizer and
/// `generation_config.json` decide.
const NEVER_MATTER: &[&str] = &[
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "auto_map",
    "begin_suppress_tokens",
    "bos_token_id",
    "classifier_dropout",
    "decoder_start_token_id",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "keys_to_ignore_at_inference",
    "label2id",
    "max_length",
    "min_length",
    "model_max_length",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    // How scores are shown; `scoring.rs` reads them.
    "sbert_ce_default_activation_function",
    "sentence_transformers",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "tf_legacy_loss",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "use_return_dict",
    // Old files carry the defaults of sampling here; generation_config.json decides.
    "bad_words_ids",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "remove_invalid_values",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    // Heads of GPT-2 that no causal model uses.
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "n_ctx",
];

/// Fields that are fine as long as they have the value that means "not used".
fn is_neutral(field: &str, value: &Value) -> bool {
    match field {
        "add_cross_attention"
        | "cross_attention_hidden_size"
        | "is_decoder"
        | "is_encoder_decoder"
        | "tie_encoder_decoder"
        | "torchscript"
        | "use_bfloat16"
        | "use_bidirectional_attention"
        | "reorder_and_upcast_attn"
        | "scale_attn_by_inverse_layer_idx" => *value == Value::Bool(false),
        "chunk_size_feed_forward" => value.as_u64() == Some(0),
        "pruned_heads" => value.as_object().is_some_and(serde_json::Map::is_empty),
        "scale_attn_weights" => *value == Value::Bool(true),
        "position_embedding_type" => value.as_str() == Some("absolute"),
        _ => false,
    }
}

/// Whether a field that nothing read may be ignored.
pub(crate) fn is_harmless(field: &str, value: &Value) -> bool {
    value.is_null() || field.starts_with('_') || NEVER_MATTER.contains(&field) || is_neutral(field, value)
}

/// What the user should know about a field that is ignored on purpose.
pub(crate) fn note(field: &str, value: &Value) -> Option<String> {
    let asks_for_code = field == "auto_map" && !value.is_null();
    asks_for_code.then(|| "field `auto_map` names Python code of the model; it is never run".to_owned())
}
