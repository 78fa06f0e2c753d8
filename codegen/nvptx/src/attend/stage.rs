//! Keys and values of a block of positions in shared memory, and the operands that tensor cores read there.
//!
//! Rows of codes are copied as they are, with their scales. When their block's turn comes, the threads make numbers of bf16
//! of them in one more place, which keys and values have one after the other ([`Stages::keys`], [`Stages::values`]): each
//! code is converted once for all rows of the block.

use super::Job;
use super::rows::Range;
use crate::emit::{Bit, Cache, Global, I8, I16, I32, Int, K, Shared};
use crate::lower::{Scope, codes};
use sinter_codegen_schedule::access::{self, Lanes};
use sinter_codegen_schedule::attend::{Attend, POSITIONS, SCALE_BYTES, pitch};
use sinter_codegen_schedule::codes::Format;
use sinter_ir::{AxisId, Load};

/// Rows of bf16 in shared memory, padded with zeros to whole fragments; or the same of codes.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    load: &'a Load,
    /// Where the scales of the rows are.
    scale: Option<&'a Load>,
    /// What they are made of, if not of bf16.
    codes: Option<Format>,
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
    /// The numbers that codes stand for.
    numbers: Option<Shared<'k>>,
}

impl<'a> Rows<'a> {
    fn new(job: &Job<'a>, load: &'a Load, (axis, width): (AxisId, u32)) -> Self {
        let (scale, codes) = (None, None);
        let rows =
            Rows { load, scale, codes, axis, width, padded: width.next_multiple_of(16), pieces: false };
        rows.in_pieces(job)
    }
    fn of_codes(self, job: &Job<'a>, codes: Format, scale: &'a Load) -> Self {
        Rows { codes: Some(codes), scale: Some(scale), ..self }.in_pieces(job)
    }
    fn in_pieces(self, job: &Job<'a>) -> Self {
        let piece = self.piece();
        let aligned = access::load_lanes(job.tile, self.load, self.axis, piece) == Lanes::Aligned;
        Rows { pieces: aligned && self.width.is_multiple_of(piece), ..self }
    }
    /// Elements of 16 bytes.
    fn piece(&self) -> u32 {
        self.codes.map_or(8, Format::in_16_bytes)
    }
    /// Bytes from one row to the next as they are copied.
    fn pitch(&self) -> u32 {
        self.codes.map_or(pitch(self.padded), |codes| codes.bytes(self.padded))
    }
    /// Bytes of a block's rows as they are copied.
    fn bytes(&self) -> u32 {
        POSITIONS * self.pitch()
    }
}

impl<'a, 'k> Stages<'a, 'k> {
    pub(super) fn new(k: K<'k>, job: &Job<'a>, count: u32) -> Self {
        let attend: &'a Attend = job.attend;
        let mut keys = Rows::new(job, &attend.key, (attend.depth, attend.sizes.depth));
        let mut values = Rows::new(job, &attend.value, (attend.lanes, attend.sizes.lanes));
        if let Some(coded) = &attend.coded {
            keys = keys.of_codes(job, coded.key, &coded.key_scale.1);
            values = values.of_codes(job, coded.value, &coded.value_scale);
        }
        let base = k.shared(count * attend.stage_bytes(), 128);
        let numbers = attend.coded.is_some().then(|| k.shared(attend.numbers_bytes(), 128));
        Stages { base, keys, values, count, threads: job.schedule.threads(), numbers }
    }

    /// Whether keys and values are codes.
    pub(super) fn are_codes(&self) -> bool {
        self.numbers.is_some()
    }

    /// Where the keys and the values of a block of the context, which is numbered, are copied to.
    fn of(&self, job: &Job<'_>, block: Int<'k>) -> (Shared<'k>, Shared<'k>) {
        let keys = if self.count == 1 {
            self.base
        } else {
            self.base.at(block.modulo(self.count as i32) * job.attend.stage_bytes() as i32)
        };
        (keys, keys.at(self.keys.bytes() as i32))
    }

    /// The scales of a block's keys and of its values, as a lane of fragments of scores reads them: those of the positions of
    /// its columns, a fragment every 32 bytes.
    pub(super) fn scales(&self, job: &Job<'_>, block: Int<'k>) -> Option<[Shared<'k>; 2]> {
        let lane = (block.kernel().lane() & 3) << 3;
        self.numbers.map(|_| {
            let keys = self.scales_of_keys(job, block);
            [keys, keys.at((POSITIONS * SCALE_BYTES) as i32)].map(|scales| scales.at(lane))
        })
    }

