//! The engine: many requests on one model, each answered as if it were alone.
//!
//! ```text
//! EngineHandle ─ messages ─▶ Engine::serve ─ Scheduler::plan ─▶ StepPlan ─▶ Batch ─▶ DeviceModel::step
//!       ▲                                                                                  │ rows
//!       └───────── Event ◀── Choice (Sampler, TokenMask) ◀── Scheduler::commit ◀───────────┘
//! ```
//!
//! - An [`EngineHandle`] sends a [`Request`] and gets [`Event`]s, through a channel or a [`Sink`] of its own. Handles are
//!   free to clone. A [`Ticket`] that is dropped cancels its request.
//! - One thread owns the [`Engine`]: model, scheduler and choices. There is no lock; [`Stats`] are atomic numbers that
//!   the owner writes and anyone reads.
//! - The [`Scheduler`] decides who is computed next. It is pure: the simulator of the test suite drives it.
//! - A choice turns rows of logits into tokens. What a request gets depends on the request alone: on its tokens, its
//!   parameters and its seed, never on who shares the step.
//!
//! **Text** is not known here, so neither are stop strings: whoever turns tokens into text looks for them, and cancels
//! the ticket when one is found. Its pages are free before the next step. What the engine had computed beyond the stop
//! is thrown away there; the text is the same however far that was.
//!
//! **Speculation** guesses tokens that the model then sees in one step. A guess is right if it is the token that the
//! choice takes from the row before it, and what a choice takes depends on the row, the seed and the position alone; so
//! with any guesses an answer is bit for bit the one without, sampled or greedy. (Daliri, Musco, Suresh: Coupling without
//! communication and drafter-invariant speculative decoding, 2024. A guess that is certain, as those here are, is
//! accepted as often as by rejection sampling: with the probability that the model gives it.)
//!
//! **Structured output** is a [`Constraint`] that says which tokens may come; grammars live where the tokenizer is.

mod event;
mod request;
mod stats;

mod handle;

mod prefix;

mod cache;
mod plan;
mod scheduler;
mod sequence;

mod draft;
mod speculate;

mod choice;
mod owner;

pub use cache::KvCache;
pub use draft::DraftModel;
pub use event::{Event, Finish, Logprob, Sink, Token, Usage};
pub use handle::{Admission, EngineHandle, Events, Refusal, RequestId, Ticket};
pub use owner::Engine;
pub use plan::{Outcome, PlannedChunk, StepPlan};
pub use prefix::{Block, Edge, Parent, PrefixTree};
pub use request::{Bounds, Constraint, Request, TokenMask};
pub use scheduler::{Scheduler, SchedulerConfig};
pub use sequence::{Arrival, Sequence, Turn};
pub use speculate::{NGram, Speculation};
pub(crate) use stats::{Gauges, add, change, set, sub};
pub use stats::{STEP_BUCKETS, Stats};

/// How an engine works, besides what the model's limits say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    /// Rows of logits in a step; at least as many as sequences are allowed in any case.
    pub max_rows: usize,
    /// Steps of waiting that outweigh one unit of priority.
    pub patience: u64,
    /// Whether full pages are kept for later requests with the same beginning.
    pub prefix_cache: bool,
    /// Sequences that may wait before requests are refused.
    pub max_waiting: u64,
    /// Tokens of prompts that may wait before requests are refused.
    pub max_waiting_tokens: u64,
    /// The largest parameters of a request.
    pub bounds: Bounds,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_rows: 256,
            patience: 512,
            prefix_cache: true,
            max_waiting: 512,
            max_waiting_tokens: 1 << 22,
            bounds: Bounds::default(),
        }
    }
}
