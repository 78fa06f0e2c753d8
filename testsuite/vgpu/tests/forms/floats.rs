//! Numbers of 32 and 64 bits.

use crate::run::{Case, Values};

fn case(pattern: &'static str, signature: &'static str, reference: fn(u64, u64, u64, u64) -> u64) -> Case {
    let values = if signature.contains('d') { Values::F64 } else { Values::F32 };
    Case { pattern, signature, values, reference }
}

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}
fn d(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// Bits with the NaN that PTX gives.
fn out(value: f32) -> u64 {
    if value.is_nan() { 0x7fff_ffff } else { u64::from(value.to_bits()) }
}

/// `.ftz` of an operand, by its exponent field.
fn z(bits: u64) -> f32 {
    if bits & 0x7f80_0000 == 0 { f(bits & 0x8000_0000) } else { f(bits) }
}
/// `.ftz` of a result.
fn flushed(value: f32) -> u64 {
    let bits = out(value);
    if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

/// An order of numbers in which -0 is below 0.
fn key(value: f32) -> i64 {
    let bits = i64::from(value.to_bits());
    if bits >> 31 == 1 { -(bits & 0x7fff_ffff) - 1 } else { bits }
}
fn least(a: f32, b: f32) -> f32 {
    if b.is_nan() || (!a.is_nan() && key(a) < key(b)) { a } else { b }
}
fn most(a: f32, b: f32) -> f32 {
    if b.is_nan() || (!a.is_nan() && key(a) > key(b)) { a } else { b }
}
fn strict(a: f32, b: f32, value: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { value }
}

pub fn cases() -> Vec<Case> {
    let mut all = plain();
    all.extend(flushing());
    all.extend(approximations());
    all.extend(longs());
    all.extend(comparisons());
    all
}

fn plain() -> Vec<Case> {
    vec![
        case("add.rn.f32", "www", |a, b, _, _| out(f(a) + f(b))),
        case("sub.rn.f32", "www", |a, b, _, _| out(f(a) - f(b))),
        case("mul.rn.f32", "www", |a, b, _, _| out(f(a) * f(b))),
        case("div.{rn,full,approx}.f32", "www", |a, b, _, _| out(f(a) / f(b))),
        case("fma.rn.f32", "wwww", |a, b, c, _| out(f(a).mul_add(f(b), f(c)))),
        case("min.f32", "www", |a, b, _, _| out(least(f(a), f(b)))),
        case("max.f32", "www", |a, b, _, _| out(most(f(a), f(b)))),
        case("min.NaN.f32", "www", |a, b, _, _| out(strict(f(a), f(b), least(f(a), f(b))))),
        case("max.NaN.f32", "www", |a, b, _, _| out(strict(f(a), f(b), most(f(a), f(b))))),
        case("copysign.f32", "www", |a, b, _, _| out(f(a & 0x8000_0000 | b & 0x7fff_ffff))),
        case("rcp.rn.f32", "ww", |a, _, _, _| out(1.0 / f(a))),
        case("sqrt.rn.f32", "ww", |a, _, _, _| out(f(a).sqrt())),
        case("neg.f32", "ww", |a, _, _, _| out(f(a ^ 0x8000_0000))),
        case("abs.f32", "ww", |a, _, _, _| out(f(a & 0x7fff_ffff))),
    ]
}

fn flushing() -> Vec<Case> {
    vec![
        case("add.rn.ftz.f32", "www", |a, b, _, _| flushed(z(a) + z(b))),
        case("sub.rn.ftz.f32", "www", |a, b, _, _| flushed(z(a) - z(b))),
        case("mul.rn.ftz.f32", "www", |a, b, _, _| flushed(z(a) * z(b))),
        case("div.{rn,full,approx}.ftz.f32", "www", |a, b, _, _| flushed(z(a) / z(b))),
        case("fma.rn.ftz.f32", "wwww", |a, b, c, _| flushed(z(a).mul_add(z(b), z(c)))),
        case("min.ftz.f32", "www", |a, b, _, _| flushed(least(z(a), z(b)))),
        case("max.ftz.f32", "www", |a, b, _, _| flushed(most(z(a), z(b)))),
        case("min.ftz.NaN.f32", "www", |a, b, _, _| flushed(strict(z(a), z(b), least(z(a), z(b))))),
        case("max.ftz.NaN.f32", "www", |a, b, _, _| flushed(strict(z(a), z(b), most(z(a), z(b))))),
        case("rcp.rn.ftz.f32", "ww", |a, _, _, _| flushed(1.0 / z(a))),
        case("sqrt.rn.ftz.f32", "ww", |a, _, _, _| flushed(z(a).sqrt())),
        case("neg.ftz.f32", "ww", |a, _, _, _| flushed(-z(a))),
        case("abs.ftz.f32", "ww", |a, _, _, _| flushed(z(a).abs())),
    ]
}

fn wide(value: f32, function: fn(f64) -> f64) -> f32 {
    function(f64::from(value)) as f32
}

/// The documented model: the function in 64 bits, rounded once.
fn approximations() -> Vec<Case> {
    vec![
        case("ex2.approx.f32", "ww", |a, _, _, _| out(wide(f(a), f64::exp2))),
        case("ex2.approx.ftz.f32", "ww", |a, _, _, _| flushed(wide(z(a), f64::exp2))),
        case("lg2.approx.f32", "ww", |a, _, _, _| out(wide(f(a), f64::log2))),
        case("lg2.approx.ftz.f32", "ww", |a, _, _, _| flushed(wide(z(a), f64::log2))),
        case("rcp.approx.f32", "ww", |a, _, _, _| out(1.0 / f(a))),
        case("rcp.approx.ftz.f32", "ww", |a, _, _, _| flushed(1.0 / z(a))),
        case("sqrt.approx.f32", "ww", |a, _, _, _| out(f(a).sqrt())),
        case("sqrt.approx.ftz.f32", "ww", |a, _, _, _| flushed(z(a).sqrt())),
        case("rsqrt.approx.f32", "ww", |a, _, _, _| out(wide(f(a), |a| a.sqrt().recip()))),
        case("rsqrt.approx.ftz.f32", "ww", |a, _, _, _| flushed(wide(z(a), |a| a.sqrt().recip()))),
        case("sin.approx.f32", "ww", |a, _, _, _| out(wide(f(a), f64::sin))),
        case("sin.approx.ftz.f32", "ww", |a, _, _, _| flushed(wide(z(a), f64::sin))),
        case("cos.approx.f32", "ww", |a, _, _, _| out(wide(f(a), f64::cos))),
        case("cos.approx.ftz.f32", "ww", |a, _, _, _| flushed(wide(z(a), f64::cos))),
        case("tanh.approx.f32", "ww", |a, _, _, _| out(wide(f(a), f64::tanh))),
    ]
}

/// NaN of 64 bits has no fixed pattern: it is compared as one.
fn long(value: f64) -> u64 {
    value.to_bits()
}

fn longs() -> Vec<Case> {
    vec![
        case("add.rn.f64", "ddd", |a, b, _, _| long(d(a) + d(b))),
        case("sub.rn.f64", "ddd", |a, b, _, _| long(d(a) - d(b))),
        case("mul.rn.f64", "ddd", |a, b, _, _| long(d(a) * d(b))),
        case("div.rn.f64", "ddd", |a, b, _, _| long(d(a) / d(b))),
        case("fma.rn.f64", "dddd", |a, b, c, _| long(d(a).mul_add(d(b), d(c)))),
        case("min.f64", "ddd", |a, b, _, _| long(d(a).min(d(b)))),
        case("max.f64", "ddd", |a, b, _, _| long(d(a).max(d(b)))),
        case("neg.f64", "dd", |a, _, _, _| a ^ 1 << 63),
        case("abs.f64", "dd", |a, _, _, _| a & !(1 << 63)),
        case("rcp.rn.f64", "dd", |a, _, _, _| long(1.0 / d(a))),
        case("sqrt.rn.f64", "dd", |a, _, _, _| long(d(a).sqrt())),
        case("cvt.rmi.f64.f64", "dd", |a, _, _, _| {
            let whole = d(a).trunc();
            long(if whole > d(a) { whole - 1.0 } else { whole })
        }),
    ]
}

/// -1, 0, 1, or none where one is NaN.
fn order(a: f64, b: f64) -> Option<i32> {
    if a.is_nan() || b.is_nan() { None } else { Some(i32::from(a > b) - i32::from(a < b)) }
}
fn from_f16(bits: u64) -> f64 {
    half::f16::from_bits(bits as u16).to_f64()
}
fn from_bf16(bits: u64) -> f64 {
    half::bf16::from_bits(bits as u16).to_f64()
}
fn from_f32(bits: u64) -> f64 {
    f64::from(f(bits))
}
fn from_ftz(bits: u64) -> f64 {
    f64::from(z(bits))
}

fn comparisons() -> Vec<Case> {
    let mut all = Vec::new();
    macro_rules! compare {
        ($signature:literal, $values:expr, $type:literal, $cast:expr) => {
            compare!(@ $signature, $values, $type, $cast,
                "eq" => |o: Option<i32>| o == Some(0), "ne" => |o: Option<i32>| o.is_some_and(|o| o != 0),
                "lt" => |o: Option<i32>| o == Some(-1), "le" => |o: Option<i32>| o.is_some_and(|o| o <= 0),
                "gt" => |o: Option<i32>| o == Some(1), "ge" => |o: Option<i32>| o.is_some_and(|o| o >= 0),
                "equ" => |o: Option<i32>| o.is_none() || o == Some(0), "neu" => |o: Option<i32>| o != Some(0),
                "ltu" => |o: Option<i32>| o.is_none() || o == Some(-1), "leu" => |o: Option<i32>| o != Some(1),
                "gtu" => |o: Option<i32>| o.is_none() || o == Some(1), "geu" => |o: Option<i32>| o != Some(-1),
                "num" => |o: Option<i32>| o.is_some(), "nan" => |o: Option<i32>| o.is_none());
        };
        (@ $signature:literal, $values:expr, $type:literal, $cast:expr, $($name:literal => $holds:expr),+) => {
            $(all.push(Case {
                pattern: concat!("setp.", $name, ".", $type),
                signature: $signature,
                values: $values,
                reference: |a, b, _, _| u64::from($holds(order($cast(a), $cast(b)))),
            });)+
        };
    }
    compare!("pww", Values::F32, "f32", from_f32);
    compare!("pww", Values::F32, "ftz.f32", from_ftz);
    compare!("pdd", Values::F64, "f64", d);
    compare!("phh", Values::F16, "f16", from_f16);
    compare!("phh", Values::Bf16, "bf16", from_bf16);
    all
}
