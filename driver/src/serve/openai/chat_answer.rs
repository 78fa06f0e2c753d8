//! Answers of conversations in OpenAI's form, whole and in pieces.

use super::logprobs::of_chat;
use super::shape::{Shape, failed, stop_reason, usage_of};
use crate::serve::generate::{Output, Piece, Reason};
use crate::serve::many::{Answer, Whole};
use crate::serve::sse::Render;
use crate::serve::state::App;
use crate::serve::tools::{Call, Delta, Parts, Reader, ToolUse};
use axum::response::sse::Event;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What is known of a response before it begins.
#[derive(Debug, Clone)]
pub struct Header {
    /// What stands around its choices.
    pub shape: Shape,
    /// The tools that may be called.
    pub tools: ToolUse,
    /// Whether log probabilities are wanted.
    pub logprobs: bool,
}

/// The name of a piece.
const CHUNK: &str = "chat.completion.chunk";

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
    let mut value = header.shape.around("chat.completion", choices);
    value["usage"] = usage_of(&answers.usage);
    value
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

    fn delta(&self, index: usize, delta: Value, logprobs: Value) -> Event {
        self.header.shape.chunk(
            CHUNK,
            json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null }),
        )
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
                events.push(self.header.shape.chunk(
                    CHUNK,
                    json!({
                        "index": choice,
                        "delta": {},
                        "logprobs": null,
                        "finish_reason": word,
                        "stop_reason": stop_reason(&reason),
                    }),
                ));
                events
            }
            Output::Done(usage) => self.header.shape.end(CHUNK, &usage),
            Output::Failed(error) => failed(&error),
        }
    }
}
