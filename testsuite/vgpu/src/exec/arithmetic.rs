//! Operations on registers alone.

use super::op::{Inst, Op};
use super::program::{Arg, Program, Reg};
use super::warp::Warp;
use crate::fault::Wrong;
use crate::forms::{D, LANES, W};
use crate::memory::SHARED_WINDOW;

/// Does an operation on registers for some lanes; false if it is none.
#[inline(always)]
pub(super) fn execute(
    warp: &mut Warp,
    program: &Program,
    inst: &Inst,
    lanes: u32,
) -> Result<bool, Box<Wrong>> {
    let Inst { d, a, b, c, .. } = *inst;
    let (mut word, mut long): (W, D);
    macro_rules! to_word {
        ($call:expr) => {{
            word = [0; LANES];
            $call;
            warp.put_word(d, lanes, &word);
        }};
    }
    macro_rules! to_long {
        ($call:expr) => {{
            long = [0; LANES];
            $call;
            warp.put_long(d, lanes, &long);
        }};
    }
    match &inst.op {
        Op::Word1(f) => to_word!(f(warp.word(a, lanes)?, &mut word)),
        Op::Word2(f) => to_word!(f(warp.word(a, lanes)?, warp.word(b, lanes)?, &mut word)),
        Op::Word3(f) => {
            to_word!(f(warp.word(a, lanes)?, warp.word(b, lanes)?, warp.word(c, lanes)?, &mut word))
        }
        Op::Word4(f) => {
            let fourth = fourth(program, inst)?;
            let (a, b) = (warp.word(a, lanes)?, warp.word(b, lanes)?);
            to_word!(f((a, b, warp.word(c, lanes)?, warp.word(fourth, lanes)?), &mut word))
        }
        Op::Long1(f) => to_long!(f(warp.long(a, lanes)?, &mut long)),
        Op::Long2(f) => to_long!(f(warp.long(a, lanes)?, warp.long(b, lanes)?, &mut long)),
        Op::Long3(f) => {
            to_long!(f(warp.long(a, lanes)?, warp.long(b, lanes)?, warp.long(c, lanes)?, &mut long))
        }
        Op::LongFromWord(f) => to_long!(f(warp.word(a, lanes)?, &mut long)),
        Op::WordFromLong(f) => to_word!(f(warp.long(a, lanes)?, &mut word)),
        Op::LongFromWords(f) => to_long!(f(warp.word(a, lanes)?, warp.word(b, lanes)?, &mut long)),
        Op::LongMad(f) => {
            to_long!(f(warp.word(a, lanes)?, warp.word(b, lanes)?, warp.long(c, lanes)?, &mut long))
        }
        Op::LongShift(f) => to_long!(f(warp.long(a, lanes)?, warp.word(b, lanes)?, &mut long)),
        Op::LongField(f) => {
            to_long!(f(warp.long(a, lanes)?, warp.word(b, lanes)?, warp.word(c, lanes)?, &mut long))
        }
        Op::TestWord(f) => {
            let found = f(warp.word(a, lanes)?, warp.word(b, lanes)?);
            warp.put_predicate(d, lanes, found);
        }
        Op::TestLong(f) => {
            let found = f(warp.long(a, lanes)?, warp.long(b, lanes)?);
            warp.put_predicate(d, lanes, found);
        }
        Op::Predicate1(f) => {
            let found = f(warp.predicate(a, lanes)?);
            warp.put_predicate(d, lanes, found);
        }
        Op::Predicate2(f) => {
            let found = f(warp.predicate(a, lanes)?, warp.predicate(b, lanes)?);
            warp.put_predicate(d, lanes, found);
        }
        _ => return moves(warp, program, inst, lanes),
    }
    Ok(true)
}

/// The fourth source, where there is one.
fn fourth(program: &Program, inst: &Inst) -> Result<u32, Box<Wrong>> {
    match program.lists.get(inst.list as usize).map(Vec::as_slice) {
        Some([Arg::Reg(Reg::Word(at))]) => Ok(*at),
        _ => Err(Wrong::warp("an operand is missing")),
    }
}

