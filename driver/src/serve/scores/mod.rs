//! Scores of a head for sequences: documents by a query (`/v1/rerank`), pairs of texts (`/score`), labels of texts
//! (`/classify`). The shapes are those of vLLM, which follow Jina's and Cohere's.

pub mod classify;
pub mod pairs;
pub mod rerank;

use super::body::{Kind, Row, row};
use super::error::ApiError;
use super::read::{Length, Texts};
use super::record::Caller;
use super::sampling::random;
use super::state::App;
use serde_json::{Value, json};
use sinter_frontend::tokenizer::Encoded;
use std::sync::Arc;

/// Whether scores become what the model's files say.
pub const ACTIVATION: Row = row(
    "use_activation",
    Kind::Bool,
    "Makes of scores what the model's files say, such as a probability; true if left out.",
);

/// The scores of texts, one row each.
async fn scores(
    app: &Arc<App>,
    caller: &Caller,
    (texts, activate): (Texts, bool),
) -> Result<Vec<Vec<f64>>, ApiError> {
    let scoring = app.scoring()?;
    let rows = texts.read(app, caller).await?.into_iter().map(|row| {
        let mut row: Vec<f64> = row.vector(false, None).into_iter().map(f64::from).collect();
        if activate {
            scoring.apply(&mut row);
        }
        row
    });
    Ok(rows.collect())
}

/// The one score of each pair of texts.
///
/// # Errors
/// The head has several labels: which of them is the score, nobody says.
async fn single(
    app: &Arc<App>,
    caller: &Caller,
    (texts, activate): (Texts, bool),
) -> Result<Vec<f64>, ApiError> {
    let labels = app.scoring()?.labels.len();
    if labels != 1 {
        let message = format!("the head of this model has {labels} labels, one is wanted; see /classify");
        let error = ApiError::bad_request(message);
        return Err(ApiError { code: "unsupported_model", param: Some("model".into()), ..error });
    }
    let rows = scores(app, caller, (texts, activate)).await?;
    Ok(rows.into_iter().filter_map(|row| row.first().copied()).collect())
}

/// Two texts as the model takes them. Where they are cut, the second loses its end.
fn pair(
    app: &App,
    (first, second): (&str, &str),
    (length, place): (Length, &str),
) -> Result<Encoded, ApiError> {
    let encode = |second: Option<&str>| {
        let encoded = app.text.tokenizer.encode_pair(first, second);
        encoded.map_err(|error| ApiError::field(place, error.to_string()))
    };
    let both = encode(Some(second))?;
    if length.cut && both.ids.len() > length.most && encode(None)?.ids.len() >= length.most {
        let message = format!("cut to {} tokens, the pair has nothing of its second text", length.most);
        return Err(ApiError::field(place, message));
    }
    length.keep(app, both, place)
}

/// What stands around the data of a list.
fn list(app: &App, prefix: &str, model: Option<&str>, (data, tokens): (Vec<Value>, usize)) -> Value {
    json!({
        "id": format!("{prefix}{:016x}", random()),
        "object": "list",
        "created": super::openai::shape::now(),
        "model": app.name(model),
        "data": data,
        "usage": usage(tokens),
    })
}

/// What was read.
fn usage(tokens: usize) -> Value {
    json!({ "prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0 })
}
