//! Quantised matrices as they are defined: expressions over the checkpoint's own tensors, exact up to the one rounding of
//! (code − zero) · scale to f32.

use sinter_ir::{DType, Dim, GraphError, ScalarOp, ValueId};

use super::emit::{Emit, Emitted};
use crate::quant::{Codes, InBlocks, Nested, POWERS, Scales, StoredMatrix, Zeros};

/// The amounts by which a byte is shifted to bring each code it holds to its lowest bits: those of 4 bits, of 2 bits, and
/// of 4 bits with the high code first.
pub(crate) const SHIFTS: [(&str, &[f32]); 3] = [
    ("const.shifts.4", &[0.0, 4.0]),
    ("const.shifts.2", &[0.0, 2.0, 4.0, 6.0]),
    ("const.shifts.4.high_first", &[4.0, 0.0]),
];

fn dims(extents: &[usize]) -> Vec<Dim> {
    extents.iter().copied().map(Dim::of).collect()
}

impl Emit {
    /// The numbers that a quantised matrix stands for, `f32[N, K]`.
    pub(super) fn dequantised(&mut self, stored: &StoredMatrix) -> Emitted {
        let (n, k) = (stored.rows, stored.columns);
        let codes = self.codes(stored)?;
        match &stored.scales {
            Scales::Single { name, shape } => {
                let scale = self.param(name, DType::F32, shape)?;
                let scale = self.shaped(scale, &[])?;
                let codes = self.less_number(codes, &stored.zeros)?;
                self.map2(ScalarOp::Mul, codes, scale)
            }
            Scales::Blocks { name, rows, columns } => {
                let scale = self.blocks(name, (n, k), (*rows, *columns))?;
                let codes = self.less_number(codes, &stored.zeros)?;
                self.map2(ScalarOp::Mul, codes, scale)
            }
            Scales::Runs { name, run, nested } => {
                let count = n * k / run;
                let scales = self.runs(name, count, nested.as_ref())?;
                let scales = self.shaped(scales, &[count, 1])?;
                let codes = self.shaped(codes, &[count, *run])?;
                let product = self.map2(ScalarOp::Mul, codes, scales)?;
                self.shaped(product, &[n, k])
            }
            Scales::Exponents { name, shape, run } => {
                let count = n * k / run;
                let bytes = self.param(name, DType::U8, shape)?;
                let bytes = self.shaped(bytes, &[count, 1])?;
                let scales = self.entries(bytes, (POWERS, 256))?;
                let codes = self.shaped(codes, &[count, *run])?;
                let product = self.map2(ScalarOp::Mul, codes, scales)?;
                self.shaped(product, &[n, k])
            }
            Scales::Grouped { .. } => self.grouped_scales(stored, codes),
            Scales::InBlocks(scales) => self.block_scales(stored, codes, scales),
        }
    }

    /// (code − zero) · scale where each row has groups of columns.
    fn grouped_scales(&mut self, stored: &StoredMatrix, codes: ValueId) -> Emitted {
        let Scales::Grouped { name, shape, groups, turned, order, factor } = &stored.scales else {
            return Ok(codes);
        };
        let (n, k, groups) = (stored.rows, stored.columns, *groups);
        let scale = self.param(name, DType::F32, shape)?;
        // The factor goes to the product, as its definition has it.
        let mut scale =
            if *turned { self.graph.transpose(scale, &[1, 0])? } else { self.shaped(scale, &[n, groups])? };
        let mut zeros = self.zeros(stored, groups)?;
        let mut codes = codes;
        match order {
            Some(order) => {
                scale = self.of_columns(scale, order, k)?;
                zeros = zeros.map(|zeros| self.of_columns(zeros, order, k)).transpose()?;
            }
            None => {
                codes = self.shaped(codes, &[n, groups, k / groups])?;
                scale = self.shaped(scale, &[n, groups, 1])?;
                zeros = zeros.map(|zeros| self.shaped(zeros, &[n, groups, 1])).transpose()?;
            }
        }
        codes = match zeros {
            Some(zeros) => self.map2(ScalarOp::Sub, codes, zeros)?,
            None => self.less_number(codes, &stored.zeros)?,
        };
        let product = self.map2(ScalarOp::Mul, codes, scale)?;
        let product = self.scaled(product, *factor)?;
        self.shaped(product, &[n, k])
    }

    /// (code − zero) · scale and what is added to it, where scales and minima may be products themselves.
    fn block_scales(&mut self, stored: &StoredMatrix, codes: ValueId, scales: &InBlocks) -> Emitted {
        let (n, k) = (stored.rows, stored.columns);
        let groups = scales.factors.as_ref().map_or(scales.blocks, |(_, groups)| *groups);
        let codes = self.less_number(codes, &stored.zeros)?;
        let codes = self.shaped(codes, &[n, groups, k / groups])?;
        let scale = self.in_blocks(scales, n)?;
        let mut value = self.map2(ScalarOp::Mul, codes, scale)?;
        if let Some(minima) = &stored.minima {
            let minimum = self.in_blocks(&minima.values, n)?;
            let op = if minima.added { ScalarOp::Add } else { ScalarOp::Sub };
            value = self.map2(op, value, minimum)?;
        }
        self.shaped(value, &[n, k])
    }

