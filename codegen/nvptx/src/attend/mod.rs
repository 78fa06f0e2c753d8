//! Kernels of attention: programs with an online softmax.
//!
//! All of them go through the context in blocks of 64 positions and splits of 512 (see
//! [`sinter_codegen_schedule::attend`]), so which one runs does not show in a bit of the result.
//! `chains` takes any element types and multiplies with fused multiply-adds, a warp for each row. `tiles` (many tokens)
//! and `splits` (few) use tensor cores where queries, keys and values are bf16. Both hold scores as fragments of
//! `mma.sync` (`fragment`), read keys and values through shared memory (`stage`), and differ in who does what: in a tile
//! a warp has 16 rows to itself and all of their context; of a split the warps share 16 rows, each with a part of the
//! positions and then of the lanes. `warpgroups` does on Hopper what `tiles` does, with tensor copies (`ring`) and `wgmma`.

mod chains;
mod fragment;
mod kept;
mod point;
mod query;
mod ring;
mod rows;
mod splits;
mod stage;
mod tiles;
mod warpgroups;

use crate::emit::{Assembled, Assembler, Entry, K, REGISTERS_AT_START};
use crate::lower::Scope;
use crate::{Error, Piece};
use sinter_codegen_schedule::attend::{Attend, AttendSchedule, FRAGMENT, GROUP_ROWS, SPLIT};
use sinter_ir::{Blocks, Dim, GpuKernel, GpuParam, Id, Target, TileProgram};

/// A kernel to be written.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The entry's name.
    pub name: &'a str,
    /// The program.
    pub tile: &'a TileProgram,
    /// Its structure.
    pub attend: &'a Attend,
    /// How it is run.
    pub schedule: AttendSchedule,
    /// Which parameters are weights.
    pub constant: &'a [bool],
}

/// The kernel of a program of that structure.
pub fn compile(
    assembler: &Assembler,
    name: String,
    (piece, schedule): (&Piece<'_>, AttendSchedule),
) -> Result<GpuKernel, Error> {
    let attend = Attend::of(piece.tile)
        .map_err(|reason| Error::Unsupported { kernel: piece.tile.name.clone(), reason })?;
    let constant = &piece.constant;
    kernel(assembler, Job { name: &name, tile: piece.tile, attend: &attend, schedule, constant })
}

/// The kernel. Its arguments are the program's parameters in order.
pub fn kernel(assembler: &Assembler, job: Job<'_>) -> Result<GpuKernel, Error> {
    let entry = entry(&job);
    let waits = assembler.target() == Target::Sm90a;
    let Assembled { ptx, shared_bytes } = assembler.kernel(&entry, |k| {
        if waits {
            k.wait_for_launch();
            k.let_next_launch_start();
        }
        body(k, &job);
    })?;
    Ok(GpuKernel {
        name: entry.name,
        ptx,
        params: entry.params,
        grid: grid(&job),
        persistent: None,
        threads: entry.threads,
        shared_bytes,
        cluster: 1,
        dependent_launch: waits,
        scratch: scratch(&job),
    })
}

/// The outside of the kernel.
fn entry(job: &Job<'_>) -> Entry {
    let mut params: Vec<GpuParam> = (0..job.tile.params.len()).map(GpuParam::Address).collect();
    params.push(GpuParam::Symbols);
    let max_registers = match job.schedule {
        AttendSchedule::Rows { .. } | AttendSchedule::Tiles { .. } => None,
        AttendSchedule::Splits { .. } => {
            params.push(GpuParam::Scratch);
            None
        }
        AttendSchedule::Warpgroups { groups, .. } => {
            params.extend(ring::tensor_maps(job));
            Some(if groups > 1 { REGISTERS_AT_START } else { 255 })
        }
    };
    Entry {
        name: job.name.into(),
        params,
        threads: job.schedule.threads(),
        max_registers,
        // Without any number ptxas takes few registers and spills.
        min_blocks: max_registers.is_none().then_some(1),
    }
}

/// The body of the kernel.
fn body<'k>(k: K<'k>, job: &Job<'_>) {
    match job.schedule {
        AttendSchedule::Rows { warps } => chains::write(k, job, warps),
        AttendSchedule::Splits { stages } => splits::write(k, job, stages),
        AttendSchedule::Tiles { warps, stages } => tiles::write(k, job, (warps, stages)),
        AttendSchedule::Warpgroups { groups, stages } => warpgroups::write(k, job, (groups, stages)),
    }
}

impl Job<'_> {
    /// The scope for keys and values. Where no bound is proved, a mask alone may say that a position has none, and its
    /// address is moved inside.
    fn reach<'a, 'k>(&self, scope: &Scope<'a, 'k>) -> Scope<'a, 'k> {
        let unknown = self.attend.to.is_none() && !self.attend.contexts.is_empty();
        if unknown { scope.careful() } else { scope.clone() }
    }
}

/// Heads of a group and tokens that a block has room for.
fn room(job: &Job<'_>) -> (u32, u32) {
    match job.schedule {
        AttendSchedule::Rows { warps } => (warps, 1),
        AttendSchedule::Splits { .. } => (job.attend.group_part(FRAGMENT), 1),
        AttendSchedule::Tiles { warps, .. } => of_rows(job, warps * FRAGMENT),
        AttendSchedule::Warpgroups { groups, .. } => of_rows(job, groups * GROUP_ROWS),
    }
}

/// The same for so many rows.
fn of_rows(job: &Job<'_>, rows: u32) -> (u32, u32) {
    (job.attend.group_part(rows), job.attend.tokens_in(rows))
}

fn grid(job: &Job<'_>) -> Vec<Blocks> {
    let (heads, tokens) = room(job);
    let extent = |axis| job.tile.axes[axis].extent;
    let mut grid = vec![Blocks { extent: extent(job.attend.tokens), per_block: tokens.into() }];
    grid.extend(job.attend.heads.iter().map(|axis| Blocks { extent: extent(*axis), per_block: 1 }));
    grid.extend(job.attend.group.map(|axis| Blocks { extent: extent(axis), per_block: heads.into() }));
    if matches!(job.schedule, AttendSchedule::Splits { .. }) {
        grid.push(Blocks { extent: extent(job.attend.context), per_block: SPLIT.into() });
    }
    grid
}

fn scratch(job: &Job<'_>) -> Vec<Dim> {
    if matches!(job.schedule, AttendSchedule::Splits { .. }) { splits::scratch(job) } else { Vec::new() }
}

/// The number of iterations of the axes of heads together: constant, as the structure demands.
fn heads(job: &Job<'_>) -> u64 {
    let heads = job.attend.heads.iter().map(|axis| job.tile.axes[*axis].extent.coeff).product::<u64>();
    let parts = u64::from(job.attend.sizes.group.div_ceil(room(job).0));
    debug_assert!(job.attend.online.index() < job.tile.stages.len());
    heads * parts
}
