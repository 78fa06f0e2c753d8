//! The kernel that draws tokens from rows of logits, by the arithmetic of [`sinter_ir::draw`].
//!
//! A block surveys one piece of a row ([`survey`]): the largest logit, and the masses of its octaves counted from that.
//! Masses are whole numbers, so neither pieces nor threads leave a trace in the sums. The block of a row that finishes last
//! draws the token ([`choose`]) from what all have left in scratch memory; of the logits it reads again only the pieces
//! that have some in the one octave that a filter cuts, or from which the token comes.

mod choose;
mod item;
mod select;
mod survey;

use crate::Error;
use crate::emit::{Assembler, Cache, Double, Entry, F32, F64, Global, I32, Int, K, Long, Shared};
use item::Row;
use sinter_ir::draw::{DRAW_BYTES, MOST_LOGITS, NO_TOKEN, OCTAVES};
use sinter_ir::{Blocks, DType, Dim, GpuKernel, GpuParam, Plan, Sym, Target};

const THREADS: u32 = 256;
/// Logits of a thread in a piece.
const EACH: u32 = 16;
/// Logits in a piece.
const PIECE: u32 = THREADS * EACH;
/// Bytes of the counter of the blocks that have finished a row.
const COUNTER: u32 = 128;
/// What a block leaves: the sums of its octaves, the exponent of the first of them, and its largest logit.
const RECORD: u32 = OCTAVES as u32 * 8 + 16;

/// The numbers in a row of logits, if the plan's result is rows from which a token can be drawn.
pub fn width(plan: &Plan) -> Option<u32> {
    let is_state = |name: &str| plan.states.iter().any(|state| state.name == name);
    let result = plan.outputs.iter().find(|output| !is_state(&output.name))?;
    let [rows, width] = result.ty.shape.as_slice() else { return None };
    let width = width.as_const().filter(|width| (1..=MOST_LOGITS).contains(width))?;
    (*rows == Dim::from(Sym::R) && result.ty.dtype == DType::F32).then_some(width as u32)
}

/// The kernel for rows of `width` logits. Its arguments are the logits, one [`Draw`](sinter_ir::draw::Draw) a row, and
/// the tokens.
pub fn kernel(assembler: &Assembler, name: String, width: u32) -> Result<GpuKernel, Error> {
    let mut params: Vec<GpuParam> = (0..3).map(GpuParam::Address).collect();
    params.push(GpuParam::Scratch);
    let waits = assembler.target() == Target::Sm90a;
    let entry =
        Entry { name: name.clone(), params, threads: THREADS, max_registers: Some(128), min_blocks: None };
    let assembled = assembler.kernel(&entry, |k| {
        if waits {
            k.wait_for_launch();
            k.let_next_launch_start();
        }
        write(k, width);
    })?;
    let pieces = width.div_ceil(PIECE);
    let row = Blocks { extent: Sym::R.into(), per_block: 1 };
    let piece = Blocks { extent: Dim::of(width as usize), per_block: u64::from(PIECE) };
    Ok(GpuKernel {
        name,
        ptx: assembled.ptx,
        params: entry.params,
        grid: vec![row, piece],
        persistent: None,
        threads: THREADS,
        shared_bytes: assembled.shared_bytes,
        cluster: 1,
        dependent_launch: waits,
        scratch: vec![Sym::R.into(), Dim::of((COUNTER + pieces * RECORD) as usize)],
    })
}

/// What the parts of the kernel share.
struct Job<'k> {
    k: K<'k>,
    row: Row<'k>,
    draw: Settings<'k>,
    /// The pieces of a row.
    pieces: u32,
    /// The row's piece of scratch memory.
    left: Global<'k>,
    /// Sums of threads, later the list of the logits of an octave.
    table: Shared<'k>,
    /// What warps exchange.
    exchange: Shared<'k>,
    /// The sums of the octaves.
    octaves: Shared<'k>,
    /// The length of the list, and the number of finished blocks.
    count: Shared<'k>,
}

/// The fields of a draw.
struct Settings<'k> {
    scale: Double<'k>,
    uniform: Double<'k>,
    top_k: Int<'k>,
    top_p: Double<'k>,
    min_p: Double<'k>,
}

impl<'k> Settings<'k> {
    fn load(k: K<'k>, row: Int<'k>) -> Self {
        let from = k.address(1).at(row.long() * i64::from(DRAW_BYTES as u32));
        let wide = |at: i32| k.load::<F64>(from.at(at), Cache::Any);
        let float = |at: i32| k.load::<F32>(from.at(at), Cache::Any).double();
        let top_k = k.load::<I32>(from.at(16), Cache::Any);
        Self { scale: wide(0), uniform: wide(8), top_k, top_p: float(20), min_p: float(24) }
    }
}

fn write(k: K<'_>, width: u32) {
    let pieces = width.div_ceil(PIECE);
    let row = k.block().divided(pieces as i32);
    let piece = k.block() - row * pieces as i32;
    let draw = Settings::load(k, row);
    let left = k.scratch().at(row.long() * i64::from(COUNTER + pieces * RECORD));
    let job = Job {
        k,
        row: Row {
            k,
            logits: k.address(0).at(row.long() * (i64::from(width) * 4)),
            width,
            scale: draw.scale,
        },
        draw,
        pieces,
        left,
        table: k.shared(OCTAVES as u32 * THREADS * 4, 16),
        exchange: k.shared(8 * 8 * 8, 16),
        octaves: k.shared(OCTAVES as u32 * 8, 16),
        count: k.shared(16, 16),
    };
    let to = k.address(2).at(row << 2);
    k.choose(
        job.draw.scale.lt(0.0),
        || k.when(piece.equals(0) & k.thread().equals(0), || k.store(to, k.int(NO_TOKEN as i32))),
        || {
            survey::write(&job, piece);
            k.barrier();
            k.when(k.thread().equals(0), || k.store(job.count, k.count_up(left, k.int(pieces as i32 - 1))));
            k.barrier();
            let finished = k.load::<I32>(job.count, Cache::Any);
            k.when(finished.equals(pieces as i32 - 1), || {
                let token = choose::write(&job);
                k.when(k.thread().equals(0), || k.store(to, token));
            });
        },
    );
}

impl<'k> Job<'k> {
    /// What a piece has left.
    fn record(&self, piece: Int<'k>) -> Global<'k> {
        self.left.at(piece * RECORD as i32 + COUNTER as i32)
    }

    /// One number of each thread folded over the block, for all of them. A barrier must stand before the next call.
    fn of_block<const N: usize>(
        &self,
        values: [Long<'k>; N],
        fold: impl Fn(Long<'k>, Long<'k>) -> Long<'k>,
    ) -> [Long<'k>; N] {
        let k = self.k;
        let warp = values
            .map(|value| [16, 8, 4, 2, 1].into_iter().fold(value, |x, bits| fold(x, x.of_lane_xor(bits))));
        k.when(k.lane().equals(0), || {
            for (at, value) in warp.iter().enumerate() {
                k.store(self.exchange.at(k.warp() << 3).at(at as i32 * 64), *value);
            }
        });
        k.barrier();
        std::array::from_fn(|at| {
            let of_warp =
                |warp: u32| k.load(self.exchange.at((at as u32 * 64 + warp * 8) as i32), Cache::Any);
            (1..THREADS / 32).fold(of_warp(0), |x, warp| fold(x, of_warp(warp)))
        })
    }
}
