//! Weights in codes on their way to the tensor cores: chunks go to shared memory as they lie in memory, and each lane makes the
//! numbers of its fragments in registers. The numbers are those of a weight that was dequantised before, so sums have the same
//! bits.
//!
//! A lane reads back what it could have copied itself, one vector of 16 bytes for two steps (8 bits) or four (4 bits), so
//! neither copies nor loads meet in a bank.

use super::Job;
use super::stage::{Operand, Side, Team};
use crate::emit::{Cache, F32, Global, I8, I32, Int, Shared};
use crate::lower::{Numbers, fragment};
use sinter_codegen_schedule::contract::{Chunk, Product, STEP, row_offset};
use sinter_ir::{CODE_PIECE, CODE_ROWS, Id, Load};

/// Bytes of one copy.
const COPY: u32 = 16;

/// The right operand of a product.
pub(super) enum Right<'a> {
    /// Numbers of 16 bits.
    Numbers(Operand<'a>),
    /// Codes.
    Codes(Coded<'a>),
}

impl<'a> Right<'a> {
    /// The operand of a product, of which a team copies so many columns.
    pub(super) fn new(job: &Job<'a, '_>, product: &'a Product, columns: u32) -> Self {
        match job.schedule.chunk(product) {
            None => Right::Numbers(Operand::new(job, product, Side::Right, columns)),
            Some(chunk) => {
                let (load, constant) = (&product.b, job.constant[product.b.param.index()]);
                Right::Codes(Coded { load, chunk, tiles: columns / CODE_ROWS as u32, constant })
            }
        }
    }
    /// The bytes of a chunk.
    pub(super) fn bytes(&self) -> u32 {
        match self {
            Right::Numbers(operand) => operand.bytes(),
            Right::Codes(coded) => coded.tiles * coded.chunk.bytes(),
        }
    }
    /// Whether nothing writes it while the model runs.
    pub(super) fn constant(&self) -> bool {
        match self {
            Right::Numbers(operand) => operand.constant,
            Right::Codes(coded) => coded.constant,
        }
    }
    /// Begins to bring the chunk whose first element is `from` to shared memory.
    pub(super) fn stage<'k>(&self, job: &Job<'_, 'k>, team: Team<'k>, to: Shared<'k>, from: Int<'k>) {
        match self {
            Right::Numbers(operand) => operand.stage(job, team, to, from),
            Right::Codes(coded) => coded.stage(job, team, to, from),
        }
    }
}

/// A weight in codes whose chunks go to shared memory: tiles of 16 columns, each its codes and then its records.
pub(super) struct Coded<'a> {
    load: &'a Load,
    pub(super) chunk: Chunk,
    /// Tiles that a team copies.
    tiles: u32,
    constant: bool,
}

