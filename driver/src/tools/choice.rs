//! Which tools may be called, and grammars that force calls.

use super::format::Format;
use super::parser::is_name;
use crate::grammar::{Grammar, one_spacing};
use serde_json::{Value, json};
use sinter_frontend::tokenizer::Tokenizer;
use std::fmt::Write;
use thiserror::Error;

/// The most tools of a request.
pub const TOOLS_MAX: usize = 128;
/// The longest name of a tool, in characters.
const NAME_MAX: usize = 64;
/// The most calls that are forced in one answer.
const CALLS_MAX: usize = 16;

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The JSON schema of its arguments, always of an object.
    pub parameters: Value,
}

/// What is wrong with tools, or with the choice among them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {reason}")]
pub struct ToolError {
    /// The field.
    pub place: String,
    /// What was wanted and found.
    pub reason: String,
}

/// Whether the model may or must call tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// It must not.
    None,
    /// It may.
    #[default]
    Auto,
    /// It must, at least once.
    Required,
    /// It must, exactly once.
    One,
}

impl Tool {
    /// A tool with the schema of its arguments; none stands for no arguments.
    ///
    /// # Errors
    /// A name that is none, or a schema that is not of an object.
    pub fn new(
        name: &str,
        description: Option<&str>,
        parameters: Option<&Value>,
        place: &str,
    ) -> Result<Self, ToolError> {
        if !is_name(name) || name.chars().count() > NAME_MAX {
            let reason = format!("{name:?}, wanted 1 to {NAME_MAX} letters, digits, `_`, `-` or `.`");
            return Err(ToolError { place: format!("{place}.name"), reason });
        }
        let mut parameters = match parameters {
            None | Some(Value::Null) => json!({ "properties": {} }),
            Some(schema) => schema.clone(),
        };
        let wrong = |found: &Value| ToolError {
            place: format!("{place}.parameters"),
            reason: format!("wanted a JSON schema of type object, found {found}"),
        };
        match parameters.as_object_mut() {
            None => return Err(wrong(&parameters)),
            Some(schema) => match schema.get("type") {
                Some(Value::String(kind)) if kind == "object" => {}
                None => _ = schema.insert("type".to_owned(), "object".into()),
                Some(other) => return Err(wrong(other)),
            },
        }
        Ok(Self { name: name.to_owned(), description: description.map(str::to_owned), parameters })
    }

    /// Refuses lists of tools that are too long or name one twice.
    pub fn check_all(tools: &[Tool], place: &str) -> Result<(), ToolError> {
        let fail = |reason: String| Err(ToolError { place: place.to_owned(), reason });
        if tools.len() > TOOLS_MAX {
            return fail(format!("{} tools, wanted at most {TOOLS_MAX}", tools.len()));
        }
        for (at, tool) in tools.iter().enumerate() {
            if tools[..at].iter().any(|other| other.name == tool.name) {
                return fail(format!("two tools are named {:?}", tool.name));
            }
        }
        Ok(())
    }

    /// The tool as chat templates want it.
    pub fn template_value(&self) -> Value {
        let mut function = json!({ "name": self.name });
        if let Some(description) = &self.description {
            function["description"] = description.clone().into();
        }
        function["parameters"] = self.parameters.clone();
        json!({ "type": "function", "function": function })
    }
}

/// A grammar of answers that consist of calls in a format: one, or with `many` one after the other. If `thought` names
/// the end of a reasoning that has begun, any text up to there comes first.
pub fn forced_grammar(
    format: &Format,
    tools: &[Tool],
    many: bool,
    thought: Option<&str>,
    tokenizer: &Tokenizer,
) -> Grammar {
    let special: Vec<(String, u32)> =
        tokenizer.special_ids().into_iter().filter_map(|id| Some((tokenizer.piece(id)?, id))).collect();
    let words = |text: &str| literal(text, &special);
    let forced = &format.forced;
    let mut lark = String::new();
    let before = if thought.is_some() { "thought " } else { "" };
    let more = match many {
        true => format!("({} call){{0,{}}}", words(forced.separator), CALLS_MAX - 1),
        false => String::new(),
    };
    let mut line = |text: String| {
        lark += &text;
        lark.push('\n');
    };
    line(format!("start: {before}{} call {more} {}", words(forced.begin), words(forced.end)));
    let calls: Vec<String> = (0..tools.len()).map(|at| format!("call_{at}")).collect();
    line(format!("call: {}", calls.join(" | ")));
    for (at, tool) in tools.iter().enumerate() {
        let schema = one_spacing(tool.parameters.clone());
        let parts = [words(forced.before), words(&tool.name), words(forced.between)];
        line(format!("call_{at}: {} arguments_{at} {}", parts.join(" "), words(forced.after)));
        line(format!("arguments_{at}: %json {schema}"));
    }
    if let Some(close) = thought {
        let end = words(close);
        line(match end.starts_with("<[") {
            true => format!("thought: /(?s:.*)/ {end}"),
            false => format!("thought[suffix={end}]: /(?s:.*)/"),
        });
    }
    Grammar::Lark(lark)
}

/// A text in Lark's notation; special tokens stand there by their ids.
fn literal(text: &str, special: &[(String, u32)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let found = special.iter().filter_map(|(name, id)| Some((rest.find(name.as_str())?, name, id)));
        let next = found.min_by_key(|(at, name, _)| (*at, usize::MAX - name.len()));
        let (plain, after, id) = match next {
            Some((at, name, id)) => (&rest[..at], &rest[at + name.len()..], Some(id)),
            None => (rest, "", None),
        };
        if !plain.is_empty() {
            _ = write!(out, "{} ", Value::String(plain.to_owned()));
        }
        if let Some(id) = id {
            _ = write!(out, "<[{id}]> ");
        }
        rest = after;
    }
    out.trim_end().to_owned()
}
