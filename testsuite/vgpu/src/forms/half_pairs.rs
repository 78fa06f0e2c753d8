//! Arithmetic of f16 and bf16, alone and in pairs (PTX ISA, "Half precision floating point instructions").
//!
//! Each result is rounded once, from a value that is exact or rounded to odd in 64 bits. A NaN result is 0x7fff.

use super::float::{flush, fma_odd, maximum, minimum, or_nan};
use super::{Class, Form, form, lanes1, lanes2, lanes3};
use crate::exec::Op;
use half::{bf16, f16};

/// The value of an f16.
fn f16_value(bits: u32) -> f32 {
    f16::from_bits(bits as u16).to_f32()
}
/// The value of a bf16.
fn bf16_value(bits: u32) -> f32 {
    f32::from_bits(bits << 16)
}

/// A number of 64 bits, exact or rounded to odd, to f16: to nearest, ties to even.
pub(crate) fn f16_round(value: f64) -> u32 {
    if value.is_nan() { 0x7fff } else { u32::from(f16::from_f64(value).to_bits()) }
}

/// The same to bf16: a first rounding to odd at 32 bits keeps what the second needs.
pub(crate) fn bf16_round(value: f64) -> u32 {
    if value.is_nan() {
        return 0x7fff;
    }
    let near = value as f32;
    let bits = near.to_bits();
    let exact = f64::from(near) == value || near.is_infinite();
    let odd = if exact || bits & 1 == 1 {
        bits
    } else if f64::from(near).abs() < value.abs() {
        bits + 1
    } else {
        bits.wrapping_sub(1)
    };
    u32::from(bf16::from_f32(f32::from_bits(odd)).to_bits())
}

/// Bits of a number chosen, not computed: NaN is canonical.
fn f16_bits(value: f32) -> u32 {
    f16_round(f64::from(value))
}
fn bf16_bits(value: f32) -> u32 {
    bf16_round(f64::from(value))
}

/// Both halves of a pair.
#[inline(always)]
fn both(f: impl Fn(u32, u32, u32) -> u32, a: u32, b: u32, c: u32) -> u32 {
    f(a & 0xffff, b & 0xffff, c & 0xffff) | f(a >> 16, b >> 16, c >> 16) << 16
}

/// The rows of a function of three 16-bit values, of which it may ignore some: alone and in pairs.
macro_rules! pairs {
    ($rows:ident, 1, $single:literal, $pair:literal, $f:expr) => {
        $rows.push(form(
            Class::Float,
            $single,
            "hh",
            Op::Word1(|a, out| lanes1(a, out, |a: u32| $f(a, 0, 0))),
        ));
        $rows.push(form(
            Class::Float,
            $pair,
            "ww",
            Op::Word1(|a, out| lanes1(a, out, |a: u32| both($f, a, 0, 0))),
        ));
    };
    ($rows:ident, 2, $single:literal, $pair:literal, $f:expr) => {
        $rows.push(form(
            Class::Float,
            $single,
            "hhh",
            Op::Word2(|a, b, out| lanes2(a, b, out, |a: u32, b: u32| $f(a, b, 0))),
        ));
        $rows.push(form(
            Class::Float,
            $pair,
            "www",
            Op::Word2(|a, b, out| lanes2(a, b, out, |a: u32, b: u32| both($f, a, b, 0))),
        ));
    };
    ($rows:ident, 3, $single:literal, $pair:literal, $f:expr) => {
        $rows.push(form(
            Class::Float,
            $single,
            "hhhh",
            Op::Word3(|a, b, c, out| lanes3((a, b, c), out, |a: u32, b: u32, c: u32| $f(a, b, c))),
        ));
        $rows.push(form(
            Class::Float,
            $pair,
            "wwww",
            Op::Word3(|a, b, c, out| lanes3((a, b, c), out, |a: u32, b: u32, c: u32| both($f, a, b, c))),
        ));
    };
}

fn fused(value: impl Fn(u32) -> f32, a: u32, b: u32, c: u32) -> f64 {
    fma_odd(f64::from(value(a)), f64::from(value(b)), f64::from(value(c)))
}

