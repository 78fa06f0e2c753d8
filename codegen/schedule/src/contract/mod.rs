//! The schedules of contractions: products of matrices with an epilogue.
//!
//! Every output is one chain of accumulation along the summed axis, in steps of 16 in the tensor cores or of 1 in f32, so
//! a schedule never changes a bit; it says only how outputs are divided and how operands reach them.

mod coded;
mod cost;
mod structure;

pub use coded::Chunk;
pub use cost::{cycles, multiprocessors};
pub use structure::{Contraction, Product, Unit, find, is_plain, piece_bytes, row_offset};

use sinter_ir::{Binding, CODE_ROWS, Sym, Target, TileProgram};
use std::fmt;

/// Elements that one step of the tensor cores sums.
pub const STEP: u32 = 16;

/// Bytes of a box of results: 16 rows of 128 bytes.
pub const BOX_BYTES: u64 = 16 * 128;

/// Which skeleton does a contraction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Fused multiply-adds in f32, each thread a small tile.
    Fma,
    /// Tiles in shared memory and `mma.sync`, rows as the 16-row operand.
    Tiles,
    /// Few rows: each warp streams its columns' weights through shared memory, columns as the 16-row operand.
    Skinny,
    /// Hopper: tensor copies, and warpgroups that multiply 64 rows each.
    Warpgroups,
}

/// How a contraction is divided.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Contract {
    /// The skeleton.
    pub kind: Kind,
    /// Rows of a block's tile.
    pub tile_rows: u32,
    /// Columns of a block's tile.
    pub tile_columns: u32,
    /// Elements along the summed axis that are in shared memory at a time and stage.
    pub tile_k: u32,
    /// Warps along the rows, and along the columns; for [`Kind::Warpgroups`] the multiplying warpgroups along the rows.
    pub warps: (u32, u32),
    /// Chunks of the operands that are on their way or in use at a time.
    pub stages: u32,
}

impl Contract {
    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        match self.kind {
            Kind::Warpgroups => (self.warps.0 + 1) * 128,
            Kind::Fma | Kind::Tiles | Kind::Skinny => self.warps.0 * self.warps.1 * 32,
        }
    }
    /// Rows of a warp's tile.
    pub fn warp_rows(&self) -> u32 {
        self.tile_rows / self.warps.0
    }
    /// Columns of a warp's tile.
    pub fn warp_columns(&self) -> u32 {
        self.tile_columns / self.warps.1
    }
    /// Whether it can do a step.
    pub fn takes(&self, found: &Contraction, binding: &Binding) -> bool {
        self.kind != Kind::Skinny || found.n_rows.eval(binding) <= u64::from(self.tile_rows)
    }
    /// Bytes of shared memory in which results wait for their tensor copies: two boxes of each multiplying warp.
    pub fn box_bytes(&self, found: &Contraction) -> u64 {
        let warps = u64::from(self.warps.0) * 4;
        if self.kind == Kind::Warpgroups && found.boxed { warps * 2 * BOX_BYTES } else { 0 }
    }
    /// Bytes of shared memory for a contraction.
    pub fn shared_bytes(&self, found: &Contraction) -> u64 {
        let (rows, columns) = (u64::from(self.tile_rows), u64::from(self.tile_columns));
        let (k, stages) = (u64::from(self.tile_k), u64::from(self.stages));
        let right = self.right_bytes(found);
        match self.kind {
            Kind::Fma => (rows + 4 + found.widest() as u64 * (columns + 4)) * k * 4,
            Kind::Tiles => (rows * k * 2 + right) * stages,
            Kind::Warpgroups => (rows * k * 2 + right) * stages + self.box_bytes(found),
            Kind::Skinny => right * stages,
        }
    }
    /// Bytes of a chunk of the right operands of the largest run.
    fn right_bytes(&self, found: &Contraction) -> u64 {
        let columns = u64::from(self.tile_columns);
        let of = |at: &usize| match self.chunk(&found.products[*at]) {
            Some(chunk) => columns / CODE_ROWS as u64 * u64::from(chunk.bytes()),
            None => columns * u64::from(self.tile_k) * 2,
        };
        found.runs().iter().map(|run| run.iter().map(of).sum::<u64>()).max().unwrap_or(0)
    }
    /// How a chunk of a product's weights lies in shared memory, if they are codes.
    pub fn chunk(&self, product: &Product) -> Option<Chunk> {
        product.codes.map(|codes| Chunk { codes, k: product.k, depth: self.tile_k })
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Fma => "fma",
            Kind::Tiles => "tiles",
            Kind::Skinny => "skinny",
            Kind::Warpgroups => "warpgroups",
        };
        let Self { tile_rows, tile_columns, tile_k, warps: (rows, columns), stages, .. } = self;
        write!(f, "{kind}: {tile_rows}x{tile_columns}x{tile_k}, {rows}x{columns} warps, {stages} stages")
    }
}

