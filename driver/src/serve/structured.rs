//! What an answer must look like: OpenAI's `response_format`, and the fields of other servers for regular expressions,
//! choices and grammars. All of them become one [`Grammar`].

use super::body::{Fields, Kind, Row, row};
use super::error::ApiError;
use crate::grammar::Grammar;
use serde_json::Value;

/// The fields.
pub const STRUCTURED: &[Row] = &[
    row(
        "response_format",
        Kind::Object,
        "The type of the answer: text, json_object, or json_schema with a schema.",
    ),
    row("structured_outputs", Kind::Object, "One of json, json_object, regex, choice, grammar."),
    row("guided_json", Kind::Any, "A JSON schema."),
    row("guided_regex", Kind::Text, "A regular expression that the whole answer matches."),
    row("guided_choice", Kind::List(1024), "Texts, one of which is the answer."),
    row("guided_grammar", Kind::Text, "A grammar in Lark's notation."),
    row("guided_decoding_backend", Kind::Harmless, "There is one."),
    row("guided_whitespace_pattern", Kind::Only(&[]), "Not supported."),
];

/// The type of a format.
pub const FORMAT_TYPE: Row =
    row("type", Kind::OneOf(&["text", "json_object", "json_schema"]), "What the answer is.");
const FORMAT: &[Row] = &[FORMAT_TYPE, row("json_schema", Kind::Object, "The schema, with its name.")];
/// The fields of a schema with its name.
pub const SCHEMA: &[Row] = &[
    row("name", Kind::Text, "The schema's name."),
    row("description", Kind::Text, "What it is for."),
    row("schema", Kind::Any, "The schema."),
    row("strict", Kind::Bool, "The answer follows the schema in any case."),
];
const OUTPUTS: &[Row] = &[
    row("json", Kind::Any, "A JSON schema."),
    row("json_object", Kind::Bool, "Any JSON object."),
    row("regex", Kind::Text, "A regular expression."),
    row("choice", Kind::List(1024), "Texts, one of which is the answer."),
    row("grammar", Kind::Text, "A grammar in Lark's notation."),
];

/// The grammar that a request asks for, if any.
pub fn grammar(fields: &Fields) -> Result<Option<Grammar>, ApiError> {
    let mut found: Vec<Grammar> = response_format(fields)?.into_iter().collect();
    found.extend(outputs(fields, "guided_")?);
    let inner = fields.object("structured_outputs", &[OUTPUTS])?;
    found.extend(outputs(&inner, "")?);
    if inner.flag("json_object") {
        found.push(Grammar::JsonObject);
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        count => Err(ApiError::bad_request(format!("{count} grammars for one answer, wanted at most one"))),
    }
}

fn response_format(fields: &Fields) -> Result<Option<Grammar>, ApiError> {
    if !fields.has("response_format") {
        return Ok(None);
    }
    let format = fields.object("response_format", &[FORMAT])?;
    match format.text("type") {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Grammar::JsonObject)),
        Some(_) => {
            let schema = format.object("json_schema", &[SCHEMA])?;
            let found =
                schema.value("schema").ok_or_else(|| schema.wrong("schema", "the schema is missing"))?;
            Ok(Some(Grammar::JsonSchema(found.clone())))
        }
        None => Err(format.wrong("type", "the type is missing")),
    }
}

/// The grammars of fields whose names begin with `prefix`.
fn outputs(fields: &Fields, prefix: &str) -> Result<Vec<Grammar>, ApiError> {
    let name = |word: &str| format!("{prefix}{word}");
    let text = |word: &str| fields.text(&name(word)).map(str::to_owned);
    let mut found = Vec::new();
    if let Some(schema) = fields.value(&name("json")) {
        found.push(Grammar::JsonSchema(
            schema_of(schema).map_err(|words| fields.wrong(&name("json"), words))?,
        ));
    }
    found.extend(text("regex").map(Grammar::Regex));
    found.extend(text("grammar").map(Grammar::Lark));
    if let Some(list) = fields.value(&name("choice")).and_then(Value::as_array) {
        found.push(choice(list).map_err(|words| fields.wrong(&name("choice"), words))?);
    }
    Ok(found)
}

/// A schema, which may be written as a text.
fn schema_of(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) => {
            serde_json::from_str(text).map_err(|error| format!("the schema is not JSON: {error}"))
        }
        other => Ok(other.clone()),
    }
}

/// The grammar of one of some texts.
fn choice(list: &[Value]) -> Result<Grammar, String> {
    let texts: Vec<&str> = list.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).collect();
    if texts.is_empty() || texts.len() != list.len() {
        return Err("wanted a list of texts that are not empty".into());
    }
    Ok(Grammar::choice(&texts))
}
