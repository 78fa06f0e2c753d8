//! `POST /v1/rerank`: documents by how well they answer a query.

use super::{ACTIVATION, pair, single, usage};
use crate::serve::body::{Fields, JsonBody, Kind, MODEL, Row, row};
use crate::serve::error::ApiError;
use crate::serve::read::{Length, TRUNCATE, Texts};
use crate::serve::record::Caller;
use crate::serve::sampling::{HARMLESS, random};
use crate::serve::state::App;
use axum::extract::State;
use axum::{Extension, Json};
use serde_json::{Value, json};
use std::sync::Arc;

/// The most documents of a request.
const DOCUMENTS_MAX: usize = 2048;

const RERANK: &[Row] = &[
    MODEL,
    row("query", Kind::Text, "The query."),
    row("documents", Kind::List(DOCUMENTS_MAX), "Texts, or objects with a text in `text`."),
    row("top_n", Kind::Int(0, 1 << 31), "Gives the so many best; all if it is 0 or left out."),
    row("return_documents", Kind::Bool, "Gives the documents back with their scores; true if left out."),
    ACTIVATION,
    TRUNCATE,
];

/// All tables of a request.
pub const TABLES: &[&[Row]] = &[RERANK, HARMLESS];

/// Orders documents.
pub async fn rerank(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    let fields = body.fields(&app, TABLES)?;
    let query = fields.text("query").ok_or_else(|| fields.wrong("query", "the query is missing"))?.to_owned();
    let documents = documents(&fields)?;
    let (length, activate) = (Length::of(&app, &fields)?, fields.bool(ACTIVATION.name).unwrap_or(true));
    let given = documents.clone();
    let texts = app
        .aside(move |app| {
            let one = |(at, text): (usize, &String)| {
                pair(app, (&query, text), (length, &format!("documents[{at}]")))
            };
            Ok(Texts(documents.iter().enumerate().map(one).collect::<Result<_, _>>()?))
        })
        .await?;
    let tokens = texts.tokens();
    let scores = single(&app, &caller, (texts, activate)).await?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Of equal scores the first document comes first.
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order.truncate(fields.count("top_n").filter(|count| *count > 0).unwrap_or(usize::MAX));
    let back = fields.bool("return_documents").unwrap_or(true);
    let result = |at: usize| {
        let mut value = json!({ "index": at, "relevance_score": scores[at] });
        if back {
            value["document"] = json!({ "text": given[at] });
        }
        value
    };
    Ok(Json(json!({
        "id": format!("rerank-{:016x}", random()),
        "model": app.name(fields.text(MODEL.name)),
        "results": order.into_iter().map(result).collect::<Vec<_>>(),
        "usage": usage(tokens),
    })))
}

fn documents(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let list = fields.value("documents").and_then(Value::as_array).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| fields.wrong("documents", "wanted a list of at least one document"))?;
    let one = |(at, document): (usize, &Value)| {
        let text = document.as_str().or_else(|| document.get("text")?.as_str());
        let wrong =
            || ApiError::field(format!("documents[{at}]"), "wanted a text, or an object with one in `text`");
        text.map(str::to_owned).ok_or_else(wrong)
    };
    list.iter().enumerate().map(one).collect()
}
