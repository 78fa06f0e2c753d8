//! Log probabilities in the shapes of the two interfaces.

use crate::serve::state::App;
use serde_json::{Map, Value, json};
use sinter_runtime::engine::{Logprob, Token};

/// Stands for what is too unlikely to be said in JSON, which has no infinity.
const LEAST: f32 = -9999.0;

fn finite(logprob: f32) -> f32 {
    logprob.max(LEAST)
}

/// The shape of conversations: an object with `content`.
pub fn of_chat(app: &App, tokens: &[Token]) -> Value {
    let named = |id: u32, logprob: f32| {
        let bytes = app.token_bytes(id);
        json!({ "token": String::from_utf8_lossy(&bytes), "logprob": finite(logprob), "bytes": bytes })
    };
    let one = |token: &Token| {
        let logprob = token.logprob.as_ref()?;
        let mut value = named(token.id, logprob.logprob);
        value["top_logprobs"] = logprob.top.iter().map(|(id, logprob)| named(*id, *logprob)).collect();
        Some(value)
    };
    json!({ "content": tokens.iter().filter_map(one).collect::<Vec<_>>(), "refusal": null })
}

/// The shape of completions: four lists of one length. `offset` is where the first token begins, in characters, and is
/// moved to where the next begins.
pub fn of_completion<'t>(
    app: &App,
    tokens: impl Iterator<Item = (u32, Option<&'t Logprob>)>,
    offset: &mut usize,
) -> Value {
    let (mut texts, mut own, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, logprob) in tokens {
        let text = app.token_text(id);
        offsets.push(*offset);
        *offset += text.chars().count();
        own.push(logprob.map(|logprob| finite(logprob.logprob)));
        tops.push(logprob.map(|logprob| top(app, id, logprob)));
        texts.push(text);
    }
    json!({ "tokens": texts, "token_logprobs": own, "top_logprobs": tops, "text_offset": offsets })
}

/// The likeliest tokens by their texts, and the one that stands there. Of tokens with one text the likeliest counts.
fn top(app: &App, id: u32, logprob: &Logprob) -> Value {
    let mut map = Map::new();
    for (id, logprob) in logprob.top.iter().chain([&(id, logprob.logprob)]) {
        map.entry(app.token_text(*id)).or_insert_with(|| json!(finite(*logprob)));
    }
    Value::Object(map)
}
