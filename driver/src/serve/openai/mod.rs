//! OpenAI's interface: conversations, completions, models.

pub mod chat;
pub mod chat_answer;
pub mod completions;
pub mod embeddings;
pub mod logprobs;
pub mod models;
pub mod shape;
