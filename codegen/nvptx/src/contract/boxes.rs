//! Results on their way to memory by tensor copies.
//!
//! Each warp has two boxes of 16 rows by 128 bytes in shared memory. It puts the results of some columns into one, turned
//! as tensor copies turn rows of 128 bytes, so that no two lanes meet in a bank, and one lane has the box copied. The other
//! box fills meanwhile, and the chunks of the next tile are multiplied while the last boxes of this one are read.
//! What lies beyond the matrix is computed from the last row or column again, and the copy leaves it out.

use super::Job;
use crate::emit::{Float, Int, K, Shared};
use crate::lower::{Scope, Val};
use sinter_codegen_schedule::access::dim_strides;
use sinter_codegen_schedule::contract::BOX_BYTES;
use sinter_ir::{DType, Expr, ExprId, Id, ParamId, Stage, Swizzle, TensorMapDef, TileProgram};

/// Rows of a box: those of a warp.
const ROWS: u32 = 16;
/// Bytes of its rows.
const ROW_BYTES: u32 = 128;

/// A tensor map for each result.
pub(super) fn tensor_maps(tile: &TileProgram) -> impl Iterator<Item = TensorMapDef> {
    stores(tile).map(|(param, _)| {
        let (arg, param) = (param.index(), &tile.params[param]);
        let strides = dim_strides(param).unwrap_or_default();
        TensorMapDef {
            arg,
            dtype: param.ty.dtype,
            dims: param.ty.shape.iter().rev().copied().collect(),
            strides: strides.first().map(|stride| vec![stride.coeff]).unwrap_or_default(),
            box_dims: vec![box_columns(param.ty.dtype), ROWS],
            swizzle: Swizzle::B128,
        }
    })
}

fn stores(tile: &TileProgram) -> impl Iterator<Item = (ParamId, ExprId)> {
    tile.stages.iter().filter_map(|stage| match stage {
        Stage::Store { param, value, .. } => Some((*param, *value)),
        Stage::Mma { .. } | Stage::Reduce { .. } | Stage::Online { .. } => None,
    })
}

fn box_columns(dtype: DType) -> u32 {
    ROW_BYTES / dtype.bytes() as u32
}

/// The boxes of a warp.
pub(super) struct Boxes<'k> {
    own: Shared<'k>,
}

/// What one box is to hold.
struct Part<'p, 'k> {
    param: ParamId,
    dtype: DType,
    value: ExprId,
    /// The first fragment of eight columns.
    first: usize,
    /// The fragments' sums, by product.
    sums: &'p [Vec<[Float<'k>; 4]>],
}

impl<'k> Boxes<'k> {
    pub(super) fn new(job: &Job<'_, 'k>) -> Self {
        let memory = job.k.shared(job.schedule.box_bytes(job.found) as u32, 1024);
        // The first four warps copy operands.
        Self { own: memory.at((job.k.warp() - 4) * (2 * BOX_BYTES as i32)) }
    }

