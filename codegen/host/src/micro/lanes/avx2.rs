//! Sixteen lanes in two AVX2 registers.

use std::arch::x86_64::*;

use super::{EXPONENT, Lanes, MOVE_E4M3, TWO_THIRDS, UPPER_HALF, Wide};

/// Lanes 0 to 7, and 8 to 15; needs avx2 and fma.
#[derive(Clone, Copy)]
pub(in super::super) struct Y16(__m256, __m256);

/// An intrinsic on both halves of values of [`Y16`].
macro_rules! both {
    ($call:ident, $($x:expr),+) => {
        // SAFETY: a value of Y16 exists only where its instructions do (the invariant of `lanes`).
        unsafe { Y16($call($($x.0),+), $call($($x.1),+)) }
    };
}

/// An expression of intrinsics where a value of [`Y16`] is at hand.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: a value of Y16 exists only where its instructions do (the invariant of `lanes`).
        unsafe { $call }
    };
}

impl Lanes for Y16 {
    type Mask = Y16;

    #[inline(always)]
    fn like(self, x: f32) -> Self {
        let x = op!(_mm256_set1_ps(x));
        Y16(x, x)
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        both!(_mm256_fmadd_ps, self, b, c)
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        both!(_mm256_add_ps, self, b)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        both!(_mm256_sub_ps, self, b)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        both!(_mm256_mul_ps, self, b)
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        both!(_mm256_div_ps, self, b)
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        both!(_mm256_max_ps, self, b)
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        both!(_mm256_min_ps, self, b)
    }
    #[inline(always)]
    fn lt(self, b: Self) -> Y16 {
        op!(Y16(_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, b.0), _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, b.1)))
    }
    #[inline(always)]
    fn or_where(self, mask: Y16, yes: Self) -> Self {
        both!(_mm256_blendv_ps, self, yes, mask)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        let bit = self.like(-0.0);
        both!(_mm256_andnot_ps, bit, self)
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        let bit = self.like(-0.0);
        let (size, sign) = (both!(_mm256_andnot_ps, bit, self), both!(_mm256_and_ps, bit, sign));
        both!(_mm256_or_ps, size, sign)
    }
    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        Y16(scale2(self.0, n.0), scale2(self.1, n.1))
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        let (low, high) = (split(self.0), split(self.1));
        (Y16(low.0, high.0), Y16(low.1, high.1))
    }
}

/// See [`Lanes::scale2`]; two factors, the first exact, so that the product is rounded once.
#[inline(always)]
fn scale2(x: __m256, n: __m256) -> __m256 {
    op!({
        let n = _mm256_cvtps_epi32(n);
        let low = _mm256_srai_epi32::<1>(n);
        _mm256_mul_ps(_mm256_mul_ps(x, exp2i(low)), exp2i(_mm256_sub_epi32(n, low)))
    })
}

/// `2^n` for n in [-126, 127].
#[inline(always)]
fn exp2i(n: __m256i) -> __m256 {
    op!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))))
}

/// See [`Lanes::split`].
#[inline(always)]
fn split(x: __m256) -> (__m256, __m256) {
    op!({
        let bits = _mm256_castps_si256(x);
        let above = _mm256_sub_epi32(bits, _mm256_set1_epi32(TWO_THIRDS));
        let field = _mm256_and_si256(above, _mm256_set1_epi32(EXPONENT));
        let mantissa = _mm256_castsi256_ps(_mm256_sub_epi32(bits, field));
        (mantissa, _mm256_cvtepi32_ps(_mm256_srai_epi32::<23>(field)))
    })
}

/// Masks of the first `n` of sixteen lanes.
#[inline(always)]
unsafe fn first(n: usize) -> (__m256i, __m256i) {
    // SAFETY: the caller promises avx2.
    unsafe {
        let n = _mm256_set1_epi32(n as i32);
        let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
        (_mm256_cmpgt_epi32(n, low), _mm256_cmpgt_epi32(n, high))
    }
}

/// The halves of the lowest eight bytes, lower ones first, as bytes.
#[inline(always)]
pub(super) unsafe fn halves(bytes: __m128i) -> __m128i {
    // SAFETY: the caller promises avx2.
    unsafe {
        let x = _mm_cvtepu8_epi16(bytes);
        _mm_and_si128(_mm_or_si128(x, _mm_slli_epi16::<4>(x)), _mm_set1_epi8(15))
    }
}

