//! The items of a response's input, and what chat templates read of them.

use crate::serve::error::ApiError;
use serde_json::{Value, json};

/// The most items.
const ITEMS_MAX: usize = 4096;

/// The items of the field `input`: a text is a user's message.
pub fn items(value: Option<&Value>) -> Result<Vec<Value>, ApiError> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![json!({ "type": "message", "role": "user", "content": text })]),
        Some(Value::Array(list)) if list.len() <= ITEMS_MAX => Ok(list.clone()),
        Some(Value::Array(list)) => {
            Err(ApiError::field("input", format!("{} items, wanted at most {ITEMS_MAX}", list.len())))
        }
        Some(_) => Err(ApiError::field("input", "wanted a text or a list of items")),
    }
}

/// An item as it is told back: with all that OpenAI's types ask for, whatever of it the request left out.
pub fn told(item: &Value, at: usize) -> Value {
    let mut item = item.clone();
    let mut default = |name: &str, value: Value| {
        if item[name].is_null() {
            item[name] = value;
        }
    };
    default("type", json!("message"));
    default("id", json!(format!("item_{at}")));
    default("status", json!("completed"));
    if item["type"] == "reasoning" && item["summary"].is_null() {
        item["summary"] = json!([]);
    }
    if item["type"] == "message" {
        let written = item["role"] == "assistant";
        let part = |text: &Value| match written {
            true => json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] }),
            false => json!({ "type": "input_text", "text": text }),
        };
        let whole = |given: &Value| match given["type"].as_str() {
            Some("output_text")
                if written && given["annotations"].is_array() && given["logprobs"].is_array() =>
            {
                given.clone()
            }
            Some("input_text") if !written => given.clone(),
            _ => part(given.get("text").unwrap_or(given)),
        };
        item["content"] = match &item["content"] {
            Value::Array(parts) => parts.iter().map(whole).collect(),
            text => json!([part(text)]),
        };
    }
    item
}

/// The messages of items.
///
/// # Errors
/// What is wrong with which item; its number counts from the first of `items`.
pub fn messages(instructions: Option<&str>, items: &[Value]) -> Result<Vec<Value>, ApiError> {
    let mut out: Vec<Value> = Vec::new();
    out.extend(instructions.map(|text| json!({ "role": "system", "content": text })));
    for (at, item) in items.iter().enumerate() {
        let place = format!("input[{at}]");
        match item["type"].as_str() {
            None | Some("message") => message(item, &place, &mut out)?,
            Some("function_call") => {
                let (id, name) = (item["call_id"].as_str(), item["name"].as_str());
                let arguments = item["arguments"].as_str().map(serde_json::from_str::<Value>);
                let (Some(id), Some(name), Some(Ok(arguments @ Value::Object(_)))) = (id, name, arguments)
                else {
                    let words =
                        "a function_call wants call_id, name, and the text of a JSON object as arguments";
                    return Err(ApiError::field(place, words));
                };
                let function = json!({ "name": name, "arguments": arguments });
                let call = json!({ "id": id, "type": "function", "function": function });
                let message = assistant(&mut out);
                match message.get_mut("tool_calls").and_then(Value::as_array_mut) {
                    Some(calls) => calls.push(call),
                    None => message["tool_calls"] = json!([call]),
                }
            }
            Some("function_call_output") => {
                let id = item["call_id"].as_str();
                let id = id.ok_or_else(|| ApiError::field(format!("{place}.call_id"), "wanted a text"))?;
                let content = text(&item["output"], &format!("{place}.output"))?;
                out.push(json!({ "role": "tool", "tool_call_id": id, "content": content }));
            }
            Some("reasoning") => {
                let list = item["content"].as_array().into_iter().flatten();
                let words: Vec<&str> = list.filter_map(|part| part["text"].as_str()).collect();
                if !words.is_empty() {
                    let content =
                        json!({ "role": "assistant", "content": "", "reasoning_content": words.join("\n") });
                    out.push(content);
                }
            }
            Some(kind) => {
                let words = format!("items of type {kind:?} are not supported here");
                return Err(ApiError::field(place, words));
            }
        }
    }
    match out.iter().any(|message| message["role"] != "system") {
        true => Ok(out),
        false => Err(ApiError::field("input", "wanted a text or at least one item")),
    }
}

