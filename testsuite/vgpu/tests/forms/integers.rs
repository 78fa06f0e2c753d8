//! Whole numbers, in 128 bits.

use crate::run::{Case, Values};

fn case(pattern: &'static str, signature: &'static str, reference: fn(u64, u64, u64, u64) -> u64) -> Case {
    Case { pattern, signature, values: Values::Whole, reference }
}

/// Sign extensions.
fn s16(value: u64) -> i128 {
    i128::from(value as i16)
}
fn s32(value: u64) -> i128 {
    i128::from(value as i32)
}
fn s64(value: u64) -> i128 {
    i128::from(value as i64)
}
fn wide(value: u64) -> i128 {
    i128::from(value)
}

/// A quotient toward zero, and what GPUs give for none.
fn divide(a: i128, b: i128) -> u64 {
    if b == 0 { u64::MAX } else { (a / b) as u64 }
}
fn remainder(a: i128, b: i128) -> u64 {
    if b == 0 { a as u64 } else { (a % b) as u64 }
}

pub fn cases() -> Vec<Case> {
    let mut all = words();
    all.extend(longs());
    all.extend(halves());
    all.extend(bits());
    all.extend(fields());
    all.extend(comparisons());
    all.extend(choices());
    all.extend(conversions());
    all
}

fn words() -> Vec<Case> {
    vec![
        case("add.{s32,u32}", "www", |a, b, _, _| (wide(a) + wide(b)) as u64),
        case("sub.{s32,u32}", "www", |a, b, _, _| (wide(a) - wide(b)) as u64),
        case("mul.lo.{s32,u32}", "www", |a, b, _, _| (wide(a) * wide(b)) as u64),
        case("mul.hi.u32", "www", |a, b, _, _| ((wide(a) * wide(b)) >> 32) as u64),
        case("mul.hi.s32", "www", |a, b, _, _| ((s32(a) * s32(b)) >> 32) as u64),
        case("mad.lo.{s32,u32}", "wwww", |a, b, c, _| (wide(a) * wide(b) + wide(c)) as u64),
        case("mad.hi.u32", "wwww", |a, b, c, _| (((wide(a) * wide(b)) >> 32) + wide(c)) as u64),
        case("mul.wide.u32", "dww", |a, b, _, _| (wide(a) * wide(b)) as u64),
        case("mul.wide.s32", "dww", |a, b, _, _| (s32(a) * s32(b)) as u64),
        case("mad.wide.u32", "dwwd", |a, b, c, _| (wide(a) * wide(b) + wide(c)) as u64),
        case("mad.wide.s32", "dwwd", |a, b, c, _| (s32(a) * s32(b) + wide(c)) as u64),
        case("div.u32", "www", |a, b, _, _| divide(wide(a), wide(b))),
        case("div.s32", "www", |a, b, _, _| divide(s32(a), s32(b))),
        case("rem.u32", "www", |a, b, _, _| remainder(wide(a), wide(b))),
        case("rem.s32", "www", |a, b, _, _| remainder(s32(a), s32(b))),
        case("min.u32", "www", |a, b, _, _| a.min(b)),
        case("max.u32", "www", |a, b, _, _| a.max(b)),
        case("min.s32", "www", |a, b, _, _| s32(a).min(s32(b)) as u64),
        case("max.s32", "www", |a, b, _, _| s32(a).max(s32(b)) as u64),
        case("min.relu.s32", "www", |a, b, _, _| s32(a).min(s32(b)).max(0) as u64),
        case("max.relu.s32", "www", |a, b, _, _| s32(a).max(s32(b)).max(0) as u64),
        case("abs.s32", "ww", |a, _, _, _| s32(a).unsigned_abs() as u64),
        case("neg.s32", "ww", |a, _, _, _| -s32(a) as u64),
        case("sad.u32", "wwww", |a, b, c, _| (wide(c) + (wide(a) - wide(b)).abs()) as u64),
    ]
}

