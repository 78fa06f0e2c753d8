//! What conversations and completions have in common: what stands around their choices, and how their streams end.

use crate::serve::error::ApiError;
use crate::serve::generate::{Reason, Usage};
use crate::serve::sampling::random;
use crate::serve::sse::json as frame;
use crate::serve::state::App;
use axum::response::sse::Event;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// What all chunks of a response have in common.
#[derive(Debug, Clone)]
pub struct Shape {
    /// A prefix, and a number that nobody else has.
    id: String,
    /// Seconds since 1970.
    created: u64,
    /// The model's name as the client said it.
    model: String,
    /// Whether a stream ends with the usage.
    usage: bool,
}

impl Shape {
    /// The shape of a new response.
    pub fn new(prefix: &str, app: &App, model: Option<&str>, usage: bool) -> Self {
        let id = format!("{prefix}{:016x}", random());
        Self { id, created: now(), model: app.name(model).to_owned(), usage }
    }

    /// A response, or a chunk of one.
    pub fn around(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": concat!("sinter-", env!("CARGO_PKG_VERSION")),
        })
    }

    /// A chunk with one choice. Where the usage comes at the end, the chunks before say that they have none.
    pub fn chunk(&self, object: &str, choice: Value) -> Event {
        let mut value = self.around(object, vec![choice]);
        if self.usage {
            value["usage"] = Value::Null;
        }
        frame(&value)
    }

    /// The end of a stream.
    pub fn end(&self, object: &str, usage: &Usage) -> Vec<Event> {
        let mut value = self.around(object, Vec::new());
        value["usage"] = usage_of(usage);
        self.usage.then(|| frame(&value)).into_iter().chain([done()]).collect()
    }
}

/// The end of a stream that failed.
pub fn failed(error: &ApiError) -> Vec<Event> {
    vec![frame(&error.openai()), done()]
}

fn done() -> Event {
    Event::default().data("[DONE]")
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The usage in OpenAI's form.
pub fn usage_of(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.generated,
        "total_tokens": usage.prompt + usage.generated,
        "prompt_tokens_details": { "cached_tokens": usage.cached },
        "completion_tokens_details": {
            "accepted_prediction_tokens": usage.accepted,
            "rejected_prediction_tokens": usage.rejected,
        },
    })
}

/// What stopped an answer, if it was a text or an id that the client named.
pub fn stop_reason(reason: &Reason) -> Value {
    match reason {
        Reason::Stop(text) => json!(text),
        Reason::StopId(id) => json!(id),
        _ => Value::Null,
    }
}
