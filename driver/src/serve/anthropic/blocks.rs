//! Answers as Anthropic's blocks, whole and in pieces: both come of one walk over the answer.

use crate::serve::error::ApiError;
use crate::serve::generate::{Output, Reason, Usage};
use crate::serve::sampling::random;
use crate::serve::sse::Render;
use crate::serve::tools::{Delta, Reader};
use axum::response::sse::Event;
use serde_json::{Value, json};

/// One answer on its way.
pub struct Blocks {
    id: String,
    model: String,
    prompt: usize,
    reader: Reader,
    /// The blocks so far; the last may be open.
    blocks: Vec<Value>,
    open: bool,
    /// The input of the newest call, as JSON text.
    input: String,
    reason: Option<Reason>,
    usage: Usage,
}

impl Blocks {
    /// An answer to a prompt of so many tokens.
    pub fn new(model: String, prompt: usize, reader: Reader) -> Self {
        Self {
            id: format!("msg_{:016x}", random()),
            model,
            prompt,
            reader,
            blocks: Vec::new(),
            open: false,
            input: String::new(),
            reason: None,
            usage: Usage::default(),
        }
    }

    /// The events of the beginning.
    pub fn start(&self) -> Vec<(&'static str, Value)> {
        let usage = Usage { prompt: self.prompt, ..Usage::default() };
        let mut message = self.message();
        message["usage"] = usage_of(&usage);
        vec![("message_start", json!({ "message": message })), ("ping", json!({}))]
    }

    /// Takes an output and gives the events that tell it.
    pub fn take(&mut self, output: Output) -> Result<Vec<(&'static str, Value)>, ApiError> {
        let mut events = Vec::new();
        match output {
            Output::Prompt(..) => {}
            Output::Piece(piece) => {
                let deltas = self.reader.push(&piece.text);
                deltas.into_iter().for_each(|delta| self.delta(delta, &mut events));
            }
            Output::Finished(_, reason) => {
                let deltas = self.reader.finish();
                deltas.into_iter().for_each(|delta| self.delta(delta, &mut events));
                self.close(&mut events);
                self.reason = Some(reason);
            }
            Output::Done(usage) => {
                self.usage = usage;
                let message = self.message();
                let delta = json!({ "stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"] });
                events.push(("message_delta", json!({ "delta": delta, "usage": usage_of(&usage) })));
                events.push(("message_stop", json!({})));
            }
            Output::Failed(error) => return Err(error),
        }
        Ok(events)
    }

    /// The message as it is.
    pub fn message(&self) -> Value {
        let (reason, sequence) = match &self.reason {
            None => (Value::Null, Value::Null),
            Some(Reason::Stop(text)) if !self.reader.called() => (json!("stop_sequence"), json!(text)),
            Some(Reason::Length) => (json!("max_tokens"), Value::Null),
            Some(_) if self.reader.called() => (json!("tool_use"), Value::Null),
            Some(_) => (json!("end_turn"), Value::Null),
        };
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": self.blocks,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": usage_of(&self.usage),
        })
    }

    fn delta(&mut self, delta: Delta, events: &mut Vec<(&'static str, Value)>) {
        match delta {
            Delta::Content(text) => self.text(("text", "text", "text_delta"), &text, events),
            Delta::Reasoning(text) => self.text(("thinking", "thinking", "thinking_delta"), &text, events),
            Delta::Call { name, .. } => {
                self.close(events);
                let id = self.reader.id("toolu_");
                self.begin(json!({ "type": "tool_use", "id": id, "name": name, "input": {} }), events);
            }
            Delta::Arguments { text, .. } => {
                self.input += &text;
                let delta = json!({ "type": "input_json_delta", "partial_json": text });
                events
                    .push(("content_block_delta", json!({ "index": self.blocks.len() - 1, "delta": delta })));
            }
        }
    }

    fn text(
        &mut self,
        (kind, field, delta): (&str, &str, &str),
        text: &str,
        events: &mut Vec<(&'static str, Value)>,
    ) {
        if text.is_empty() {
            return;
        }
        if !self.open || self.blocks.last().is_none_or(|block| block["type"] != kind) {
            self.close(events);
            let mut block = json!({ "type": kind, field: "" });
            if kind == "thinking" {
                block["signature"] = json!("");
            }
            self.begin(block, events);
        }
        if let Some(Value::String(all)) = self.blocks.last_mut().map(|block| &mut block[field]) {
            *all += text;
        }
        let delta = json!({ "type": delta, field: text });
        events.push(("content_block_delta", json!({ "index": self.blocks.len() - 1, "delta": delta })));
    }

    fn begin(&mut self, block: Value, events: &mut Vec<(&'static str, Value)>) {
        events.push(("content_block_start", json!({ "index": self.blocks.len(), "content_block": block })));
        self.blocks.push(block);
        self.open = true;
    }

    fn close(&mut self, events: &mut Vec<(&'static str, Value)>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let input = std::mem::take(&mut self.input);
        if let Some(block) = self.blocks.last_mut().filter(|block| block["type"] == "tool_use") {
            // A call that was cut off has no input that could be read.
            block["input"] = serde_json::from_str(&input).unwrap_or_else(|_| json!({}));
        }
        events.push(("content_block_stop", json!({ "index": self.blocks.len() - 1 })));
    }
}

/// The usage in Anthropic's form: tokens that were in the cache are counted apart.
pub fn usage_of(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.generated,
    })
}

impl Render for Blocks {
    fn begin(&mut self) -> Vec<Event> {
        self.start().into_iter().map(frame).collect()
    }
    fn output(&mut self, output: Output) -> Vec<Event> {
        match self.take(output) {
            Ok(events) => events.into_iter().map(frame).collect(),
            Err(error) => {
                vec![Event::default().event("error").data(super::error::value(&error, None).to_string())]
            }
        }
    }
}

fn frame((name, mut value): (&'static str, Value)) -> Event {
    value["type"] = json!(name);
    Event::default().event(name).data(value.to_string())
}
