//! A launch: clusters on several threads, each the whole of its work, in the order of their numbers.

use super::block::Cluster;
use super::program::Program;
use crate::counters::Counters;
use crate::fault::Fault;
use crate::memory::{GlobalMemory, MOST_AGENTS};
use sinter_ir::{Target, TensorMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// Agents beside the warps: copies, by mbarrier.
pub(super) const COPY_AGENTS: usize = 8;

/// A launch with everything known.
pub struct Launch {
    /// Blocks, along x.
    pub blocks: u32,
    /// Threads in a block.
    pub threads: u32,
    /// Blocks in a cluster.
    pub cluster: u32,
    /// Shared memory of a block in bytes, with what the kernel declares.
    pub shared_bytes: u32,
    /// The dynamic part of it.
    pub dynamic_shared: u32,
    /// The parameters as bytes.
    pub params: Vec<u8>,
    /// Tensor maps among them, by place.
    pub tensor_maps: Vec<(u32, TensorMap)>,
    /// The generation of the device.
    pub device: Target,
    /// A number that no other launch has.
    pub serial: u32,
    /// The most instructions of warps that a cluster may do.
    pub most_instructions: u64,
    /// Threads of this machine that work on it.
    pub workers: u32,
}

impl Launch {
    /// Warps of a cluster, their warpgroups' matrix products, and copies.
    pub(super) fn agents(&self) -> usize {
        let warps = self.threads.div_ceil(32) as usize * self.cluster as usize;
        warps + warps.div_ceil(4) + COPY_AGENTS
    }

    /// Whether its agents can be told apart.
    pub fn check_agents(&self) -> Result<(), String> {
        match self.agents() {
            agents if agents > MOST_AGENTS => Err(format!(
                "a cluster of {} blocks of {} threads has more warps than the race detector tells apart",
                self.cluster, self.threads
            )),
            _ => Ok(()),
        }
    }
}

/// What the workers leave: the counters, and the fault of the first cluster that has one.
type Found = (Counters, Option<(u32, Box<Fault>)>);

/// Runs a launch. Of several faults it is that of the first cluster that is told.
pub fn run(launch: &Launch, program: &Program, memory: &GlobalMemory) -> Result<Counters, Box<Fault>> {
    let clusters = launch.blocks / launch.cluster.max(1);
    let (next, limit) = (AtomicU32::new(0), AtomicU32::new(clusters));
    let found: Mutex<Found> = Mutex::default();
    let work = || {
        let mut cluster = Cluster::new(launch, program, memory);
        let mut fault = None;
        loop {
            let at = next.fetch_add(1, SeqCst);
            if at >= limit.load(SeqCst) {
                break;
            }
            if let Err(wrong) = cluster.run(at * launch.cluster) {
                limit.fetch_min(at, SeqCst);
                fault = Some((at, wrong));
                break;
            }
        }
        let mut found = found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        found.0 += cluster.counters();
        let first = |(at, _): &(u32, Box<Fault>)| found.1.as_ref().is_none_or(|(other, _)| at < other);
        if fault.as_ref().is_some_and(first) {
            found.1 = fault;
        }
    };
    match launch.workers.min(clusters) {
        0 | 1 => work(),
        workers => std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(work);
            }
            work();
        }),
    }
    match found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        (counters, None) => Ok(counters),
        (_, Some((_, fault))) => Err(fault),
    }
}
