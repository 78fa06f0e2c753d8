//! A warp: 32 lanes in lockstep, their registers, and where they are.
//!
//! Lanes that part at a branch are run one group after the other up to the branch's immediate post-dominator, where they
//! go on together: the reconvergence stack of Fung and others, "Dynamic warp formation" (2007).

use super::clock::Clock;
use super::flow::NEVER;
use super::program::Program;
use crate::fault::Wrong;
use crate::forms::{D, LANES, W};
use crate::memory::Foreign;

/// Lanes that wait for others.
#[derive(Clone, Copy, Debug)]
struct Frame {
    pc: u32,
    until: u32,
    lanes: u32,
}

/// What a warp can do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Go on.
    Ready,
    /// Go on, though it found nothing to do last time.
    Spinning,
    /// Wait at a barrier for the end of a generation.
    Barrier(usize, u64),
    /// Wait for the end of a phase of an mbarrier: block, address, phases so far.
    Phase(usize, u32, u64),
    /// Wait for the cluster.
    Cluster(u64),
    /// Nothing.
    Done,
}

/// A warp.
pub(super) struct Warp {
    pub(super) words: Vec<W>,
    pub(super) longs: Vec<D>,
    pub(super) predicates: Vec<u32>,
    /// Lanes whose register was set.
    pub(super) set_words: Vec<u32>,
    pub(super) set_longs: Vec<u32>,
    pub(super) set_predicates: Vec<u32>,
    pub(super) pc: u32,
    /// Where the lanes of this way meet those of another.
    until: u32,
    /// Lanes that run now.
    pub(super) active: u32,
    /// Lanes that have not ended.
    pub(super) live: u32,
    stack: Vec<Frame>,
    pub(super) state: State,
    /// The block within the cluster.
    pub(super) block: usize,
    /// The warp within the block.
    pub(super) index: usize,
    /// The agent within the cluster.
    pub(super) agent: usize,
    pub(super) meetings: u32,
    pub(super) clock: Clock,
    /// What it knew when it last came to a fence of the device: what its atomics tell from then on.
    pub(super) published: Foreign,
    /// What its atomics were told since: what it knows after its next fence.
    pub(super) heard: Foreign,
    /// The generation of the cluster's barrier at which the warp arrived.
    pub(super) cluster_waits: Option<u64>,
}

impl Warp {
    pub(super) fn new(program: &Program, block: usize, index: usize, agent: usize, agents: usize) -> Warp {
        let (words, longs, predicates) =
            (program.words as usize, program.longs as usize, program.predicates as usize);
        Warp {
            words: vec![[0; LANES]; words],
            longs: vec![[0; LANES]; longs],
            predicates: vec![0; predicates],
            set_words: vec![0; words],
            set_longs: vec![0; longs],
            set_predicates: vec![0; predicates],
            pc: 0,
            until: NEVER,
            active: 0,
            live: 0,
            stack: Vec::new(),
            state: State::Done,
            block,
            index,
            agent,
            meetings: 1,
            clock: Clock::new(agents),
            published: Foreign::new(),
            heard: Foreign::new(),
            cluster_waits: None,
        }
    }

    /// Makes it ready for a new block, with so many lanes.
    pub(super) fn reset(&mut self, program: &Program, lanes: u32) {
        self.set_words.fill(0);
        self.set_longs.fill(0);
        self.set_predicates.fill(0);
        for (at, value) in &program.word_constants {
            self.words[*at as usize] = [*value; LANES];
            self.set_words[*at as usize] = u32::MAX;
        }
        for (at, value) in &program.long_constants {
            self.longs[*at as usize] = [*value; LANES];
            self.set_longs[*at as usize] = u32::MAX;
        }
        for (at, value) in &program.predicate_constants {
            self.predicates[*at as usize] = if *value { u32::MAX } else { 0 };
            self.set_predicates[*at as usize] = u32::MAX;
        }
        self.live = if lanes >= 32 { u32::MAX } else { (1 << lanes) - 1 };
        self.active = self.live;
        self.stack.clear();
        (self.pc, self.until, self.meetings) = (0, NEVER, 1);
        self.state = if lanes == 0 { State::Done } else { State::Ready };
        self.clock.seen.fill(0);
        self.clock.fenced.fill(0);
        self.clock.seen[self.agent] = 1;
        self.clock.foreign.clear();
        self.published.clear();
        self.heard.clear();
        self.cluster_waits = None;
    }