    /// Stores the results of 16 rows of the tile from `row` on, given by product as fragments of eight columns.
    pub(super) fn store(&self, job: &Job<'_, 'k>, sums: &[Vec<[Float<'k>; 4]>], row: Int<'k>) {
        let k = job.k;
        let mut parts: Vec<Part<'_, 'k>> = Vec::new();
        for (param, value) in stores(job.scope.tile) {
            let dtype = job.scope.tile.params[param].ty.dtype;
            let value = unrounded(job.scope.tile, value, dtype);
            let fragments = (job.schedule.tile_columns / 8) as usize;
            let firsts = (0..fragments).step_by(box_columns(dtype) as usize / 8);
            parts.extend(firsts.map(|first| Part { param, dtype, value, first, sums }));
        }
        // An odd number of boxes begins with the one that was filled last.
        let pending = |at: usize| if at == 0 && !parts.len().is_multiple_of(2) { 0 } else { 1 };
        for (at, part) in parts.iter().enumerate() {
            let place = self.own.at((at % 2) as i32 * BOX_BYTES as i32);
            k.when(k.lane().equals(0), || k.wait_for_stored_boxes(pending(at)));
            k.warp_barrier();
            part.fill(job, row, place);
            k.show_shared_to_copies();
            k.warp_barrier();
            let column = job.first.1 + (part.first * 8) as i32;
            let row = job.first.0 + row;
            let exists = row.lt(job.extent.0) & column.lt(job.extent.1);
            k.when(k.lane().equals(0), || {
                k.when(exists, || k.store_box(k.tensor_map(part.param.index()), (column, row), place));
                // A group for each box, so that waiting counts boxes.
                k.end_stored_boxes();
            });
        }
    }

    /// Waits until no copy reads shared memory any more, which ends with the block.
    pub(super) fn finish(&self, k: K<'k>) {
        k.when(k.lane().equals(0), || k.wait_for_stored_boxes(0));
    }
}

/// The expression whose value is rounded on its way to memory anyway: rounding once is rounding twice.
fn unrounded(tile: &TileProgram, value: ExprId, dtype: DType) -> ExprId {
    match &tile.exprs[value] {
        Expr::Cast(rounded, inner) if *rounded == dtype => *inner,
        _ => value,
    }
}

impl<'k> Part<'_, 'k> {
    /// Puts the values into the box at `place`.
    fn fill(&self, job: &Job<'_, 'k>, row: Int<'k>, place: Shared<'k>) {
        let lane = job.k.lane();
        let (group, quarter) = (lane >> 2, lane & 3);
        let fragments = (box_columns(self.dtype) / 8) as usize;
        let words = |half: usize| -> Vec<Vec<Int<'k>>> {
            let row = job.row(row + group + 8 * half as i32);
            (0..fragments).map(|at| self.words(job, (row, quarter), (at, half))).collect()
        };
        let halves = [words(0), words(1)];
        if self.dtype == DType::F32 {
            return fill_words(job.k, &halves, place);
        }
        // Of each 16 columns the matrices of the upper and the lower rows, then those of the next eight columns.
        let (matrix, within) = (lane >> 3, lane & 7);
        let start = ((matrix & 1) * 8 + within) * ROW_BYTES as i32 + (((matrix >> 1) ^ within) << 4);
        for two in 0..fragments / 2 {
            let word = |at: usize, half: usize| halves[half][2 * two + at][0];
            let to = place.at(start ^ ((two as i32) << 5));
            job.k.store_matrices(to, [word(0, 0), word(0, 1), word(1, 0), word(1, 1)]);
        }
    }

    /// A lane's two values of a row of a fragment as words.
    fn words(
        &self,
        job: &Job<'_, 'k>,
        (row, quarter): (Int<'k>, Int<'k>),
        (at, half): (usize, usize),
    ) -> Vec<Int<'k>> {
        let at = self.first + at;
        let column = job.first.1 + (quarter * 2 + (at * 8) as i32);
        let columns = job.found.n_columns.as_const().unwrap_or(1);
        let whole = columns.is_multiple_of(u64::from(job.schedule.tile_columns));
        let column = if whole { column } else { column.least(job.extent.1 - 2) };
        let mut scope: Scope<'_, 'k> = job.at(row, column);
        for (product, sums) in job.found.products.iter().zip(self.sums) {
            scope = scope.with_results(product.stage, sums[at][2 * half..2 * half + 2].to_vec());
        }
        let values: Vec<Val<'k>> = scope.values(self.value, job.found.column, 2);
        scope.words(self.dtype, &values)
    }
}

/// Puts pairs of words into a box: each lane has two words of each of four fragments. Lanes of odd rows take the fragments
/// in another order: four rows together then have eight different pieces of 16 bytes.
fn fill_words<'k>(k: K<'k>, halves: &[Vec<Vec<Int<'k>>>; 2], place: Shared<'k>) {
    let lane = k.lane();
    let (group, quarter) = (lane >> 2, lane & 3);
    let odd = (group & 1).differs(0);
    let piece = (quarter >> 1) ^ group ^ ((group & 1) << 2);
    for (half, fragments) in halves.iter().enumerate() {
        let start = (group + 8 * half as i32) * ROW_BYTES as i32 + (piece << 4) + ((quarter & 1) << 3);
        for at in 0..fragments.len() {
            let (even_rows, odd_rows) = (&fragments[at], &fragments[at ^ 2]);
            let pair = [0, 1].map(|word| odd.select(odd_rows[word], even_rows[word]));
            k.store_vector(place.at(start ^ ((at as i32) << 5)), pair);
        }
    }
}
