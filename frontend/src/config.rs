//! `config.json` read with suspicion: typed getters, ranges, and no field that is silently skipped.
//!
//! A field that the compiler does not know may change what the model computes, so [`RawConfig`] remembers which
//! fields were read, and [`RawConfig::finish`] refuses the rest unless it is known to change nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::harmless;
use crate::json;
use crate::source::{FileKind, ModelDir, SourceError, shorten};
use crate::wrapper;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file is not a JSON object.
    #[error("{place}: {reason}; write the file again from the original model")]
    Malformed {
        /// The file.
        place: String,
        /// What the parser says.
        reason: String,
    },
    /// A field that must be there is not.
    #[error("{place}: field `{field}` is missing, wanted {wanted}; is model_type right?")]
    Missing {
        /// The file.
        place: String,
        /// The field, with dots for nesting.
        field: String,
        /// The type and range.
        wanted: String,
    },
    /// A field of the wrong type or out of range.
    #[error("{place}: field `{field}`: wanted {wanted}, found {found}; correct the field")]
    Wrong {
        /// The file.
        place: String,
        /// The field, with dots for nesting.
        field: String,
        /// The type and range.
        wanted: String,
        /// The value in the file.
        found: String,
    },
    /// A family of models that no row of the table describes.
    #[error("{place}: unknown model_type `{found}`; this build knows {}", known.join(", "))]
    UnknownFamily {
        /// The file.
        place: String,
        /// The value in the file.
        found: String,
        /// The families in the table.
        known: Vec<&'static str>,
    },
    /// Fields that nothing reads.
    #[error("{place}: unsupported {}; this build would compute something else than the model means", fields.join(", "))]
    Unsupported {
        /// The file.
        place: String,
        /// Each as ``field `x` = value``.
        fields: Vec<String>,
    },
}

/// A configuration file: a JSON object that remembers which of its fields were read.
#[derive(Debug)]
pub struct RawConfig {
    place: String,
    map: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
    /// The fields whose objects were opened, so that each field inside them must be read too.
    opened: RefCell<BTreeSet<String>>,
    /// What the user should be told of the file as a whole.
    note: Option<&'static str>,
}

/// The file itself or an object inside it, with the typed getters. A `null` counts as absent.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    config: &'a RawConfig,
    /// The field that holds this object; empty for the file itself.
    outer: &'a str,
    map: &'a Map<String, Value>,
}

/// Ranges that no honest model leaves.
pub mod limits {
    use std::ops::RangeInclusive;

    /// Widths of all kinds: hidden, intermediate, head.
    pub const WIDTH: RangeInclusive<usize> = 1..=1 << 20;
    /// Layers.
    pub const LAYERS: RangeInclusive<usize> = 1..=4096;
    /// Experts of a layer.
    pub const EXPERTS: RangeInclusive<usize> = 1..=1 << 12;
    /// Attention heads.
    pub const HEADS: RangeInclusive<usize> = 1..=1 << 14;
    /// Entries of the vocabulary.
    pub const VOCABULARY: RangeInclusive<usize> = 1..=1 << 22;
    /// Positions.
    pub const POSITIONS: RangeInclusive<usize> = 1..=1 << 28;
    /// The small number under a norm's root.
    pub const EPSILON: RangeInclusive<f64> = 0.0..=1.0;
}

impl RawConfig {
    /// Reads `config.json` of a model directory; of a model of several kinds of input, the part of its text model.
    pub fn load(dir: &ModelDir) -> Result<Self, ConfigError> {
        let bytes = dir.read(FileKind::Config)?;
        wrapper::text_part(RawConfig::parse_at(&bytes, dir.place(FileKind::Config.name()))?)
    }

    /// Parses a configuration without a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        RawConfig::parse_at(bytes, "config.json".to_owned())
    }

    pub(crate) fn parse_at(bytes: &[u8], place: String) -> Result<Self, ConfigError> {
        match json::parse_object(bytes) {
            Ok(map) => Ok(RawConfig::new(place, map)),
            Err(reason) => Err(ConfigError::Malformed { place, reason: shorten(&reason) }),
        }
    }

    fn new(place: String, map: Map<String, Value>) -> Self {
        RawConfig { place, map, read: RefCell::default(), opened: RefCell::default(), note: None }
    }

    /// The same file with other fields.
    pub(crate) fn replaced(self, map: Map<String, Value>) -> Self {
        RawConfig::new(self.place, map)
    }

    /// The same with something that [`RawConfig::finish`] tells.
    pub(crate) fn noted(self, note: &'static str) -> Self {
        RawConfig { note: Some(note), ..self }
    }

    /// The file for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// An object inside another object of the file, as a file of its own: [`RawConfig::finish`] holds it to account.
    pub(crate) fn nested(&self, path: &str, map: &Map<String, Value>) -> RawConfig {
        let place = format!("{}, {path}", self.place);
        RawConfig::new(place, map.clone())
    }

    /// The whole file as a section.
    pub fn root(&self) -> Section<'_> {
        Section { config: self, outer: "", map: &self.map }
    }

    /// Ends the reading: an error if a field that may matter was never read. Returns what the user should be
    /// told about fields that are ignored on purpose.
    pub fn finish(&self) -> Result<Vec<String>, ConfigError> {
        let (read, opened) = (self.read.borrow(), self.opened.borrow());
        let mut fields = Vec::new();
        let mut notes: Vec<String> = self.note.into_iter().map(Into::into).collect();
        for (field, value) in &self.map {
            if !read.contains(field.as_str()) && !harmless::is_harmless(field, value) {
                fields.push(describe(field, value));
            }
            notes.extend(harmless::note(field, value));
            let inner = value.as_object().filter(|_| opened.contains(field.as_str()));
            for (key, value) in inner.into_iter().flatten() {
                let path = format!("{field}.{key}");
                if !read.contains(&path) && !value.is_null() {
                    fields.push(describe(&path, value));
                }
            }
        }
        if fields.is_empty() {
            return Ok(notes);
        }
        Err(ConfigError::Unsupported { place: self.place.clone(), fields })
    }

    /// The error for a field that is well formed but asks for something that is not supported.
    pub fn unsupported(&self, field: &str, value: &str) -> ConfigError {
        let fields = vec![format!("field `{field}` = {}", shorten(value))];
        ConfigError::Unsupported { place: self.place.clone(), fields }
    }
}

