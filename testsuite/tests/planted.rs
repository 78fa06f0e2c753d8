//! The simulator is tested itself: it must notice every bug that is planted into a copy of the scheduler.

use std::cell::Cell;

// A copy of the scheduler with branches for planted bugs.
#[allow(warnings, clippy::all, reason = "build.rs wrote it, bugs and all")]
mod machine {
    pub use blocks::BlockPool;
    pub use cache::KvCache;
    pub use plan::{Outcome, PlannedChunk, StepPlan};
    pub use prefix::{Block, Edge, Parent, PrefixTree};
    pub use scheduler::{Scheduler, SchedulerConfig};
    pub use sequence::{Arrival, Sequence, Turn};
    pub use sinter_runtime::{Batch, BatchBuilder, Chunk, Rows, RuntimeError};

    include!(concat!(env!("OUT_DIR"), "/planted_machine.rs"));

    /// The names of the bugs.
    pub fn names() -> &'static [&'static str] {
        NAMES
    }

    /// Whether a bug is there.
    pub fn planted(number: usize) -> bool {
        super::PLANTED.get() == Some(number)
    }
}

#[allow(dead_code, reason = "the other tests use the rest of it")]
#[path = "../src/simulator/mod.rs"]
mod simulator;

thread_local! {
    /// The bug of this thread.
    static PLANTED: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The first of so many seeds that fails, and how. A panic is a failure too.
fn first_failure(seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let run = std::panic::catch_unwind(|| simulator::run(seed));
        let panicked = |_| "it panics".to_owned();
        run.map_or_else(|panic| Some(panicked(panic)), Result::err).map(|failure| (seed, failure))
    })
}

#[test]
fn every_planted_bug_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    assert_eq!(first_failure(300), None, "the copy without a bug is the scheduler");
    let names = machine::names();
    assert!(names.len() >= 20);
    let missed: Vec<&str> = (0..names.len())
        .filter_map(|number| {
            PLANTED.set(Some(number));
            match first_failure(3000) {
                Some((seed, failure)) => println!("{}: {failure} (of {})", names[number], seed + 1),
                None => return Some(names[number]),
            }
            None
        })
        .collect();
    assert!(missed.is_empty(), "not caught: {missed:#?}");
}
