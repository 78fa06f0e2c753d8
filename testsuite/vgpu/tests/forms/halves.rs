//! Numbers of 16 bits, and conversions to and from them. References round a value that is exact in 128-bit integers or
//! known to be exact in 64-bit floating point.

use crate::run::{Case, Values};
use half::{bf16, f16};

fn case(
    pattern: &'static str,
    signature: &'static str,
    values: Values,
    reference: fn(u64, u64, u64, u64) -> u64,
) -> Case {
    Case { pattern, signature, values, reference }
}

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}
fn out(value: f32) -> u64 {
    if value.is_nan() { 0x7fff_ffff } else { u64::from(value.to_bits()) }
}

/// A format by the bits of its exponent and of its fraction.
#[derive(Clone, Copy)]
struct Format {
    exponent: i32,
    fraction: i32,
}
const HALF: Format = Format { exponent: 5, fraction: 10 };
const BRAIN: Format = Format { exponent: 8, fraction: 7 };

/// A finite number as `significand * 2^exponent`.
fn parts(bits: u64, format: Format) -> Option<(i128, i32)> {
    let field = (bits >> format.fraction & ((1 << format.exponent) - 1)) as i32;
    let fraction = (bits & ((1 << format.fraction) - 1)) as i128;
    let negative = bits >> (format.exponent + format.fraction) & 1 == 1;
    let bias = (1 << (format.exponent - 1)) - 1;
    if field == (1 << format.exponent) - 1 {
        return None;
    }
    let (value, power) = if field == 0 { (fraction, 1) } else { (fraction | 1 << format.fraction, field) };
    Some((if negative { -value } else { value }, power - bias - format.fraction))
}

/// `significand * 2^exponent` to nearest, ties to even, by whole numbers; `sticky` is what was lost below it, and of its
/// sign.
fn rounded(significand: i128, exponent: i32, sticky: bool, format: Format) -> u64 {
    let sign = u64::from(significand < 0) << (format.exponent + format.fraction);
    let bias = (1 << (format.exponent - 1)) - 1;
    let magnitude = significand.unsigned_abs();
    if magnitude == 0 {
        return sign;
    }
    let top = 127 - magnitude.leading_zeros() as i32 + exponent;
    // The exponent of the last bit that the result has.
    let last = (top - format.fraction).max(1 - bias - format.fraction);
    let drop = last - exponent;
    let (mut kept, rest, half) = if drop <= 0 {
        (magnitude << -drop, 0, 1)
    } else if drop > 126 {
        (0, 1, 2)
    } else {
        (magnitude >> drop, magnitude & ((1 << drop) - 1), 1 << (drop - 1))
    };
    if rest > half || (rest == half && (sticky || kept & 1 == 1)) {
        kept += 1;
    }
    let most = (1u128 << format.exponent) - 1;
    // The significand with its leading one adds to the exponent field by carrying.
    let field = (last + bias + format.fraction - 1) as u128;
    let bits = (field << format.fraction) + kept;
    let bits = bits.min(most << format.fraction);
    sign | bits as u64
}

/// `a * b + c` rounded once, where all are finite and the exponents are near enough for 128 bits; what is farther below is
/// sticky.
fn fused(a: u64, b: u64, c: u64, format: Format, value: fn(u64) -> f64) -> u64 {
    let (Some(x), Some(y), Some(w)) = (parts(a, format), parts(b, format), parts(c, format)) else {
        let exact = value(a) * value(b) + value(c);
        return if exact.is_nan() { 0x7fff } else { infinite(exact, format) };
    };
    let (product, power) = (x.0 * y.0, x.1 + y.1);
    if product == 0 || w.0 == 0 {
        if product == 0 && w.0 == 0 {
            let zero = value(a) * value(b) + value(c);
            return u64::from(zero.is_sign_negative()) << 15;
        }
        return if product == 0 {
            rounded(w.0, w.1, false, format)
        } else {
            rounded(product, power, false, format)
        };
    }
    let ((high, high_power), (low, low_power)) =
        if power > w.1 { ((product, power), (w.0, w.1)) } else { ((w.0, w.1), (product, power)) };
    let gap = high_power - low_power;
    if gap < 100 {
        let sum = (high << gap) + low;
        // Numbers that cancel give +0.
        return if sum == 0 { 0 } else { rounded(sum, low_power, false, format) };
    }
    // Far apart: the low one only breaks ties, or takes one unit far below from the high one.
    let spread = high << 60;
    if (high < 0) == (low < 0) {
        rounded(spread, high_power - 60, true, format)
    } else {
        rounded(spread - high.signum(), high_power - 60, true, format)
    }
}

