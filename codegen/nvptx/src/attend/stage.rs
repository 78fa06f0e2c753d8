//! Keys and values of a block of positions in shared memory, and the operands that tensor cores read there.

use super::Job;
use super::rows::Range;
use crate::emit::{Cache, Global, I16, Int, K, Shared};
use crate::lower::Scope;
use sinter_codegen_schedule::access::{self, Lanes};
use sinter_codegen_schedule::attend::{POSITIONS, pitch};
use sinter_ir::{AxisId, Load};

/// Rows of bf16 in shared memory, padded with zeros to whole fragments.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    load: &'a Load,
    axis: AxisId,
    width: u32,
    padded: u32,
    /// Whether rows are copied in pieces of 16 bytes.
    pieces: bool,
}

/// The shared memory of a block for keys and values.
pub(super) struct Stages<'a, 'k> {
    base: Shared<'k>,
    keys: Rows<'a>,
    values: Rows<'a>,
    count: u32,
    threads: u32,
}

impl<'a> Rows<'a> {
    fn new(job: &Job<'a>, load: &'a Load, (axis, width): (AxisId, u32)) -> Self {
        let aligned = access::load_lanes(job.tile, load, axis, 8) == Lanes::Aligned;
        let pieces = aligned && width.is_multiple_of(8);
        Rows { load, axis, width, padded: width.next_multiple_of(16), pieces }
    }
    fn bytes(&self) -> u32 {
        POSITIONS * pitch(self.padded)
    }
}

impl<'a, 'k> Stages<'a, 'k> {
    pub(super) fn new(k: K<'k>, job: &Job<'a>, count: u32) -> Self {
        let attend: &'a _ = job.attend;
        let keys = Rows::new(job, &attend.key, (attend.depth, attend.sizes.depth));
        let values = Rows::new(job, &attend.value, (attend.lanes, attend.sizes.lanes));
        let base = k.shared(count * (keys.bytes() + values.bytes()), 128);
        Stages { base, keys, values, count, threads: job.schedule.threads() }
    }

    fn bytes(&self) -> u32 {
        self.keys.bytes() + self.values.bytes()
    }

    /// The keys and the values of a block of the context, which is numbered.
    pub(super) fn of(&self, block: Int<'k>) -> (Shared<'k>, Shared<'k>) {
        let keys = if self.count == 1 {
            self.base
        } else {
            self.base.at(block.modulo(self.count as i32) * self.bytes() as i32)
        };
        (keys, keys.at(self.keys.bytes() as i32))
    }

    /// Begins to copy block number `block` and ends a group of copies. Positions outside the range are zeros: their
    /// pages may be gone.
    pub(super) fn fill(&self, job: &Job<'_>, scope: &Scope<'_, 'k>, range: Range<'k>, block: Int<'k>) {
        let (keys, values) = self.of(block);
        self.copy(job, scope, (self.keys, keys), (block, range));
        self.copy(job, scope, (self.values, values), (block, range));
        scope.k.copy_commit();
    }

    /// The same for the keys alone.
    pub(super) fn fill_keys(&self, job: &Job<'_>, scope: &Scope<'_, 'k>, range: Range<'k>, block: Int<'k>) {
        self.copy(job, scope, (self.keys, self.of(block).0), (block, range));
        scope.k.copy_commit();
    }

    /// The same for the values alone.
    pub(super) fn fill_values(&self, job: &Job<'_>, scope: &Scope<'_, 'k>, range: Range<'k>, block: Int<'k>) {
        self.copy(job, scope, (self.values, self.of(block).1), (block, range));
        scope.k.copy_commit();
    }

    fn copy(
        &self,
        job: &Job<'_>,
        scope: &Scope<'_, 'k>,
        rows: (Rows<'_>, Shared<'k>),
        (block, range): (Int<'k>, Range<'k>),
    ) {
        let start = block * POSITIONS as i32;
        if rows.0.pieces {
            self.copy_pieces(job, scope, rows, (start, range));
        } else {
            self.copy_elements(job, scope, rows, (start, range));
        }
    }

