//! Queries as first operands of the tensor cores.

use super::Job;
use super::rows::Row;
use crate::emit::{Cache, I16, I32, Int, K, Shared};
use sinter_codegen_schedule::access::{self, Lanes};
use sinter_codegen_schedule::attend::query_in_shared;

/// The queries of a warp's 16 rows: in registers, or in shared memory where each thread keeps what it will want.
pub(super) enum Query<'k> {
    /// An operand for each 16 of the depth.
    Registers(Vec<[Int<'k>; 4]>),
    /// The thread's own 16 bytes for each 16 of the depth, so many bytes apart.
    Shared(Shared<'k>, u32),
}

impl<'k> Query<'k> {
    /// Loads them.
    pub(super) fn load(k: K<'k>, job: &Job<'_>, rows: &[Row<'_, 'k>; 2], room: Option<Shared<'k>>) -> Self {
        let steps = job.attend.sizes.padded_depth() / 16;
        let operand = |step: u32| operand(job, rows, step);
        let Some(room) = room else { return Query::Registers((0..steps).map(operand).collect()) };
        let threads = job.schedule.threads();
        let own = room.at(k.thread() << 4);
        for step in 0..steps {
            k.store_vector(own.at((step * threads * 16) as i32), operand(step));
        }
        Query::Shared(own, threads * 16)
    }

    /// Shared memory for them, if registers are too few.
    pub(super) fn room(k: K<'k>, job: &Job<'_>) -> Option<Shared<'k>> {
        let sizes = job.attend.sizes;
        query_in_shared(sizes).then(|| k.shared(job.schedule.threads() * sizes.padded_depth(), 16))
    }

    /// The operand for a step of 16 of the depth.
    pub(super) fn operand(&self, k: K<'k>, step: u32) -> [Int<'k>; 4] {
        match self {
            Query::Registers(operands) => operands[step as usize],
            Query::Shared(own, apart) => k.load_vector::<I32, 4>(own.at((step * apart) as i32), Cache::Any),
        }
    }
}

/// The operand for a step, from memory: rows `g` and `g + 8` at depths `2q` and `2q + 1`, then the same eight further.
pub(super) fn operand<'k>(job: &Job<'_>, rows: &[Row<'_, 'k>; 2], step: u32) -> [Int<'k>; 4] {
    let pair = |half: usize, offset: u32| pair(job, &rows[half], step * 16 + offset);
    [pair(0, 0), pair(1, 0), pair(0, 8), pair(1, 8)]
}

/// Two neighbours of a row, which the lane owns, as a pair; zeros beyond the depth.
fn pair<'k>(job: &Job<'_>, row: &Row<'_, 'k>, first: u32) -> Int<'k> {
    let (attend, k) = (job.attend, row.token.kernel());
    let depth = attend.sizes.depth as i32;
    let at = ((k.lane() & 3) << 1) + first as i32;
    let padded = attend.sizes.padded_depth() as i32 != depth;
    let address = |at: Int<'k>| {
        let scope = row.scope.with_axis(attend.depth, at);
        scope.address(attend.query.param, &attend.query.index)
    };
    let aligned = access::load_lanes(job.tile, &attend.query, attend.depth, 2) == Lanes::Aligned;
    if aligned && depth % 2 == 0 {
        let pair = k.load::<I32>(address(if padded { at.least(depth - 2) } else { at }), Cache::Any);
        return if padded { at.lt(depth).select(pair, k.int(0)) } else { pair };
    }
    let one = |at: Int<'k>| {
        let element = k.load::<I16>(address(at.least(depth - 1)), Cache::Any).int();
        at.lt(depth).select(element, k.int(0))
    };
    one(at) | (one(at + 1) << 16)
}