fn message(item: &Value, place: &str, out: &mut Vec<Value>) -> Result<(), ApiError> {
    let role = match item["role"].as_str() {
        Some("developer" | "system") => "system",
        Some(role @ ("user" | "assistant")) => role,
        _ => {
            let words = "wanted one of user, assistant, system, developer";
            return Err(ApiError::field(format!("{place}.role"), words));
        }
    };
    let content = text(&item["content"], &format!("{place}.content"))?;
    // What the model thought and what it said are one message.
    let last = out.last_mut().filter(|last| role == "assistant" && last["role"] == "assistant");
    match last.filter(|last| last["content"] == "" && last.get("tool_calls").is_none()) {
        Some(last) => last["content"] = json!(content),
        None => out.push(json!({ "role": role, "content": content })),
    }
    Ok(())
}

/// The assistant's message to which a call belongs.
fn assistant(out: &mut Vec<Value>) -> &mut Value {
    if out.last().is_none_or(|last| last["role"] != "assistant") {
        out.push(json!({ "role": "assistant", "content": "" }));
    }
    let last = out.len() - 1;
    &mut out[last]
}

/// A text, or parts that are texts, one a line.
fn text(value: &Value, place: &str) -> Result<String, ApiError> {
    let parts = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => return Err(ApiError::field(place, "wanted a text or a list of parts")),
    };
    let one = |(at, part): (usize, &Value)| {
        let words = part["text"].as_str().or(part["refusal"].as_str()).map(str::to_owned);
        match (part["type"].as_str(), words) {
            (Some("input_text" | "output_text" | "text" | "refusal"), Some(text)) => Ok(text),
            (kind, _) => {
                let words = format!("a part of type {kind:?} is not supported here: the model reads text");
                Err(ApiError::field(format!("{place}[{at}]"), words))
            }
        }
    };
    Ok(parts.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_become_messages() {
        let list = json!([
            { "role": "user", "content": [{ "type": "input_text", "text": "weather?" }] },
            { "type": "reasoning", "id": "r", "summary": [], "content": [{ "type": "reasoning_text", "text": "hm" }] },
            { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "I look." }] },
            { "type": "function_call", "call_id": "c", "name": "w", "arguments": "{\"a\": {\"b\": 1}}" },
            { "type": "function_call", "call_id": "d", "name": "v", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "c", "output": "12" },
        ]);
        let call = |id: &str, name: &str, arguments: Value| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
        let found = messages(Some("be brief"), &items(Some(&list)).unwrap()).unwrap();
        let calls = [call("c", "w", json!({ "a": { "b": 1 } })), call("d", "v", json!({}))];
        assert_eq!(
            found,
            [
                json!({ "role": "system", "content": "be brief" }),
                json!({ "role": "user", "content": "weather?" }),
                json!({ "role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": calls }),
                json!({ "role": "tool", "tool_call_id": "c", "content": "12" }),
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_an_item_is_named() {
        for (item, place) in [
            (json!({ "role": "boss", "content": "" }), "input[0].role"),
            (json!({ "role": "user" }), "input[0].content"),
            (json!({ "role": "user", "content": [{ "type": "input_image" }] }), "input[0].content[0]"),
            (json!({ "type": "function_call", "name": "f", "arguments": "[" }), "input[0]"),
            (json!({ "type": "function_call_output" }), "input[0].call_id"),
            (json!({ "type": "web_search_call" }), "input[0]"),
            (json!(3), "input[0].role"),
        ] {
            assert_eq!(messages(None, &[item]).unwrap_err().param.as_deref(), Some(place));
        }
        assert!(messages(Some("x"), &[]).is_err() && items(Some(&json!(3))).is_err());
    }
}
