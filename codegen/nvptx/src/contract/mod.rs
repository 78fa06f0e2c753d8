//! Contractions: tiles of rows times columns, one accumulator each, and an epilogue.
//!
//! Every output is one chain of accumulation along the summed axis: in steps of 16 in the tensor cores for bf16 and f16,
//! of fused multiply-adds for anything else. All skeletons keep that chain, so that a schedule never changes a bit:
//!
//! - `fma`: f32 and mixed operands.
//! - `skinny`: steps of a few rows; weights go round a ring of each warp.
//! - `tiles`: `mma.sync` on tiles in shared memory, on every target; operands of any form.
//! - `warpgroups`: Hopper's tensor copies and `wgmma`, for operands that are plain aligned matrices.
//!
//! `grouped` brings rows together that have one of a stack of weights, `stage` brings operands into shared memory,
//! `coded` weights in codes, of which it makes numbers in registers,
//! `prologue` computes a norm of the rows, `epilogue` stores what was accumulated, `boxes` does so by tensor copies.

mod boxes;
mod coded;
mod epilogue;
mod fma;
mod grouped;
mod prologue;
mod skinny;
mod stage;
mod tiles;
mod warpgroups;

use crate::emit::{Assembler, Bit, Entry, Int, K, REGISTERS_AT_START};
use crate::lower::Scope;
use crate::{Error, Piece};
use sinter_codegen_schedule::contract::{self, Contract, Contraction, Kind};
use sinter_codegen_schedule::rows::Rows;
use sinter_ir::{Blocks, Dim, GpuKernel, GpuParam, Target};

/// Row tiles that follow each other before the next column begins: their operands fit the second cache together.
const BAND: i32 = 16;

/// What every part of a skeleton needs to know.
#[derive(Clone)]
struct Job<'a, 'k> {
    k: K<'k>,
    /// Nothing is known in it.
    scope: Scope<'a, 'k>,
    found: &'a Contraction,
    schedule: &'a Contract,
    /// Of each parameter, whether it is a weight.
    constant: &'a [bool],
    /// The norm whose result is the left operand, if the kernel computes it.
    prologue: Option<&'a (Piece<'a>, Rows)>,
    target: Target,
    /// The first row and the first column of the block's tile.
    first: (Int<'k>, Int<'k>),
    /// The number of rows and of columns of the whole.
    extent: (Int<'k>, Int<'k>),
    /// The rows of the tile, where rows of one weight are brought together.
    list: Option<grouped::List<'k>>,
}

