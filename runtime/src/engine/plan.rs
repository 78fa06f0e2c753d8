//! What one step computes, as the scheduler decides it.

use super::{Scheduler, Sequence, Turn};
use crate::{Batch, BatchBuilder, Chunk, Rows};

/// The chunks of one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// One chunk for each sequence in the step.
    pub chunks: Vec<PlannedChunk>,
    /// The sequences that were put back to make room.
    pub preempted: Vec<Turn>,
}

/// Tokens of one sequence that are computed in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedChunk {
    /// The sequence.
    pub turn: Turn,
    /// The position of the first token.
    pub start: usize,
    /// Tokens of the sequence.
    pub len: usize,
    /// Drafts that are computed after them.
    pub drafts: usize,
    /// The rows whose logits are wanted.
    pub rows: Rows,
}

impl PlannedChunk {
    /// Tokens in the step, drafts included.
    pub fn count(&self) -> usize {
        self.len + self.drafts
    }
    /// Rows of logits.
    pub fn row_count(&self) -> usize {
        match self.rows {
            Rows::None => 0,
            Rows::First | Rows::Last => 1,
            Rows::All => self.count(),
        }
    }
    /// Whether the next token of the sequence is chosen after this chunk.
    pub fn samples(&self, sequence: &Sequence) -> bool {
        self.start + self.len == sequence.tokens().len()
    }
}

/// What became of one chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The new tokens: none after a chunk in the middle; drafts that were right and one more otherwise.
    pub tokens: Vec<u32>,
    /// Whether the sequence has ended.
    pub finished: bool,
}

impl StepPlan {
    /// Tokens of the step.
    pub fn tokens(&self) -> usize {
        self.chunks.iter().map(PlannedChunk::count).sum()
    }
    /// Rows of logits of the step.
    pub fn rows(&self) -> usize {
        self.chunks.iter().map(PlannedChunk::row_count).sum()
    }
    /// The step as a model takes it.
    pub fn batch(&self, scheduler: &Scheduler) -> Batch {
        let mut builder = BatchBuilder::new();
        for chunk in &self.chunks {
            let Some(sequence) = scheduler.sequence(chunk.turn) else { continue };
            let mut tokens = sequence.tokens()[chunk.start..chunk.start + chunk.len].to_vec();
            tokens.extend_from_slice(&sequence.drafts()[..chunk.drafts]);
            let (start, pages, rows) = (chunk.start, sequence.pages(), chunk.rows);
            builder.push(Chunk { tokens: &tokens, start, pages, rows });
        }
        builder.finish()
    }
}
