//! Calls with a tag for each argument. The tags hold plain text; what type it is, the tool's schema says.

use super::choice::Tool;
use super::format::{Body, Format};
use super::parser::{Calls, Flow, is_name};
use serde_json::{Map, Value};

/// The tags of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagStyle {
    /// GLM 4.5: `NAME`, then `<arg_key>K</arg_key><arg_value>V</arg_value>` for each.
    KeyValue,
    /// Qwen3-Coder: `<function=NAME>`, then `<parameter=K>V</parameter>` for each, then `</function>`.
    FunctionParameter,
}

/// Reads a call when all of it is there.
pub(super) fn read(format: &Format, tools: &[Tool], pending: &mut String, out: &mut Calls) -> Flow {
    let Body::Tagged(style) = format.body else { return Flow::Fail };
    let Some(end) = pending.find(format.close) else { return Flow::Wait };
    let text: String = pending.drain(..end + format.close.len()).collect();
    let call = match style {
        TagStyle::KeyValue => key_value(&text[..end]),
        TagStyle::FunctionParameter => function_parameter(&text[..end]),
    };
    let Some((name, arguments)) = call.filter(|(name, _)| is_name(name)) else { return Flow::Fail };
    let schema = tools.iter().find(|tool| tool.name == name).map(|tool| &tool.parameters);
    let typed: Map<String, Value> =
        arguments.into_iter().map(|(key, text)| (key.to_owned(), typed(schema, key, text))).collect();
    out.begin(name);
    out.arguments(&Value::Object(typed).to_string());
    Flow::Leave
}

type Pairs<'t> = Vec<(&'t str, &'t str)>;

fn key_value(text: &str) -> Option<(&str, Pairs<'_>)> {
    const KEY: &str = "<arg_key>";
    let (name, mut rest) = text.split_at(text.find(KEY).unwrap_or(text.len()));
    let mut pairs = Vec::new();
    while let Some(after) = rest.trim_start().strip_prefix(KEY) {
        let (key, after) = after.split_once("</arg_key>")?;
        let (value, after) = after.trim_start().strip_prefix("<arg_value>")?.split_once("</arg_value>")?;
        pairs.push((key.trim(), value));
        rest = after;
    }
    rest.trim().is_empty().then_some((name.trim(), pairs))
}

fn function_parameter(text: &str) -> Option<(&str, Pairs<'_>)> {
    let (name, rest) = text.trim().strip_prefix("<function=")?.split_once('>')?;
    let mut rest = rest.trim().strip_suffix("</function>")?;
    let mut pairs = Vec::new();
    while let Some(after) = rest.trim_start().strip_prefix("<parameter=") {
        let (key, after) = after.split_once('>')?;
        let (value, after) = after.split_once("</parameter>")?;
        // The value stands on lines of its own.
        let value = value.strip_prefix('\n').unwrap_or(value);
        pairs.push((key.trim(), value.strip_suffix('\n').unwrap_or(value)));
        rest = after;
    }
    rest.trim().is_empty().then_some((name.trim(), pairs))
}

/// The value that a text stands for: text where the schema wants text or the text is no JSON, the JSON otherwise.
fn typed(schema: Option<&Value>, key: &str, text: &str) -> Value {
    let wanted = schema.and_then(|schema| schema.get("properties")?.get(key)?.get("type"));
    if wanted.and_then(Value::as_str) == Some("string") {
        return Value::String(text.to_owned());
    }
    match text.trim() {
        "True" => Value::Bool(true),
        "False" => Value::Bool(false),
        "None" => Value::Null,
        trimmed => serde_json::from_str(trimmed).unwrap_or_else(|_| Value::String(text.to_owned())),
    }
}