/// The kernel of a contraction. With a prologue, the norm's parameters come first, and its result is stored nowhere.
pub fn kernel(
    assembler: &Assembler,
    name: String,
    piece: &Piece<'_>,
    schedule: &Contract,
    prologue: Option<&(Piece<'_>, Rows)>,
) -> Result<GpuKernel, Error> {
    let unsupported = |reason: &str| Error::Unsupported { kernel: name.clone(), reason: reason.into() };
    let found = contract::find(piece.tile).ok_or_else(|| unsupported("it is no contraction"))?;
    let used = |size: u32, shared: bool| if shared { u64::from(size) } else { 1 };
    // Blocks that follow each other have the same columns and so read the same weights.
    let grid = vec![
        Blocks { extent: found.n_columns, per_block: used(schedule.tile_columns, found.columns_share) },
        match found.group {
            Some((_, weights)) => Blocks { extent: Dim::of(weights as usize), per_block: 1 },
            None => Blocks { extent: found.n_rows, per_block: used(schedule.tile_rows, found.rows_share) },
        },
    ];
    let first_arg = prologue.map_or(0, |(norm, _)| norm.tile.params.len());
    let addresses = (0..first_arg + piece.tile.params.len()).map(GpuParam::Address);
    let mut params: Vec<GpuParam> = addresses.chain([GpuParam::Symbols]).collect();
    let persistent = (schedule.kind == Kind::Warpgroups).then_some(1);
    if persistent.is_some() {
        let sizes = (schedule.tile_rows, schedule.tile_columns);
        params.extend(warpgroups::tensor_maps(piece.tile, &found, sizes));
    }
    let threads = schedule.threads();
    // Without a limit the assembler aims at a full multiprocessor and may spill a few registers for it.
    let outputs = schedule.tile_rows * schedule.tile_columns * found.products.len() as u32;
    let max_registers = Some(match schedule.kind {
        Kind::Warpgroups => REGISTERS_AT_START,
        // The search for the rows of a weight keeps some for itself: no lower limit does without spills for every tile.
        Kind::Fma | Kind::Tiles if found.group.is_some() => 255,
        // Codes and what makes numbers of them live beside the fragments.
        Kind::Tiles if found.products.iter().any(|product| product.codes.is_some()) => 224,
        Kind::Fma | Kind::Tiles if outputs / threads <= 64 => 128,
        _ => 224,
    });
    let entry = Entry { name: name.clone(), params, threads, max_registers, min_blocks: None };
    let assembled = assembler.kernel(&entry, |k| {
        let job = Job::new(k, piece, (&found, schedule), assembler.target(), prologue);
        let body = |job: &Job<'_, '_>| match schedule.kind {
            Kind::Fma => fma::body(job),
            Kind::Tiles => tiles::body(job),
            Kind::Skinny => skinny::body(job),
            Kind::Warpgroups => warpgroups::body(job),
        };
        match &found.group {
            Some(group) => grouped::each_tile(&job, group, body),
            None => body(&job),
        }
    })?;
    Ok(GpuKernel {
        name,
        ptx: assembled.ptx,
        params: entry.params,
        grid,
        persistent,
        threads,
        shared_bytes: assembled.shared_bytes,
        cluster: 1,
        dependent_launch: assembler.target() == Target::Sm90a,
        scratch: Vec::new(),
    })
}

impl<'a, 'k> Job<'a, 'k> {
    fn new(
        k: K<'k>,
        piece: &'a Piece<'_>,
        (found, schedule): (&'a Contraction, &'a Contract),
        target: Target,
        prologue: Option<&'a (Piece<'a>, Rows)>,
    ) -> Self {
        let first_arg = prologue.map_or(0, |(norm, _)| norm.tile.params.len());
        let scope = Scope::new(k, piece.tile, &piece.constant, first_arg);
        let extent = (scope.dim(found.n_rows), scope.dim(found.n_columns));
        let first = (k.int(0), k.int(0));
        let constant = &piece.constant;
        let job = Self { k, scope, found, schedule, constant, prologue, target, first, extent, list: None };
        job.at_tile(k.block())
    }

    /// The numbers of row tiles and column tiles.
    fn tile_counts(&self) -> (Int<'k>, Int<'k>) {
        let count = |extent: Int<'k>, used: i32| (extent + (used - 1)).divided(used);
        let used = self.used();
        let rows = match self.found.group {
            Some((_, weights)) => self.k.int(weights as i32),
            None => count(self.extent.0, used.0),
        };
        (rows, count(self.extent.1, used.1))
    }

    /// The number of tiles.
    fn tiles(&self) -> Int<'k> {
        let (rows, columns) = self.tile_counts();
        rows * columns
    }

    /// The same at a tile: bands of row tiles, in each the row tiles of a column one after the other, so that what runs
    /// together reads few rows and few columns.
    fn at_tile(&self, tile: Int<'k>) -> Self {
        let ((rows, columns), used) = (self.tile_counts(), self.used());
        let band = tile.divided(columns * BAND);
        let within = tile - band * columns * BAND;
        let height = (rows - band * BAND).least(BAND).greatest(1);
        let (row, column) = (band * BAND + within.modulo(height), within.divided(height));
        // Where rows of one weight are brought together, the weight stands in place of the first row.
        let first = if self.found.group.is_some() { row } else { row * used.0 };
        Self { first: (first, column * used.1), ..self.clone() }
    }

    /// The scope at a row and a column of the whole, which must exist.
    fn at(&self, row: Int<'k>, column: Int<'k>) -> Scope<'a, 'k> {
        let (mut scope, mut rest) = (self.scope.with_axis(self.found.column, column), row);
        for (at, axis) in self.found.rows.iter().enumerate().rev() {
            if at == 0 {
                return scope.with_axis(*axis, rest);
            }
            let extent = scope.extent(*axis);
            scope = scope.with_axis(*axis, rest.modulo(extent));
            rest = rest.divided(extent);
        }
        scope
    }

    /// The rows and columns of a tile that are used: one where neighbours do not share an operand.
    fn used(&self) -> (i32, i32) {
        let used = |size: u32, shared: bool| if shared { size as i32 } else { 1 };
        (
            used(self.schedule.tile_rows, self.found.rows_share),
            used(self.schedule.tile_columns, self.found.columns_share),
        )
    }

    /// The row of the whole for a row of the tile; the last one for a row that does not exist, whose outputs are not
    /// stored.
    fn row(&self, local: Int<'k>) -> Int<'k> {
        if let Some(list) = &self.list {
            return list.row(self.k, local);
        }
        let local = if self.found.rows_share { local } else { self.k.int(0) };
        (self.first.0 + local).least(self.extent.0 - 1)
    }

    /// The row of the whole for a row of the tile, which may not exist, and whether it does.
    fn place(&self, local: Int<'k>) -> (Int<'k>, Bit<'k>) {
        if let Some(list) = &self.list {
            return (list.row(self.k, local), local.lt(list.count));
        }
        let row = self.first.0 + local;
        (row, local.lt(self.used().0) & row.lt(self.extent.0))
    }

    /// The same for a column.
    fn column(&self, local: Int<'k>) -> Int<'k> {
        let local = if self.found.columns_share { local } else { self.k.int(0) };
        (self.first.1 + local).least(self.extent.1 - 1)
    }

    /// Lets the next launch begin and waits for the one before: everything but weights may still be in the making.
    fn wait_for_inputs(&self) {
        if self.target == Target::Sm90a {
            self.k.wait_for_launch();
            self.k.let_next_launch_start();
        }
    }
}
