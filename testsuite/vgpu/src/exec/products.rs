//! `wgmma`: products that run beside the warps of a warpgroup, from `mma_async` to `wait_group`.
//!
//! A product is made when its warp comes to it and kept aside; its registers count as not set until a `wait_group` hands
//! it over. What it reads in shared memory is read by the warpgroup's agent in the asynchronous proxy, in the epoch of its
//! group, which the warp hears of at `wait_group`. So a stage of shared memory that is filled again too early is a race,
//! and a read of an accumulator too early is a read of a register that was never set.

use super::block::{Machine, Then};
use super::op::Inst;
use super::program::{Arg, Reg};
use super::tensor::{ALL, vector, words};
use super::warp::{State, Warp};
use crate::fault::Wrong;
use crate::forms::{LANES, W};
use crate::memory::{SEVERAL, Who};
use crate::tensor::wgmma::{self, RowsOfA};
use crate::tensor::{Descriptor, Format, Major};
use std::collections::BTreeMap;

type Done = Result<(), Box<Wrong>>;

/// A register that a product will write.
struct Flying {
    group: u32,
    line: u32,
    value: W,
}

/// A register that a product reads.
struct Input {
    group: u32,
    register: u32,
    value: W,
}

/// The products of a warp.
#[derive(Default)]
pub(super) struct Products {
    /// Groups that were committed.
    committed: u32,
    flying: BTreeMap<u32, Flying>,
    inputs: Vec<Input>,
    /// All registers as they were at the last `wgmma.fence`.
    fenced: Option<Vec<W>>,
}

impl Products {
    /// The line of the product under way that writes a register of an instruction.
    pub(super) fn touched(&self, inst: &Inst, list: Option<&[Arg]>) -> Option<u32> {
        let in_list = list.unwrap_or_default().iter().flat_map(|arg| match arg {
            Arg::Reg(register) => std::slice::from_ref(register),
            Arg::Vector(registers) | Arg::Tensor(_, _, registers) => registers.as_slice(),
            Arg::Address(..) => &[],
        });
        let words = in_list.filter_map(|register| match register {
            Reg::Word(at) => Some(*at),
            _ => None,
        });
        let mut all = words.chain([inst.a, inst.b, inst.c]);
        all.find_map(|at| self.flying.get(&at)).map(|flying| flying.line)
    }

    /// Whether a register is as it was at the last fence.
    fn check_fenced(&self, warp: &Warp, at: u32) -> Done {
        let Some(fenced) = &self.fenced else {
            return Err(Wrong::warp("a wgmma without a wgmma.fence before it"));
        };
        if warp.set_words[at as usize] != 0 && fenced[at as usize] != warp.words[at as usize] {
            return Err(Wrong::warp("a register of a wgmma was written after the last wgmma.fence"));
        }
        Ok(())
    }
}

