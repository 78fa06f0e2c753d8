//! What is done with the sums at each point: the program's stores.

use super::Job;
use super::tiles::Sums;
use crate::emit::{Float, Int};
use crate::lower::Scope;
use sinter_codegen_schedule::contract::Unit;
use sinter_ir::{AxisId, ExprId, Index, ParamId, Stage};

/// Stores at all points of a warp's tile whose sums are fragments of `mma.m16n8k16` with rows as the 16-row operand.
pub(super) fn store<'k>(job: &Job<'_, 'k>, sums: &[Sums<'k>]) {
    debug_assert!(job.found.unit() != Some(Unit::Fma));
    let (k, schedule) = (job.k, job.schedule);
    let warps = schedule.warps.1 as i32;
    let (lane, warp) = (k.lane(), k.warp());
    let row = warp.divided(warps) * schedule.warp_rows() as i32 + (lane >> 2);
    let column = warp.modulo(warps) * schedule.warp_columns() as i32 + (lane & 3) * 2;
    for tile in 0..schedule.warp_rows() as usize / 16 {
        for eight in 0..schedule.warp_columns() as usize / 8 {
            for half in 0..2 {
                let at = (row + (tile * 16 + half * 8) as i32, column + (eight * 8) as i32);
                let values: Vec<[Float<'k>; 2]> = sums
                    .iter()
                    .map(|sums| [sums[tile][eight][half * 2], sums[tile][eight][half * 2 + 1]])
                    .collect();
                side_by_side(job, at, &values);
            }
        }
    }
}

/// The stores at `N` columns side by side, the first of which is a multiple of `N`; `sums` has those of each product.
pub(super) fn side_by_side<'k, const N: usize>(
    job: &Job<'_, 'k>,
    (row, column): (Int<'k>, Int<'k>),
    sums: &[[Float<'k>; N]],
) {
    let (k, (rows, columns)) = (job.k, job.used());
    let global = (job.first.0 + row, job.first.1 + column);
    let row_exists = row.lt(rows) & global.0.lt(job.extent.0);
    let together = columns >= N as i32 && job.found.n_columns.coeff.is_multiple_of(N as u64);
    if together {
        let exists = row_exists & global.1.lt(job.extent.1);
        k.when(exists, || {
            let mut scope = job.at(global.0, global.1);
            for (product, sums) in job.found.products.iter().zip(sums) {
                scope = scope.with_results(product.stage, sums.to_vec());
            }
            stores(&scope, Some((job.found.column, N as u32)));
        });
        return;
    }
    for at in 0..N {
        let exists = row_exists & (column + at as i32).lt(columns) & (global.1 + at as i32).lt(job.extent.1);
        k.when(exists, || {
            let mut scope = job.at(global.0, global.1 + at as i32);
            for (product, sums) in job.found.products.iter().zip(sums) {
                scope = scope.with_result(product.stage, sums[at]);
            }
            stores(&scope, None);
        });
    }
}

/// All stores of the program, of one column or of neighbouring ones.
fn stores(scope: &Scope<'_, '_>, lanes: Option<(AxisId, u32)>) {
    for stage in &scope.tile.stages {
        if let Stage::Store { axes, param, index, value } = stage {
            over(scope, axes, &mut |scope| store_one(scope, lanes, (*param, index, *value)));
        }
    }
}

fn store_one(
    scope: &Scope<'_, '_>,
    lanes: Option<(AxisId, u32)>,
    (param, index, value): (ParamId, &[Index], ExprId),
) {
    match lanes {
        Some((lane, width)) => {
            let values = scope.values(value, lane, width);
            scope.store_lanes(param, index, lane, &values);
        }
        None => scope.store(param, index, scope.value(value)),
    }
}

/// Calls `body` at every iteration of axes beyond the grid.
fn over<'a, 'k>(scope: &Scope<'a, 'k>, axes: &[AxisId], body: &mut dyn FnMut(&Scope<'a, 'k>)) {
    let Some((axis, rest)) = axes.split_first() else { return body(scope) };
    scope.k.rolled_range((0, scope.extent(*axis), 1), (), |at, ()| {
        over(&scope.with_axis(*axis, at), rest, body);
    });
}
