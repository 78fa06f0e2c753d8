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
    let k = scope.k;
    let (group, step) = (place.rows.group, place.rows.group * width);
    let extent = scope.extent(axis);
    let start = k.float(neutral(monoid));
    let own = k.range((place.lane * width as i32, extent, step as i32), start, |at, folded| {
        let values = scope.with_axis(axis, at).values(value, axis, width);
        values.into_iter().fold(folded, |folded, value| combine(monoid, folded, value.number(k)))
    });
    let mut all = own;
    for bits in [16, 8, 4, 2, 1].into_iter().filter(|bits| *bits < group as i32) {
        all = combine(monoid, all, all.of_lane_xor(bits));
    }
    if group <= 32 { all } else { of_warps(k, monoid, all, place) }
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
