//! What a launch did, in numbers.

use crate::forms::Class;
use std::ops::AddAssign;

/// What one launch, or several, did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions by class, in the order of [`Class::ALL`], each counted once for a warp.
    pub instructions: [u64; 10],
    /// The same for each lane that took part.
    pub lane_instructions: [u64; 10],
    /// Distinct 32-byte sectors that a launch reads without having written them.
    pub dram_sectors_read: u64,
    /// Distinct 32-byte sectors that a launch writes.
    pub dram_sectors_written: u64,
    /// Accesses of global memory by a warp: loads, stores and atomics.
    pub global_requests: u64,
    /// Sectors that they touch: 4 a request for whole warps of 32-bit words side by side.
    pub global_sectors: u64,
    /// Accesses of shared memory by a warp.
    pub shared_requests: u64,
    /// Turns of the 32 banks that they take beyond those that their bytes need.
    pub bank_conflicts: u64,
    /// `mma.sync` and `wgmma` instructions, once for a warp or warpgroup.
    pub matrix_instructions: u64,
    /// Multiplications and additions of those.
    pub matrix_flops: u64,
}

impl Counters {
    /// Bytes that a launch must read from DRAM.
    pub fn dram_bytes_read(&self) -> u64 {
        self.dram_sectors_read * crate::memory::SECTOR_BYTES
    }
    /// Bytes that a launch writes to DRAM.
    pub fn dram_bytes_written(&self) -> u64 {
        self.dram_sectors_written * crate::memory::SECTOR_BYTES
    }
    /// Instructions of all classes, once for a warp.
    pub fn warp_instructions(&self) -> u64 {
        self.instructions.iter().sum()
    }
    /// Instructions of a class, once for a warp.
    pub fn of(&self, class: Class) -> u64 {
        self.instructions[class as usize]
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        for (mine, theirs) in self.instructions.iter_mut().zip(other.instructions) {
            *mine += theirs;
        }
        for (mine, theirs) in self.lane_instructions.iter_mut().zip(other.lane_instructions) {
            *mine += theirs;
        }
        self.dram_sectors_read += other.dram_sectors_read;
        self.dram_sectors_written += other.dram_sectors_written;
        self.global_requests += other.global_requests;
        self.global_sectors += other.global_sectors;
        self.shared_requests += other.shared_requests;
        self.bank_conflicts += other.bank_conflicts;
        self.matrix_instructions += other.matrix_instructions;
        self.matrix_flops += other.matrix_flops;
    }
}
