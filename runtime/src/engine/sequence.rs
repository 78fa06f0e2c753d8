//! One sequence on its way: its tokens, how many of them are in the cache, and the pages they lie in.

use super::cache::edge;
use super::plan::PlannedChunk;
use super::prefix::Edge;
use sinter_ir::PAGE;
use std::fmt;

/// A sequence's place in line and its name: whoever has the smaller turn is served first.
///
/// The place is fixed when the sequence comes: the step of its arrival, moved by its priority. So the line is never
/// sorted anew, and everyone who comes later than a fixed number of steps stands behind: nobody waits for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turn {
    /// The step of arrival plus the priority's head start or delay.
    pub due: u64,
    /// The arrivals before it.
    pub serial: u64,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turn {}", self.serial)
    }
}

/// What the scheduler is told of a new sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The tokens of the prompt.
    pub tokens: Vec<u32>,
    /// Smaller is sooner.
    pub priority: i32,
    /// Only sequences with the same salt share pages.
    pub salt: Vec<u8>,
    /// Whether the logits of every token of the prompt are wanted.
    pub all_rows: bool,
}

/// A sequence in the scheduler.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub(super) tokens: Vec<u32>,
    pub(super) prompt: usize,
    pub(super) computed: usize,
    pub(super) pages: Vec<u32>,
    pub(super) drafts: Vec<u32>,
    pub(super) salt: Vec<u8>,
    pub(super) all_rows: bool,
    pub(super) preemptions: usize,
    /// Tokens of the prompt that were found in the cache when it was admitted first.
    pub(super) cached: Option<usize>,
}

impl Sequence {
    pub(super) fn new(arrival: Arrival) -> Self {
        Self {
            prompt: arrival.tokens.len(),
            tokens: arrival.tokens,
            computed: 0,
            pages: Vec::new(),
            drafts: Vec::new(),
            salt: arrival.salt,
            all_rows: arrival.all_rows,
            preemptions: 0,
            cached: None,
        }
    }
    /// Prompt and generated tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    /// Tokens of the prompt.
    pub fn prompt(&self) -> usize {
        self.prompt
    }
    /// How many tokens, from the first, have their keys and values in the cache.
    pub fn computed(&self) -> usize {
        self.computed
    }
    /// The block table: position `c` lies in page `pages()[c / 16]`.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }
    /// The tokens that speculation expects next.
    pub fn drafts(&self) -> &[u32] {
        &self.drafts
    }
    /// Only sequences with the same salt share pages.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }
    /// How often it was put back to be computed again.
    pub fn preemptions(&self) -> usize {
        self.preemptions
    }
    /// Tokens of the prompt that were found in the cache when it was admitted first.
    pub fn cached(&self) -> usize {
        self.cached.unwrap_or(0)
    }
    /// Tokens that are not in the cache yet, at least one.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }
    /// Whether only its newest token is to be computed.
    pub(super) fn decodes(&self) -> bool {
        self.pending() == 1
    }
    /// Takes the tokens that a step gave. The keys and values of the drafts that were right are in the cache.
    pub(super) fn advance(&mut self, chunk: &PlannedChunk, tokens: &[u32]) {
        let right = tokens.iter().zip(&self.drafts[..chunk.drafts]);
        let accepted = right.take_while(|(token, draft)| token == draft).count();
        self.computed = chunk.start + chunk.len + accepted;
        self.tokens.extend_from_slice(tokens);
        self.drafts.clear();
    }
    /// Forgets what was computed and gives the pages.
    pub(super) fn restart(&mut self) -> Vec<u32> {
        self.computed = 0;
        self.drafts.clear();
        std::mem::take(&mut self.pages)
    }
    /// The edge of the block that is computed next, if its tokens are all known.
    pub(super) fn next_edge(&self) -> Option<Edge> {
        edge(&self.salt, &self.tokens, &self.pages, self.computed / PAGE as usize)
    }
    /// Pages that it lacks for its first `len` tokens.
    pub(super) fn lacks(&self, len: usize) -> usize {
        len.div_ceil(PAGE as usize).saturating_sub(self.pages.len())
    }
}
