//! Sixteen lanes in one AVX-512 register.

use std::arch::x86_64::*;

use super::avx2::halves;
use super::{EXPONENT, Lanes, MOVE_E4M3, TWO_THIRDS, UPPER_HALF, Wide};

/// Sixteen f32; needs avx512f, avx512bw, avx512vl and avx512dq.
#[derive(Clone, Copy)]
pub(in super::super) struct Z16(__m512);

/// Sixteen pairs of bf16 as `vdpbf16ps` takes them; needs avx512bf16 besides.
#[derive(Clone, Copy)]
pub(in super::super) struct ZPairs(__m512bh);

impl ZPairs {
    /// Sixteen pairs.
    ///
    /// # Safety
    /// 64 bytes can be read, and the machine has the instructions.
    #[inline(always)]
    pub(in super::super) unsafe fn load(p: *const u8) -> Self {
        // SAFETY: as the caller promised; both types are 512 plain bits.
        unsafe { ZPairs(std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(p.cast()))) }
    }

    /// One pair in every lane.
    ///
    /// # Safety
    /// 4 bytes can be read, and the machine has the instructions.
    #[inline(always)]
    pub(in super::super) unsafe fn splat(p: *const u8) -> Self {
        // SAFETY: as the caller promised; both types are 512 plain bits.
        unsafe {
            let pair = p.cast::<i32>().read_unaligned();
            ZPairs(std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair)))
        }
    }
}

/// An intrinsic on values of [`Z16`].
macro_rules! op {
    ($call:expr) => {
        // SAFETY: a value of Z16 exists only where its instructions do (the invariant of `lanes`).
        unsafe { $call }
    };
}

impl Z16 {
    /// `self + b0 * w0 + b1 * w1` a lane, in the order and rounding of `vdpbf16ps`.
    #[inline(always)]
    pub(in super::super) fn dot_pairs(self, b: ZPairs, w: ZPairs) -> Self {
        // SAFETY: a value of ZPairs exists only where avx512bf16 does.
        Z16(unsafe { _mm512_dpbf16_ps(self.0, b.0, w.0) })
    }
}

impl Lanes for Z16 {
    type Mask = __mmask16;

