//! Conversions (PTX ISA, `cvt`).
//!
//! A source register may be wider than the type says; its low part is used.

use super::float::{bits, flush};
use super::half_pairs::{bf16_round, f16_round};
use super::{Class, Form, form, lanes1, lanes2};
use crate::exec::Op;
use half::{bf16, f16};

macro_rules! word1 {
    ($f:expr) => {
        Op::Word1(|a, out| lanes1(a, out, $f))
    };
}
macro_rules! long_from_word {
    ($f:expr) => {
        Op::LongFromWord(|a, out| lanes1(a, out, $f))
    };
}
macro_rules! word_from_long {
    ($f:expr) => {
        Op::WordFromLong(|a, out| lanes1(a, out, $f))
    };
}
macro_rules! long1 {
    ($f:expr) => {
        Op::Long1(|a, out| lanes1(a, out, $f))
    };
}

pub(super) fn rows() -> Vec<Form> {
    let mut rows = whole();
    rows.extend(to_float());
    rows.extend(from_float());
    rows.extend(between_floats());
    rows.extend(pairs());
    rows.extend(narrow_whole());
    rows.extend(whole_halves());
    rows
}

fn row(pattern: &'static str, signature: &'static str, op: Op) -> Form {
    form(Class::Convert, pattern, signature, op)
}

/// Whole numbers to whole numbers: cut off, or extended by the sign of the source. A lower-case `x` in a signature is a
/// source of at least 8 bits, `y` of at least 16, `z` of at least 32.
fn whole() -> Vec<Form> {
    vec![
        row("cvt.{u16,s16}.u8", "hx", word1!(|a: u32| a & 0xff)),
        row("cvt.{u16,s16}.s8", "hx", word1!(|a: u32| a as i8 as i16 as u16 as u32)),
        row("cvt.{u32,s32}.u8", "wx", word1!(|a: u32| a & 0xff)),
        row("cvt.{u32,s32}.s8", "wx", word1!(|a: u32| a as i8 as u32)),
        row("cvt.{u32,s32}.u16", "wy", word1!(|a: u32| a & 0xffff)),
        row("cvt.{u32,s32}.s16", "wy", word1!(|a: u32| a as i16 as u32)),
        row("cvt.{u16,s16}.{u16,s16}", "hy", word1!(|a: u32| a & 0xffff)),
        row("cvt.{u32,s32}.{u32,s32}", "wz", word1!(|a: u32| a)),
        row("cvt.{u16,s16}.{u32,s32}", "hz", word1!(|a: u32| a & 0xffff)),
        row("cvt.{u8,s8}.{u32,s32}", "hz", word1!(|a: u32| a & 0xff)),
        row("cvt.{u8,s8}.{u16,s16}", "hy", word1!(|a: u32| a & 0xff)),
        row("cvt.{u64,s64}.u32", "dz", long_from_word!(|a: u32| u64::from(a))),
        row("cvt.{u64,s64}.s32", "dz", long_from_word!(|a: u32| a as i32 as u64)),
        row("cvt.{u64,s64}.u16", "dy", long_from_word!(|a: u32| u64::from(a & 0xffff))),
        row("cvt.{u64,s64}.s16", "dy", long_from_word!(|a: u32| a as i16 as u64)),
        row("cvt.{u64,s64}.u8", "dx", long_from_word!(|a: u32| u64::from(a & 0xff))),
        row("cvt.{u64,s64}.s8", "dx", long_from_word!(|a: u32| a as i8 as u64)),
        row("cvt.{u32,s32}.{u64,s64}", "wd", word_from_long!(|a: u64| a as u32)),
        row("cvt.{u16,s16}.{u64,s64}", "hd", word_from_long!(|a: u64| a as u32 & 0xffff)),
        row("cvt.{u8,s8}.{u64,s64}", "hd", word_from_long!(|a: u64| a as u32 & 0xff)),
    ]
}

