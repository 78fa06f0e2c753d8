//! Models of several kinds of input around a text model of a known family: the text model alone is read.

use serde_json::{Map, Value};

use crate::config::{ConfigError, RawConfig};

/// `model_type` of the whole, and that of its text model where the part does not say one.
pub const WRAPPERS: &[(&str, &str)] = &[
    ("aya_vision", "cohere2"),
    ("gemma3", "gemma3_text"),
    ("gemma4", "gemma4_text"),
    ("llava", "llama"),
    ("mistral3", "mistral"),
    ("qwen2_5_vl", "qwen2_5_vl_text"),
    ("qwen2_vl", "qwen2_vl_text"),
    ("qwen3_vl", "qwen3_vl_text"),
];

/// Fields beside the text model that speak of other inputs.
const OTHER_INPUTS: &[&str] = &[
    "audio_config",
    "alignment_intermediate_size",
    "adapter_layer_norm_eps",
    "downsample_factor",
    "image_seq_length",
    "mm_tokens_per_image",
    "multimodal_projector_bias",
    "projector_hidden_act",
    "spatial_merge_size",
    "vision_config",
    "vision_feature_layer",
    "vision_feature_select_strategy",
];

/// Fields of the whole that the text model is read with where it has none of its own.
const INHERITED: &[&str] =
    &["tie_word_embeddings", "quantization_config", "compression_config", "eos_token_id", "bos_token_id"];

/// Whether a field says which token stands for an image or a sound.
fn is_place_holder(field: &str) -> bool {
    field.ends_with("_token_id") || field.ends_with("_token_index")
}

/// The configuration of the text model of a whole that has one; any other configuration as it is. A field of the whole that
/// is neither known to speak of other inputs nor known to change nothing is an error.
pub(crate) fn text_part(config: RawConfig) -> Result<RawConfig, ConfigError> {
    let root = config.root();
    let model_type = root.peek("model_type").and_then(Value::as_str);
    let Some((_, family)) = WRAPPERS.iter().find(|(name, _)| Some(*name) == model_type) else {
        return Ok(config);
    };
    let Some(text) = root.value("text_config") else {
        let own = flat(root.fields(), family);
        return Ok(config.replaced(own).noted(NOTE));
    };
    let text = text.as_object().ok_or_else(|| root.wrong("text_config", "an object"))?;
    let mut inner = text.clone();
    inner.entry("model_type").or_insert_with(|| (*family).into());
    for field in INHERITED {
        if let Some(value) = root.value(field) {
            inner.entry(*field).or_insert_with(|| value.clone());
        }
    }
    let other = |field: &&String| OTHER_INPUTS.contains(&field.as_str()) || is_place_holder(field);
    root.fields().keys().filter(other).for_each(|field| root.skip(field));
    config.finish()?;
    Ok(config.nested("text_config", &inner).noted(NOTE))
}

/// The fields of the text model in old files, where they stand beside the other inputs'.
fn flat(fields: &Map<String, Value>, family: &str) -> Map<String, Value> {
    let own = |(field, _): &(&String, &Value)| {
        !OTHER_INPUTS.contains(&field.as_str())
            && (!is_place_holder(field) || ["eos_token_id", "bos_token_id"].contains(&field.as_str()))
    };
    let mut own: Map<String, Value> =
        fields.iter().filter(own).map(|(field, value)| (field.clone(), value.clone())).collect();
    own.insert("model_type".into(), family.into());
    own
}

/// What the user should be told.
const NOTE: &str = "the text model alone is used: images and sounds are not read";