    fn copy_pieces(
        &self,
        job: &Job<'_>,
        scope: &Scope<'_, 'k>,
        (rows, to): (Rows<'_>, Shared<'k>),
        (start, range): (Int<'k>, Range<'k>),
    ) {
        let k = scope.k;
        let pieces = rows.padded / 8;
        let total = POSITIONS * pieces;
        let copy = |at: Int<'k>| {
            let (row, piece) = (at.divided(pieces as i32), at.modulo(pieces as i32));
            let (from, inside) = row_at(job, scope, rows, (start + row, range), piece << 3);
            let shared = to.at(row * pitch(rows.padded) as i32 + (piece << 4));
            let inside =
                if rows.padded == rows.width { inside } else { inside & (piece << 3).lt(rows.width as i32) };
            k.copy_async_first(shared, from, inside.select(k.int(16), k.int(0)));
        };
        // So many at a time: their page numbers are read together, and registers hold their addresses.
        let together = [16, 8, 4, 2].into_iter().find(|together| total == together * self.threads);
        if let Some(together) = together {
            (0..together).for_each(|time| copy(k.thread() + (time * self.threads) as i32));
            return;
        }
        let together = [4, 2].into_iter().find(|n| total.is_multiple_of(n * self.threads)).unwrap_or(1);
        let step = (together * self.threads) as i32;
        k.rolled_range((k.thread(), total as i32, step), (), |at, ()| {
            (0..together).for_each(|time| copy(at + (time * self.threads) as i32));
        });
    }

    /// Rows that do not begin at multiples of 16 bytes.
    fn copy_elements(
        &self,
        job: &Job<'_>,
        scope: &Scope<'_, 'k>,
        (rows, to): (Rows<'_>, Shared<'k>),
        (start, range): (Int<'k>, Range<'k>),
    ) {
        let k = scope.k;
        let total = (POSITIONS * rows.padded) as i32;
        k.rolled_range((k.thread(), total, self.threads as i32), (), |at, ()| {
            let (row, column) = (at.divided(rows.padded as i32), at.modulo(rows.padded as i32));
            let (from, inside) = row_at(job, scope, rows, (start + row, range), column);
            let element = k.load::<I16>(from, Cache::Any);
            let kept = inside & column.lt(rows.width as i32);
            let shared = to.at(row * pitch(rows.padded) as i32 + (column << 1));
            k.store(shared, kept.select(element, k.short(0)));
        });
    }

    /// Where the lane's part of the keys' operands lies, from position `first` of the block on.
    pub(super) fn key_lane(&self, keys: Shared<'k>, first: Int<'k>) -> Shared<'k> {
        let lane = first.kernel().lane();
        let row = first + ((lane >> 4) << 3) + (lane & 7);
        keys.at(row * pitch(self.keys.padded) as i32 + (((lane >> 3) & 1) << 4))
    }

    /// The second operands of `Q · Kᵀ` for 16 positions from `first` on and depths from `depth` on: two fragments.
    pub(super) fn key_operands(&self, lane: Shared<'k>, first: u32, depth: u32) -> [[Int<'k>; 2]; 2] {
        let offset = first * pitch(self.keys.padded) + 2 * depth;
        let [a, b, c, d] = lane.kernel().load_matrices(lane.at(offset as i32));
        [[a, b], [c, d]]
    }

    /// Where the lane's part of the values' operands lies, from lane `first` of the result on.
    pub(super) fn value_lane(&self, values: Shared<'k>, first: Int<'k>) -> Shared<'k> {
        let lane = first.kernel().lane();
        let row = (((lane >> 3) & 1) << 3) + (lane & 7);
        values.at(row * pitch(self.values.padded) as i32 + ((lane >> 4) << 4) + (first << 1))
    }

    /// The second operands of `P · V` for 16 positions from `first` on and 16 lanes from `lanes` on: two fragments.
    pub(super) fn value_operands(&self, lane: Shared<'k>, first: u32, lanes: u32) -> [[Int<'k>; 2]; 2] {
        let offset = first * pitch(self.values.padded) + 2 * lanes;
        let [a, b, c, d] = lane.kernel().load_matrices_transposed(lane.at(offset as i32));
        [[a, b], [c, d]]
    }
}

/// The address of an element of a position's row, moved into the range and the row, and whether the position is in it.
fn row_at<'k>(
    job: &Job<'_>,
    scope: &Scope<'_, 'k>,
    rows: Rows<'_>,
    (position, range): (Int<'k>, Range<'k>),
    column: Int<'k>,
) -> (Global<'k>, crate::emit::Bit<'k>) {
    let inside = position.ge(range.from) & position.lt(range.to);
    let position = position.least(range.to - 1).greatest(range.from);
    let last = if rows.pieces { rows.width as i32 - 8 } else { rows.width as i32 - 1 };
    let column = if rows.padded == rows.width { column } else { column.least(last) };
    let scope = job.reach(scope).with_axis(job.attend.context, position).with_axis(rows.axis, column);
    (scope.address(rows.load.param, &rows.load.index), inside)
}
