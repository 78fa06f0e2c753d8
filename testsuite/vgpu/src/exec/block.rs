//! A cluster of blocks, usually one: its warps take turns until all have ended.

use super::arithmetic;
use super::barrier::Barrier;
use super::clock::Clock;
use super::cluster::ClusterBarrier;
use super::copies::Copies;
use super::grid::Launch;
use super::op::{Inst, Op};
use super::phases::{Phased, Place};
use super::products::Products;
use super::program::Program;
use super::warp::{State, Warp};
use crate::counters::Counters;
use crate::fault::{Fault, Wrong};
use crate::memory::{GlobalMemory, Shared};
use std::collections::BTreeMap;

/// Instructions that a warp runs before another has its turn.
const TURN: u32 = 2000;
/// Rounds without any change after which warps that spin are taken to spin for ever.
const IDLE_ROUNDS: u32 = 4096;
/// Instructions for each warp in which nothing is done that anyone could see: no kernel computes for so long.
const BARREN: u64 = 3_000_000;

/// A block.
pub(super) struct Block {
    pub(super) shared: Shared,
    pub(super) barriers: Vec<Barrier>,
    /// Clocks of words of shared memory that warps use to tell one another something.
    words: BTreeMap<u32, Clock>,
    /// The mbarriers by address.
    pub(super) phased: BTreeMap<u32, Phased>,
}

impl Block {
    /// Learns what those knew who released at an address.
    pub(super) fn acquire(&self, address: u32, clock: &mut Clock) {
        if let Some(known) = self.words.get(&address) {
            clock.join(known);
        }
    }
    /// Leaves at an address what one knows.
    pub(super) fn release(&mut self, address: u32, clock: &Clock) {
        self.words.entry(address).or_insert_with(|| Clock::new(clock.seen.len())).join(clock);
    }
}

/// What runs a cluster.
pub(super) struct Machine<'l> {
    pub(super) launch: &'l Launch,
    pub(super) program: &'l Program,
    pub(super) memory: &'l GlobalMemory,
    pub(super) blocks: Vec<Block>,
    pub(super) counters: Counters,
    /// The allocation that was used last.
    pub(super) last: usize,
    /// Counts what may let another warp go on.
    pub(super) progress: u64,
    /// `ctaid.x` of the cluster's first block.
    pub(super) first: u32,
    /// Warps that have not ended, by block.
    pub(super) running: Vec<u32>,
    /// The barrier of the cluster.
    pub(super) cluster: ClusterBarrier,
    /// Matrix products under way, by warp.
    pub(super) products: Vec<Products>,
    /// By warp: the mbarrier and the phase that it was last told is not over.
    pub(super) waits: Vec<Option<(Place, u64)>>,
    /// Asynchronous copies under way.
    pub(super) copies: Copies,
}

/// What a warp does after an instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next instruction.
    Next,
    /// The same again, when its state allows.
    Again,
    /// The next, after others had a turn.
    Yield,
    /// It has set its place itself.
    Stay,
}

/// A cluster's machine with its warps.
pub(super) struct Cluster<'l> {
    machine: Machine<'l>,
    warps: Vec<Warp>,
}

