//! `POST /score`: how well texts go with others.

use super::{ACTIVATION, list, pair, single};
use crate::serve::body::{Fields, JsonBody, Kind, MODEL, Row, row};
use crate::serve::error::ApiError;
use crate::serve::read::{Length, TRUNCATE, Texts};
use crate::serve::record::Caller;
use crate::serve::sampling::HARMLESS;
use crate::serve::state::App;
use axum::extract::State;
use axum::{Extension, Json};
use serde_json::{Value, json};
use std::sync::Arc;

/// The most texts on a side.
const TEXTS_MAX: usize = 2048;

const SCORE: &[Row] = &[
    MODEL,
    row("text_1", Kind::Texts(TEXTS_MAX), "A text, or texts."),
    row(
        "text_2",
        Kind::Texts(TEXTS_MAX),
        "As many texts as in text_1, each for its own; any number for one.",
    ),
    ACTIVATION,
    TRUNCATE,
];

/// All tables of a request.
pub const TABLES: &[&[Row]] = &[SCORE, HARMLESS];

/// Scores pairs of texts.
pub async fn score(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    let fields = body.fields(&app, TABLES)?;
    let (length, activate) = (Length::of(&app, &fields)?, fields.bool(ACTIVATION.name).unwrap_or(true));
    let pairs = pairs(&fields)?;
    let texts = app
        .aside(move |app| {
            let one = |(at, (first, second)): (usize, &(String, String))| {
                pair(app, (first, second), (length, &format!("text_2[{at}]")))
            };
            Ok(Texts(pairs.iter().enumerate().map(one).collect::<Result<_, _>>()?))
        })
        .await?;
    let tokens = texts.tokens();
    let scores = single(&app, &caller, (texts, activate)).await?;
    let one = |(at, score)| json!({ "index": at, "object": "score", "score": score });
    let data = scores.into_iter().enumerate().map(one).collect();
    Ok(Json(list(&app, "score-", fields.text(MODEL.name), (data, tokens))))
}

/// The texts of both sides, side by side.
fn pairs(fields: &Fields) -> Result<Vec<(String, String)>, ApiError> {
    let texts = |name: &str| match fields.texts(name) {
        texts if texts.is_empty() => Err(fields.wrong(name, format!("{name} has no text"))),
        texts => Ok(texts),
    };
    let (first, second) = (texts("text_1")?, texts("text_2")?);
    match (first.len(), second.len()) {
        (1, _) => Ok(second.into_iter().map(|text| (first[0].clone(), text)).collect()),
        (a, b) if a == b => Ok(first.into_iter().zip(second).collect()),
        (a, b) => Err(fields.wrong("text_2", format!("{b} texts for the {a} of text_1, wanted as many"))),
    }
}
