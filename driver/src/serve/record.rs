//! What is remembered of a request while it is served, and the line that the log gets at its end.

use super::generate::{Generation, Usage};
use super::log::{Line, Log};
use super::trace::{Open, Outcome};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Who asked. Every handler gets one.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The request's id: the client's `x-request-id`, or one of the server's making.
    pub id: Arc<str>,
    /// What is remembered; the line is written when the last who knows it is gone.
    pub record: Arc<Record>,
}

/// What is remembered of a request.
#[derive(Debug)]
pub struct Record {
    log: Log,
    id: Arc<str>,
    what: String,
    started: Instant,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    status: u16,
    prompt: usize,
    usage: Option<Usage>,
    first: Option<Duration>,
    finish: Vec<&'static str>,
    error: Option<&'static str>,
    span: Option<Open>,
}

impl Record {
    /// A request that begins now; `what` is its method and path.
    pub fn new(log: Log, id: Arc<str>, what: String) -> Self {
        Self { log, id, what, started: Instant::now(), facts: Mutex::default() }
    }
    /// The same request, with a span that ends with it.
    pub fn with_span(self, span: Option<Open>) -> Self {
        self.facts().span = span;
        self
    }
    /// The status of the response.
    pub fn status(&self, status: u16) {
        self.facts().status = status;
    }
    /// The request names a model.
    pub fn asked_model(&self, name: &str) {
        if let Some(span) = &mut self.facts().span {
            span.model(name);
        }
    }
    /// So many tokens are handed to the engine.
    pub fn admitted(&self, prompt: usize) {
        self.facts().prompt += prompt;
    }
    /// The model of that name is to answer.
    pub fn asked(&self, model: &str, generation: &Generation) {
        if let Some(span) = &mut self.facts().span {
            span.generation(model, generation);
        }
    }
    /// The first token of an answer came after this time.
    pub fn first_token(&self, took: Duration) {
        self.facts().first.get_or_insert(took);
    }
    /// An answer ended.
    pub fn finished(&self, reason: &'static str) {
        self.facts().finish.push(reason);
    }
    /// A generation failed.
    pub fn failed(&self, code: &'static str) {
        self.finished(code);
        self.facts().error = Some(code);
    }
    /// A generation ended.
    pub fn done(&self, usage: Usage) {
        *self.facts().usage.get_or_insert_default() += usage;
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let mut facts = self.facts();
        let usage = (facts.prompt > 0)
            .then(|| facts.usage.unwrap_or(Usage { prompt: facts.prompt, ..Usage::default() }));
        if let Some(span) = facts.span.take() {
            span.end(&Outcome {
                id: &self.id,
                status: facts.status,
                usage,
                first: facts.first,
                finish: &facts.finish,
                error: facts.error,
            });
        }
        let seconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e6;
        let mut line: Line = vec![
            ("id", json!(&*self.id)),
            ("request", json!(self.what)),
            ("status", json!(facts.status)),
            ("seconds", json!(seconds(self.started.elapsed()))),
        ];
        if let Some(usage) = usage {
            line.extend([
                ("prompt_tokens", json!(usage.prompt)),
                ("cached_tokens", json!(usage.cached)),
                ("completion_tokens", json!(usage.generated)),
                ("first_token_seconds", facts.first.map_or(Value::Null, |first| json!(seconds(first)))),
                ("finish", json!(facts.finish.join(","))),
            ]);
        }
        self.log.write("request", line);
    }
}
