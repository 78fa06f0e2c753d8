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

mod choice;
mod owner;

pub use cache::KvCache;
pub use event::{Event, Logprob, Sink, Token, Usage};
pub use handle::{Admission, EngineHandle, Events, Refusal, RequestId, Ticket};
pub use owner::Engine;
pub use plan::{Outcome, PlannedChunk, StepPlan};
pub use prefix::{Block, Edge, Parent, PrefixTree};
pub use request::{Bounds, Constraint, Request, TokenMask};
pub use scheduler::{Scheduler, SchedulerConfig};
pub use sequence::{Arrival, Sequence, Turn};
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
