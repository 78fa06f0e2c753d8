//! The product of quantised rows and quantised panels.

use super::super::PANEL;
use super::dots::Dots;
use super::pack::{QuantShape, SCALES};
use sinter_ir::Offset;

/// Rows of activations as [`super::QuantizeFn`] makes them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct QuantRows {
    /// The codes of the first row.
    pub codes: *const i8,
    /// Bytes between rows.
    pub stride: usize,
    /// A scale for each row.
    pub scales: *const f32,
    /// `[rows][groups]` sums of codes.
    pub sums: *const i32,
}

/// `C[m][32 panels] = A[m][k] W^T`, overwriting C.
///
/// Arguments: `a`, `m`, `w`, `panels`, `shape`, `c` (f32, rows `ldc` elements apart), `ldc`.
///
/// # Safety
/// `a` and `shape` can be read; `a` has m rows of whole groups, scales and sums; `w` has `panels` panels of the shape; `c` has m
/// rows of `32 panels` elements and overlaps neither; the shape is possible, and of the kernel's bits.
pub type QuantGemmFn = unsafe extern "C" fn(
    a: *const QuantRows,
    m: usize,
    w: *const u8,
    panels: usize,
    shape: *const QuantShape,
    c: *mut f32,
    ldc: usize,
);

/// How the codes of a group are read.
pub(super) trait Codes {
    /// Bits of a code.
    const BITS: usize;
    /// Depth of a step.
    const DEPTH: usize;
    /// The most rows of a register tile of `rows_of_eight` rows of eight-bit codes.
    fn rows<D: Dots>() -> usize;
    /// Adds a step's products of one row to the sums of both halves of a panel.
    ///
    /// # Safety
    /// The step's codes of panel and row can be read; the machine has the instructions of D.
    unsafe fn step<D: Dots, const MR: usize>(sums: &mut [[D::I; 2]; MR], w: *const u8, a: (*const i8, usize));
}

/// Codes of eight bits.
pub(super) enum Eight {}

impl Codes for Eight {
    const BITS: usize = 8;
    const DEPTH: usize = 4;
    fn rows<D: Dots>() -> usize {
        D::ROWS
    }
    #[inline(always)]
    unsafe fn step<D: Dots, const MR: usize>(
        sums: &mut [[D::I; 2]; MR],
        w: *const u8,
        a: (*const i8, usize),
    ) {
        // SAFETY: the caller lends the step.
        unsafe {
            let w = [D::codes(w), D::codes(w.add(64))];
            for r in 0..MR {
                let x = D::act(a.0.add(r * a.1));
                for v in 0..2 {
                    sums[r][v] = D::dot(sums[r][v], w[v], x);
                }
            }
        }
    }
}

/// Codes of four bits: a step is two of eight bits.
pub(super) enum Four {}

impl Codes for Four {
    const BITS: usize = 4;
    const DEPTH: usize = 8;
    fn rows<D: Dots>() -> usize {
        // Sums of i32 and of f32 both take registers.
        D::ROWS / 2
    }
    #[inline(always)]
    unsafe fn step<D: Dots, const MR: usize>(
        sums: &mut [[D::I; 2]; MR],
        w: *const u8,
        a: (*const i8, usize),
    ) {
        // SAFETY: the caller lends the step.
        unsafe {
            for v in 0..2 {
                let (low, high) = D::nibbles(w.add(64 * v));
                for r in 0..MR {
                    let p = a.0.add(r * a.1);
                    sums[r][v] = D::dot(sums[r][v], low, D::act(p));
                    sums[r][v] = D::dot(sums[r][v], high, D::act(p.add(4)));
                }
            }
        }
    }
}

/// The operands of a product; see [`QuantGemmFn`].
pub(super) struct Product<'a> {
    pub(super) a: &'a QuantRows,
    pub(super) m: usize,
    pub(super) w: *const u8,
    pub(super) panels: usize,
    pub(super) shape: &'a QuantShape,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
}

/// One tile: rows from `row` on, and a panel.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    a: &'a QuantRows,
    row: usize,
    panel: *const u8,
    shape: &'a QuantShape,
    c: *mut f32,
    ldc: usize,
}

/// The whole product: panel by panel, so that a panel stays in the second cache for all rows, and tiles of rows as even as
/// can be. `run` is [`tile`] of so many rows.
///
/// # Safety
/// The contract of [`QuantGemmFn`].
#[inline(always)]
pub(super) unsafe fn gemm<D: Dots, C: Codes>(p: &Product<'_>, run: unsafe fn(usize, &Tile<'_>)) {
    let tiles = p.m.div_ceil(C::rows::<D>());
    debug_assert!(p.shape.is_possible() && p.shape.bits == C::BITS);
    for panel in 0..p.panels {
        for i in 0..tiles {
            let (from, to) = (p.m * i / tiles, p.m * (i + 1) / tiles);
            // SAFETY: the panel, rows and outputs are within those the caller lends.
            unsafe {
                let c = p.c.add(from * p.ldc + panel * PANEL);
                let w = p.w.add(panel * p.shape.panel_bytes());
                run(to - from, &Tile { a: p.a, row: from, panel: w, shape: p.shape, c, ldc: p.ldc });
            }
        }
    }
}

/// `MR` rows times a panel, all sums in registers.
///
/// # Safety
/// As [`gemm`], for what `t` describes; the machine has the instructions of D.
#[inline(always)]
pub(super) unsafe fn tile<D: Dots, C: Codes, const MR: usize>(t: &Tile<'_>) {
    let (shape, groups) = (t.shape, t.shape.groups());
    // SAFETY: the caller lends `groups` groups of the panel and of MR rows, their scales and sums, and the outputs.
    unsafe {
        let mut w = t.panel;
        let mut a = t.a.codes.add(t.row * t.a.stride);
        let mut out = [[D::zero_f(); 2]; MR];
        for g in 0..groups {
            let mut sums = [[D::same(0); 2]; MR];
            for _ in 0..shape.group / C::DEPTH {
                C::step::<D, MR>(&mut sums, w, (a, t.a.stride));
                w = w.add(PANEL * 4);
                a = a.add(C::DEPTH);
            }
            for v in 0..2 {
                let scale = D::load_f(w.add(64 * v).cast());
                let zero = match shape.offset {
                    Offset::Middle => D::same(i32::from(shape.zero())),
                    Offset::Zeros => D::bytes(w.add(SCALES + 16 * v)),
                    Offset::Lows => D::same(0),
                };
                for r in 0..MR {
                    let sum = t.a.sums.add((t.row + r) * groups + g).read_unaligned();
                    out[r][v] = D::scaled(sums[r][v], zero, sum, scale, out[r][v]);
                    if shape.offset == Offset::Lows {
                        let low = D::load_f(w.add(SCALES + 64 * v).cast());
                        out[r][v] = D::scaled(D::same(sum), zero, 0, low, out[r][v]);
                    }
                }
            }
            w = w.add(shape.group_bytes() - shape.group / C::DEPTH * PANEL * 4);
        }
        for r in 0..MR {
            let scale = t.a.scales.add(t.row + r).read_unaligned();
            for v in 0..2 {
                D::store_scaled(out[r][v], scale, t.c.add(r * t.ldc + 16 * v));
            }
        }
    }
}
