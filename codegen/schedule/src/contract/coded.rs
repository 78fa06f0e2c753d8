//! Weights in codes: which products take them as they lie, and how a chunk of them lies in shared memory.

use sinter_ir::{Atom, AxisId, CODE_PIECE, CODE_ROWS, Codes, Index, Layout, Load, TileProgram};

/// Elements that one step of the tensor cores sums.
const STEP: u64 = super::STEP as u64;

/// A chunk of the summed axis of 16 columns in shared memory: pieces of codes, then the records of the chunk's groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// How the weight lies.
    pub codes: Codes,
    /// The extent of the summed axis.
    pub k: u64,
    /// Elements of a chunk.
    pub depth: u32,
}

impl Chunk {
    /// Pieces of codes of a whole chunk.
    pub fn pieces(&self) -> u32 {
        self.depth / self.codes.piece_depth() as u32
    }
    /// Whether one group has the whole summed axis.
    pub fn single(&self) -> bool {
        u64::from(self.codes.group) == self.k
    }
    /// Groups of a whole chunk; of one that is a part of a group, one.
    pub fn records(&self) -> u32 {
        if self.single() { 1 } else { (self.depth / self.codes.group).max(1) }
    }
    /// The record of a step of 16 in the chunk.
    pub fn record_of(&self, step: u32) -> u32 {
        if self.records() == 1 { 0 } else { step * STEP as u32 / self.codes.group }
    }
    /// Bytes of the records of a chunk.
    pub fn record_bytes(&self) -> u32 {
        self.records() * self.codes.record_bytes() as u32
    }
    /// Bytes of the codes of a chunk.
    pub fn code_bytes(&self) -> u32 {
        self.pieces() * CODE_PIECE as u32
    }
    /// Bytes of a chunk.
    pub fn bytes(&self) -> u32 {
        self.code_bytes() + self.record_bytes()
    }
    /// Whether chunks of this depth are whole pieces, and whole groups or parts of one.
    pub fn is_possible(&self) -> bool {
        let (depth, group) = (self.depth, self.codes.group);
        depth.is_multiple_of(self.codes.piece_depth() as u32)
            && (self.single() || depth.is_multiple_of(group) || group.is_multiple_of(depth))
    }
}

/// The codes of a product's right operand where the tensor cores can take them as they lie: rows that begin at whole tiles, the
/// whole depth, and groups that are whole steps.
pub(super) fn of(tile: &TileProgram, load: &Load, axis: AxisId, column: AxisId) -> Option<Codes> {
    let param = &tile.params[load.param];
    let Layout::Codes(codes) = param.layout else { return None };
    let [row, depth] = &load.index[..] else { return None };
    let k = param.ty.shape.get(1)?.as_const()?;
    let first = u64::try_from(row.offset).ok()?;
    let group = u64::from(codes.group);
    let whole = group.is_power_of_two() || group.is_multiple_of(8 * STEP) || group == k;
    let plain = row.terms == [(Atom::Axis(column), 1)] && *depth == Index::axis(axis);
    let fits = tile.axes[axis].extent.as_const() == Some(k) && first.is_multiple_of(CODE_ROWS as u64);
    (plain && fits && whole && group.is_multiple_of(STEP)).then_some(codes)
}
