//! What all requests share. It is made once and never changes; what counts, counts in atomic numbers.

use super::auth::Keys;
use super::error::ApiError;
use super::log::Log;
use super::metrics::Metrics;
use super::responses::store::Store;
use super::shutdown::Phase;
use super::trace::Traces;
use super::work::Work;
use crate::grammar::{Grammar, Grammars};
use crate::text::TextSide;
use crate::tools::Dialect;
use sinter_frontend::token_bytes::TokenBytes;
use sinter_runtime::engine::Constraint;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The facts of the served model.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// The names that requests may use; the first is the one that responses say.
    pub names: Vec<String>,
    /// Seconds since 1970 at which the server began.
    pub created: u64,
    /// The architecture.
    pub architecture: String,
    /// Token ids are below this.
    pub vocab: usize,
    /// Tokens of prompt and answer together, or of a text that is read.
    pub context: usize,
    /// The element type of weights.
    pub dtype: &'static str,
    /// The type of what the KV cache keeps.
    pub cache_dtype: &'static str,
    /// The device in words.
    pub device: String,
    /// Tokens in a step.
    pub step_tokens: usize,
    /// Sequences in a step.
    pub sequences: usize,
    /// Who guesses tokens: `none`, `ngram` or `draft`.
    pub speculation: &'static str,
}

/// What a request may ask for at most.
#[derive(Debug, Clone, Copy)]
pub struct ServeLimits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// From the start of a generation to its end.
    pub timeout: Duration,
    /// Work without progress for so long is a stalled engine.
    pub stalled_after: Duration,
}

impl ServeLimits {
    /// Events that may wait for a reader, if so many log probabilities go with each and all take `bytes`.
    pub fn queue_events(&self, logprobs: Option<usize>, bytes: usize) -> usize {
        (bytes / (96 + 16 * logprobs.unwrap_or(0))).max(64)
    }
}

/// What all requests share.
pub struct App {
    /// The model.
    pub model: ModelFacts,
    /// Tokenizer, template, and the model's wishes.
    pub text: Arc<TextSide>,
    /// What may be asked for.
    pub limits: ServeLimits,
    /// Who may ask.
    pub keys: Keys,
    /// What is counted.
    pub metrics: Metrics,
    /// Where lines go.
    pub log: Log,
    /// Where spans go.
    pub traces: Option<Traces>,
    /// Whether the server is up, drains or ends.
    pub phase: Phase,
    /// When it began.
    pub started: Instant,
    /// How many threads may tokenize, render and compile grammars at once.
    pub workers: Semaphore,
    /// Responses that can be asked for again.
    pub responses: Store,
    /// How the model writes calls of tools and reasoning.
    pub dialect: Dialect,
    /// The special tokens that it writes them with.
    pub markup: Vec<u32>,
    work: Work,
    grammars: OnceLock<Result<Grammars, String>>,
    spellings: OnceLock<Vec<TokenBytes>>,
}

/// The parts of an [`App`] that differ from server to server.
pub struct Parts {
    /// The model.
    pub model: ModelFacts,
    /// Tokenizer, template, and the model's wishes.
    pub text: Arc<TextSide>,
    /// What may be asked for.
    pub limits: ServeLimits,
    /// Who may ask.
    pub keys: Keys,
    /// Where lines go.
    pub log: Log,
    /// Where spans go.
    pub traces: Option<Traces>,
    /// How the model writes calls of tools and reasoning.
    pub dialect: Dialect,
    /// Who answers.
    pub work: Work,
}

impl App {
    /// What is shared, of these parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { model, text, limits, keys, log, traces, dialect, work } = parts;
        let special = text.tokenizer.special_ids().into_iter();
        let kept = |id: &u32| text.tokenizer.piece(*id).is_some_and(|piece| dialect.keeps(&piece));
        let markup = special.filter(kept).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            model,
            text,
            limits,
            keys,
            metrics: Metrics::default(),
            log,
            traces,
            phase: Phase::default(),
            started: Instant::now(),
            workers: Semaphore::new(threads.max(2)),
            responses: Store::default(),
            dialect,
            markup,
            work,
            grammars: OnceLock::new(),
            spellings: OnceLock::new(),
        })
    }

    /// Who answers.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Refuses a model that is not served here. A request that names none means the one that is.
    pub fn check_model(&self, name: Option<&str>) -> Result<(), ApiError> {
        let names = &self.model.names;
        let found = name.is_none_or(|name| names.iter().any(|known| known == name));
        if found { Ok(()) } else { Err(ApiError::no_model(name.unwrap_or_default(), &names[0])) }
    }

    /// The name that responses say: the one that was asked for.
    pub fn name<'a>(&'a self, asked: Option<&'a str>) -> &'a str {
        asked.unwrap_or(&self.model.names[0])
    }

    /// Compiles a grammar. This may take a while.
    pub fn compile(&self, grammar: &Grammar) -> Result<Arc<dyn Constraint>, ApiError> {
        let make = || Grammars::new(&self.text.tokenizer, &self.text.defaults.eos_ids);
        let grammars = self.grammars.get_or_init(|| make().map_err(|error| format!("{error:#}")));
        let grammars = grammars.as_ref().map_err(ApiError::bad_request)?;
        grammars
            .compile(grammar)
            .map_err(|error| ApiError::bad_request(format!("the grammar is refused: {error:#}")))
    }

    /// The bytes of a token; the name of a special one.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let all = self.spellings.get_or_init(|| self.text.tokenizer.token_bytes().unwrap_or_default());
        match all.get(id as usize) {
            Some(TokenBytes::Text(bytes)) => bytes.clone(),
            Some(TokenBytes::Special(name)) => name.clone().into_bytes(),
            Some(TokenBytes::Unused) => Vec::new(),
            // A tokenizer whose bytes are not known still has texts.
            None => self.text.tokenizer.decode(&[id], false).unwrap_or_default().into_bytes(),
        }
    }

    /// The text of a token; bytes that are no characters become U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.token_bytes(id)).into_owned()
    }

    /// Does work that takes its time where it delays nobody.
    pub async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let _turn = self.workers.acquire().await.map_err(|error| ApiError::internal(error.to_string()))?;
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&app)).await;
        done.unwrap_or_else(|error| Err(ApiError::internal(format!("a worker gave up: {error}"))))
    }
}
