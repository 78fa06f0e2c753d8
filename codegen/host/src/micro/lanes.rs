//! Sixteen f32 lanes, whatever the machine: one `__m512`, two `__m256`, or an array.
//!
//! Every kernel in [`super`] is written once against these two traits, so an instruction set changes how fast a result
//! comes and not what it is: the same operations run in the same order on the same lanes. [`Lanes`] is the arithmetic
//! that the elementary functions need, in any width; [`Wide`] adds what the matrix and attention kernels need on
//! sixteen lanes.
//!
//! Invariant: a value of a lane type exists only on a machine that has the type's instructions. Constructors are
//! `unsafe` and their callers promise those instructions; every method that takes a value is safe because the value is
//! the proof.

mod array;
mod avx2;
mod avx512;
mod sse;

pub(super) use array::Array;
pub(super) use avx2::Y16;
pub(super) use avx512::{Z16, ZPairs};
pub(super) use sse::X4;

/// Elementwise f32 arithmetic, IEEE round to nearest even, subnormals kept.
pub(super) trait Lanes: Copy {
    /// A truth value a lane.
    type Mask: Copy;

    /// `x` in every lane.
    fn like(self, x: f32) -> Self;
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    /// `self > b ? self : b`, so a NaN on either side gives `b` (the rule of `maxps`).
    fn max(self, b: Self) -> Self;
    /// `self < b ? self : b`, so a NaN on either side gives `b` (the rule of `minps`).
    fn min(self, b: Self) -> Self;
    /// `self < b`; false where either is NaN.
    fn lt(self, b: Self) -> Self::Mask;
    /// `mask ? yes : self`.
    fn or_where(self, mask: Self::Mask, yes: Self) -> Self;
    fn abs(self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// `self * 2^n` rounded once, for `self` in [0.5, 2] and integral `n` in [-151, 129].
    fn scale2(self, n: Self) -> Self;
    /// `(m, e)` with `self == m * 2^e`, `m` in [2/3, 4/3) and `e` integral, for positive normal `self`.
    fn split(self) -> (Self, Self);
}

/// The bits of 2/3 rounded up: [`Lanes::split`] chooses the exponent that puts the mantissa at or above it.
const TWO_THIRDS: i32 = 0x3f2a_aaab;
/// The sign and exponent field of an f32.
const EXPONENT: i32 = 0xff80_0000_u32 as i32;

/// The second of two bf16 in 32 bits, which is an f32 as it stands.
const UPPER_HALF: i32 = 0xffff_0000_u32 as i32;

/// 2¹²⁰: from the bias of E4M3's exponent, 7, to that of an f32, 127.
const MOVE_E4M3: f32 = f32::from_bits((120 + 127) << 23);

/// Sixteen lanes with memory access.
///
/// # Safety
/// For every `unsafe` method: the machine has the instructions of the type, and the named elements can be read or
/// written. No method touches an element it does not name.
pub(super) trait Wide: Lanes {
    /// `x` in every lane.
    unsafe fn splat(x: f32) -> Self;
    /// Lanes from `p[0..16]`.
    unsafe fn load(p: *const f32) -> Self;
    /// Lanes from `p[0..n]`, n <= 16; zero in the others.
    unsafe fn load_part(p: *const f32, n: usize) -> Self;
    /// Lanes from `p[0..n]`, n <= 16; `fill` in the others.
    unsafe fn load_or(p: *const f32, n: usize, fill: f32) -> Self;
    /// Lanes from sixteen bf16.
    unsafe fn load_bf16(p: *const u16) -> Self;
    /// Lanes from `p[0..n]` bf16, n <= 16; zero in the others.
    #[inline(always)]
    unsafe fn load_bf16_part(p: *const u16, n: usize) -> Self {
        let mut whole = [0u16; 16];
        debug_assert!(n <= 16);
        // SAFETY: the caller lends p[0..n], and n <= 16.
        unsafe {
            std::ptr::copy_nonoverlapping(p, whole.as_mut_ptr(), n);
            Self::load_bf16(whole.as_ptr())
        }
    }
    /// Lanes from sixteen whole numbers of a byte.
    unsafe fn load_i8(p: *const u8) -> Self;
    /// Lanes from sixteen whole numbers of half a byte, lower half first, each plus 8.
    unsafe fn load_i4(p: *const u8) -> Self;
    /// Lanes from sixteen 8-bit floats, E4M3.
    unsafe fn load_e4m3(p: *const u8) -> Self;
    /// Of sixteen pairs of bf16 the first ones, or the second ones.
    unsafe fn load_of_pairs(p: *const u8, second: bool) -> Self;
    /// Lanes to `p[0..16]`.
    unsafe fn store(self, p: *mut f32);
    /// The first `n` lanes to `p[0..n]`, n <= 16.
    unsafe fn store_part(self, p: *mut f32, n: usize);
    /// Bit i: lane i differs from that of `b`, or either is NaN.
    fn differ(self, b: Self) -> u16;
    /// Lane i of the result is the sum of the lanes of `v[i]`, as the tree of [`tree_sum`].
    fn sums(v: [Self; 16]) -> Self;

    /// The lanes as an array.
    #[inline(always)]
    fn to_array(self) -> [f32; 16] {
        let mut out = [0.0; 16];
        // SAFETY: `self` proves the instructions, and `out` has sixteen elements.
        unsafe { self.store(out.as_mut_ptr()) };
        out
    }
    /// The sum of the lanes, as the tree of [`tree_sum`].
    #[inline(always)]
    fn sum(self) -> f32 {
        tree_sum(self.to_array())
    }
    /// The greatest lane; unspecified where a lane is NaN.
    #[inline(always)]
    fn largest(self) -> f32 {
        let mut x = self.to_array();
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] = if x[i] > x[i + half] { x[i] } else { x[i + half] };
            }
        }
        x[0]
    }
}

/// The one order in which sixteen lanes are added: lane i with lane i + 8, then + 4, + 2, + 1.
#[inline(always)]
pub(super) fn tree_sum(mut x: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            x[i] += x[i + half];
        }
    }
    x[0]
}
