//! The fields that every interface for generation has: how tokens are chosen, and where answers end.

use super::body::{Fields, Kind, Row, row};
use super::error::ApiError;
use super::generate::Generation;
use super::state::App;
use sinter_runtime::SamplingParams;
use std::hash::{BuildHasher, Hasher};

/// Cuts off unlikely tokens by their probability.
pub const TOP_P: Row =
    row("top_p", Kind::Number(0.0, 1.0), "Only the likeliest tokens that together have this probability.");
/// Cuts off unlikely tokens by their number.
pub const TOP_K: Row =
    row("top_k", Kind::Int(-1, 1 << 24), "Only the so many likeliest tokens; 0 and -1 keep all.");

/// Fields of OpenAI's interfaces.
pub const SAMPLING: &[Row] = &[
    row("temperature", Kind::Number(0.0, 2.0), "Divides the logits; 0 always takes the likeliest token."),
    TOP_P,
    row(
        "presence_penalty",
        Kind::Number(-2.0, 2.0),
        "Taken once from the logits of tokens that were generated.",
    ),
    row("frequency_penalty", Kind::Number(-2.0, 2.0), "Taken each time a token was generated."),
    row(
        "seed",
        Kind::Int(i64::MIN, i64::MAX),
        "Where the random numbers start; the same seed gives the same text.",
    ),
    row("stop", Kind::Texts(16), "Texts that end an answer; they are no part of it."),
];

/// Fields of OpenAI's first interfaces alone.
pub const CHOICES: &[Row] = &[
    row("n", Kind::Int(1, 16), "Independent answers."),
    row("logit_bias", Kind::Object, "Added to the logits of tokens: ids to numbers from -100 to 100."),
];

/// Fields that other servers have besides, with the same meaning.
pub const EXTENSIONS: &[Row] = &[
    TOP_K,
    row("min_p", Kind::Number(0.0, 1.0), "Only tokens at least this fraction as likely as the likeliest."),
    row(
        "repetition_penalty",
        Kind::Number(0.001, 1000.0),
        "Makes tokens that were seen less likely; 1 changes nothing.",
    ),
    row("stop_token_ids", Kind::Ids(64), "Ids that end an answer."),
    row("ignore_eos", Kind::Bool, "Passes over the model's own end."),
    row("include_stop_str_in_output", Kind::Bool, "Makes the text that ended an answer part of it."),
    row("skip_special_tokens", Kind::Bool, "Leaves special tokens out of the text; true if left out."),
    row("priority", Kind::Int(-1000, 1000), "Who goes first: smaller is sooner."),
    row("cache_salt", Kind::Text, "Only requests with the same salt share cached beginnings."),
    row("min_tokens", Kind::Only(&["0"]), "Not supported."),
    row("bad_words", Kind::Only(&["[]"]), "Not supported."),
    row("length_penalty", Kind::Only(&["1", "1.0"]), "Not supported."),
    row("use_beam_search", Kind::Only(&["false"]), "Not supported."),
    row("early_stopping", Kind::Only(&["false"]), "Not supported."),
    row("spaces_between_special_tokens", Kind::Only(&["true"]), "Not supported."),
    row("logits_processors", Kind::Only(&["[]"]), "Not supported."),
    row("truncate_prompt_tokens", Kind::Only(&[]), "Not supported."),
];

/// Fields that say who asks and why. They never change an answer.
pub const HARMLESS: &[Row] = &[
    row("user", Kind::Harmless, "Whose request it is."),
    row("metadata", Kind::Harmless, "Remarks."),
    row("store", Kind::Harmless, "Nothing is stored."),
    row("service_tier", Kind::Harmless, "There is one tier."),
    row("safety_identifier", Kind::Harmless, "Whose request it is."),
    row("prompt_cache_key", Kind::Harmless, "Beginnings are found by their tokens."),
    row("prompt_cache_retention", Kind::Harmless, "Beginnings are kept while there is room."),
    row("prediction", Kind::Harmless, "A hint for speed."),
    row("request_id", Kind::Harmless, "The id is the header x-request-id."),
];

