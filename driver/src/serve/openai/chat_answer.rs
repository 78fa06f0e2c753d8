//! Answers of conversations in OpenAI's form, whole and in pieces.

use super::logprobs::of_chat;
use crate::serve::generate::{Output, Piece, Reason, Usage};
use crate::serve::many::{Answer, Whole};
use crate::serve::sampling::random;
use crate::serve::sse::{Render, json as frame};
use crate::serve::state::App;
use crate::serve::tools::{Call, Delta, Parts, Reader, ToolUse};
use axum::response::sse::Event;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What all chunks of a response have in common.
#[derive(Debug, Clone)]
pub struct Header {
    /// `chatcmpl-` and a number that nobody else has.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name as the client said it.
    pub model: String,
    /// The tools that may be called.
    pub tools: ToolUse,
    /// Whether log probabilities are wanted.
    pub logprobs: bool,
    /// Whether the stream ends with the usage.
    pub usage: bool,
}

impl Header {
    /// The header of a new response.
    pub fn new(app: &App, model: Option<&str>) -> Self {
        Self {
            id: format!("chatcmpl-{:016x}", random()),
            created: now(),
            model: app.name(model).to_owned(),
            tools: ToolUse::default(),
            logprobs: false,
            usage: false,
        }
    }

    fn around(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": concat!("sinter-", env!("CARGO_PKG_VERSION")),
        })
    }
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

/// A response with whole answers.
pub fn whole(app: &App, header: &Header, answers: Whole) -> Value {
    let choice = |(index, answer): (usize, &Answer)| {
        let message = message(header.tools.read(app, &answer.text));
        let calls = message.get("tool_calls").is_some();
        json!({
            "index": index,
            "message": message,
            "logprobs": if header.logprobs { of_chat(app, &answer.tokens) } else { Value::Null },
            "finish_reason": answer.reason.as_ref().map(|reason| finish(reason, calls)),
            "stop_reason": answer.reason.as_ref().map(stop_reason),
        })
    };
    let choices = answers.answers.iter().enumerate().map(choice).collect();
    let mut value = header.around("chat.completion", choices);
    value["usage"] = usage_of(&answers.usage);
    value
}

/// What stopped an answer, if it was a text or an id that the client named.
pub fn stop_reason(reason: &Reason) -> Value {
    match reason {
        Reason::Stop(text) => json!(text),
        Reason::StopId(id) => json!(id),
        _ => Value::Null,
    }
}

fn finish(reason: &Reason, calls: bool) -> &'static str {
    match reason {
        Reason::End | Reason::Stop(_) | Reason::StopId(_) if calls => "tool_calls",
        other => other.openai(),
    }
}

/// The message of a whole answer.
fn message(parts: Parts) -> Map<String, Value> {
    let Parts { content, reasoning, calls } = parts;
    let empty = content.is_empty() && !calls.is_empty();
    let mut message = Map::new();
    message.insert("role".into(), json!("assistant"));
    message.insert("content".into(), if empty { Value::Null } else { json!(content) });
    message.insert("refusal".into(), Value::Null);
    if !reasoning.is_empty() {
        message.insert("reasoning_content".into(), json!(reasoning));
    }
    if !calls.is_empty() {
        let call = |Call { id, name, arguments }: &Call| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
        message.insert("tool_calls".into(), calls.iter().map(call).collect());
    }
    message
}

/// A response in pieces.
pub struct ChatStream {
    app: Arc<App>,
    header: Header,
    readers: Vec<Reader>,
}

impl ChatStream {
    /// The stream of `n` answers.
    pub fn new(app: Arc<App>, header: Header, n: usize) -> Self {
        let readers = (0..n).map(|_| header.tools.parser(&app)).collect();
        Self { app, header, readers }
    }

    fn chunk(&self, choice: Value) -> Event {
        let mut value = self.header.around("chat.completion.chunk", vec![choice]);
        if self.header.usage {
            value["usage"] = Value::Null;
        }
        frame(&value)
    }

    fn delta(&self, index: usize, delta: Value, logprobs: Value) -> Event {
        self.chunk(json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null }))
    }

    fn piece(&mut self, piece: Piece) -> Vec<Event> {
        let Piece { choice, text, tokens } = piece;
        let deltas = self.readers[choice].push(&text);
        let mut logprobs = match self.header.logprobs {
            true => of_chat(&self.app, &tokens),
            false => Value::Null,
        };
        // Log probabilities of text that the parser holds back are not held back with it.
        if deltas.is_empty() && !tokens.is_empty() {
            return vec![self.delta(choice, json!({}), logprobs)];
        }
        self.deltas(choice, deltas, &mut logprobs)
    }

    fn deltas(&mut self, choice: usize, deltas: Vec<Delta>, logprobs: &mut Value) -> Vec<Event> {
        let mut events = Vec::new();
        for delta in deltas {
            let value = match delta {
                Delta::Content(text) if text.is_empty() && logprobs.is_null() => continue,
                Delta::Content(text) => json!({ "content": text }),
                Delta::Reasoning(text) => json!({ "reasoning_content": text }),
                Delta::Call { index, name } => {
                    let id = self.readers[choice].id("call_");
                    let function = json!({ "name": name, "arguments": "" });
                    let call = json!({ "index": index, "id": id, "type": "function", "function": function });
                    json!({ "tool_calls": [call] })
                }
                Delta::Arguments { index, text } => {
                    json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
                }
            };
            events.push(self.delta(choice, value, logprobs.take()));
        }
        events
    }
}

impl Render for ChatStream {
    fn begin(&mut self) -> Vec<Event> {
        let role = json!({ "role": "assistant", "content": "" });
        (0..self.readers.len()).map(|index| self.delta(index, role.clone(), Value::Null)).collect()
    }

    fn output(&mut self, output: Output) -> Vec<Event> {
        match output {
            Output::Prompt(..) => Vec::new(),
            Output::Piece(piece) => self.piece(piece),
            Output::Finished(choice, reason) => {
                let rest = self.readers[choice].finish();
                let mut events = self.deltas(choice, rest, &mut Value::Null);
                let word = finish(&reason, self.readers[choice].called());
                events.push(self.chunk(json!({
                    "index": choice,
                    "delta": {},
                    "logprobs": null,
                    "finish_reason": word,
                    "stop_reason": stop_reason(&reason),
                })));
                events
            }
            Output::Done(usage) => {
                let mut events = Vec::new();
                if self.header.usage {
                    let mut value = self.header.around("chat.completion.chunk", Vec::new());
                    value["usage"] = usage_of(&usage);
                    events.push(frame(&value));
                }
                events.push(Event::default().data("[DONE]"));
                events
            }
            Output::Failed(error) => vec![frame(&error.openai()), Event::default().data("[DONE]")],
        }
    }
}
