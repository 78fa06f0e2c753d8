//! The schedules that are worth a measurement, and their kernels.

use super::database::Rows;
use anyhow::{Context, Result};
use sinter_codegen_host::micro::Isa;
use sinter_codegen_host::{Choice, Choices, Cost, Machine, Size, compile_as, ranked};
use sinter_ir::{HostKernel, KernelId, Plan, TileProgram};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Scratch memory of a thread that a schedule may want.
const MOST_SCRATCH: usize = 64 << 20;

/// How much of a space is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Candidates of a kernel.
    pub most: usize,
    /// A candidate that the cost model thinks so many times slower than the best is left out.
    pub slower: f64,
}

impl Limit {
    /// Everything.
    pub const ALL: Limit = Limit { most: usize::MAX, slower: f64::INFINITY };

    /// So many at most, and none that is hopeless.
    pub fn best(most: usize) -> Self {
        Self { most, slower: 2.0 }
    }
}

/// What a kernel could be for some rows.
#[derive(Debug)]
pub struct Space {
    /// The kernel in the plan.
    pub kernel: KernelId,
    /// The rows.
    pub rows: Rows,
    /// The model's choice first, the others by their estimated time.
    pub candidates: Vec<Candidate>,
    /// Schedules that the model or a gate dropped.
    pub dropped: usize,
}

/// One schedule.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The schedule.
    pub choice: Choice,
    /// What the model thinks of it.
    pub cost: Cost,
    /// Its code.
    pub built: HostKernel,
}

/// What stands for launches of so many rows.
pub fn size(rows: Rows) -> Size {
    match rows {
        Rows::Few => Size::FEW,
        Rows::Many => Size::MANY,
    }
}

/// The spaces of a plan's kernels for some rows, compiled by several threads.
///
/// # Errors
/// If a program is malformed.
pub fn spaces(plan: &Plan, machine: &Machine, (rows, limit): (Rows, Limit)) -> Result<Vec<Space>> {
    let kernels: Vec<(KernelId, &TileProgram)> = plan.kernels.iter().collect();
    let done: Vec<Mutex<Option<Result<Space>>>> = kernels.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..machine.threads.clamp(1, kernels.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(program), Some(place)) = (kernels.get(at), done.get(at)) else { return };
                    let space = space(*program, machine, (rows, limit));
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(space);
                }
            });
        }
    });
    let take = |place: Mutex<Option<Result<Space>>>| {
        let made = place.into_inner().unwrap_or_else(PoisonError::into_inner);
        made.context("a kernel's schedules were not compiled")?
    };
    done.into_iter().map(take).collect()
}

fn space(
    (kernel, tile): (KernelId, &TileProgram),
    machine: &Machine,
    (rows, limit): (Rows, Limit),
) -> Result<Space> {
    let all = ranked(tile, &size(rows), machine)?;
    let count = all.len();
    let least = all.first().map_or(0.0, |(_, cost)| cost.nanos());
    let mut candidates = Vec::new();
    for (choice, cost) in all {
        if candidates.len() == limit.most.max(1)
            || (!candidates.is_empty() && cost.nanos() > limit.slower * least)
        {
            break;
        }
        let built = compile_as(&[(tile, Choices { few: choice, many: choice })], Isa::detect())?;
        // The model's choice is what is run anyway, so it is never dropped.
        let first = candidates.is_empty();
        let fits = |built: &HostKernel| first || built.scratch_bytes <= MOST_SCRATCH;
        candidates.extend(built.into_iter().filter(fits).map(|built| Candidate { choice, cost, built }));
    }
    let dropped = count - candidates.len();
    Ok(Space { kernel, rows, candidates, dropped })
}