/// Operations that hand values on, set or not.
fn moves(warp: &mut Warp, program: &Program, inst: &Inst, lanes: u32) -> Result<bool, Box<Wrong>> {
    let Inst { d, a, b, c, .. } = *inst;
    let (to, from) = (d as usize, a as usize);
    match inst.op {
        Op::MoveWord => {
            let value = warp.words[from];
            let set = warp.set_words[from];
            warp.put_word(d, lanes, &value);
            warp.set_words[to] = warp.set_words[to] & !lanes | set & lanes;
        }
        Op::MoveLong => {
            let value = warp.longs[from];
            let set = warp.set_longs[from];
            warp.put_long(d, lanes, &value);
            warp.set_longs[to] = warp.set_longs[to] & !lanes | set & lanes;
        }
        Op::SelectWord => {
            let first = warp.predicate(c, lanes)?;
            let (x, y) = (warp.words[from], warp.words[b as usize]);
            let set = warp.set_words[from] & first | warp.set_words[b as usize] & !first;
            let mut value = y;
            for (lane, value) in value.iter_mut().enumerate() {
                if first >> lane & 1 == 1 {
                    *value = x[lane];
                }
            }
            warp.put_word(d, lanes, &value);
            warp.set_words[to] = warp.set_words[to] & !lanes | set & lanes;
        }
        Op::SelectLong => {
            let first = warp.predicate(c, lanes)?;
            let (x, y) = (warp.longs[from], warp.longs[b as usize]);
            let set = warp.set_longs[from] & first | warp.set_longs[b as usize] & !first;
            let mut value = y;
            for (lane, value) in value.iter_mut().enumerate() {
                if first >> lane & 1 == 1 {
                    *value = x[lane];
                }
            }
            warp.put_long(d, lanes, &value);
            warp.set_longs[to] = warp.set_longs[to] & !lanes | set & lanes;
        }
        Op::ToGeneric => {
            let value = warp.long(a, lanes)?.map(|address| address.wrapping_add(SHARED_WINDOW));
            warp.put_long(d, lanes, &value);
        }
        Op::FromGeneric => {
            let value = warp.long(a, lanes)?.map(|address| address.wrapping_sub(SHARED_WINDOW));
            warp.put_long(d, lanes, &value);
        }
        Op::Parts => parts(warp, program, inst, lanes)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// A register of 32 or 64 bits taken apart or put together, low parts first.
fn parts(warp: &mut Warp, program: &Program, inst: &Inst, lanes: u32) -> Result<(), Box<Wrong>> {
    let Some([Arg::Vector(to), Arg::Vector(from)]) = program.lists.get(inst.list as usize).map(Vec::as_slice)
    else {
        return Err(Wrong::warp("operands are missing"));
    };
    let (mut value, mut set) = ([0u64; LANES], u32::MAX);
    let width = inst.c / from.len() as u32;
    for (at, reg) in from.iter().enumerate() {
        let shift = width * at as u32;
        match *reg {
            Reg::Word(at) => {
                set &= warp.set_words[at as usize];
                for (value, part) in value.iter_mut().zip(&warp.words[at as usize]) {
                    *value |= u64::from(*part) << shift;
                }
            }
            Reg::Long(at) => {
                set &= warp.set_longs[at as usize];
                value = warp.longs[at as usize];
            }
            _ => return Err(Wrong::warp("a part is no register")),
        }
    }
    let width = inst.c / to.len() as u32;
    let mask = if width == 16 { 0xffff } else { u32::MAX };
    for (part, reg) in to.iter().enumerate() {
        let shift = width * part as u32;
        match *reg {
            Reg::Word(at) => {
                warp.put_word(at, lanes, &value.map(|value| (value >> shift) as u32 & mask));
                let now = &mut warp.set_words[at as usize];
                *now = *now & !lanes | set & lanes;
            }
            Reg::Long(at) => {
                warp.put_long(at, lanes, &value);
                let now = &mut warp.set_longs[at as usize];
                *now = *now & !lanes | set & lanes;
            }
            _ => {}
        }
    }
    Ok(())
}
