//! `POST /classify`: the labels of texts.

use super::{ACTIVATION, list, scores};
use crate::serve::body::{JsonBody, Kind, MODEL, Row, row};
use crate::serve::error::ApiError;
use crate::serve::openai::embeddings::{ADD_SPECIAL, encoded};
use crate::serve::read::TRUNCATE;
use crate::serve::record::Caller;
use crate::serve::sampling::HARMLESS;
use crate::serve::state::App;
use axum::extract::State;
use axum::{Extension, Json};
use serde_json::{Value, json};
use std::sync::Arc;

const CLASSIFY: &[Row] = &[
    MODEL,
    row("input", Kind::Any, "A text, a list of texts, a list of token ids, or a list of such lists."),
    ADD_SPECIAL,
    ACTIVATION,
    TRUNCATE,
];

/// All tables of a request.
pub const TABLES: &[&[Row]] = &[CLASSIFY, HARMLESS];

/// Gives each text its label, and the probabilities of all.
pub async fn classify(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    let fields = body.fields(&app, TABLES)?;
    let activate = fields.bool(ACTIVATION.name).unwrap_or(true);
    let model = fields.text(MODEL.name).map(str::to_owned);
    let texts = app.aside(move |app| encoded(app, &fields)).await?;
    let tokens = texts.tokens();
    let rows = scores(&app, &caller, (texts, activate)).await?;
    let labels = &app.scoring()?.labels;
    let one = |(at, probs): (usize, Vec<f64>)| {
        // Of equal ones the first counts, as in most other programs.
        let best = (0..probs.len()).rev().max_by(|a, b| probs[*a].total_cmp(&probs[*b])).unwrap_or(0);
        json!({ "index": at, "label": labels.get(best), "probs": probs, "num_classes": probs.len() })
    };
    let data = rows.into_iter().enumerate().map(one).collect();
    Ok(Json(list(&app, "classify-", model.as_deref(), (data, tokens))))
}
