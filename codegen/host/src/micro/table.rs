//! The kernels of each instruction set as C functions, and the tables of them.

use std::arch::x86_64::__m128;

use super::attention::{InBf16, InE4m3, InF32, InI4, InI8, Online, Queries, online, scores};
use super::formats::{Bf16Dot, Plain, of};
use super::gemm::{Product, gemm};
use super::lanes::{Array, Wide, X4, Y16, Z16};
use super::math::{self, Function};
use super::{GemmFn, Isa, IsaError, Map4Fn, MapFn, OnlineFn, ScoresFn};

/// The kernels of one instruction set.
#[derive(Debug)]
pub struct Kernels {
    /// The instruction set that they need.
    pub isa: Isa,
    /// A and W in f32.
    pub gemm_f32: GemmFn,
    /// A and W in bf16, sums in f32.
    pub gemm_bf16: GemmFn,
    /// Keys in f32.
    pub scores_f32: ScoresFn,
    /// Keys in bf16.
    pub scores_bf16: ScoresFn,
    /// Keys in whole numbers of a byte.
    pub scores_i8: ScoresFn,
    /// Keys in whole numbers of 4 bits.
    pub scores_i4: ScoresFn,
    /// Keys in 8-bit floats, E4M3.
    pub scores_e4m3: ScoresFn,
    /// Values in f32.
    pub online_f32: OnlineFn,
    /// Values in bf16.
    pub online_bf16: OnlineFn,
    /// Values in whole numbers of a byte.
    pub online_i8: OnlineFn,
    /// Values in whole numbers of 4 bits.
    pub online_i4: OnlineFn,
    /// Values in 8-bit floats, E4M3.
    pub online_e4m3: OnlineFn,
    /// `e^x` within 2 ulp.
    pub exp: MapFn,
    /// Hyperbolic tangent within 4e-7.
    pub tanh: MapFn,
    /// Error function within 4e-7.
    pub erf: MapFn,
    /// Natural logarithm within 2 ulp.
    pub log: MapFn,
    /// Sine, by the standard library: arguments may be large.
    pub sin: MapFn,
    /// Cosine, by the standard library: arguments may be large.
    pub cos: MapFn,
    /// As `exp`, bit for bit.
    pub exp4: Map4Fn,
    /// As `tanh`, bit for bit.
    pub tanh4: Map4Fn,
    /// As `erf`, bit for bit.
    pub erf4: Map4Fn,
    /// As `log`, bit for bit.
    pub log4: Map4Fn,
    /// As `sin`, bit for bit.
    pub sin4: Map4Fn,
    /// As `cos`, bit for bit.
    pub cos4: Map4Fn,
}

/// The kernels of an instruction set.
///
/// # Errors
/// [`IsaError::Missing`] where the machine lacks it.
pub fn kernels(isa: Isa) -> Result<&'static Kernels, IsaError> {
    let found = Isa::detect();
    if isa > found {
        return Err(IsaError::Missing { wanted: isa, found });
    }
    Ok(match isa {
        // The same results, but a fused multiply-add in software is a call an element.
        Isa::Scalar if !is_x86_feature_detected!("fma") => &bare::TABLE,
        Isa::Scalar => &scalar::TABLE,
        Isa::Avx2 => &avx2::TABLE,
        Isa::Avx512 => &avx512::TABLE,
        Isa::Avx512Bf16 => &avx512bf16::TABLE,
    })
}

/// C functions compiled for `$features`, each the body given. The contracts are those of the function types.
macro_rules! entries {
    ($features:literal $(fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? $body:block)+) => {
        $(
            #[allow(clippy::too_many_arguments, reason = "the arguments of a C function that generated code calls")]
            #[allow(improper_ctypes_definitions, reason = "System V passes __m128 in a register, as Cranelift does")]
            #[target_feature(enable = $features)]
            unsafe extern "C" fn $name($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the contract is the caller's, and is passed on.
                unsafe { $body }
            }
        )+
    };
}

