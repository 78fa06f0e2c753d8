//! Thirty-two lanes at a time: plain loops that the compiler turns into vector instructions.

/// Lanes of a warp.
pub const LANES: usize = 32;
/// A register of up to 32 bits.
pub type W = [u32; LANES];
/// A register of 64 bits.
pub type D = [u64; LANES];

/// `out[i] = f(a[i])`
#[inline(always)]
pub(crate) fn lanes1<A: Copy, R>(a: &[A; LANES], out: &mut [R; LANES], f: impl Fn(A) -> R) {
    for (out, a) in out.iter_mut().zip(a) {
        *out = f(*a);
    }
}

/// `out[i] = f(a[i], b[i])`
#[inline(always)]
pub(crate) fn lanes2<A: Copy, B: Copy, R>(
    a: &[A; LANES],
    b: &[B; LANES],
    out: &mut [R; LANES],
    f: impl Fn(A, B) -> R,
) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = f(*a, *b);
    }
}

/// `out[i] = f(a[i], b[i], c[i])`
#[inline(always)]
pub(crate) fn lanes3<A: Copy, B: Copy, C: Copy, R>(
    (a, b, c): (&[A; LANES], &[B; LANES], &[C; LANES]),
    out: &mut [R; LANES],
    f: impl Fn(A, B, C) -> R,
) {
    for (((out, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *out = f(*a, *b, *c);
    }
}

/// Bit `i` is `f(a[i], b[i])`.
#[inline(always)]
pub(crate) fn mask2<A: Copy, B: Copy>(a: &[A; LANES], b: &[B; LANES], f: impl Fn(A, B) -> bool) -> u32 {
    let mut found = 0;
    for i in 0..LANES {
        found |= u32::from(f(a[i], b[i])) << i;
    }
    found
}
