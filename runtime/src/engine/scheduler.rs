//! Who is computed next. A state machine without clock, input, output or model: it can be driven by a simulator.
//!
//! Every step is one flat batch within a budget of tokens, filled in this order:
//!
//! 1. one token for each sequence that decodes, so that no answer stutters while a long prompt is read;
//! 2. the next chunks of prompts that are half read;
//! 3. sequences from the waiting line, in turn, while there are pages for all of their tokens;
//! 4. drafts of speculation, with what is left.
//!
//! Where a running sequence needs a page and none can be had, the last in line is put back to wait: it gives back all
//! its pages and is computed again later, with the same result. The first in line is never put back and gets at least
//! one token a step, and alone it fits; so every sequence comes to its end.

use super::plan::{Outcome, PlannedChunk, StepPlan};
use super::sequence::{Arrival, Sequence, Turn};
use super::{Edge, KvCache};
use crate::{Rows, RuntimeError};
use sinter_ir::PAGE;
use std::collections::{BTreeMap, BTreeSet};

/// The limits within which the scheduler works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Tokens in a step; at least as many as sequences.
    pub max_tokens: usize,
    /// Sequences in a step.
    pub max_sequences: usize,
    /// Rows of logits in a step; at least as many as sequences.
    pub max_rows: usize,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Tokens that one sequence can have in the cache.
    pub max_positions: usize,
    /// Steps of waiting that outweigh one unit of priority.
    pub patience: u64,
    /// Whether full pages are kept for later sequences.
    pub prefix_cache: bool,
}

impl SchedulerConfig {
    /// Tokens that one sequence can have in the cache.
    pub fn capacity(&self) -> usize {
        self.max_positions.min(self.pages * PAGE as usize)
    }
}

/// The state of all sequences. Each is in exactly one of the two lines.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    cache: KvCache,
    waiting: BTreeMap<Turn, Sequence>,
    running: BTreeMap<Turn, Sequence>,
    /// Steps that were planned.
    steps: u64,
    /// Sequences that came.
    arrivals: u64,
    /// Tokens of prompts that were looked up in the cache, and those that were found.
    looked_up: (u64, u64),
}

impl Scheduler {
    /// A scheduler without sequences.
    pub fn new(config: SchedulerConfig) -> Result<Self, RuntimeError> {
        let SchedulerConfig { max_tokens, max_sequences, max_rows, pages, .. } = config;
        if max_sequences == 0 || max_tokens < max_sequences || max_rows < max_sequences || pages == 0 {
            return Err(RuntimeError::Parameter(format!(
                "steps of {max_tokens} tokens and {max_rows} rows of {max_sequences} sequences on {pages} pages, \
                 wanted at least one sequence and page, and a token and a row for each sequence"
            )));
        }
        let (cache, none) = (KvCache::new(pages, config.prefix_cache), BTreeMap::new);
        Ok(Self { config, cache, waiting: none(), running: none(), steps: 0, arrivals: 0, looked_up: (0, 0) })
    }
    /// The limits.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }
    /// The pages.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }
    /// The sequences that wait, in turn.
    pub fn waiting(&self) -> &BTreeMap<Turn, Sequence> {
        &self.waiting
    }
    /// The sequences that have pages, in turn.
    pub fn running(&self) -> &BTreeMap<Turn, Sequence> {
        &self.running
    }
    /// Tokens that were looked up in the cache when their sequences were admitted, and those that were found.
    pub fn prefix_counts(&self) -> (u64, u64) {
        self.looked_up
    }
    /// A sequence that has not ended.
    pub fn sequence(&self, turn: Turn) -> Option<&Sequence> {
        self.running.get(&turn).or_else(|| self.waiting.get(&turn))
    }

