//! Keys and values on Hopper: one warp brings blocks of positions to a ring in shared memory by tensor copies.
//!
//! A copy brings part of the rows of 16 positions, which lie one after the other. Keys and values of a stage have barriers
//! of their own: full when their bytes have arrived, empty when every multiplying warp is done with them. Rows of positions
//! outside the range may never have been written, or their page may be another's. So of a block that is not inside the
//! range the copies tell a barrier that the warp itself waits for; it puts zeros in place of such rows, and only then is
//! the stage full.

use super::Job;
use super::rows::Range;
use crate::emit::{Int, K, Shared};
use crate::lower::Scope;
use sinter_codegen_schedule::attend::{BOX_POSITIONS, BoxedRows, POSITIONS, matrix};
use sinter_ir::{AxisId, Dim, GpuParam, Id, Load, Swizzle, TensorMapDef};

/// Which rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Keys.
    Keys,
    /// Values.
    Values,
}

/// Keys or values.
#[derive(Clone, Copy)]
struct Rows<'a> {
    load: &'a Load,
    axis: AxisId,
    boxed: BoxedRows,
}

impl<'a> Rows<'a> {
    fn of(job: &Job<'a>, side: Side) -> Self {
        let attend = job.attend;
        let (load, axis, width) = match side {
            Side::Keys => (&attend.key, attend.depth, attend.sizes.depth),
            Side::Values => (&attend.value, attend.lanes, attend.sizes.lanes),
        };
        // The schedule is chosen only for rows that can be cut so.
        let boxed = BoxedRows::new(width).unwrap_or(BoxedRows { width, part_bytes: 32 });
        Rows { load, axis, boxed }
    }
    /// Bytes of a block of positions.
    fn bytes(&self) -> u32 {
        POSITIONS * self.boxed.width * 2
    }
    fn map(&self, job: &Job<'_>) -> Option<TensorMapDef> {
        let (columns, pitch) = matrix(job.tile, self.load)?;
        let param = &job.tile.params[self.load.param];
        Some(TensorMapDef {
            arg: self.load.param.index(),
            dtype: param.ty.dtype,
            dims: vec![Dim::of(columns as usize), *param.ty.shape.first()?],
            strides: vec![pitch],
            box_dims: vec![self.boxed.part(), BOX_POSITIONS],
            swizzle: match self.boxed.part_bytes {
                128 => Swizzle::B128,
                64 => Swizzle::B64,
                _ => Swizzle::B32,
            },
        })
    }
}

/// The tensor maps of keys and values.
pub(super) fn tensor_maps(job: &Job<'_>) -> Vec<GpuParam> {
    let maps = [Side::Keys, Side::Values].map(|side| Rows::of(job, side).map(job));
    maps.into_iter().flatten().map(GpuParam::TensorMap).collect()
}

/// The ring with its barriers.
pub(super) struct Ring<'p, 'a, 'k> {
    k: K<'k>,
    job: &'p Job<'a>,
    keys: Rows<'a>,
    values: Rows<'a>,
    memory: Shared<'k>,
    barriers: Shared<'k>,
    stages: i32,
}

/// How far a warp has come: blocks that went through the ring, and those of them, keys and values counted apart, that were
/// not inside the range.
pub(super) type Progress<'k> = (Int<'k>, Int<'k>);

impl<'p, 'a, 'k> Ring<'p, 'a, 'k> {
    pub(super) fn new(k: K<'k>, job: &'p Job<'a>, stages: u32) -> Self {
        let (keys, values) = (Rows::of(job, Side::Keys), Rows::of(job, Side::Values));
        let memory = k.shared(stages * (keys.bytes() + values.bytes()), 1024);
        let barriers = k.shared(stages * 32 + 16, 16);
        Ring { k, job, keys, values, memory, barriers, stages: stages as i32 }
    }

    /// Makes the barriers for so many multiplying warps. One thread does it, and a barrier of the block must follow.
    pub(super) fn init(&self, warps: u32) {
        let full = 2 * self.stages;
        for at in 0..2 * full + 1 {
            let empty = (full..2 * full).contains(&at);
            self.k.init_barrier(self.barriers.at(at * 8), if empty { warps as i32 } else { 1 });
        }
        self.k.show_barriers();
    }

