//! C = A W^T over packed weight panels, for any number of rows.
//!
//! The blocking follows Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008) with the
//! weights packed once for all: a block of the depth at a time; within it a group of panels that stays in L2; within
//! that a tile of rows, copied beside each other so that no stride of A aliases in L1; within that the panels, a few at
//! a time for few rows. One register tile ([`tile`]) does all the arithmetic.
//!
//! Invariant: an output element is one accumulator that takes the depth in order. Blocks of the depth store and reload
//! it, which f32 does exactly, so no blocking, row count or panel count shows in the result.
//!
//! Both formats look alike from here: a step of the depth is [`STEP`] bytes of a row (an f32, or two bf16) and
//! [`PANEL_STEP`] bytes of a panel.

use std::mem::MaybeUninit;

use super::PANEL;
use super::lanes::Wide;

/// Bytes of a row of A in a step of the depth.
const STEP: usize = 4;
/// Bytes of a panel in a step of the depth.
const PANEL_STEP: usize = STEP * PANEL;
/// Bytes of half a panel in a step: the weights of sixteen lanes.
const HALF_STEP: usize = PANEL_STEP / 2;
/// Bytes of a row of the greatest tile in a block of the depth: 512 f32 or 1024 bf16.
const BLOCK: usize = 2048;
/// Rows of the greatest tile.
const TILE_ROWS: usize = 12;
/// The copied rows of a tile lie this much more apart than they are long, lest they share an L1 set.
const SKEW: usize = 64;
/// Panels that are used together while they are in L2: 4 blocks of 64 KiB, and room for the next 4 on their way.
const GROUP: usize = 4;
/// How far ahead of the arithmetic a panel is fetched to L2, in bytes, by tiles of [`PREFETCH_ROWS`] and more. Fewer rows
/// pass so quickly that the memory's own reading ahead does better alone; both were measured on Zen 4.
const AHEAD: usize = 6144;
/// See [`AHEAD`].
const PREFETCH_ROWS: usize = 7;

/// How a format of A and W is multiplied on lanes `Self::V`, and which register tiles suit it.
///
/// # Safety
/// For the `unsafe` methods: the machine has the instructions of `V`, and the named bytes can be read.
pub(super) trait Format {
    /// The accumulators.
    type V: Wide;
    /// A step of a row of A in every lane.
    type Act: Copy;
    /// A step of sixteen columns of W.
    type Weight: Copy;
    /// Bytes of an element of A and W.
    const ELEMENT: usize;
    /// The most rows in a tile.
    const MAX_ROWS: usize;

    /// Reads [`STEP`] bytes of A.
    unsafe fn act(p: *const u8) -> Self::Act;
    /// Reads [`HALF_STEP`] bytes of a panel.
    unsafe fn weight(p: *const u8) -> Self::Weight;
    /// `acc` plus the products of the step, in the order of the depth.
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
    /// From a step's weights to the two lines to fetch at that step, in bytes; see [`fetches`].
    fetch: [usize; 2],
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
        let (mut a, mut w) = (t.a, t.w);
        for _ in 0..t.steps {
            let mut weights = [F::weight(w); NV];
            for v in 1..NV {
                weights[v] = F::weight(w.add(v / 2 * t.panel + v % 2 * HALF_STEP));
            }
            if const { MR >= PREFETCH_ROWS } {
                prefetch(w.wrapping_add(t.fetch[0]));
                prefetch(w.wrapping_add(t.fetch[1]));
            }
            for r in 0..MR {
                let x = F::act(a.add(r * const { row_stride(MR) }));
                for v in 0..NV {
                    acc[r][v] = F::mac(acc[r][v], x, weights[v]);
                }
            }
            a = a.add(STEP);
            w = w.add(PANEL_STEP);
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
    let block = row_stride(p.m.div_ceil(tiles)) / STEP - SKEW / STEP;
    let mut rows = Rows(MaybeUninit::uninit());
    let mut step0 = 0;
    // A depth of zero still writes its zeros.
    while step0 < steps.max(1) {
        let n_steps = block.min(steps - step0);
        for group in (0..p.panels).step_by(GROUP) {
            let n_panels = GROUP.min(p.panels - group);
            for i in 0..tiles {
                // Tiles as even as can be: m = 13 is 7 and 6 rows, not 12 and 1.
                let (from, to) = (p.m * i / tiles, p.m * (i + 1) / tiles);
                // SAFETY: the rows, panels and outputs are within those the caller lends.
                unsafe {
                    copy_rows::<F>(p, from..to, step0, n_steps, &mut rows);
                    let t = Tile {
                        a: rows.0.as_ptr().cast(),
                        w: p.w.add((group * steps + step0) * PANEL_STEP),
                        panel: steps * PANEL_STEP,
                        c: p.c.add(from * p.ldc + group * PANEL),
                        ldc: p.ldc,
                        steps: n_steps,
                        resume: step0 > 0,
                        fetch: fetches(i, tiles, group + GROUP < p.panels, steps * PANEL_STEP),
                    };
                    panels::<F>(to - from, n_panels, t);
                }
            }
        }
        step0 += block;
    }
}

/// What tile `i` of `tiles` fetches at a step: alone, the weights further on; of several, the first two fetch a line each
/// of the group of panels that comes next, so that the memory works while the others compute from L2.
fn fetches(i: usize, tiles: usize, more: bool, panel: usize) -> [usize; 2] {
    match (i, tiles) {
        (_, 1) => [AHEAD, AHEAD + HALF_STEP],
        (0 | 1, _) if more => [GROUP * panel + i * HALF_STEP; 2],
        // The step's own line: nothing.
        _ => [0; 2],
    }
}

/// One tile of rows times `n` panels, as many at a time as the registers hold.
///
/// # Safety
/// As [`tile`], for `n` panels.
#[inline(always)]
unsafe fn panels<F: Format>(rows: usize, n: usize, mut t: Tile) {
    let mut left = 2 * n;
    while left > 0 {
        let halves = F::halves(rows).min(left);
        // Three panels are two and one: the shapes are powers of two.
        let halves = 1 << halves.ilog2();
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
    let pad = steps * STEP - bytes;
    for (i, row) in of.enumerate() {
        // SAFETY: the caller lends `bytes` of each row; a copied row is at most `stride` long, by the choice of block.
        unsafe {
            let dst = to.0.as_mut_ptr().cast::<u8>().add(i * stride);
            std::ptr::copy_nonoverlapping(p.a.add(row * p.lda * F::ELEMENT + from), dst, bytes);
            std::ptr::write_bytes(dst.add(bytes), 0, pad);
        }
    }
}
