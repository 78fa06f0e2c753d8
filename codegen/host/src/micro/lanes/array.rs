//! Lanes as an array: the form without vector instructions, and the meaning of the others.

use super::{EXPONENT, Lanes, TWO_THIRDS, Wide, tree_sum};

/// `N` lanes.
#[derive(Clone, Copy)]
pub(in super::super) struct Array<const N: usize>(pub(in super::super) [f32; N]);

impl<const N: usize> Array<N> {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Array(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Array(self.0.map(f))
    }
}

/// `2^n` for n in [-126, 127].
#[inline(always)]
fn exp2i(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

impl<const N: usize> Lanes for Array<N> {
    type Mask = [bool; N];

    #[inline(always)]
    fn like(self, x: f32) -> Self {
        Array([x; N])
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Array(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.zip(b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.zip(b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.zip(b, |x, y| x / y)
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.zip(b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.zip(b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn lt(self, b: Self) -> [bool; N] {
        std::array::from_fn(|i| self.0[i] < b.0[i])
    }
    #[inline(always)]
    fn or_where(self, mask: [bool; N], yes: Self) -> Self {
        Array(std::array::from_fn(|i| if mask[i] { yes.0[i] } else { self.0[i] }))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        self.zip(sign, f32::copysign)
    }
    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        // Two factors, the first exact: the product is rounded once even where it is subnormal.
        self.zip(n, |x, n| {
            let n = n as i32;
            x * exp2i(n >> 1) * exp2i(n - (n >> 1))
        })
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        let field = |x: f32| (x.to_bits() as i32).wrapping_sub(TWO_THIRDS) & EXPONENT;
        let mantissa = self.map(|x| f32::from_bits((x.to_bits() as i32).wrapping_sub(field(x)) as u32));
        (mantissa, self.map(|x| (field(x) >> 23) as f32))
    }
}

/// The f32 whose upper half is the bf16 `x`.
#[inline(always)]
fn widen(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

impl Wide for Array<16> {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Array([x; 16])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller lends p[0..16].
        Array(unsafe { p.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        // SAFETY: passed on.
        unsafe { Self::load_or(p, n, 0.0) }
    }
    #[inline(always)]
    unsafe fn load_or(p: *const f32, n: usize, fill: f32) -> Self {
        // SAFETY: the caller lends p[0..n].
        Array(std::array::from_fn(|i| if i < n { unsafe { p.add(i).read_unaligned() } } else { fill }))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller lends p[0..16].
        Array(unsafe { p.cast::<[u16; 16]>().read_unaligned() }.map(widen))
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const u8) -> (Self, Self) {
        // SAFETY: the caller lends sixteen pairs of two bytes each.
        let pairs = unsafe { p.cast::<[[u16; 2]; 16]>().read_unaligned() };
        (Array(pairs.map(|x| widen(x[0]))), Array(pairs.map(|x| widen(x[1]))))
    }
    #[inline(always)]
    unsafe fn splat_pair(p: *const u8) -> (Self, Self) {
        // SAFETY: the caller lends one pair.
        let pair = unsafe { p.cast::<[u16; 2]>().read_unaligned() };
        (Array([widen(pair[0]); 16]), Array([widen(pair[1]); 16]))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller lends p[0..16].
        unsafe { p.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        for (i, x) in self.0.into_iter().enumerate().take(n) {
            // SAFETY: the caller lends p[0..n].
            unsafe { p.add(i).write_unaligned(x) };
        }
    }
    #[inline(always)]
    fn differ(self, b: Self) -> u16 {
        self.0.iter().zip(b.0).enumerate().fold(0, |bits, (i, (x, y))| bits | (u16::from(*x != y) << i))
    }
    #[inline(always)]
    fn sums(v: [Self; 16]) -> Self {
        Array(v.map(|x| tree_sum(x.0)))
    }
}
