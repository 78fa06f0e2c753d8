//! `mma.sync`, and the matrix loads and stores around it.

use super::banks;
use super::block::{Machine, Then};
use super::memory::{Target, lanes_of, who};
use super::op::Inst;
use super::program::{Arg, Reg};
use super::warp::Warp;
use crate::fault::Wrong;
use crate::forms::memory::Space;
use crate::forms::tensor::Tensor;
use crate::forms::{D, LANES, W};
use crate::tensor::fragments::{MmaForm, matrix_half, multiply_i8};

type Done = Result<(), Box<Wrong>>;

/// All lanes of a warp.
pub(super) const ALL: u32 = u32::MAX;

/// The registers of a vector operand, which must be so many.
pub(super) fn vector(args: &[Arg], at: usize, count: usize) -> Result<&[Reg], Box<Wrong>> {
    match args.get(at) {
        Some(Arg::Vector(registers)) if registers.len() == count => Ok(registers),
        Some(Arg::Vector(registers)) => Err(Wrong::warp(format!(
            "operand {at} has {} registers, the instruction takes {count}",
            registers.len()
        ))),
        _ => Err(Wrong::warp(format!("operand {at} is no vector of {count} registers"))),
    }
}

/// The values of the registers of a vector.
pub(super) fn words<const N: usize>(warp: &Warp, registers: &[Reg]) -> Result<[W; N], Box<Wrong>> {
    let mut values = [[0; LANES]; N];
    for (value, register) in values.iter_mut().zip(registers) {
        match *register {
            Reg::Word(at) => *value = *warp.word(at, ALL)?,
            _ => return Err(Wrong::warp("an operand is no 32-bit register")),
        }
    }
    Ok(values)
}

/// Sets the registers of a vector in all lanes.
fn put(warp: &mut Warp, registers: &[Reg], values: &[W]) {
    for (register, value) in registers.iter().zip(values) {
        if let Reg::Word(at) = *register {
            warp.put_word(at, ALL, value);
        }
    }
}