fn infinite(value: f64, format: Format) -> u64 {
    let sign = u64::from(value < 0.0) << 15;
    sign | ((1 << format.exponent) - 1) << format.fraction
}

fn half_value(bits: u64) -> f64 {
    f16::from_bits(bits as u16).to_f64()
}
fn brain_value(bits: u64) -> f64 {
    bf16::from_bits(bits as u16).to_f64()
}
fn half_fma(a: u64, b: u64, c: u64, _: u64) -> u64 {
    fused(a, b, c, HALF, half_value)
}
fn brain_fma(a: u64, b: u64, c: u64, _: u64) -> u64 {
    fused(a, b, c, BRAIN, brain_value)
}

/// A function of halves on both halves of a pair.
fn both(function: fn(u64, u64, u64, u64) -> u64, a: u64, b: u64, c: u64) -> u64 {
    let low = |value: u64| value & 0xffff;
    let part = function(low(a), low(b), low(c), 0) & 0xffff;
    part | (function(a >> 16, b >> 16, c >> 16, 0) & 0xffff) << 16
}

const ONE_HALF: u64 = 0x3c00;
const ONE_BRAIN: u64 = 0x3f80;
/// -0, which changes no sum.
const NOTHING: u64 = 0x8000;

fn choose(a: u64, b: u64, value: fn(u64) -> f64, (least, strict): (bool, bool)) -> u64 {
    let (x, y) = (value(a), value(b));
    if x.is_nan() || y.is_nan() {
        return if strict || (x.is_nan() && y.is_nan()) {
            0x7fff
        } else if x.is_nan() {
            b
        } else {
            a
        };
    }
    let below = x < y || (x == y && a >> 15 == 1);
    if below == least { a } else { b }
}

macro_rules! single_and_pair {
    ($all:ident, $signature:literal, $pairs:literal, $values:expr, $single:literal, $pair:literal, $f:expr) => {
        $all.push(case($single, $signature, $values, $f));
        $all.push(case($pair, $pairs, $values, |a, b, c, _| both($f, a, b, c)));
    };
}

pub fn cases() -> Vec<Case> {
    let mut all = Vec::with_capacity(128);
    let (h, b) = (Values::F16, Values::Bf16);
    single_and_pair!(all, "hhhh", "wwww", h, "fma.rn.f16", "fma.rn.f16x2", half_fma);
    single_and_pair!(all, "hhhh", "wwww", b, "fma.rn.bf16", "fma.rn.bf16x2", brain_fma);
    single_and_pair!(all, "hhh", "www", h, "add{,.rn}.f16", "add{,.rn}.f16x2", |a, b, _, _| half_fma(
        a, ONE_HALF, b, 0
    ));
    single_and_pair!(all, "hhh", "www", b, "add{,.rn}.bf16", "add{,.rn}.bf16x2", |a, b, _, _| brain_fma(
        a, ONE_BRAIN, b, 0
    ));
    single_and_pair!(all, "hhh", "www", h, "sub{,.rn}.f16", "sub{,.rn}.f16x2", |a, b, _, _| half_fma(
        a,
        ONE_HALF,
        b ^ 0x8000,
        0
    ));
    single_and_pair!(all, "hhh", "www", b, "sub{,.rn}.bf16", "sub{,.rn}.bf16x2", |a, b, _, _| brain_fma(
        a,
        ONE_BRAIN,
        b ^ 0x8000,
        0
    ));
    single_and_pair!(all, "hhh", "www", h, "mul{,.rn}.f16", "mul{,.rn}.f16x2", |a, b, _, _| half_fma(
        a,
        b,
        (a ^ b) & NOTHING,
        0
    ));
    single_and_pair!(all, "hhh", "www", b, "mul{,.rn}.bf16", "mul{,.rn}.bf16x2", |a, b, _, _| brain_fma(
        a,
        b,
        (a ^ b) & NOTHING,
        0
    ));
    all.extend(choices());
    single_and_pair!(all, "hh", "ww", h, "neg.{f16,bf16}", "neg.{f16x2,bf16x2}", |a, _, _, _| a ^ 0x8000);
    single_and_pair!(all, "hh", "ww", h, "abs.{f16,bf16}", "abs.{f16x2,bf16x2}", |a, _, _, _| a & 0x7fff);
    all.push(case("ex2.approx.f16", "hh", h, |a, _, _, _| {
        let value = half_value(a).exp2();
        match parts(value.to_bits(), Format { exponent: 11, fraction: 52 }) {
            Some((significand, exponent)) => rounded(significand, exponent, false, HALF),
            None if value.is_nan() => 0x7fff,
            None => infinite(value, HALF),
        }
    }));
    all.push(case("ex2.approx.ftz.bf16", "hh", b, |a, _, _, _| {
        let value = if a & 0x7f80 == 0 { 0.0 } else { brain_value(a) };
        let bits = to_brain(value.exp2() as f32);
        if bits & 0x7f80 == 0 { 0 } else { bits }
    }));
    all.extend(narrowing());
    all.extend(widening());
    all.extend(whole());
    all.extend(narrow());
    all
}

