//! The output of a response: items, and the events that tell how they come to be. Both come of one walk over the answer.

use crate::serve::error::ApiError;
use crate::serve::generate::{Output, Reason, Usage};
use crate::serve::openai::logprobs::of_chat;
use crate::serve::sampling::random;
use crate::serve::sse::Render;
use crate::serve::state::App;
use crate::serve::tools::{Delta, Reader};
use axum::response::sse::Event;
use serde_json::{Value, json};
use std::sync::Arc;

/// Called with a response that has ended.
pub type End = Box<dyn FnOnce(&Value) + Send>;

/// A response on its way.
pub struct Items {
    app: Arc<App>,
    /// The response without output, status and usage.
    response: Value,
    reader: Reader,
    output: Vec<Value>,
    open: bool,
    logprobs: bool,
    /// Log probabilities that no text was told with yet.
    held: Vec<Value>,
    reason: Option<Reason>,
    status: &'static str,
    usage: Option<Usage>,
    /// Events so far.
    count: u64,
    end: Option<End>,
}

/// The events of a step: name and fields.
type Events = Vec<(&'static str, Value)>;

impl Items {
    /// A response that begins.
    pub fn new(app: Arc<App>, response: Value, reader: Reader, logprobs: bool, end: Option<End>) -> Self {
        Self {
            app,
            response,
            reader,
            output: Vec::new(),
            open: false,
            logprobs,
            held: Vec::new(),
            reason: None,
            status: "in_progress",
            usage: None,
            count: 0,
            end,
        }
    }

    /// The response as it is.
    pub fn response(&self) -> Value {
        let mut value = self.response.clone();
        value["status"] = json!(self.status);
        value["output"] = json!(self.output);
        if self.status == "incomplete" {
            value["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        if let Some(usage) = &self.usage {
            value["usage"] = usage_of(usage);
        }
        value
    }

    /// Takes an output and gives the events that tell it.
    pub fn take(&mut self, output: Output) -> Result<Events, ApiError> {
        let mut events = Vec::new();
        match output {
            Output::Prompt(..) => {}
            Output::Piece(piece) => {
                if self.logprobs {
                    let all = of_chat(&self.app, &piece.tokens);
                    self.held.extend(all["content"].as_array().cloned().unwrap_or_default());
                }
                let deltas = self.reader.push(&piece.text);
                deltas.into_iter().for_each(|delta| self.delta(delta, &mut events));
            }
            Output::Finished(_, reason) => {
                let deltas = self.reader.finish();
                deltas.into_iter().for_each(|delta| self.delta(delta, &mut events));
                let whole = !matches!(reason, Reason::Length | Reason::Cancelled);
                self.close(if whole { "completed" } else { "incomplete" }, &mut events);
                self.reason = Some(reason);
            }
            Output::Done(usage) => {
                self.usage = Some(usage);
                let (status, name) = match self.reason {
                    Some(Reason::Length) => ("incomplete", "response.incomplete"),
                    Some(Reason::Cancelled) => ("cancelled", "response.incomplete"),
                    _ => ("completed", "response.completed"),
                };
                self.status = status;
                let response = self.response();
                if let Some(end) = self.end.take() {
                    end(&response);
                }
                events.push((name, json!({ "response": response })));
            }
            Output::Failed(error) => return Err(error),
        }
        Ok(events)
    }

    fn at(&self) -> usize {
        self.output.len().saturating_sub(1)
    }

    fn delta(&mut self, delta: Delta, events: &mut Events) {
        match delta {
            Delta::Content(text) => {
                let part = json!({ "type": "output_text", "text": "", "annotations": [], "logprobs": [] });
                self.text(("message", "msg_", "response.output_text.delta"), part, &text, events);
            }
            Delta::Reasoning(text) => {
                let part = json!({ "type": "reasoning_text", "text": "" });
                self.text(("reasoning", "rs_", "response.reasoning_text.delta"), part, &text, events);
            }
            Delta::Call { name, .. } => {
                self.close("completed", events);
                let id = format!("fc_{:016x}", random());
                let call_id = self.reader.id("call_");
                let item = json!({
                    "type": "function_call", "id": id, "call_id": call_id, "name": name, "arguments": "",
                    "status": "in_progress",
                });
                self.begin(item, events);
            }
            Delta::Arguments { text, .. } => {
                let at = self.at();
                let Some(item) = self.output.last_mut() else { return };
                if let Value::String(all) = &mut item["arguments"] {
                    *all += &text;
                }
                let told = json!({ "item_id": item["id"], "output_index": at, "delta": text });
                events.push(("response.function_call_arguments.delta", told));
            }
        }
    }

    fn text(
        &mut self,
        (kind, prefix, name): (&str, &str, &'static str),
        part: Value,
        text: &str,
        events: &mut Events,
    ) {
        if text.is_empty() {
            return;
        }
        if !self.open || self.output.last().is_none_or(|item| item["type"] != kind) {
            self.close("completed", events);
            let id = format!("{prefix}{:016x}", random());
            let mut item = json!({ "type": kind, "id": id, "status": "in_progress", "content": [] });
            match kind {
                "message" => item["role"] = json!("assistant"),
                _ => item["summary"] = json!([]),
            }
            self.begin(item, events);
            let place = json!({ "item_id": id, "output_index": self.at(), "content_index": 0, "part": part });
            events.push(("response.content_part.added", place));
            if let Some(item) = self.output.last_mut() {
                item["content"] = json!([part]);
            }
        }
        let at = self.at();
        let Some(item) = self.output.last_mut() else { return };
        let part = &mut item["content"][0];
        if let Value::String(all) = &mut part["text"] {
            *all += text;
        }
        let mut logprobs = Vec::new();
        if let Value::Array(all) = &mut part["logprobs"] {
            logprobs = std::mem::take(&mut self.held);
            all.extend(logprobs.iter().cloned());
        }
        let mut told =
            json!({ "item_id": item["id"], "output_index": at, "content_index": 0, "delta": text });
        if kind == "message" {
            told["logprobs"] = json!(logprobs);
        }
        events.push((name, told));
    }

    fn begin(&mut self, item: Value, events: &mut Events) {
        events
            .push(("response.output_item.added", json!({ "output_index": self.output.len(), "item": item })));
        self.output.push(item);
        self.open = true;
    }

    fn close(&mut self, status: &str, events: &mut Events) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let at = self.at();
        let Some(item) = self.output.last_mut() else { return };
        item["status"] = json!(status);
        let id = item["id"].clone();
        if item["type"] == "function_call" {
            let told = json!({
                "item_id": id, "output_index": at, "name": item["name"], "arguments": item["arguments"],
            });
            events.push(("response.function_call_arguments.done", told));
        } else {
            let part = &item["content"][0];
            let mut told =
                json!({ "item_id": id, "output_index": at, "content_index": 0, "text": part["text"] });
            let name = if item["type"] == "message" {
                "response.output_text.done"
            } else {
                "response.reasoning_text.done"
            };
            if item["type"] == "message" {
                told["logprobs"] = part["logprobs"].clone();
            }
            events.push((name, told));
            let told = json!({ "item_id": id, "output_index": at, "content_index": 0, "part": part });
            events.push(("response.content_part.done", told));
        }
        events.push(("response.output_item.done", json!({ "output_index": at, "item": item })));
    }

    fn frames(&mut self, events: Events) -> Vec<Event> {
        let one = |(name, fields): (&'static str, Value)| {
            let mut value = json!({ "type": name, "sequence_number": self.count });
            self.count += 1;
            if let (Value::Object(value), Value::Object(fields)) = (&mut value, fields) {
                value.extend(fields);
            }
            Event::default().event(name).data(value.to_string())
        };
        events.into_iter().map(one).collect()
    }
}

impl Render for Items {
    fn begin(&mut self) -> Vec<Event> {
        let response = json!({ "response": self.response() });
        self.frames(vec![("response.created", response.clone()), ("response.in_progress", response)])
    }

    fn output(&mut self, output: Output) -> Vec<Event> {
        match self.take(output) {
            Ok(events) => self.frames(events),
            Err(error) => {
                self.status = "failed";
                let mut response = self.response();
                response["error"] = json!({ "code": "server_error", "message": error.message });
                self.frames(vec![("response.failed", json!({ "response": response }))])
            }
        }
    }
}

/// The usage in the form of responses.
fn usage_of(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": { "cached_tokens": usage.cached, "cache_write_tokens": 0 },
        "output_tokens": usage.generated,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.prompt + usage.generated,
    })
}