fn to_float() -> Vec<Form> {
    vec![
        row("cvt.rn.f32.s32", "wz", word1!(|a: u32| (a as i32 as f32).to_bits())),
        row("cvt.rn.f32.u32", "wz", word1!(|a: u32| (a as f32).to_bits())),
        row("cvt.rn.f32.s16", "wy", word1!(|a: u32| f32::from(a as i16).to_bits())),
        row("cvt.rn.f32.u16", "wy", word1!(|a: u32| f32::from(a as u16).to_bits())),
        row("cvt.rn.f32.s8", "wx", word1!(|a: u32| f32::from(a as i8).to_bits())),
        row("cvt.rn.f32.u8", "wx", word1!(|a: u32| f32::from(a as u8).to_bits())),
        row("cvt.rn.f32.s64", "wd", word_from_long!(|a: u64| (a as i64 as f32).to_bits())),
        row("cvt.rn.f32.u64", "wd", word_from_long!(|a: u64| (a as f32).to_bits())),
        row("cvt.rn.f64.s32", "dz", long_from_word!(|a: u32| f64::from(a as i32).to_bits())),
        row("cvt.rn.f64.u32", "dz", long_from_word!(|a: u32| f64::from(a).to_bits())),
        row("cvt.rn.f64.s64", "dd", long1!(|a: u64| (a as i64 as f64).to_bits())),
        row("cvt.rn.f64.u64", "dd", long1!(|a: u64| (a as f64).to_bits())),
        row("cvt.rn.f16.s32", "hz", word1!(|a: u32| f16_round(f64::from(a as i32)))),
        row("cvt.rn.f16.u32", "hz", word1!(|a: u32| f16_round(f64::from(a)))),
        row("cvt.rn.bf16.s32", "hz", word1!(|a: u32| bf16_round(f64::from(a as i32)))),
        row("cvt.rn.bf16.u32", "hz", word1!(|a: u32| bf16_round(f64::from(a)))),
    ]
}

/// A rounded number as a signed or unsigned number; out of range it is the nearest. NaN is 0, but the highest bit alone
/// where the source or the destination has 64 bits (PTX ISA, `cvt`).
fn from_float() -> Vec<Form> {
    let mut rows = Vec::new();
    macro_rules! rounded {
        ($($name:literal => $round:expr),+) => {
            $(rows.push(row(concat!("cvt.", $name, ".s32.f32"), "wz", word1!(|a: u32| {
                $round(f32::from_bits(a)) as i32 as u32
            })));
            rows.push(row(concat!("cvt.", $name, ".u32.f32"), "wz", word1!(|a: u32| $round(f32::from_bits(a)) as u32)));
            rows.push(row(concat!("cvt.", $name, ".s64.f32"), "dz", long_from_word!(|a: u32| {
                let value = f32::from_bits(a);
                if value.is_nan() { 1 << 63 } else { $round(value) as i64 as u64 }
            })));
            rows.push(row(concat!("cvt.", $name, ".u64.f32"), "dz", long_from_word!(|a: u32| {
                let value = f32::from_bits(a);
                if value.is_nan() { 1 << 63 } else { $round(value) as u64 }
            })));
            rows.push(row(concat!("cvt.", $name, ".f32.f32"), "wz", word1!(|a: u32| bits($round(f32::from_bits(a))))));)+
        };
    }
    rounded!("rni" => f32::round_ties_even, "rzi" => f32::trunc, "rmi" => f32::floor, "rpi" => f32::ceil,
        "rni.ftz" => |value: f32| flush(value).round_ties_even(), "rzi.ftz" => |value: f32| flush(value).trunc(),
        "rmi.ftz" => |value: f32| flush(value).floor(), "rpi.ftz" => |value: f32| flush(value).ceil());
    rows.push(row(
        "cvt.rzi.s32.f64",
        "wd",
        word_from_long!(|a: u64| {
            let value = f64::from_bits(a);
            if value.is_nan() { 1 << 31 } else { value as i32 as u32 }
        }),
    ));
    rows.push(row(
        "cvt.rzi.s64.f64",
        "dd",
        long1!(|a: u64| {
            let value = f64::from_bits(a);
            if value.is_nan() { 1 << 63 } else { value as i64 as u64 }
        }),
    ));
    rows.push(row("cvt.rzi.s32.f16", "wh", word1!(|a: u32| f16::from_bits(a as u16).to_f32() as i32 as u32)));
    rows.push(row("cvt.rzi.s32.bf16", "wh", word1!(|a: u32| f32::from_bits(a << 16) as i32 as u32)));
    rows
}