/// The smaller and the greater of two, with and without NaN.
fn choices() -> Vec<Case> {
    let mut all = Vec::new();
    let (h, b) = (Values::F16, Values::Bf16);
    single_and_pair!(all, "hhh", "www", h, "min.f16", "min.f16x2", |a, b, _, _| choose(
        a,
        b,
        half_value,
        (true, false)
    ));
    single_and_pair!(all, "hhh", "www", h, "max.f16", "max.f16x2", |a, b, _, _| choose(
        a,
        b,
        half_value,
        (false, false)
    ));
    single_and_pair!(all, "hhh", "www", b, "min.bf16", "min.bf16x2", |a, b, _, _| choose(
        a,
        b,
        brain_value,
        (true, false)
    ));
    single_and_pair!(all, "hhh", "www", b, "max.bf16", "max.bf16x2", |a, b, _, _| choose(
        a,
        b,
        brain_value,
        (false, false)
    ));
    single_and_pair!(all, "hhh", "www", h, "min.NaN.f16", "min.NaN.f16x2", |a, b, _, _| choose(
        a,
        b,
        half_value,
        (true, true)
    ));
    single_and_pair!(all, "hhh", "www", h, "max.NaN.f16", "max.NaN.f16x2", |a, b, _, _| choose(
        a,
        b,
        half_value,
        (false, true)
    ));
    single_and_pair!(all, "hhh", "www", b, "min.NaN.bf16", "min.NaN.bf16x2", |a, b, _, _| choose(
        a,
        b,
        brain_value,
        (true, true)
    ));
    single_and_pair!(all, "hhh", "www", b, "max.NaN.bf16", "max.NaN.bf16x2", |a, b, _, _| choose(
        a,
        b,
        brain_value,
        (false, true)
    ));
    all
}

/// f32 to bf16 by the bits: half a unit and the last kept bit are added.
fn to_brain(value: f32) -> u64 {
    let bits = u64::from(value.to_bits());
    if value.is_nan() { 0x7fff } else { (bits + 0x7fff + (bits >> 16 & 1)) >> 16 }
}

/// f32 to f16 by whole numbers.
fn to_half(bits: u64) -> u64 {
    match parts(bits, Format { exponent: 8, fraction: 23 }) {
        Some((significand, exponent)) => rounded(significand, exponent, false, HALF) | bits >> 31 << 15,
        None if f(bits).is_nan() => 0x7fff,
        None => infinite(f64::from(f(bits)), HALF),
    }
}

fn relu(bits: u64) -> u64 {
    if f(bits).is_nan() || f(bits) > 0.0 { bits } else { 0 }
}

