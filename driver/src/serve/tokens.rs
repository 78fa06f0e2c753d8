//! `POST /tokenize` and `/detokenize`

use super::body::{Fields, JsonBody, Kind, Row, row};
use super::conversation::encode;
use super::error::ApiError;
use super::openai::chat;
use super::state::App;
use super::tools::ToolUse;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// The fields of `/tokenize`: a text, or a conversation.
pub const TOKENIZE: &[Row] = &[
    row("model", Kind::Text, "The model's name; the one that is served if left out."),
    row("prompt", Kind::Text, "A text."),
    row("messages", Kind::List(4096), "A conversation instead of a text."),
    row(
        "add_special_tokens",
        Kind::Bool,
        "Adds the tokens that mark a text's begin and end; true for a text if left out.",
    ),
    row("return_token_strs", Kind::Bool, "Also gives the tokens as texts."),
    row("tools", Kind::List(128), "Functions that the model may call."),
    row("chat_template_kwargs", Kind::Object, "Variables of the chat template."),
    row(
        "add_generation_prompt",
        Kind::Bool,
        "Whether the prompt ends where the model is to answer; true if left out.",
    ),
    row("continue_final_message", Kind::Bool, "Makes the last message the beginning of the answer."),
];

/// The fields of `/detokenize`.
pub const DETOKENIZE: &[Row] = &[
    row("model", Kind::Text, "The model's name; the one that is served if left out."),
    row("tokens", Kind::Ids(1 << 20), "Token ids."),
];

/// The ids of a text or a conversation.
pub async fn tokenize(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let fields = Fields::new(body, &[TOKENIZE])?;
    app.check_model(fields.text("model"))?;
    app.aside(move |app| {
        let ids = match (fields.text("prompt"), fields.has("messages")) {
            (Some(text), false) => encode(app, text, fields.bool("add_special_tokens").unwrap_or(true))?,
            (None, true) => {
                let text = chat::conversation(&fields, &ToolUse::of_openai(app, &fields)?)?.text(app)?;
                encode(app, &text, fields.flag("add_special_tokens"))?
            }
            _ => return Err(ApiError::bad_request("wanted either prompt or messages")),
        };
        let names = || ids.iter().map(|id| app.token_text(*id)).collect::<Vec<_>>();
        let names = fields.flag("return_token_strs").then(names);
        Ok(Json(json!({
            "count": ids.len(),
            "max_model_len": app.model.context,
            "tokens": ids,
            "token_strs": names,
        })))
    })
    .await
}

/// The text of ids.
pub async fn detokenize(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let fields = Fields::new(body, &[DETOKENIZE])?;
    app.check_model(fields.text("model"))?;
    if !fields.has("tokens") {
        return Err(fields.wrong("tokens", "the tokens are missing"));
    }
    app.aside(move |app| {
        let text = app.text.tokenizer.decode(&fields.ids("tokens"), false);
        let text = text.map_err(|error| fields.wrong("tokens", error.to_string()))?;
        Ok(Json(json!({ "prompt": text })))
    })
    .await
}
