//! Anthropic's messages as chat templates read them.

use crate::serve::error::ApiError;
use serde_json::{Map, Value, json};

/// The messages of a request, and whether the last is the beginning of the answer.
///
/// # Errors
/// What is wrong with which message. Blocks that are no text are refused: the models served here read text.
pub fn messages(system: Option<&Value>, list: Option<&Value>) -> Result<(Vec<Value>, bool), ApiError> {
    let mut out = Vec::new();
    if let Some(system) = system {
        out.push(json!({ "role": "system", "content": texts(system, "system")? }));
    }
    let list = list.and_then(Value::as_array).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| ApiError::field("messages", "wanted a list of at least one message"))?;
    let mut continues = false;
    for (at, message) in list.iter().enumerate() {
        let place = format!("messages[{at}]");
        let content = &message["content"];
        let blocks = match content {
            Value::String(text) => vec![json!({ "type": "text", "text": text })],
            Value::Array(blocks) => blocks.clone(),
            _ => {
                return Err(ApiError::field(format!("{place}.content"), "wanted a text or a list of blocks"));
            }
        };
        continues = false;
        match message["role"].as_str() {
            Some("user") => user(&blocks, &place, &mut out)?,
            Some("assistant") => {
                let message = assistant(&blocks, &place)?;
                continues = message.get("tool_calls").is_none();
                out.push(Value::Object(message));
            }
            Some("system") => out.push(json!({ "role": "system", "content": texts(content, &place)? })),
            _ => return Err(ApiError::field(format!("{place}.role"), "wanted user or assistant")),
        }
    }
    Ok((out, continues))
}

/// A text, or text blocks, one a line.
fn texts(value: &Value, place: &str) -> Result<String, ApiError> {
    let blocks = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(blocks) => blocks,
        _ => return Err(ApiError::field(place, "wanted a text or a list of text blocks")),
    };
    let one = |(at, block): (usize, &Value)| text(block, &format!("{place}[{at}]"));
    Ok(blocks.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn text(block: &Value, place: &str) -> Result<String, ApiError> {
    match (block["type"].as_str(), block["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text.to_owned()),
        (Some("text"), None) => Err(ApiError::field(format!("{place}.text"), "wanted a text")),
        (Some(kind), _) => Err(unsupported(kind, place)),
        (None, _) => Err(ApiError::field(format!("{place}.type"), "the type of the block is missing")),
    }
}

fn unsupported(kind: &str, place: &str) -> ApiError {
    ApiError::field(place, format!("blocks of type {kind:?} are not supported here: the model reads text"))
}

/// A user's message: results of tools are messages of their own.
fn user(blocks: &[Value], place: &str, out: &mut Vec<Value>) -> Result<(), ApiError> {
    let mut words = Vec::new();
    for (at, block) in blocks.iter().enumerate() {
        let place = format!("{place}.content[{at}]");
        if block["type"] != "tool_result" {
            words.push(text(block, &place)?);
            continue;
        }
        let id = block["tool_use_id"].as_str();
        let id = id.ok_or_else(|| ApiError::field(format!("{place}.tool_use_id"), "wanted a text"))?;
        let content = match &block["content"] {
            Value::Null => String::new(),
            content => texts(content, &format!("{place}.content"))?,
        };
        let content = match block["is_error"].as_bool() {
            Some(true) => format!("Error: {content}"),
            _ => content,
        };
        out.push(json!({ "role": "tool", "tool_call_id": id, "content": content }));
    }
    if !words.is_empty() {
        out.push(json!({ "role": "user", "content": words.join("\n") }));
    }
    Ok(())
}

fn assistant(blocks: &[Value], place: &str) -> Result<Map<String, Value>, ApiError> {
    let (mut words, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for (at, block) in blocks.iter().enumerate() {
        let place = format!("{place}.content[{at}]");
        match block["type"].as_str() {
            Some("thinking") => {
                let thought = block["thinking"].as_str();
                let wanted = || ApiError::field(format!("{place}.thinking"), "wanted a text");
                thoughts.push(thought.ok_or_else(wanted)?.to_owned());
            }
            Some("redacted_thinking") => {}
            Some("tool_use") => {
                let (id, name) = (block["id"].as_str(), block["name"].as_str());
                let input = Some(&block["input"]).filter(|input| input.is_object());
                let (Some(id), Some(name), Some(input)) = (id, name, input) else {
                    return Err(ApiError::field(place, "a tool_use wants id, name and an object as input"));
                };
                let function = json!({ "name": name, "arguments": input });
                calls.push(json!({ "id": id, "type": "function", "function": function }));
            }
            _ => words.push(text(block, &place)?),
        }
    }
    let mut message = Map::new();
    message.insert("role".into(), json!("assistant"));
    message.insert("content".into(), json!(words.join("\n")));
    if !thoughts.is_empty() {
        message.insert("reasoning_content".into(), json!(thoughts.join("\n")));
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), Value::Array(calls));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_messages() {
        let system =
            json!([{ "type": "text", "text": "be brief", "cache_control": { "type": "ephemeral" } }]);
        let list = json!([
            { "role": "user", "content": "weather?" },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "hm", "signature": "" },
                { "type": "text", "text": "I look." },
                { "type": "tool_use", "id": "t", "name": "w", "input": { "a": { "b": 1 } } } ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "t", "content": [{ "type": "text", "text": "12" }] },
                { "type": "text", "text": "so?" } ] },
        ]);
        let (found, continues) = messages(Some(&system), Some(&list)).unwrap();
        let call = json!({ "id": "t", "type": "function", "function": { "name": "w", "arguments": { "a": { "b": 1 } } } });
        let wanted = [
            json!({ "role": "system", "content": "be brief" }),
            json!({ "role": "user", "content": "weather?" }),
            json!({ "role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": [call] }),
            json!({ "role": "tool", "tool_call_id": "t", "content": "12" }),
            json!({ "role": "user", "content": "so?" }),
        ];
        assert_eq!((found.as_slice(), continues), (&wanted[..], false));
        let begun = json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }]);
        assert!(messages(None, Some(&begun)).unwrap().1);
    }

    #[test]
    fn what_is_wrong_with_a_block_is_named() {
        for (message, place) in [
            (json!({ "role": "user" }), "messages[0].content"),
            (json!({ "role": "boss", "content": "" }), "messages[0].role"),
            (json!({ "role": "user", "content": [{ "type": "image" }] }), "messages[0].content[0]"),
            (json!({ "role": "user", "content": [3] }), "messages[0].content[0].type"),
            (json!({ "role": "assistant", "content": [{ "type": "tool_use" }] }), "messages[0].content[0]"),
            (json!(3), "messages[0].content"),
        ] {
            assert_eq!(messages(None, Some(&json!([message]))).unwrap_err().param.as_deref(), Some(place));
        }
        assert!(messages(None, None).is_err() && messages(Some(&json!(3)), Some(&json!([]))).is_err());
    }
}