fn narrowing() -> Vec<Case> {
    let w = Values::F32;
    vec![
        case("cvt.rn.bf16.f32", "hw", w, |a, _, _, _| to_brain(f(a))),
        case("cvt.rn.relu.bf16.f32", "hw", w, |a, _, _, _| to_brain(f(relu(a)))),
        case("cvt.rz.bf16.f32", "hw", w, |a, _, _, _| if f(a).is_nan() { 0x7fff } else { a >> 16 }),
        case("cvt.rn.f16.f32", "hw", w, |a, _, _, _| to_half(a)),
        case("cvt.rn.bf16x2.f32", "www", w, |a, b, _, _| to_brain(f(a)) << 16 | to_brain(f(b))),
        case("cvt.rn.relu.bf16x2.f32", "www", w, |a, b, _, _| {
            to_brain(f(relu(a))) << 16 | to_brain(f(relu(b)))
        }),
        case("cvt.rz.bf16x2.f32", "www", w, |a, b, _, _| {
            let cut = |a: u64| if f(a).is_nan() { 0x7fff } else { a >> 16 };
            cut(a) << 16 | cut(b)
        }),
        case("cvt.rn.f16x2.f32", "www", w, |a, b, _, _| to_half(a) << 16 | to_half(b)),
        case("cvt.rn.relu.f16x2.f32", "www", w, |a, b, _, _| to_half(relu(a)) << 16 | to_half(relu(b))),
        case("cvt.rn.f32.f64", "wd", Values::F64, |a, _, _, _| out(f64::from_bits(a) as f32)),
        case("cvt.rna{,.satfinite}.tf32.f32", "ww", w, |a, _, _, _| match f(a) {
            value if value.is_nan() => 0x7fff_ffff,
            value if value.is_infinite() => a,
            _ => (a >> 13 << 13) + if a >> 12 & 1 == 1 { 0x2000 } else { 0 },
        }),
        case("cvt.sat.f32.f32", "ww", w, |a, _, _, _| {
            let value = f(a);
            if value.is_nan() || value <= 0.0 { 0 } else { out(if value > 1.0 { 1.0 } else { value }) }
        }),
    ]
}

fn widening() -> Vec<Case> {
    vec![
        case("cvt.f32.f16", "wh", Values::F16, |a, _, _, _| out(half_value(a) as f32)),
        case("cvt.ftz.f32.f16", "wh", Values::F16, |a, _, _, _| out(half_value(a) as f32)),
        case("cvt.f32.bf16", "wh", Values::Bf16, |a, _, _, _| out(f(a << 16))),
        case("cvt.ftz.f32.bf16", "wh", Values::Bf16, |a, _, _, _| {
            if a & 0x7f80 == 0 { (a & 0x8000) << 16 } else { out(f(a << 16)) }
        }),
        case("cvt.f64.f32", "dw", Values::F32, |a, _, _, _| f64::from(f(a)).to_bits()),
    ]
}

/// The nearest whole number in a range, with what NaN gives.
fn clamp(value: f64, least: i128, most: i128, nan: u64) -> u64 {
    if value.is_nan() {
        return nan;
    }
    if value <= least as f64 {
        return least as u64;
    }
    if value >= most as f64 { most as u64 } else { value as i128 as u64 }
}