impl Machine<'_> {
    /// An instruction of the tensor cores, which all lanes of a warp must do together.
    pub(super) fn tensor(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        tensor: Tensor,
        lanes: u32,
    ) -> Result<Then, Box<Wrong>> {
        if lanes != ALL {
            return Err(Wrong::warp(format!(
                "the instruction is .aligned and wants all lanes of a warp, found {lanes:#010x}"
            )));
        }
        match tensor {
            Tensor::Mma(form) => self.mma(warp, inst, form)?,
            Tensor::MmaInteger(saturate) => self.mma_integer(warp, inst, saturate)?,
            Tensor::LoadMatrix(count, transposed) => {
                self.load_matrix(warp, inst, usize::from(count), transposed)?;
            }
            Tensor::StoreMatrix(count, transposed) => {
                self.store_matrix(warp, inst, usize::from(count), transposed)?;
            }
            Tensor::Fence => self.product_fence(warp),
            Tensor::Commit => self.commit_products(warp),
            Tensor::Wait => return self.wait_products(warp, inst),
            Tensor::Multiply(format, n) => self.product(warp, inst, format, usize::from(n))?,
        }
        Ok(Then::Next)
    }

    fn mma(&mut self, warp: &mut Warp, inst: &Inst, form: MmaForm) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let (a, b) = (form.a_registers(), form.b_registers());
        let in_a = words::<4>(warp, vector(args, 1, a)?)?;
        let in_b = words::<2>(warp, vector(args, 2, b)?)?;
        let in_c = words::<4>(warp, vector(args, 3, 4)?)?;
        let d = form.multiply(self.launch.device, &in_a[..a], &in_b[..b], &in_c);
        put(warp, vector(args, 0, 4)?, &d);
        self.count_product(16 * 8 * form.k);
        Ok(())
    }

    fn mma_integer(&mut self, warp: &mut Warp, inst: &Inst, saturate: bool) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let (a, b) = (words::<4>(warp, vector(args, 1, 4)?)?, words::<2>(warp, vector(args, 2, 2)?)?);
        let c = words::<4>(warp, vector(args, 3, 4)?)?;
        put(warp, vector(args, 0, 4)?, &multiply_i8(&a, &b, &c, saturate));
        self.count_product(16 * 8 * 32);
        Ok(())
    }

    /// Adds an instruction with so many products to the counters.
    pub(super) fn count_product(&mut self, products: usize) {
        self.counters.matrix_instructions += 1;
        self.counters.matrix_flops += 2 * products as u64;
    }

    /// The places of the rows of matrices: lane `8 i + r` has that of row `r` of matrix `i`.
    fn matrix_rows(
        &mut self,
        warp: &Warp,
        address: &Arg,
        count: usize,
    ) -> Result<[(usize, u32); LANES], Box<Wrong>> {
        let Arg::Address(base, offset) = *address else {
            return Err(Wrong::warp("an operand is no address"));
        };
        let lanes = if count == 4 { ALL } else { (1 << (8 * count)) - 1 };
        let addresses: D = warp.long(base, lanes)?.map(|base| base.wrapping_add(offset as u64));
        let mut rows = [(0, 0); LANES];
        for lane in lanes_of(lanes) {
            let at = addresses[lane];
            if !at.is_multiple_of(16) {
                return Err(Wrong::of(
                    lane,
                    format!("misaligned: a row of a matrix lies at {at:#x}, wanted a multiple of 16"),
                ));
            }
            match self.target(Space::Shared, at, warp.block) {
                Ok(Target::Shared(block, at)) => rows[lane] = (block, at),
                Ok(_) => return Err(Wrong::of(lane, format!("{at:#x} is no shared memory"))),
                Err(what) => return Err(Wrong::of(lane, what)),
            }
        }
        self.counters.shared_requests += count as u64;
        for matrix in 0..count {
            self.counters.bank_conflicts += banks::conflicts(&addresses, 0xff << (8 * matrix), 16);
        }
        Ok(rows)
    }

    fn load_matrix(&mut self, warp: &mut Warp, inst: &Inst, count: usize, transposed: bool) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let registers = vector(args, 0, count)?;
        let rows = self.matrix_rows(warp, &args[1], count)?;
        let mut found = [[0u32; 4]; LANES];
        for (lane, words) in found.iter_mut().enumerate().take(8 * count) {
            let (block, at) = rows[lane];
            let who = who(warp, lane as u8, inst.line);
            for (part, word) in words.iter_mut().enumerate() {
                let loaded = self.blocks[block].shared.load(&who, at + 4 * part as u32, 4);
                *word = loaded.map_err(|what| Wrong::of(lane, what))?;
            }
        }
        let mut values = [[0; LANES]; 4];
        for (register, value) in values.iter_mut().enumerate().take(count) {
            for (lane, value) in value.iter_mut().enumerate() {
                for half in 0..2 {
                    let from = matrix_half(transposed, register, half, lane);
                    let word = found[from.address_lane][from.byte / 4];
                    *value |= (word >> (8 * (from.byte % 4)) & 0xffff) << (16 * half);
                }
            }
        }
        put(warp, registers, &values[..count]);
        Ok(())
    }

    fn store_matrix(&mut self, warp: &mut Warp, inst: &Inst, count: usize, transposed: bool) -> Done {
        let args = &self.program.lists[inst.list as usize];
        let values = words::<4>(warp, vector(args, 1, count)?)?;
        let rows = self.matrix_rows(warp, &args[0], count)?;
        let mut stored = [[0u32; 4]; LANES];
        for (register, value) in values.iter().enumerate().take(count) {
            for (lane, value) in value.iter().enumerate() {
                for half in 0..2 {
                    let to = matrix_half(transposed, register, half, lane);
                    stored[to.address_lane][to.byte / 4] |=
                        (value >> (16 * half) & 0xffff) << (8 * (to.byte % 4));
                }
            }
        }
        self.progress += 1;
        for (lane, words) in stored.iter().enumerate().take(8 * count) {
            let (block, at) = rows[lane];
            let who = who(warp, lane as u8, inst.line);
            for (part, word) in words.iter().enumerate() {
                let done = self.blocks[block].shared.store(&who, at + 4 * part as u32, 4, *word);
                done.map_err(|what| Wrong::of(lane, what))?;
            }
        }
        Ok(())
    }
}