fn describe(field: &str, value: &Value) -> String {
    format!("field `{}` = {}", shorten(field), shorten(&value.to_string()))
}

impl<'a> Section<'a> {
    /// The file that this section belongs to.
    pub fn config(&self) -> &'a RawConfig {
        self.config
    }

    /// Whether the field is there with a value.
    pub fn has(&self, key: &str) -> bool {
        self.peek(key).is_some()
    }

    /// Whether the field is there and says `null`, which some families tell from an absent one.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// All fields.
    pub(crate) fn fields(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// The names of all fields with a value.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    /// The raw value without marking it as read.
    pub fn peek(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Marks a field as read without looking at it.
    pub fn skip(&self, key: &str) {
        self.value(key);
    }

    /// The field's path for messages.
    pub fn path(&self, key: &str) -> String {
        if self.outer.is_empty() { key.to_owned() } else { format!("{}.{key}", self.outer) }
    }

    /// The raw value, marked as read.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.config.read.borrow_mut().insert(self.path(key));
        self.peek(key)
    }

    /// The error for a value of this section that is not what was wanted.
    pub fn wrong(&self, key: &str, wanted: impl Into<String>) -> ConfigError {
        let (place, field, wanted) = (self.config.place.clone(), self.path(key), wanted.into());
        match self.peek(key) {
            Some(value) => ConfigError::Wrong { place, field, wanted, found: shorten(&value.to_string()) },
            None => ConfigError::Missing { place, field, wanted },
        }
    }

    fn typed<T>(
        &self,
        key: &str,
        wanted: impl Fn() -> String,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => convert(value).map(Some).ok_or_else(|| self.wrong(key, wanted())),
        }
    }

    /// An integer in a range, if given.
    pub fn opt_usize(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, ConfigError> {
        let wanted = || format!("an integer from {} to {}", range.start(), range.end());
        let convert = |value: &Value| {
            value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n))
        };
        self.typed(key, wanted, convert)
    }

    /// An integer in a range.
    pub fn usize(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, ConfigError> {
        let wanted = format!("an integer from {} to {}", range.start(), range.end());
        self.opt_usize(key, range)?.ok_or_else(|| self.wrong(key, wanted))
    }

    /// A finite number in a range, if given.
    pub fn opt_f64(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ConfigError> {
        let wanted = || format!("a number from {} to {}", range.start(), range.end());
        self.typed(key, wanted, |value| value.as_f64().filter(|x| x.is_finite() && range.contains(x)))
    }

    /// A finite number in a range.
    pub fn f64(&self, key: &str, range: RangeInclusive<f64>) -> Result<f64, ConfigError> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.opt_f64(key, range)?.ok_or_else(|| self.wrong(key, wanted))
    }

    /// A boolean, if given.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, || "true or false".to_owned(), Value::as_bool)
    }

    /// A boolean with the value that its absence means.
    pub fn bool_or(&self, key: &str, absent: bool) -> Result<bool, ConfigError> {
        Ok(self.opt_bool(key)?.unwrap_or(absent))
    }

    /// A text, if given.
    pub fn opt_str(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(key, || "a string".to_owned(), Value::as_str)
    }

    /// A text.
    pub fn str(&self, key: &str) -> Result<&'a str, ConfigError> {
        self.opt_str(key)?.ok_or_else(|| self.wrong(key, "a string"))
    }

    /// A list of texts, if given.
    pub fn opt_strs(&self, key: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        let convert =
            |value: &'a Value| value.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
        self.typed(key, || "an array of strings".to_owned(), convert)
    }

    /// A list of 0 and 1, if given.
    pub fn opt_flags(&self, key: &str) -> Result<Option<Vec<bool>>, ConfigError> {
        let flag = |value: &Value| value.as_u64().filter(|n| *n <= 1).map(|n| n == 1);
        self.typed(
            key,
            || "an array of 0 and 1".to_owned(),
            |value| value.as_array()?.iter().map(flag).collect(),
        )
    }

    /// One of the words of a table, if given.
    pub fn opt_word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let wanted = || {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("one of {}", words.join(", "))
        };
        self.typed(key, wanted, |value| {
            let found = value.as_str()?;
            words.iter().find(|(word, _)| *word == found).map(|(_, meaning)| *meaning)
        })
    }

    /// One of the words of a table.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.opt_word(key, words)?.ok_or_else(|| self.wrong(key, format!("one of {}", names.join(", "))))
    }

    /// An object inside the file, if given. All its fields then count as fields that must be read.
    pub fn opt_section(&self, key: &'a str) -> Result<Option<Section<'a>>, ConfigError> {
        let map = self.typed(key, || "an object".to_owned(), Value::as_object)?;
        if !self.outer.is_empty() {
            // Only one level is accounted for; nothing that is read so far nests deeper.
            return Err(self.wrong(key, "a plain value"));
        }
        if map.is_some() {
            self.config.opened.borrow_mut().insert(key.to_owned());
        }
        Ok(map.map(|map| Section { config: self.config, outer: key, map }))
    }
}
