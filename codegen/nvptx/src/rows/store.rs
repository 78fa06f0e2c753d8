//! Stores whose elements a group of threads shares.

use super::Place;
use crate::emit::Int;
use crate::lower::{Scope, Val};
use sinter_ir::{AxisId, ExprId, Index, ParamId};

/// So many rounds of a store are computed before the first element is stored, for no load can move above a store.
const TOGETHER: u64 = 4;

/// `value` stored at all iterations of `axes`: thread `l` of `group` takes the elements
/// `(i · group + l) · width` and the following `width − 1`.
pub fn store<'k>(
    scope: &Scope<'_, 'k>,
    place: Place<'_, 'k>,
    width: u32,
    (axes, param, index, value): (&[AxisId], ParamId, &[Index], ExprId),
) {
    let k = scope.k;
    let Some(lane) = axes.last().copied() else {
        return k.when(place.valid & place.lane.equals(0), || scope.store(param, index, scope.value(value)));
    };
    let compute = |scope: &Scope<'_, 'k>| scope.values(value, lane, width);
    let write = |scope: &Scope<'_, 'k>, values: &[Val<'k>]| scope.store_lanes(param, index, lane, values);
    let step = place.rows.group * width;
    let total =
        axes.iter().try_fold(1u64, |n, axis| n.checked_mul(scope.tile.axes[*axis].extent.as_const()?));
    let first = place.lane * width as i32;
    let Some(total) = total else {
        let total = axes.iter().fold(k.int(1), |n, axis| n * scope.extent(*axis));
        return k.when(place.valid, || {
            k.range((first, total, step as i32), (), |at, ()| {
                let here = inside(scope, axes, at);
                write(&here, &compute(&here));
            });
        });
    };
    let rounds = total / u64::from(step);
    let round = |round: u64| inside(scope, axes, first + (round * u64::from(step)) as i32);
    k.when(place.valid, || {
        if rounds <= TOGETHER {
            let places: Vec<_> = (0..rounds).map(round).collect();
            let values: Vec<_> = places.iter().map(compute).collect();
            places.iter().zip(&values).for_each(|(place, values)| write(place, values));
        } else {
            let end = (rounds * u64::from(step)) as i32;
            k.range((first, end, step as i32), (), |at, ()| {
                let here = inside(scope, axes, at);
                write(&here, &compute(&here));
            });
        }
        if !total.is_multiple_of(u64::from(step)) {
            let at = first + (rounds * u64::from(step)) as i32;
            k.when(at.lt(total as i32), || {
                let here = inside(scope, axes, at);
                write(&here, &compute(&here));
            });
        }
    });
}

/// The iterations of `axes` at an element of their flattened space.
fn inside<'a, 'k>(scope: &Scope<'a, 'k>, axes: &[AxisId], at: Int<'k>) -> Scope<'a, 'k> {
    let (mut scope, mut rest) = (scope.clone(), at);
    for (position, axis) in axes.iter().enumerate().rev() {
        if position == 0 {
            scope = scope.with_axis(*axis, rest);
        } else {
            let extent = scope.extent(*axis);
            scope = scope.with_axis(*axis, rest.modulo(extent));
            rest = rest.divided(extent);
        }
    }
    scope
}
