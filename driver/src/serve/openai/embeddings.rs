//! `POST /v1/embeddings`

use crate::serve::base64::base64;
use crate::serve::body::{Fields, JsonBody, Kind, MODEL, Row, row};
use crate::serve::error::ApiError;
use crate::serve::inputs::{Input, inputs};
use crate::serve::read::{Length, TRUNCATE, Texts, of_ids};
use crate::serve::record::Caller;
use crate::serve::sampling::HARMLESS;
use crate::serve::state::App;
use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The most texts of a request: OpenAI's limit.
pub const INPUTS_MAX: usize = 2048;

/// The fields of a request.
const EMBEDDINGS: &[Row] = &[
    MODEL,
    row("input", Kind::Any, "A text, a list of texts, a list of token ids, or a list of such lists."),
    row("encoding_format", Kind::OneOf(&["float", "base64"]), "How vectors are written; float if left out."),
    row(
        "dimensions",
        Kind::Int(1, 1 << 24),
        "Gives the first so many numbers of each vector, scaled to length one again if the model's vectors are.",
    ),
    ADD_SPECIAL,
    TRUNCATE,
];

/// Whether texts get the tokens that the model wants at begin and end.
pub const ADD_SPECIAL: Row = row(
    "add_special_tokens",
    Kind::Bool,
    "Adds the tokens that mark the begin and end of a text; true if left out.",
);

/// All tables of a request.
pub const TABLES: &[&[Row]] = &[EMBEDDINGS, HARMLESS];

/// A response.
#[derive(Serialize)]
pub struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Value,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// A vector: its numbers, each exactly the f32 that it is, or their little-endian bytes in base64.
#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f64>),
    Base64(String),
}

impl Vector {
    fn new(vector: Vec<f32>, base: bool) -> Self {
        match base {
            true => Vector::Base64(base64(&vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())),
            false => Vector::Floats(vector.into_iter().map(f64::from).collect()),
        }
    }
}

/// Makes vectors of texts.
pub async fn embeddings(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<Json<Embeddings>, ApiError> {
    let fields = body.fields(&app, TABLES)?;
    let pooling = app.pooling()?;
    let (dimensions, width) = (fields.count("dimensions"), app.reading()?.handle.width());
    if let Some(dimensions) = dimensions.filter(|dimensions| *dimensions > width) {
        let message = format!("dimensions is {dimensions}, the vectors of this model have {width}");
        return Err(fields.wrong("dimensions", message));
    }
    let base = fields.text("encoding_format") == Some("base64");
    let model = app.name(fields.text(MODEL.name)).to_owned();
    let texts = app.aside(move |app| encoded(app, &fields)).await?;
    let tokens = texts.tokens();
    let pooled = texts.read(&app, &caller).await?;
    let one = |(index, pooled): (usize, crate::vectors::Pooled)| {
        let vector = pooled.vector(pooling.normalize, dimensions);
        Embedding { object: "embedding", index, embedding: Vector::new(vector, base) }
    };
    let data = pooled.into_iter().enumerate().map(one).collect();
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    Ok(Json(Embeddings { object: "list", data, model, usage }))
}

/// The texts in `input` as the model takes them.
pub fn encoded(app: &App, fields: &Fields) -> Result<Texts, ApiError> {
    let (length, inputs) = (Length::of(app, fields)?, inputs(app, fields, ("input", INPUTS_MAX))?);
    let special = fields.bool(ADD_SPECIAL.name).unwrap_or(true);
    let one = |(at, input): (usize, Input<'_>)| {
        let list = fields.value("input").and_then(Value::as_array);
        let several = list.is_some_and(|list| !list.iter().all(Value::is_number));
        let place = if several { format!("input[{at}]") } else { "input".into() };
        let ids = match input {
            Input::Ids(ids) => ids,
            Input::Text(text) => {
                let ids = app.text.tokenizer.encode(text, special);
                ids.map_err(|error| ApiError::field(&place, error.to_string()))?
            }
        };
        length.keep(app, of_ids(ids), &place)
    };
    Ok(Texts(inputs.into_iter().enumerate().map(one).collect::<Result<_, _>>()?))
}
