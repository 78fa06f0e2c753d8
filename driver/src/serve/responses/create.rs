//! `POST /v1/responses`, and the paths of responses that are stored.

use super::input;
use super::items::{End, Items};
use super::store::Stored;
use crate::grammar::Grammar;
use crate::serve::body::{Fields, JsonBody, Kind, MODEL, Row, STREAM, row};
use crate::serve::conversation::Conversation;
use crate::serve::error::ApiError;
use crate::serve::generate::Generation;
use crate::serve::many::merge;
use crate::serve::openai::shape::now;
use crate::serve::record::Caller;
use crate::serve::sampling::{EXTENSIONS, HARMLESS, SAMPLING, random};
use crate::serve::sse;
use crate::serve::state::App;
use crate::serve::structured::{FORMAT_TYPE, SCHEMA};
use crate::serve::tools::{CALLING, ToolUse, function};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The fields of a response.
pub const RESPONSE: &[Row] = &[
    MODEL,
    row("input", Kind::Any, "A text, or a list of items."),
    row("instructions", Kind::Text, "What comes before the conversation; not kept for the next response."),
    row("previous_response_id", Kind::Text, "A stored response that this one goes on from."),
    row(
        "store",
        Kind::Bool,
        "Keeps the response, so that it can be asked for and gone on from; true if left out.",
    ),
    STREAM,
    row("stream_options", Kind::Object, "How it is sent."),
    row("max_output_tokens", Kind::Int(1, 1 << 31), "Tokens of the answer at most."),
    row(
        "top_logprobs",
        Kind::Int(0, 20),
        "Gives the log probabilities of so many likeliest tokens at each place.",
    ),
    row("include", Kind::List(16), "What else is told: message.output_text.logprobs."),
    row("text", Kind::Object, "The format of the answer: text, json_object, or json_schema with a schema."),
    row("reasoning", Kind::Object, "The effort is a variable of the chat template."),
    row("truncation", Kind::Only(&["\"disabled\""]), "Not supported: an input that is too long is refused."),
    row("background", Kind::Only(&["false"]), "Not supported."),
    row("conversation", Kind::Only(&[]), "Not supported; use previous_response_id."),
    row("prompt", Kind::Only(&[]), "Not supported."),
    row("max_tool_calls", Kind::Only(&[]), "Not supported."),
    row("context_management", Kind::Only(&["[]"]), "Not supported."),
];
/// All tables of a response. `store` is read, so its row comes before that of [`HARMLESS`].
pub const TABLES: &[&[Row]] = &[RESPONSE, CALLING, SAMPLING, EXTENSIONS, HARMLESS];

const TEXT: &[Row] = &[
    row("format", Kind::Object, "The format."),
    row("verbosity", Kind::Only(&["\"medium\""]), "Not supported."),
];
const REASONING: &[Row] = &[
    row("effort", Kind::Text, "A variable of the chat template."),
    row("summary", Kind::Only(&["\"auto\""]), "Not supported."),
    row("generate_summary", Kind::Only(&["\"auto\""]), "Not supported."),
];
const OPTIONS: &[Row] = &[row("include_obfuscation", Kind::Harmless, "Nothing is obfuscated.")];

/// What can be included; the second is told of nothing here, as nothing is encrypted.
const LOGPROBS: &str = "message.output_text.logprobs";
const INCLUDES: &[&str] = &[LOGPROBS, "reasoning.encrypted_content"];

/// What a response begins with.
struct Begun {
    generation: Generation,
    tools: ToolUse,
    /// The items of the input, those of earlier responses included.
    input: Vec<Value>,
    response: Value,
}

/// Answers.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let fields = body.fields(&app, TABLES)?;
    fields.object("stream_options", &[OPTIONS])?;
    let stream = fields.flag("stream");
    let store = fields.bool("store").unwrap_or(true);
    let Begun { generation, tools, input, response } = app.aside(move |app| begin(app, &fields)).await?;
    let logprobs = generation.logprobs.is_some();
    let keeper = app.clone();
    let end: End = Box::new(move |response| {
        let id = response["id"].as_str().unwrap_or_default().to_owned();
        keeper.responses.put(Stored::new(id, response.clone(), input));
    });
    let reader = tools.parser(&app);
    let mut items = Items::new(app.clone(), response, reader, logprobs, store.then_some(end));
    let mut outputs = merge(vec![generation.start(&app, &caller)?], 1);
    if stream {
        return Ok(sse::respond(outputs, items));
    }
    while let Some(output) = outputs.next().await {
        items.take(output)?;
    }
    Ok(Json(items.response()).into_response())
}

/// A stored response.
pub async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(app.responses.get(&id)?.response.clone()))
}

/// Forgets a stored response.
pub async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    app.responses.delete(&id)?;
    Ok(Json(json!({ "id": id, "object": "response", "deleted": true })))
}

/// Responses are stored when they have ended, so none is left that could be cancelled: closing the stream does that.
pub async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    app.responses.get(&id)?;
    let words = "the response has ended; one on its way is cancelled by closing its connection";
    Err(ApiError::bad_request(words))
}