/// A module with one instruction set's table: its features, sixteen lanes, four lanes, and formats.
macro_rules! table {
    ($module:ident, $isa:ident, $features:literal, $wide:ty, $four:ident, $f32:ty, $bf16:ty) => {
        mod $module {
            use super::*;

            entries! { $features
                fn gemm_f32(a: *const u8, lda: usize, m: usize, w: *const u8, panels: usize, k: usize, c: *mut f32,
                            ldc: usize) {
                    gemm::<$f32>(&Product { a, lda, m, w, panels, k, c, ldc })
                }
                fn gemm_bf16(a: *const u8, lda: usize, m: usize, w: *const u8, panels: usize, k: usize, c: *mut f32,
                             ldc: usize) {
                    gemm::<$bf16>(&Product { a, lda, m, w, panels, k, c, ldc })
                }
                fn scores_f32(q: *const f32, ldq: usize, rows: usize, keys: *const *const u8, n: usize, d: usize,
                     s: *mut f32) {
                    scores::<$wide, InF32>(Queries { q, ldq, keys, n, d, s }, rows)
                }
                fn scores_bf16(q: *const f32, ldq: usize, rows: usize, keys: *const *const u8, n: usize, d: usize,
                     s: *mut f32) {
                    scores::<$wide, InBf16>(Queries { q, ldq, keys, n, d, s }, rows)
                }
                fn scores_i8(q: *const f32, ldq: usize, rows: usize, keys: *const *const u8, n: usize, d: usize,
                     s: *mut f32) {
                    scores::<$wide, InI8>(Queries { q, ldq, keys, n, d, s }, rows)
                }
                fn scores_i4(q: *const f32, ldq: usize, rows: usize, keys: *const *const u8, n: usize, d: usize,
                     s: *mut f32) {
                    scores::<$wide, InI4>(Queries { q, ldq, keys, n, d, s }, rows)
                }
                fn scores_e4m3(q: *const f32, ldq: usize, rows: usize, keys: *const *const u8, n: usize, d: usize,
                     s: *mut f32) {
                    scores::<$wide, InE4m3>(Queries { q, ldq, keys, n, d, s }, rows)
                }
                fn online_f32(s: *mut f32, rows: usize, n: usize, values: *const *const u8, dv: usize, m: *mut f32,
                     l: *mut f32, acc: *mut f32, factors: *const f32) {
                    online::<$wide, InF32>(Online { s, n, values, dv, m, l, acc, factors }, rows)
                }
                fn online_bf16(s: *mut f32, rows: usize, n: usize, values: *const *const u8, dv: usize, m: *mut f32,
                     l: *mut f32, acc: *mut f32, factors: *const f32) {
                    online::<$wide, InBf16>(Online { s, n, values, dv, m, l, acc, factors }, rows)
                }
                fn online_i8(s: *mut f32, rows: usize, n: usize, values: *const *const u8, dv: usize, m: *mut f32,
                     l: *mut f32, acc: *mut f32, factors: *const f32) {
                    online::<$wide, InI8>(Online { s, n, values, dv, m, l, acc, factors }, rows)
                }
                fn online_i4(s: *mut f32, rows: usize, n: usize, values: *const *const u8, dv: usize, m: *mut f32,
                     l: *mut f32, acc: *mut f32, factors: *const f32) {
                    online::<$wide, InI4>(Online { s, n, values, dv, m, l, acc, factors }, rows)
                }
                fn online_e4m3(s: *mut f32, rows: usize, n: usize, values: *const *const u8, dv: usize, m: *mut f32,
                     l: *mut f32, acc: *mut f32, factors: *const f32) {
                    online::<$wide, InE4m3>(Online { s, n, values, dv, m, l, acc, factors }, rows)
                }
                fn exp(x: *const f32, y: *mut f32, n: usize) { strip::<$wide, math::Exp>(x, y, n) }
                fn tanh(x: *const f32, y: *mut f32, n: usize) { strip::<$wide, math::Tanh>(x, y, n) }
                fn erf(x: *const f32, y: *mut f32, n: usize) { strip::<$wide, math::Erf>(x, y, n) }
                fn log(x: *const f32, y: *mut f32, n: usize) { strip::<$wide, math::Log>(x, y, n) }
                fn exp4(x: __m128) -> __m128 { $four::put(math::Exp::of($four::take(x))) }
                fn tanh4(x: __m128) -> __m128 { $four::put(math::Tanh::of($four::take(x))) }
                fn erf4(x: __m128) -> __m128 { $four::put(math::Erf::of($four::take(x))) }
                fn log4(x: __m128) -> __m128 { $four::put(math::Log::of($four::take(x))) }
            }

            pub(super) static TABLE: Kernels = Kernels {
                isa: Isa::$isa,
                gemm_f32,
                gemm_bf16,
                scores_f32,
                scores_bf16,
                scores_i8,
                scores_i4,
                scores_e4m3,
                online_f32,
                online_bf16,
                online_i8,
                online_i4,
                online_e4m3,
                exp,
                tanh,
                erf,
                log,
                sin,
                cos,
                exp4,
                tanh4,
                erf4,
                log4,
                sin4,
                cos4,
            };
        }
    };
}

