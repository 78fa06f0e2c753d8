//! What generated code calls: the form of a weight in one word, and sums of codes that are made on the way.

use super::super::PANEL;
use super::dots::Dots;
use super::pack::QuantShape;
use super::product::{QuantGemmFn, QuantRows};
use sinter_ir::{Codes, Offset};

/// The most rows of one call.
pub const ROWS: usize = 48;

/// `C[m][32 panels] = A[m][k] W^T` of rows of signed codes and a weight in codes, all scales of the weight applied.
///
/// Arguments: `a` (rows `stride` bytes apart), `stride`, `m` (at most [`ROWS`]), `w`, `panels`, `k`, `form` ([`word`]), `c` (f32,
/// rows 128 elements apart), `scratch` (what [`SumsFn`] wrote for these rows).
///
/// # Safety
/// `a` has m rows of k codes, `w` has `panels` panels, at most four, `c` has m rows of 128 elements and overlaps neither,
/// `form` is one of [`word`] that fits k.
pub type CodesGemmFn = unsafe extern "C" fn(
    a: *const i8,
    stride: usize,
    m: usize,
    w: *const u8,
    panels: usize,
    k: usize,
    form: u64,
    c: *mut f32,
    scratch: *mut u8,
);

/// Sums the codes of each group of rows, which products with offsets need: arguments `a`, `stride`, `m`, `k` and `form` as in
/// [`CodesGemmFn`], `scratch` ([`scratch_bytes`]).
///
/// # Safety
/// `a` has m rows of k codes, at most [`ROWS`], and `scratch` has its bytes.
pub type SumsFn =
    unsafe extern "C" fn(a: *const i8, stride: usize, m: usize, k: usize, form: u64, scratch: *mut u8);

/// Writes panels of codes as panels of numbers: arguments `w`, `panels`, `k`, `form` ([`word`]), `to`.
///
/// # Safety
/// `w` has the panels, `to` room for as many of the format; `form` is one of [`word`] that fits k.
pub type UnpackFn = unsafe extern "C" fn(w: *const u8, panels: usize, k: usize, form: u64, to: *mut u8);

/// Elements between rows of results.
const APART: usize = 4 * PANEL;

/// A form as one number.
pub fn word(codes: &Codes) -> u64 {
    let offset = match codes.offset {
        Offset::Middle => 0,
        Offset::Zeros => 1,
        Offset::Lows => 2,
    };
    u64::from(codes.bits) | offset << 8 | u64::from(codes.group) << 16
}

/// The shape that a number says.
pub(super) fn shape(k: usize, form: u64) -> QuantShape {
    let offset = match form >> 8 & 255 {
        0 => Offset::Middle,
        1 => Offset::Zeros,
        _ => Offset::Lows,
    };
    QuantShape { k, group: (form >> 16) as usize, bits: (form & 255) as usize, offset }
}

/// Bytes of scratch memory of a product of depth `k`: for each row a factor and the sums of its groups.
pub fn scratch_bytes(k: usize, codes: &Codes) -> usize {
    ROWS * 4 * (k / codes.group as usize + 1)
}

/// The operands of a call; see [`CodesGemmFn`].
pub(super) struct Call {
    pub(super) a: (*const i8, usize),
    pub(super) m: usize,
    pub(super) w: *const u8,
    pub(super) panels: usize,
    pub(super) c: *mut f32,
    pub(super) scratch: *mut u8,
}

/// Sums the codes of each row's groups, behind a factor of 1 for each row.
///
/// # Safety
/// The contract of [`SumsFn`]; the machine has the instructions of D.
#[inline(always)]
pub(super) unsafe fn sums<D: Dots>(
    (a, stride): (*const i8, usize),
    m: usize,
    shape: &QuantShape,
    scratch: *mut u8,
) {
    let groups = shape.groups();
    // SAFETY: scratch has room for a factor and the sums of each row, and the rows have whole groups.
    unsafe {
        let scales = scratch.cast::<f32>();
        let sums = scales.add(ROWS).cast::<i32>();
        for r in 0..m {
            scales.add(r).write_unaligned(1.0);
            for g in 0..groups {
                let sum = D::total(a.add(r * stride + g * shape.group), shape.group);
                sums.add(r * groups + g).write_unaligned(sum);
            }
        }
    }
}

/// Multiplies rows whose sums are known.
///
/// # Safety
/// The contract of [`CodesGemmFn`]; `run` is the product of the shape's bits.
#[inline(always)]
pub(super) unsafe fn multiply(call: &Call, shape: &QuantShape, run: QuantGemmFn) {
    // SAFETY: scratch begins with a factor for each row, and the sums lie behind them.
    unsafe {
        let scales = call.scratch.cast::<f32>();
        let (codes, stride) = call.a;
        let rows = QuantRows { codes, stride, scales, sums: scales.add(ROWS).cast() };
        run(&rows, call.m, call.w, call.panels, shape, call.c, APART);
    }
}