fn whole() -> Vec<Case> {
    let (i, w) = (Values::Whole, Values::F32);
    let mut all = vec![
        case("cvt.rn.f32.s32", "ww", i, |a, _, _, _| out(f64::from(a as i32) as f32)),
        case("cvt.rn.f32.u32", "ww", i, |a, _, _, _| out(f64::from(a as u32) as f32)),
        case("cvt.rn.f32.s16", "wy", i, |a, _, _, _| out(f64::from(a as i16) as f32)),
        case("cvt.rn.f32.u16", "wy", i, |a, _, _, _| out(f64::from(a as u16) as f32)),
        case("cvt.rn.f32.s8", "wx", i, |a, _, _, _| out(f64::from(a as i8) as f32)),
        case("cvt.rn.f32.u8", "wx", i, |a, _, _, _| out(f64::from(a as u8) as f32)),
        case("cvt.rn.f32.s64", "wd", i, |a, _, _, _| rounded(i128::from(a as i64), 0, false, SINGLE)),
        case("cvt.rn.f32.u64", "wd", i, |a, _, _, _| rounded(i128::from(a), 0, false, SINGLE)),
        case("cvt.rn.f64.s32", "dw", i, |a, _, _, _| f64::from(a as i32).to_bits()),
        case("cvt.rn.f64.u32", "dw", i, |a, _, _, _| f64::from(a as u32).to_bits()),
        case("cvt.rn.f64.s64", "dd", i, |a, _, _, _| (a as i64 as f64).to_bits()),
        case("cvt.rn.f64.u64", "dd", i, |a, _, _, _| (a as f64).to_bits()),
        case("cvt.rn.f16.s32", "hw", i, |a, _, _, _| rounded(i128::from(a as i32), 0, false, HALF)),
        case("cvt.rn.f16.u32", "hw", i, |a, _, _, _| rounded(i128::from(a), 0, false, HALF)),
        case("cvt.rn.bf16.s32", "hw", i, |a, _, _, _| rounded(i128::from(a as i32), 0, false, BRAIN)),
        case("cvt.rn.bf16.u32", "hw", i, |a, _, _, _| rounded(i128::from(a), 0, false, BRAIN)),
        case("cvt.rzi.s32.f64", "wd", Values::F64, |a, _, _, _| {
            clamp(f64::from_bits(a).trunc(), i128::from(i32::MIN), i128::from(i32::MAX), 1 << 31)
        }),
        case("cvt.rzi.s64.f64", "dd", Values::F64, |a, _, _, _| {
            clamp(f64::from_bits(a).trunc(), i128::from(i64::MIN), i128::from(i64::MAX), 1 << 63)
        }),
        case("cvt.rzi.s32.f16", "wh", Values::F16, |a, _, _, _| {
            clamp(half_value(a).trunc(), i128::from(i32::MIN), i128::from(i32::MAX), 0)
        }),
        case("cvt.rzi.s32.bf16", "wh", Values::Bf16, |a, _, _, _| {
            clamp(brain_value(a).trunc(), i128::from(i32::MIN), i128::from(i32::MAX), 0)
        }),
    ];
    macro_rules! to_whole {
        ($($name:literal => $round:expr),+) => {$(
            all.extend([
                case(concat!("cvt.", $name, ".s32.f32"), "ww", w, |a, _, _, _| {
                    clamp($round(f(a)), i128::from(i32::MIN), i128::from(i32::MAX), 0)
                }),
                case(concat!("cvt.", $name, ".u32.f32"), "ww", w, |a, _, _, _| {
                    clamp($round(f(a)), 0, i128::from(u32::MAX), 0)
                }),
                case(concat!("cvt.", $name, ".s64.f32"), "dw", w, |a, _, _, _| {
                    clamp($round(f(a)), i128::from(i64::MIN), i128::from(i64::MAX), 1 << 63)
                }),
                case(concat!("cvt.", $name, ".u64.f32"), "dw", w, |a, _, _, _| {
                    clamp($round(f(a)), 0, i128::from(u64::MAX), 1 << 63)
                }),
                case(concat!("cvt.", $name, ".f32.f32"), "ww", w, |a, _, _, _| out($round(f(a)) as f32)),
            ]);
        )+};
    }
    fn z(value: f32) -> f64 {
        f64::from(if value.is_subnormal() { 0f32.copysign(value) } else { value })
    }
    to_whole!("rni" => |a: f32| f64::from(a).round_ties_even(), "rzi" => |a: f32| f64::from(a).trunc(),
        "rmi" => |a: f32| f64::from(a).floor(), "rpi" => |a: f32| f64::from(a).ceil(),
        "rni.ftz" => |a: f32| z(a).round_ties_even(), "rzi.ftz" => |a: f32| z(a).trunc(),
        "rmi.ftz" => |a: f32| z(a).floor(), "rpi.ftz" => |a: f32| z(a).ceil());
    all
}

const SINGLE: Format = Format { exponent: 8, fraction: 23 };

const S16: (i128, i128) = (-32768, 32767);
const U16: (i128, i128) = (0, 65535);
const S64: (i128, i128) = (i64::MIN as i128, i64::MAX as i128);
const U64: (i128, i128) = (0, u64::MAX as i128);

fn into((least, most): (i128, i128), value: f64, nan: u64) -> u64 {
    clamp(value.trunc(), least, most, nan)
}

