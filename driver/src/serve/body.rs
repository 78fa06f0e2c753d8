//! Bodies of requests: JSON objects whose fields are rows of a table.
//!
//! A table says of each field what it may hold. A field that is in no table is refused by name, and so is a known one
//! that this server does not support, unless its value asks for nothing: nothing that could change an answer is passed
//! over in silence. `null` is the same as a field that is left out. The tables are also what `/openapi.json` describes.

use super::error::ApiError;
use super::record::Caller;
use super::state::App;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// So long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(30);

/// What a field may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A text.
    Text,
    /// A whole number within these bounds.
    Int(i64, i64),
    /// A number within these bounds.
    Number(f64, f64),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A text, or a list of so many at most.
    Texts(usize),
    /// A list of so many token ids at most.
    Ids(usize),
    /// An object.
    Object,
    /// A list of so many things at most.
    List(usize),
    /// Anything; whoever reads it checks it.
    Any,
    /// Anything; it never changes an answer.
    Harmless,
    /// Nothing but these values, written as JSON, which ask for nothing: the field is known but not supported.
    Only(&'static [&'static str]),
}

/// A field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What it means, in one sentence.
    pub about: &'static str,
}

/// A row of a table.
pub const fn row(name: &'static str, kind: Kind, about: &'static str) -> Row {
    Row { name, kind, about }
}

/// The model of a request, which every interface lets it name.
pub const MODEL: Row = row("model", Kind::Text, "The model's name; the one that is served if left out.");
/// Whether an answer is sent in pieces.
pub const STREAM: Row = row("stream", Kind::Bool, "Sends the answer as it comes.");

/// A JSON object as it came.
#[derive(Debug)]
pub struct JsonBody(pub Map<String, Value>);

impl JsonBody {
    /// The fields, checked against tables that have [`MODEL`]; a model that is not served here is refused.
    pub fn fields(self, app: &App, tables: &[&[Row]]) -> Result<Fields, ApiError> {
        let fields = Fields::new(self.0, tables)?;
        app.check_model(fields.text(MODEL.name))?;
        Ok(fields)
    }
}

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let caller = request.extensions().get::<Caller>().cloned();
        let kind =
            request.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
        let plain = |kind: &str| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if let Some(kind) = kind.filter(|kind| plain(kind) != "application/json") {
            let message = format!("the content type is {kind:?}, wanted application/json");
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
        }
        if request.headers().contains_key(header::CONTENT_ENCODING) {
            let message = "compressed bodies are not accepted";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message));
        }
        let most = app.limits.body_bytes;
        let too_large = || {
            let message = format!("the body has more than {most} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
        };
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > most as u64) {
            return Err(too_large());
        }
        let read = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(request.into_body(), most)).await;
        let bytes = read.map_err(|_| {
            let message = format!("the body did not come within {} s", BODY_TIME.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
        })?;
        let bytes = bytes.map_err(|error| match std::error::Error::source(&error) {
            Some(source) if source.to_string().contains("length limit") => too_large(),
            _ => ApiError::bad_request("the body ended before its time"),
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(map)) => {
                let model = map.get(MODEL.name).and_then(Value::as_str);
                if let (Some(caller), Some(model)) = (caller, model) {
                    caller.record.asked_model(model);
                }
                Ok(JsonBody(map))
            }
            Ok(_) => Err(ApiError::bad_request("the body is not a JSON object")),
            Err(error) => Err(ApiError::bad_request(format!("the body is not JSON: {error}"))),
        }
    }
}

/// The fields of an object, each of the kind that its row says.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    map: Map<String, Value>,
    /// What stands before the names in messages, such as `stream_options.`.
    place: String,
}

impl Fields {
    /// The fields of an object, checked against tables.
    pub fn new(map: Map<String, Value>, tables: &[&[Row]]) -> Result<Self, ApiError> {
        Self::at(String::new(), map, tables)
    }

    /// The fields of an object that stands in another one.
    pub fn at(place: String, map: Map<String, Value>, tables: &[&[Row]]) -> Result<Self, ApiError> {
        let mut kept = Map::new();
        for (name, value) in map.into_iter().filter(|(_, value)| !value.is_null()) {
            let row = tables.iter().flat_map(|table| table.iter()).find(|row| row.name == name);
            let path = format!("{place}{name}");
            let Some(row) = row else {
                let message = format!("the field {path:?} is not known here");
                return Err(ApiError { code: "unknown_field", ..ApiError::field(path, message) });
            };
            check(row.kind, &value).map_err(|wanted| {
                let message = format!("{path} is {}, {wanted}", short(&value));
                ApiError::field(path, message)
            })?;
            kept.insert(name, value);
        }
        Ok(Self { map: kept, place })
    }

    /// The fields of the object in a field; none if it is left out.
    pub fn object(&self, name: &str, tables: &[&[Row]]) -> Result<Fields, ApiError> {
        let map = self.value(name).and_then(Value::as_object).cloned().unwrap_or_default();
        Fields::at(format!("{}{name}.", self.place), map, tables)
    }

