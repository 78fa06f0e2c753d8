//! Text around the model: tokenizer, chat template, and the model's wishes for generation.

use crate::UsageError;
use crate::cli::{FormArgs, SampleArgs};
use crate::grammar::Grammars;
use crate::info::ModelInfo;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sinter_frontend::chat::{ChatError, ChatInput, ChatTemplate};
use sinter_frontend::config::RawConfig;
use sinter_frontend::generation::GenerationDefaults;
use sinter_frontend::source::ModelDir;
use sinter_frontend::tokenizer::Tokenizer;
use sinter_runtime::engine::Request;
use sinter_runtime::{Finish, SamplingParams};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tokens to generate where nobody says otherwise.
const MAX_TOKENS: usize = 256;

/// The text side of a model.
#[derive(Debug)]
pub struct TextSide {
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Messages to text, if the model has a template.
    pub template: Option<ChatTemplate>,
    /// The model's wishes.
    pub defaults: GenerationDefaults,
}

impl TextSide {
    /// Loads tokenizer, template and defaults of a model's directory.
    pub fn load(dir: &ModelDir, info: &ModelInfo) -> Result<Self> {
        let template = match ChatTemplate::load(dir) {
            Ok(template) => Some(template),
            Err(ChatError::NoTemplate { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let config = RawConfig::load(dir)?;
        let defaults = GenerationDefaults::load(dir, &config)?;
        Ok(Self { tokenizer: Tokenizer::load(dir, info.vocab)?, template, defaults })
    }

    /// The ids of a conversation up to where the model answers.
    pub fn conversation(&self, messages: &[Value]) -> Result<Vec<u32>> {
        let template = self.template.as_ref().context(
            "the model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); \
             use `sinter run`",
        )?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
        let mut messages = messages.to_vec();
        let hidden = self.tokenizer.hide(&mut messages)?;
        let input = ChatInput { messages, add_generation_prompt: true, now, ..ChatInput::default() };
        Ok(self.tokenizer.encode_hidden(&template.render(&input)?, &hidden)?)
    }

    /// The sampling that the flags and the model ask for; flags win.
    pub fn sampling(&self, flags: &SampleArgs) -> Result<SamplingParams> {
        let model = &self.defaults;
        let samples = model.do_sample == Some(true);
        let wish = |value: Option<f64>| value.filter(|_| samples).map(|value| value as f32);
        let filters =
            flags.top_p.is_some() || flags.min_p.is_some() || flags.top_k.is_some() || flags.seed.is_some();
        let temperature = match (flags.temperature, samples || filters) {
            (Some(0.0), _) if filters => {
                return Err(UsageError(
                    "--top-p, --top-k, --min-p and --seed mean nothing at --temperature 0".into(),
                )
                .into());
            }
            (Some(temperature), _) => temperature,
            (None, true) => wish(model.temperature).unwrap_or(1.0),
            (None, false) => 0.0,
        };
        Ok(SamplingParams {
            temperature,
            top_k: flags.top_k.or(model.top_k.filter(|_| samples)).unwrap_or(0),
            top_p: flags.top_p.or(wish(model.top_p)).unwrap_or(1.0),
            min_p: flags.min_p.or(wish(model.min_p)).unwrap_or(0.0),
            // A penalty is no sampling: transformers applies it to the likeliest token too.
            repetition_penalty: flags
                .repetition_penalty
                .or(model.repetition_penalty.map(|value| value as f32))
                .unwrap_or(1.0),
            seed: flags.seed.unwrap_or(0),
            ..SamplingParams::greedy()
        })
    }

    /// The request for an answer to a prompt, as the flags and the model ask for it.
    pub fn request(&self, prompt: Vec<u32>, flags: &SampleArgs, form: &FormArgs) -> Result<Request> {
        let constraint = match form.grammar()? {
            Some(grammar) => Some(Grammars::new(&self.tokenizer, &self.defaults.eos_ids)?.compile(&grammar)?),
            None => None,
        };
        Ok(Request {
            sampling: self.sampling(flags)?,
            stop_ids: self.defaults.eos_ids.clone(),
            constraint,
            ..Request::new(prompt, self.max_tokens(flags))
        })
    }

    /// Tokens that are generated at most.
    pub fn max_tokens(&self, flags: &SampleArgs) -> usize {
        flags.max_tokens.or(self.defaults.max_new_tokens).unwrap_or(MAX_TOKENS)
    }
}

/// A message of a conversation.
pub fn message(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// Why a generation ended, as one word.
pub fn finish_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop(_) | Finish::Complete => "stop",
        Finish::Length => "length",
        Finish::Context => "context",
        Finish::Cancelled => "cancelled",
    }
}
