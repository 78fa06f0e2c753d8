//! JSON from strangers: the depth is looked at before the parser runs, because a stack overflow is no error.

use serde_json::{Map, Value};

/// The deepest nesting that any file of a model needs.
pub(crate) const DEPTH_MAX: usize = 64;

/// Parses a JSON object. The error says what is wrong in a few words, without the file's name.
pub(crate) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    check_depth(bytes)?;
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(format!("wanted a JSON object, found {}", kind(&other))),
        Err(e) => Err(format!("not valid JSON: {e}")),
    }
}

/// Refuses text nested deeper than [`DEPTH_MAX`]. Brackets inside strings do not count.
pub(crate) fn check_depth(bytes: &[u8]) -> Result<(), String> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth = depth.saturating_add(1),
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX} levels"));
        }
    }
    Ok(())
}

/// The kind of a value in the words of messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
