//! From the text of an answer to what it means for a client of a conversation: content, thoughts, calls of tools.
//!
//! Models write calls of tools and thoughts as text, each family in a way of its own. An [`AnswerParser`] reads the text
//! as it comes and says what is what.

use super::error::ApiError;
use super::state::App;
use serde_json::Value;

/// The next of an answer, as its client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// The next of the content.
    Content(String),
    /// The next of what the model thinks before it answers.
    Reasoning(String),
    /// A call of a tool begins.
    Call {
        /// The calls before it.
        index: usize,
        /// Its id.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// The next of the arguments of a call, which are JSON.
    Arguments {
        /// Which call.
        index: usize,
        /// The next of the text.
        text: String,
    },
}

/// Reads the text of one answer.
pub trait AnswerParser: Send {
    /// Takes the next of the text.
    fn push(&mut self, text: &str) -> Vec<Delta>;
    /// Gives what was held back, at the end of the text.
    fn finish(&mut self) -> Vec<Delta>;
}

/// What a client says about tools.
#[derive(Debug, Clone, Default)]
pub struct ToolWishes {
    /// Descriptions of the tools.
    pub tools: Vec<Value>,
    /// Whether and which: `auto`, `none`, `required`, or an object that names one.
    pub choice: Option<Value>,
    /// Whether several calls may stand in one answer; yes if left out.
    pub parallel: Option<bool>,
}

/// The tools of a request, checked.
pub fn wishes(app: &App, wishes: ToolWishes) -> Result<ToolWishes, ApiError> {
    let _ = app;
    match wishes.choice.as_ref().map(Value::as_str) {
        None | Some(Some("auto" | "none")) => Ok(wishes),
        Some(_) => Err(ApiError::field("tool_choice", "only auto and none are supported")),
    }
}

/// A parser for one answer.
pub fn parser(app: &App, wishes: &ToolWishes) -> Box<dyn AnswerParser> {
    let _ = (app, wishes);
    Box::new(Plain)
}

/// All of the text is content.
struct Plain;

impl AnswerParser for Plain {
    fn push(&mut self, text: &str) -> Vec<Delta> {
        vec![Delta::Content(text.to_owned())]
    }
    fn finish(&mut self) -> Vec<Delta> {
        Vec::new()
    }
}
