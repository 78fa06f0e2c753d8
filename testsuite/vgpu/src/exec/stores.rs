//! Copies from shared to global memory in the asynchronous proxy.
//!
//! The bytes are read and written at once. That they may still be read is what the agent's time says, of which the thread
//! hears when it waits for the group: whoever writes the shared memory before that is in a race.

use super::block::Machine;
use super::copies::{addresses, check_bulk, size_of};
use super::memory::lanes_of;
use super::op::Inst;
use super::warp::Warp;
use crate::async_copy::tensor_map::pieces;
use crate::async_copy::{Piece, TensorMapError};
use crate::fault::{Fault, Wrong};
use crate::forms::LANES;
use crate::memory::{SECTOR_BYTES, Who};

type Done = Result<(), Box<Wrong>>;

impl Machine<'_> {
    /// Copies pieces from shared to global memory.
    fn store_pieces(
        &mut self,
        warp: &Warp,
        (lane, line): (usize, u32),
        block: usize,
        pieces: &[Piece],
    ) -> Done {
        let (agent, time) = self.copy_agent(warp.index as u32);
        let mut clock = warp.clock.seen.clone();
        clock[agent] = time;
        let fenced = &warp.clock.fenced;
        let who = Who { agent, lane: 0, meetings: 1, clock: &clock, fenced, asynchronous: true, line };
        let wrong = |what: String| Wrong::of(lane, what);
        let mut sectors: Vec<u64> = Vec::new();
        for piece in pieces {
            let Some(global) = piece.global else { continue };
            let touch = self.touch_of(warp, (agent, time));
            let found = self.memory.find(global, u64::from(piece.bytes), &mut self.last);
            let allocation = found.map_err(|what| wrong(format!("out of bounds: {what}")))?;
            let offset = global - allocation.base;
            allocation.note_write(offset, u64::from(piece.bytes), &touch).map_err(wrong)?;
            let step = if (piece.shared | piece.bytes) % 4 == 0 && offset % 4 == 0 { 4 } else { 2 };
            for part in (0..piece.bytes).step_by(step as usize) {
                let value = self.blocks[block].shared.load(&who, piece.shared + part, step).map_err(wrong)?;
                allocation.store(offset + u64::from(part), u64::from(step), value);
            }
            for sector in offset / SECTOR_BYTES..=(offset + u64::from(piece.bytes) - 1) / SECTOR_BYTES {
                let first = allocation.first_write(sector, self.launch.serial);
                self.counters.dram_sectors_written += u64::from(first);
            }
            sectors.extend(global / SECTOR_BYTES..=(global + u64::from(piece.bytes) - 1) / SECTOR_BYTES);
        }
        sectors.sort_unstable();
        sectors.dedup();
        self.counters.global_requests += 1;
        self.counters.global_sectors += sectors.len() as u64;
        self.copies.stores[warp.agent * LANES + lane].begin((line, agent, time));
        self.progress += 1;
        Ok(())
    }

    /// `cp.async.bulk` to global memory
    pub(super) fn bulk_store(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let to = addresses(warp, &args[0], lanes)?;
        let from = self.places(warp, &args[1], lanes)?;
        let size = size_of(warp, &args[2], lanes)?;
        for lane in lanes_of(lanes) {
            let ((block, shared), to, size) = (from[lane], to[lane], size[lane]);
            check_bulk(shared, to, size).map_err(|what| Wrong::of(lane, what))?;
            let piece = |part| Piece { shared: shared + part, global: Some(to + u64::from(part)), bytes: 16 };
            let all: Vec<Piece> = (0..size).step_by(16).map(piece).collect();
            self.store_pieces(warp, (lane, inst.line), block, &all)?;
        }
        Ok(())
    }

    /// `cp.async.bulk.tensor` to global memory
    pub(super) fn tensor_store(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32, rank: u8) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let from = self.places(warp, &args[1], lanes)?;
        for lane in lanes_of(lanes) {
            let (map, at) = self.tensor_map(warp, &args[0], (lane, lanes), rank)?;
            let (block, shared) = from[lane];
            let mut all = Vec::new();
            let listed = pieces(&map, &at, shared, &mut |piece| -> Result<(), TensorMapError> {
                all.push(piece);
                Ok(())
            });
            listed.map_err(|error| Wrong::of(lane, error.to_string()))?;
            self.store_pieces(warp, (lane, inst.line), block, &all)?;
        }
        Ok(())
    }

    /// `cp.async.bulk.wait_group`
    pub(super) fn bulk_wait(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let newest = self.uniform(warp, &args[0], lanes)?;
        for lane in lanes_of(lanes) {
            for (_, agent, time) in self.copies.stores[warp.agent * LANES + lane].wait(newest as usize) {
                warp.clock.seen[agent] = warp.clock.seen[agent].max(time);
            }
        }
        Ok(())
    }

    /// Whether all stores were waited for: the memory that they read ends with the block.
    pub(super) fn check_stores(&self) -> Result<(), Box<Fault>> {
        for (thread, stores) in self.copies.stores.iter().enumerate() {
            if let Some((line, _, _)) = stores.under_way().next() {
                let block = thread / LANES / (self.launch.threads.div_ceil(32) as usize).max(1);
                let what = "a block ends while a bulk store may still read its shared memory: no \
                            cp.async.bulk.wait_group stands after it";
                return Err(self.fault_at(*line, block, what.into()));
            }
        }
        Ok(())
    }
}
