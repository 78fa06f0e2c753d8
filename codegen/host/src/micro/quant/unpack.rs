//! Codes back to numbers: a panel of codes as the products of bf16 and f32 read it.

use super::super::PANEL;
use super::pack::{QuantShape, SCALES};
use sinter_ir::Offset;

/// Numbers of a panel at one depth, in the format of the products that read them.
pub(super) trait Format {
    /// Bytes of four depths of a panel.
    const STEP: usize;
    /// Writes four depths of half a panel, sixteen columns.
    ///
    /// # Safety
    /// `to` has the bytes of a step, from the half's first column on.
    unsafe fn put(x: &[[f32; 16]; 4], to: *mut u8);
}

/// `[k][32]` in f32.
pub(super) enum Single {}

impl Format for Single {
    const STEP: usize = 4 * PANEL * 4;
    #[inline(always)]
    unsafe fn put(x: &[[f32; 16]; 4], to: *mut u8) {
        for (d, x) in x.iter().enumerate() {
            // SAFETY: the caller lends four rows of 32 numbers, of which these are sixteen.
            unsafe { to.add(d * PANEL * 4).cast::<[f32; 16]>().write_unaligned(*x) };
        }
    }
}

/// `[k / 2][32][2]` in bf16.
pub(super) enum Half {}

impl Format for Half {
    const STEP: usize = 2 * PANEL * 4;
    #[inline(always)]
    unsafe fn put(x: &[[f32; 16]; 4], to: *mut u8) {
        for d in 0..2 {
            let mut pairs = [0u32; 16];
            for (c, pair) in pairs.iter_mut().enumerate() {
                *pair = rounded(x[2 * d][c]) >> 16 | rounded(x[2 * d + 1][c]) & 0xffff_0000;
            }
            // SAFETY: the caller lends two rows of 32 pairs, of which these are sixteen.
            unsafe { to.add(d * PANEL * 4).cast::<[u32; 16]>().write_unaligned(pairs) };
        }
    }
}

/// The bits of a number of which the upper half is its bf16, to nearest even. A NaN stays one.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let even = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if x.is_nan() { bits | 0x40_0000 } else { even }
}

/// What is at hand of a group for sixteen columns.
struct Columns {
    scale: [f32; 16],
    /// A whole number that is taken off codes.
    zero: [f32; 16],
    /// What is added to products.
    more: Option<[f32; 16]>,
}

/// Unpacks `panels` panels one after the other, each number `(code − zero) scale` or `code scale − low`, every operation
/// rounded once: the numbers that the dequantise expression gives.
///
/// # Safety
/// `w` has the panels, `to` room for as many of the format; the shape is possible and its depth whole groups.
#[inline(always)]
pub(super) unsafe fn unpack<F: Format>(mut w: *const u8, panels: usize, shape: &QuantShape, mut to: *mut u8) {
    let codes = shape.group * PANEL * shape.bits / 8;
    for _ in 0..panels * shape.groups() {
        for half in 0..2 {
            // SAFETY: a group's codes, scales and offsets lie within its bytes; a step is written for each four of its depths.
            unsafe {
                let columns = columns(w.add(codes), half, shape);
                for step in 0..shape.group / 4 {
                    let x = numbers(w, (half, step), shape.bits, &columns);
                    F::put(&x, to.add(step * F::STEP + half * 64));
                }
            }
        }
        // SAFETY: to the group after this one, or the end.
        unsafe {
            w = w.add(shape.group_bytes());
            to = to.add(shape.group / 4 * F::STEP);
        }
    }
}

/// # Safety
/// `p` is where a group's scales begin.
#[inline(always)]
unsafe fn columns(p: *const u8, half: usize, shape: &QuantShape) -> Columns {
    // SAFETY: scales and offsets of sixteen columns.
    unsafe {
        let read = |p: *const u8| p.add(64 * half).cast::<[f32; 16]>().read_unaligned();
        let scale = read(p);
        let (mut zero, mut more) = ([0.0; 16], None);
        match shape.offset {
            Offset::Middle => zero = [f32::from(shape.zero()); 16],
            Offset::Zeros => {
                let bytes = p.add(SCALES + 16 * half).cast::<[u8; 16]>().read_unaligned();
                zero = bytes.map(f32::from);
            }
            Offset::Lows => more = Some(read(p.add(SCALES))),
        }
        Columns { scale, zero, more }
    }
}

/// Four depths of sixteen columns.
///
/// # Safety
/// `p` is where a group's codes begin, and it has the step.
#[inline(always)]
unsafe fn numbers(
    p: *const u8,
    (half, step): (usize, usize),
    bits: usize,
    columns: &Columns,
) -> [[f32; 16]; 4] {
    let (at, shift, mask) = match bits {
        8 => (step, 0, 255),
        _ => (step / 2, step % 2 * 4, 15),
    };
    // SAFETY: the step's 64 bytes of this half.
    let words = unsafe { p.add(at * PANEL * 4 + half * 64).cast::<[u32; 16]>().read_unaligned() };
    let mut x = [[0.0; 16]; 4];
    for (d, x) in x.iter_mut().enumerate() {
        for (c, x) in x.iter_mut().enumerate() {
            let code = (words[c] >> (8 * d + shift) & mask) as i32 as f32;
            *x = (code - columns.zero[c]) * columns.scale[c];
            if let Some(more) = &columns.more {
                *x += more[c];
            }
        }
    }
    x
}
