//! What a client asks for, and what it gets.

use crate::{Rows, RuntimeError};
use std::ops::ControlFlow;

/// A text to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The token ids, at least one.
    pub ids: Vec<u32>,
    /// The type of each token: 0 in a text, 1 in the one after it. A decoder knows no types.
    pub types: Vec<u32>,
    /// The rows that are wanted.
    pub rows: Rows,
}

impl Text {
    /// A text whose tokens are all of type 0.
    pub fn new(ids: Vec<u32>, rows: Rows) -> Self {
        Self { types: vec![0; ids.len()], ids, rows }
    }

    /// Refuses what could never be read.
    pub(super) fn check(&self, vocab: usize, capacity: usize) -> Result<(), RuntimeError> {
        let refuse = |reason: String| Err(RuntimeError::Parameter(reason));
        match self.ids.len() {
            0 => return refuse("a text has no tokens".into()),
            found if found > capacity => {
                return refuse(format!("a text of {found} tokens, the longest has {capacity}"));
            }
            found if found != self.types.len() => {
                return refuse(format!("{} types of {found} tokens", self.types.len()));
            }
            _ => {}
        }
        if let Some(id) = self.ids.iter().find(|id| **id as usize >= vocab) {
            return refuse(format!("a text names token {id}, the vocabulary has {vocab}"));
        }
        match self.types.iter().find(|kind| **kind > 1) {
            Some(kind) => refuse(format!("a token of type {kind}, wanted 0 or 1")),
            None => Ok(()),
        }
    }

    /// The rows that are wanted of the tokens `from..to`.
    pub(super) fn rows_of(&self, from: usize, to: usize) -> Rows {
        match self.rows {
            Rows::All => Rows::All,
            Rows::First if from == 0 => Rows::First,
            Rows::Last if to == self.ids.len() => Rows::Last,
            Rows::None | Rows::First | Rows::Last => Rows::None,
        }
    }
}

/// One thing that happened to a request. Nothing comes after [`Part::Done`] or [`Part::Failed`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part<'m> {
    /// The next rows of a text, those of its tokens in order.
    Rows {
        /// The text, from 0.
        text: usize,
        /// Rows of the model's width, row-major.
        rows: &'m [f32],
    },
    /// All texts were read.
    Done,
    /// The request has ended with an error.
    Failed(&'m RuntimeError),
}

/// Where the parts of a request go. It is called on the reader's thread, so it must not wait; a break cancels the
/// request.
pub type PartSink = Box<dyn FnMut(Part<'_>) -> ControlFlow<()> + Send>;
