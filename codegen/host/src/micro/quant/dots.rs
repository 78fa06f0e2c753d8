//! Sixteen sums of products of unsigned and signed bytes, whatever the machine.
//!
//! Invariant: as in [`lanes`](super::super::lanes), the instructions are promised by whoever calls an `unsafe` method, and a
//! value is the proof of them for the others. Sums are exact, so it does not show which instructions made them.

use std::arch::x86_64::*;

/// Sixteen columns: `I` are their sums in i32, `F` in f32, `W` four codes of each, `A` four codes of a row in every column.
///
/// # Safety
/// For every `unsafe` method: the machine has the instructions of the type, and the named bytes can be read or written.
pub(super) trait Dots {
    type I: Copy;
    type F: Copy;
    type W: Copy;
    type A: Copy;
    /// The most rows of a tile that fit the registers, with one set of sums each.
    const ROWS: usize;

    /// 64 codes of a byte.
    unsafe fn codes(p: *const u8) -> Self::W;
    /// 128 codes in 64 bytes: the low ones, and the high ones.
    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W);
    /// Four codes of a row.
    unsafe fn act(p: *const i8) -> Self::A;
    /// `x` in every column.
    unsafe fn same(x: i32) -> Self::I;
    /// Sixteen bytes without sign.
    unsafe fn bytes(p: *const u8) -> Self::I;
    /// Zeros.
    unsafe fn zero_f() -> Self::F;
    /// Sixteen numbers.
    unsafe fn load_f(p: *const f32) -> Self::F;
    /// `x * scale` to sixteen numbers.
    unsafe fn store_scaled(x: Self::F, scale: f32, p: *mut f32);
    /// `acc` plus the four products of each column.
    fn dot(acc: Self::I, w: Self::W, a: Self::A) -> Self::I;
    /// The sum of n codes of a row.
    unsafe fn total(p: *const i8, n: usize) -> i32 {
        // SAFETY: the caller lends n codes.
        let codes = unsafe { std::slice::from_raw_parts(p, n) };
        codes.iter().map(|code| i32::from(*code)).sum()
    }
    /// `(acc − zero sum) scale + out`, the multiplication and addition of f32 rounded once.
    fn scaled(acc: Self::I, zero: Self::I, sum: i32, scale: Self::F, out: Self::F) -> Self::F;
}

/// Arrays, for any machine.
pub(super) enum Arrays {}

impl Dots for Arrays {
    type I = [i32; 16];
    type F = [f32; 16];
    type W = [u8; 64];
    type A = [i8; 4];
    const ROWS: usize = 2;

