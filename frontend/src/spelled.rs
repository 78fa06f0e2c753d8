//! Texts that spell special tokens without meaning them.
//!
//! A tokenizer makes a special token of every text that looks like one. What a template writes is meant so; what stands in
//! a message is not. So spelled tokens are [hidden](Tokenizer::hide) before a template sees the messages, each behind one
//! character that occurs nowhere in them, and [`Tokenizer::encode_hidden`] reads them as the plain text that they are. A
//! conversation that spells none goes the ordinary way, and gets the ids that it always got.
//!
//! Only special tokens are hidden. Added tokens that are not special, such as the marks of tool calls in some models, are
//! part of the text in both directions.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;

use crate::tokenizer::{Tokenizer, TokenizerError, failed, guarded};

/// What hides a spelled token in a template: characters for private use (Unicode 16.0, section 23.5).
const MARKS: std::ops::RangeInclusive<u32> = 0xF_0000..=0xF_FFFD;
/// What stands around the private name of a special token.
const NAME: [char; 2] = ['\u{10FFF0}', '\u{10FFF1}'];

/// The spelled tokens of some messages, and the characters that hide them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    tokens: BTreeMap<char, String>,
}

impl Hidden {
    /// Whether nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// A text as it was before.
    pub fn show(&self, text: &str) -> String {
        if self.is_empty() {
            return text.to_owned();
        }
        let mut shown = String::with_capacity(text.len());
        for c in text.chars() {
            match self.tokens.get(&c) {
                Some(token) => shown.push_str(token),
                None => shown.push(c),
            }
        }
        shown
    }
}

/// Finds added tokens where the tokenizer finds them: the first place, and the longest there.
pub(crate) struct Finder {
    find: AhoCorasick,
    /// For each name, the token's id if it is special.
    special: Vec<Option<u32>>,
}

/// The tokenizer with other names for its special tokens, so that their own are plain text.
pub(crate) struct Renamed {
    inner: tokenizers::Tokenizer,
    /// Its ids of added tokens, and those of the tokenizer.
    ids: BTreeMap<u32, u32>,
}

impl Tokenizer {
    /// Hides the special tokens that the strings of these values spell; names of fields are left alone.
    pub fn hide(&self, values: &mut [Value]) -> Result<Hidden, TokenizerError> {
        let finder = self.finder()?;
        let spells = |text: &str| finder.special(text).next().is_some();
        if !values.iter().any(|value| any_string(value, &spells)) {
            return Ok(Hidden::default());
        }
        let mut occur = BTreeSet::new();
        for value in values.iter() {
            each_string(value, &mut |text| {
                occur.extend(text.chars().filter(|c| MARKS.contains(&u32::from(*c))))
            });
        }
        let mut free = MARKS.filter_map(char::from_u32).filter(|c| !occur.contains(c));
        let mut marks: BTreeMap<String, char> = BTreeMap::new();
        for value in values.iter() {
            each_string(value, &mut |text| {
                for (place, _) in finder.special(text) {
                    let token = &text[place];
                    if !marks.contains_key(token)
                        && let Some(mark) = free.next()
                    {
                        marks.insert(token.to_owned(), mark);
                    }
                }
            });
        }
        for value in values.iter_mut() {
            replace_strings(value, &mut |text| {
                let replaced = finder.replaced(text, |token, _| marks.get(token).map(char::to_string));
                if replaced != *text {
                    *text = replaced;
                }
            });
        }
        Ok(Hidden { tokens: marks.into_iter().map(|(token, mark)| (mark, token)).collect() })
    }