impl Coded<'_> {
    fn stage<'k>(&self, job: &Job<'_, 'k>, team: Team<'k>, to: Shared<'k>, from: Int<'k>) {
        let (chunk, codes) = (&self.chunk, &self.chunk.codes);
        let depth = chunk.k as usize;
        let all = codes.tile_code_bytes(depth) as i32;
        let tail = !chunk.k.is_multiple_of(u64::from(chunk.depth));
        let piece = from >> codes.piece_depth().trailing_zeros() as i32;
        let code = |unit: Int<'k>| {
            let at = piece * CODE_PIECE as i32 + unit * COPY as i32;
            // What lies beyond the depth is multiplied by nothing; it must lie in the weight.
            if tail { at.least(all - COPY as i32) } else { at }
        };
        self.copy(job, team, (to, 0), (chunk.code_bytes() / COPY, &code));
        let record = codes.record_bytes() as i32;
        let group = if chunk.single() { job.k.int(0) } else { from.divided(codes.group as i32) };
        let last = depth as i32 / codes.group as i32 * record - COPY as i32;
        let record = |unit: Int<'k>| {
            let at = group * record + unit * COPY as i32;
            (if tail { at.least(last) } else { at }) + all
        };
        self.copy(job, team, (to, chunk.code_bytes()), (chunk.record_bytes() / COPY, &record));
    }

    /// Copies so many units of 16 bytes of each tile to places `behind` the beginning of its chunk; `place` says where in the
    /// tile a unit lies in memory.
    fn copy<'k>(
        &self,
        job: &Job<'_, 'k>,
        team: Team<'k>,
        (to, behind): (Shared<'k>, u32),
        (units, place): (u32, &dyn Fn(Int<'k>) -> Int<'k>),
    ) {
        let (k, total) = (job.k, self.tiles * units);
        for first in (0..total).step_by(team.threads as usize) {
            let at = team.thread + first as i32;
            let (tile, unit) = if self.tiles == 1 {
                (k.int(0), at)
            } else {
                (at.divided(units as i32), at.modulo(units as i32))
            };
            let copy = || {
                let to = to.at(tile * self.chunk.bytes() as i32 + behind as i32).at(unit * COPY as i32);
                k.copy_async(to, self.tile(job, team.first, tile).at(place(unit)));
            };
            if first + team.threads <= total { copy() } else { k.when(at.lt(total as i32), copy) }
        }
    }

    /// Where a tile of the block's begins in memory; the last one for one that does not exist.
    fn tile<'k>(&self, job: &Job<'_, 'k>, first: Int<'k>, tile: Int<'k>) -> Global<'k> {
        let param = &job.scope.tile.params[self.load.param];
        let tiles = param.ty.shape[0].coeff.div_ceil(CODE_ROWS as u64) as i32;
        let column = job.first.1 + first + row_offset(self.load) as i32;
        let number = ((column >> CODE_ROWS.trailing_zeros() as i32) + tile).least(tiles - 1);
        let bytes = self.chunk.codes.tile_bytes(self.chunk.k as usize) as i64;
        job.scope.base(self.load.param).at(number.long() * bytes)
    }
}

/// The fragments of a chunk of 16 columns, step by step.
pub(super) struct Reader<'k> {
    chunk: Chunk,
    /// Where the tile's chunk begins.
    tile: Shared<'k>,
    /// The vector of a piece, and what makes numbers of codes for the columns of a record.
    piece: Option<(u32, [Int<'k>; 4])>,
    numbers: Option<(u32, [Numbers<'k>; 2])>,
}

impl<'k> Reader<'k> {
    /// Of a tile of a chunk in shared memory.
    pub(super) fn new(coded: &Coded<'_>, slot: Shared<'k>, tile: Int<'k>) -> Self {
        let tile = slot.at(tile * coded.chunk.bytes() as i32);
        Self { chunk: coded.chunk, tile, piece: None, numbers: None }
    }

    /// The fragment of a step as the 16-row operand; steps come in ascending order.
    pub(super) fn step(&mut self, step: u32) -> [Int<'k>; 4] {
        let k = self.tile.kernel();
        let each = self.chunk.codes.piece_depth() as u32 / STEP;
        let (piece, within) = (step / each, step % each);
        let vector = match self.piece {
            Some((known, vector)) if known == piece => vector,
            _ => {
                let at = self.tile.at((piece * CODE_PIECE as u32) as i32).at(k.lane() * COPY as i32);
                k.load_vector::<I32, 4>(at, Cache::Any)
            }
        };
        self.piece = Some((piece, vector));
        let record = self.chunk.record_of(step);
        let numbers = match self.numbers {
            Some((known, numbers)) if known == record => numbers,
            _ => self.record(record),
        };
        self.numbers = Some((record, numbers));
        let words = 4 / each as usize;
        fragment(&vector[within as usize * words..][..words], &numbers)
    }

    fn record(&self, record: u32) -> [Numbers<'k>; 2] {
        let (k, codes) = (self.tile.kernel(), &self.chunk.codes);
        let at = self.chunk.code_bytes() + record * codes.record_bytes() as u32;
        let record = self.tile.at(at as i32);
        [0, 8].map(|column| {
            let column = (k.lane() >> 2) + column;
            let number = |behind: i32| k.load::<F32>(record.at(behind).at(column << 2), Cache::Any);
            let zero = |behind: i32| k.load::<I8>(record.at(behind).at(column), Cache::Any).int();
            Numbers::of_record(k, codes, number, zero)
        })
    }
}