    /// Goes to the next lanes where these have come to where they meet others; false when none are left.
    #[inline(always)]
    pub(super) fn settle(&mut self) -> bool {
        while self.pc == self.until || self.active == 0 {
            match self.stack.pop() {
                Some(frame) => {
                    (self.pc, self.until) = (frame.pc, frame.until);
                    self.active = frame.lanes & self.live;
                }
                None => return false,
            }
        }
        true
    }

    /// Some lanes jump, the others go on; all meet at `meet`.
    pub(super) fn branch(&mut self, taken: u32, target: u32, meet: u32) {
        let next = self.pc + 1;
        let others = self.active & !taken;
        if others == 0 {
            self.pc = target;
            return;
        }
        if taken == 0 {
            self.pc = next;
            return;
        }
        // The frame in which all go on, unless they are in such a one already.
        if meet != self.until && meet != NEVER {
            self.stack.push(Frame { pc: meet, until: self.until, lanes: self.active });
        }
        if next == meet {
            (self.pc, self.until, self.active) = (target, meet, taken);
        } else if target == meet {
            (self.pc, self.until, self.active) = (next, meet, others);
        } else {
            self.stack.push(Frame { pc: target, until: meet, lanes: taken });
            (self.pc, self.until, self.active) = (next, meet, others);
        }
    }

    /// Some lanes end.
    pub(super) fn exit(&mut self, lanes: u32) {
        self.live &= !lanes;
        self.active &= !lanes;
    }

    /// The lanes for which a guard holds.
    #[inline(always)]
    pub(super) fn guarded(&self, guard: super::op::Guard) -> Result<u32, Box<Wrong>> {
        match guard {
            None => Ok(self.active),
            Some((at, negated)) => {
                let lanes = self.predicate(at, self.active)?;
                Ok(self.active & if negated { !lanes } else { lanes })
            }
        }
    }

    /// A register that must be set in some lanes.
    #[inline(always)]
    pub(super) fn word(&self, at: u32, lanes: u32) -> Result<&W, Box<Wrong>> {
        let at = at as usize;
        if self.set_words[at] & lanes != lanes {
            return Err(unset(lanes & !self.set_words[at]));
        }
        Ok(&self.words[at])
    }

    /// The same of 64 bits.
    #[inline(always)]
    pub(super) fn long(&self, at: u32, lanes: u32) -> Result<&D, Box<Wrong>> {
        let at = at as usize;
        if self.set_longs[at] & lanes != lanes {
            return Err(unset(lanes & !self.set_longs[at]));
        }
        Ok(&self.longs[at])
    }

    /// The same of a predicate.
    #[inline(always)]
    pub(super) fn predicate(&self, at: u32, lanes: u32) -> Result<u32, Box<Wrong>> {
        let at = at as usize;
        if self.set_predicates[at] & lanes != lanes {
            return Err(unset(lanes & !self.set_predicates[at]));
        }
        Ok(self.predicates[at])
    }

    /// Sets a register in some lanes.
    #[inline(always)]
    pub(super) fn put_word(&mut self, at: u32, lanes: u32, value: &W) {
        let at = at as usize;
        if lanes == u32::MAX {
            self.words[at] = *value;
        } else {
            let to = &mut self.words[at];
            for (lane, (to, value)) in to.iter_mut().zip(value).enumerate() {
                let keep = (lanes >> lane & 1).wrapping_sub(1);
                *to = *to & keep | *value & !keep;
            }
        }
        self.set_words[at] |= lanes;
    }

    /// The same of 64 bits.
    #[inline(always)]
    pub(super) fn put_long(&mut self, at: u32, lanes: u32, value: &D) {
        let at = at as usize;
        if lanes == u32::MAX {
            self.longs[at] = *value;
        } else {
            let to = &mut self.longs[at];
            for (lane, (to, value)) in to.iter_mut().zip(value).enumerate() {
                let keep = u64::from(lanes >> lane & 1).wrapping_sub(1);
                *to = *to & keep | *value & !keep;
            }
        }
        self.set_longs[at] |= lanes;
    }

    /// The same of a predicate.
    #[inline(always)]
    pub(super) fn put_predicate(&mut self, at: u32, lanes: u32, value: u32) {
        let to = &mut self.predicates[at as usize];
        *to = *to & !lanes | value & lanes;
        self.set_predicates[at as usize] |= lanes;
    }
}

#[cold]
fn unset(lanes: u32) -> Box<Wrong> {
    Wrong::of(lanes.trailing_zeros() as usize, "a register is read that was never set: an uninitialised read")
}
