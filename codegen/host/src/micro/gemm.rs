//! C = A W^T over packed weight panels, for any number of rows.
//!
//! The blocking follows Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008) with the
//! weights packed once for all: a block of the depth at a time; within it a group of panels that stays in L2; within
//! that a tile of rows, copied beside each other so that no stride of A aliases in L1; within that the panels. One register
//! tile ([`tile`]) does all the arithmetic, and asks meanwhile for what comes next ([`Fetch`]).
//!
//! Invariant: an output element is one accumulator that takes the depth in order. Blocks of the depth store and reload
//! it, which f32 does exactly, so no blocking, row count or panel count shows in the result.
//!
//! All formats look alike from here: a step of the depth is [`STEP`] bytes of a row (an f32, or two bf16), [`PANEL_STEP`]
//! bytes of a panel, and in the copied rows whatever the format multiplies fastest.

use std::mem::MaybeUninit;

use super::PANEL;
use super::lanes::Wide;

/// Bytes of a row of A in a step of the depth.
const STEP: usize = 4;
/// Bytes of a panel in a step of the depth.
const PANEL_STEP: usize = STEP * PANEL;
/// Bytes of half a panel in a step: the weights of sixteen lanes.
const HALF_STEP: usize = PANEL_STEP / 2;
/// Bytes of a copied row of the greatest tile in a block of the depth: 512 f32, which may be widened bf16, or 1024 bf16.
const BLOCK: usize = 2048;
/// Rows of the greatest tile.
const TILE_ROWS: usize = 12;
/// The copied rows of a tile lie this much more apart than they are long, lest they share an L1 set.
const SKEW: usize = 64;
/// Panels that are used together while they are in L2: 4 blocks of 64 KiB, and room for the next 4 on their way.
const GROUP: usize = 4;
/// How far ahead of the arithmetic a panel is fetched to L2, in bytes, where there is only one tile.
const AHEAD: usize = 6144;
/// So few tiles use what memory gives only a few times, so that its time counts as well as that of the arithmetic.
const FEW_TILES: usize = 4;
/// A cache line.
const LINE: usize = 64;
/// Steps of a tile that follow one run of lines: as many lines as a row's block has.
const RUN: usize = BLOCK / LINE;

/// How a format of A and W is multiplied on lanes `Self::V`, and which register tiles suit it.
///
/// # Safety
/// For the `unsafe` methods: the machine has the instructions of `V`, and the named bytes can be read.
pub(super) trait Format {
    /// The accumulators.
    type V: Wide;
    /// What a row has in a part of a step, in every lane.
    type Act: Copy;
    /// What sixteen columns of W have in a part of a step.
    type Weight: Copy;
    /// Bytes of an element of A and W.
    const ELEMENT: usize;
    /// Parts of a step, which are multiplied one after the other.
    const PARTS: usize;
    /// Bytes of a part of a step in a copied row.
    const ACT: usize;
    /// The most rows in a tile.
    const MAX_ROWS: usize;
    /// Tiles of so many rows and more ask for what comes next.
    const PREFETCH_ROWS: usize;
    /// The most steps of a block where there are several tiles, but no more than [`FEW_TILES`].
    const FEW_STEPS: usize;

    /// Copies `bytes` of a row of A to where [`Format::act`] reads them; a whole step is written of half a one.
    unsafe fn copy(from: *const u8, bytes: usize, to: *mut u8);
    /// Reads [`Format::ACT`] bytes of a copied row.
    unsafe fn act(p: *const u8) -> Self::Act;
    /// Reads a part of [`HALF_STEP`] bytes of a panel.
    unsafe fn weight(p: *const u8, part: usize) -> Self::Weight;
    /// `acc` plus the products of a part, in the order of the depth.
    fn mac(acc: Self::V, a: Self::Act, w: Self::Weight) -> Self::V;
    /// Half panels to multiply at a time for a tile of `rows`: the most that fit the registers.
    fn halves(rows: usize) -> usize;
    /// [`tile`] of this many rows and half panels.
    unsafe fn run(rows: usize, halves: usize, t: &Tile);
}