/// The numbers that the lowest eight bytes are as E4M3.
#[inline(always)]
unsafe fn e4m3(bytes: __m128i) -> __m256 {
    // SAFETY: the caller promises avx2.
    unsafe {
        let x = _mm256_cvtepu8_epi32(bytes);
        let size = _mm256_and_si256(x, _mm256_set1_epi32(0x7f));
        let sign = _mm256_slli_epi32::<24>(_mm256_andnot_si256(_mm256_set1_epi32(0x7f), x));
        let moved = _mm256_castsi256_ps(_mm256_slli_epi32::<20>(size));
        let number = _mm256_mul_ps(moved, _mm256_set1_ps(MOVE_E4M3));
        let signed = _mm256_or_ps(number, _mm256_castsi256_ps(sign));
        let none = _mm256_castsi256_ps(_mm256_cmpeq_epi32(size, _mm256_set1_epi32(0x7f)));
        _mm256_blendv_ps(signed, _mm256_set1_ps(f32::NAN), none)
    }
}

impl Wide for Y16 {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller promises the instructions.
        let x = unsafe { _mm256_set1_ps(x) };
        Y16(x, x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller lends p[0..16] and promises the instructions.
        unsafe { Y16(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        // SAFETY: masked lanes are not read; the caller lends the others.
        unsafe {
            let (low, high) = first(n);
            Y16(_mm256_maskload_ps(p, low), _mm256_maskload_ps(p.wrapping_add(8), high))
        }
    }
    #[inline(always)]
    unsafe fn load_or(p: *const f32, n: usize, fill: f32) -> Self {
        // SAFETY: masked lanes are not read; the caller lends the others.
        unsafe {
            let (low, high) = first(n);
            let mask = Y16(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high));
            Self::splat(fill).or_where(mask, Self::load_part(p, n))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller lends p[0..16] and promises the instructions.
        unsafe {
            let low = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())));
            let high = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast())));
            Y16(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> Self {
        // SAFETY: the caller lends p[0..16] and promises the instructions.
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.add(8).cast()));
            Y16(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn load_i4(p: *const u8) -> Self {
        // SAFETY: the caller lends p[0..8] and promises the instructions.
        unsafe {
            let x = halves(_mm_loadl_epi64(p.cast()));
            let (low, high) = (_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(x)));
            let eight = _mm256_set1_epi32(8);
            Y16(
                _mm256_cvtepi32_ps(_mm256_sub_epi32(low, eight)),
                _mm256_cvtepi32_ps(_mm256_sub_epi32(high, eight)),
            )
        }
    }
    #[inline(always)]
    unsafe fn load_e4m3(p: *const u8) -> Self {
        // SAFETY: the caller lends p[0..16] and promises the instructions.
        unsafe { Y16(e4m3(_mm_loadl_epi64(p.cast())), e4m3(_mm_loadl_epi64(p.add(8).cast()))) }
    }
    #[inline(always)]
    unsafe fn load_of_pairs(p: *const u8, second: bool) -> Self {
        // SAFETY: the caller lends 64 bytes and promises the instructions.
        unsafe {
            let widen = |pairs: __m256i| match second {
                false => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)),
                true => _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(UPPER_HALF))),
            };
            Y16(widen(_mm256_loadu_si256(p.cast())), widen(_mm256_loadu_si256(p.add(32).cast())))
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller lends p[0..16].
        unsafe {
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        // SAFETY: masked lanes are not written; the caller lends the others.
        unsafe {
            let (low, high) = first(n);
            _mm256_maskstore_ps(p, low, self.0);
            _mm256_maskstore_ps(p.wrapping_add(8), high, self.1);
        }
    }
    #[inline(always)]
    fn differ(self, b: Self) -> u16 {
        op!({
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(self.0, b.0));
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(self.1, b.1));
            (low | high << 8) as u16
        })
    }
    #[inline(always)]
    fn sums(v: [Self; 16]) -> Self {
        // Lanes i and i + 8 are the two registers. The pairings keep the sums in the order of the vectors.
        Y16(sums_of_eight(&v, 0), sums_of_eight(&v, 8))
    }
}

/// The sums of `v[from..from + 8]`.
#[inline(always)]
fn sums_of_eight(v: &[Y16; 16], from: usize) -> __m256 {
    let mut by4 = [v[0].0; 4];
    for i in 0..4 {
        let (a, b) = (v[from + i], v[from + i + 4]);
        by4[i] = op!(fold4(_mm256_add_ps(a.0, a.1), _mm256_add_ps(b.0, b.1)));
    }
    fold1(fold2(by4[0], by4[1]), fold2(by4[2], by4[3]))
}

/// Lanes i and i + 4 added: the low half from `a`, the high half from `b`.
#[inline(always)]
fn fold4(a: __m256, b: __m256) -> __m256 {
    op!(_mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b)))
}

/// In every quarter, lanes i and i + 2 added: two from `a`, two from `b`.
#[inline(always)]
fn fold2(a: __m256, b: __m256) -> __m256 {
    op!({
        let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
        let low = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
        _mm256_add_ps(low, _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)))
    })
}

/// In every quarter, lanes 2i and 2i + 1 added: two from `a`, two from `b`.
#[inline(always)]
fn fold1(a: __m256, b: __m256) -> __m256 {
    op!(_mm256_add_ps(_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xdd>(a, b)))
}
