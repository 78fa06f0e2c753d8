//! The reader: texts of many clients on one model that writes none. It gives the rows of each text, hidden values or
//! scores, as if the text were alone.
//!
//! ```text
//! ReaderHandle ─ messages ─▶ Reader::serve ─ texts in turn ─▶ Batch ─▶ DeviceModel::step
//!       ▲                                                                    │ rows
//!       └──────────────────────────── Part ◀─────────────────────────────────┘
//! ```
//!
//! - A [`ReaderHandle`] sends [`Text`]s and gets [`Part`]s through a [`PartSink`]. A [`ReaderTicket`] that is dropped
//!   cancels what it stands for before the next step.
//! - One thread owns the [`Reader`]. Requests take turns text by text, so a request of a thousand texts delays nobody by
//!   more than a step or two.
//! - **An encoder** reads a text in one step, and several short ones together. Its attention goes over the rows of the
//!   step in blocks, so a text lies where its blocks are those that it has alone (`place.rs`); the rows between texts
//!   belong to no text. What a text gets does not depend on its company, bit for bit.
//! - **A decoder** reads a text in chunks through the KV cache, whose pages it takes for the whole text before it begins:
//!   nothing is ever put back.
//!
//! What rows become, such as a mean, is the sink's affair; it runs on the owner's thread and must be quick.

mod place;
mod request;

mod handle;
mod owner;

pub use handle::{ReaderAdmission, ReaderHandle, ReaderTicket};
pub use owner::Reader;
pub use place::Grid;
pub use request::{Part, PartSink, Text};

/// How a reader works, besides what the model's limits say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderConfig {
    /// Tokens that short texts fill in a step of an encoder; a longer text has a step of its own.
    pub step_tokens: usize,
    /// Texts in a step. For an encoder the model's limits have one sequence more, for the rows between texts.
    pub texts: usize,
    /// Where texts may begin in a step of an encoder.
    pub grid: Grid,
    /// Requests that may be on their way before more are refused.
    pub max_requests: u64,
    /// Tokens of texts that may wait before requests are refused.
    pub max_waiting_tokens: u64,
}