/// All schedules that fit a program, a target and steps of at most `max_tokens` tokens; none if it is no contraction.
pub fn candidates(tile: &TileProgram, target: Target, max_tokens: Option<u64>) -> Vec<Contract> {
    let Some(found) = find(tile) else { return Vec::new() };
    let mut all = Vec::new();
    if found.unit() == Some(Unit::Fma) {
        for (tile_rows, tile_columns, warps) in FMA_SHAPES {
            all.push(Contract { kind: Kind::Fma, tile_rows, tile_columns, tile_k: 16, warps, stages: 1 });
        }
    } else {
        for (tile_rows, tile_columns, warps) in TILE_SHAPES {
            for (tile_k, stages) in [(32, 3), (32, 4), (64, 3), (64, 4)] {
                all.push(Contract { kind: Kind::Tiles, tile_rows, tile_columns, tile_k, warps, stages });
            }
        }
    }
    if target == Target::Sm90a && found.products.iter().all(|product| is_plain(tile, &found, product)) {
        for (groups, tile_columns) in [(2, 256), (2, 128), (2, 64), (1, 256), (1, 128), (1, 64)] {
            let (tile_rows, warps) = (groups * 64, (groups, 1));
            let (kind, tile_k, stages) = (Kind::Warpgroups, 64, 4);
            all.push(Contract { kind, tile_rows, tile_columns, tile_k, warps, stages });
        }
    }
    if let Some(rows) = few_rows(tile, &found, max_tokens) {
        let coded = found.products.iter().any(|product| product.codes.is_some());
        for (warp_columns, warps, tile_k, stages) in skinny_shapes(coded) {
            let (tile_columns, warps) = (warp_columns * warps, (1, warps));
            let tile_rows = rows.next_multiple_of(8) as u32;
            all.push(Contract { kind: Kind::Skinny, tile_rows, tile_columns, tile_k, warps, stages });
        }
    }
    all.retain(|schedule| fits(schedule, &found, target));
    all
}

/// Columns of a warp, warps, elements and number of stages. Codes are few bytes, of which more chunks are on their way.
fn skinny_shapes(coded: bool) -> impl Iterator<Item = (u32, u32, u32, u32)> {
    let (columns, chunks): (&[u32], &[(u32, u32)]) = match coded {
        true => (&[16], &[(128, 8), (128, 16), (128, 32)]),
        false => (&[16, 8], &[(64, 6), (64, 12), (128, 4), (128, 8), (128, 12)]),
    };
    columns.iter().flat_map(move |columns| {
        [1, 2, 4]
            .into_iter()
            .flat_map(move |warps| chunks.iter().map(move |(k, stages)| (*columns, warps, *k, *stages)))
    })
}

/// The most rows that a step of at most `max_tokens` tokens has, if the skinny skeleton can do them: its weights are
/// copied 16 bytes at a time, and its rows are read in pairs.
fn few_rows(tile: &TileProgram, found: &Contraction, max_tokens: Option<u64>) -> Option<u64> {
    let tokens = match found.n_rows.sym {
        None => 1,
        // Neither sequences nor rows of logits are more than tokens.
        Some(Sym::T | Sym::S | Sym::R) => max_tokens?,
        Some(Sym::P | Sym::N) => return None,
    };
    let rows = found.n_rows.coeff.checked_mul(tokens)?;
    let copied = |product: &Product| {
        let right = product.codes.is_some() || piece_bytes(tile, &product.b, product.axis) == 16;
        right && piece_bytes(tile, &product.a, product.axis) >= 4
    };
    let possible = found.unit() != Some(Unit::Fma)
        && found.rows_share
        && found.group.is_none()
        && found.columns_share
        && found.products.iter().all(copied);
    (possible && rows <= crate::FEW_TOKENS).then_some(rows)
}

/// Tiles of the f32 skeleton: each thread has 4 rows (1 of a tile of 4 rows) and 4 columns.
const FMA_SHAPES: [(u32, u32, (u32, u32)); 2] = [(32, 64, (4, 1)), (4, 128, (4, 1))];

/// Tiles of the tensor-core skeleton; a warp's tile is a multiple of 16 rows and 16 columns.
const TILE_SHAPES: [(u32, u32, (u32, u32)); 6] = [
    (16, 64, (1, 4)),
    (32, 64, (1, 4)),
    (64, 64, (2, 2)),
    (64, 128, (2, 2)),
    (128, 64, (2, 2)),
    (128, 128, (2, 4)),
];

/// The most accumulators of a thread that leave registers for fragments and addresses.
const MAX_ACCUMULATORS: u32 = 128;
/// The same beside codes and what makes numbers of them.
const MAX_BESIDE_CODES: u32 = 64;

fn fits(schedule: &Contract, found: &Contraction, target: Target) -> bool {
    let outputs = schedule.tile_rows * schedule.tile_columns * found.products.len() as u32;
    // A skinny warp has no more columns than there are.
    let coded = found.products.iter().filter_map(|product| schedule.chunk(product)).collect::<Vec<_>>();
    let wanted = schedule.kind != Kind::Skinny
        || schedule.warp_columns() == 8
        || !coded.is_empty()
        || found.n_columns.as_const().is_none_or(|columns| columns > 8);
    wanted
        && coded.iter().all(Chunk::is_possible)
        && schedule.shared_bytes(found) <= u64::from(target.max_shared_bytes())
        && outputs / schedule.threads() <= if coded.is_empty() { MAX_ACCUMULATORS } else { MAX_BESIDE_CODES }
}

/// The schedule with the least estimated time; none if the program is no contraction, or if nothing fits.
pub fn choose(tile: &TileProgram, target: Target, max_tokens: Option<u64>) -> Option<Contract> {
    let found = find(tile)?;
    let mut all = candidates(tile, target, max_tokens);
    // Where rows are few, nothing but the stream of weights counts, and this skeleton is made for it.
    if all.iter().any(|schedule| schedule.kind == Kind::Skinny) {
        all.retain(|schedule| schedule.kind == Kind::Skinny);
    }
    // A stable order, so that of equal costs the first stays.
    all.sort_by_cached_key(|schedule| cycles(schedule, tile, &found, (target, max_tokens)));
    all.into_iter().next()
}
