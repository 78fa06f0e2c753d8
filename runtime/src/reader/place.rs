//! Where a text lies in a step of an encoder.

/// The rows that attention takes together, smaller in larger: blocks of one softmax step, and splits that are added up
/// apart from each other on GPUs. Both begin at multiples of their size, whatever the step holds.
const BLOCKS: [usize; 2] = [64, 512];

/// Where texts may begin.
///
/// A text's rows are divided as they are when it is alone if it crosses a border of a block only where it begins at one.
/// Within a block, the rows before and after it have the weight zero; where zeros do not change a sum, a text may begin
/// at any multiple of the lanes in which sums are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    unit: usize,
}

impl Grid {
    /// For kernels of the host, which add positions in order and keep sums in 16 lanes.
    pub const LANES: Grid = Grid { unit: 16 };
    /// For any kernel: every text begins a block of its own.
    pub const BLOCKS: Grid = Grid { unit: BLOCKS[0] };

    /// The first row for a text of `len` rows, at or after row `end`.
    pub fn place(self, end: usize, len: usize) -> usize {
        let mut at = end.next_multiple_of(self.unit);
        let last = |at: usize| at + len.max(1) - 1;
        while let Some(block) =
            BLOCKS.iter().find(|block| !at.is_multiple_of(**block) && at / **block != last(at) / **block)
        {
            at = at.next_multiple_of(*block);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_begin_where_their_blocks_are_their_own() {
        for (end, len, lanes, blocks) in [
            (0, 700, 0, 0),
            (1, 16, 16, 64),
            (16, 48, 16, 64),
            (16, 49, 64, 64),
            (63, 1, 64, 64),
            (64, 64, 64, 64),
            (65, 448, 512, 512),
            (64, 448, 64, 64),
            (100, 449, 512, 512),
            (500, 30, 512, 512),
            (700, 600, 1024, 1024),
        ] {
            assert_eq!(
                (Grid::LANES.place(end, len), Grid::BLOCKS.place(end, len)),
                (lanes, blocks),
                "{end} {len}"
            );
        }
    }

    #[test]
    fn no_border_is_crossed_but_from_a_border() {
        for grid in [Grid::LANES, Grid::BLOCKS] {
            for (end, len) in
                (0..1200).step_by(7).flat_map(|end| (1..900).step_by(13).map(move |len| (end, len)))
            {
                let at = grid.place(end, len);
                assert!(at >= end && at.is_multiple_of(grid.unit));
                for block in BLOCKS {
                    let crossed = (at + 1..at + len).any(|row| row.is_multiple_of(block));
                    assert!(!crossed || at.is_multiple_of(block), "{end} {len}");
                }
            }
        }
    }
}
