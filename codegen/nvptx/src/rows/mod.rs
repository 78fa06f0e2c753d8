//! The row-wise skeleton: a group of threads does each point of the grid.
//!
//! It covers every program. Stages whose result is the same for all elements of a point are computed once and together;
//! a stage that depends on the axes of a store is computed where it is used, by each thread alone.

mod reduce;
mod store;

pub use reduce::fold_of_warp;

use crate::emit::{Assembler, Bit, Entry, Int, K};
use crate::lower::Scope;
use crate::{Error, Piece};
use sinter_codegen_schedule::access::{guarded, inner_axes};
use sinter_codegen_schedule::group::{blocks_beside, tokens_and_rest};
use sinter_codegen_schedule::rows::Rows;
use sinter_ir::{Blocks, Dim, Expr, GpuKernel, GpuParam, Id, Stage, StageId, Target, TileProgram};

/// Where a thread stands in the work of a point.
#[derive(Clone, Copy)]
pub struct Place<'a, 'k> {
    /// The thread in its group.
    pub lane: Int<'k>,
    /// The schedule.
    pub rows: &'a Rows,
    /// Whether the point exists; stores are done only then.
    pub valid: Bit<'k>,
}

/// The kernel of one program, or of several side by side.
pub fn kernel(assembler: &Assembler, name: String, pieces: &[(Piece<'_>, Rows)]) -> Result<GpuKernel, Error> {
    let n_args = pieces.iter().map(|(piece, _)| piece.tile.params.len()).sum();
    let params: Vec<GpuParam> = (0..n_args).map(GpuParam::Address).chain([GpuParam::Symbols]).collect();
    let threads = pieces.iter().map(|(_, rows)| rows.threads).max().unwrap_or(32);
    let grid = grid(&name, pieces)?;
    let waits = assembler.target() == Target::Sm90a;
    let entry = Entry { name: name.clone(), params, threads, max_registers: None, min_blocks: None };
    let assembled = assembler.kernel(&entry, |k| {
        if waits {
            k.wait_for_launch();
            k.let_next_launch_start();
        }
        match pieces {
            [(piece, rows)] => alone(k, piece, rows, &grid),
            _ => side_by_side(k, pieces),
        }
    })?;
    Ok(GpuKernel {
        name,
        ptx: assembled.ptx,
        params: entry.params,
        grid,
        persistent: None,
        threads,
        shared_bytes: assembled.shared_bytes,
        cluster: 1,
        dependent_launch: waits,
        scratch: Vec::new(),
    })
}

/// One program: all points in one row, or, where that is the product of two symbols, one factor an axis. Several: so many
/// blocks for each iteration of the axis that they share.
fn grid(name: &str, pieces: &[(Piece<'_>, Rows)]) -> Result<Vec<Blocks>, Error> {
    if let [(piece, rows)] = pieces {
        let extents: Vec<Dim> = piece.tile.grid.iter().map(|axis| piece.tile.axes[*axis].extent).collect();
        let points = u64::from(rows.points());
        let all = extents.iter().try_fold(Dim::ONE, |product, extent| product.product(*extent));
        if let Some(extent) = all {
            return Ok(vec![Blocks { extent, per_block: points }]);
        }
        let last = extents.len() - 1;
        let factor = |(at, extent)| Blocks { extent, per_block: if at == last { points } else { 1 } };
        return Ok(extents.into_iter().enumerate().map(factor).collect());
    }
    let unsupported = || Error::Unsupported {
        kernel: name.into(),
        reason: "programs side by side need an outermost axis in common and constant others".into(),
    };
    let tokens = pieces.first().and_then(|(piece, _)| tokens_and_rest(piece.tile)).ok_or_else(unsupported)?.0;
    let blocks = pieces.iter().map(|(piece, rows)| blocks_beside(piece.tile, rows)).sum::<Option<u64>>();
    let blocks = Dim { coeff: blocks.ok_or_else(unsupported)?, sym: None };
    Ok(vec![Blocks { extent: tokens, per_block: 1 }, Blocks { extent: blocks, per_block: 1 }])
}

fn alone(k: K<'_>, piece: &Piece<'_>, rows: &Rows, grid: &[Blocks]) {
    let scope = Scope::new(k, piece.tile, &piece.constant, 0);
    let (lane, local) = (k.thread() & (rows.group as i32 - 1), k.thread().divided(rows.group as i32));
    let points = rows.points() as i32;
    if let [all] = grid {
        let total = scope.dim(all.extent);
        let point = k.block() * points + local;
        let place = Place { lane, rows, valid: point.lt(total) };
        // All threads of a warp take part in a fold, so a point beyond the last does the last one's work again.
        return work(located(scope, point.least(total - 1)), place);
    }
    // One factor an axis, the last fastest.
    let axes = &piece.tile.grid;
    let (mut rest, mut scope, mut valid) = (k.block(), scope, k.bit(true));
    for (at, axis) in axes.iter().enumerate().rev() {
        let extent = scope.extent(*axis);
        if at + 1 == axes.len() {
            let blocks = (extent + (points - 1)).divided(points);
            let point = rest.modulo(blocks) * points + local;
            valid = point.lt(extent);
            scope = scope.with_axis(*axis, point.least(extent - 1));
            rest = rest.divided(blocks);
        } else {
            scope = scope.with_axis(*axis, rest.modulo(extent));
            rest = rest.divided(extent);
        }
    }
    work(scope, Place { lane, rows, valid });
}

/// The axes of the grid at a point of the flattened grid.
fn located<'a, 'k>(mut scope: Scope<'a, 'k>, point: Int<'k>) -> Scope<'a, 'k> {
    let (axes, mut rest) = (&scope.tile.grid, point);
    for (at, axis) in axes.iter().enumerate().rev() {
        if at == 0 {
            return scope.with_axis(*axis, rest);
        }
        let extent = scope.extent(*axis);
        scope = scope.with_axis(*axis, rest.modulo(extent));
        rest = rest.divided(extent);
    }
    scope
}

fn side_by_side(k: K<'_>, pieces: &[(Piece<'_>, Rows)]) {
    let blocks = |(piece, rows): &(Piece<'_>, Rows)| blocks_beside(piece.tile, rows).unwrap_or(0) as i32;
    let all: i32 = pieces.iter().map(blocks).sum();
    let (token, part) = (k.block().divided(all), k.block().modulo(all));
    let (mut first_block, mut first_arg) = (0, 0);
    for item @ (piece, rows) in pieces {
        let here = part - first_block;
        k.when(here.below(blocks(item)), || {
            let (lane, local) = (k.thread() & (rows.group as i32 - 1), k.thread().divided(rows.group as i32));
            let rest = tokens_and_rest(piece.tile).map_or(1, |(_, rest)| rest) as i32;
            let point = here * rows.points() as i32 + local;
            let place = Place { lane, rows, valid: point.lt(rest) };
            let scope = Scope::new(k, piece.tile, &piece.constant, first_arg);
            // The outermost axis takes what the others leave.
            work(located(scope, token * rest + point.least(rest - 1)), place);
        });
        first_block += blocks(item);
        first_arg += piece.tile.params.len();
    }
}

/// All stages at a point.
fn work<'k>(mut scope: Scope<'_, 'k>, place: Place<'_, 'k>) {
    for (at, stage) in scope.tile.stages.iter().enumerate() {
        let id = StageId::new(at);
        match stage {
            Stage::Store { axes, param, index, value } => {
                store::store(&scope, place, place.rows.widths[at], (axes, *param, index, *value));
            }
            _ if !inner_axes(scope.tile, id).is_empty() => {}
            Stage::Reduce { axis, monoid, value } => {
                let here = if is_used_plainly(scope.tile, id) { scope.clone() } else { scope.careful() };
                let result = reduce::reduce(&here, place, place.rows.widths[at], (*axis, *monoid, *value));
                scope = scope.with_result(id, result);
            }
            Stage::Mma { .. } | Stage::Online { .. } => {
                let here = if is_used_plainly(scope.tile, id) { scope.clone() } else { scope.careful() };
                scope = scope.with_result(id, here.result(id));
            }
        }
    }
}

/// Whether some use of a stage's result is not the arm of a selection, so that the program itself computes it.
fn is_used_plainly(tile: &TileProgram, stage: StageId) -> bool {
    let plain = |root| {
        let guarded = guarded(tile, root);
        let uses = |id: &sinter_ir::ExprId| tile.exprs[*id] == Expr::Stage(stage) && !guarded[id.index()];
        tile.cone(root).iter().any(uses)
    };
    tile.stages.iter().flat_map(Stage::roots).any(plain)
}