    /// The number of each group, `f32[N, groups, 1]`.
    fn in_blocks(&mut self, values: &InBlocks, n: usize) -> Emitted {
        let each = self.param(&values.name, DType::F32, &[n, values.blocks])?;
        let Some((factors, groups)) = &values.factors else {
            return self.shaped(each, &[n, values.blocks, 1]);
        };
        let factors = self.param(factors, DType::I8, &[n, *groups])?;
        let factors = self.graph.cast(factors, DType::F32)?;
        let factors = self.shaped(factors, &[n, values.blocks, groups / values.blocks])?;
        let each = self.shaped(each, &[n, values.blocks, 1])?;
        let product = self.map2(ScalarOp::Mul, each, factors)?;
        self.shaped(product, &[n, *groups, 1])
    }

    /// What is stored for groups, `[N, groups]`, for each column, `[N, K]`.
    fn of_columns(&mut self, x: ValueId, order: &str, columns: usize) -> Emitted {
        let order = self.param(order, DType::U32, &[columns])?;
        let turned = self.graph.transpose(x, &[1, 0])?;
        let chosen = self.graph.gather(turned, order)?;
        self.graph.transpose(chosen, &[1, 0])
    }

    fn less_number(&mut self, codes: ValueId, zeros: &Zeros) -> Emitted {
        match zeros {
            Zeros::Number(zero) => self.with(ScalarOp::Sub, codes, *zero),
            _ => Ok(codes),
        }
    }

    fn shaped(&mut self, x: ValueId, extents: &[usize]) -> Emitted {
        self.graph.reshape(x, &dims(extents))
    }

    /// The codes as numbers, `f32[N, K]`.
    fn codes(&mut self, stored: &StoredMatrix) -> Emitted {
        let (n, k) = (stored.rows, stored.columns);
        match &stored.codes {
            Codes::Plain { name, dtype } => {
                let codes = self.param(name, *dtype, &[n, k])?;
                self.graph.cast(codes, DType::F32)
            }
            Codes::AlongInputs { name, bits } => {
                let bytes = (k * bits).div_ceil(32) * 4;
                let codes = self.param(name, DType::U8, &[n, bytes])?;
                let codes = self.unpacked(codes, *bits)?;
                let codes = self.shaped(codes, &[n, bytes * 8 / bits])?;
                let codes = if bytes * 8 / bits == k { codes } else { self.graph.slice(codes, 1, 0, k)? };
                self.graph.cast(codes, DType::F32)
            }
            Codes::Columns { name, bits } => {
                let words = k * bits / 32;
                let codes = self.param(name, DType::U8, &[words, n * 4])?;
                let codes = self.shaped(codes, &[words, n, 4])?;
                let codes = self.unpacked(codes, *bits)?;
                let codes = self.graph.transpose(codes, &[1, 0, 2, 3])?;
                let codes = self.shaped(codes, &[n, k])?;
                self.graph.cast(codes, DType::F32)
            }
            Codes::Interleaved { name } => {
                let codes = self.interleaved(name, k, n)?;
                self.graph.transpose(codes, &[1, 0])
            }
            Codes::Table { name, shape, table, high_first } => {
                let codes = self.param(name, DType::U8, shape)?;
                let codes = self.shaped(codes, &[n * k / 2, 1])?;
                let codes = self.bits_of(codes, SHIFTS[if *high_first { 2 } else { 0 }], 4)?;
                self.entries(codes, (table, 16))
            }
        }
    }

    /// The entries of a table that bytes are the numbers of.
    fn entries(&mut self, numbers: ValueId, (table, len): (&str, usize)) -> Emitted {
        let numbers = self.graph.cast(numbers, DType::U32)?;
        let table = self.param(table, DType::F32, &[len])?;
        self.graph.gather(table, numbers)
    }

    /// The codes that bytes hold, the lowest bits first, along one more axis: `u8[…]` to `u8[…, 8 / bits]`.
    fn unpacked(&mut self, bytes: ValueId, bits: usize) -> Emitted {
        let mut shape = self.graph.ty(bytes).shape.clone();
        shape.push(Dim::ONE);
        let bytes = self.graph.reshape(bytes, &shape)?;
        match bits {
            8 => Ok(bytes),
            4 => self.bits_of(bytes, SHIFTS[0], bits),
            _ => self.bits_of(bytes, SHIFTS[1], bits),
        }
    }

    /// The lowest bits after each shift, along the last axis of `u8[…, 1]`.
    fn bits_of(&mut self, bytes: ValueId, (name, amounts): (&str, &[f32]), bits: usize) -> Emitted {
        let shifts = self.param(name, DType::F32, &[amounts.len()])?;
        let mut shape = vec![Dim::ONE; self.graph.ty(bytes).rank()];
        shape.iter_mut().next_back().into_iter().for_each(|last| *last = Dim::of(amounts.len()));
        let shifts = self.graph.cast(shifts, DType::U8)?;
        let shifts = self.graph.reshape(shifts, &shape)?;
        let shifted = self.map2(ScalarOp::Shr, bytes, shifts)?;
        let mask = self.graph.constant(((1 << bits) - 1) as f64, DType::U8)?;
        self.map2(ScalarOp::Bitand, shifted, mask)
    }