    #[inline(always)]
    unsafe fn codes(p: *const u8) -> [u8; 64] {
        // SAFETY: the caller lends 64 bytes.
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> ([u8; 64], [u8; 64]) {
        // SAFETY: the caller lends 64 bytes.
        let both = unsafe { Self::codes(p) };
        (both.map(|byte| byte & 15), both.map(|byte| byte >> 4))
    }
    #[inline(always)]
    unsafe fn act(p: *const i8) -> [i8; 4] {
        // SAFETY: the caller lends four codes.
        unsafe { p.cast::<[i8; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn same(x: i32) -> [i32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> [i32; 16] {
        // SAFETY: the caller lends sixteen bytes.
        unsafe { p.cast::<[u8; 16]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn zero_f() -> [f32; 16] {
        [0.0; 16]
    }
    #[inline(always)]
    unsafe fn load_f(p: *const f32) -> [f32; 16] {
        // SAFETY: the caller lends sixteen numbers.
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_scaled(x: [f32; 16], scale: f32, p: *mut f32) {
        // SAFETY: the caller lends sixteen numbers.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(x.map(|x| x * scale)) }
    }
    #[inline(always)]
    fn dot(mut acc: [i32; 16], w: [u8; 64], a: [i8; 4]) -> [i32; 16] {
        for (column, acc) in acc.iter_mut().enumerate() {
            for (d, a) in a.iter().enumerate() {
                *acc += i32::from(w[4 * column + d]) * i32::from(*a);
            }
        }
        acc
    }
    #[inline(always)]
    fn scaled(acc: [i32; 16], zero: [i32; 16], sum: i32, scale: [f32; 16], mut out: [f32; 16]) -> [f32; 16] {
        for (at, out) in out.iter_mut().enumerate() {
            *out = ((acc[at] - zero[at] * sum) as f32).mul_add(scale[at], *out);
        }
        out
    }
}

/// An intrinsic where the machine has its instructions; see the invariant of this module.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: the caller promised the instructions, or a value of the type is the proof of them, and lends the bytes.
        unsafe { $call }
    };
}

/// Two AVX2 registers of sums.
pub(super) enum Avx2 {}

impl Dots for Avx2 {
    type I = [__m256i; 2];
    type F = [__m256; 2];
    /// The codes at even and at odd depths, in 16 bits, of eight columns each.
    type W = [[__m256i; 2]; 2];
    type A = [__m256i; 2];
    const ROWS: usize = 2;

    #[inline(always)]
    unsafe fn codes(p: *const u8) -> Self::W {
        op!([split8(_mm256_loadu_si256(p.cast())), split8(_mm256_loadu_si256(p.add(32).cast()))])
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W) {
        op!({
            let mask = _mm256_set1_epi8(15);
            let both = [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())];
            let low = |x| split8(_mm256_and_si256(x, mask));
            let high = |x| split8(_mm256_and_si256(_mm256_srli_epi16::<4>(x), mask));
            (both.map(low), both.map(high))
        })
    }
    #[inline(always)]
    unsafe fn act(p: *const i8) -> Self::A {
        op!({
            let x = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)), _mm256_srai_epi16::<8>(x)]
        })
    }
    #[inline(always)]
    unsafe fn same(x: i32) -> Self::I {
        op!([_mm256_set1_epi32(x); 2])
    }
    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Self::I {
        op!([
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(8).cast()))
        ])
    }
    #[inline(always)]
    unsafe fn zero_f() -> Self::F {
        op!([_mm256_setzero_ps(); 2])
    }
    #[inline(always)]
    unsafe fn load_f(p: *const f32) -> Self::F {
        op!([_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))])
    }
    #[inline(always)]
    unsafe fn store_scaled(x: Self::F, scale: f32, p: *mut f32) {
        op!({
            let scale = _mm256_set1_ps(scale);
            _mm256_storeu_ps(p, _mm256_mul_ps(x[0], scale));
            _mm256_storeu_ps(p.add(8), _mm256_mul_ps(x[1], scale));
        })
    }
    #[inline(always)]
    fn dot(mut acc: Self::I, w: Self::W, a: Self::A) -> Self::I {
        for i in 0..2 {
            for d in 0..2 {
                acc[i] = op!(_mm256_add_epi32(acc[i], _mm256_madd_epi16(w[i][d], a[d])));
            }
        }
        acc
    }
    #[inline(always)]
    fn scaled(acc: Self::I, zero: Self::I, sum: i32, scale: Self::F, mut out: Self::F) -> Self::F {
        for i in 0..2 {
            out[i] = op!({
                let moved = _mm256_mullo_epi32(zero[i], _mm256_set1_epi32(sum));
                let exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(acc[i], moved));
                _mm256_fmadd_ps(exact, scale[i], out[i])
            });
        }
        out
    }
}

/// Bytes at even and at odd places, in 16 bits.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn split8(x: __m256i) -> [__m256i; 2] {
    op!([_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16::<8>(x)])
}

