//! Lanes as an array: the form without vector instructions, and the meaning of the others.

use super::{EXPONENT, Lanes, MOVE_E4M3, TWO_THIRDS, Wide, tree_sum};

/// `N` lanes.
#[derive(Clone, Copy)]
pub(in super::super) struct Array<const N: usize>(pub(in super::super) [f32; N]);

/// An expression of lane `$i` for every lane. A loop and not a closure: a closure would be compiled without the features
/// of the kernel that it is inlined into, if it were inlined.
macro_rules! each {
    ($n:expr, $i:ident => $lane:expr) => {{
        let mut out = [Default::default(); $n];
        let mut $i = 0;
        while $i < $n {
            out[$i] = $lane;
            $i += 1;
        }
        out
    }};
}

/// `x * 2^n` by two factors, the first exact: the product is rounded once even where it is subnormal.
#[inline(always)]
fn scale2(x: f32, n: i32) -> f32 {
    x * exp2i(n >> 1) * exp2i(n - (n >> 1))
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
        Array(each!(N, i => self.0[i].mul_add(b.0[i], c.0[i])))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Array(each!(N, i => self.0[i] + b.0[i]))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Array(each!(N, i => self.0[i] - b.0[i]))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Array(each!(N, i => self.0[i] * b.0[i]))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Array(each!(N, i => self.0[i] / b.0[i]))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Array(each!(N, i => if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }))
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Array(each!(N, i => if self.0[i] < b.0[i] { self.0[i] } else { b.0[i] }))
    }
    #[inline(always)]
    fn lt(self, b: Self) -> [bool; N] {
        each!(N, i => self.0[i] < b.0[i])
    }
    #[inline(always)]
    fn or_where(self, mask: [bool; N], yes: Self) -> Self {
        Array(each!(N, i => if mask[i] { yes.0[i] } else { self.0[i] }))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Array(each!(N, i => self.0[i].abs()))
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        Array(each!(N, i => self.0[i].copysign(sign.0[i])))
    }
    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        Array(each!(N, i => scale2(self.0[i], n.0[i] as i32)))
    }
    #[inline(always)]
    fn split(self) -> (Self, Self) {
        let bits = each!(N, i => self.0[i].to_bits() as i32);
        let field = each!(N, i => bits[i].wrapping_sub(TWO_THIRDS) & EXPONENT);
        let mantissa = each!(N, i => f32::from_bits(bits[i].wrapping_sub(field[i]) as u32));
        (Array(mantissa), Array(each!(N, i => (field[i] >> 23) as f32)))
    }
}

/// The f32 whose upper half is the bf16 `x`.
#[inline(always)]
fn widen(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// The number that an 8-bit float is: its exponent is moved by a product, which makes subnormals normal too.
#[inline(always)]
fn e4m3(x: u8) -> f32 {
    let (size, sign) = (u32::from(x & 0x7f), u32::from(x & 0x80) << 24);
    let number = f32::from_bits(size << 20) * MOVE_E4M3;
    if size == 0x7f { f32::NAN } else { f32::from_bits(number.to_bits() | sign) }
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
        Array(each!(16, i => if i < n { unsafe { p.add(i).read_unaligned() } } else { fill }))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller lends p[0..16].
        let x = unsafe { p.cast::<[u16; 16]>().read_unaligned() };
        Array(each!(16, i => widen(x[i])))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> Self {
        // SAFETY: the caller lends p[0..16].
        let x = unsafe { p.cast::<[i8; 16]>().read_unaligned() };
        Array(each!(16, i => f32::from(x[i])))
    }
    #[inline(always)]
    unsafe fn load_i4(p: *const u8) -> Self {
        // SAFETY: the caller lends p[0..8].
        let x = unsafe { p.cast::<[u8; 8]>().read_unaligned() };
        Array(each!(16, i => f32::from(x[i / 2] >> (i % 2 * 4) & 15) - 8.0))
    }
    #[inline(always)]
    unsafe fn load_e4m3(p: *const u8) -> Self {
        // SAFETY: the caller lends p[0..16].
        let x = unsafe { p.cast::<[u8; 16]>().read_unaligned() };
        Array(each!(16, i => e4m3(x[i])))
    }
    #[inline(always)]
    unsafe fn load_of_pairs(p: *const u8, second: bool) -> Self {
        // SAFETY: the caller lends sixteen pairs of two bytes each.
        let pairs = unsafe { p.cast::<[[u16; 2]; 16]>().read_unaligned() };
        Array(each!(16, i => widen(pairs[i][usize::from(second)])))
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
        let mut bits = 0;
        for i in 0..16 {
            bits |= u16::from(self.0[i] != b.0[i]) << i;
        }
        bits
    }
    #[inline(always)]
    fn sums(v: [Self; 16]) -> Self {
        Array(each!(16, i => tree_sum(v[i].0)))
    }
}