impl<'l> Cluster<'l> {
    pub(super) fn new(launch: &'l Launch, program: &'l Program, memory: &'l GlobalMemory) -> Cluster<'l> {
        let (size, warps) = (launch.cluster as usize, launch.threads.div_ceil(32) as usize);
        let agents = launch.agents();
        let block = || Block {
            shared: Shared::new(launch.shared_bytes, agents),
            barriers: (0..16).map(|_| Barrier::new(agents)).collect(),
            words: BTreeMap::new(),
            phased: BTreeMap::new(),
        };
        let machine = Machine {
            launch,
            program,
            memory,
            blocks: (0..size).map(|_| block()).collect(),
            counters: Counters::default(),
            last: 0,
            progress: 0,
            first: 0,
            running: vec![0; size],
            cluster: ClusterBarrier::new(agents),
            products: Vec::new(),
            waits: Vec::new(),
            copies: Copies::default(),
        };
        let warps = (0..size * warps).map(|at| Warp::new(program, at / warps, at % warps, at, agents));
        Cluster { machine, warps: warps.collect() }
    }

    /// The counters of all that it ran.
    pub(super) fn counters(&self) -> Counters {
        self.machine.counters
    }

    /// Runs the cluster whose first block is `first`.
    pub(super) fn run(&mut self, first: u32) -> Result<(), Box<Fault>> {
        self.reset(first);
        let started = self.machine.counters.warp_instructions();
        let (mut idle, mut seen) = (0, started);
        loop {
            let before = self.machine.progress;
            let (mut ran, mut spun) = (false, false);
            for warp in &mut self.warps {
                if warp.state == State::Done || !self.machine.wake(warp) {
                    continue;
                }
                self.machine.turn(warp)?;
                ran |= warp.state != State::Spinning;
                spun |= warp.state == State::Spinning;
            }
            self.machine.end_transfers()?;
            if self.warps.iter().all(|warp| warp.state == State::Done) {
                return self.machine.check_stores();
            }
            let moved = ran || self.machine.progress != before;
            idle = if moved { 0 } else { idle + 1 };
            if !moved && (!spun || idle > IDLE_ROUNDS) {
                return Err(self.deadlock());
            }
            let steps = self.machine.counters.warp_instructions();
            if steps - started > self.machine.launch.most_instructions {
                return Err(self.endless(self.machine.launch.most_instructions, "without an end"));
            } else if self.machine.progress != before {
                seen = steps;
            } else if steps - seen > BARREN * self.warps.len() as u64 {
                return Err(self.endless(BARREN, "of each warp without a store or a barrier"));
            }
        }
    }

    fn reset(&mut self, first: u32) {
        let machine = &mut self.machine;
        machine.first = first;
        let warps = machine.launch.threads.div_ceil(32);
        for block in &mut machine.blocks {
            block.shared.reset();
            block.words.clear();
            block.phased.clear();
            for barrier in &mut block.barriers {
                barrier.reset();
            }
        }
        machine.running.fill(warps);
        machine.cluster = ClusterBarrier::new(machine.launch.agents());
        machine.products = self.warps.iter().map(|_| Products::default()).collect();
        machine.waits = vec![None; self.warps.len()];
        machine.copies = Copies::new(self.warps.len(), machine.launch.agents());
        for warp in &mut self.warps {
            let lanes = machine.launch.threads - 32 * warp.index as u32;
            warp.reset(machine.program, lanes);
            machine.fill_specials(warp);
        }
    }

    /// Warps run on and on without a store, an atomic, a copy or a barrier.
    #[cold]
    fn endless(&self, count: u64, how: &str) -> Box<Fault> {
        let running = self.warps.iter().find(|warp| warp.state == State::Ready).unwrap_or(&self.warps[0]);
        let what = format!("an endless loop: {count} instructions {how}");
        self.machine.fault(running, *Wrong::warp(what))
    }

    /// All warps wait for something that none can bring about.
    #[cold]
    fn deadlock(&self) -> Box<Fault> {
        let waiting = self.warps.iter().filter(|warp| warp.state != State::Done);
        let mut list = Vec::new();
        for warp in waiting.clone().take(8) {
            let inst = &self.machine.program.code[warp.pc as usize];
            list.push(format!(
                "warp {} of block {} {}, PTX line {}",
                warp.index,
                warp.block,
                self.wait(warp),
                inst.line
            ));
        }
        let what =
            format!("deadlock: {} warps wait and none can go on ({})", waiting.count(), list.join("; "));
        let first = self.warps.iter().find(|warp| warp.state != State::Done).unwrap_or(&self.warps[0]);
        self.machine.fault(first, *Wrong::warp(what))
    }

    /// What a warp waits for, in words.
    fn wait(&self, warp: &Warp) -> String {
        match warp.state {
            State::Barrier(id, _) => format!("at barrier {id}"),
            State::Phase(block, address, phase) => self.lacking((block, address), phase),
            State::Cluster(_) => "for the cluster".into(),
            _ => match self.machine.waits[warp.agent] {
                Some((place, phase)) => self.lacking(place, phase),
                None => "spinning".into(),
            },
        }
    }

    /// What a phase of an mbarrier lacks, in words.
    fn lacking(&self, (block, address): Place, phase: u64) -> String {
        let phased = self.machine.blocks[block].phased.get(&address);
        let lacks = phased.map_or("its start".into(), Phased::lacks);
        format!("for the mbarrier {address:#x} of block {block} in phase {phase}, which lacks {lacks}")
    }
}

impl Machine<'_> {
    /// Whether a warp can go on, which it then does.
    fn wake(&mut self, warp: &mut Warp) -> bool {
        match warp.state {
            State::Ready | State::Spinning => true,
            State::Barrier(id, generation) => {
                let barrier = &self.blocks[warp.block].barriers[id];
                if barrier.generation == generation {
                    return false;
                }
                warp.clock.join(&barrier.released);
                warp.meetings += 1;
                warp.state = State::Ready;
                true
            }
            State::Phase(block, address, phase) => {
                let over = |phased: &Phased| phased.phase() != phase;
                self.blocks[block].phased.get(&address).is_none_or(over)
            }
            State::Cluster(generation) => self.cluster.generation != generation,
            State::Done => false,
        }
    }