/// The items of a stored response's input, the newest first.
pub async fn input_items(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let stored = app.responses.get(&id)?;
    let mut data: Vec<Value> =
        stored.input.iter().enumerate().map(|(at, item)| input::told(item, at)).collect();
    data.reverse();
    let end = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let (first, last) = (end(data.first()), end(data.last()));
    Ok(Json(json!({ "object": "list", "data": data, "first_id": first, "last_id": last, "has_more": false })))
}

fn begin(app: &App, fields: &Fields) -> Result<Begun, ApiError> {
    let mut tools = tool_use(app, fields)?;
    let previous = fields.text("previous_response_id").map(|id| app.responses.get(id)).transpose()?;
    let mut items = previous.map(|stored| stored.items()).unwrap_or_default();
    items.extend(input::items(fields.value("input"))?);
    let reasoning = fields.object("reasoning", &[REASONING])?;
    let mut extra = Map::new();
    if let Some(effort) = reasoning.text("effort") {
        extra.insert("reasoning_effort".into(), json!(effort));
    }
    let messages = input::messages(fields.text("instructions"), &items)?;
    let conversation =
        Conversation { messages, tools: tools.described(), answer: true, continues: false, extra };
    let prompt = conversation.prompt(app)?;
    let mut generation = Generation::new(prompt.ids);
    generation.take(app, fields)?;
    generation.max_tokens = fields.count("max_output_tokens").or(app.text.defaults.max_new_tokens);
    let include = fields.texts("include");
    if let Some(other) = include.iter().find(|name| !INCLUDES.contains(&name.as_str())) {
        return Err(fields.wrong("include", format!("{other:?} cannot be included here")));
    }
    let told = include.iter().any(|name| name == LOGPROBS);
    generation.logprobs = fields.count("top_logprobs").or(told.then_some(0));
    let (format, grammar) = format(fields)?;
    tools.apply(app, &prompt.text, grammar, &mut generation)?;
    let response = response(app, fields, &generation, format);
    Ok(Begun { generation, tools, input: items, response })
}

/// The format as it is told back, and the grammar that holds answers to it.
fn format(fields: &Fields) -> Result<(Value, Option<Grammar>), ApiError> {
    let text = fields.object("text", &[TEXT])?;
    let format = text.object("format", &[&[FORMAT_TYPE], SCHEMA])?;
    let told = text.value("format").cloned().unwrap_or_else(|| json!({ "type": "text" }));
    let grammar = match format.text("type") {
        None if text.has("format") => return Err(format.wrong("type", "the type is missing")),
        None | Some("text") => None,
        Some("json_object") => Some(Grammar::JsonObject),
        Some(_) => {
            let schema =
                format.value("schema").ok_or_else(|| format.wrong("schema", "the schema is missing"))?;
            Some(Grammar::JsonSchema(schema.clone()))
        }
    };
    Ok((told, grammar))
}

fn tool_use(app: &App, fields: &Fields) -> Result<ToolUse, ApiError> {
    let list = fields.value("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let one = |(at, tool): (usize, &Value)| match tool["type"].as_str() {
        Some("function") => function(tool, "parameters", &format!("tools[{at}]")),
        _ => Err(ApiError::field(format!("tools[{at}]"), "only tools of type function are supported here")),
    };
    let tools = list.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
    let single = fields.bool("parallel_tool_calls") == Some(false);
    let name = |choice: &Value| choice["name"].as_str().map(str::to_owned);
    ToolUse::chosen(app, tools, (fields.value("tool_choice"), name), single)
}

/// The parts of the response that are known from the beginning.
fn response(app: &App, fields: &Fields, generation: &Generation, format: Value) -> Value {
    let told = |name: &str| fields.value(name).cloned().unwrap_or(Value::Null);
    let or = |name: &str, value: Value| fields.value(name).cloned().unwrap_or(value);
    let mut response = json!({
        "id": format!("resp_{:016x}{:016x}", random(), random()),
        "object": "response",
        "created_at": now(),
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": told("instructions"),
        "max_output_tokens": told("max_output_tokens"),
        "model": app.name(fields.text("model")),
        "output": [],
        "parallel_tool_calls": or("parallel_tool_calls", json!(true)),
        "previous_response_id": told("previous_response_id"),
        "reasoning": { "effort": fields.value("reasoning").map_or(Value::Null, |value| value["effort"].clone()), "summary": null },
        "store": or("store", json!(true)),
        "temperature": generation.sampling.temperature,
        "text": { "format": format },
        "tool_choice": or("tool_choice", json!("auto")),
        "tools": told_tools(fields),
        "top_logprobs": or("top_logprobs", json!(0)),
        "top_p": generation.sampling.top_p,
        "truncation": "disabled",
        "metadata": or("metadata", json!({})),
    });
    if let Some(user) = fields.value("user") {
        response["user"] = user.clone();
    }
    response
}

/// The tools, each with the fields that it must have when it is told back.
fn told_tools(fields: &Fields) -> Value {
    let mut tools = fields.value("tools").cloned().unwrap_or_else(|| json!([]));
    for tool in tools.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for name in ["parameters", "strict"] {
            tool.entry(name).or_insert(Value::Null);
        }
    }
    tools
}
