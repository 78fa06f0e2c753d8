//! `POST /v1/chat/completions`

use super::chat_answer::{ChatStream, Header, whole};
use super::shape::Shape;
use crate::serve::body::{Fields, JsonBody, Kind, MODEL, Row, STREAM, row};
use crate::serve::conversation::{CONVERSATION, Conversation, messages};
use crate::serve::error::ApiError;
use crate::serve::generate::Generation;
use crate::serve::many::{Whole, merge};
use crate::serve::record::Caller;
use crate::serve::sampling::{CHOICES, EXTENSIONS, HARMLESS, SAMPLING};
use crate::serve::sse;
use crate::serve::state::App;
use crate::serve::structured::{STRUCTURED, grammar};
use crate::serve::tools::{CALLING, ToolUse};
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// The fields of a conversation.
pub const CHAT: &[Row] = &[
    MODEL,
    STREAM,
    row("stream_options", Kind::Object, "Whether the stream ends with the usage."),
    row("max_tokens", Kind::Int(1, 1 << 31), "Tokens of an answer at most."),
    row("max_completion_tokens", Kind::Int(1, 1 << 31), "The same by its newer name."),
    row("logprobs", Kind::Bool, "Gives the log probabilities of the answer's tokens."),
    row("top_logprobs", Kind::Int(0, 20), "And those of so many likeliest tokens at each place."),
    row("reasoning_effort", Kind::Text, "A variable of the chat template."),
    row("modalities", Kind::Only(&["[\"text\"]"]), "Not supported."),
    row("audio", Kind::Only(&[]), "Not supported."),
    row("functions", Kind::Only(&["[]"]), "Not supported; use tools."),
    row("function_call", Kind::Only(&["\"none\""]), "Not supported; use tool_choice."),
    row("web_search_options", Kind::Only(&[]), "Not supported."),
    row("verbosity", Kind::Only(&["\"medium\""]), "Not supported."),
    row("echo", Kind::Only(&["false"]), "Not supported."),
    row("chat_template", Kind::Only(&[]), "Not supported: templates are code, and the model has its own."),
    row("documents", Kind::Only(&["[]"]), "Not supported."),
    row("add_special_tokens", Kind::Only(&["false"]), "Not supported."),
    row("best_of", Kind::Only(&["1"]), "Not supported."),
    row("prompt_logprobs", Kind::Only(&[]), "Not supported; use /v1/completions."),
];

/// The fields of `stream_options`.
pub const STREAM_OPTIONS: &[Row] = &[
    row("include_usage", Kind::Bool, "Ends the stream with a chunk that has the usage."),
    row("include_obfuscation", Kind::Harmless, "Nothing is obfuscated."),
    row("continuous_usage_stats", Kind::Only(&["false"]), "Not supported."),
];

/// All tables of a conversation.
pub const TABLES: &[&[Row]] =
    &[CHAT, CONVERSATION, CALLING, SAMPLING, CHOICES, EXTENSIONS, STRUCTURED, HARMLESS];

/// Answers a conversation.
pub async fn chat(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let fields = body.fields(&app, TABLES)?;
    let options = fields.object("stream_options", &[STREAM_OPTIONS])?;
    let shape = Shape::new("chatcmpl-", &app, fields.text("model"), options.flag("include_usage"));
    let stream = fields.flag("stream");
    let (generation, tools) = app.aside(move |app| generation(app, &fields)).await?;
    let n = generation.n;
    let header = Header { shape, tools, logprobs: generation.logprobs.is_some() };
    let outputs = merge(vec![generation.start(&app, &caller)?], n);
    if stream {
        return Ok(sse::respond(outputs, ChatStream::new(app, header, n)));
    }
    let answers = Whole::of(outputs, n).await?;
    Ok(axum::Json(whole(&app, &header, answers)).into_response())
}

/// What is to be generated. Rendering, tokenizing and compiling grammars take their time.
fn generation(app: &App, fields: &Fields) -> Result<(Generation, ToolUse), ApiError> {
    let mut tools = ToolUse::of_openai(app, fields)?;
    let prompt = conversation(fields, &tools)?.prompt(app)?;
    let mut generation = Generation::new(prompt.ids);
    generation.take(app, fields)?;
    let most = fields.count("max_completion_tokens").or(fields.count("max_tokens"));
    generation.max_tokens = most.or(app.text.defaults.max_new_tokens);
    let top = fields.count("top_logprobs");
    generation.logprobs = match (fields.flag("logprobs"), top) {
        (true, top) => Some(top.unwrap_or(0)),
        (false, Some(1..)) => {
            return Err(fields.wrong("top_logprobs", "top_logprobs wants logprobs to be true"));
        }
        (false, _) => None,
    };
    tools.apply(app, &prompt.text, grammar(fields)?, &mut generation)?;
    Ok((generation, tools))
}

/// The conversation of a request.
pub fn conversation(fields: &Fields, tools: &ToolUse) -> Result<Conversation, ApiError> {
    let mut extra =
        fields.value("chat_template_kwargs").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(effort) = fields.text("reasoning_effort") {
        extra.insert("reasoning_effort".into(), json!(effort));
    }
    let continues = fields.flag("continue_final_message");
    Ok(Conversation {
        messages: messages(fields.value("messages"))?,
        tools: tools.described(),
        answer: fields.bool("add_generation_prompt").unwrap_or(!continues),
        continues,
        extra,
    })
}