fn between_floats() -> Vec<Form> {
    vec![
        row("cvt.rn.f16.f32", "hz", word1!(|a: u32| f16_round(f64::from(f32::from_bits(a))))),
        row("cvt.rn.bf16.f32", "hz", word1!(|a: u32| bf16_round(f64::from(f32::from_bits(a))))),
        row("cvt.rz.bf16.f32", "hz", word1!(truncate)),
        row("cvt.rn.relu.bf16.f32", "hz", word1!(|a: u32| bf16_round(f64::from(relu(a))))),
        row("cvt.f32.f16", "wh", word1!(|a: u32| bits(f16::from_bits(a as u16).to_f32()))),
        row("cvt.ftz.f32.f16", "wh", word1!(|a: u32| bits(f16::from_bits(a as u16).to_f32()))),
        row("cvt.f32.bf16", "wh", word1!(|a: u32| bits(bf16::from_bits(a as u16).to_f32()))),
        row("cvt.ftz.f32.bf16", "wh", word1!(|a: u32| bits(flush(bf16::from_bits(a as u16).to_f32())))),
        row("cvt.f64.f32", "dz", long_from_word!(|a: u32| f64::from(f32::from_bits(a)).to_bits())),
        row("cvt.rn.f32.f64", "wd", word_from_long!(|a: u64| bits(f64::from_bits(a) as f32))),
        row("cvt.rna{,.satfinite}.tf32.f32", "wz", word1!(tf32_away)),
        row("cvt.sat.f32.f32", "wz", word1!(saturate)),
    ]
}

/// `cvt.rz.bf16.f32`
fn truncate(value: u32) -> u32 {
    if f32::from_bits(value).is_nan() { 0x7fff } else { value >> 16 }
}

/// Negative numbers and NaN become what `.relu` says: 0, and canonical NaN.
fn relu(value: u32) -> f32 {
    let value = f32::from_bits(value);
    if value.is_nan() || value > 0.0 { value } else { 0.0 }
}

/// `.sat`: into [0, 1], NaN to 0.
fn saturate(value: u32) -> u32 {
    let value = f32::from_bits(value);
    if value > 0.0 { value.min(1.0).to_bits() } else { 0 }
}

/// To nearest with ties away from zero at 10 bits of fraction; the low 13 bits are zero.
fn tf32_away(value: u32) -> u32 {
    let number = f32::from_bits(value);
    if number.is_nan() {
        return 0x7fff_ffff;
    }
    if number.is_infinite() {
        return value;
    }
    (value + 0x1000) & !0x1fff
}

/// `cvt.rn.bf16x2.f32 d, a, b`: a is the upper half.
fn pairs() -> Vec<Form> {
    macro_rules! pair {
        ($pattern:literal, $f:expr) => {
            row(
                $pattern,
                "wzz",
                Op::Word2(|a, b, out| lanes2(a, b, out, |a: u32, b: u32| $f(a) << 16 | $f(b))),
            )
        };
    }
    vec![
        pair!("cvt.rn.bf16x2.f32", |a: u32| bf16_round(f64::from(f32::from_bits(a)))),
        pair!("cvt.rn.relu.bf16x2.f32", |a: u32| bf16_round(f64::from(relu(a)))),
        pair!("cvt.rz.bf16x2.f32", truncate),
        pair!("cvt.rn.f16x2.f32", |a: u32| f16_round(f64::from(f32::from_bits(a)))),
        pair!("cvt.rn.relu.f16x2.f32", |a: u32| f16_round(f64::from(relu(a)))),
    ]
}

/// A number as 16 bits of a range; NaN is what it is for the source.
fn to_16(value: f64, least: f64, most: f64, nan: u32) -> u32 {
    if value.is_nan() { nan } else { value.clamp(least, most) as i32 as u32 & 0xffff }
}

/// The value of an f16 and of a bf16.
fn wide_f16(bits: u32) -> f64 {
    f16::from_bits(bits as u16).to_f64()
}
fn wide_bf16(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits << 16))
}

/// A whole number of 64 bits, rounded to odd in 53.
fn odd(negative: bool, magnitude: u64) -> f64 {
    let kept = if magnitude >> 53 == 0 {
        magnitude as f64
    } else {
        ((magnitude >> 11) | u64::from(magnitude & 0x7ff != 0)) as f64 * 2048.0
    };
    if negative { -kept } else { kept }
}
fn odd_signed(value: u64) -> f64 {
    odd((value as i64) < 0, (value as i64).unsigned_abs())
}