    #[inline(always)]
    fn like(self, x: f32) -> Self {
        Z16(op!(_mm512_set1_ps(x)))
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Z16(op!(_mm512_fmadd_ps(self.0, b.0, c.0)))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Z16(op!(_mm512_add_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Z16(op!(_mm512_sub_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Z16(op!(_mm512_mul_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Z16(op!(_mm512_div_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Z16(op!(_mm512_max_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Z16(op!(_mm512_min_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn lt(self, b: Self) -> __mmask16 {
        op!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, b.0))
    }
    #[inline(always)]
    fn or_where(self, mask: __mmask16, yes: Self) -> Self {
        Z16(op!(_mm512_mask_blend_ps(mask, self.0, yes.0)))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Z16(op!(_mm512_abs_ps(self.0)))
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        op!({
            let bit = _mm512_set1_ps(-0.0);
            Z16(_mm512_or_ps(_mm512_andnot_ps(bit, self.0), _mm512_and_ps(bit, sign.0)))
        })
    }
    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        Z16(op!(_mm512_scalef_ps(self.0, n.0)))
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        op!({
            let bits = _mm512_castps_si512(self.0);
            let above = _mm512_sub_epi32(bits, _mm512_set1_epi32(TWO_THIRDS));
            let field = _mm512_and_si512(above, _mm512_set1_epi32(EXPONENT));
            let mantissa = _mm512_castsi512_ps(_mm512_sub_epi32(bits, field));
            (Z16(mantissa), Z16(_mm512_cvtepi32_ps(_mm512_srai_epi32::<23>(field))))
        })
    }
}

/// A mask of the first `n` lanes, n <= 16.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

impl Wide for Z16 {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller promises the instructions.
        Z16(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller lends p[0..16] and promises the instructions.
        Z16(unsafe { _mm512_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        // SAFETY: masked lanes are not read; the caller lends the others.
        Z16(unsafe { _mm512_maskz_loadu_ps(first(n), p) })
    }
    #[inline(always)]
    unsafe fn load_or(p: *const f32, n: usize, fill: f32) -> Self {
        // SAFETY: masked lanes are not read; the caller lends the others.
        Z16(unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(n), p) })
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller lends p[0..16] and promises the instructions.
        unsafe {
            let x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            Z16(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(x)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_part(p: *const u16, n: usize) -> Self {
        // SAFETY: masked lanes are not read; the caller lends the others.
        unsafe {
            let x = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), p.cast()));
            Z16(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(x)))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> Self {
        // SAFETY: the caller lends p[0..16] and promises the instructions.
        unsafe { Z16(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())))) }
    }
    #[inline(always)]
    unsafe fn load_i4(p: *const u8) -> Self {
        // SAFETY: the caller lends p[0..8] and promises the instructions.
        unsafe {
            let x = _mm512_cvtepu8_epi32(halves(_mm_loadl_epi64(p.cast())));
            Z16(_mm512_cvtepi32_ps(_mm512_sub_epi32(x, _mm512_set1_epi32(8))))
        }
    }
    #[inline(always)]
    unsafe fn load_e4m3(p: *const u8) -> Self {
        // SAFETY: the caller lends p[0..16] and promises the instructions.
        unsafe {
            let x = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            let size = _mm512_and_si512(x, _mm512_set1_epi32(0x7f));
            let sign = _mm512_slli_epi32::<24>(_mm512_andnot_si512(_mm512_set1_epi32(0x7f), x));
            let moved = _mm512_castsi512_ps(_mm512_slli_epi32::<20>(size));
            let number = _mm512_mul_ps(moved, _mm512_set1_ps(MOVE_E4M3));
            let signed = _mm512_or_ps(number, _mm512_castsi512_ps(sign));
            let none = _mm512_cmpeq_epi32_mask(size, _mm512_set1_epi32(0x7f));
            Z16(_mm512_mask_blend_ps(none, signed, _mm512_set1_ps(f32::NAN)))
        }
    }
    #[inline(always)]
    unsafe fn load_of_pairs(p: *const u8, second: bool) -> Self {
        // SAFETY: the caller lends 64 bytes and promises the instructions.
        unsafe {
            let pairs = _mm512_loadu_si512(p.cast());
            Z16(_mm512_castsi512_ps(match second {
                false => _mm512_slli_epi32::<16>(pairs),
                true => _mm512_and_si512(pairs, _mm512_set1_epi32(UPPER_HALF)),
            }))
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller lends p[0..16].
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        // SAFETY: masked lanes are not written; the caller lends the others.
        unsafe { _mm512_mask_storeu_ps(p, first(n), self.0) }
    }
    #[inline(always)]
    fn differ(self, b: Self) -> u16 {
        op!(_mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(self.0, b.0))
    }
    #[inline(always)]
    fn sums(v: [Self; 16]) -> Self {
        // The pairings are chosen so that the sums leave in the order in which the vectors came.
        let (mut by8, mut by4) = ([v[0]; 8], [v[0]; 4]);
        for i in 0..4 {
            by8[i] = fold8(v[i], v[i + 4]);
            by8[i + 4] = fold8(v[i + 8], v[i + 12]);
            by4[i] = fold4(by8[i], by8[i + 4]);
        }
        fold1(fold2(by4[0], by4[1]), fold2(by4[2], by4[3]))
    }
}

/// Lanes i and i + 8 added: the low half from `a`, the high half from `b`.
#[inline(always)]
fn fold8(a: Z16, b: Z16) -> Z16 {
    op!({
        let low = _mm512_shuffle_f32x4::<0x44>(a.0, b.0);
        Z16(_mm512_add_ps(low, _mm512_shuffle_f32x4::<0xee>(a.0, b.0)))
    })
}

/// Quarters 0 and 1, and 2 and 3, added: two quarters from `a`, two from `b`.
#[inline(always)]
fn fold4(a: Z16, b: Z16) -> Z16 {
    op!({
        let even = _mm512_shuffle_f32x4::<0x88>(a.0, b.0);
        Z16(_mm512_add_ps(even, _mm512_shuffle_f32x4::<0xdd>(a.0, b.0)))
    })
}

/// In every quarter, lanes i and i + 2 added: two from `a`, two from `b`.
#[inline(always)]
fn fold2(a: Z16, b: Z16) -> Z16 {
    op!({
        let (a, b) = (_mm512_castps_pd(a.0), _mm512_castps_pd(b.0));
        let low = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
        Z16(_mm512_add_ps(low, _mm512_castpd_ps(_mm512_unpackhi_pd(a, b))))
    })
}

/// In every quarter, lanes 2i and 2i + 1 added: two from `a`, two from `b`.
#[inline(always)]
fn fold1(a: Z16, b: Z16) -> Z16 {
    op!({
        let even = _mm512_shuffle_ps::<0x88>(a.0, b.0);
        Z16(_mm512_add_ps(even, _mm512_shuffle_ps::<0xdd>(a.0, b.0)))
    })
}
