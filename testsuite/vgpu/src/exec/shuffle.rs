//! Lanes of a warp that tell one another something.

use super::block::Machine;
use super::memory::lanes_of;
use super::op::{Inst, Shuffle, Vote};
use super::program::{Arg, Reg};
use super::warp::Warp;
use crate::fault::Wrong;
use crate::forms::LANES;

type Done = Result<(), Box<Wrong>>;

impl Machine<'_> {
    fn arg(&self, inst: &Inst, at: usize) -> Result<&Arg, Box<Wrong>> {
        self.program.lists[inst.list as usize].get(at).ok_or_else(|| Wrong::warp("an operand is missing"))
    }

    /// The word register at a position.
    pub(super) fn word_of(&self, inst: &Inst, at: usize) -> Result<u32, Box<Wrong>> {
        match self.arg(inst, at)? {
            Arg::Reg(Reg::Word(reg)) => Ok(*reg),
            other => Err(Wrong::warp(format!("wanted a 32-bit register, found {other:?}"))),
        }
    }

    fn predicate_of(&self, inst: &Inst, at: usize) -> Result<u32, Box<Wrong>> {
        match self.arg(inst, at)? {
            Arg::Reg(Reg::Predicate(reg)) => Ok(*reg),
            other => Err(Wrong::warp(format!("wanted a predicate, found {other:?}"))),
        }
    }

    /// The lanes that a member mask names, which must be the lanes that are here.
    fn members(&self, warp: &Warp, inst: &Inst, at: usize, lanes: u32) -> Result<u32, Box<Wrong>> {
        let mask = self.uniform(warp, self.arg(inst, at)?, lanes)?;
        let wanted = mask & warp.live;
        if lanes & !mask != 0 {
            let lane = (lanes & !mask).trailing_zeros() as usize;
            return Err(Wrong::of(lane, format!("the lane is not in the member mask {mask:#010x}")));
        }
        if wanted & !lanes != 0 {
            let lane = (wanted & !lanes).trailing_zeros() as usize;
            return Err(Wrong::of(
                lane,
                format!(
                    "divergent: the member mask {mask:#010x} names the lane, and only {lanes:#010x} are here"
                ),
            ));
        }
        Ok(mask)
    }

    /// `shfl.sync`
    pub(super) fn shuffle(&mut self, warp: &mut Warp, inst: &Inst, mode: Shuffle, lanes: u32) -> Done {
        self.members(warp, inst, 5, lanes)?;
        let (source, by, control) = (self.word_of(inst, 2)?, self.word_of(inst, 3)?, self.word_of(inst, 4)?);
        let values = *warp.word(source, lanes)?;
        let (by, control) = (*warp.word(by, lanes)?, *warp.word(control, lanes)?);
        let (mut out, mut inside) = ([0; LANES], 0u32);
        for lane in lanes_of(lanes) {
            let (b, c) = (by[lane] & 31, control[lane]);
            let (clamp, segment) = (c & 31, c >> 8 & 31);
            let me = lane as u32;
            let most = me & segment | clamp & !segment;
            let least = me & segment;
            let (from, fits) = match mode {
                Shuffle::Up => (me.wrapping_sub(b), me >= b && me - b >= most),
                Shuffle::Down => (me + b, me + b <= most),
                Shuffle::Butterfly => (me ^ b, me ^ b <= most),
                Shuffle::Index => {
                    let from = least | b & !segment;
                    (from, from <= most)
                }
            };
            let from = if fits { from } else { me };
            if lanes >> from & 1 == 0 {
                return Err(Wrong::of(
                    lane,
                    format!("the shuffle reads lane {from}, which takes no part in it"),
                ));
            }
            out[lane] = values[from as usize];
            inside |= u32::from(fits) << lane;
        }
        if let Arg::Reg(Reg::Word(to)) = *self.arg(inst, 0)? {
            warp.put_word(to, lanes, &out);
        }
        if let Arg::Reg(Reg::Predicate(to)) = *self.arg(inst, 1)? {
            warp.put_predicate(to, lanes, inside);
        }
        Ok(())
    }

    /// `vote.sync`
    pub(super) fn vote(&mut self, warp: &mut Warp, inst: &Inst, vote: Vote, lanes: u32) -> Done {
        self.members(warp, inst, 2, lanes)?;
        let yes = warp.predicate(self.predicate_of(inst, 1)?, lanes)? & lanes;
        let all = |holds: bool| if holds { u32::MAX } else { 0 };
        match vote {
            Vote::Ballot => warp.put_word(self.word_of(inst, 0)?, lanes, &[yes; LANES]),
            Vote::All => warp.put_predicate(self.predicate_of(inst, 0)?, lanes, all(yes == lanes)),
            Vote::Any => warp.put_predicate(self.predicate_of(inst, 0)?, lanes, all(yes != 0)),
            Vote::Uniform => {
                warp.put_predicate(self.predicate_of(inst, 0)?, lanes, all(yes == 0 || yes == lanes));
            }
        }
        Ok(())
    }

    /// `activemask`
    pub(super) fn active_mask(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32) -> Done {
        warp.put_word(self.word_of(inst, 0)?, lanes, &[lanes; LANES]);
        Ok(())
    }

    /// `redux.sync`
    pub(super) fn reduce(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        combine: fn(u32, u32) -> u32,
        lanes: u32,
    ) -> Done {
        let (to, from) = (self.word_of(inst, 0)?, self.word_of(inst, 1)?);
        self.members(warp, inst, 2, lanes)?;
        let values = warp.word(from, lanes)?;
        let found = lanes_of(lanes).map(|lane| values[lane]).reduce(combine).unwrap_or(0);
        warp.put_word(to, lanes, &[found; LANES]);
        Ok(())
    }

    /// `elect.sync`: the lowest lane of the mask.
    pub(super) fn elect(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32) -> Done {
        self.members(warp, inst, 2, lanes)?;
        let leader = lanes.trailing_zeros();
        if let Arg::Reg(Reg::Word(to)) = *self.arg(inst, 0)? {
            warp.put_word(to, lanes, &[leader; LANES]);
        }
        if let Arg::Reg(Reg::Predicate(to)) = *self.arg(inst, 1)? {
            warp.put_predicate(to, lanes, 1 << leader);
        }
        Ok(())
    }

    /// `bar.warp.sync`
    pub(super) fn warp_sync(&mut self, warp: &mut Warp, inst: &Inst, lanes: u32) -> Done {
        self.members(warp, inst, 0, lanes)?;
        warp.meetings += 1;
        Ok(())
    }
}
