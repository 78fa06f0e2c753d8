//! The barrier of a cluster.

use super::block::{Machine, Then};
use super::clock::Clock;
use super::op::Inst;
use super::program::{Arg, Reg};
use super::warp::{State, Warp};
use crate::fault::Wrong;
use crate::forms::LANES;

/// The barrier of a cluster.
pub(super) struct ClusterBarrier {
    /// How often it has let warps go.
    pub(super) generation: u64,
    arrived: u32,
    clock: Clock,
    pub(super) released: Clock,
}

impl ClusterBarrier {
    pub(super) fn new(agents: usize) -> ClusterBarrier {
        ClusterBarrier { generation: 0, arrived: 0, clock: Clock::new(agents), released: Clock::new(agents) }
    }

    /// Ends the generation if all warps that run have come.
    pub(super) fn complete(&mut self, running: u32) {
        if self.arrived > 0 && self.arrived >= running {
            let agents = self.clock.seen.len();
            self.released = std::mem::replace(&mut self.clock, Clock::new(agents));
            self.arrived = 0;
            self.generation += 1;
        }
    }
}

impl Machine<'_> {
    /// `barrier.cluster.arrive`
    pub(super) fn cluster_arrive(
        &mut self,
        warp: &mut Warp,
        releases: bool,
        lanes: u32,
    ) -> Result<Then, Box<Wrong>> {
        self.whole(warp, lanes, "barrier.cluster.arrive")?;
        if warp.cluster_waits.is_some() {
            return Err(Wrong::warp("barrier.cluster.arrive twice without barrier.cluster.wait between"));
        }
        warp.cluster_waits = Some(self.cluster.generation);
        self.cluster.arrived += 1;
        if releases {
            self.cluster.clock.join(&warp.clock);
            warp.clock.seen[warp.agent] += 1;
        }
        self.progress += 1;
        let running = self.running.iter().sum();
        self.cluster.complete(running);
        Ok(Then::Next)
    }

    /// `barrier.cluster.wait`
    pub(super) fn cluster_wait(&mut self, warp: &mut Warp, lanes: u32) -> Result<Then, Box<Wrong>> {
        self.whole(warp, lanes, "barrier.cluster.wait")?;
        let Some(generation) = warp.cluster_waits else {
            return Err(Wrong::warp("barrier.cluster.wait without barrier.cluster.arrive before it"));
        };
        if self.cluster.generation == generation {
            warp.state = State::Cluster(generation);
            return Ok(Then::Again);
        }
        warp.cluster_waits = None;
        warp.clock.join(&self.cluster.released);
        warp.meetings += 1;
        Ok(Then::Next)
    }

    /// `createpolicy`
    pub(super) fn policy(&self, warp: &mut Warp, inst: &Inst, lanes: u32) {
        if let Some(Arg::Reg(Reg::Long(to))) = self.program.lists[inst.list as usize].first() {
            warp.put_long(*to, lanes, &[0; LANES]);
        }
    }
}