    /// Halves of bytes in the order of AWQ: `f32[rows, N]` of words `[rows, N/8]`. The half at place i of a word belongs to
    /// output 2·(i mod 4) + ⌊i/4⌋ of its eight.
    fn interleaved(&mut self, name: &str, rows: usize, n: usize) -> Emitted {
        let bytes = self.param(name, DType::U8, &[rows, n / 2])?;
        let halves = self.unpacked(bytes, 4)?;
        let halves = self.shaped(halves, &[rows, n / 8, 2, 4])?;
        let halves = self.graph.transpose(halves, &[0, 1, 3, 2])?;
        let halves = self.shaped(halves, &[rows, n])?;
        self.graph.cast(halves, DType::F32)
    }

    /// The zeros of groups, `f32[N, groups]`, where they are stored.
    fn zeros(&mut self, stored: &StoredMatrix, groups: usize) -> Result<Option<ValueId>, GraphError> {
        let n = stored.rows;
        Ok(Some(match &stored.zeros {
            Zeros::None | Zeros::Number(_) => return Ok(None),
            Zeros::Plain { name } => {
                let zeros = self.param(name, DType::I8, &[n, groups])?;
                self.graph.cast(zeros, DType::F32)?
            }
            Zeros::AlongOutputs { name, bits } => {
                let words = (n * bits).div_ceil(32);
                let zeros = self.param(name, DType::U8, &[words, groups * 4])?;
                let zeros = self.shaped(zeros, &[words, groups, 4])?;
                let zeros = self.unpacked(zeros, *bits)?;
                let zeros = self.graph.transpose(zeros, &[0, 2, 3, 1])?;
                let zeros = self.shaped(zeros, &[words * 32 / bits, groups])?;
                let zeros = if words * 32 / bits == n { zeros } else { self.graph.slice(zeros, 0, 0, n)? };
                self.graph.cast(zeros, DType::F32)?
            }
            Zeros::Columns { name, bits, less_one } => {
                let bytes = n * bits / 8;
                let zeros = self.param(name, DType::U8, &[groups, bytes])?;
                let mut zeros = self.unpacked(zeros, *bits)?;
                if *less_one {
                    // What wraps around stands for 0.
                    let one = self.graph.constant(1.0, DType::U32)?;
                    let mask = self.graph.constant(((1u32 << bits) - 1).into(), DType::U32)?;
                    zeros = self.graph.cast(zeros, DType::U32)?;
                    zeros = self.map2(ScalarOp::Add, zeros, one)?;
                    zeros = self.map2(ScalarOp::Bitand, zeros, mask)?;
                }
                let zeros = self.shaped(zeros, &[groups, n])?;
                let zeros = self.graph.cast(zeros, DType::F32)?;
                self.graph.transpose(zeros, &[1, 0])?
            }
            Zeros::Interleaved { name } => {
                let zeros = self.interleaved(name, groups, n)?;
                self.graph.transpose(zeros, &[1, 0])?
            }
        }))
    }

    /// The scale of every element, `f32[N, K]`, where blocks share one.
    fn blocks(&mut self, name: &str, (n, k): (usize, usize), (rows, columns): (usize, usize)) -> Emitted {
        let (down, across) = (n.div_ceil(rows), k.div_ceil(columns));
        let scale = self.param(name, DType::F32, &[down, across])?;
        let scale = self.shaped(scale, &[down, 1, across, 1])?;
        let scale = self.graph.broadcast(scale, &dims(&[down, rows, across, columns]))?;
        let scale = self.shaped(scale, &[down * rows, across * columns])?;
        let scale = if down * rows == n { scale } else { self.graph.slice(scale, 0, 0, n)? };
        if across * columns == k { Ok(scale) } else { self.graph.slice(scale, 1, 0, k) }
    }

    /// The scales of runs of elements, `f32[count]`.
    fn runs(&mut self, name: &str, count: usize, nested: Option<&Nested>) -> Emitted {
        let Some(Nested { table, factors, run, offset }) = nested else {
            return self.param(name, DType::F32, &[count]);
        };
        let codes = self.param(name, DType::U8, &[count])?;
        let entries = self.entries(codes, (table, 256))?;
        let runs = count.div_ceil(*run);
        let factors = self.param(factors, DType::F32, &[runs])?;
        let factors = self.shaped(factors, &[runs, 1])?;
        let factors = self.graph.broadcast(factors, &dims(&[runs, *run]))?;
        let factors = self.shaped(factors, &[runs * run])?;
        let factors = if runs * run == count { factors } else { self.graph.slice(factors, 0, 0, count)? };
        let scales = self.map2(ScalarOp::Mul, entries, factors)?;
        self.with(ScalarOp::Add, scales, *offset)
    }
}