fn narrow() -> Vec<Case> {
    let (h, b, w, d, i) = (Values::F16, Values::Bf16, Values::F32, Values::F64, Values::Whole);
    let mut all = vec![
        case("cvt.rzi.s16.f32", "hw", w, |a, _, _, _| into(S16, f(a).into(), 0)),
        case("cvt.rzi.u16.f32", "hw", w, |a, _, _, _| into(U16, f(a).into(), 0)),
        case("cvt.rzi.s16.f16", "hh", h, |a, _, _, _| into(S16, half_value(a), 0)),
        case("cvt.rzi.u16.f16", "hh", h, |a, _, _, _| into(U16, half_value(a), 0)),
        case("cvt.rzi.s16.bf16", "hh", b, |a, _, _, _| into(S16, brain_value(a), 0)),
        case("cvt.rzi.u16.bf16", "hh", b, |a, _, _, _| into(U16, brain_value(a), 0)),
        case("cvt.rzi.s16.f64", "hd", d, |a, _, _, _| into(S16, f64::from_bits(a), 0x8000)),
        case("cvt.rzi.u16.f64", "hd", d, |a, _, _, _| into(U16, f64::from_bits(a), 0x8000)),
        case("cvt.rzi.u32.f16", "wh", h, |a, _, _, _| into((0, u32::MAX.into()), half_value(a), 0)),
        case("cvt.rzi.u32.bf16", "wh", b, |a, _, _, _| into((0, u32::MAX.into()), brain_value(a), 0)),
        case("cvt.rzi.u32.f64", "wd", d, |a, _, _, _| into((0, u32::MAX.into()), f64::from_bits(a), 1 << 31)),
        case("cvt.rzi.u64.f64", "dd", d, |a, _, _, _| into(U64, f64::from_bits(a), 1 << 63)),
        case("cvt.rzi.s64.f16", "dh", h, |a, _, _, _| into(S64, half_value(a), 1 << 63)),
        case("cvt.rzi.u64.f16", "dh", h, |a, _, _, _| into(U64, half_value(a), 1 << 63)),
        case("cvt.rzi.s64.bf16", "dh", b, |a, _, _, _| into(S64, brain_value(a), 1 << 63)),
        case("cvt.rzi.u64.bf16", "dh", b, |a, _, _, _| into(U64, brain_value(a), 1 << 63)),
        case("cvt.rn.f16.s16", "hy", i, |a, _, _, _| rounded((a as i16).into(), 0, false, HALF)),
        case("cvt.rn.f16.u16", "hy", i, |a, _, _, _| rounded((a as u16).into(), 0, false, HALF)),
        case("cvt.rn.bf16.s16", "hy", i, |a, _, _, _| rounded((a as i16).into(), 0, false, BRAIN)),
        case("cvt.rn.bf16.u16", "hy", i, |a, _, _, _| rounded((a as u16).into(), 0, false, BRAIN)),
        case("cvt.rn.f16.s64", "hd", i, |a, _, _, _| rounded((a as i64).into(), 0, false, HALF)),
        case("cvt.rn.f16.u64", "hd", i, |a, _, _, _| rounded(a.into(), 0, false, HALF)),
        case("cvt.rn.bf16.s64", "hd", i, |a, _, _, _| rounded((a as i64).into(), 0, false, BRAIN)),
        case("cvt.rn.bf16.u64", "hd", i, |a, _, _, _| rounded(a.into(), 0, false, BRAIN)),
        case("cvt.rn.f64.s16", "dy", i, |a, _, _, _| f64::from(a as i16).to_bits()),
        case("cvt.rn.f64.u16", "dy", i, |a, _, _, _| f64::from(a as u16).to_bits()),
        case("cvt.f64.f16", "dh", h, |a, _, _, _| half_value(a).to_bits()),
        case("cvt.f64.bf16", "dh", b, |a, _, _, _| brain_value(a).to_bits()),
        case("cvt.rn.f16.f64", "hd", d, |a, _, _, _| match parts(a, Format { exponent: 11, fraction: 52 }) {
            Some((significand, exponent)) => rounded(significand, exponent, false, HALF) | a >> 63 << 15,
            None if f64::from_bits(a).is_nan() => 0x7fff,
            None => infinite(f64::from_bits(a), HALF),
        }),
    ];
    macro_rules! to_whole {
        ($($name:literal => $round:expr),+) => {$(
            all.push(case(concat!("cvt.", $name, ".f16.f16"), "hh", h, |a, _, _, _| {
                to_half(u64::from(($round(half_value(a)) as f32).to_bits()))
            }));
            all.push(case(concat!("cvt.", $name, ".bf16.bf16"), "hh", b, |a, _, _, _| to_brain($round(brain_value(a)) as f32)));
        )+};
    }
    to_whole!("rni" => |a: f64| a.round_ties_even(), "rzi" => |a: f64| a.trunc(), "rmi" => |a: f64| a.floor(),
        "rpi" => |a: f64| a.ceil());
    all
}