impl Machine<'_> {
    /// Says of a register that counts as not set that it is an accumulator, if it is one.
    #[cold]
    pub(super) fn explain(&self, warp: &Warp, wrong: Box<Wrong>) -> Box<Wrong> {
        let Some(inst) = self.program.code.get(warp.pc as usize) else { return wrong };
        let list = self.program.lists.get(inst.list as usize).map(Vec::as_slice);
        match self.products[warp.agent].touched(inst, list) {
            Some(line) if wrong.what.contains("never set") => Wrong::warp(format!(
                "an accumulator of the wgmma of PTX line {line} is read, and no wgmma.wait_group stands between"
            )),
            _ => wrong,
        }
    }

    /// The agent of a warp's warpgroup, which is the same for its four warps.
    fn product_agent(&self, warp: &Warp) -> usize {
        self.products.len() + (warp.agent - warp.index % 4) / 4
    }

    /// `wgmma.fence`
    pub(super) fn product_fence(&mut self, warp: &mut Warp) {
        let fenced = self.products[warp.agent].fenced.get_or_insert_default();
        fenced.clone_from(&warp.words);
    }

    /// `wgmma.commit_group`
    pub(super) fn commit_products(&mut self, warp: &mut Warp) {
        self.products[warp.agent].committed += 1;
        self.progress += 1;
    }

    /// `wgmma.wait_group`: waits until the four warps have all come to the products, and hands them over.
    pub(super) fn wait_products(&mut self, warp: &mut Warp, inst: &Inst) -> Result<Then, Box<Wrong>> {
        let args = &self.program.lists[inst.list as usize];
        let newest = self.uniform(warp, &args[0], ALL)?;
        let done = self.products[warp.agent].committed.saturating_sub(newest);
        let first = warp.agent - warp.index % 4;
        let peers = self.products.iter().skip(first).take(4);
        if done > 0 && peers.clone().any(|peer| peer.committed < done) {
            warp.state = State::Spinning;
            return Ok(Then::Again);
        }
        let agent = self.product_agent(warp);
        let products = &mut self.products[warp.agent];
        for input in products.inputs.extract_if(.., |input| input.group < done) {
            if warp.words[input.register as usize] != input.value {
                return Err(Wrong::warp("a register of A was written before wgmma.wait_group"));
            }
        }
        let arrived = products.flying.extract_if(.., |_, flying| flying.group < done);
        for (at, flying) in arrived {
            if warp.set_words[at as usize] != 0 {
                let line = flying.line;
                return Err(Wrong::warp(format!(
                    "an accumulator of the wgmma of PTX line {line} was written before wgmma.wait_group"
                )));
            }
            warp.put_word(at, ALL, &flying.value);
            if let Some(fenced) = &mut products.fenced {
                fenced[at as usize] = flying.value;
            }
        }
        warp.clock.seen[agent] = warp.clock.seen[agent].max(done);
        Ok(Then::Next)
    }

    /// `wgmma.mma_async`
    pub(super) fn product(&mut self, warp: &mut Warp, inst: &Inst, format: Format, n: usize) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let warps = self.launch.threads as usize / 32;
        if warp.index / 4 * 4 + 4 > warps {
            return Err(Wrong::warp(format!(
                "wgmma wants four warps, the block's {warps} leave none for this group"
            )));
        }
        let d = vector(args, 0, n / 2)?;
        // The last operands: scale-d, scale-a, scale-b, and the majors of A (if it is in shared memory) and of B.
        let from_registers = matches!(args[1], Arg::Vector(_));
        let major = |at: usize| match self.uniform(warp, &args[at], ALL)? {
            0 => Ok(Major::K),
            1 => Ok(Major::Mn),
            other => Err(Wrong::warp(format!("a major is 0 or 1, found {other}"))),
        };
        let major_b = major(args.len() - 1)?;
        let negated = self.sign(warp, &args[4])? != self.sign(warp, &args[5])?;
        let scale_d = self.scale_d(warp, &args[3])?;
        let mut sums = self.accumulators(warp, d, scale_d)?;
        let mut reader = Reader::new(self, warp, inst.line);
        let mut rows = if from_registers {
            self.rows_from_registers(warp, vector(args, 1, 4)?, format)?
        } else {
            let from = descriptor(warp, &args[1])?;
            let major_a = major(6)?;
            wgmma::a_from_shared(format, from, (major_a, warp.index), &mut |at| reader.read(self, at))?
        };
        let from = descriptor(warp, &args[2])?;
        let columns = wgmma::b_from_shared(format, from, (major_b, n), &mut |at| reader.read(self, at))?;
        if negated {
            wgmma::negate(&mut rows);
        }
        wgmma::multiply(format, &rows, &columns, scale_d, &mut sums);
        let products = &mut self.products[warp.agent];
        for (register, value) in d.iter().zip(sums) {
            if let Reg::Word(at) = *register {
                warp.set_words[at as usize] = 0;
                products.flying.insert(at, Flying { group: products.committed, line: inst.line, value });
            }
        }
        if warp.index.is_multiple_of(4) {
            self.count_product(wgmma::M * n * wgmma::K);
        }
        Ok(())
    }

    /// Whether a scale of 1 or -1 is negative.
    fn sign(&self, warp: &Warp, arg: &Arg) -> Result<bool, Box<Wrong>> {
        match self.uniform(warp, arg, ALL)? as i32 {
            1 => Ok(false),
            -1 => Ok(true),
            other => Err(Wrong::warp(format!("a scale of wgmma is 1 or -1, found {other}"))),
        }
    }

    fn scale_d(&self, warp: &Warp, arg: &Arg) -> Result<bool, Box<Wrong>> {
        let Arg::Reg(Reg::Predicate(at)) = *arg else {
            return Err(Wrong::warp("scale-d is no predicate"));
        };
        match warp.predicate(at, ALL)? {
            0 => Ok(false),
            ALL => Ok(true),
            some => Err(Wrong::warp(format!("scale-d must be the same in all lanes, found {some:#010x}"))),
        }
    }

    /// The accumulators: those of a product under way, or the registers as the last fence knows them.
    fn accumulators(&self, warp: &Warp, registers: &[Reg], scale_d: bool) -> Result<Vec<W>, Box<Wrong>> {
        let products = &self.products[warp.agent];
        let value = |register: &Reg| match *register {
            Reg::Word(at) => match products.flying.get(&at) {
                Some(flying) if warp.set_words[at as usize] == 0 => Ok(flying.value),
                Some(flying) => {
                    let line = flying.line;
                    Err(Wrong::warp(format!(
                        "an accumulator of the wgmma of PTX line {line} was written before wgmma.wait_group"
                    )))
                }
                None => {
                    products.check_fenced(warp, at)?;
                    if scale_d { warp.word(at, ALL).copied() } else { Ok([0; LANES]) }
                }
            },
            _ => Err(Wrong::warp("an accumulator is no 32-bit register")),
        };
        registers.iter().map(value).collect()
    }

    fn rows_from_registers(
        &mut self,
        warp: &Warp,
        registers: &[Reg],
        format: Format,
    ) -> Result<RowsOfA, Box<Wrong>> {
        let values = words::<4>(warp, registers)?;
        let products = &mut self.products[warp.agent];
        for (register, value) in registers.iter().zip(values) {
            if let Reg::Word(at) = *register {
                products.check_fenced(warp, at)?;
                products.inputs.push(Input { group: products.committed, register: at, value });
            }
        }
        Ok(wgmma::a_from_registers(format, &values))
    }
}

