//! Numbers of 32 and 64 bits (PTX ISA, "Floating point instructions").
//!
//! Everything with a rounding modifier is IEEE 754, correctly rounded, with subnormals unless `.ftz` flushes them. A NaN
//! result of 32 bits is 0x7fffffff. The approximations are computed in 64 bits and rounded once: nearer to the truth than
//! the bounds that PTX promises, and not the bits of any GPU. `add.f32` without a rounding modifier is refused, since
//! `ptxas` may fuse it.

use super::{Class, Form, form, lanes1, lanes2, lanes3};
use crate::exec::Op;

/// A subnormal number becomes a zero of its sign.
pub(crate) fn flush(value: f32) -> f32 {
    if value.is_subnormal() { f32::from_bits(value.to_bits() & 0x8000_0000) } else { value }
}

/// The bits of a result, NaN made canonical.
#[inline(always)]
pub(crate) fn bits(value: f32) -> u32 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits() }
}

/// `a * b + c` in 64 bits, rounded to odd, so that rounding it again to 29 bits fewer or more is exact rounding
/// (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums"). The product of two numbers of 32 bits is exact.
#[inline(always)]
pub(crate) fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    let product = a * b;
    let sum = product + c;
    let back = sum - product;
    let error = (product - (sum - back)) + (c - back);
    let bits = sum.to_bits();
    let inexact = error != 0.0 && sum.is_finite() && error.is_finite() && bits & 1 == 0;
    // The error has the sign of the sum where the exact value is farther from zero.
    let away = (error > 0.0) == (sum > 0.0);
    let odd = if away { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact { odd } else { bits })
}

/// `fma.rn.f32`.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    fma_odd(f64::from(a), f64::from(b), f64::from(c)) as f32
}

/// `min`: a number is preferred to NaN, and -0 is less than 0.
pub(crate) fn minimum(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else if a == b {
        f32::from_bits(a.to_bits() | b.to_bits())
    } else if a < b {
        a
    } else {
        b
    }
}

/// `max`: a number is preferred to NaN, and 0 is more than -0.
pub(crate) fn maximum(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else if a == b {
        f32::from_bits(a.to_bits() & b.to_bits())
    } else if a > b {
        a
    } else {
        b
    }
}

/// NaN where either is.
pub(crate) fn or_nan(a: f32, b: f32, value: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { value }
}

/// The rows of an operation of one operand: as it is, and with `.ftz`.
macro_rules! float1 {
    ($rows:ident, $class:expr, $plain:literal, $ftz:literal, $f:expr) => {
        $rows.push(form(
            $class,
            $plain,
            "ww",
            Op::Word1(|a, out| lanes1(a, out, |a: u32| bits($f(f32::from_bits(a))))),
        ));
        $rows.push(form(
            $class,
            $ftz,
            "ww",
            Op::Word1(|a, out| lanes1(a, out, |a: u32| bits(flush($f(flush(f32::from_bits(a))))))),
        ));
    };
}

/// The same of two operands.
macro_rules! float2 {
    ($rows:ident, $plain:literal, $ftz:literal, $f:expr) => {
        $rows.push(form(
            Class::Float,
            $plain,
            "www",
            Op::Word2(|a, b, out| {
                lanes2(a, b, out, |a: u32, b: u32| bits($f(f32::from_bits(a), f32::from_bits(b))))
            }),
        ));
        $rows.push(form(
            Class::Float,
            $ftz,
            "www",
            Op::Word2(|a, b, out| {
                lanes2(a, b, out, |a: u32, b: u32| {
                    bits(flush($f(flush(f32::from_bits(a)), flush(f32::from_bits(b)))))
                })
            }),
        ));
    };
}

pub(super) fn rows() -> Vec<Form> {
    let mut rows = Vec::new();
    float2!(rows, "add.rn.f32", "add.rn.ftz.f32", |a: f32, b: f32| a + b);
    float2!(rows, "sub.rn.f32", "sub.rn.ftz.f32", |a: f32, b: f32| a - b);
    float2!(rows, "mul.rn.f32", "mul.rn.ftz.f32", |a: f32, b: f32| a * b);
    float2!(rows, "div.rn.f32", "div.rn.ftz.f32", |a: f32, b: f32| a / b);
    float2!(rows, "div.{full,approx}.f32", "div.{full,approx}.ftz.f32", |a: f32, b: f32| a / b);
    float2!(rows, "min.f32", "min.ftz.f32", minimum);
    float2!(rows, "max.f32", "max.ftz.f32", maximum);
    float2!(rows, "min.NaN.f32", "min.ftz.NaN.f32", |a, b| or_nan(a, b, minimum(a, b)));
    float2!(rows, "max.NaN.f32", "max.ftz.NaN.f32", |a, b| or_nan(a, b, maximum(a, b)));
    float2!(rows, "copysign.f32", "copysign.ftz.f32", |a: f32, b: f32| b.copysign(a));
    rows.pop();
    float1!(rows, Class::Float, "rcp.rn.f32", "rcp.rn.ftz.f32", |a: f32| 1.0 / a);
    float1!(rows, Class::Float, "sqrt.rn.f32", "sqrt.rn.ftz.f32", |a: f32| a.sqrt());
    float1!(rows, Class::Float, "neg.f32", "neg.ftz.f32", |a: f32| -a);
    float1!(rows, Class::Float, "abs.f32", "abs.ftz.f32", |a: f32| a.abs());
    rows.extend(fused());
    rows.extend(approximations());
    rows.extend(longs());
    rows
}