/// What a register tile works on.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Rows of A side by side, [`row_stride`] bytes apart.
    a: *const u8,
    /// The first step of the first half panel.
    w: *const u8,
    /// Bytes between panels.
    panel: usize,
    /// The first output of the first row.
    c: *mut f32,
    /// Elements between rows of C.
    ldc: usize,
    /// Steps of the depth in this block.
    steps: usize,
    /// Whether C holds the sums of the blocks before.
    resume: bool,
    /// What is fetched to L2 meanwhile.
    fetch: [Fetch; 2],
}

/// Lines that are fetched to L2 while a tile is computed, one at each step. They lie in runs: the first line of each
/// [`RUN`] steps is `run` bytes after that of the run before. Addresses are only ever asked for, so any will do.
#[derive(Clone, Copy)]
struct Fetch {
    from: *const u8,
    /// Bytes from a step's line to the next step's.
    step: usize,
    /// Bytes from a run's first line to the next run's.
    run: usize,
    /// How many runs there are.
    runs: usize,
}

impl Fetch {
    /// The line of a panel, `offset` bytes after the weights at `w`, at each step.
    fn weights(w: *const u8, offset: usize) -> Self {
        Self { from: w.wrapping_add(offset), step: PANEL_STEP, run: PANEL_STEP * RUN, runs: usize::MAX }
    }
    /// Nothing: `at` is a line that is there already.
    fn none(at: *const u8) -> Self {
        Self { from: at, step: 0, run: 0, runs: 0 }
    }
    /// The first line of a run, and the bytes to the next.
    #[inline(always)]
    fn run(&self, number: usize) -> (*const u8, usize) {
        let inside = number < self.runs;
        let offset = if inside { self.run.wrapping_mul(number) } else { 0 };
        (self.from.wrapping_add(offset), if inside { self.step } else { 0 })
    }
}

/// Bytes between the copied rows of a tile of `rows`: fewer rows may be longer.
const fn row_stride(rows: usize) -> usize {
    (BLOCK + SKEW) * TILE_ROWS / rows / SKEW * SKEW
}

/// `MR` rows times `NV` half panels over one block of the depth, all accumulators in registers.
///
/// # Safety
/// As [`Format`], for all that `t` describes: `MR` copied rows, `NV` half panels and `MR x 16 NV` outputs.
#[inline(always)]
pub(super) unsafe fn tile<F: Format, const MR: usize, const NV: usize>(t: &Tile) {
    // SAFETY: the caller lends what `t` describes; prefetching touches nothing, and its address may be anything.
    unsafe {
        let mut acc = [[F::V::splat(0.0); NV]; MR];
        if t.resume {
            for r in 0..MR {
                for v in 0..NV {
                    acc[r][v] = F::V::load(t.c.add(r * t.ldc + 16 * v));
                }
            }
        }
        let (mut a, mut w, mut left, mut number) = (t.a, t.w, t.steps, 0);
        while left > 0 {
            let run = left.min(RUN);
            let [mut first, mut second] = t.fetch.map(|fetch| fetch.run(number));
            for _ in 0..run {
                if const { MR >= F::PREFETCH_ROWS } {
                    prefetch(first.0);
                    prefetch(second.0);
                    first.0 = first.0.wrapping_add(first.1);
                    second.0 = second.0.wrapping_add(second.1);
                }
                for part in 0..F::PARTS {
                    let mut weights = [F::weight(w, part); NV];
                    for v in 1..NV {
                        weights[v] = F::weight(w.add(v / 2 * t.panel + v % 2 * HALF_STEP), part);
                    }
                    for r in 0..MR {
                        let x = F::act(a.add(r * const { row_stride(MR) }));
                        for v in 0..NV {
                            acc[r][v] = F::mac(acc[r][v], x, weights[v]);
                        }
                    }
                    a = a.add(F::ACT);
                }
                w = w.add(PANEL_STEP);
            }
            left -= run;
            number += 1;
        }
        for r in 0..MR {
            for v in 0..NV {
                acc[r][v].store(t.c.add(r * t.ldc + 16 * v));
            }
        }
    }
}