/// A matrix descriptor, which must be the same in all lanes.
fn descriptor(warp: &Warp, arg: &Arg) -> Result<Descriptor, Box<Wrong>> {
    let Arg::Reg(Reg::Long(at)) = *arg else {
        return Err(Wrong::warp("a matrix descriptor is no 64-bit register"));
    };
    let values = warp.long(at, ALL)?;
    if values.iter().any(|value| *value != values[0]) {
        return Err(Wrong::warp("a matrix descriptor must be the same in all lanes"));
    }
    Descriptor::decode(values[0]).map_err(|error| Wrong::warp(error.to_string()))
}

/// Reads shared memory for a product.
struct Reader<'w> {
    agent: usize,
    clock: Vec<u32>,
    warp: &'w Warp,
    line: u32,
}

impl<'w> Reader<'w> {
    fn new(machine: &Machine, warp: &'w Warp, line: u32) -> Reader<'w> {
        let (agent, mut clock) = (machine.product_agent(warp), warp.clock.seen.clone());
        clock[agent] = machine.products[warp.agent].committed + 1;
        Reader { agent, clock, warp, line }
    }

    fn read(&mut self, machine: &mut Machine, address: u32) -> Result<[u8; 16], Box<Wrong>> {
        let who = Who {
            agent: self.agent,
            lane: SEVERAL,
            meetings: self.warp.meetings,
            clock: &self.clock,
            fenced: &self.warp.clock.fenced,
            asynchronous: true,
            line: self.line,
        };
        let shared = &mut machine.blocks[self.warp.block].shared;
        let mut bytes = [0; 16];
        for (part, to) in bytes.chunks_exact_mut(4).enumerate() {
            let word = shared.load(&who, address + 4 * part as u32, 4);
            to.copy_from_slice(&word.map_err(Wrong::warp)?.to_le_bytes());
        }
        Ok(bytes)
    }
}
