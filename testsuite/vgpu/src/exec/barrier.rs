//! Barriers of a block.

use super::block::{Machine, Then};
use super::clock::Clock;
use super::op::Inst;
use super::program::{Arg, Reg};
use super::warp::{State, Warp};
use crate::fault::Wrong;

/// One of the sixteen barriers of a block.
pub(super) struct Barrier {
    /// How often it has let warps go.
    pub(super) generation: u64,
    /// Threads that have arrived.
    arrived: u32,
    /// The number that this generation waits for, where the instruction says it.
    expected: Option<u32>,
    /// What those know who have arrived.
    clock: Clock,
    /// What all knew who arrived in the last generation.
    pub(super) released: Clock,
}

impl Barrier {
    pub(super) fn new(agents: usize) -> Barrier {
        Barrier {
            generation: 0,
            arrived: 0,
            expected: None,
            clock: Clock::new(agents),
            released: Clock::new(agents),
        }
    }

    pub(super) fn reset(&mut self) {
        let agents = self.clock.seen.len();
        *self = Barrier::new(agents);
    }

    /// Ends the generation if all have come.
    fn complete(&mut self, running: u32) -> bool {
        let wanted = self.expected.unwrap_or(32 * running);
        if self.arrived == 0 || self.arrived < wanted {
            return false;
        }
        let agents = self.clock.seen.len();
        self.released = std::mem::replace(&mut self.clock, Clock::new(agents));
        (self.arrived, self.expected) = (0, None);
        self.generation += 1;
        true
    }
}

impl Machine<'_> {
    /// A number that all lanes must agree on.
    pub(super) fn uniform(&self, warp: &Warp, arg: &Arg, lanes: u32) -> Result<u32, Box<Wrong>> {
        let Arg::Reg(Reg::Word(at)) = arg else {
            return Err(Wrong::warp("an operand is no 32-bit register"));
        };
        let values = warp.word(*at, lanes)?;
        let first = values[lanes.trailing_zeros() as usize & 31];
        let other = super::memory::lanes_of(lanes).find(|lane| values[*lane] != first);
        match other {
            Some(lane) => Err(Wrong::of(
                lane,
                format!("the operand must be the same in all lanes, found {} and {first}", values[lane]),
            )),
            None => Ok(first),
        }
    }

    /// A warp arrives: the barrier and whether that ends its generation.
    fn arrive(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32) -> Result<(usize, bool), Box<Wrong>> {
        let args = &self.program.lists[inst.list as usize];
        let id = self.uniform(warp, &args[0], lanes)? as usize;
        let count = args.get(1).map(|arg| self.uniform(warp, arg, lanes)).transpose()?;
        if id >= 16 {
            return Err(Wrong::warp(format!("a block has the barriers 0 to 15, found {id}")));
        }
        if let Some(count) = count.filter(|count| {
            count % 32 != 0 || *count == 0 || *count > self.launch.threads.next_multiple_of(32)
        }) {
            return Err(Wrong::warp(format!(
                "a barrier takes a multiple of 32 threads, at most the block's {}, found {count}",
                self.launch.threads
            )));
        }
        let running = self.running[warp.block];
        let barrier = &mut self.blocks[warp.block].barriers[id];
        if barrier.arrived > 0 && barrier.expected != count {
            let (known, new) = (barrier.expected, count);
            return Err(Wrong::warp(format!(
                "barrier {id} is waited at for {known:?} threads by some warps and for {new:?} by others"
            )));
        }
        barrier.expected = count;
        barrier.arrived += 32;
        barrier.clock.join(&warp.clock);
        warp.clock.seen[warp.agent] += 1;
        self.progress += 1;
        Ok((id, barrier.complete(running)))
    }

    /// `bar.sync`
    pub(super) fn barrier(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        lanes: u32,
        aligned: bool,
    ) -> Result<Then, Box<Wrong>> {
        self.whole(warp, lanes, if aligned { "an aligned barrier" } else { "a barrier" })?;
        let generation_of = |machine: &Self, id: usize| machine.blocks[warp.block].barriers[id].generation;
        let args = &self.program.lists[inst.list as usize];
        let id = self.uniform(warp, &args[0], lanes)? as usize;
        let before = if id < 16 { generation_of(self, id) } else { 0 };
        let (id, complete) = self.arrive(warp, inst, lanes)?;
        if complete {
            let released = self.blocks[warp.block].barriers[id].released.clone();
            warp.clock.join(&released);
            warp.meetings += 1;
            return Ok(Then::Next);
        }
        warp.state = State::Barrier(id, before);
        Ok(Then::Yield)
    }

    /// `bar.arrive`
    pub(super) fn barrier_arrive(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        lanes: u32,
    ) -> Result<Then, Box<Wrong>> {
        self.whole(warp, lanes, "bar.arrive")?;
        self.arrive(warp, inst, lanes)?;
        Ok(Then::Next)
    }

    /// All lanes of a warp that have not ended must be here.
    pub(super) fn whole(&self, warp: &Warp, lanes: u32, what: &str) -> Result<(), Box<Wrong>> {
        if lanes == warp.live {
            return Ok(());
        }
        let missing = warp.live & !lanes;
        Err(Wrong::of(
            missing.trailing_zeros() as usize,
            format!(
                "divergent: {what} must be reached by all lanes of a warp, found {lanes:#010x} of {:#010x}",
                warp.live
            ),
        ))
    }

    /// A warp has ended: barriers that wait for all others may end.
    pub(super) fn ended(&mut self, warp: &Warp) {
        self.running[warp.block] -= 1;
        let running = self.running[warp.block];
        for barrier in &mut self.blocks[warp.block].barriers {
            if barrier.expected.is_none() && running > 0 {
                barrier.complete(running);
            }
        }
        let all = self.running.iter().sum();
        self.cluster.complete(all);
    }
}
