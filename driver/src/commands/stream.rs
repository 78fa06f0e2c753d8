//! Tokens to text as they come.

use crate::output::Output;
use anyhow::Result;
use sinter_frontend::tokenizer::{Detokenizer, Tokenizer};
use std::ops::ControlFlow;
use std::time::Instant;

/// Collects the text of a generation and prints each piece when it is certain.
pub(super) struct Stream<'o> {
    detokenizer: Detokenizer,
    output: Option<&'o Output>,
    text: String,
    /// When the first token came.
    first: Option<Instant>,
    error: Option<anyhow::Error>,
}

impl<'o> Stream<'o> {
    /// A stream that prints to `output`, if there is one.
    pub(super) fn new(tokenizer: &Tokenizer, output: Option<&'o Output>) -> Self {
        let detokenizer = tokenizer.detokenizer(true);
        Self { detokenizer, output, text: String::new(), first: None, error: None }
    }

    /// Takes a token; an error, such as a closed pipe, ends the generation and is kept.
    pub(super) fn push(&mut self, id: u32) -> ControlFlow<()> {
        self.first.get_or_insert_with(Instant::now);
        let piece = self.detokenizer.push(id).map_err(anyhow::Error::from);
        match piece.and_then(|piece| self.show(&piece)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// The whole text and when its first token came.
    pub(super) fn finish(mut self) -> Result<(String, Option<Instant>)> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let rest = self.detokenizer.finish()?;
        self.show(&rest)?;
        Ok((self.text, self.first))
    }

    fn show(&mut self, piece: &str) -> Result<()> {
        self.text.push_str(piece);
        match self.output {
            Some(output) if !piece.is_empty() => output.write(piece),
            _ => Ok(()),
        }
    }
}
