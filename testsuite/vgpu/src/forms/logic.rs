//! Bits, shifts, comparisons, selections and moves (PTX ISA, "Logic and shift instructions", "Comparison and selection").

use super::{Class, Form, form, lanes1, lanes2, lanes3, mask2};
use crate::exec::Op;

macro_rules! word2 {
    ($f:expr) => {
        Op::Word2(|a, b, out| lanes2(a, b, out, $f))
    };
}
macro_rules! long2 {
    ($f:expr) => {
        Op::Long2(|a, b, out| lanes2(a, b, out, $f))
    };
}
macro_rules! word3 {
    ($f:expr) => {
        Op::Word3(|a, b, c, out| lanes3((a, b, c), out, $f))
    };
}
macro_rules! long_shift {
    ($f:expr) => {
        Op::LongShift(|a, b, out| lanes2(a, b, out, $f))
    };
}

pub(super) fn rows() -> Vec<Form> {
    let mut rows = bits();
    rows.extend(shifts());
    rows.extend(lookups());
    rows.extend(comparisons());
    rows.extend(predicates());
    rows.extend(moves());
    rows
}

fn bits() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Integer, pattern, signature, op);
    vec![
        row("and.b32", "www", word2!(|a: u32, b: u32| a & b)),
        row("or.b32", "www", word2!(|a: u32, b: u32| a | b)),
        row("xor.b32", "www", word2!(|a: u32, b: u32| a ^ b)),
        row("not.b32", "ww", Op::Word1(|a, out| lanes1(a, out, |a: u32| !a))),
        row("and.b16", "hhh", word2!(|a: u32, b: u32| a & b)),
        row("or.b16", "hhh", word2!(|a: u32, b: u32| a | b)),
        row("xor.b16", "hhh", word2!(|a: u32, b: u32| a ^ b)),
        row("not.b16", "hh", Op::Word1(|a, out| lanes1(a, out, |a: u32| !a & 0xffff))),
        row("and.b64", "ddd", long2!(|a: u64, b: u64| a & b)),
        row("or.b64", "ddd", long2!(|a: u64, b: u64| a | b)),
        row("xor.b64", "ddd", long2!(|a: u64, b: u64| a ^ b)),
        row("not.b64", "dd", Op::Long1(|a, out| lanes1(a, out, |a: u64| !a))),
    ]
}

/// `lop3.b32`: bit `i` of the table is the result for a, b, c = the bits of `i`, a highest.
fn lookup3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut found = 0;
    for i in 0..8u32 {
        if table >> i & 1 == 1 {
            let pick = |value: u32, bit: u32| if i >> bit & 1 == 1 { value } else { !value };
            found |= pick(a, 2) & pick(b, 1) & pick(c, 0);
        }
    }
    found
}

/// Shift amounts beyond the width give zero, or the sign (PTX ISA, `shl`, `shr`).
fn shifts() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Integer, pattern, signature, op);
    vec![
        row("shl.b32", "www", word2!(|a: u32, b: u32| if b > 31 { 0 } else { a << b })),
        row("shr.{u32,b32}", "www", word2!(|a: u32, b: u32| if b > 31 { 0 } else { a >> b })),
        row("shr.s32", "www", word2!(|a: u32, b: u32| ((a as i32) >> b.min(31)) as u32)),
        row("shl.b16", "hhw", word2!(|a: u32, b: u32| if b > 15 { 0 } else { (a << b) & 0xffff })),
        row("shr.{u16,b16}", "hhw", word2!(|a: u32, b: u32| if b > 15 { 0 } else { a >> b })),
        row(
            "shr.s16",
            "hhw",
            word2!(|a: u32, b: u32| (i32::from(a as u16 as i16) >> b.min(15)) as u32 & 0xffff),
        ),
        row("shl.b64", "ddw", long_shift!(|a: u64, b: u32| if b > 63 { 0 } else { a << b })),
        row("shr.{u64,b64}", "ddw", long_shift!(|a: u64, b: u32| if b > 63 { 0 } else { a >> b })),
        row("shr.s64", "ddw", long_shift!(|a: u64, b: u32| ((a as i64) >> b.min(63)) as u64)),
        row(
            "shf.l.wrap.b32",
            "wwww",
            word3!(|lo: u32, hi: u32, by: u32| {
                ((u64::from(hi) << 32 | u64::from(lo)) << (by & 31) >> 32) as u32
            }),
        ),
        row(
            "shf.r.wrap.b32",
            "wwww",
            word3!(|lo: u32, hi: u32, by: u32| ((u64::from(hi) << 32 | u64::from(lo)) >> (by & 31)) as u32),
        ),
        row(
            "shf.l.clamp.b32",
            "wwww",
            word3!(|lo: u32, hi: u32, by: u32| {
                ((u64::from(hi) << 32 | u64::from(lo)) << by.min(32) >> 32) as u32
            }),
        ),
        row(
            "shf.r.clamp.b32",
            "wwww",
            word3!(|lo: u32, hi: u32, by: u32| ((u64::from(hi) << 32 | u64::from(lo)) >> by.min(32)) as u32),
        ),
    ]
}

/// `prmt.b32` in its default mode: nibble `i` of the selector picks byte `i`, its top bit spreads the sign.
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let mut found = 0;
    for i in 0..4 {
        let pick = selector >> (4 * i) & 15;
        let byte = (bytes >> (8 * (pick & 7))) as u8;
        let byte = if pick & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 };
        found |= u32::from(byte) << (8 * i);
    }
    found
}