fn longs() -> Vec<Case> {
    vec![
        case("add.{s64,u64}", "ddd", |a, b, _, _| (wide(a) + wide(b)) as u64),
        case("sub.{s64,u64}", "ddd", |a, b, _, _| (wide(a) - wide(b)) as u64),
        case("mul.lo.{s64,u64}", "ddd", |a, b, _, _| wide(a).wrapping_mul(wide(b)) as u64),
        case("mul.hi.u64", "ddd", |a, b, _, _| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        case("mul.hi.s64", "ddd", |a, b, _, _| ((s64(a) * s64(b)) >> 64) as u64),
        case("mad.lo.{s64,u64}", "dddd", |a, b, c, _| a.wrapping_mul(b).wrapping_add(c)),
        case("div.u64", "ddd", |a, b, _, _| divide(wide(a), wide(b))),
        case("div.s64", "ddd", |a, b, _, _| divide(s64(a), s64(b))),
        case("rem.u64", "ddd", |a, b, _, _| remainder(wide(a), wide(b))),
        case("rem.s64", "ddd", |a, b, _, _| remainder(s64(a), s64(b))),
        case("min.u64", "ddd", |a, b, _, _| a.min(b)),
        case("max.u64", "ddd", |a, b, _, _| a.max(b)),
        case("min.s64", "ddd", |a, b, _, _| s64(a).min(s64(b)) as u64),
        case("max.s64", "ddd", |a, b, _, _| s64(a).max(s64(b)) as u64),
        case("abs.s64", "dd", |a, _, _, _| s64(a).unsigned_abs() as u64),
        case("neg.s64", "dd", |a, _, _, _| -s64(a) as u64),
    ]
}

fn halves() -> Vec<Case> {
    vec![
        case("add.{s16,u16}", "hhh", |a, b, _, _| a + b),
        case("sub.{s16,u16}", "hhh", |a, b, _, _| (wide(a) - wide(b)) as u64),
        case("mul.lo.{s16,u16}", "hhh", |a, b, _, _| a * b),
        case("mad.lo.{s16,u16}", "hhhh", |a, b, c, _| a * b + c),
        case("mul.wide.u16", "whh", |a, b, _, _| a * b),
        case("mul.wide.s16", "whh", |a, b, _, _| (s16(a) * s16(b)) as u64),
        case("min.u16", "hhh", |a, b, _, _| a.min(b)),
        case("max.u16", "hhh", |a, b, _, _| a.max(b)),
        case("min.s16", "hhh", |a, b, _, _| s16(a).min(s16(b)) as u64),
        case("max.s16", "hhh", |a, b, _, _| s16(a).max(s16(b)) as u64),
        case("mul.hi.u16", "hhh", |a, b, _, _| (a * b) >> 16),
        case("mul.hi.s16", "hhh", |a, b, _, _| ((s16(a) * s16(b)) >> 16) as u64),
        case("mad.wide.u16", "whhw", |a, b, c, _| a * b + c),
        case("mad.wide.s16", "whhw", |a, b, c, _| (s16(a) * s16(b) + wide(c)) as u64),
        case("abs.s16", "hh", |a, _, _, _| s16(a).unsigned_abs() as u64),
        case("div.s16", "hhh", |a, b, _, _| divide(s16(a), s16(b))),
        case("rem.s16", "hhh", |a, b, _, _| remainder(s16(a), s16(b))),
        case("add.{s16x2,u16x2}", "www", |a, b, _, _| {
            ((a & 0xffff) + (b & 0xffff)) & 0xffff | ((a >> 16) + (b >> 16)) << 16
        }),
        case("min.u16x2", "www", |a, b, _, _| (a & 0xffff).min(b & 0xffff) | (a >> 16).min(b >> 16) << 16),
        case("max.u16x2", "www", |a, b, _, _| (a & 0xffff).max(b & 0xffff) | (a >> 16).max(b >> 16) << 16),
        case("min.s16x2", "www", |a, b, _, _| {
            s16(a).min(s16(b)) as u64 & 0xffff | (s16(a >> 16).min(s16(b >> 16)) as u64) << 16
        }),
        case("max.s16x2", "www", |a, b, _, _| {
            s16(a).max(s16(b)) as u64 & 0xffff | (s16(a >> 16).max(s16(b >> 16)) as u64) << 16
        }),
        case("neg.s16", "hh", |a, _, _, _| -s16(a) as u64),
        case("div.u16", "hhh", |a, b, _, _| divide(wide(a), wide(b))),
        case("rem.u16", "hhh", |a, b, _, _| remainder(wide(a), wide(b))),
    ]
}

/// The bits of a number, lowest first.
fn bits_of(value: u64, count: usize) -> Vec<bool> {
    (0..count).map(|at| value >> at & 1 == 1).collect()
}
fn from_bits(bits: &[bool]) -> u64 {
    bits.iter().enumerate().map(|(at, bit)| u64::from(*bit) << at).sum()
}

fn bits() -> Vec<Case> {
    vec![
        case("and.b32", "www", |a, b, _, _| a & b),
        case("or.b32", "www", |a, b, _, _| a | b),
        case("xor.b32", "www", |a, b, _, _| (a | b) - (a & b)),
        case("not.b32", "ww", |a, _, _, _| u64::MAX - a),
        case("and.b16", "hhh", |a, b, _, _| a & b),
        case("or.b16", "hhh", |a, b, _, _| a | b),
        case("xor.b16", "hhh", |a, b, _, _| (a | b) - (a & b)),
        case("not.b16", "hh", |a, _, _, _| u64::MAX - a),
        case("and.b64", "ddd", |a, b, _, _| a & b),
        case("or.b64", "ddd", |a, b, _, _| a | b),
        case("xor.b64", "ddd", |a, b, _, _| (a | b) - (a & b)),
        case("not.b64", "dd", |a, _, _, _| u64::MAX - a),
        case("and.pred", "ppp", |a, b, _, _| a * b),
        case("or.pred", "ppp", |a, b, _, _| a.max(b)),
        case("xor.pred", "ppp", |a, b, _, _| a + b),
        case("not.pred", "pp", |a, _, _, _| 1 - a),
        case("popc.b32", "ww", |a, _, _, _| bits_of(a, 32).iter().filter(|bit| **bit).count() as u64),
        case("popc.b64", "wd", |a, _, _, _| bits_of(a, 64).iter().filter(|bit| **bit).count() as u64),
        case("clz.b32", "ww", |a, _, _, _| {
            bits_of(a, 32).iter().rev().take_while(|bit| !**bit).count() as u64
        }),
        case("clz.b64", "wd", |a, _, _, _| {
            bits_of(a, 64).iter().rev().take_while(|bit| !**bit).count() as u64
        }),
        case("brev.b32", "ww", |a, _, _, _| from_bits(&bits_of(a, 32).into_iter().rev().collect::<Vec<_>>())),
        case("brev.b64", "dd", |a, _, _, _| from_bits(&bits_of(a, 64).into_iter().rev().collect::<Vec<_>>())),
        case("bfind.u32", "ww", |a, _, _, _| {
            bits_of(a, 32).iter().rposition(|bit| *bit).map_or(u64::MAX, |at| at as u64)
        }),
        case("shl.b32", "www", |a, b, _, _| if b > 31 { 0 } else { a << b }),
        case("shr.{u32,b32}", "www", |a, b, _, _| if b > 31 { 0 } else { a >> b }),
        case("shr.s32", "www", |a, b, _, _| (s32(a) >> b.min(100)) as u64),
        case("shl.b16", "hhw", |a, b, _, _| if b > 15 { 0 } else { a << b }),
        case("shr.{u16,b16}", "hhw", |a, b, _, _| if b > 15 { 0 } else { a >> b }),
        case("shr.s16", "hhw", |a, b, _, _| (s16(a) >> b.min(100)) as u64),
        case("shl.b64", "ddw", |a, b, _, _| if b > 63 { 0 } else { a << b }),
        case("shr.{u64,b64}", "ddw", |a, b, _, _| if b > 63 { 0 } else { a >> b }),
        case("shr.s64", "ddw", |a, b, _, _| (s64(a) >> b.min(100)) as u64),
        case("shf.l.wrap.b32", "wwww", |a, b, c, _| (b << 32 | a) << (c % 32) >> 32),
        case("shf.r.wrap.b32", "wwww", |a, b, c, _| (b << 32 | a) >> (c % 32)),
        case("shf.l.clamp.b32", "wwww", |a, b, c, _| (b << 32 | a) << c.min(32) >> 32),
        case("shf.r.clamp.b32", "wwww", |a, b, c, _| (b << 32 | a) >> c.min(32)),
    ]
}

fn permuted(a: u64, b: u64, selector: u64) -> u64 {
    let bytes: Vec<u64> = (0..8).map(|at| (b << 32 | a) >> (8 * at) & 255).collect();
    let pick = |at: u64| {
        let nibble = selector >> (4 * at) & 15;
        let byte = bytes[nibble as usize % 8];
        if nibble < 8 {
            byte
        } else if byte > 127 {
            255
        } else {
            0
        }
    };
    (0..4).map(|at| pick(at) << (8 * at)).sum()
}

fn looked_up(a: u64, b: u64, c: u64, table: u64) -> u64 {
    let bit = |at: usize| {
        let index = (a >> at & 1) * 4 + (b >> at & 1) * 2 + (c >> at & 1);
        table >> index & 1 == 1
    };
    from_bits(&(0..32).map(bit).collect::<Vec<_>>())
}

/// A field by the text of the ISA: bit by bit.
fn field(value: u64, position: u64, length: u64, width: u64, signed: bool) -> u64 {
    let (position, length) = (position & 255, length & 255);
    let sign = if !signed || length == 0 { 0 } else { value >> (position + length - 1).min(width - 1) & 1 };
    let bit = |at: u64| {
        if at < length && position + at < width { value >> (position + at) & 1 == 1 } else { sign == 1 }
    };
    from_bits(&(0..width).map(bit).collect::<Vec<_>>())
}

fn inserted(a: u64, b: u64, position: u64, length: u64) -> u64 {
    let (position, length) = (position & 255, length & 255);
    let bit = |at: u64| {
        let inside = at >= position && at < position + length;
        if inside { a >> (at - position) & 1 == 1 } else { b >> at & 1 == 1 }
    };
    from_bits(&(0..32).map(bit).collect::<Vec<_>>())
}

fn fields() -> Vec<Case> {
    vec![
        case("prmt.b32", "wwww", |a, b, c, _| permuted(a, b, c)),
        case("lop3.b32", "wwwww", looked_up),
        case("bfe.u32", "wwww", |a, b, c, _| field(a, b, c, 32, false)),
        case("bfe.s32", "wwww", |a, b, c, _| field(a, b, c, 32, true)),
        case("bfe.u64", "ddww", |a, b, c, _| field(a, b, c, 64, false)),
        case("bfi.b32", "wwwww", inserted),
    ]
}

fn comparisons() -> Vec<Case> {
    let mut all = Vec::new();
    macro_rules! compare {
        ($signature:literal, $type:literal, $cast:expr) => {
            all.extend([
                case(concat!("setp.eq.", $type), $signature, |a, b, _, _| u64::from($cast(a) == $cast(b))),
                case(concat!("setp.ne.", $type), $signature, |a, b, _, _| u64::from($cast(a) != $cast(b))),
                case(concat!("setp.lt.", $type), $signature, |a, b, _, _| u64::from($cast(a) < $cast(b))),
                case(concat!("setp.le.", $type), $signature, |a, b, _, _| u64::from($cast(a) <= $cast(b))),
                case(concat!("setp.gt.", $type), $signature, |a, b, _, _| u64::from($cast(a) > $cast(b))),
                case(concat!("setp.ge.", $type), $signature, |a, b, _, _| u64::from($cast(a) >= $cast(b))),
            ]);
        };
    }
    compare!("pww", "s32", s32);
    compare!("pww", "u32", wide);
    compare!("phh", "s16", s16);
    compare!("phh", "u16", wide);
    compare!("pdd", "s64", s64);
    compare!("pdd", "u64", wide);
    all.extend([
        case("setp.eq.b32", "pww", |a, b, _, _| u64::from(a == b)),
        case("setp.ne.b32", "pww", |a, b, _, _| u64::from(a != b)),
        case("setp.eq.b16", "phh", |a, b, _, _| u64::from(a == b)),
        case("setp.ne.b16", "phh", |a, b, _, _| u64::from(a != b)),
        case("setp.eq.b64", "pdd", |a, b, _, _| u64::from(a == b)),
        case("setp.ne.b64", "pdd", |a, b, _, _| u64::from(a != b)),
    ]);
    all
}

/// Where shared memory begins among generic addresses; the tests know it only by the difference.
const WINDOW: u64 = 0x7000_0000_0000;

fn choices() -> Vec<Case> {
    vec![
        case("selp.{b32,u32,s32,f32}", "wwwp", |a, b, c, _| [b, a][c as usize]),
        case("selp.{b16,u16,s16}", "hhhp", |a, b, c, _| [b, a][c as usize]),
        case("selp.{b64,u64,s64,f64}", "dddp", |a, b, c, _| [b, a][c as usize]),
        case("mov.{b32,u32,s32,f32}", "ww", |a, _, _, _| a),
        case("mov.{b16,u16,s16,f16}", "hh", |a, _, _, _| a),
        case("mov.{b64,u64,s64,f64}", "dd", |a, _, _, _| a),
        case("cvta{,.to}.{global,local,param}.u64", "dd", |a, _, _, _| a),
        case("cvta.shared{,::cta,::cluster}.u64", "dd", |a, _, _, _| a.wrapping_add(WINDOW)),
        case("cvta.to.shared{,::cta,::cluster}.u64", "dd", |a, _, _, _| a.wrapping_sub(WINDOW)),
    ]
}

fn conversions() -> Vec<Case> {
    vec![
        case("cvt.{u16,s16}.u8", "hx", |a, _, _, _| a % 256),
        case("cvt.{u16,s16}.s8", "hx", |a, _, _, _| a as i8 as u64),
        case("cvt.{u32,s32}.u8", "wx", |a, _, _, _| a % 256),
        case("cvt.{u32,s32}.s8", "wx", |a, _, _, _| a as i8 as u64),
        case("cvt.{u32,s32}.u16", "wy", |a, _, _, _| a % 65536),
        case("cvt.{u32,s32}.s16", "wy", |a, _, _, _| s16(a) as u64),
        case("cvt.{u16,s16}.{u16,s16}", "hy", |a, _, _, _| a),
        case("cvt.{u32,s32}.{u32,s32}", "ww", |a, _, _, _| a),
        case("cvt.{u16,s16}.{u32,s32}", "hw", |a, _, _, _| a),
        case("cvt.{u8,s8}.{u32,s32}", "hw", |a, _, _, _| a % 256),
        case("cvt.{u8,s8}.{u16,s16}", "hy", |a, _, _, _| a % 256),
        case("cvt.{u64,s64}.u32", "dw", |a, _, _, _| a),
        case("cvt.{u64,s64}.s32", "dw", |a, _, _, _| s32(a) as u64),
        case("cvt.{u64,s64}.u16", "dy", |a, _, _, _| a),
        case("cvt.{u64,s64}.s16", "dy", |a, _, _, _| s16(a) as u64),
        case("cvt.{u64,s64}.u8", "dx", |a, _, _, _| a % 256),
        case("cvt.{u64,s64}.s8", "dx", |a, _, _, _| a as i8 as u64),
        case("cvt.{u32,s32}.{u64,s64}", "wd", |a, _, _, _| a),
        case("cvt.{u16,s16}.{u64,s64}", "hd", |a, _, _, _| a),
        case("cvt.{u8,s8}.{u64,s64}", "hd", |a, _, _, _| a % 256),
    ]
}
