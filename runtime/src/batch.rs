//! One step: a flat list of tokens of any number of sequences.

use sinter_ir::{Binding, PAGE};
use std::ops::Range;

/// What one step computes, in the shape in which the step graph takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The token ids, u32[T].
    pub tokens: Vec<u32>,
    /// The position of each token in its sequence, u32[T].
    pub positions: Vec<u32>,
    /// The KV slot that each token writes, u32[T]; empty for encoders.
    pub slots: Vec<u32>,
    /// The index of each token's sequence in the step, u32[T].
    pub seq: Vec<u32>,
    /// The page numbers of each sequence, u32[S, P], padded with 0; empty for encoders.
    pub table: Vec<u32>,
    /// The type of each token, u32[T]: which of a pair of texts it belongs to.
    pub types: Vec<u32>,
    /// The rows whose logits are wanted, u32[R].
    pub rows: Vec<u32>,
    /// S: sequences in the step.
    pub sequences: usize,
    /// P: pages in the longest block table.
    pub table_width: usize,
}

impl Batch {
    /// The values of the symbols, with a pool of `pages` pages.
    pub fn binding(&self, pages: usize) -> Binding {
        let slots = pages as u64 * PAGE;
        Binding::new(self.tokens.len() as u64, self.sequences as u64, self.table_width as u64, slots)
            .with_rows(self.rows.len() as u64)
    }
}

/// The rows of a chunk whose logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// None: a chunk in the middle of a prompt.
    None,
    /// The first: the one that scores of a whole text are computed from.
    First,
    /// The last: the one that the next token is sampled from.
    Last,
    /// Every one.
    All,
}

/// Tokens of one sequence that are fed in one step.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// The position of the first of them.
    pub start: usize,
    /// The block table of the sequence, with the pages of these tokens; empty for encoders.
    pub pages: &'a [u32],
    /// The rows whose logits are wanted.
    pub rows: Rows,
}

/// Collects chunks into a [`Batch`].
#[derive(Debug, Default)]
pub struct BatchBuilder {
    batch: Batch,
    tables: Vec<Vec<u32>>,
    /// The sequence of rows that belong to no text.
    padding: Option<u32>,
}

impl BatchBuilder {
    /// An empty step.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds one sequence's chunk and returns the rows of its tokens.
    pub fn push(&mut self, chunk: Chunk<'_>) -> Range<usize> {
        let batch = &mut self.batch;
        let first = batch.tokens.len();
        let end = first + chunk.tokens.len();
        batch.tokens.extend_from_slice(chunk.tokens);
        batch.seq.extend(chunk.tokens.iter().map(|_| self.tables.len() as u32));
        batch.types.resize(end, 0);
        let positions = chunk.start..chunk.start + chunk.tokens.len();
        batch.positions.extend(positions.clone().map(|position| position as u32));
        if !chunk.pages.is_empty() {
            // A page that is missing becomes the slot of no page at all, which the check refuses.
            let page =
                |position: usize| chunk.pages.get(position / PAGE as usize).map_or(u32::MAX, |page| *page);
            let slot = |position| page(position).saturating_mul(PAGE as u32).saturating_add(within(position));
            batch.slots.extend(positions.map(slot));
        }
        self.tables.push(chunk.pages.to_vec());
        batch.rows.extend(match chunk.rows {
            Rows::None => end as u32..end as u32,
            Rows::First => first as u32..end.min(first + 1) as u32,
            Rows::Last => end.saturating_sub(1).max(first) as u32..end as u32,
            Rows::All => first as u32..end as u32,
        });
        first..end
    }
    /// Adds rows that belong to no text, up to `end`: in a step of an encoder, they let the next text begin there. All of
    /// them are one sequence more.
    pub fn pad_to(&mut self, end: usize) {
        let batch = &mut self.batch;
        if end <= batch.tokens.len() {
            return;
        }
        let seq = *self.padding.get_or_insert(self.tables.len() as u32);
        if seq as usize == self.tables.len() {
            self.tables.push(Vec::new());
        }
        batch.seq.resize(end, seq);
        for list in [&mut batch.tokens, &mut batch.positions, &mut batch.types] {
            list.resize(end, 0);
        }
    }
    /// The step.
    pub fn finish(self) -> Batch {
        let mut batch = self.batch;
        batch.sequences = self.tables.len();
        batch.table_width = self.tables.iter().map(Vec::len).max().unwrap_or(0);
        batch.table = vec![0; batch.sequences * batch.table_width];
        for (row, pages) in batch.table.chunks_exact_mut(batch.table_width.max(1)).zip(&self.tables) {
            row[..pages.len()].copy_from_slice(pages);
        }
        batch
    }
}

fn within(position: usize) -> u32 {
    (position % PAGE as usize) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_become_one_flat_step() {
        let mut builder = BatchBuilder::new();
        let chunk = Chunk { tokens: &[5, 6], start: 15, pages: &[3, 1], rows: Rows::All };
        assert_eq!(builder.push(chunk), 0..2);
        let decode = Chunk { tokens: &[9], start: 2, pages: &[2], rows: Rows::Last };
        assert_eq!(builder.push(decode), 2..3);
        let silent = Chunk { tokens: &[7], start: 0, pages: &[0], rows: Rows::None };
        assert_eq!(builder.push(silent), 3..4);
        let batch = builder.finish();
        assert_eq!(batch.tokens, [5, 6, 9, 7]);
        assert_eq!(batch.positions, [15, 16, 2, 0]);
        assert_eq!(batch.slots, [63, 16, 34, 0]);
        assert_eq!(batch.seq, [0, 0, 1, 2]);
        assert_eq!(batch.table, [3, 1, 2, 0, 0, 0]);
        assert_eq!(batch.rows, [0, 1, 2]);
        assert_eq!(batch.binding(4).values, [4, 3, 2, 64, 3]);
    }

    #[test]
    fn rows_between_texts_are_a_sequence_of_their_own() {
        let mut builder = BatchBuilder::new();
        let text = Chunk { tokens: &[7, 8], start: 0, pages: &[], rows: Rows::First };
        builder.pad_to(0);
        builder.push(text);
        builder.pad_to(4);
        assert_eq!(builder.push(text), 4..6);
        builder.pad_to(7);
        assert_eq!(builder.push(text), 7..9);
        let batch = builder.finish();
        assert_eq!(batch.tokens, [7, 8, 0, 0, 7, 8, 0, 7, 8]);
        assert_eq!(batch.positions, [0, 1, 0, 0, 0, 1, 0, 0, 1]);
        assert_eq!(batch.seq, [0, 0, 1, 1, 2, 2, 1, 3, 3]);
        assert_eq!((batch.types.len(), batch.sequences, batch.rows), (9, 4, vec![0, 4, 7]));
    }

    #[test]
    fn encoders_have_no_pages() {
        let mut builder = BatchBuilder::new();
        builder.push(Chunk { tokens: &[1, 2, 3], start: 0, pages: &[], rows: Rows::None });
        let batch = builder.finish();
        assert!(batch.slots.is_empty() && batch.table.is_empty() && batch.rows.is_empty());
        assert_eq!(batch.binding(0).values, [3, 1, 0, 0, 0]);
    }
}
