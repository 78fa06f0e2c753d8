//! The metadata of a file, read with suspicion: typed getters, and a memory of what was read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::GgufError;
use super::parse::Value;
use crate::source::shorten;

/// The metadata of one file.
pub(super) struct Metadata<'a> {
    pub(super) place: &'a str,
    map: &'a BTreeMap<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(place: &'a str, map: &'a BTreeMap<String, Value>) -> Self {
        Metadata { place, map, read: RefCell::default() }
    }

    /// An entry, marked as read.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.map.get(key)
    }

    /// The error for an entry that is not what was wanted.
    pub(super) fn wrong(&self, key: &str, wanted: impl Into<String>) -> GgufError {
        let found = match self.map.get(key) {
            None => "nothing".to_owned(),
            Some(Value::Whole(number)) => number.to_string(),
            Some(Value::Real(number)) => number.to_string(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Text(text)) => format!("{:?}", shorten(text)),
            Some(Value::Wholes(_)) => "whole numbers".to_owned(),
            Some(Value::Reals(_)) => "numbers".to_owned(),
            Some(Value::Bools(_)) => "truth values".to_owned(),
            Some(Value::Texts(_)) => "texts".to_owned(),
        };
        GgufError::Entry { place: self.place.to_owned(), key: shorten(key), wanted: wanted.into(), found }
    }

    fn typed<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => convert(value).map(Some).ok_or_else(|| self.wrong(key, wanted)),
        }
    }

    /// A whole number from 0 on, if there; of a list of equal ones, one a layer, that one.
    pub(super) fn whole(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a whole number, the same for all layers", |value| match value {
            Value::Whole(number) => u64::try_from(*number).ok(),
            Value::Wholes(all) => {
                let first = all.first()?;
                all.iter().all(|other| other == first).then(|| u64::try_from(*first).ok())?
            }
            _ => None,
        })
    }

    /// A finite number, if there.
    pub(super) fn real(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a number", |value| match value {
            Value::Real(number) => Some(*number).filter(|number| number.is_finite()),
            Value::Whole(number) => Some(*number as f64),
            _ => None,
        })
    }

    /// A truth value, if there.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A text, if there.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.typed(key, "a text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Texts, if there.
    pub(super) fn texts(&self, key: &str) -> Result<Option<&'a [Box<str>]>, GgufError> {
        self.typed(key, "an array of texts", |value| match value {
            Value::Texts(texts) => Some(&texts[..]),
            _ => None,
        })
    }

    /// Truth values, if there.
    pub(super) fn flags(&self, key: &str) -> Option<&'a [bool]> {
        match self.value(key) {
            Some(Value::Bools(flags)) => Some(flags),
            _ => None,
        }
    }

    /// Whole numbers, if there.
    pub(super) fn wholes(&self, key: &str) -> Result<Option<&'a [i64]>, GgufError> {
        self.typed(key, "an array of whole numbers", |value| match value {
            Value::Wholes(numbers) => Some(&numbers[..]),
            _ => None,
        })
    }

    /// Numbers, if there.
    pub(super) fn reals(&self, key: &str) -> Result<Option<&'a [f32]>, GgufError> {
        self.typed(key, "an array of numbers", |value| match value {
            Value::Reals(numbers) => Some(&numbers[..]),
            _ => None,
        })
    }

    /// The entries that begin so.
    pub(super) fn beginning<'s>(&'s self, start: &'s str) -> impl Iterator<Item = &'a str> + 's {
        self.map.keys().map(String::as_str).filter(move |key| key.starts_with(start))
    }

    /// The entries that begin so and that nobody has read, but for these endings.
    pub(super) fn unread(&self, start: &str, harmless: &[&str]) -> Vec<String> {
        let read = self.read.borrow();
        let rest = self.beginning(start).filter(|key| !read.contains(*key));
        let rest = rest.filter(|key| !harmless.iter().any(|end| key.strip_prefix(start) == Some(end)));
        rest.map(|key| format!("`{}`", shorten(key))).collect()
    }
}
