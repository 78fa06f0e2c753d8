//! `POST /tokenize` and `/detokenize`

use super::body::{JsonBody, Kind, MODEL, Row, row};
use super::conversation::{CONVERSATION, encode};
use super::error::ApiError;
use super::openai::chat;
use super::state::App;
use super::tools::{TOOLS, ToolUse};
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// The fields of `/tokenize` besides those of a conversation, which may stand instead of the text.
pub const TOKENIZE: &[Row] = &[
    MODEL,
    row("prompt", Kind::Text, "A text."),
    row(
        "add_special_tokens",
        Kind::Bool,
        "Adds the tokens that mark a text's begin and end; true for a text if left out.",
    ),
    row("return_token_strs", Kind::Bool, "Also gives the tokens as texts."),
    TOOLS,
];

/// All tables of `/tokenize`.
pub const TOKENIZE_TABLES: &[&[Row]] = &[TOKENIZE, CONVERSATION];

/// The fields of `/detokenize`.
pub const DETOKENIZE: &[Row] = &[MODEL, row("tokens", Kind::Ids(1 << 20), "Token ids.")];

/// The ids of a text or a conversation.
pub async fn tokenize(State(app): State<Arc<App>>, body: JsonBody) -> Result<Json<Value>, ApiError> {
    let fields = body.fields(&app, TOKENIZE_TABLES)?;
    app.aside(move |app| {
        let ids = match (fields.text("prompt"), fields.has("messages")) {
            (Some(text), false) => encode(app, text, fields.bool("add_special_tokens").unwrap_or(true))?,
            (None, true) => {
                let prompt = chat::conversation(&fields, &ToolUse::of_openai(app, &fields)?)?.prompt(app)?;
                match fields.flag("add_special_tokens") {
                    false => prompt.ids,
                    true if prompt.spells => {
                        let words =
                            "messages that spell special tokens get no others than those of the template";
                        return Err(fields.wrong("add_special_tokens", words));
                    }
                    true => encode(app, &prompt.text, true)?,
                }
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
pub async fn detokenize(State(app): State<Arc<App>>, body: JsonBody) -> Result<Json<Value>, ApiError> {
    let fields = body.fields(&app, &[DETOKENIZE])?;
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
