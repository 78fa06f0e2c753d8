//! Whole numbers (PTX ISA, "Integer arithmetic instructions" and "Extended-precision").

use super::{Class, Form, form, lanes1, lanes2, lanes3};
use crate::exec::Op;

/// The low 16 bits of a register as a signed number.
fn s16(value: u32) -> i32 {
    i32::from(value as u16 as i16)
}

/// The low 16 bits of a result.
fn low(value: u32) -> u32 {
    value & 0xffff
}

/// Both halves of a pair.
fn pair(a: u32, b: u32, f: impl Fn(u32, u32) -> u32) -> u32 {
    low(f(low(a), low(b))) | low(f(a >> 16, b >> 16)) << 16
}

macro_rules! word1 {
    ($f:expr) => {
        Op::Word1(|a, out| lanes1(a, out, $f))
    };
}
macro_rules! word2 {
    ($f:expr) => {
        Op::Word2(|a, b, out| lanes2(a, b, out, $f))
    };
}
macro_rules! word3 {
    ($f:expr) => {
        Op::Word3(|a, b, c, out| lanes3((a, b, c), out, $f))
    };
}
macro_rules! long1 {
    ($f:expr) => {
        Op::Long1(|a, out| lanes1(a, out, $f))
    };
}
macro_rules! long2 {
    ($f:expr) => {
        Op::Long2(|a, b, out| lanes2(a, b, out, $f))
    };
}
macro_rules! long3 {
    ($f:expr) => {
        Op::Long3(|a, b, c, out| lanes3((a, b, c), out, $f))
    };
}

/// A quotient; the result of division by zero is not specified by PTX, and all ones is what GPUs give.
fn quotient(a: u64, b: u64) -> u64 {
    a.checked_div(b).unwrap_or(u64::MAX)
}
fn remainder(a: u64, b: u64) -> u64 {
    a.checked_rem(b).unwrap_or(a)
}
fn signed_quotient(a: i64, b: i64) -> i64 {
    if b == 0 { -1 } else { a.wrapping_div(b) }
}
fn signed_remainder(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { a.wrapping_rem(b) }
}

pub(super) fn rows() -> Vec<Form> {
    let mut rows = words();
    rows.extend(halves());
    rows.extend(longs());
    rows.extend(wide());
    rows.extend(fields());
    rows
}

fn words() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Integer, pattern, signature, op);
    vec![
        row("add.{s32,u32}", "www", word2!(|a: u32, b: u32| a.wrapping_add(b))),
        row("sub.{s32,u32}", "www", word2!(|a: u32, b: u32| a.wrapping_sub(b))),
        row("mul.lo.{s32,u32}", "www", word2!(|a: u32, b: u32| a.wrapping_mul(b))),
        row("mul.hi.u32", "www", word2!(|a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32)),
        row(
            "mul.hi.s32",
            "www",
            word2!(|a: u32, b: u32| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32),
        ),
        row("mad.lo.{s32,u32}", "wwww", word3!(|a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c))),
        row(
            "mad.hi.u32",
            "wwww",
            word3!(|a: u32, b: u32, c: u32| c.wrapping_add(((u64::from(a) * u64::from(b)) >> 32) as u32)),
        ),
        row("div.u32", "www", word2!(|a: u32, b: u32| a.checked_div(b).unwrap_or(u32::MAX))),
        row("rem.u32", "www", word2!(|a: u32, b: u32| a.checked_rem(b).unwrap_or(a))),
        row(
            "div.s32",
            "www",
            word2!(|a: u32, b: u32| signed_quotient(a as i32 as i64, b as i32 as i64) as u32),
        ),
        row(
            "rem.s32",
            "www",
            word2!(|a: u32, b: u32| signed_remainder(a as i32 as i64, b as i32 as i64) as u32),
        ),
        row("min.u32", "www", word2!(|a: u32, b: u32| a.min(b))),
        row("max.u32", "www", word2!(|a: u32, b: u32| a.max(b))),
        row("min.s32", "www", word2!(|a: u32, b: u32| (a as i32).min(b as i32) as u32)),
        row("min.relu.s32", "www", word2!(|a: u32, b: u32| (a as i32).min(b as i32).max(0) as u32)),
        row("max.relu.s32", "www", word2!(|a: u32, b: u32| (a as i32).max(b as i32).max(0) as u32)),
        row("max.s32", "www", word2!(|a: u32, b: u32| (a as i32).max(b as i32) as u32)),
        row("abs.s32", "ww", word1!(|a: u32| (a as i32).wrapping_abs() as u32)),
        row("neg.s32", "ww", word1!(|a: u32| a.wrapping_neg())),
        row("popc.b32", "ww", word1!(|a: u32| a.count_ones())),
        row("clz.b32", "ww", word1!(|a: u32| a.leading_zeros())),
        row("brev.b32", "ww", word1!(|a: u32| a.reverse_bits())),
        row("bfind.u32", "ww", word1!(|a: u32| 31u32.wrapping_sub(a.leading_zeros()))),
        row("sad.u32", "wwww", word3!(|a: u32, b: u32, c: u32| c.wrapping_add(a.abs_diff(b)))),
    ]
}

