//! `generation_config.json`: which tokens end a text, and the defaults of sampling.

use serde_json::Value;

use crate::config::{ConfigError, RawConfig, Section};
use crate::source::{FileKind, ModelDir};

/// The model's wishes for generation. `None` means that the model says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Tokens that end a text, sorted, each once.
    pub eos_ids: Vec<u32>,
    /// The token that begins a text.
    pub bos_id: Option<u32>,
    /// The token that fills up batches.
    pub pad_id: Option<u32>,
    /// Whether the model wants sampling instead of the most probable token.
    pub do_sample: Option<bool>,
    /// The divisor of the logits.
    pub temperature: Option<f64>,
    /// Sample among this many tokens; zero means all.
    pub top_k: Option<usize>,
    /// Sample among the tokens that hold this much probability.
    pub top_p: Option<f64>,
    /// Drop tokens less probable than this share of the best.
    pub min_p: Option<f64>,
    /// Divides the logits of tokens that occurred.
    pub repetition_penalty: Option<f64>,
    /// The most tokens to generate.
    pub max_new_tokens: Option<usize>,
    /// What the user should be told: fields that are not honoured.
    pub notes: Vec<String>,
}

/// Fields that ask for another way to search, with the values that ask for nothing.
const OTHER_SEARCH: &[(&str, &[f64])] = &[
    ("num_beams", &[1.0]),
    ("num_beam_groups", &[1.0]),
    ("penalty_alpha", &[0.0]),
    ("no_repeat_ngram_size", &[0.0]),
    ("encoder_repetition_penalty", &[1.0]),
    ("typical_p", &[1.0]),
    ("epsilon_cutoff", &[0.0]),
    ("eta_cutoff", &[0.0]),
    ("diversity_penalty", &[0.0]),
    ("length_penalty", &[1.0, 0.0]),
    ("guidance_scale", &[1.0]),
    ("top_h", &[0.0]),
];

impl GenerationDefaults {
    /// Reads `generation_config.json`; where it is missing or names no end token, `config.json` is asked for it.
    pub fn load(dir: &ModelDir, config: &RawConfig) -> Result<Self, ConfigError> {
        let mut defaults = match dir.read_optional(FileKind::GenerationConfig)? {
            None => GenerationDefaults::default(),
            Some(bytes) => {
                let place = dir.place(FileKind::GenerationConfig.name());
                GenerationDefaults::from_raw(&RawConfig::parse_at(&bytes, place)?)?
            }
        };
        let root = config.root();
        if defaults.eos_ids.is_empty() {
            defaults.eos_ids = token_ids(root, "eos_token_id")?;
        }
        if defaults.bos_id.is_none() {
            defaults.bos_id = token_ids(root, "bos_token_id")?.first().copied();
        }
        Ok(defaults)
    }

    /// Reads an already parsed `generation_config.json`.
    pub fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        let root = raw.root();
        Ok(GenerationDefaults {
            eos_ids: token_ids(root, "eos_token_id")?,
            bos_id: token_ids(root, "bos_token_id")?.first().copied(),
            pad_id: token_ids(root, "pad_token_id")?.first().copied(),
            do_sample: root.opt_bool("do_sample")?,
            temperature: root.opt_f64("temperature", 0.0..=100.0)?,
            top_k: root.opt_usize("top_k", 0..=1 << 22)?,
            top_p: root.opt_f64("top_p", 0.0..=1.0)?,
            min_p: root.opt_f64("min_p", 0.0..=1.0)?,
            repetition_penalty: root.opt_f64("repetition_penalty", 1e-3..=1e3)?,
            max_new_tokens: root.opt_usize("max_new_tokens", 1..=1 << 28)?,
            notes: not_honoured(root)?,
        })
    }
}

/// One id or a list of ids; a negative one is an old way to say "none".
fn token_ids(root: Section<'_>, key: &str) -> Result<Vec<u32>, ConfigError> {
    const LIST_MAX: usize = 1024;
    let wanted = || root.wrong(key, "a token id or a list of at most 1024 token ids");
    let values = match root.value(key) {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() <= LIST_MAX => values.iter().collect(),
        Some(value) if value.is_number() => vec![value],
        Some(_) => return Err(wanted()),
    };
    let mut ids = Vec::with_capacity(values.len());
    for value in values {
        match value.as_i64() {
            Some(id) if id < 0 => {}
            Some(id) => ids.push(u32::try_from(id).map_err(|_| wanted())?),
            None => return Err(wanted()),
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Notes about fields that ask for a search that the engine does not do.
fn not_honoured(root: Section<'_>) -> Result<Vec<String>, ConfigError> {
    let mut notes = Vec::new();
    for (key, nothing) in OTHER_SEARCH {
        let Some(value) = root.opt_f64(key, f64::MIN..=f64::MAX)? else { continue };
        if !nothing.contains(&value) {
            notes.push(format!("{}: `{key}` = {value} is not honoured", root.config().place()));
        }
    }
    Ok(notes)
}