fn lookups() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Integer, pattern, signature, op);
    vec![
        row("prmt.b32", "wwww", word3!(permute)),
        row(
            "lop3.b32",
            "wwwww",
            Op::Word4(|(a, b, c, d), out| {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = lookup3(a[i], b[i], c[i], d[i]);
                }
            }),
        ),
    ]
}

/// One row for each comparison of a type.
macro_rules! compare {
    ($rows:ident, $class:expr, $op:ident, $signature:literal, $type:literal, $cast:expr,
     $($name:literal => $f:expr),+) => {
        $($rows.push(form($class, concat!("setp.", $name, ".", $type), $signature, Op::$op(|a, b| {
            mask2(a, b, |a, b| { let (a, b) = ($cast(a), $cast(b)); $f(&a, &b) })
        })));)+
    };
}

/// Comparisons of numbers that have an order; `ne` and the like are ordered: false where one is NaN.
fn comparisons() -> Vec<Form> {
    let mut rows = Vec::new();
    macro_rules! whole {
        ($op:ident, $signature:literal, $type:literal, $cast:expr) => {
            compare!(rows, Class::Integer, $op, $signature, $type, $cast,
                "eq" => PartialEq::eq, "ne" => PartialEq::ne, "lt" => PartialOrd::lt, "le" => PartialOrd::le,
                "gt" => PartialOrd::gt, "ge" => PartialOrd::ge);
        };
    }
    whole!(TestWord, "pww", "s32", |a: u32| a as i32);
    whole!(TestWord, "pww", "u32", |a: u32| a);
    whole!(TestWord, "phh", "s16", |a: u32| a as u16 as i16);
    whole!(TestWord, "phh", "u16", |a: u32| a as u16);
    whole!(TestLong, "pdd", "s64", |a: u64| a as i64);
    whole!(TestLong, "pdd", "u64", |a: u64| a);
    compare!(rows, Class::Integer, TestWord, "pww", "b32", |a: u32| a, "eq" => PartialEq::eq, "ne" => PartialEq::ne);
    compare!(rows, Class::Integer, TestWord, "phh", "b16", |a: u32| a, "eq" => PartialEq::eq, "ne" => PartialEq::ne);
    compare!(rows, Class::Integer, TestLong, "pdd", "b64", |a: u64| a, "eq" => PartialEq::eq, "ne" => PartialEq::ne);
    macro_rules! real {
        ($op:ident, $signature:literal, $type:literal, $cast:expr, $number:ty) => {
            compare!(rows, Class::Float, $op, $signature, $type, $cast,
                "eq" => PartialEq::eq, "lt" => PartialOrd::lt, "le" => PartialOrd::le, "gt" => PartialOrd::gt,
                "ge" => PartialOrd::ge, "ne" => |a: &$number, b: &$number| a.partial_cmp(b).is_some_and(|o| o.is_ne()),
                "equ" => |a: &$number, b: &$number| a.partial_cmp(b).is_none_or(|o| o.is_eq()),
                "neu" => |a: &$number, b: &$number| a != b,
                "ltu" => |a: &$number, b: &$number| a.partial_cmp(b).is_none_or(|o| o.is_lt()),
                "leu" => |a: &$number, b: &$number| a.partial_cmp(b).is_none_or(|o| o.is_le()),
                "gtu" => |a: &$number, b: &$number| a.partial_cmp(b).is_none_or(|o| o.is_gt()),
                "geu" => |a: &$number, b: &$number| a.partial_cmp(b).is_none_or(|o| o.is_ge()),
                "num" => |a: &$number, b: &$number| !a.is_nan() && !b.is_nan(),
                "nan" => |a: &$number, b: &$number| a.is_nan() || b.is_nan());
        };
    }
    real!(TestWord, "pww", "f32", f32::from_bits, f32);
    real!(TestWord, "pww", "ftz.f32", |a: u32| super::float::flush(f32::from_bits(a)), f32);
    real!(TestLong, "pdd", "f64", f64::from_bits, f64);
    real!(TestWord, "phh", "f16", |a: u32| half::f16::from_bits(a as u16).to_f32(), f32);
    real!(TestWord, "phh", "bf16", |a: u32| half::bf16::from_bits(a as u16).to_f32(), f32);
    rows
}

fn predicates() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Integer, pattern, signature, op);
    vec![
        row("and.pred", "ppp", Op::Predicate2(|a, b| a & b)),
        row("or.pred", "ppp", Op::Predicate2(|a, b| a | b)),
        row("xor.pred", "ppp", Op::Predicate2(|a, b| a ^ b)),
        row("not.pred", "pp", Op::Predicate1(|a| !a)),
        row("mov.pred", "pp", Op::Predicate1(|a| a)),
        row("selp.{b32,u32,s32,f32}", "wwwp", Op::SelectWord),
        row("selp.{b16,u16,s16}", "hhhp", Op::SelectWord),
        row("selp.{b64,u64,s64,f64}", "dddp", Op::SelectLong),
    ]
}

fn moves() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Integer, pattern, signature, op);
    vec![
        row("mov.{b32,u32,s32,f32}", "ww", Op::MoveWord),
        row("mov.{b16,u16,s16,f16}", "hh", Op::MoveWord),
        row("mov.{b64,u64,s64,f64}", "dd", Op::MoveLong),
        row("cvta.{global,local,param}.u64", "dd", Op::MoveLong),
        row("cvta.to.{global,local,param}.u64", "dd", Op::MoveLong),
        row("cvta.shared{,::cta,::cluster}.u64", "dd", Op::ToGeneric),
        row("cvta.to.shared{,::cta,::cluster}.u64", "dd", Op::FromGeneric),
    ]
}
