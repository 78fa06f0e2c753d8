//! OpenAI's newer interface: responses, made of items, that later requests can go on from.
//!
//! ```text
//! fields ─ input ─▶ messages ─▶ Generation ─ Output ─▶ Items ─▶ response object, or events
//! previous_response_id ─▶ Store ─▶ items that come before the input
//! ```

pub mod create;
pub mod input;
pub mod items;
pub mod store;