fn halves() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Integer, pattern, signature, op);
    vec![
        row("add.{s16,u16}", "hhh", word2!(|a: u32, b: u32| low(a.wrapping_add(b)))),
        row("sub.{s16,u16}", "hhh", word2!(|a: u32, b: u32| low(a.wrapping_sub(b)))),
        row("mul.lo.{s16,u16}", "hhh", word2!(|a: u32, b: u32| low(a.wrapping_mul(b)))),
        row(
            "mad.lo.{s16,u16}",
            "hhhh",
            word3!(|a: u32, b: u32, c: u32| low(a.wrapping_mul(b).wrapping_add(c))),
        ),
        row("min.u16", "hhh", word2!(|a: u32, b: u32| a.min(b))),
        row("max.u16", "hhh", word2!(|a: u32, b: u32| a.max(b))),
        row("min.s16", "hhh", word2!(|a: u32, b: u32| low(s16(a).min(s16(b)) as u32))),
        row("max.s16", "hhh", word2!(|a: u32, b: u32| low(s16(a).max(s16(b)) as u32))),
        row("mul.hi.u16", "hhh", word2!(|a: u32, b: u32| (a * b) >> 16)),
        row("mul.hi.s16", "hhh", word2!(|a: u32, b: u32| low((s16(a).wrapping_mul(s16(b)) >> 16) as u32))),
        row("mad.wide.u16", "whhw", word3!(|a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c))),
        row(
            "mad.wide.s16",
            "whhw",
            word3!(|a: u32, b: u32, c: u32| (s16(a).wrapping_mul(s16(b)) as u32).wrapping_add(c)),
        ),
        row("abs.s16", "hh", word1!(|a: u32| low(s16(a).unsigned_abs()))),
        row(
            "div.s16",
            "hhh",
            word2!(|a: u32, b: u32| low(signed_quotient(s16(a).into(), s16(b).into()) as u32)),
        ),
        row(
            "rem.s16",
            "hhh",
            word2!(|a: u32, b: u32| low(signed_remainder(s16(a).into(), s16(b).into()) as u32)),
        ),
        row("add.{s16x2,u16x2}", "www", word2!(|a: u32, b: u32| pair(a, b, |a, b| a.wrapping_add(b)))),
        row("min.u16x2", "www", word2!(|a: u32, b: u32| pair(a, b, |a, b| a.min(b)))),
        row("max.u16x2", "www", word2!(|a: u32, b: u32| pair(a, b, |a, b| a.max(b)))),
        row("min.s16x2", "www", word2!(|a: u32, b: u32| pair(a, b, |a, b| s16(a).min(s16(b)) as u32))),
        row("max.s16x2", "www", word2!(|a: u32, b: u32| pair(a, b, |a, b| s16(a).max(s16(b)) as u32))),
        row("neg.s16", "hh", word1!(|a: u32| low(a.wrapping_neg()))),
        row("div.u16", "hhh", word2!(|a: u32, b: u32| a.checked_div(b).unwrap_or(0xffff))),
        row("rem.u16", "hhh", word2!(|a: u32, b: u32| a.checked_rem(b).unwrap_or(a))),
        row("mul.wide.u16", "whh", word2!(|a: u32, b: u32| a.wrapping_mul(b))),
        row("mul.wide.s16", "whh", word2!(|a: u32, b: u32| s16(a).wrapping_mul(s16(b)) as u32)),
    ]
}