impl Generation {
    /// Takes the fields of [`SAMPLING`], [`CHOICES`] and [`EXTENSIONS`]. What is left out is taken from the model's
    /// generation_config.json, and then from OpenAI's defaults.
    pub fn take(&mut self, app: &App, fields: &Fields) -> Result<(), ApiError> {
        self.sampling = sampling(app, fields)?;
        self.n = fields.count("n").unwrap_or(1);
        self.stops = stops(fields, "stop")?;
        self.stop_ids = fields.ids("stop_token_ids");
        self.ignore_eos = fields.flag("ignore_eos");
        self.include_stop = fields.flag("include_stop_str_in_output");
        self.skip_special = fields.bool("skip_special_tokens").unwrap_or(true);
        self.priority = fields.int("priority").unwrap_or(0) as i32;
        self.cache_salt = fields.text("cache_salt").unwrap_or_default().as_bytes().to_vec();
        let outside = self.stop_ids.iter().find(|id| **id as usize >= app.model.vocab);
        match outside {
            None => Ok(()),
            Some(id) => Err(fields.wrong("stop_token_ids", outside_words(*id, app.model.vocab))),
        }
    }
}

/// The texts of a field that end an answer.
pub fn stops(fields: &Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let stops = fields.texts(name);
    match stops.iter().all(|stop| (1..=256).contains(&stop.len())) {
        true => Ok(stops),
        false => Err(fields.wrong(name, "a stop text has 1 to 256 bytes")),
    }
}

fn outside_words(id: u32, vocab: usize) -> String {
    format!("token {id} is not in the vocabulary of {vocab}")
}

fn sampling(app: &App, fields: &Fields) -> Result<SamplingParams, ApiError> {
    let model = &app.text.defaults;
    let samples = model.do_sample == Some(true);
    let wish = |value: Option<f64>| value.filter(|_| samples).map(|value| value as f32);
    let filters = ["top_p", "top_k", "min_p", "seed"].iter().any(|name| fields.has(name));
    // A model that wants its likeliest tokens gets them, unless the request speaks of sampling.
    let cold = model.do_sample == Some(false) && !filters;
    let temperature = wish(model.temperature).unwrap_or(if cold { 0.0 } else { 1.0 });
    let top_k = fields.int("top_k").map(|top_k| top_k.max(0) as usize);
    let seed = fields.int("seed").map_or_else(random, |seed| seed as u64);
    Ok(SamplingParams {
        temperature: fields.number("temperature").unwrap_or(temperature),
        top_k: top_k.or(model.top_k.filter(|_| samples)).unwrap_or(0),
        top_p: fields.number("top_p").or(wish(model.top_p)).unwrap_or(1.0),
        min_p: fields.number("min_p").or(wish(model.min_p)).unwrap_or(0.0),
        repetition_penalty: fields
            .number("repetition_penalty")
            .or(model.repetition_penalty.map(|value| value as f32))
            .unwrap_or(1.0),
        presence_penalty: fields.number("presence_penalty").unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty").unwrap_or(0.0),
        logit_bias: logit_bias(app, fields)?,
        seed,
    })
}

/// A seed that nobody knows before.
pub fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

fn logit_bias(app: &App, fields: &Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    const MOST: usize = 1024;
    let map = fields.value("logit_bias").and_then(|value| value.as_object());
    let Some(map) = map else { return Ok(Vec::new()) };
    if map.len() > MOST {
        return Err(fields.wrong("logit_bias", format!("{} tokens, wanted at most {MOST}", map.len())));
    }
    let one = |(name, value): (&String, &serde_json::Value)| {
        let id = name.parse::<u32>().map_err(|_| format!("{name:?} is no token id"))?;
        if id as usize >= app.model.vocab {
            return Err(outside_words(id, app.model.vocab));
        }
        let bias = value.as_f64().filter(|bias| bias.abs() <= 100.0);
        let bias = bias.ok_or_else(|| format!("the bias of token {id} is not a number from -100 to 100"))?;
        Ok((id, bias as f32))
    };
    let biases = map.iter().map(one).collect::<Result<Vec<_>, String>>();
    biases.map_err(|message| fields.wrong("logit_bias", message))
}
