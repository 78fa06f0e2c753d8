//! Keys and values that tensor copies can bring: the rows of neighbouring positions lie one after the other.

use crate::access::{dim_strides, step};
use sinter_ir::{AxisId, DType, Dim, Index, Layout, Load, TileProgram};

/// Positions whose rows come in one box: those of a page.
pub const BOX_POSITIONS: u32 = 16;
/// The most columns of a product of a warpgroup, and so of a row.
const MOST_COLUMNS: u32 = 256;

/// Rows of bf16 as tensor copies bring them to shared memory: cut into parts of 32, 64 or 128 bytes. A part of all rows
/// of a block of positions lies in one place, its pieces of 16 bytes turned as the width of the part says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BoxedRows {
    /// Elements of a row.
    pub width: u32,
    /// Bytes of a part of it.
    pub part_bytes: u32,
}

impl BoxedRows {
    /// Rows of `width` elements; none if they are no whole parts.
    pub fn new(width: u32) -> Option<BoxedRows> {
        let part_bytes = [128, 64, 32].into_iter().find(|bytes| (width * 2).is_multiple_of(*bytes))?;
        (width <= MOST_COLUMNS).then_some(BoxedRows { width, part_bytes })
    }
    /// Elements of a part.
    pub fn part(self) -> u32 {
        self.part_bytes / 2
    }
    /// Parts of a row.
    pub fn parts(self) -> u32 {
        self.width / self.part()
    }
}

/// The matrix that a parameter is whose first dimension are its rows: the columns, and the bytes from row to row.
pub fn matrix(tile: &TileProgram, load: &Load) -> Option<(u64, u64)> {
    let param = &tile.params[load.param];
    let (_, inner) = param.ty.shape.split_first()?;
    let columns = inner.iter().try_fold(1u64, |product, dim| product.checked_mul(dim.as_const()?))?;
    let strides = dim_strides(param)?;
    let pitch = strides.first()?;
    let whole = pitch.sym.is_none() && pitch.coeff.is_multiple_of(16);
    (whole && param.layout == Layout::Rows && param.ty.dtype == DType::Bf16).then_some((columns, pitch.coeff))
}

/// Whether tensor copies can bring the rows of a load: those of [`BOX_POSITIONS`] positions from a multiple of it on lie one
/// after the other in a matrix, and what is loaded of each are neighbours along `lane`, from a place on that does not depend
/// on the position.
pub(super) fn is_boxed(
    tile: &TileProgram,
    load: &Load,
    (context, lane, width): (AxisId, AxisId, u32),
) -> bool {
    let [row, middle @ .., last] = &load.index[..] else { return false };
    let still = |index: &Index| {
        let axes = index.axes();
        !axes.contains(&context) && !axes.contains(&lane)
    };
    let shape = &tile.params[load.param].ty.shape;
    matrix(tile, load).is_some()
        && BoxedRows::new(width).is_some()
        && step(row, context, u64::from(BOX_POSITIONS)) == Some(1)
        && !row.axes().contains(&lane)
        && middle.iter().all(still)
        && *last == Index::axis(lane)
        && shape.last() == Some(&Dim::of(width as usize))
}