fn longs() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Integer, pattern, signature, op);
    vec![
        row("add.{s64,u64}", "ddd", long2!(|a: u64, b: u64| a.wrapping_add(b))),
        row("sub.{s64,u64}", "ddd", long2!(|a: u64, b: u64| a.wrapping_sub(b))),
        row("mul.lo.{s64,u64}", "ddd", long2!(|a: u64, b: u64| a.wrapping_mul(b))),
        row("mul.hi.u64", "ddd", long2!(|a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64)),
        row(
            "mul.hi.s64",
            "ddd",
            long2!(|a: u64, b: u64| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64),
        ),
        row("mad.lo.{s64,u64}", "dddd", long3!(|a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c))),
        row("div.u64", "ddd", long2!(quotient)),
        row("rem.u64", "ddd", long2!(remainder)),
        row("div.s64", "ddd", long2!(|a: u64, b: u64| signed_quotient(a as i64, b as i64) as u64)),
        row("rem.s64", "ddd", long2!(|a: u64, b: u64| signed_remainder(a as i64, b as i64) as u64)),
        row("min.u64", "ddd", long2!(|a: u64, b: u64| a.min(b))),
        row("max.u64", "ddd", long2!(|a: u64, b: u64| a.max(b))),
        row("min.s64", "ddd", long2!(|a: u64, b: u64| (a as i64).min(b as i64) as u64)),
        row("max.s64", "ddd", long2!(|a: u64, b: u64| (a as i64).max(b as i64) as u64)),
        row("abs.s64", "dd", long1!(|a: u64| (a as i64).wrapping_abs() as u64)),
        row("neg.s64", "dd", long1!(|a: u64| a.wrapping_neg())),
        row("brev.b64", "dd", long1!(|a: u64| a.reverse_bits())),
        row("popc.b64", "wd", Op::WordFromLong(|a, out| lanes1(a, out, |a: u64| a.count_ones()))),
        row("clz.b64", "wd", Op::WordFromLong(|a, out| lanes1(a, out, |a: u64| a.leading_zeros()))),
    ]
}

fn wide() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Integer, pattern, signature, op);
    vec![
        row(
            "mul.wide.u32",
            "dww",
            Op::LongFromWords(|a, b, out| lanes2(a, b, out, |a: u32, b: u32| u64::from(a) * u64::from(b))),
        ),
        row(
            "mul.wide.s32",
            "dww",
            Op::LongFromWords(|a, b, out| {
                lanes2(a, b, out, |a: u32, b: u32| (i64::from(a as i32) * i64::from(b as i32)) as u64)
            }),
        ),
        row(
            "mad.wide.u32",
            "dwwd",
            Op::LongMad(|a, b, c, out| {
                lanes3((a, b, c), out, |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c))
            }),
        ),
        row(
            "mad.wide.s32",
            "dwwd",
            Op::LongMad(|a, b, c, out| {
                lanes3((a, b, c), out, |a: u32, b: u32, c: u64| {
                    ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)
                })
            }),
        ),
    ]
}

/// `bfe` of 64 bits at most: position and length are taken modulo 256 (PTX ISA, `bfe`).
fn extract(value: u64, position: u32, length: u32, bits: u32) -> u64 {
    let (position, length) = (position & 255, (length & 255).min(bits));
    if length == 0 || position >= bits {
        return 0;
    }
    let shifted = value >> position;
    if length >= 64 { shifted } else { shifted & ((1 << length) - 1) }
}

/// `bfe.s32`: the field is extended by its highest bit, which is bit 31 of the source where the field ends beyond it.
fn extract_signed(value: u32, position: u32, length: u32) -> u32 {
    let (position, length) = (position & 255, length & 255);
    if length == 0 {
        return 0;
    }
    let sign = (value >> (position + length - 1).min(31)) & 1;
    let mut found = if sign == 1 { u32::MAX } else { 0 };
    for at in 0..length.min(32) {
        let bit = if position + at < 32 { (value >> (position + at)) & 1 } else { sign };
        found = found & !(1 << at) | bit << at;
    }
    found
}

/// `bfi.b32`.
fn insert(field: u32, base: u32, position: u32, length: u32) -> u32 {
    let (position, length) = (position & 255, length & 255);
    if position >= 32 || length == 0 {
        return base;
    }
    let mask = (if length >= 32 { u32::MAX } else { (1 << length) - 1 }) << position;
    base & !mask | (field << position) & mask
}

fn fields() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Integer, pattern, signature, op);
    vec![
        row("bfe.u32", "wwww", word3!(|a: u32, b: u32, c: u32| extract(u64::from(a), b, c, 32) as u32)),
        row("bfe.s32", "wwww", word3!(extract_signed)),
        row(
            "bfe.u64",
            "ddww",
            Op::LongField(|a, b, c, out| {
                lanes3((a, b, c), out, |a: u64, b: u32, c: u32| extract(a, b, c, 64))
            }),
        ),
        row(
            "bfi.b32",
            "wwwww",
            Op::Word4(|(a, b, c, d), out| {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = insert(a[i], b[i], c[i], d[i]);
                }
            }),
        ),
    ]
}