    /// Lets a warp run until it must wait or its turn is over.
    fn turn(&mut self, warp: &mut Warp) -> Result<(), Box<Fault>> {
        warp.state = State::Ready;
        for _ in 0..TURN {
            if !warp.settle() {
                warp.state = State::Done;
                self.progress += 1;
                self.ended(warp);
                return Ok(());
            }
            match self.step(warp) {
                Ok(Then::Next) => warp.pc += 1,
                Ok(Then::Stay) => {}
                Ok(Then::Again) => return Ok(()),
                Ok(Then::Yield) => {
                    warp.pc += 1;
                    return Ok(());
                }
                Err(wrong) => return Err(self.fault(warp, *self.explain(warp, wrong))),
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn step(&mut self, warp: &mut Warp) -> Result<Then, Box<Wrong>> {
        let program = self.program;
        let inst = &program.code[warp.pc as usize];
        let lanes = warp.guarded(inst.guard)?;
        let class = usize::from(inst.class);
        self.counters.instructions[class] += 1;
        self.counters.lane_instructions[class] += u64::from(lanes.count_ones());
        if let Op::Branch = inst.op {
            warp.branch(lanes, inst.d, inst.a);
            return Ok(Then::Stay);
        }
        if lanes == 0 || arithmetic::execute(warp, program, inst, lanes)? {
            return Ok(Then::Next);
        }
        self.execute(warp, inst, lanes)
    }

    /// What is no operation on registers alone.
    fn execute(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32) -> Result<Then, Box<Wrong>> {
        match &inst.op {
            Op::Load(access) => self.load(warp, inst, *access, lanes)?,
            Op::Store(access) => self.store(warp, inst, *access, lanes)?,
            Op::LoadParameter(access) => self.load_parameter(warp, inst, *access, lanes)?,
            Op::Atomic(atomic) => self.atomic(warp, inst, *atomic, lanes)?,
            Op::Shuffle(mode) => self.shuffle(warp, inst, *mode, lanes)?,
            Op::Vote(vote) => self.vote(warp, inst, *vote, lanes)?,
            Op::ActiveMask => self.active_mask(warp, inst, lanes)?,
            Op::Reduce(combine) => self.reduce(warp, inst, *combine, lanes)?,
            Op::Elect => self.elect(warp, inst, lanes)?,
            Op::WarpSync => self.warp_sync(warp, inst, lanes)?,
            Op::Barrier(aligned) => return self.barrier(warp, inst, lanes, *aligned),
            Op::BarrierArrive => return self.barrier_arrive(warp, inst, lanes),
            Op::Nothing => {}
            Op::Fence => self.device_fence(warp),
            Op::ProxyFence { shared: true } => {
                warp.clock.fence(warp.agent);
                self.show_barriers(warp);
            }
            // What other launches wrote is there before a launch begins, or after `griddepcontrol.wait`.
            Op::ProxyFence { shared: false } => {}
            Op::Tensor(tensor) => return self.tensor(warp, inst, *tensor, lanes),
            Op::Async(form) => return self.copy(warp, inst, *form, lanes),
            Op::Sleep => {
                warp.state = State::Spinning;
                return Ok(Then::Yield);
            }
            Op::Exit => {
                warp.exit(lanes);
                warp.pc += 1;
                return Ok(Then::Stay);
            }
            Op::Trap => return Err(Wrong::of(lanes.trailing_zeros() as usize, "the kernel traps")),
            Op::ClusterArrive { releases } => return self.cluster_arrive(warp, *releases, lanes),
            Op::ClusterWait => return self.cluster_wait(warp, lanes),
            Op::Policy => self.policy(warp, inst, lanes),
            _ => return Err(Wrong::warp("the instruction is known and not wired")),
        }
        Ok(Then::Next)
    }

    /// A fault of what runs beside the warps.
    #[cold]
    pub(super) fn fault_at(&self, line: u32, block: usize, what: String) -> Box<Fault> {
        Box::new(Fault {
            kernel: self.program.name.clone(),
            line,
            text: self.program.line(line).into(),
            block: self.first + block as u32,
            thread: None,
            what,
        })
    }

    /// A fault with its place.
    #[cold]
    pub(super) fn fault(&self, warp: &Warp, wrong: Wrong) -> Box<Fault> {
        let line = self.program.code.get(warp.pc as usize).map_or(0, |inst| inst.line);
        Box::new(Fault {
            kernel: self.program.name.clone(),
            line,
            text: self.program.line(line).into(),
            block: self.first + warp.block as u32,
            thread: wrong.lane.map(|lane| 32 * warp.index as u32 + lane),
            what: wrong.what,
        })
    }
}