    /// A field as it is.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.map.get(name)
    }
    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }
    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str()
    }
    /// A number.
    pub fn number(&self, name: &str) -> Option<f32> {
        Some(self.value(name)?.as_f64()? as f32)
    }
    /// True or false; false if left out.
    pub fn flag(&self, name: &str) -> bool {
        self.bool(name).unwrap_or(false)
    }
    /// True or false.
    pub fn bool(&self, name: &str) -> Option<bool> {
        self.value(name)?.as_bool()
    }
    /// A whole number.
    pub fn int(&self, name: &str) -> Option<i64> {
        whole(self.value(name)?)
    }
    /// A whole number that is not negative.
    pub fn count(&self, name: &str) -> Option<usize> {
        usize::try_from(self.int(name)?).ok()
    }
    /// A text or a list of texts.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let one = |value: &Value| value.as_str().map(str::to_owned);
        match self.value(name) {
            Some(Value::Array(list)) => list.iter().filter_map(one).collect(),
            Some(value) => one(value).into_iter().collect(),
            None => Vec::new(),
        }
    }
    /// Token ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        let list = self.value(name).and_then(Value::as_array);
        let id = |value: &Value| u32::try_from(whole(value)?).ok();
        list.into_iter().flatten().filter_map(id).collect()
    }
    /// The name of a field as messages say it.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }
    /// An error about a field.
    pub fn wrong(&self, name: &str, message: impl Into<String>) -> ApiError {
        ApiError::field(self.path(name), message)
    }
}

/// A whole number, written with or without a fraction of zero.
fn whole(value: &Value) -> Option<i64> {
    let exact = |number: f64| number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
    value.as_i64().or_else(|| value.as_f64().filter(|number| exact(*number)).map(|number| number as i64))
}

/// A value in few characters, for messages.
fn short(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".into(),
        Value::String(text) if text.chars().count() > 40 => "a long text".into(),
        other => other.to_string(),
    }
}

/// What was wanted, if a value is not of a kind.
fn check(kind: Kind, value: &Value) -> Result<(), String> {
    let wanted = |good: bool, words: &dyn Fn() -> String| if good { Ok(()) } else { Err(words()) };
    let list = |most: usize| value.as_array().filter(|list| list.len() <= most);
    match kind {
        Kind::Any | Kind::Harmless => Ok(()),
        Kind::Bool => wanted(value.is_boolean(), &|| "wanted true or false".into()),
        Kind::Text => wanted(value.is_string(), &|| "wanted a text".into()),
        Kind::Object => wanted(value.is_object(), &|| "wanted an object".into()),
        Kind::Int(least, most) => {
            let good = whole(value).is_some_and(|number| (least..=most).contains(&number));
            wanted(good, &|| format!("wanted a whole number from {least} to {most}"))
        }
        Kind::Number(least, most) => {
            let good = value.as_f64().is_some_and(|number| (least..=most).contains(&number));
            wanted(good, &|| format!("wanted a number from {least} to {most}"))
        }
        Kind::OneOf(names) => {
            let good = value.as_str().is_some_and(|text| names.contains(&text));
            wanted(good, &|| format!("wanted one of {}", names.join(", ")))
        }
        Kind::Texts(most) => {
            let good = value.is_string() || list(most).is_some_and(|list| list.iter().all(Value::is_string));
            wanted(good, &|| format!("wanted a text or a list of at most {most} texts"))
        }
        Kind::Ids(most) => {
            let id = |value: &Value| whole(value).is_some_and(|id| u32::try_from(id).is_ok());
            let good = list(most).is_some_and(|list| list.iter().all(id));
            wanted(good, &|| format!("wanted a list of at most {most} token ids"))
        }
        Kind::List(most) => wanted(list(most).is_some(), &|| format!("wanted a list of at most {most}")),
        Kind::Only(values) => {
            let same = |text: &&str| serde_json::from_str::<Value>(text).is_ok_and(|known| known == *value);
            wanted(values.iter().any(same), &|| "which is not supported here".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TABLE: &[Row] = &[
        row("n", Kind::Int(1, 16), "Choices."),
        row("temperature", Kind::Number(0.0, 2.0), "Heat."),
        row("stop", Kind::Texts(2), "Stops."),
        row("audio", Kind::Only(&["false"]), "Not supported."),
        row("user", Kind::Harmless, "Nothing."),
        row("inner", Kind::Object, "An object."),
    ];

    fn read(value: Value) -> Result<Fields, ApiError> {
        Fields::new(value.as_object().unwrap().clone(), &[TABLE])
    }

    #[test]
    fn values_are_read_and_null_is_nothing() {
        let fields =
            read(json!({ "n": 2.0, "temperature": 1, "stop": ["a"], "user": [], "audio": false })).unwrap();
        assert_eq!((fields.count("n"), fields.number("temperature")), (Some(2), Some(1.0)));
        assert_eq!(fields.texts("stop"), ["a"]);
        assert!(!read(json!({ "n": null })).unwrap().has("n"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, param, words) in [
            (json!({ "x": 1 }), "x", "not known"),
            (json!({ "n": 0 }), "n", "n is 0, wanted a whole number from 1 to 16"),
            (json!({ "n": 1.5 }), "n", "whole"),
            (json!({ "temperature": "hot" }), "temperature", "wanted a number"),
            (json!({ "stop": ["a", "b", "c"] }), "stop", "at most 2"),
            (json!({ "stop": [1] }), "stop", "texts"),
            (json!({ "audio": { "voice": "v" } }), "audio", "not supported"),
        ] {
            let error = read(value).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
            assert!(error.message.contains(words), "{}", error.message);
        }
        let outer = read(json!({ "inner": { "y": 1 } })).unwrap();
        assert_eq!(outer.object("inner", &[TABLE]).unwrap_err().param.unwrap(), "inner.y");
    }
}