    /// Takes a sequence into the waiting line, or refuses at once what could never be computed.
    pub fn submit(&mut self, arrival: Arrival) -> Result<Turn, RuntimeError> {
        let (found, capacity) = (arrival.tokens.len(), self.config.capacity());
        if found == 0 || found > capacity {
            return Err(RuntimeError::Parameter(format!("{found} tokens, wanted 1 to {capacity}")));
        }
        let rank = i64::from(arrival.priority) - i64::from(i32::MIN);
        let delay = (rank as u64).saturating_mul(self.config.patience.min(1 << 30));
        let turn = Turn { due: self.steps.saturating_add(delay), serial: self.arrivals };
        self.arrivals += 1;
        self.waiting.insert(turn, Sequence::new(arrival));
        Ok(turn)
    }

    /// Forgets a sequence and frees its pages at once; false if it has ended already.
    pub fn cancel(&mut self, turn: Turn) -> bool {
        let sequence = self.waiting.remove(&turn).or_else(|| self.running.remove(&turn));
        let found = sequence.is_some();
        self.cache.release(sequence.map(|sequence| sequence.pages).unwrap_or_default());
        found
    }

    /// Says what speculation expects after the newest token of a running sequence.
    pub fn propose(&mut self, turn: Turn, drafts: Vec<u32>) {
        if let Some(sequence) = self.running.get_mut(&turn) {
            sequence.drafts = drafts;
        }
    }

    /// Decides the next step. Between this and [`Scheduler::commit`] sequences may come and be cancelled.
    pub fn plan(&mut self) -> StepPlan {
        let mut plan = StepPlan::default();
        self.steps += 1;
        self.continue_running(&mut plan, Sequence::decodes);
        self.continue_running(&mut plan, |sequence| !sequence.decodes());
        self.admit(&mut plan);
        self.speculate(&mut plan);
        plan
    }

    /// Takes what a step gave: one outcome for each of its chunks. Only now may others use the pages that it filled.
    pub fn commit(&mut self, plan: &StepPlan, outcomes: &[Outcome]) -> Result<(), RuntimeError> {
        for (chunk, outcome) in plan.chunks.iter().zip(outcomes) {
            let Some(sequence) = self.running.get_mut(&chunk.turn) else { continue };
            let before = sequence.computed / PAGE as usize;
            sequence.advance(chunk, &outcome.tokens);
            let filled = before..sequence.computed / PAGE as usize;
            self.cache.keep(&sequence.salt, &sequence.tokens, &mut sequence.pages, filled)?;
            if outcome.finished {
                self.cancel(chunk.turn);
            }
        }
        Ok(())
    }

    fn continue_running(&mut self, plan: &mut StepPlan, which: impl Fn(&Sequence) -> bool) {
        let turns: Vec<Turn> =
            self.running.iter().filter(|(_, sequence)| which(sequence)).map(|(turn, _)| *turn).collect();
        for turn in turns {
            // It may have been put back for one before it in line.
            let Some(sequence) = self.running.get(&turn) else { continue };
            let chunk = self.next_chunk(turn, sequence, plan);
            if chunk.len > 0 && self.make_room(turn, chunk.start + chunk.len, plan) {
                plan.chunks.push(chunk);
            }
        }
    }

    /// As much of a sequence as the step has room for.
    fn next_chunk(&self, turn: Turn, sequence: &Sequence, plan: &StepPlan) -> PlannedChunk {
        let mut len = sequence.pending().min(self.config.max_tokens - plan.tokens());
        let all = sequence.all_rows && sequence.computed < sequence.prompt;
        if all {
            // One row stays for each other sequence that the step may have.
            let others = self.config.max_sequences - plan.chunks.len() - 1;
            len = len.min(self.config.max_rows - plan.rows() - others);
        }
        let ends = len == sequence.pending();
        let rows = match (all, ends) {
            (true, _) => Rows::All,
            (false, true) => Rows::Last,
            (false, false) => Rows::None,
        };
        PlannedChunk { turn, start: sequence.computed, len, drafts: 0, rows }
    }

    /// Takes the pages for the first `len` tokens of a running sequence, from the last in line if need be; false if it
    /// is the last itself and was put back.
    fn make_room(&mut self, turn: Turn, len: usize, plan: &mut StepPlan) -> bool {
        while let Some(sequence) = self.running.get_mut(&turn) {
            if let Ok(pages) = self.cache.take(sequence.lacks(len)) {
                sequence.pages.extend(pages);
                return true;
            }
            self.put_back_last(plan);
        }
        false
    }

