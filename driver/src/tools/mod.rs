//! Tool calling and reasoning: what stands between the text of an answer and the fields that a protocol has for it.
//!
//! ```text
//! tools, tool_choice ─ Choice ─▶ Grammar (forced calls)
//! messages ─ arguments_to_objects ─▶ values for the chat template
//! text deltas ─ AnswerParser ─▶ Delta { Content, Reasoning, Call, Arguments }
//! ```
//!
//! How a model writes calls is a [`Format`], one row of [`FORMATS`]; how it writes its reasoning is a [`Reasoning`], one
//! row of [`REASONINGS`]. Both are chosen by what the model's chat template contains. The parser is one state machine
//! that reads a row; what it gives does not depend on how the text was split into deltas. Nothing here knows a protocol.

mod dialect;
mod format;

mod json_calls;
mod parser;
mod python_calls;
mod tagged_calls;

mod choice;
mod messages;

pub use choice::{Choice, TOOLS_MAX, Tool, ToolError, forced_grammar};
pub use dialect::Dialect;
pub use format::{Body, FORMATS, Forced, Format, REASONINGS, Reasoning};
pub use messages::arguments_to_objects;
pub use parser::{AnswerParser, Delta};

#[cfg(test)]
mod tests;
