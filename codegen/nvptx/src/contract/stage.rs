//! Operands on their way into shared memory.

use super::Job;
use crate::emit::{Cache, I16, Int, Shared};
use crate::lower::Scope;
use sinter_codegen_schedule::contract::{Product, piece_bytes};
use sinter_ir::{AxisId, Id, Layout, Load};

/// Which side of a product an operand is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Rows: activations.
    Left,
    /// Columns: weights.
    Right,
}

/// The threads that copy a chunk together, and the rows they copy.
#[derive(Clone, Copy)]
pub(super) struct Team<'k> {
    /// The thread's number among them.
    pub(super) thread: Int<'k>,
    /// How many there are.
    pub(super) threads: u32,
    /// The first row of the tile.
    pub(super) first: Int<'k>,
}

/// A 16-bit operand whose chunks go to shared memory: for each row of the tile (a column of the whole, on the right side)
/// so many elements along the summed axis, in pieces of 16 bytes whose order is turned so that neither copies nor matrix
/// loads meet in a bank.
pub(super) struct Operand<'a> {
    load: &'a Load,
    axis: AxisId,
    k: u64,
    side: Side,
    /// Rows that a team copies.
    rows: u32,
    /// Elements of a chunk.
    chunk: u32,
    /// Bytes of one copy.
    piece: u32,
    /// Whether elements are made of codes, one by one: of a form that the tensor cores do not take as it lies.
    coded: bool,
    /// Whether nothing writes it while the model runs.
    pub(super) constant: bool,
}

/// The offset in bytes of a piece of 16 bytes in a chunk whose rows have `pieces` pieces. Rows of 64 bytes lie in pairs in
/// 128 bytes, so their pieces turn with every second row.
pub(super) fn piece_offset<'k>(row: Int<'k>, piece: Int<'k>, pieces: i32) -> Int<'k> {
    let turn = if pieces >= 8 { row & 7 } else { (row >> 1) & (pieces - 1) };
    row * (pieces * 16) + (piece ^ turn) * 16
}

impl<'a> Operand<'a> {
    pub(super) fn new(job: &Job<'a, '_>, product: &'a Product, side: Side, rows: u32) -> Self {
        let schedule = job.schedule;
        let load = match side {
            Side::Left => &product.a,
            Side::Right => &product.b,
        };
        Self {
            load,
            axis: product.axis,
            k: product.k,
            side,
            rows,
            chunk: schedule.tile_k,
            piece: piece_bytes(job.scope.tile, load, product.axis),
            coded: matches!(job.scope.tile.params[load.param].layout, Layout::Codes(_)),
            constant: job.constant[load.param.index()],
        }
    }

    /// The bytes of a chunk.
    pub(super) fn bytes(&self) -> u32 {
        self.rows * self.chunk * 2
    }

    /// Begins to bring the chunk whose first element is `from` to shared memory. Pieces of 4 bytes and more are copied
    /// asynchronously and belong to the thread's open group. Elements beyond the summed extent are zeros.
    pub(super) fn stage<'k>(&self, job: &Job<'_, 'k>, team: Team<'k>, to: Shared<'k>, from: Int<'k>) {
        let (k, threads) = (job.k, team.threads);
        let elements = self.piece / 2;
        let across = self.chunk / elements;
        let total = self.rows * across;
        for first in (0..total).step_by(threads as usize) {
            let at = team.thread + first as i32;
            let (row, piece) = (at >> across.trailing_zeros() as i32, at & (across as i32 - 1));
            let at_k = from + piece * elements as i32;
            let copy = || self.copy(job, to, (team.first, row, piece), at_k);
            if first + threads <= total { copy() } else { k.when(at.lt(total as i32), copy) }
        }
    }

    /// The scope of an element.
    fn scope<'j, 'k>(&self, job: &Job<'j, 'k>, row: Int<'k>, at: Int<'k>) -> Scope<'j, 'k> {
        let zero = job.k.int(0);
        let scope = match self.side {
            Side::Left => job.at(job.row(row), job.column(zero)),
            Side::Right => job.at(job.row(zero), job.column(row)),
        };
        scope.with_axis(self.axis, at)
    }

    fn copy<'k>(
        &self,
        job: &Job<'_, 'k>,
        to: Shared<'k>,
        (first, row, piece): (Int<'k>, Int<'k>, Int<'k>),
        at: Int<'k>,
    ) {
        let (k, bytes) = (job.k, self.piece as i32);
        let per_16 = 16 / bytes;
        let pieces = (self.chunk / 8) as i32;
        let (whole, part) = (piece >> per_16.trailing_zeros() as i32, piece & (per_16 - 1));
        let to = to.at(piece_offset(row, whole, pieces) + part * bytes);
        // A chunk may reach beyond the summed axis only if that is no multiple of it.
        let tail = !self.k.is_multiple_of(u64::from(self.chunk));
        let last = (self.k - 1) as i32 / (bytes / 2) * (bytes / 2);
        let (inside, at) = (at.lt(self.k as i32), if tail { at.least(last) } else { at });
        let scope = self.scope(job, first + row, at);
        let from = scope.address(self.load.param, &self.load.index);
        match (self.piece, tail) {
            (2, _) => {
                let value = if self.coded {
                    scope.load(self.load).number(k).to_bf16()
                } else {
                    k.load::<I16>(from, self.cache())
                };
                k.store(to, if tail { inside.select(value, k.short(0)) } else { value });
            }
            (bytes, true) => {
                let present = inside.select(k.int(bytes as i32), k.int(0));
                k.copy_async_part(to, from, (bytes, present));
            }
            (16, false) => k.copy_async(to, from),
            (bytes, false) => k.copy_async_part(to, from, (bytes, k.int(bytes as i32))),
        }
    }

    fn cache(&self) -> Cache {
        if self.constant { Cache::Constant } else { Cache::Any }
    }
}
