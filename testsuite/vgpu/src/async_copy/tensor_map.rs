//! TMA copies of a box of a tensor (PTX ISA, "Tensors"; CUDA driver API, `cuTensorMapEncodeTiled`).
//!
//! A box lies dense in shared memory, innermost dimension first, its 16-byte pieces permuted by the swizzle. Elements
//! outside the tensor are read as zero and not written. Bytes are counted for the whole box, in or out of the tensor.

use crate::tensor::descriptor::{swizzle_span, swizzled};
use sinter_ir::{DType, Swizzle, TensorMap};

/// The most dimensions of a tensor map.
pub const MOST_RANK: usize = 5;

/// Why a tensor map, or a copy with it, is refused.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum TensorMapError {
    /// Lists whose lengths do not agree, or are none or too many.
    #[error(
        "a tensor map with {extents} extents, {strides} strides and {boxes} box extents; it takes 1 to 5 extents, as many \
         box extents and one stride less"
    )]
    Rank {
        /// How many extents.
        extents: usize,
        /// How many strides.
        strides: usize,
        /// How many extents of the box.
        boxes: usize,
    },
    /// An element type that no tensor map has here.
    #[error("a tensor map over {0}; it takes bf16, f16 and f32")]
    Type(DType),
    /// A base that is not aligned.
    #[error("a tensor map at {0:#x}, which is no multiple of 16")]
    Base(u64),
    /// An extent that is zero or too large: the dimension and the extent.
    #[error("a tensor map of extent {1} along dimension {0}; it takes 1 to 2^32")]
    Extent(usize, u64),
    /// A stride that is not aligned or too large: the dimension and the stride.
    #[error(
        "a tensor map with a stride of {1} bytes along dimension {0}; it takes multiples of 16 below 2^40"
    )]
    Stride(usize, u64),
    /// A box that is empty or too large: the dimension and the extent.
    #[error("a box of {1} along dimension {0}; it takes 1 to 256")]
    BoxExtent(usize, u32),
    /// The bytes of a row of the box.
    #[error("a box with rows of {0} bytes; it takes multiples of 16")]
    RowBytes(u32),
    /// The bytes of a row of the box, and those that the swizzle mixes. The driver takes shorter rows, too, but how
    /// they then lie is not published.
    #[error("a box with rows of {0} bytes under a swizzle of {1} bytes; the rows must fill it")]
    Span(u32, u32),
    /// Too many or too few coordinates.
    #[error("{found} coordinates for a tensor map of {wanted} dimensions")]
    Coordinates {
        /// How many there are.
        found: usize,
        /// How many the map takes.
        wanted: usize,
    },
    /// An address in shared memory that is not aligned.
    #[error("a tensor copy at {0:#x} in shared memory, which is no multiple of 128")]
    Shared(u32),
}

/// Bytes that lie together on both sides of a copy; at most 16.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Piece {
    /// Where they lie in shared memory.
    pub shared: u32,
    /// Where they lie in global memory; nowhere if they are outside the tensor.
    pub global: Option<u64>,
    /// How many.
    pub bytes: u32,
}

/// Checks the rules of `cuTensorMapEncodeTiled`, as far as they concern tiled copies of what a kernel is given.
pub fn check(map: &TensorMap) -> Result<(), TensorMapError> {
    let rank = map.dims.len();
    if !(1..=MOST_RANK).contains(&rank) || map.strides.len() + 1 != rank || map.box_dims.len() != rank {
        return Err(TensorMapError::Rank {
            extents: rank,
            strides: map.strides.len(),
            boxes: map.box_dims.len(),
        });
    }
    if !matches!(map.dtype, DType::Bf16 | DType::F16 | DType::F32) {
        return Err(TensorMapError::Type(map.dtype));
    }
    if !map.base.0.is_multiple_of(16) {
        return Err(TensorMapError::Base(map.base.0));
    }
    for (axis, &extent) in map.dims.iter().enumerate() {
        if !(1..=1 << 32).contains(&extent) {
            return Err(TensorMapError::Extent(axis, extent));
        }
    }
    for (axis, &stride) in map.strides.iter().enumerate() {
        if !stride.is_multiple_of(16) || stride >= 1 << 40 {
            return Err(TensorMapError::Stride(axis + 1, stride));
        }
    }
    for (axis, &extent) in map.box_dims.iter().enumerate() {
        if !(1..=256).contains(&extent) {
            return Err(TensorMapError::BoxExtent(axis, extent));
        }
    }
    let (row, span) = (row_bytes(map), swizzle_span(map.swizzle));
    if !row.is_multiple_of(16) {
        return Err(TensorMapError::RowBytes(row));
    }
    if map.swizzle != Swizzle::None && row != span {
        return Err(TensorMapError::Span(row, span));
    }
    Ok(())
}

