//! Logical time: what an agent knows of every other agent's doings.

use crate::memory::{Foreign, learn};

/// A vector clock, and what of it a proxy fence has passed on.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// By agent: its time when it was last heard of.
    pub(super) seen: Vec<u32>,
    /// The same for writes that were fenced for the asynchronous proxy.
    pub(super) fenced: Vec<u32>,
    /// The times of agents of other clusters.
    pub(super) foreign: Foreign,
}

impl Clock {
    /// Nothing is known.
    pub(super) fn new(agents: usize) -> Clock {
        Clock { seen: vec![0; agents], fenced: vec![0; agents], foreign: Foreign::new() }
    }

    /// Learns what another knows.
    pub(super) fn join(&mut self, other: &Clock) {
        let later = |mine: &mut Vec<u32>, theirs: &[u32]| {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine = (*mine).max(*theirs);
            }
        };
        later(&mut self.seen, &other.seen);
        later(&mut self.fenced, &other.fenced);
        learn(&mut self.foreign, &other.foreign);
    }

    /// A proxy fence of an agent: all that it knows of is fenced from now on.
    pub(super) fn fence(&mut self, agent: usize) {
        self.fenced.clone_from(&self.seen);
        self.seen[agent] += 1;
    }
}
