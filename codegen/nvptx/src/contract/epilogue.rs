//! What is done with the sums at each point: the program's stores.

use super::Job;
use super::tiles::Sums;
use crate::emit::{Bit, Float, Int};
use crate::lower::Scope;
use sinter_ir::{AxisId, ExprId, Index, ParamId, Stage};

/// Stores at all points of a warp's tile whose sums are fragments with rows as the 16-row operand (of wgmma: 16 of the 64
/// rows), the first of this thread's at a row and a column of the block's tile.
pub(super) fn store<'k>(job: &Job<'_, 'k>, sums: &[Sums<'k>], (row, column): (Int<'k>, Int<'k>)) {
    let tiles = sums.first().map_or(0, Vec::len);
    for (tile, half) in (0..tiles).flat_map(|tile| [(tile, 0), (tile, 1)]) {
        let row = row + (tile * 16 + half * 8) as i32;
        let pair =
            |sums: &Sums<'k>, eight: usize| [sums[tile][eight][half * 2], sums[tile][eight][half * 2 + 1]];
        let eights = sums[0][tile].len();
        let wide = eights.is_multiple_of(4) && job.found.n_columns.coeff.is_multiple_of(8);
        for eight in (0..eights).step_by(if wide { 4 } else { 1 }) {
            let first = column + (eight * 8) as i32;
            if wide {
                let four = |sums| [0, 1, 2, 3].map(|at| pair(sums, eight + at));
                let values: Vec<[Float<'k>; 8]> = sums.iter().map(|sums| turned(job, four(sums))).collect();
                // Lane `q` of four had columns `2q` of each eight, and now has all columns of eight `q`.
                side_by_side(job, (row, first + (job.k.lane() & 3) * 6), &values);
            } else {
                let values: Vec<[Float<'k>; 2]> = sums.iter().map(|sums| pair(sums, eight)).collect();
                side_by_side(job, (row, first), &values);
            }
        }
    }
}

/// Four lanes have a pair of columns of each of four eights; afterwards each has the four pairs of one eight, in order.
fn turned<'k>(job: &Job<'_, 'k>, pairs: [[Float<'k>; 2]; 4]) -> [Float<'k>; 8] {
    let lane = job.k.lane();
    let (odd, upper) = ((lane & 1).differs(0), (lane & 2).differs(0));
    // What a lane keeps and what it gets, in the order of the two lanes that exchange.
    let exchange = |second: Bit<'k>, bit: i32, low: Float<'k>, high: Float<'k>| {
        let got = second.select(low, high).of_lane_xor(bit);
        let kept = second.select(high, low);
        [second.select(got, kept), second.select(kept, got)]
    };
    // For each half of the eights, the pairs of this lane and its neighbour.
    let near = [0, 2].map(|at| [0, 1].map(|of| exchange(odd, 1, pairs[at][of], pairs[at + 1][of])));
    // By number of the pair: what the two lanes of this half have, then what those of the other half have.
    let far = [0, 1].map(|lane| [0, 1].map(|of| exchange(upper, 2, near[0][of][lane], near[1][of][lane])));
    let value = |pair: usize, of: usize| far[pair % 2][of][pair / 2];
    [value(0, 0), value(0, 1), value(1, 0), value(1, 1), value(2, 0), value(2, 1), value(3, 0), value(3, 1)]
}

/// The stores at `N` columns side by side, the first of which is a multiple of `N`; `sums` has those of each product.
pub(super) fn side_by_side<'k, const N: usize>(
    job: &Job<'_, 'k>,
    (row, column): (Int<'k>, Int<'k>),
    sums: &[[Float<'k>; N]],
) {
    let (k, (_, columns)) = (job.k, job.used());
    let (global_row, row_exists) = job.place(row);
    let global = (global_row, job.first.1 + column);
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
