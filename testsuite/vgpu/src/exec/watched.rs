//! What warps of different clusters know of one another: fences and atomics on global memory, and who an agent is to it.

use super::block::Machine;
use super::warp::Warp;
use crate::memory::{Foreign, Touch, learn};

/// An order that an access to global memory keeps with other clusters.
#[derive(Clone, Copy)]
pub(super) struct Handshake {
    /// It is known afterwards what others released at the address.
    pub(super) acquires: bool,
    /// What came before is known to those who acquire.
    pub(super) releases: bool,
    /// Other clusters take part.
    pub(super) device: bool,
}

impl Machine<'_> {
    fn cluster_number(&self) -> u32 {
        self.first / self.launch.cluster
    }

    /// A warp as global memory sees it.
    #[inline(always)]
    pub(super) fn touch<'w>(&self, warp: &'w Warp) -> Touch<'w> {
        self.touch_of(warp, (warp.agent, warp.clock.seen[warp.agent]))
    }

    /// Another agent, at a time, that knows what the warp knows.
    pub(super) fn touch_of<'w>(&self, warp: &'w Warp, agent: (usize, u32)) -> Touch<'w> {
        let launch = (self.launch.serial, self.launch.cluster);
        Touch::new(launch, self.cluster_number(), agent, (&warp.clock.seen, &warp.clock.foreign))
    }

    /// Notes that a warp reads a range of global memory in some other way than by `ld`.
    pub(super) fn watch_read(&mut self, warp: &Warp, address: u64, bytes: u64) -> Result<(), String> {
        let touch = self.touch(warp);
        let found = self.memory.find(address, bytes, &mut self.last);
        let allocation = found.map_err(|what| format!("out of bounds: {what}"))?;
        allocation.note_read(address - allocation.base, bytes, &touch)
    }

    /// What a warp knows, for other clusters.
    fn known(&self, warp: &Warp) -> Foreign {
        let mut known = warp.clock.foreign.clone();
        known.insert(self.cluster_number(), warp.clock.seen.clone());
        known
    }

    /// `fence.acq_rel.gpu` and the like: atomics after it tell what came before it, and what those before it were told is
    /// known after it (PTX ISA, "Memory consistency model", release and acquire patterns).
    pub(super) fn device_fence(&self, warp: &mut Warp) {
        let heard = std::mem::take(&mut warp.heard);
        self.learn(warp, &heard);
        warp.published = self.known(warp);
        warp.clock.seen[warp.agent] += 1;
    }

    fn learn(&self, warp: &mut Warp, heard: &Foreign) {
        let own = self.cluster_number();
        for (cluster, times) in heard {
            if *cluster == own {
                let all = warp.clock.seen.iter_mut().zip(times);
                all.for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
            } else {
                learn(&mut warp.clock.foreign, &Foreign::from([(*cluster, times.clone())]));
            }
        }
    }

    /// Does something to an address of global memory at which clusters tell one another what they know.
    pub(super) fn at_meeting<R>(
        &self,
        warp: &mut Warp,
        address: u64,
        handshake: Handshake,
        act: impl FnOnce() -> R,
    ) -> R {
        if !handshake.device {
            return self.memory.meet(
                (address, self.launch.serial),
                (&mut Foreign::new(), &Foreign::new()),
                act,
            );
        }
        let told = if handshake.releases { self.known(warp) } else { warp.published.clone() };
        let mut heard = Foreign::new();
        let result = self.memory.meet((address, self.launch.serial), (&mut heard, &told), act);
        if handshake.acquires {
            self.learn(warp, &heard);
        } else {
            learn(&mut warp.heard, &heard);
        }
        if handshake.releases {
            warp.clock.seen[warp.agent] += 1;
        }
        result
    }
}
