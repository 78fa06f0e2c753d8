//! Asynchronous copies.
//!
//! `cp.async` moves its bytes at once and hides them: shared memory counts as the target of a copy until the thread waits
//! for its group. TMA copies are made by agents of their own in the asynchronous proxy; what they bring is there after the
//! round in which they were started, when they tell their mbarrier so.

use super::block::{Machine, Then};
use super::memory::{Target, lanes_of, who};
use super::op::Inst;
use super::phases::Place;
use super::program::{Arg, Reg};
use super::warp::Warp;
use crate::async_copy::tensor_map::{box_bytes, pieces};
use crate::async_copy::{Groups, Piece, TensorMapError};
use crate::fault::{Fault, Wrong};
use crate::forms::LANES;
use crate::forms::copies::Async;
use crate::forms::memory::Space;
use crate::memory::{SECTOR_BYTES, Who};
use sinter_ir::TensorMap;

type Done = Result<(), Box<Wrong>>;

/// Sixteen bytes of global memory, and which of them were ever written.
#[derive(Clone, Copy, Default)]
struct Chunk {
    /// Where they go in shared memory.
    shared: u32,
    words: [u32; 4],
    set: u16,
}

/// A `cp.async` under way.
#[derive(Clone, Copy)]
pub(super) struct Small {
    block: usize,
    bytes: u32,
    chunk: Chunk,
}

/// A TMA copy to shared memory under way.
pub(super) struct Transfer {
    barrier: Place,
    block: usize,
    chunks: Vec<Chunk>,
    bytes: u32,
    agent: usize,
    clock: Vec<u32>,
    line: u32,
}

/// The asynchronous copies of a cluster.
#[derive(Default)]
pub(super) struct Copies {
    /// By thread: `cp.async`.
    pub(super) small: Vec<Groups<Small>>,
    /// By thread: bulk stores, each with its line and the time of its agent.
    pub(super) stores: Vec<Groups<(u32, usize, u32)>>,
    /// TMA loads under way, oldest first.
    transfers: Vec<Transfer>,
    /// The time of each agent.
    times: Vec<u32>,
}

impl Copies {
    /// No copies of so many warps with so many agents.
    pub(super) fn new(warps: usize, agents: usize) -> Copies {
        Copies {
            small: (0..warps * LANES).map(|_| Groups::default()).collect(),
            stores: (0..warps * LANES).map(|_| Groups::default()).collect(),
            transfers: Vec::new(),
            times: vec![0; agents],
        }
    }
}

impl Chunk {
    /// The words with the bytes of each that are set.
    fn parts(&self) -> impl Iterator<Item = (u32, u32, u8)> {
        let part =
            |at: usize| (self.shared + 4 * at as u32, self.words[at], (self.set >> (4 * at) & 15) as u8);
        (0..4).map(part)
    }
    /// Puts bytes at a place.
    fn put(&mut self, at: u32, value: u32, bytes: u32, set: u16) {
        self.words[(at / 4) as usize] |= value << (8 * (at % 4));
        self.set |= (set & ((1 << bytes) - 1)) << at;
    }
}