fn fused() -> Vec<Form> {
    vec![
        form(
            Class::Float,
            "fma.rn.f32",
            "wwww",
            Op::Word3(|a, b, c, out| {
                lanes3((a, b, c), out, |a: u32, b: u32, c: u32| {
                    bits(fma(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c)))
                })
            }),
        ),
        form(
            Class::Float,
            "fma.rn.ftz.f32",
            "wwww",
            Op::Word3(|a, b, c, out| {
                lanes3((a, b, c), out, |a: u32, b: u32, c: u32| {
                    let [a, b, c] = [a, b, c].map(|value| flush(f32::from_bits(value)));
                    bits(flush(fma(a, b, c)))
                })
            }),
        ),
    ]
}

/// A function of 64 bits, rounded once.
fn by_double(f: impl Fn(f64) -> f64) -> impl Fn(f32) -> f32 {
    move |value| f(f64::from(value)) as f32
}

fn approximations() -> Vec<Form> {
    let mut rows = Vec::new();
    let class = Class::Special;
    float1!(rows, class, "ex2.approx.f32", "ex2.approx.ftz.f32", by_double(f64::exp2));
    float1!(rows, class, "lg2.approx.f32", "lg2.approx.ftz.f32", by_double(f64::log2));
    float1!(rows, class, "rcp.approx.f32", "rcp.approx.ftz.f32", by_double(|a| 1.0 / a));
    float1!(rows, class, "sqrt.approx.f32", "sqrt.approx.ftz.f32", by_double(f64::sqrt));
    float1!(rows, class, "rsqrt.approx.f32", "rsqrt.approx.ftz.f32", by_double(|a| 1.0 / a.sqrt()));
    float1!(rows, class, "sin.approx.f32", "sin.approx.ftz.f32", by_double(f64::sin));
    float1!(rows, class, "cos.approx.f32", "cos.approx.ftz.f32", by_double(f64::cos));
    float1!(rows, class, "tanh.approx.f32", "tanh.approx.ftz.f32", by_double(f64::tanh));
    // There is no `tanh.approx.ftz`.
    rows.pop();
    rows
}

fn longs() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Float, pattern, signature, op);
    macro_rules! long2 {
        ($f:expr) => {
            Op::Long2(|a, b, out| {
                lanes2(a, b, out, |a: u64, b: u64| $f(f64::from_bits(a), f64::from_bits(b)).to_bits())
            })
        };
    }
    macro_rules! long1 {
        ($f:expr) => {
            Op::Long1(|a, out| lanes1(a, out, |a: u64| $f(f64::from_bits(a)).to_bits()))
        };
    }
    vec![
        row("add.rn.f64", "ddd", long2!(|a: f64, b: f64| a + b)),
        row("sub.rn.f64", "ddd", long2!(|a: f64, b: f64| a - b)),
        row("mul.rn.f64", "ddd", long2!(|a: f64, b: f64| a * b)),
        row("div.rn.f64", "ddd", long2!(|a: f64, b: f64| a / b)),
        row("min.f64", "ddd", long2!(|a: f64, b: f64| a.min(b))),
        row("max.f64", "ddd", long2!(|a: f64, b: f64| a.max(b))),
        row("neg.f64", "dd", long1!(|a: f64| -a)),
        row("abs.f64", "dd", long1!(|a: f64| a.abs())),
        row("rcp.rn.f64", "dd", long1!(|a: f64| 1.0 / a)),
        row("sqrt.rn.f64", "dd", long1!(|a: f64| a.sqrt())),
        row("cvt.rmi.f64.f64", "dd", long1!(|a: f64| a.floor())),
        row(
            "fma.rn.f64",
            "dddd",
            Op::Long3(|a, b, c, out| {
                lanes3((a, b, c), out, |a: u64, b: u64, c: u64| {
                    f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits()
                })
            }),
        ),
    ]
}
