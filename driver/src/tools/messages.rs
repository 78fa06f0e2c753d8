//! Messages with tool calls, as chat templates want them.

use serde_json::{Map, Value};

/// Turns the arguments of tool calls from JSON text, as clients send them, into objects, as templates want them
/// (transformers: Chat templates, tool use), and gives every assistant's message a `content`.
///
/// # Errors
/// The place of arguments that are no JSON object.
pub fn arguments_to_objects(messages: &mut [Value]) -> Result<(), String> {
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
            return Err(format!("messages[{at}].tool_calls: wanted a list"));
        };
        if calls.is_empty() {
            message.remove("tool_calls");
            continue;
        }
        for (call_at, call) in calls.iter_mut().enumerate() {
            let place = format!("messages[{at}].tool_calls[{call_at}].function");
            let function = call.get_mut("function").and_then(Value::as_object_mut);
            let function = function.ok_or_else(|| format!("{place}: wanted an object"))?;
            parse_arguments(function).map_err(|reason| format!("{place}.arguments: {reason}"))?;
        }
    }
    Ok(())
}

fn parse_arguments(function: &mut Map<String, Value>) -> Result<(), String> {
    if !function.get("name").is_some_and(Value::is_string) {
        return Err("the function has no name".into());
    }
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
