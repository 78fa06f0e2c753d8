//! The kernels of each instruction set.

use super::super::{Isa, IsaError};
use super::dots::{Arrays, Avx2, Avx512, Vnni};
use super::entry::{Call, multiply, shape, sums};
use super::pack::QuantShape;
use super::product::{Eight, Four, Product, QuantGemmFn, QuantRows, Tile, gemm, tile};
use super::unpack::{Half, Single, unpack};
use super::{CodesGemmFn, QuantizeFn, SumsFn, UnpackFn, rows};

/// The kernels for quantised weights of one instruction set.
#[derive(Debug)]
pub struct QuantKernels {
    /// Codes of eight bits.
    pub gemm_u8: QuantGemmFn,
    /// Codes of four bits.
    pub gemm_u4: QuantGemmFn,
    /// Rows of codes as they lie, and codes of either size.
    pub gemm_codes: CodesGemmFn,
    /// The sums that these products need.
    pub sums: SumsFn,
    /// Panels of codes as panels of f32.
    pub unpack_f32: UnpackFn,
    /// Panels of codes as panels of bf16.
    pub unpack_bf16: UnpackFn,
    /// Rows of activations to codes.
    pub quantize: QuantizeFn,
    /// Whether products use `vpdpbusd`.
    pub dot_products: bool,
}

/// The kernels of an instruction set; from [`Isa::Avx512`] on with dot products of bytes where the machine has them.
///
/// # Errors
/// [`IsaError::Missing`] where the machine lacks it.
pub fn quant_kernels(isa: Isa) -> Result<&'static QuantKernels, IsaError> {
    let found = Isa::detect();
    if isa > found {
        return Err(IsaError::Missing { wanted: isa, found });
    }
    Ok(match isa {
        Isa::Scalar if !is_x86_feature_detected!("fma") => &bare::TABLE,
        Isa::Scalar => &scalar::TABLE,
        Isa::Avx2 => &avx2::TABLE,
        Isa::Avx512 | Isa::Avx512Bf16 if is_x86_feature_detected!("avx512vnni") => &vnni::TABLE,
        Isa::Avx512 | Isa::Avx512Bf16 => &avx512::TABLE,
    })
}

/// The kernels of AVX-512 without dot products of bytes, to be compared with the others; none where there is no AVX-512.
#[cfg(test)]
pub(in super::super) fn without_dot_products() -> Option<&'static QuantKernels> {
    (Isa::detect() >= Isa::Avx512).then_some(&avx512::TABLE)
}

/// A module with one instruction set's table: its features, sums, and the rows of tiles of eight and of four bits.
macro_rules! table {
    ($module:ident, $features:literal, $dots:ident, $dot_products:literal, [$($eight:literal)+], [$($four:literal)+]) => {
        mod $module {
            use super::*;

            /// Tiles of so many rows.
            ///
            /// # Safety
            /// As [`tile`].
            unsafe fn eight(rows: usize, t: &Tile<'_>) {
                // SAFETY: passed on.
                unsafe {
                    match rows {
                        $($eight => shape_of_eight::<$eight>(t),)+
                        _ => unreachable!("no tile of {rows} rows"),
                    }
                }
            }
            /// As [`eight`].
            ///
            /// # Safety
            /// As [`tile`].
            unsafe fn four(rows: usize, t: &Tile<'_>) {
                // SAFETY: passed on.
                unsafe {
                    match rows {
                        $($four => shape_of_four::<$four>(t),)+
                        _ => unreachable!("no tile of {rows} rows"),
                    }
                }
            }
            #[inline(never)]
            #[target_feature(enable = $features)]
            unsafe fn shape_of_eight<const MR: usize>(t: &Tile<'_>) {
                // SAFETY: passed on.
                unsafe { tile::<$dots, Eight, MR>(t) }
            }
            #[inline(never)]
            #[target_feature(enable = $features)]
            unsafe fn shape_of_four<const MR: usize>(t: &Tile<'_>) {
                // SAFETY: passed on.
                unsafe { tile::<$dots, Four, MR>(t) }
            }
            unsafe extern "C" fn gemm_u8(
                a: *const QuantRows, m: usize, w: *const u8, panels: usize, shape: *const QuantShape, c: *mut f32,
                ldc: usize,
            ) {
                // SAFETY: the contract is the caller's, and is passed on.
                unsafe { gemm::<$dots, Eight>(&Product { a: &*a, m, w, panels, shape: &*shape, c, ldc }, eight) }
            }
            unsafe extern "C" fn gemm_u4(
                a: *const QuantRows, m: usize, w: *const u8, panels: usize, shape: *const QuantShape, c: *mut f32,
                ldc: usize,
            ) {
                // SAFETY: the contract is the caller's, and is passed on.
                unsafe { gemm::<$dots, Four>(&Product { a: &*a, m, w, panels, shape: &*shape, c, ldc }, four) }
            }
            #[target_feature(enable = $features)]
            unsafe extern "C" fn quantize(
                x: *const f32, k: usize, group: usize, codes: *mut i8, sums: *mut i32, scale: *mut f32,
            ) {
                // SAFETY: the contract is the caller's, and is passed on.
                unsafe { rows::quantize((x, k), group, codes, (sums, scale)) }
            }

            #[allow(clippy::too_many_arguments, reason = "the arguments of a C function that generated code calls")]
            #[target_feature(enable = $features)]
            unsafe extern "C" fn gemm_codes(
                a: *const i8, stride: usize, m: usize, w: *const u8, panels: usize, k: usize, form: u64, c: *mut f32,
                scratch: *mut u8,
            ) {
                let shape = shape(k, form);
                let run = if shape.bits == 8 { gemm_u8 } else { gemm_u4 };
                // SAFETY: the contract is the caller's, and is passed on.
                unsafe { multiply(&Call { a: (a, stride), m, w, panels, c, scratch }, &shape, run) }
            }
            #[target_feature(enable = $features)]
            unsafe extern "C" fn sum_codes(
                a: *const i8, stride: usize, m: usize, k: usize, form: u64, scratch: *mut u8,
            ) {
                // SAFETY: the contract is the caller's, and is passed on.
                unsafe { sums::<$dots>((a, stride), m, &shape(k, form), scratch) }
            }
            #[target_feature(enable = $features)]
            unsafe extern "C" fn unpack_f32(w: *const u8, panels: usize, k: usize, form: u64, to: *mut u8) {
                // SAFETY: the contract is the caller's, and is passed on.
                unsafe { unpack::<Single>(w, panels, &shape(k, form), to) }
            }
            #[target_feature(enable = $features)]
            unsafe extern "C" fn unpack_bf16(w: *const u8, panels: usize, k: usize, form: u64, to: *mut u8) {
                // SAFETY: the contract is the caller's, and is passed on.
                unsafe { unpack::<Half>(w, panels, &shape(k, form), to) }
            }

            pub(super) static TABLE: QuantKernels = QuantKernels {
                gemm_u8,
                gemm_u4,
                gemm_codes,
                sums: sum_codes,
                unpack_f32,
                unpack_bf16,
                quantize,
                dot_products: $dot_products,
            };
        }
    };
}

table!(bare, "sse2", Arrays, false, [1 2], [1]);
table!(scalar, "fma", Arrays, false, [1 2], [1]);
table!(avx2, "avx2,fma", Avx2, false, [1 2], [1]);
table!(avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", Avx512, false, [1 2 3 4 5 6 7 8], [1 2 3 4]);
table!(
    vnni,
    "avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma",
    Vnni,
    true,
    [1 2 3 4 5 6 7 8 9 10 11 12],
    [1 2 3 4 5 6]
);
