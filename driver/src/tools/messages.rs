//! Messages with tool calls, as chat templates want them.

use super::choice::ToolError;
use serde_json::{Map, Value};

/// Turns the arguments of tool calls from JSON text, as clients send them, into objects, as templates want them
/// (transformers: Chat templates, tool use), and gives a message with calls a `content`.
///
/// # Errors
/// A call that is none of a function with a name, or whose arguments are no JSON object.
pub fn arguments_to_objects(messages: &mut [Value]) -> Result<(), ToolError> {
    for (at, message) in messages.iter_mut().enumerate() {
        let Some(message) = message.as_object_mut() else { continue };
        if message.get("tool_calls").is_none_or(Value::is_null) {
            message.remove("tool_calls");
            continue;
        }
        if message.get("content").is_none_or(Value::is_null) {
            message.insert("content".to_owned(), Value::String(String::new()));
        }
        let Some(Value::Array(calls)) = message.get_mut("tool_calls") else {
            return wrong(format!("messages[{at}].tool_calls"), "wanted a list".into());
        };
        if calls.is_empty() {
            message.remove("tool_calls");
            continue;
        }
        for (call_at, call) in calls.iter_mut().enumerate() {
            let place = format!("messages[{at}].tool_calls[{call_at}].function");
            let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) else {
                return wrong(place, "wanted a call of a function".into());
            };
            if !function.get("name").is_some_and(Value::is_string) {
                return wrong(format!("{place}.name"), "wanted a text".into());
            }
            if let Err(reason) = parse_arguments(function) {
                return wrong(format!("{place}.arguments"), reason);
            }
        }
    }
    Ok(())
}

fn wrong(place: String, reason: String) -> Result<(), ToolError> {
    Err(ToolError { place, reason })
}

fn parse_arguments(function: &mut Map<String, Value>) -> Result<(), String> {
    let parsed = match function.get("arguments") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(Value::String(text)) if text.trim().is_empty() => Value::Object(Map::new()),
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?
        }
        Some(other) => other.clone(),
    };
    if !parsed.is_object() {
        return Err(format!("wanted a JSON object, found {parsed}"));
    }
    function.insert("arguments".to_owned(), parsed);
    Ok(())
}