    fn scales_of_keys(&self, job: &Job<'_>, block: Int<'k>) -> Shared<'k> {
        self.of(job, block).1.at(self.values.bytes() as i32)
    }

    /// The keys of a block that has come, as numbers: after this, all threads may read them. Codes are converted, where the
    /// values before were, so that all threads must be done with these.
    pub(super) fn keys(&self, job: &Job<'_>, block: Int<'k>) -> Shared<'k> {
        self.as_numbers(self.keys, self.of(job, block).0)
    }

    /// The same for the values; all threads must be done with the keys.
    pub(super) fn values(&self, job: &Job<'_>, block: Int<'k>) -> Shared<'k> {
        self.as_numbers(self.values, self.of(job, block).1)
    }

    fn as_numbers(&self, rows: Rows<'_>, copied: Shared<'k>) -> Shared<'k> {
        let (Some(numbers), Some(format)) = (self.numbers, rows.codes) else { return copied };
        let k = copied.kernel();
        // Eight codes at a time, so that neighbouring threads write neighbouring pieces of 16 bytes.
        let eights = rows.padded / 8;
        let total = POSITIONS * eights;
        let convert = |at: Int<'k>| {
            let (row, eight) = (at.divided(eights as i32), at.modulo(eights as i32));
            let from = copied.at(at * format.bytes(8) as i32);
            let words: Vec<Int<'k>> = match format {
                Format::Int4 => vec![k.load::<I32>(from, Cache::Any)],
                Format::Int8 | Format::E4m3 => k.load_vector::<I32, 2>(from, Cache::Any).into(),
            };
            let pairs: Vec<Int<'k>> = words.into_iter().flat_map(|word| codes::pairs(format, word)).collect();
            let to = numbers.at(row * pitch(rows.padded) as i32 + (eight << 4));
            k.store_vector::<I32, 4>(to, std::array::from_fn(|n| pairs[n]));
        };
        // Beside the sums of wide heads there are few registers.
        let most = if self.values.padded > 128 { 1 } else { 4 };
        let fits = |n: &u32| *n <= most && total.is_multiple_of(n * self.threads);
        let together = [4, 2].into_iter().find(fits).unwrap_or(1);
        let step = (together * self.threads) as i32;
        k.rolled_range((k.thread(), total as i32, step), (), |at, ()| {
            (0..together).for_each(|time| convert(at + (time * self.threads) as i32));
        });
        k.barrier();
        numbers
    }

    /// Begins to copy block number `block` and ends a group of copies. Positions outside the range are zeros: their
    /// pages may be gone.
    pub(super) fn fill(&self, job: &Job<'_>, scope: &Scope<'_, 'k>, range: Range<'k>, block: Int<'k>) {
        let (keys, values) = self.of(job, block);
        self.copy(job, scope, (self.keys, keys), (block, range));
        self.copy(job, scope, (self.values, values), (block, range));
        let mut scales = self.scales_of_keys(job, block);
        for rows in [self.keys, self.values] {
            if let Some(load) = rows.scale {
                self.copy_scales(job, scope, (load, scales), (block, range));
                scales = scales.at((POSITIONS * SCALE_BYTES) as i32);
            }
        }
        scope.k.copy_commit();
    }

    fn copy_scales(
        &self,
        job: &Job<'_>,
        scope: &Scope<'_, 'k>,
        (load, to): (&Load, Shared<'k>),
        (block, range): (Int<'k>, Range<'k>),
    ) {
        let (k, start) = (scope.k, block * POSITIONS as i32);
        k.rolled_range((k.thread(), POSITIONS as i32, self.threads as i32), (), |at, ()| {
            let (scope, inside) = at_position(job, scope, (start + at, range));
            let (from, present) = (scope.address(load.param, &load.index), inside.select(k.int(4), k.int(0)));
            k.copy_async_part(to.at(at << 2), from, (SCALE_BYTES, present));
        });
    }

    /// The same for the keys alone.
    pub(super) fn fill_keys(&self, job: &Job<'_>, scope: &Scope<'_, 'k>, range: Range<'k>, block: Int<'k>) {
        self.copy(job, scope, (self.keys, self.of(job, block).0), (block, range));
        scope.k.copy_commit();
    }

    /// The same for the values alone.
    pub(super) fn fill_values(&self, job: &Job<'_>, scope: &Scope<'_, 'k>, range: Range<'k>, block: Int<'k>) {
        self.copy(job, scope, (self.values, self.of(job, block).1), (block, range));
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
        let pieces = rows.padded / rows.piece();
        let (total, elements) = (POSITIONS * pieces, rows.piece() as i32);
        let copy = |at: Int<'k>| {
            let (row, piece) = (at.divided(pieces as i32), at.modulo(pieces as i32));
            let (from, inside) = row_at(job, scope, rows, (start + row, range), piece * elements);
            let shared = to.at(row * rows.pitch() as i32 + (piece << 4));
            let here = (piece * elements).lt(rows.width as i32);
            let inside = if rows.padded == rows.width { inside } else { inside & here };
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
        if let Some(format) = rows.codes {
            return self.copy_bytes(job, scope, (rows, format, to), (start, range));
        }
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

    /// The same of codes, whose rows are whole bytes.
    fn copy_bytes(
        &self,
        job: &Job<'_>,
        scope: &Scope<'_, 'k>,
        (rows, format, to): (Rows<'_>, Format, Shared<'k>),
        (start, range): (Int<'k>, Range<'k>),
    ) {
        let (k, pitch) = (scope.k, rows.pitch() as i32);
        let in_byte = (rows.padded / rows.pitch()) as i32;
        k.rolled_range((k.thread(), rows.bytes() as i32, self.threads as i32), (), |at, ()| {
            let (row, byte) = (at.divided(pitch), at.modulo(pitch));
            let (from, inside) = row_at(job, scope, rows, (start + row, range), byte * in_byte);
            let kept = inside & byte.lt(format.bytes(rows.width) as i32);
            let code = k.load::<I8>(from, Cache::Any);
            k.store(to.at(at), kept.select(code, k.byte(0)));
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
) -> (Global<'k>, Bit<'k>) {
    let (scope, inside) = at_position(job, scope, (position, range));
    let last = if rows.pieces { rows.width - rows.piece() } else { rows.width - 1 } as i32;
    let column = if rows.padded == rows.width { column } else { column.least(last) };
    let scope = scope.with_axis(rows.axis, column);
    (scope.address(rows.load.param, &rows.load.index), inside)
}

/// The scope of a position, moved into the range, and whether it is in it.
fn at_position<'a, 'k>(
    job: &Job<'_>,
    scope: &Scope<'a, 'k>,
    (position, range): (Int<'k>, Range<'k>),
) -> (Scope<'a, 'k>, Bit<'k>) {
    let inside = position.ge(range.from) & position.lt(range.to);
    let position = position.least(range.to - 1).greatest(range.from);
    (job.reach(scope).with_axis(job.attend.context, position), inside)
}
