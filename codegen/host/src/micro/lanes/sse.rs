//! Four lanes in one 128-bit register, for calls from generated code.

use std::arch::x86_64::*;

use super::{EXPONENT, Lanes, TWO_THIRDS};

/// Four f32; needs fma and what it implies (avx).
#[derive(Clone, Copy)]
pub(in super::super) struct X4(__m128);

impl X4 {
    /// The register as lanes.
    ///
    /// # Safety
    /// The machine has fma.
    #[inline(always)]
    pub(in super::super) unsafe fn new(x: __m128) -> Self {
        X4(x)
    }

    /// The lanes as a register.
    #[inline(always)]
    pub(in super::super) fn get(self) -> __m128 {
        self.0
    }
}

/// An expression of intrinsics where a value of [`X4`] is at hand.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: a value of X4 exists only where its instructions do (the invariant of `lanes`).
        unsafe { $call }
    };
}

impl Lanes for X4 {
    type Mask = __m128;

    #[inline(always)]
    fn like(self, x: f32) -> Self {
        X4(op!(_mm_set1_ps(x)))
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        X4(op!(_mm_fmadd_ps(self.0, b.0, c.0)))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        X4(op!(_mm_add_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        X4(op!(_mm_sub_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        X4(op!(_mm_mul_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        X4(op!(_mm_div_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        X4(op!(_mm_max_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        X4(op!(_mm_min_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn lt(self, b: Self) -> __m128 {
        op!(_mm_cmplt_ps(self.0, b.0))
    }
    #[inline(always)]
    fn or_where(self, mask: __m128, yes: Self) -> Self {
        X4(op!(_mm_or_ps(_mm_andnot_ps(mask, self.0), _mm_and_ps(mask, yes.0))))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        X4(op!(_mm_andnot_ps(_mm_set1_ps(-0.0), self.0)))
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        op!({
            let bit = _mm_set1_ps(-0.0);
            X4(_mm_or_ps(_mm_andnot_ps(bit, self.0), _mm_and_ps(bit, sign.0)))
        })
    }
    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        // Two factors, the first exact: the product is rounded once even where it is subnormal.
        op!({
            let n = _mm_cvtps_epi32(n.0);
            let low = _mm_srai_epi32::<1>(n);
            X4(_mm_mul_ps(_mm_mul_ps(self.0, exp2i(low)), exp2i(_mm_sub_epi32(n, low))))
        })
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        op!({
            let bits = _mm_castps_si128(self.0);
            let above = _mm_sub_epi32(bits, _mm_set1_epi32(TWO_THIRDS));
            let field = _mm_and_si128(above, _mm_set1_epi32(EXPONENT));
            let mantissa = _mm_castsi128_ps(_mm_sub_epi32(bits, field));
            (X4(mantissa), X4(_mm_cvtepi32_ps(_mm_srai_epi32::<23>(field))))
        })
    }
}

/// `2^n` for n in [-126, 127].
#[inline(always)]
fn exp2i(n: __m128i) -> __m128 {
    op!(_mm_castsi128_ps(_mm_slli_epi32::<23>(_mm_add_epi32(n, _mm_set1_epi32(127)))))
}
