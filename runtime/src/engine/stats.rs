//! What can be read of an engine while it works. The owner thread writes, anyone reads, and nobody waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Upper bounds of the buckets of step times, in microseconds; one more bucket takes the rest.
pub const STEP_BUCKETS: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];

/// A reading. The numbers are taken one after the other, not at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that are computed.
    pub running: u64,
    /// Sequences that wait to be computed, those not yet seen by the owner thread included.
    pub waiting: u64,
    /// Tokens of those that wait.
    pub waiting_tokens: u64,
    /// Pages of the KV cache that sequences hold.
    pub blocks_used: u64,
    /// Pages that nobody holds but whose content may serve again.
    pub blocks_cached: u64,
    /// Pages of the KV cache.
    pub blocks_total: u64,
    /// Tokens of prompts that were looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Those of them that were found.
    pub prefix_hits: u64,
    /// Requests that were accepted.
    pub requests: u64,
    /// Requests that ended, for whatever reason.
    pub finished: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// Tokens of prompts of the requests that were accepted.
    pub tokens_in: u64,
    /// Tokens that were given out.
    pub tokens_out: u64,
    /// How often a sequence was put back to be computed again.
    pub preemptions: u64,
    /// Tokens that speculation guessed.
    pub drafted: u64,
    /// Guesses that were right.
    pub accepted: u64,
    /// Steps.
    pub steps: u64,
    /// Tokens computed in steps.
    pub step_tokens: u64,
    /// Microseconds in steps.
    pub step_micros: u64,
    /// Steps by their time: [`STEP_BUCKETS`] and the rest; not cumulative.
    pub step_buckets: [u64; STEP_BUCKETS.len() + 1],
    /// Time since the owner thread last showed life: it ended a step, or found nothing to do.
    pub since_progress: Duration,
    /// Whether new requests are refused.
    pub closed: bool,
    /// Whether the owner thread is gone.
    pub stopped: bool,
}

macro_rules! gauges {
    ($($name:ident),*) => {
        /// The numbers behind [`Stats`].
        #[derive(Debug)]
        pub(crate) struct Gauges {
            $(pub(crate) $name: AtomicU64,)*
            pub(crate) buckets: [AtomicU64; STEP_BUCKETS.len() + 1],
            pub(crate) closed: AtomicBool,
            pub(crate) stopped: AtomicBool,
            born: Instant,
            /// Microseconds from birth to the last sign of life.
            progress: AtomicU64,
        }

        impl Gauges {
            pub(crate) fn new() -> Self {
                Self {
                    $($name: AtomicU64::new(0),)*
                    buckets: Default::default(),
                    closed: AtomicBool::new(false),
                    stopped: AtomicBool::new(false),
                    born: Instant::now(),
                    progress: AtomicU64::new(0),
                }
            }

            pub(crate) fn read(&self) -> Stats {
                let progress = Duration::from_micros(self.progress.load(Relaxed));
                Stats {
                    $($name: self.$name.load(Relaxed),)*
                    step_buckets: std::array::from_fn(|at| self.buckets[at].load(Relaxed)),
                    since_progress: self.born.elapsed().saturating_sub(progress),
                    closed: self.closed.load(Relaxed),
                    stopped: self.stopped.load(Relaxed),
                }
            }
        }
    };
}

gauges!(
    running,
    waiting,
    waiting_tokens,
    blocks_used,
    blocks_cached,
    blocks_total,
    prefix_queries,
    prefix_hits,
    requests,
    finished,
    failed,
    tokens_in,
    tokens_out,
    preemptions,
    drafted,
    accepted,
    steps,
    step_tokens,
    step_micros
);

impl Gauges {
    /// A sign of life.
    pub(crate) fn alive(&self) {
        self.progress.store(self.born.elapsed().as_micros() as u64, Relaxed);
    }

    pub(crate) fn step(&self, tokens: usize, took: Duration) {
        let micros = took.as_micros() as u64;
        let bucket = STEP_BUCKETS.iter().position(|bound| micros <= *bound).unwrap_or(STEP_BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.steps.fetch_add(1, Relaxed);
        self.step_tokens.fetch_add(tokens as u64, Relaxed);
        self.step_micros.fetch_add(micros, Relaxed);
        self.alive();
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Relaxed);
}

/// Takes from a gauge.
pub(crate) fn sub(gauge: &AtomicU64, count: usize) {
    gauge.fetch_sub(count as u64, Relaxed);
}

/// Sets a gauge.
pub(crate) fn set(gauge: &AtomicU64, value: usize) {
    gauge.store(value as u64, Relaxed);
}

/// Brings a gauge that others add to from what was written there last to what it is now.
pub(crate) fn change(gauge: &AtomicU64, before: usize, after: usize) {
    match after >= before {
        true => add(gauge, after - before),
        false => sub(gauge, before - after),
    }
}