/// To and from whole numbers of 16 bits, and from 16-bit floating point to wider ones.
fn narrow_whole() -> Vec<Form> {
    vec![
        row("cvt.rzi.s16.f32", "hz", word1!(|a: u32| to_16(f32::from_bits(a).into(), -32768.0, 32767.0, 0))),
        row("cvt.rzi.u16.f32", "hz", word1!(|a: u32| to_16(f32::from_bits(a).into(), 0.0, 65535.0, 0))),
        row("cvt.rzi.s16.f16", "hh", word1!(|a: u32| to_16(wide_f16(a), -32768.0, 32767.0, 0))),
        row("cvt.rzi.u16.f16", "hh", word1!(|a: u32| to_16(wide_f16(a), 0.0, 65535.0, 0))),
        row("cvt.rzi.s16.bf16", "hh", word1!(|a: u32| to_16(wide_bf16(a), -32768.0, 32767.0, 0))),
        row("cvt.rzi.u16.bf16", "hh", word1!(|a: u32| to_16(wide_bf16(a), 0.0, 65535.0, 0))),
        row(
            "cvt.rzi.s16.f64",
            "hd",
            word_from_long!(|a: u64| to_16(f64::from_bits(a), -32768.0, 32767.0, 0x8000)),
        ),
        row(
            "cvt.rzi.u16.f64",
            "hd",
            word_from_long!(|a: u64| to_16(f64::from_bits(a), 0.0, 65535.0, 0x8000)),
        ),
        row("cvt.rzi.u32.f16", "wh", word1!(|a: u32| wide_f16(a) as u32)),
        row("cvt.rzi.u32.bf16", "wh", word1!(|a: u32| wide_bf16(a) as u32)),
        row(
            "cvt.rzi.u32.f64",
            "wd",
            word_from_long!(|a: u64| {
                let value = f64::from_bits(a);
                if value.is_nan() { 1 << 31 } else { value as u32 }
            }),
        ),
        row(
            "cvt.rzi.u64.f64",
            "dd",
            long1!(|a: u64| {
                let value = f64::from_bits(a);
                if value.is_nan() { 1 << 63 } else { value as u64 }
            }),
        ),
        row(
            "cvt.rzi.s64.f16",
            "dh",
            long_from_word!(|a: u32| to_64(wide_f16(a), |value| value as i64 as u64)),
        ),
        row("cvt.rzi.u64.f16", "dh", long_from_word!(|a: u32| to_64(wide_f16(a), |value| value as u64))),
        row(
            "cvt.rzi.s64.bf16",
            "dh",
            long_from_word!(|a: u32| to_64(wide_bf16(a), |value| value as i64 as u64)),
        ),
        row("cvt.rzi.u64.bf16", "dh", long_from_word!(|a: u32| to_64(wide_bf16(a), |value| value as u64))),
    ]
}

fn to_64(value: f64, convert: impl Fn(f64) -> u64) -> u64 {
    if value.is_nan() { 1 << 63 } else { convert(value) }
}

fn whole_halves() -> Vec<Form> {
    let mut rows = vec![
        row("cvt.rn.f16.s16", "hy", word1!(|a: u32| f16_round(f64::from(a as i16)))),
        row("cvt.rn.f16.u16", "hy", word1!(|a: u32| f16_round(f64::from(a as u16)))),
        row("cvt.rn.bf16.s16", "hy", word1!(|a: u32| bf16_round(f64::from(a as i16)))),
        row("cvt.rn.bf16.u16", "hy", word1!(|a: u32| bf16_round(f64::from(a as u16)))),
        row("cvt.rn.f16.s64", "hd", word_from_long!(|a: u64| f16_round(odd_signed(a)))),
        row("cvt.rn.f16.u64", "hd", word_from_long!(|a: u64| f16_round(odd(false, a)))),
        row("cvt.rn.bf16.s64", "hd", word_from_long!(|a: u64| bf16_round(odd_signed(a)))),
        row("cvt.rn.bf16.u64", "hd", word_from_long!(|a: u64| bf16_round(odd(false, a)))),
        row("cvt.rn.f64.s16", "dy", long_from_word!(|a: u32| f64::from(a as i16).to_bits())),
        row("cvt.rn.f64.u16", "dy", long_from_word!(|a: u32| f64::from(a as u16).to_bits())),
        row("cvt.f64.f16", "dh", long_from_word!(|a: u32| wide_f16(a).to_bits())),
        row("cvt.f64.bf16", "dh", long_from_word!(|a: u32| wide_bf16(a).to_bits())),
        row("cvt.rn.f16.f64", "hd", word_from_long!(|a: u64| f16_round(f64::from_bits(a)))),
    ];
    macro_rules! rounded {
        ($($name:literal => $round:expr),+) => {$(
            rows.push(row(concat!("cvt.", $name, ".f16.f16"), "hh", word1!(|a: u32| f16_round($round(wide_f16(a))))));
            rows.push(row(concat!("cvt.", $name, ".bf16.bf16"), "hh", word1!(|a: u32| bf16_round($round(wide_bf16(a))))));
        )+};
    }
    rounded!("rni" => f64::round_ties_even, "rzi" => f64::trunc, "rmi" => f64::floor, "rpi" => f64::ceil);
    rows
}