impl Machine<'_> {
    /// An instruction of the asynchronous copies.
    pub(super) fn copy(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        form: Async,
        lanes: u32,
    ) -> Result<Then, Box<Wrong>> {
        let thread = |lane: usize| warp.agent * LANES + lane;
        match form {
            Async::Barrier(form) => return self.phase(warp, inst, form, lanes),
            Async::ShowBarriers => self.show_barriers(warp),
            Async::Small => self.small_copy(warp, inst, lanes)?,
            Async::SmallCommit => lanes_of(lanes).for_each(|lane| self.copies.small[thread(lane)].commit()),
            Async::SmallWait => self.small_wait(warp, inst, lanes)?,
            Async::SmallArrive { counted } => self.small_arrive(warp, inst, lanes, counted)?,
            Async::BulkLoad => self.bulk_load(warp, inst, lanes)?,
            Async::BulkStore => self.bulk_store(warp, inst, lanes)?,
            Async::TensorLoad(rank) => self.tensor_load(warp, inst, lanes, rank)?,
            Async::TensorStore(rank) => self.tensor_store(warp, inst, lanes, rank)?,
            Async::BulkCommit => lanes_of(lanes).for_each(|lane| self.copies.stores[thread(lane)].commit()),
            Async::BulkWait => self.bulk_wait(warp, inst, lanes)?,
        }
        Ok(Then::Next)
    }

    /// Reads up to four bytes of global memory that do not cross a word: the value, and which bytes are set.
    fn fetch(&mut self, address: u64, bytes: u32) -> Result<(u32, u16), String> {
        let found = self.memory.find(address, u64::from(bytes), &mut self.last);
        let allocation = found.map_err(|what| format!("out of bounds: {what}"))?;
        let offset = address - allocation.base;
        let sector = offset / SECTOR_BYTES;
        self.counters.dram_sectors_read += u64::from(allocation.first_read(sector, self.launch.serial));
        let mut set = (1 << bytes) - 1;
        if allocation.unset(offset, u64::from(bytes)).is_some() {
            let is_set = |byte: &u32| allocation.unset(offset + u64::from(*byte), 1).is_none();
            set = (0..bytes).filter(is_set).fold(0, |set, byte| set | 1 << byte);
        }
        Ok((allocation.load(offset, u64::from(bytes)), set))
    }

    /// Puts bytes of global memory into a chunk, from `at` on.
    fn fetch_into(&mut self, chunk: &mut Chunk, at: u32, address: u64, bytes: u32) -> Result<(), String> {
        let mut done = 0;
        while done < bytes {
            let (from, to) = (address + u64::from(done), at + done);
            let step = [4, 2, 1]
                .into_iter()
                .find(|step| from % u64::from(*step) == 0 && to % step == 0 && done + step <= bytes);
            let step = step.unwrap_or(1);
            let (value, set) = self.fetch(from, step)?;
            chunk.put(to, value, step, set);
            done += step;
        }
        Ok(())
    }

    /// `cp.async`
    fn small_copy(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let to = self.places(warp, &args[0], lanes)?;
        let from = addresses(warp, &args[1], lanes)?;
        let size = self.uniform(warp, &args[2], lanes)?;
        if ![4, 8, 16].contains(&size) {
            return Err(Wrong::warp(format!("cp.async copies 4, 8 or 16 bytes, found {size}")));
        }
        let there = match args.get(3) {
            Some(Arg::Reg(Reg::Word(at))) => *warp.word(*at, lanes)?,
            _ => [size; LANES],
        };
        self.counters.global_requests += 1;
        for lane in lanes_of(lanes) {
            let wrong = |what: String| Wrong::of(lane, what);
            let ((block, shared), from, bytes) = (to[lane], from[lane], there[lane]);
            if shared % size != 0 || from % u64::from(size) != 0 {
                return Err(wrong(format!(
                    "misaligned: {size} bytes from {from:#x} to shared address {shared:#x}"
                )));
            }
            if bytes > size {
                return Err(wrong(format!("cp.async of {size} bytes with {bytes} bytes in its source")));
            }
            // What is not in the source is zero.
            let all = ((1u32 << size) - 1) as u16;
            let mut chunk = Chunk { shared, words: [0; 4], set: all & !((1u32 << bytes) - 1) as u16 };
            self.fetch_into(&mut chunk, 0, from, bytes).map_err(wrong)?;
            if bytes > 0 {
                self.watch_read(warp, from, u64::from(bytes)).map_err(wrong)?;
            }
            let who = who(warp, lane as u8, inst.line);
            self.blocks[block].shared.start_copy(&who, shared, size).map_err(wrong)?;
            self.copies.small[warp.agent * LANES + lane].begin(Small { block, bytes: size, chunk });
        }
        self.counters.global_sectors += u64::from((lanes.count_ones() * size).div_ceil(SECTOR_BYTES as u32));
        Ok(())
    }

    /// Shows the bytes of `cp.async` to the thread that waited for them.
    fn show(&mut self, warp: &Warp, (lane, line): (usize, u32), copies: &[Small]) {
        let who = who(warp, lane as u8, line);
        for small in copies {
            for (address, value, set) in small.chunk.parts().take(small.bytes as usize / 4) {
                self.blocks[small.block].shared.end_copy(&who, address, value, set);
            }
        }
    }

    /// `cp.async.wait_group` and `cp.async.wait_all`
    fn small_wait(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32) -> Done {
        let args = self.program.lists.get(inst.list as usize).map_or(&[][..], Vec::as_slice);
        let newest = args.first().map(|arg| self.uniform(warp, arg, lanes)).transpose()?;
        for lane in lanes_of(lanes) {
            let groups = &mut self.copies.small[warp.agent * LANES + lane];
            let done = match newest {
                Some(newest) => groups.wait(newest as usize),
                None => groups.wait_all(),
            };
            self.show(warp, (lane, inst.line), &done);
        }
        Ok(())
    }

    /// `cp.async.mbarrier.arrive`: the copies of the thread so far end here at the latest, and then it arrives. Without
    /// `.noinc` the phase waits for one arrival more, which is this one.
    fn small_arrive(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32, counted: bool) -> Done {
        for lane in lanes_of(lanes) {
            let done = self.copies.small[warp.agent * LANES + lane].wait_all();
            self.show(warp, (lane, inst.line), &done);
        }
        let args = &self.program.lists[inst.list as usize];
        let places = self.places(warp, &args[0], lanes)?;
        for lane in lanes_of(lanes) {
            let phased = self.phased(warp, (lane, inst.line), places[lane])?;
            phased.arrive_for(&warp.clock, u32::from(counted)).map_err(|what| Wrong::of(lane, what))?;
        }
        warp.clock.seen[warp.agent] += 1;
        self.progress += 1;
        Ok(())
    }

    /// The agent that copies for an mbarrier, or stores for a warp, and its next time.
    pub(super) fn copy_agent(&mut self, key: u32) -> (usize, u32) {
        let agents = self.copies.times.len();
        let agent = agents - super::grid::COPY_AGENTS + key as usize % super::grid::COPY_AGENTS;
        self.copies.times[agent] += 1;
        (agent, self.copies.times[agent])
    }

    /// Starts a copy to shared memory.
    fn start(
        &mut self,
        warp: &Warp,
        (lane, line): (usize, u32),
        (block, barrier): (usize, Place),
        (chunks, bytes): (Vec<Chunk>, u32),
    ) -> Done {
        self.shown(warp, (lane, line), barrier)?;
        let (agent, time) = self.copy_agent(barrier.1 / 8);
        let mut clock = warp.clock.seen.clone();
        clock[agent] = time;
        let fenced = &warp.clock.fenced;
        let who = Who { agent, lane: 0, meetings: 1, clock: &clock, fenced, asynchronous: true, line };
        for chunk in &chunks {
            let started = self.blocks[block].shared.start_copy(&who, chunk.shared, 16);
            started.map_err(|what| Wrong::of(lane, what))?;
        }
        self.counters.global_requests += 1;
        self.counters.global_sectors += u64::from(bytes).div_ceil(SECTOR_BYTES);
        self.copies.transfers.push(Transfer { barrier, block, chunks, bytes, agent, clock, line });
        self.progress += 1;
        Ok(())
    }

    /// Ends the copies that were started before.
    pub(super) fn end_transfers(&mut self) -> Result<(), Box<Fault>> {
        for transfer in std::mem::take(&mut self.copies.transfers) {
            let Transfer { agent, clock, line, .. } = &transfer;
            let who = Who {
                agent: *agent,
                lane: 0,
                meetings: 1,
                clock,
                fenced: clock,
                asynchronous: true,
                line: *line,
            };
            for (address, value, set) in transfer.chunks.iter().flat_map(Chunk::parts) {
                self.blocks[transfer.block].shared.end_copy(&who, address, value, set);
            }
            let (block, address) = transfer.barrier;
            let told = match self.blocks[block].phased.get_mut(&address) {
                Some(phased) => phased.complete(*agent, clock[*agent], transfer.bytes),
                None => Err(format!(
                    "the mbarrier at shared address {address:#x} ended before a copy that tells it"
                )),
            };
            told.map_err(|what| self.fault_at(*line, transfer.block, what))?;
            self.progress += 1;
        }
        Ok(())
    }

    /// `cp.async.bulk` to shared memory
    fn bulk_load(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let to = self.places(warp, &args[0], lanes)?;
        let from = addresses(warp, &args[1], lanes)?;
        let size = size_of(warp, &args[2], lanes)?;
        let barriers = self.places(warp, &args[3], lanes)?;
        for lane in lanes_of(lanes) {
            let ((block, shared), from, size) = (to[lane], from[lane], size[lane]);
            let wrong = |what: String| Wrong::of(lane, what);
            check_bulk(shared, from, size).map_err(wrong)?;
            let mut chunks = Vec::new();
            for part in (0..size).step_by(16) {
                let mut chunk = Chunk { shared: shared + part, ..Chunk::default() };
                self.fetch_into(&mut chunk, 0, from + u64::from(part), 16).map_err(wrong)?;
                chunks.push(chunk);
            }
            self.watch_read(warp, from, u64::from(size)).map_err(wrong)?;
            self.start(warp, (lane, inst.line), (block, barriers[lane]), (chunks, size))?;
        }
        Ok(())
    }

    /// `cp.async.bulk.tensor` to shared memory
    fn tensor_load(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32, rank: u8) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let to = self.places(warp, &args[0], lanes)?;
        let barriers = self.places(warp, &args[2], lanes)?;
        for lane in lanes_of(lanes) {
            let (map, at) = self.tensor_map(warp, &args[1], (lane, lanes), rank)?;
            let (block, shared) = to[lane];
            let mut chunks: Vec<Chunk> = Vec::new();
            let copied = pieces(&map, &at, shared, &mut |piece: Piece| {
                let (start, from) = (piece.shared & !15, piece.shared % 16);
                if chunks.last().is_none_or(|chunk| chunk.shared != start) {
                    chunks.push(Chunk { shared: start, ..Chunk::default() });
                }
                let Some(chunk) = chunks.last_mut() else { return Ok(()) };
                match piece.global {
                    Some(address) => {
                        self.fetch_into(chunk, from, address, piece.bytes).map_err(Refused)?;
                        self.watch_read(warp, address, u64::from(piece.bytes)).map_err(Refused)
                    }
                    None => {
                        chunk.set |= (((1u32 << piece.bytes) - 1) << from) as u16;
                        Ok(())
                    }
                }
            });
            copied.map_err(|Refused(what)| Wrong::of(lane, what))?;
            let bytes = box_bytes(&map);
            self.start(warp, (lane, inst.line), (block, barriers[lane]), (chunks, bytes))?;
        }
        Ok(())
    }

    /// A tensor map and the coordinates of a lane.
    pub(super) fn tensor_map(
        &self,
        warp: &Warp,
        arg: &Arg,
        (lane, lanes): (usize, u32),
        rank: u8,
    ) -> Result<(TensorMap, Vec<i32>), Box<Wrong>> {
        let Arg::Tensor(base, offset, registers) = arg else {
            return Err(Wrong::of(lane, "an operand is no tensor map with coordinates"));
        };
        if registers.len() != usize::from(rank) {
            return Err(Wrong::of(
                lane,
                format!("{} coordinates for a copy of {rank} dimensions", registers.len()),
            ));
        }
        let address = warp.long(*base, lanes)?[lane].wrapping_add(*offset as u64);
        let place = match self.target(Space::Generic, address, warp.block) {
            Ok(Target::Param(place)) => place,
            _ => return Err(Wrong::of(lane, format!("{address:#x} is no tensor map among the parameters"))),
        };
        let found = self.launch.tensor_maps.iter().find(|(offset, _)| u64::from(*offset) == place);
        let Some((_, map)) = found else {
            return Err(Wrong::of(lane, format!("no tensor map lies at byte {place} of the parameters")));
        };
        let mut at = Vec::new();
        for register in registers {
            match *register {
                Reg::Word(register) => at.push(warp.word(register, lanes)?[lane] as i32),
                _ => return Err(Wrong::of(lane, "a coordinate is no 32-bit register")),
            }
        }
        Ok((map.clone(), at))
    }
}