    fn side(&self, side: Side) -> &Rows<'a> {
        match side {
            Side::Keys => &self.keys,
            Side::Values => &self.values,
        }
    }

    /// The stage of a block and the parity of its phase.
    pub(super) fn place(&self, count: Int<'k>) -> (Int<'k>, Int<'k>) {
        let shift = self.stages.trailing_zeros() as i32;
        (count & (self.stages - 1), (count >> shift) & 1)
    }

    fn full_offset(&self, side: Side, stage: Int<'k>) -> Int<'k> {
        (stage + if side == Side::Keys { 0 } else { self.stages }) << 3
    }

    /// The barrier that tells that a stage is there.
    pub(super) fn full(&self, side: Side, stage: Int<'k>) -> Shared<'k> {
        self.barriers.at(self.full_offset(side, stage))
    }

    /// The barrier that tells that it is read.
    pub(super) fn empty(&self, side: Side, stage: Int<'k>) -> Shared<'k> {
        self.full(side, stage).at(2 * self.stages * 8)
    }

    /// Where the rows of a stage lie, and how: the bytes of a part, and those from one part to the next.
    pub(super) fn rows(&self, side: Side, stage: Int<'k>) -> (Shared<'k>, (u32, u32)) {
        let stage = self.memory.at(stage * (self.keys.bytes() + self.values.bytes()) as i32);
        let behind = if side == Side::Keys { 0 } else { self.keys.bytes() as i32 };
        let part_bytes = self.side(side).boxed.part_bytes;
        (stage.at(behind), (part_bytes, POSITIONS * part_bytes))
    }

    /// Brings all blocks of a range. All lanes of one warp do it.
    pub(super) fn produce(
        &self,
        scope: &Scope<'_, 'k>,
        range: Range<'k>,
        progress: Progress<'k>,
    ) -> Progress<'k> {
        let (from, to) = range.blocks();
        self.k.rolled_range((from, to, 1), progress, |block, (count, cut)| {
            let cut = self.fill(Side::Keys, scope, range, (block, count, cut));
            let cut = self.fill(Side::Values, scope, range, (block, count, cut));
            (count + 1, cut)
        })
    }

    fn fill(
        &self,
        side: Side,
        scope: &Scope<'_, 'k>,
        range: Range<'k>,
        (block, count, cut): (Int<'k>, Int<'k>, Int<'k>),
    ) -> Int<'k> {
        let k = self.k;
        let (stage, parity) = self.place(count);
        let (start, to) = (block * POSITIONS as i32, self.rows(side, stage).0);
        // The first time round, every stage is empty.
        k.wait_for_phase(self.empty(side, stage), parity ^ 1);
        let inside = start.ge(range.from) & (start + POSITIONS as i32).le(range.to);
        let own = self.barriers.at(4 * self.stages * 8);
        let told = inside.select(self.full_offset(side, stage), k.int(4 * self.stages * 8));
        k.when(k.lane().equals(0), || self.copy(side, scope, range, (start, to, self.barriers.at(told))));
        k.choose(
            inside,
            || cut,
            || {
                k.wait_for_phase(own, cut & 1);
                self.clear(side, range, (start, to));
                k.show_shared_to_copies();
                k.warp_barrier();
                k.when(k.lane().equals(0), || k.arrive(self.full(side, stage)));
                cut + 1
            },
        )
    }

    /// Begins the copies of a block's rows. One thread does it.
    fn copy(
        &self,
        side: Side,
        scope: &Scope<'_, 'k>,
        range: Range<'k>,
        (start, to, told): (Int<'k>, Shared<'k>, Shared<'k>),
    ) {
        let (k, rows) = (self.k, self.side(side));
        let BoxedRows { part_bytes, .. } = rows.boxed;
        let map = k.tensor_map(rows.load.param.index());
        k.arrive_expecting(told, rows.bytes() as i32);
        let down = |position: Int<'k>| position & -(BOX_POSITIONS as i32);
        for first in (0..POSITIONS).step_by(BOX_POSITIONS as usize) {
            // Beyond the range there may be no page: rows that exist come instead, and are cleared.
            let position = start + first as i32;
            let position = position.least(down(range.to - 1)).greatest(down(range.from));
            let scope = scope.with_axis(self.job.attend.context, position).with_axis(rows.axis, k.int(0));
            let (row, column) = (scope.index(&rows.load.index[0]), self.column(&scope, rows.load));
            for part in 0..rows.boxed.parts() {
                let to = to.at(((part * POSITIONS + first) * part_bytes) as i32);
                k.copy_box(to, map, (column + (part * rows.boxed.part()) as i32, row), told);
            }
        }
    }

    /// The column of the matrix at which a load begins.
    fn column(&self, scope: &Scope<'_, 'k>, load: &Load) -> Int<'k> {
        let shape = &self.job.tile.params[load.param].ty.shape;
        let inner = load.index.iter().zip(shape).skip(1);
        inner.fold(self.k.int(0), |column, (index, dim)| column * dim.coeff as i32 + scope.index(index))
    }

    /// Puts zeros in place of rows outside the range.
    fn clear(&self, side: Side, range: Range<'k>, (start, to): (Int<'k>, Shared<'k>)) {
        let (k, rows) = (self.k, self.side(side));
        let part_bytes = rows.boxed.part_bytes as i32;
        let zero = k.int(0);
        k.rolled_range((k.lane() << 4, rows.bytes() as i32, 512), (), |offset, ()| {
            let row = (offset >> part_bytes.trailing_zeros() as i32) & (POSITIONS as i32 - 1);
            let position = start + row;
            let outside = position.lt(range.from) | position.ge(range.to);
            k.when(outside, || k.store_vector(to.at(offset), [zero; 4]));
        });
    }
}