pub(super) fn rows() -> Vec<Form> {
    let mut rows = Vec::with_capacity(64);
    pairs!(rows, 3, "fma.rn.f16", "fma.rn.f16x2", |a, b, c| f16_round(fused(f16_value, a, b, c)));
    pairs!(rows, 3, "fma.rn.bf16", "fma.rn.bf16x2", |a, b, c| bf16_round(fused(bf16_value, a, b, c)));
    pairs!(rows, 2, "add{,.rn}.f16", "add{,.rn}.f16x2", |a, b, _| f16_round(
        f64::from(f16_value(a)) + f64::from(f16_value(b))
    ));
    pairs!(rows, 2, "sub{,.rn}.f16", "sub{,.rn}.f16x2", |a, b, _| f16_round(
        f64::from(f16_value(a)) - f64::from(f16_value(b))
    ));
    pairs!(rows, 2, "mul{,.rn}.f16", "mul{,.rn}.f16x2", |a, b, _| f16_round(
        f64::from(f16_value(a)) * f64::from(f16_value(b))
    ));
    pairs!(rows, 2, "add{,.rn}.bf16", "add{,.rn}.bf16x2", |a, b, _| bf16_round(fma_odd(
        f64::from(bf16_value(a)),
        1.0,
        f64::from(bf16_value(b))
    )));
    pairs!(rows, 2, "sub{,.rn}.bf16", "sub{,.rn}.bf16x2", |a, b, _| bf16_round(fma_odd(
        f64::from(bf16_value(b)),
        -1.0,
        f64::from(bf16_value(a))
    )));
    pairs!(rows, 2, "mul{,.rn}.bf16", "mul{,.rn}.bf16x2", |a, b, _| bf16_round(
        f64::from(bf16_value(a)) * f64::from(bf16_value(b))
    ));
    choices(&mut rows);
    signs(&mut rows);
    rows.push(form(
        Class::Special,
        "ex2.approx.f16",
        "hh",
        Op::Word1(|a, out| lanes1(a, out, |a: u32| f16_round(f64::from(f16_value(a)).exp2()))),
    ));
    rows.push(form(
        Class::Special,
        "ex2.approx.ftz.bf16",
        "hh",
        Op::Word1(|a, out| {
            lanes1(a, out, |a: u32| {
                let value = f64::from(flush(bf16_value(a))).exp2();
                let rounded = bf16_round(value);
                if rounded & 0x7f80 == 0 { 0 } else { rounded }
            })
        }),
    ));
    rows
}

fn choices(rows: &mut Vec<Form>) {
    pairs!(rows, 2, "min.f16", "min.f16x2", |a, b, _| f16_bits(minimum(f16_value(a), f16_value(b))));
    pairs!(rows, 2, "max.f16", "max.f16x2", |a, b, _| f16_bits(maximum(f16_value(a), f16_value(b))));
    pairs!(rows, 2, "min.bf16", "min.bf16x2", |a, b, _| bf16_bits(minimum(bf16_value(a), bf16_value(b))));
    pairs!(rows, 2, "max.bf16", "max.bf16x2", |a, b, _| bf16_bits(maximum(bf16_value(a), bf16_value(b))));
    pairs!(rows, 2, "min.NaN.bf16", "min.NaN.bf16x2", |a, b, _| {
        let (a, b) = (bf16_value(a), bf16_value(b));
        bf16_bits(or_nan(a, b, minimum(a, b)))
    });
    pairs!(rows, 2, "max.NaN.bf16", "max.NaN.bf16x2", |a, b, _| {
        let (a, b) = (bf16_value(a), bf16_value(b));
        bf16_bits(or_nan(a, b, maximum(a, b)))
    });
    pairs!(rows, 2, "min.NaN.f16", "min.NaN.f16x2", |a, b, _| {
        let (a, b) = (f16_value(a), f16_value(b));
        f16_bits(or_nan(a, b, minimum(a, b)))
    });
    pairs!(rows, 2, "max.NaN.f16", "max.NaN.f16x2", |a, b, _| {
        let (a, b) = (f16_value(a), f16_value(b));
        f16_bits(or_nan(a, b, maximum(a, b)))
    });
}

fn signs(rows: &mut Vec<Form>) {
    pairs!(rows, 1, "neg.{f16,bf16}", "neg.{f16x2,bf16x2}", |a: u32, _, _| a ^ 0x8000);
    pairs!(rows, 1, "abs.{f16,bf16}", "abs.{f16x2,bf16x2}", |a: u32, _, _| a & 0x7fff);
}
