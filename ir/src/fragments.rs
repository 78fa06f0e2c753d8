//! How weights in codes lie in GPU memory: in the order in which tensor cores take them.
//!
//! A weight `[N, K]` is tiles of 16 rows, which are 16 columns of the product, one after the other; the last is filled up with
//! rows of scale 0. A tile is its codes and then a record for each group of the depth.
//!
//! Codes lie in pieces of 512 bytes, 16 for each lane of a warp, so that one vector load of a lane brings all that it needs of 32
//! columns of the weight (8 bits) or 64 (4 bits): the fragments of the 16-row operand of `mma.m16n8k16` for as many steps of 16.
//! In a step lane `4g + q` has eight codes: of rows `g` and `g + 8`, at depths `2q` and `2q + 1` and 8 further (PTX ISA, matrix
//! fragments for mma.m16n8k16). As register `i` of the fragment has row `g + 8·(i mod 2)` and depths `2q + 8·(i / 2)` and the one
//! behind, they are in this order: of 8 bits byte `2i + h` has the `h`-th depth of register `i`, of 4 bits it is the nibble `i + 4h`.
//! The depth is filled up to whole pieces with codes that nothing multiplies.
//!
//! A record is 16 scales in f32 and, by the [`Offset`], nothing, 16 zeros of a byte each, or in f32 the negatives of 16 lows.

use crate::{Codes, Offset};

/// Rows of a weight whose codes lie together.
pub const CODE_ROWS: usize = 16;
/// Bytes of a piece of codes: 16 for each lane of a warp.
pub const CODE_PIECE: usize = 512;

impl Codes {
    /// Depth of a piece: 32 or 64.
    pub fn piece_depth(&self) -> usize {
        CODE_PIECE * 8 / CODE_ROWS / self.bits as usize
    }
    /// Bytes of the scales and offsets of 16 rows of a group, a multiple of 16.
    pub fn record_bytes(&self) -> usize {
        let offsets = match self.offset {
            Offset::Middle => 0,
            Offset::Zeros => CODE_ROWS,
            Offset::Lows => 4 * CODE_ROWS,
        };
        4 * CODE_ROWS + offsets
    }
    /// Bytes of the codes of 16 rows of depth `k`: where the first record of a tile begins.
    pub fn tile_code_bytes(&self, k: usize) -> usize {
        k.div_ceil(self.piece_depth()) * CODE_PIECE
    }
    /// Bytes of a tile of depth `k`.
    pub fn tile_bytes(&self, k: usize) -> usize {
        self.tile_code_bytes(k) + k / (self.group as usize).max(1) * self.record_bytes()
    }
    /// Bytes of a weight `[n, k]` in GPU memory.
    pub fn gpu_bytes(&self, n: usize, k: usize) -> usize {
        n.div_ceil(CODE_ROWS).saturating_mul(self.tile_bytes(k))
    }
    /// Where the code of a row of a tile lies: the byte in the tile, and the number of its lowest bit.
    pub fn place(&self, row: usize, depth: usize) -> (usize, u32) {
        let (piece, within) = (depth / self.piece_depth(), depth % self.piece_depth());
        let lane = row % 8 * 4 + depth % 8 / 2;
        let (register, half) = (row / 8 + within % 16 / 8 * 2, within % 2);
        let first = piece * CODE_PIECE + lane * 16;
        match self.bits {
            8 => (first + within / 16 * 8 + register * 2 + half, 0),
            _ => (first + within / 16 * 4 + register / 2 + half * 2, (register % 2 * 4) as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_place_of_its_own() {
        for (bits, k) in [(8, 80), (4, 96), (4, 64)] {
            let codes = Codes { bits, group: 16, offset: Offset::Middle };
            let mut taken = vec![0u8; codes.tile_code_bytes(k)];
            let mask = (1u16 << bits) as u8;
            for (row, depth) in (0..CODE_ROWS).flat_map(|row| (0..k).map(move |depth| (row, depth))) {
                let (byte, bit) = codes.place(row, depth);
                let own = mask.wrapping_sub(1) << bit;
                assert_eq!(taken[byte] & own, 0, "{codes}: row {row}, depth {depth}");
                taken[byte] |= own;
            }
            let used = taken.iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
            assert_eq!(used, CODE_ROWS * k * bits as usize);
        }
    }

    #[test]
    fn a_lane_has_the_fragment_of_its_step() {
        let codes = Codes { bits: 8, group: 32, offset: Offset::Zeros };
        // Lane 4·3 + 1: row 3 + 8 at depth 16 + 2 + 8 + 1 is the second half of register 3 of the second step.
        assert_eq!(codes.place(11, 27), ((4 * 3 + 1) * 16 + 8 + 7, 0));
        let codes = Codes { bits: 4, ..codes };
        assert_eq!(codes.place(11, 27), ((4 * 3 + 1) * 16 + 4 + 1 + 2, 4));
        assert_eq!((codes.record_bytes(), codes.tile_bytes(96)), (80, 2 * 512 + 3 * 80));
        assert_eq!(codes.gpu_bytes(17, 96), 2 * codes.tile_bytes(96));
    }
}