/// Why a copy is refused.
struct Refused(String);

impl From<TensorMapError> for Refused {
    fn from(error: TensorMapError) -> Refused {
        Refused(error.to_string())
    }
}

/// Addresses by lane.
pub(super) fn addresses(warp: &Warp, arg: &Arg, lanes: u32) -> Result<[u64; LANES], Box<Wrong>> {
    let Arg::Address(base, offset) = *arg else {
        return Err(Wrong::warp("an operand is no address"));
    };
    Ok(warp.long(base, lanes)?.map(|base| base.wrapping_add(offset as u64)))
}

/// Sizes by lane.
pub(super) fn size_of(warp: &Warp, arg: &Arg, lanes: u32) -> Result<[u32; LANES], Box<Wrong>> {
    match *arg {
        Arg::Reg(Reg::Word(at)) => Ok(*warp.word(at, lanes)?),
        _ => Err(Wrong::warp("a size is no 32-bit register")),
    }
}

/// The rules of `cp.async.bulk`.
pub(super) fn check_bulk(shared: u32, global: u64, size: u32) -> Result<(), String> {
    if !shared.is_multiple_of(16) || !global.is_multiple_of(16) || !size.is_multiple_of(16) || size == 0 {
        return Err(format!(
            "a bulk copy of {size} bytes between {global:#x} and shared address {shared:#x}; all must be multiples of 16"
        ));
    }
    Ok(())
}
