//! Conversations to token ids: messages are checked and brought into the form that chat templates read.

use super::body::{Kind, Row, row};
use super::error::ApiError;
use super::state::App;
use crate::tools::arguments_to_objects;
use serde_json::{Map, Value, json};
use sinter_frontend::chat::{ChatError, ChatInput};
use sinter_frontend::tokenizer::TokenizerError;
use std::time::{SystemTime, UNIX_EPOCH};

/// The messages of a request.
pub const MESSAGES: Row = row("messages", Kind::List(4096), "The conversation.");
/// Fields that make a prompt of messages.
pub const CONVERSATION: &[Row] = &[
    MESSAGES,
    row("chat_template_kwargs", Kind::Object, "Variables of the chat template."),
    row(
        "add_generation_prompt",
        Kind::Bool,
        "Whether the prompt ends where the model is to answer; true if left out.",
    ),
    row("continue_final_message", Kind::Bool, "Makes the last message the beginning of the answer."),
];
/// Who speaks.
const ROLES: &[&str] = &["system", "developer", "user", "assistant", "tool", "function"];

/// A conversation that the model is to continue.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// The messages, as [`messages`] gives them.
    pub messages: Vec<Value>,
    /// Descriptions of tools, as templates read them.
    pub tools: Vec<Value>,
    /// Whether the prompt ends where the model is to answer.
    pub answer: bool,
    /// Whether the last message is the beginning of the answer.
    pub continues: bool,
    /// Further variables of the template.
    pub extra: Map<String, Value>,
}

/// The prompt of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its text.
    pub text: String,
    /// Its token ids.
    pub ids: Vec<u32>,
    /// Whether its messages spell special tokens, which are plain text in the ids.
    pub spells: bool,
}

impl Conversation {
    /// The prompt. What messages and tools spell is no special token; those of the template are. Rendering takes its time:
    /// see [`App::aside`].
    pub fn prompt(self, app: &App) -> Result<Prompt, ApiError> {
        let template =
            app.text.template.as_ref().ok_or_else(|| {
                ApiError::bad_request("the model has no chat template; use /v1/completions")
            })?;
        if self.continues && self.answer {
            let words = "continue_final_message and add_generation_prompt cannot both be true";
            return Err(ApiError::field("continue_final_message", words));
        }
        let tokenizer = &app.text.tokenizer;
        let wrong = |error: TokenizerError| ApiError::field("messages", error.to_string());
        let (count, mut messages) = (self.messages.len(), self.messages);
        messages.extend(self.tools);
        let hidden = tokenizer.hide(&mut messages).map_err(wrong)?;
        let tools = messages.split_off(count);
        let last = messages.last().and_then(|message| message["content"].as_str()).unwrap_or_default();
        let last = last.trim().to_owned();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
        let input = ChatInput { messages, tools, add_generation_prompt: self.answer, extra: self.extra, now };
        let mut text = template.render(&input).map_err(refused)?;
        if self.continues {
            let place = text.rfind(&last).filter(|_| !last.is_empty());
            let place = place.ok_or_else(|| {
                ApiError::field(
                    "continue_final_message",
                    "the last message has no text that could be continued",
                )
            })?;
            text.truncate(place + last.len());
        }
        let ids = tokenizer.encode_hidden(&text, &hidden).map_err(wrong)?;
        Ok(Prompt { text: hidden.show(&text), ids, spells: !hidden.is_empty() })
    }
}

/// The ids of a text.
pub fn encode(app: &App, text: &str, special: bool) -> Result<Vec<u32>, ApiError> {
    let ids = app.text.tokenizer.encode(text, special);
    ids.map_err(|error| ApiError::bad_request(error.to_string()))
}

fn refused(error: ChatError) -> ApiError {
    ApiError::field("messages", error.to_string())
}

/// The messages of a request in OpenAI's form, as templates read them: contents are texts, arguments of
/// calls are objects.
///
/// # Errors
/// What is wrong with which message. Parts that are no text are refused: the models served here read text.
pub fn messages(value: Option<&Value>) -> Result<Vec<Value>, ApiError> {
    let list = value.and_then(Value::as_array).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| ApiError::field("messages", "wanted a list of at least one message"))?;
    let one = |(at, message): (usize, &Value)| {
        one_message(message)
            .map_err(|(field, words)| ApiError::field(format!("messages[{at}]{field}"), words))
    };
    let mut messages = list.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
    arguments_to_objects(&mut messages)?;
    Ok(messages)
}

