//! exp, log, tanh and erf on any lanes: one polynomial each, evaluated with fused multiply-adds.
//!
//! Every instruction set runs the same operations in the same order, so the results agree bit for bit. The
//! approximations of exp, log and erf are those that N. Juffa published on Stack Overflow (questions 39587752, 39821367
//! and 35148198), that of tanh near zero is Cephes' `tanhf`. Bounds are those that the tests check.

use super::lanes::Lanes;

/// `1.5 * 2^23`: adding it rounds to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// `e^x`, within 2 ulp; subnormal results are rounded once. `exp(-inf)` is 0, `exp(0)` is 1, NaN stays NaN.
#[inline(always)]
pub(super) fn exp<V: Lanes>(x: V) -> V {
    // Below -104 the result rounds to zero, above 89 it overflows. The operand order of max and min keeps NaN.
    let x = x.like(-104.0).max(x);
    let x = x.like(89.0).min(x);
    let n = x.fma(x.like(std::f32::consts::LOG2_E), x.like(ROUND)).sub(x.like(ROUND));
    // ln 2 in two parts: n times the first is exact.
    let r = n.fma(x.like(-6.931_457_5e-1), x);
    let r = n.fma(x.like(-1.428_606_8e-6), r);
    let p =
        poly(r, [1.378_059_4e-3, 8.373_124_5e-3, 4.166_953_6e-2, 1.666_647_2e-1, 4.999_998_5e-1, 1.0, 1.0]);
    p.scale2(n)
}

/// `ln x`, within 2 ulp. 0 gives -inf, a negative number NaN.
#[inline(always)]
pub(super) fn log<V: Lanes>(x: V) -> V {
    let tiny = x.lt(x.like(f32::MIN_POSITIVE));
    let normal = x.or_where(tiny, x.mul(x.like(8_388_608.0)));
    let offset = x.like(0.0).or_where(tiny, x.like(-23.0));
    let (m, e) = normal.split();
    let e = e.add(offset);
    // ln m for m - 1 in [-1/3, 1/3], odd and even terms apart.
    let f = m.sub(x.like(1.0));
    let s = f.mul(f);
    let r = poly(s, [-0.130_310_06, -0.121_483_51, -0.166_846_13, -0.249_996_2]);
    let t = poly(s, [0.140_869_14, 0.139_814_85, 0.200_120_35]);
    let r = t.fma(f, r);
    let r = r.fma(f, x.like(0.333_331_97));
    let r = r.fma(f, x.like(-0.5));
    let r = r.fma(s, f);
    let r = e.fma(x.like(std::f32::consts::LN_2), r);
    edges_of_log(x, r)
}

/// `r` where `x` is positive and finite; elsewhere the limit, or NaN.
#[inline(always)]
fn edges_of_log<V: Lanes>(x: V, r: V) -> V {
    let least = x.like(f32::from_bits(1));
    // inf + inf is inf and NaN + NaN is NaN; no comparison with NaN holds.
    let r = x.add(x).or_where(x.lt(x.like(f32::INFINITY)), r);
    let r = r.or_where(x.lt(least), x.like(f32::NEG_INFINITY));
    r.or_where(x.lt(x.like(0.0)), x.like(f32::NAN))
}

/// `tanh x`, within 4e-7.
#[inline(always)]
pub(super) fn tanh<V: Lanes>(x: V) -> V {
    let t = x.abs();
    let s = x.mul(x);
    let p = poly(s, [-0.005_704_988_7, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let near = p.mul(s).fma(x, x);
    // 1 - 2 / (e^2t + 1); the exponential overflows to infinity and leaves 1.
    let e = exp(t.add(t)).add(x.like(1.0));
    let far = x.like(1.0).sub(x.like(2.0).div(e));
    // The sign comes last: the polynomial loses that of -0.
    far.or_where(t.lt(x.like(0.625)), near).copysign(x)
}

/// The error function, within 4e-7.
#[inline(always)]
pub(super) fn erf<V: Lanes>(x: V) -> V {
    let t = x.abs();
    let s = x.mul(x);
    let near =
        [-5.967_617e-4, 4.991_194e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1];
    let near = poly(s, near).fma(x, x);
    // 1 - e^g(t) with g of degree 6; the operand order of min keeps NaN. From 4 on the result is 1.
    let t4 = x.like(4.0).min(t);
    let s4 = t4.mul(t4);
    let low = t4.fma(x.like(-1.728_534_7e-5), x.like(3.831_972_6e-4));
    let high = t4.fma(x.like(-3.883_964_4e-3), x.like(2.425_462_2e-2));
    let g = low.fma(s4, high);
    let g = g.fma(t4, x.like(-1.067_778_8e-1));
    let g = g.fma(t4, x.like(-6.348_467e-1));
    let g = g.fma(t4, x.like(-1.287_175_1e-1));
    let g = g.fma(t4, x.like(0.0).sub(t4));
    let far = x.like(1.0).sub(exp(g)).copysign(x);
    far.or_where(t.lt(x.like(0.927_734_4)), near)
}

/// One of the functions, as a type: a function passed by value would not be inlined into code with other features.
pub(super) trait Function {
    fn of<V: Lanes>(x: V) -> V;
}

/// Types of these names for these functions.
macro_rules! functions {
    ($($name:ident: $f:ident),+) => {
        $(
            pub(super) enum $name {}
            impl Function for $name {
                #[inline(always)]
                fn of<V: Lanes>(x: V) -> V {
                    $f(x)
                }
            }
        )+
    };
}

functions!(Exp: exp, Log: log, Tanh: tanh, Erf: erf);

/// The polynomial with these coefficients, the highest power first.
#[inline(always)]
fn poly<V: Lanes, const N: usize>(x: V, c: [f32; N]) -> V {
    let mut r = x.like(c[0]);
    for &c in &c[1..] {
        r = r.fma(x, x.like(c));
    }
    r
}