    /// Puts the last of the running line back to wait.
    fn put_back_last(&mut self, plan: &mut StepPlan) {
        let Some((turn, mut sequence)) = self.running.pop_last() else { return };
        self.cache.release(sequence.restart());
        sequence.preemptions += 1;
        plan.chunks.retain(|chunk| chunk.turn != turn);
        plan.preempted.push(turn);
        self.waiting.insert(turn, sequence);
    }

    /// Lets the waiting in, in turn; the first that does not fit ends it, so nobody is overtaken for ever. One whose next
    /// block is computed in this very step waits until it can be shared.
    fn admit(&mut self, plan: &mut StepPlan) {
        let mut coming: BTreeSet<Edge> =
            plan.chunks.iter().filter_map(|chunk| self.running.get(&chunk.turn)?.next_edge()).collect();
        for turn in self.waiting.keys().copied().collect::<Vec<_>>() {
            if plan.tokens() == self.config.max_tokens || self.running.len() == self.config.max_sequences {
                return;
            }
            let Some(mut sequence) = self.waiting.remove(&turn) else { continue };
            self.find_prefix(&mut sequence);
            let edge = sequence.next_edge();
            let comes = edge.as_ref().is_some_and(|edge| coming.contains(edge)) && self.shares(&sequence);
            if comes || !self.has_room_for(&sequence) {
                self.cache.release(sequence.restart());
                self.waiting.insert(turn, sequence);
                if comes { continue } else { return }
            }
            coming.extend(edge);
            self.start(turn, sequence, plan);
        }
    }

    /// Whether a sequence takes pages that others filled. One that wants the logits of its whole prompt computes it.
    fn shares(&self, sequence: &Sequence) -> bool {
        self.config.prefix_cache && !sequence.all_rows
    }

    fn find_prefix(&mut self, sequence: &mut Sequence) {
        if self.shares(sequence) {
            sequence.pages = self.cache.find(&sequence.salt, &sequence.tokens);
            sequence.computed = sequence.pages.len() * PAGE as usize;
        }
    }

    /// Whether there are pages for all tokens of a sequence, and one in reserve for each that runs: it may soon want one,
    /// and without it the newcomer would be put back at once.
    fn has_room_for(&self, sequence: &Sequence) -> bool {
        let wanted = sequence.lacks(sequence.tokens.len()) + self.running.len();
        self.running.is_empty() || wanted <= self.cache.available()
    }

    fn start(&mut self, turn: Turn, mut sequence: Sequence, plan: &mut StepPlan) {
        if self.shares(&sequence) {
            self.looked_up.0 += sequence.tokens.len() as u64;
            self.looked_up.1 += sequence.computed as u64;
        }
        sequence.cached.get_or_insert(sequence.computed);
        let chunk = self.next_chunk(turn, &sequence, plan);
        self.running.insert(turn, sequence);
        if self.make_room(turn, chunk.start + chunk.len, plan) {
            plan.chunks.push(chunk);
        }
    }

    /// Adds drafts to the decodes of the step, as far as tokens, rows and free pages go.
    fn speculate(&mut self, plan: &mut StepPlan) {
        let mut left = (self.config.max_tokens - plan.tokens()).min(self.config.max_rows - plan.rows());
        for chunk in &mut plan.chunks {
            let Some(sequence) = self.running.get_mut(&chunk.turn) else { continue };
            if chunk.len != 1 || chunk.rows != Rows::Last {
                continue;
            }
            let room = self.config.capacity() - (chunk.start + chunk.len);
            let drafts = sequence.drafts.len().min(left).min(room);
            let lacks = sequence.lacks(chunk.start + chunk.len + drafts);
            if drafts == 0 || lacks > self.cache.available() {
                continue;
            }
            sequence.pages.extend(self.cache.take(lacks).unwrap_or_default());
            (chunk.drafts, chunk.rows) = (drafts, Rows::All);
            left -= drafts;
        }
    }
}
