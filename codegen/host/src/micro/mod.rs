//! The micro-kernels that generated host code calls: matrix products over packed weights, the two halves of attention,
//! and the elementary functions. They are chosen at run time by [`kernels`], once, as a table of function pointers.
//!
//! ```
//! use sinter_codegen_host::micro::{Isa, PANEL, kernels, pack_f32, panel_bytes_f32};
//!
//! // One row times a 2 x 3 weight (n = 2 outputs, k = 3 deep).
//! let (n, k) = (2, 3);
//! let mut w = vec![0.0; panel_bytes_f32(n, k) / 4];
//! pack_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], n, k, 0, &mut w);
//! let (a, mut c) = ([1.0_f32, 0.0, 2.0], [0.0; PANEL]);
//! let table = kernels(Isa::detect())?;
//! // SAFETY: a has one row of 3, w one panel, c one row of 32.
//! unsafe { (table.gemm_f32)(a.as_ptr().cast(), 3, 1, w.as_ptr().cast(), 1, k, c.as_mut_ptr(), PANEL) };
//! assert_eq!(c[..2], [7.0, 16.0]);
//! # Ok::<(), sinter_codegen_host::micro::IsaError>(())
//! ```
//!
//! Each kernel is written once, on the sixteen lanes of [`lanes`], and compiled for each instruction set.
//!
//! Invariant: for the same inputs every instruction set gives the same bits, but for `gemm_bf16` of
//! [`Isa::Avx512Bf16`], whose instruction rounds in its own way, and but for the payload of a NaN.
//!
//! Invariant: a row's result does not depend on the rows, panels or blocks it is computed with. A batch gives each of
//! its sequences what it would get alone.
//!
//! Invariant: no kernel reads or writes an element outside those its contract names.
//!
//! This is the one module of the crate that may be `unsafe`: it speaks in pointers to generated code and in
//! intrinsics to the machine. It is x86-64 only.
#![allow(unsafe_code, reason = "the kernels take pointers from generated code and use vector intrinsics")]
#![allow(clippy::needless_range_loop, reason = "an index walks registers and pointers at once")]

mod isa;
mod pack;

mod attention;
mod formats;
mod gemm;
mod group;
mod lanes;
mod math;
mod table;

mod speed;

pub mod quant;

#[cfg(test)]
mod tests;

pub use group::sort_by_group;
pub use isa::{Isa, IsaError};
pub use pack::{pack_bf16, pack_bf16_t, pack_f32, pack_f32_t, panel_bytes_bf16, panel_bytes_f32};
pub use sinter_codegen_weights::{bf16_to_f32, f16_to_f32, f32_to_bf16};
pub use speed::{Operands, operations_per_second};
pub use table::{Kernels, kernels};

use std::arch::x86_64::__m128;

/// Output columns in a weight panel.
///
/// With K the depth and N the number of output columns, packed weights are `[ceil(N/32)][K][32]` in f32 and
/// `[ceil(N/32)][ceil(K/2)][32][2]` in bf16. Padding is zero.
pub const PANEL: usize = 32;

/// The most positions in a block of attention, and the elements between rows of scores.
pub const POSITIONS: usize = attention::POSITIONS;

/// `C[m][32 panels] = A[m][k] W^T`, overwriting C; W is packed in panels.
///
/// Arguments: `a` (rows `lda` elements apart, in the format of W), `lda`, `m`, `w`, `panels`, `k`, `c` (f32, rows `ldc`
/// elements apart), `ldc`. Every output is one f32 accumulator that takes the depth in order.
///
/// # Safety
/// `a` has m rows of k elements, `w` has `panels` panels of depth k, `c` has m rows of `32 panels` elements, and C
/// overlaps neither.
pub type GemmFn = unsafe extern "C" fn(
    a: *const u8,
    lda: usize,
    m: usize,
    w: *const u8,
    panels: usize,
    k: usize,
    c: *mut f32,
    ldc: usize,
);

/// `s[g][j] = q[g] . keys[j]` for `g < rows`, `j < n`.
///
/// Arguments: `q` (f32, rows `ldq` elements apart), `ldq`, `rows`, `k_rows` (pointers to n keys of d elements), `n`, `d`,
/// `s` (rows [`POSITIONS`] apart; only `j < n` is written).
///
/// # Safety
/// `q` has `rows` rows of d elements, `k_rows` n pointers to d elements each, `s` `rows` rows; `n <= POSITIONS`.
pub type ScoresFn = unsafe extern "C" fn(
    q: *const f32,
    ldq: usize,
    rows: usize,
    k_rows: *const *const u8,
    n: usize,
    d: usize,
    s: *mut f32,
);

/// One step of the online softmax over a block of n positions. For each row g:
/// `m' = max(m, max s)`, `r = exp(m - m')`, `p = exp(s - m')`, `l = l r + sum p`, `p' = p f`, `acc = acc r + sum p'[j] v[j]`,
/// and p' is written over s.
///
/// A score of -inf takes no part: its p is 0 and its value is not looked at. A row of nothing but -inf keeps its m, l
/// and acc bit for bit. Start with m = -inf, l = 0 and acc = 0.
///
/// Arguments: `s` (rows [`POSITIONS`] apart), `rows`, `n`, `v_rows` (pointers to n values of dv elements), `dv`, `m`, `l`,
/// `acc` (`[rows][dv]`), `factors` (f: n finite numbers; null for 1).
///
/// # Safety
/// `s` has `rows` rows of n scores, `v_rows` n pointers to dv elements each, `m` and `l` `rows` elements, `acc` `rows x dv`;
/// none overlaps another; `n <= POSITIONS`.
pub type OnlineFn = unsafe extern "C" fn(
    s: *mut f32,
    rows: usize,
    n: usize,
    v_rows: *const *const u8,
    dv: usize,
    m: *mut f32,
    l: *mut f32,
    acc: *mut f32,
    factors: *const f32,
);

/// `y[i] = f(x[i])` for `i < n`; `y` may be `x`.
///
/// # Safety
/// `x` and `y` have n elements, and are the same or do not overlap.
pub type MapFn = unsafe extern "C" fn(x: *const f32, y: *mut f32, n: usize);

/// `f` of four lanes, for calls from generated 128-bit code.
///
/// # Safety
/// The machine has the table's instruction set.
#[allow(improper_ctypes_definitions, reason = "System V passes __m128 in a register, as Cranelift does")]
pub type Map4Fn = unsafe extern "C" fn(x: __m128) -> __m128;
