//! Texts of a request as OpenAI's interfaces take them: one, several, or token ids of one or of several.

use super::body::Fields;
use super::error::ApiError;
use super::state::App;
use serde_json::Value;

/// A text, or its token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'f> {
    /// A text.
    Text(&'f str),
    /// Token ids below the vocabulary.
    Ids(Vec<u32>),
}

/// The texts in a field: at least one, `most` at most.
pub fn inputs<'f>(
    app: &App,
    fields: &'f Fields,
    (name, most): (&str, usize),
) -> Result<Vec<Input<'f>>, ApiError> {
    let wrong = |words: &str| fields.wrong(name, words);
    let value = fields.value(name).ok_or_else(|| wrong(&format!("the {name} is missing")))?;
    let of_ids = |list: &[Value]| {
        let id = |value: &Value| value.as_u64().filter(|id| *id < app.model.vocab as u64).map(|id| id as u32);
        let ids = list.iter().map(id).collect::<Option<Vec<u32>>>();
        let ids = ids.ok_or_else(|| {
            wrong(&format!("wanted token ids from 0 to {}", app.model.vocab.saturating_sub(1)))
        })?;
        Ok(Input::Ids(ids))
    };
    let one = |value: &'f Value| match value {
        Value::String(text) => Ok(Input::Text(text)),
        Value::Array(ids) => of_ids(ids),
        _ => Err(wrong("wanted texts or lists of token ids")),
    };
    match value {
        Value::String(text) => Ok(vec![Input::Text(text)]),
        Value::Array(list) if list.is_empty() => Err(wrong(&format!("the {name} has no tokens"))),
        Value::Array(list) if list.iter().all(Value::is_number) => Ok(vec![of_ids(list)?]),
        Value::Array(list) if list.len() <= most => list.iter().map(one).collect(),
        Value::Array(_) => Err(wrong(&format!("more than {most} texts"))),
        _ => Err(wrong("wanted a text, a list of texts, token ids, or lists of token ids")),
    }
}