/// What both forms for AVX-512 share.
macro_rules! avx512 {
    () => {
        type I = __m512i;
        type F = __m512;

        #[inline(always)]
        unsafe fn same(x: i32) -> __m512i {
            op!(_mm512_set1_epi32(x))
        }
        #[inline(always)]
        unsafe fn bytes(p: *const u8) -> __m512i {
            op!(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())))
        }
        #[inline(always)]
        unsafe fn zero_f() -> __m512 {
            op!(_mm512_setzero_ps())
        }
        #[inline(always)]
        unsafe fn load_f(p: *const f32) -> __m512 {
            op!(_mm512_loadu_ps(p))
        }
        #[inline(always)]
        unsafe fn store_scaled(x: __m512, scale: f32, p: *mut f32) {
            op!(_mm512_storeu_ps(p, _mm512_mul_ps(x, _mm512_set1_ps(scale))))
        }
        #[inline(always)]
        fn scaled(acc: __m512i, zero: __m512i, sum: i32, scale: __m512, out: __m512) -> __m512 {
            op!({
                let moved = _mm512_mullo_epi32(zero, _mm512_set1_epi32(sum));
                _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(acc, moved)), scale, out)
            })
        }
    };
}

/// One AVX-512 register of sums, where there is no dot product of bytes.
pub(super) enum Avx512 {}

impl Dots for Avx512 {
    avx512!();
    /// The codes at even and at odd depths, in 16 bits.
    type W = [__m512i; 2];
    type A = [__m512i; 2];
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn codes(p: *const u8) -> Self::W {
        op!(split16(_mm512_loadu_si512(p.cast())))
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W) {
        let (low, high) = op!(nibbles16(p));
        op!((split16(low), split16(high)))
    }
    #[inline(always)]
    unsafe fn act(p: *const i8) -> Self::A {
        op!({
            let x = _mm512_set1_epi32(p.cast::<i32>().read_unaligned());
            [_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(x)), _mm512_srai_epi16::<8>(x)]
        })
    }
    #[inline(always)]
    fn dot(acc: __m512i, w: Self::W, a: Self::A) -> __m512i {
        op!({
            let even = _mm512_add_epi32(acc, _mm512_madd_epi16(w[0], a[0]));
            _mm512_add_epi32(even, _mm512_madd_epi16(w[1], a[1]))
        })
    }
}

/// One AVX-512 register of sums, with `vpdpbusd`.
pub(super) enum Vnni {}

impl Dots for Vnni {
    avx512!();
    type W = __m512i;
    type A = __m512i;
    const ROWS: usize = 12;

    #[inline(always)]
    unsafe fn codes(p: *const u8) -> __m512i {
        op!(_mm512_loadu_si512(p.cast()))
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (__m512i, __m512i) {
        op!(nibbles16(p))
    }
    #[inline(always)]
    unsafe fn act(p: *const i8) -> __m512i {
        op!(_mm512_set1_epi32(p.cast::<i32>().read_unaligned()))
    }
    #[inline(always)]
    fn dot(acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        op!(_mm512_dpbusd_epi32(acc, w, a))
    }
    #[inline(always)]
    unsafe fn total(p: *const i8, n: usize) -> i32 {
        op!({
            let (mut acc, one) = (_mm512_setzero_si512(), _mm512_set1_epi8(1));
            for at in (0..n / 64 * 64).step_by(64) {
                acc = _mm512_dpbusd_epi32(acc, one, _mm512_loadu_si512(p.add(at).cast()));
            }
            let mask = (1u64 << (n % 64)) - 1;
            let rest = _mm512_maskz_loadu_epi8(mask, p.add(n / 64 * 64));
            _mm512_reduce_add_epi32(_mm512_dpbusd_epi32(acc, one, rest))
        })
    }
}

/// Bytes at even and at odd places, in 16 bits.
///
/// # Safety
/// The machine has AVX-512 BW.
#[inline(always)]
unsafe fn split16(x: __m512i) -> [__m512i; 2] {
    op!([_mm512_and_si512(x, _mm512_set1_epi16(255)), _mm512_srli_epi16::<8>(x)])
}

/// The low and the high halves of 64 bytes.
///
/// # Safety
/// 64 bytes can be read, and the machine has AVX-512 BW.
#[inline(always)]
unsafe fn nibbles16(p: *const u8) -> (__m512i, __m512i) {
    op!({
        let (both, mask) = (_mm512_loadu_si512(p.cast()), _mm512_set1_epi8(15));
        (_mm512_and_si512(both, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask))
    })
}