/// Asks for the cache line of `p` in L2, which need not be an address of anything.
#[inline(always)]
fn prefetch(p: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a prefetch has no effect but on time; SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
}

/// The operands of one product; see [`super::GemmFn`].
pub(super) struct Product {
    pub(super) a: *const u8,
    pub(super) lda: usize,
    pub(super) m: usize,
    pub(super) w: *const u8,
    pub(super) panels: usize,
    pub(super) k: usize,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
}

/// Room for the rows of a tile.
#[repr(align(64))]
struct Rows(MaybeUninit<[u8; (BLOCK + SKEW) * TILE_ROWS]>);

/// The whole product, block by block.
///
/// # Safety
/// The contract of [`super::GemmFn`].
#[inline(always)]
pub(super) unsafe fn gemm<F: Format>(p: &Product) {
    let tiles = p.m.div_ceil(F::MAX_ROWS);
    if tiles == 0 || p.panels == 0 {
        return;
    }
    let steps = (p.k * F::ELEMENT).div_ceil(STEP);
    let room = (row_stride(p.m.div_ceil(tiles)) - SKEW) / (F::PARTS * F::ACT);
    let most = if (2..=FEW_TILES).contains(&tiles) { room.min(F::FEW_STEPS) } else { room };
    // Blocks as even as can be, and so are the tiles: m = 13 is 7 and 6 rows, not 12 and 1.
    let block = steps.div_ceil(steps.div_ceil(most).max(1)).max(1);
    let rows_of = |i: usize| p.m * i / tiles..p.m * (i + 1) / tiles;
    let mut rows = Rows(MaybeUninit::uninit());
    let mut step0 = 0;
    // A depth of zero still writes its zeros.
    while step0 < steps.max(1) {
        let n_steps = block.min(steps - step0);
        for group in (0..p.panels).step_by(GROUP) {
            let n_panels = GROUP.min(p.panels - group);
            let next = next(p, (step0, steps, block), group);
            for i in 0..tiles {
                let (of, after) = (rows_of(i), rows_of((i + 1) % tiles));
                // SAFETY: the rows, panels and outputs are within those the caller lends.
                unsafe {
                    // The rows of an only tile are there since the first group.
                    if tiles > 1 || group == 0 {
                        copy_rows::<F>(p, of.clone(), step0, n_steps, &mut rows);
                    }
                    let w = p.w.add((group * steps + step0) * PANEL_STEP);
                    let t = Tile {
                        a: rows.0.as_ptr().cast(),
                        w,
                        panel: steps * PANEL_STEP,
                        c: p.c.add(of.start * p.ldc + group * PANEL),
                        ldc: p.ldc,
                        steps: n_steps,
                        resume: step0 > 0,
                        fetch: [Fetch::none(w); 2],
                    };
                    let ahead = Ahead {
                        weights: match (i, tiles) {
                            (_, 1) => Some(AHEAD),
                            // Two lines a step are a panel's, so the first two tiles fetch all.
                            (0 | 1, _) => Some(next.weights.wrapping_add(i * LINE)),
                            _ => None,
                        },
                        rows: p.a.wrapping_add(
                            after.start * p.lda * F::ELEMENT + next.step(i + 1 == tiles) * STEP,
                        ),
                        pitch: p.lda * F::ELEMENT,
                        count: if tiles == 1 { 0 } else { after.len() },
                    };
                    panels::<F>(of.len(), n_panels, t, ahead);
                }
            }
        }
        step0 += block;
    }
}

/// Where a group of panels is followed by the next.
struct Next {
    /// From a group's weights in a block to those that come next, in bytes.
    weights: usize,
    /// The first step of this block, and of the block of those.
    steps: (usize, usize),
}