table!(bare, Scalar, "sse2", Plain, in_array, of::ArrayF32, of::ArrayBf16);
table!(scalar, Scalar, "fma", Plain, in_array, of::FmaArrayF32, of::FmaArrayBf16);
table!(avx2, Avx2, "avx2,fma", Y16, in_register, of::Avx2F32, of::Avx2Bf16);
table!(
    avx512,
    Avx512,
    "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma",
    Z16,
    in_register,
    of::Avx512F32,
    of::Avx512Bf16
);
table!(
    avx512bf16,
    Avx512Bf16,
    "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma",
    Z16,
    in_register,
    of::Avx512F32,
    Bf16Dot
);

/// Four lanes as an array.
mod in_array {
    use super::*;

    #[inline(always)]
    pub(super) unsafe fn take(x: __m128) -> Array<4> {
        // SAFETY: both are four f32.
        Array(unsafe { std::mem::transmute::<__m128, [f32; 4]>(x) })
    }
    #[inline(always)]
    pub(super) fn put(x: Array<4>) -> __m128 {
        // SAFETY: both are four f32.
        unsafe { std::mem::transmute::<[f32; 4], __m128>(x.0) }
    }
}

/// Four lanes in a register.
mod in_register {
    use super::*;

    #[inline(always)]
    pub(super) unsafe fn take(x: __m128) -> X4 {
        // SAFETY: the caller promises fma.
        unsafe { X4::new(x) }
    }
    #[inline(always)]
    pub(super) fn put(x: X4) -> __m128 {
        x.get()
    }
}

/// A function over a strip, sixteen elements at a time.
///
/// # Safety
/// The contract of [`MapFn`], and the machine has the instructions of `V`.
#[inline(always)]
unsafe fn strip<V: Wide, F: Function>(x: *const f32, y: *mut f32, n: usize) {
    let whole = n / 16 * 16;
    // SAFETY: whole registers lie within the n elements, and the last touches no more than are left.
    unsafe {
        for i in (0..whole).step_by(16) {
            F::of(V::load(x.add(i))).store(y.add(i));
        }
        if whole < n {
            F::of(V::load_part(x.add(whole), n - whole)).store_part(y.add(whole), n - whole);
        }
    }
}

/// Sine and cosine: the same code for every instruction set.
macro_rules! by_element {
    ($($strip:ident, $four:ident: $f:path;)+) => {
        $(
            unsafe extern "C" fn $strip(x: *const f32, y: *mut f32, n: usize) {
                for i in 0..n {
                    // SAFETY: the caller lends n elements of both.
                    unsafe { y.add(i).write_unaligned($f(x.add(i).read_unaligned())) };
                }
            }
            #[allow(improper_ctypes_definitions, reason = "System V passes __m128 in a register, as Cranelift does")]
            unsafe extern "C" fn $four(x: __m128) -> __m128 {
                // SAFETY: a register is four f32.
                in_array::put(Array(unsafe { in_array::take(x) }.0.map($f)))
            }
        )+
    };
}

by_element! {
    sin, sin4: f32::sin;
    cos, cos4: f32::cos;
}