/// A field of a message and what is wrong with it.
type Wrong = (String, String);

fn one_message(message: &Value) -> Result<Value, Wrong> {
    let wrong = |field: &str, words: &str| (field.to_owned(), words.to_owned());
    let map = message.as_object().ok_or_else(|| wrong("", "a message is an object"))?;
    let role = map.get("role").and_then(Value::as_str).filter(|role| ROLES.contains(role));
    let role = role.ok_or_else(|| wrong(".role", &format!("wanted one of {}", ROLES.join(", "))))?;
    let calls = map.get("tool_calls").filter(|calls| !calls.is_null());
    let mut kept = Map::new();
    // Templates know the older name.
    kept.insert("role".into(), json!(if role == "developer" { "system" } else { role }));
    match map.get("content").filter(|content| !content.is_null()) {
        Some(content) => kept.insert("content".into(), json!(content_text(content)?)),
        None if role == "assistant" && (calls.is_some() || map.contains_key("reasoning_content")) => {
            kept.insert("content".into(), json!(""))
        }
        None => return Err(wrong(".content", "the content is missing")),
    };
    if let Some(calls) = calls {
        kept.insert("tool_calls".into(), calls.clone());
    }
    for name in ["name", "tool_call_id", "reasoning_content", "reasoning"] {
        match map.get(name) {
            Some(Value::String(text)) => drop(kept.insert(name.into(), json!(text))),
            Some(Value::Null) | None => {}
            Some(_) => return Err(wrong(&format!(".{name}"), "wanted a text")),
        }
    }
    let known = ["role", "content", "tool_calls", "name", "tool_call_id", "reasoning_content", "reasoning"];
    let empty = ["refusal", "audio", "function_call", "annotations"];
    for (name, value) in map.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        let nothing = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !(nothing && empty.contains(&name.as_str())) {
            return Err((
                format!(".{name}"),
                format!("the field {name:?} of a message is not supported here"),
            ));
        }
    }
    Ok(Value::Object(kept))
}

/// The text of a content: itself, or its parts, one a line.
fn content_text(content: &Value) -> Result<String, Wrong> {
    let wrong = |field: String, words: &str| (format!(".content{field}"), words.to_owned());
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => return Err(wrong(String::new(), "wanted a text or a list of parts")),
    };
    let texts: Result<Vec<&str>, Wrong> =
        parts.iter().enumerate().map(|(at, part)| part_text(at, part)).collect();
    Ok(texts?.join("\n"))
}

fn part_text(at: usize, part: &Value) -> Result<&str, Wrong> {
    let wrong = |field: &str, words: &str| Err((format!(".content[{at}]{field}"), words.to_owned()));
    match (part["type"].as_str(), part["text"].as_str(), part.as_str()) {
        (Some("text" | "input_text" | "output_text"), Some(text), _) | (None, None, Some(text)) => Ok(text),
        (Some("text"), None, _) => wrong(".text", "wanted a text"),
        (Some(kind), ..) => {
            wrong("", &format!("parts of type {kind:?} are not supported: the model reads text"))
        }
        _ => wrong(".type", "the type of the part is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_become_texts() {
        let list = json!([
            { "role": "developer", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            { "role": "assistant", "content": null, "refusal": null, "tool_calls": [
                { "id": "c", "type": "function", "function": { "name": "f", "arguments": "{\"x\": 1}" } } ] },
        ]);
        let found = messages(Some(&list)).unwrap();
        assert_eq!(found[0], json!({ "role": "system", "content": "a\nb" }));
        assert_eq!(found[1]["tool_calls"][0]["function"]["arguments"], json!({ "x": 1 }));
    }

    #[test]
    fn what_is_wrong_with_a_message_is_named() {
        for (message, place) in [
            (json!({ "role": "user" }), "messages[0].content"),
            (json!({ "role": "boss", "content": "" }), "messages[0].role"),
            (json!({ "role": "user", "content": 3 }), "messages[0].content"),
            (json!({ "role": "user", "content": "", "mood": 1 }), "messages[0].mood"),
            (json!({ "role": "user", "content": [{ "type": "image_url" }] }), "messages[0].content[0]"),
            (json!("hello"), "messages[0]"),
        ] {
            assert_eq!(messages(Some(&json!([message]))).unwrap_err().param.as_deref(), Some(place));
        }
        assert!(messages(None).is_err() && messages(Some(&json!([]))).is_err());
    }
}
