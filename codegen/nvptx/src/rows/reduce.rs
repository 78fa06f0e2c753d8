//! Folds that a group of threads does together.

use super::Place;
use crate::emit::{Cache, F32, Float, Int, K};
use crate::lower::{Scope, combine, neutral};
use sinter_ir::{AxisId, ExprId, Monoid};

/// The fold of `value` along `axis`, equal in all threads of the group.
///
/// Thread `l` of `group` folds the elements `(i · group + l) · width + w` in ascending order; then the threads' results
/// are combined in a butterfly within warps, and the warps' results one after the other. So the order depends on the
/// program alone.
pub fn reduce<'k>(
    scope: &Scope<'_, 'k>,
    place: Place<'_, 'k>,
    width: u32,
    (axis, monoid, value): (AxisId, Monoid, ExprId),
) -> Float<'k> {
    let group = place.rows.group;
    let own = of_thread(scope, (group, width), place.lane, (axis, monoid, value));
    let all = of_warp(monoid, own, group);
    if group <= 32 { all } else { of_warps(scope.k, monoid, all, place) }
}

/// What warp number `warp` of a group folds, computed by any warp: the same bits in all its lanes. Combined in the order of
/// the warps, these are the group's fold.
pub fn fold_of_warp<'k>(
    scope: &Scope<'_, 'k>,
    (group, width): (u32, u32),
    warp: Int<'k>,
    fold: (AxisId, Monoid, ExprId),
) -> Float<'k> {
    let lane = (scope.k.lane() & (group.min(32) as i32 - 1)) + warp * 32;
    of_warp(fold.1, of_thread(scope, (group, width), lane, fold), group)
}

fn of_thread<'k>(
    scope: &Scope<'_, 'k>,
    (group, width): (u32, u32),
    thread: Int<'k>,
    (axis, monoid, value): (AxisId, Monoid, ExprId),
) -> Float<'k> {
    let k = scope.k;
    let (from, to, step) = (thread * width as i32, scope.extent(axis), (group * width) as i32);
    k.range((from, to, step), k.float(neutral(monoid)), |at, folded| {
        let values = scope.with_axis(axis, at).values(value, axis, width);
        values.into_iter().fold(folded, |folded, value| combine(monoid, folded, value.number(k)))
    })
}

/// The lanes' results as one, in a butterfly.
fn of_warp<'k>(monoid: Monoid, own: Float<'k>, group: u32) -> Float<'k> {
    let bits = [16, 8, 4, 2, 1].into_iter().filter(|bits| *bits < group as i32);
    bits.fold(own, |all, bits| combine(monoid, all, all.of_lane_xor(bits)))
}

/// The results of a group's warps as one, through shared memory that nothing else uses.
fn of_warps<'k>(k: K<'k>, monoid: Monoid, own: Float<'k>, place: Place<'_, 'k>) -> Float<'k> {
    let (warps, all) = ((place.rows.group / 32) as i32, (place.rows.threads / 32) as i32);
    let shared = k.shared(all as u32 * 4, 16);
    k.when(k.lane().equals(0), || k.store(shared.at(k.warp() * 4), own));
    k.barrier();
    let first: Int<'k> = k.warp() & -warps;
    let result = |warp: i32| k.load::<F32>(shared.at((first + warp) * 4), Cache::Any);
    (1..warps).fold(result(0), |folded, warp| combine(monoid, folded, result(warp)))
}