    /// The ids of a text, without begin and end marks: what is hidden in it is read as plain text, every other special
    /// token as itself.
    ///
    /// # Errors
    /// The tokenizer has no way to write what is hidden but by the special token itself.
    pub fn encode_hidden(&self, text: &str, hidden: &Hidden) -> Result<Vec<u32>, TokenizerError> {
        if hidden.is_empty() {
            return self.encode(text, false);
        }
        let action = "encode a text that spells a special token";
        if text.contains(NAME) {
            return Err(failed(action, "it has characters for private use besides"));
        }
        let (finder, renamed) = (self.finder()?, self.renamed()?);
        let mut meant = 0usize;
        let text = finder.replaced(text, |_, id| {
            meant += 1;
            Some(private_name(id))
        });
        let encoded = guarded(|| renamed.inner.encode_fast(hidden.show(&text), false));
        let encoded = encoded.map_err(|reason| failed(action, &reason))?;
        let ids: Vec<u32> =
            encoded.get_ids().iter().map(|id| renamed.ids.get(id).copied().unwrap_or(*id)).collect();
        self.check(&ids)?;
        if ids.iter().filter(|id| self.is_special(**id)).count() != meant {
            return Err(failed(action, "this tokenizer cannot write it in any other way"));
        }
        Ok(ids)
    }
}

fn private_name(id: u32) -> String {
    format!("{}{id}{}", NAME[0], NAME[1])
}

impl Finder {
    /// For the added tokens of a tokenizer.
    pub(crate) fn new(added: &BTreeMap<u32, (String, bool)>) -> Result<Self, String> {
        let names = added.values().map(|(name, _)| name.as_str());
        let find = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(names);
        let special = added.iter().map(|(id, (_, special))| special.then_some(*id)).collect();
        Ok(Self { find: find.map_err(|error| error.to_string())?, special })
    }

    /// The special tokens of a text: where, and their ids.
    fn special(&self, text: &str) -> impl Iterator<Item = (std::ops::Range<usize>, u32)> {
        let found =
            self.find.find_iter(text).map(|found| (found.range(), self.special[found.pattern().as_usize()]));
        found.collect::<Vec<_>>().into_iter().filter_map(|(place, id)| Some((place, id?)))
    }

    /// The text with something else in the place of its special tokens.
    fn replaced(&self, text: &str, mut other: impl FnMut(&str, u32) -> Option<String>) -> String {
        let (mut out, mut end) = (String::with_capacity(text.len()), 0);
        for (place, id) in self.special(text) {
            let Some(other) = other(&text[place.clone()], id) else { continue };
            out.push_str(&text[end..place.start]);
            out.push_str(&other);
            end = place.end;
        }
        out.push_str(&text[end..]);
        out
    }
}

impl Renamed {
    /// The tokenizer whose special tokens have private names.
    pub(crate) fn new(tokenizer: &tokenizers::Tokenizer) -> Result<Self, String> {
        let mut file = serde_json::to_value(tokenizer).map_err(|error| error.to_string())?;
        let mut names = Vec::new();
        for token in file["added_tokens"].as_array_mut().into_iter().flatten() {
            let id =
                token["id"].as_u64().and_then(|id| u32::try_from(id).ok()).ok_or("a token without an id")?;
            if token["special"] == Value::Bool(true) {
                token["content"] = private_name(id).into();
            }
            names.push((id, token["content"].as_str().unwrap_or_default().to_owned()));
        }
        let bytes = serde_json::to_vec(&file).map_err(|error| error.to_string())?;
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes))?;
        let id = |(id, name): (u32, String)| {
            let own = inner.token_to_id(&name).ok_or_else(|| format!("no id for token {id}"))?;
            Ok((own, id))
        };
        let ids = names.into_iter().map(id).collect::<Result<_, String>>()?;
        Ok(Self { inner, ids })
    }
}

/// Whether any string of a value is so.
fn any_string(value: &Value, is: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is(text),
        Value::Array(list) => list.iter().any(|value| any_string(value, is)),
        Value::Object(map) => map.values().any(|value| any_string(value, is)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn each_string(value: &Value, see: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => see(text),
        Value::Array(list) => list.iter().for_each(|value| each_string(value, see)),
        Value::Object(map) => map.values().for_each(|value| each_string(value, see)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn replace_strings(value: &mut Value, replace: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => replace(text),
        Value::Array(list) => list.iter_mut().for_each(|value| replace_strings(value, replace)),
        Value::Object(map) => map.values_mut().for_each(|value| replace_strings(value, replace)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