impl Next {
    /// The first step of the rows that come next, after the last tile or before.
    fn step(&self, last: bool) -> usize {
        if last { self.steps.1 } else { self.steps.0 }
    }
}

/// What comes after a group of panels in a block: the next group, or the next block, or the panels behind these, which are
/// likely to be asked for by the next call.
fn next(p: &Product, (step0, steps, block): (usize, usize, usize), group: usize) -> Next {
    let panel = steps * PANEL_STEP;
    let (weights, after) = if group + GROUP < p.panels {
        (GROUP * panel, step0)
    } else if step0 + block < steps {
        ((block * PANEL_STEP).wrapping_sub(group * panel), step0 + block)
    } else {
        (((p.panels - group) * panel).wrapping_sub(step0 * PANEL_STEP), 0)
    };
    Next { weights, steps: (step0, after) }
}

/// What comes after a tile.
#[derive(Clone, Copy)]
struct Ahead {
    /// From a step's weights to a line to fetch, in bytes.
    weights: Option<usize>,
    /// The rows of the next tile: the first, the bytes between two, and how many.
    rows: *const u8,
    pitch: usize,
    count: usize,
}

impl Ahead {
    /// What a part of a tile fetches that begins at the weights `w` after `done` of `all` half panels, and has `halves`.
    fn part(&self, w: *const u8, (done, halves, all): (usize, usize, usize)) -> [Fetch; 2] {
        let weights = self.weights.map_or(Fetch::none(w), |offset| Fetch::weights(w, offset));
        let (from, to) = (self.count * done / all, self.count * (done + halves) / all);
        let rows = Fetch {
            from: self.rows.wrapping_add(from * self.pitch),
            step: LINE,
            run: self.pitch,
            runs: to - from,
        };
        match self.count {
            0 => [weights, self.weights.map_or(weights, |offset| Fetch::weights(w, offset + LINE))],
            _ => [weights, rows],
        }
    }
}

/// One tile of rows times `n` panels, as many at a time as the registers hold.
///
/// # Safety
/// As [`tile`], for `n` panels.
#[inline(always)]
unsafe fn panels<F: Format>(rows: usize, n: usize, mut t: Tile, ahead: Ahead) {
    let all = 2 * n;
    let mut left = all;
    while left > 0 {
        let halves = F::halves(rows).min(left);
        // Three panels are two and one: the shapes are powers of two.
        let halves = 1 << halves.ilog2();
        t.fetch = ahead.part(t.w, (all - left, halves, all));
        // SAFETY: `left` half panels remain of those the caller lends.
        unsafe {
            F::run(rows, halves, &t);
            t.w = t.w.wrapping_add(if halves == 1 {
                half_or_panel(left, t.panel)
            } else {
                halves / 2 * t.panel
            });
            t.c = t.c.wrapping_add(16 * halves);
        }
        left -= halves;
    }
}

/// From one half panel to the next: the other half of this panel, or the first of the next.
#[inline(always)]
fn half_or_panel(left: usize, panel: usize) -> usize {
    // Without depth a panel is empty; then nothing is read either.
    if left.is_multiple_of(2) { HALF_STEP } else { panel.wrapping_sub(HALF_STEP) }
}

/// Copies a block of rows of A beside each other; half a step at the end of an odd depth becomes a zero.
///
/// # Safety
/// The rows can be read over the block's part of the depth.
#[inline(always)]
unsafe fn copy_rows<F: Format>(
    p: &Product,
    of: std::ops::Range<usize>,
    step0: usize,
    steps: usize,
    to: &mut Rows,
) {
    let stride = row_stride(of.len());
    let from = step0 * STEP;
    let bytes = (p.k * F::ELEMENT - from).min(steps * STEP);
    for (i, row) in of.enumerate() {
        // SAFETY: the caller lends `bytes` of each row; a copied row is at most `stride` long, by the choice of block.
        unsafe {
            let to = to.0.as_mut_ptr().cast::<u8>().add(i * stride);
            F::copy(p.a.add(row * p.lda * F::ELEMENT + from), bytes, to);
        }
    }
}