fn row_bytes(map: &TensorMap) -> u32 {
    map.box_dims[0] * map.dtype.bytes() as u32
}

/// The bytes of a box: what a copy adds to an mbarrier.
pub fn box_bytes(map: &TensorMap) -> u32 {
    map.box_dims.iter().fold(map.dtype.bytes() as u32, |bytes, extent| bytes.saturating_mul(*extent))
}

/// Calls `piece` for every piece of the box at `coordinates` (innermost first), copied to or from `shared`. Pieces cover
/// each byte of the box once. A map that does not pass [`check`] is refused; `E` is whatever `piece` may fail with.
pub fn pieces<E: From<TensorMapError>>(
    map: &TensorMap,
    coordinates: &[i32],
    shared: u32,
    piece: &mut dyn FnMut(Piece) -> Result<(), E>,
) -> Result<(), E> {
    check(map)?;
    let rank = map.dims.len();
    if coordinates.len() != rank {
        return Err(TensorMapError::Coordinates { found: coordinates.len(), wanted: rank }.into());
    }
    if !shared.is_multiple_of(128) {
        return Err(TensorMapError::Shared(shared).into());
    }
    let (mut at, mut to) = ([0u32; MOST_RANK], shared);
    loop {
        copy_row(map, coordinates, &at, to, piece)?;
        to += row_bytes(map);
        let Some(axis) = (1..rank).find(|&axis| at[axis] + 1 < map.box_dims[axis]) else { return Ok(()) };
        at[axis] += 1;
        at[1..axis].fill(0);
    }
}

/// The pieces of one row of a box, the one at `at` within it.
fn copy_row<E>(
    map: &TensorMap,
    coordinates: &[i32],
    at: &[u32; MOST_RANK],
    shared: u32,
    piece: &mut dyn FnMut(Piece) -> Result<(), E>,
) -> Result<(), E> {
    let mut row = Some(map.base.0);
    for axis in 1..map.dims.len() {
        let index = i64::from(coordinates[axis]) + i64::from(at[axis]);
        let inside = u64::try_from(index).ok().filter(|&index| index < map.dims[axis]);
        row = row.zip(inside).map(|(row, index)| row.wrapping_add(index.wrapping_mul(map.strides[axis - 1])));
    }
    let element = map.dtype.bytes() as i64;
    // The bytes of the row of the box that lie in the tensor.
    let first = i64::from(coordinates[0]) * element;
    let length = i64::from(row_bytes(map));
    let end = (map.dims[0] as i64 * element - first).clamp(0, length);
    let begin = (-first).clamp(0, end);
    for start in (0..length).step_by(16) {
        // At most three parts: before the tensor, in it, behind it.
        let cuts = [start, begin.clamp(start, start + 16), end.clamp(start, start + 16), start + 16];
        for (part, cut) in cuts.windows(2).enumerate() {
            if cut[0] < cut[1] {
                let inside = row.filter(|_| part == 1);
                let global = inside.map(|row| row.wrapping_add((first + cut[0]) as u64));
                let to = swizzled(map.swizzle, shared + cut[0] as u32);
                piece(Piece { shared: to, global, bytes: (cut[1] - cut[0]) as u32 })?;
            }
        }
    }
    Ok(())
}
