//! `POST /v1/messages` and `/v1/messages/count_tokens`

use super::blocks::Blocks;
use super::prompt;
use crate::serve::body::{Fields, JsonBody, Kind, MODEL, Row, STREAM, row};
use crate::serve::conversation::{Conversation, MESSAGES, Prompt};
use crate::serve::error::ApiError;
use crate::serve::generate::Generation;
use crate::serve::many::merge;
use crate::serve::record::Caller;
use crate::serve::sampling::{TOP_K, TOP_P, stops};
use crate::serve::sse;
use crate::serve::state::App;
use crate::serve::tools::{TOOLS, ToolUse, function};
use crate::tools::Choice;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;

/// The fields that say what the model reads.
pub const PROMPT: &[Row] = &[
    MODEL,
    MESSAGES,
    row("system", Kind::Any, "What comes before the conversation: a text or text blocks."),
    TOOLS,
    row("tool_choice", Kind::Object, "Whether and which function is called: auto, any, tool or none."),
    row("thinking", Kind::Object, "Whether the model thinks first, if its chat template lets one choose."),
    row("cache_control", Kind::Harmless, "Beginnings are found by their tokens."),
];

/// The fields that say how it answers.
pub const ANSWER: &[Row] = &[
    row("max_tokens", Kind::Int(1, 1 << 31), "Tokens of the answer at most."),
    row("stop_sequences", Kind::Texts(16), "Texts that end the answer; they are no part of it."),
    STREAM,
    row("temperature", Kind::Number(0.0, 1.0), "Divides the logits; 0 always takes the likeliest token."),
    TOP_P,
    TOP_K,
    row("metadata", Kind::Harmless, "Whose request it is."),
    row("service_tier", Kind::Harmless, "There is one tier."),
    row("container", Kind::Only(&[]), "Not supported."),
    row("mcp_servers", Kind::Only(&["[]"]), "Not supported."),
    row("context_management", Kind::Only(&[]), "Not supported."),
    row("output_config", Kind::Only(&["{}"]), "Not supported."),
    row("output_format", Kind::Only(&[]), "Not supported."),
];

const CHOICE: &[Row] = &[
    row("type", Kind::OneOf(&["auto", "any", "tool", "none"]), "Whether a tool is called."),
    row("name", Kind::Text, "The tool."),
    row("disable_parallel_tool_use", Kind::Bool, "At most one call in an answer."),
];
const THINKING: &[Row] = &[
    row("type", Kind::OneOf(&["enabled", "disabled", "adaptive"]), "Whether the model thinks first."),
    row("budget_tokens", Kind::Harmless, "Thoughts and answer share max_tokens."),
    row("display", Kind::Harmless, "Thoughts are always shown."),
];

/// Answers a conversation.
pub async fn messages(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let fields = body.fields(&app, &[PROMPT, ANSWER])?;
    let stream = fields.flag("stream");
    let model = app.name(fields.text("model")).to_owned();
    let (generation, tools) = app.aside(move |app| generation(app, &fields)).await?;
    let mut blocks = Blocks::new(model, generation.prompt.len(), tools.parser(&app));
    let mut outputs = merge(vec![generation.start(&app, &caller)?], 1);
    if stream {
        return Ok(sse::respond(outputs, blocks));
    }
    while let Some(output) = outputs.next().await {
        blocks.take(output)?;
    }
    Ok(Json(blocks.message()).into_response())
}

/// Counts the tokens of a conversation.
pub async fn count_tokens(State(app): State<Arc<App>>, body: JsonBody) -> Result<Json<Value>, ApiError> {
    let fields = body.fields(&app, &[PROMPT])?;
    let count = app.aside(move |app| Ok(prompt(app, &fields, &tool_use(app, &fields)?)?.ids.len()));
    Ok(Json(json!({ "input_tokens": count.await? })))
}

fn generation(app: &App, fields: &Fields) -> Result<(Generation, ToolUse), ApiError> {
    let most =
        fields.count("max_tokens").ok_or_else(|| fields.wrong("max_tokens", "max_tokens is missing"))?;
    let mut tools = tool_use(app, fields)?;
    let prompt = prompt(app, fields, &tools)?;
    let mut generation = Generation::new(prompt.ids);
    generation.take(app, fields)?;
    generation.max_tokens = Some(most);
    generation.stops = stops(fields, "stop_sequences")?;
    tools.apply(app, &prompt.text, None, &mut generation)?;
    Ok((generation, tools))
}

fn prompt(app: &App, fields: &Fields, tools: &ToolUse) -> Result<Prompt, ApiError> {
    let (messages, continues) = prompt::messages(fields.value("system"), fields.value("messages"))?;
    let thinking = fields.object("thinking", &[THINKING])?;
    let mut extra = serde_json::Map::new();
    if let Some(kind) = thinking.text("type") {
        extra.insert("enable_thinking".into(), json!(kind != "disabled"));
    }
    Conversation { messages, tools: tools.described(), answer: !continues, continues, extra }.prompt(app)
}

fn tool_use(app: &App, fields: &Fields) -> Result<ToolUse, ApiError> {
    let list = fields.value("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let one = |(at, tool): (usize, &Value)| {
        let place = format!("tools[{at}]");
        if !matches!(tool["type"].as_str(), None | Some("custom")) {
            let words = format!("tools of type {} are not supported here", tool["type"]);
            return Err(ApiError::field(place, words));
        }
        function(tool, "input_schema", &place)
    };
    let tools = list.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
    let choice = fields.object("tool_choice", &[CHOICE])?;
    let single = choice.flag("disable_parallel_tool_use");
    let kind = match choice.text("type") {
        None if fields.has("tool_choice") => return Err(choice.wrong("type", "the type is missing")),
        None | Some("auto") => Choice::Auto,
        Some("none") => Choice::None,
        Some("any") => Choice::Required,
        Some(_) => {
            let name = choice.text("name").unwrap_or_default().to_owned();
            if tools.iter().all(|tool| tool.name != name) {
                return Err(choice.wrong("name", format!("there is no tool {name:?}")));
            }
            return Ok(ToolUse::new(app, tools, Choice::One, single)?.only(vec![name]));
        }
    };
    ToolUse::new(app, tools, kind, single)
}
