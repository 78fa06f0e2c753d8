//! Anthropic's interface: messages.

pub mod blocks;
pub mod error;
pub mod messages;
pub mod prompt;
