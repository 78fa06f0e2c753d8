//! The log: one line a request on stderr, as plain text or as JSON. No line holds a prompt, an answer or a key.

use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogStyle {
    /// `event name=value ...`
    Text,
    /// A JSON object a line.
    Json,
    /// No line for a request.
    Off,
}

/// The parts of a line.
pub type Line = Vec<(&'static str, Value)>;

/// Writes lines.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    style: LogStyle,
}

impl Log {
    /// A log of this look.
    pub fn new(style: LogStyle) -> Self {
        Self { style }
    }

    /// Writes a line.
    pub fn write(&self, event: &str, line: Line) {
        let text = match self.style {
            LogStyle::Off => return,
            LogStyle::Text => plain(event, &line),
            LogStyle::Json => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let mut map = Map::new();
                map.insert("time".into(), json!(now.as_millis() as f64 / 1e3));
                map.insert("event".into(), json!(event));
                map.extend(line.into_iter().map(|(name, value)| (name.to_owned(), value)));
                Value::Object(map).to_string()
            }
        };
        // Nobody reads a closed stderr.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// Names and values; texts that could be taken for more than one value are quoted, so no client forges a line.
fn plain(event: &str, line: &Line) -> String {
    let simple = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\'))
    };
    let mut out = event.to_owned();
    for (name, value) in line.iter().filter(|(_, value)| !value.is_null()) {
        let value = match value {
            Value::String(text) if simple(text) => text.clone(),
            other => other.to_string(),
        };
        out += &format!(" {name}={value}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_look_like_another_line() {
        let line = vec![("id", json!("a\nrequest id=b")), ("n", json!(3)), ("path", json!("GET /x"))];
        assert_eq!(plain("request", &line), "request id=\"a\\nrequest id=b\" n=3 path=\"GET /x\"");
    }
}
