//! `wgmma.mma_async`: a warpgroup multiplies 64 rows by N columns.
//!
//! PTX ISA, "Asynchronous warpgroup level multiply-and-accumulate instructions". 16-bit operands, f32 accumulators,
//! K of 16. Warp `w` of the four has rows `16 w .. 16 w + 16`; within a warp the accumulators and the `A` registers lie
//! as those of `mma.sync` do ("Register fragments and shared memory matrix layouts").

use super::arithmetic::{Format, Lane, Model, Operand, WIDTH};
use super::descriptor::{Descriptor, Major};
use super::fragments::{Warp, a_element};
use std::ops::Range;

/// K of the instruction.
pub const K: usize = 16;
/// Rows of the instruction.
pub const M: usize = 64;
/// The most columns.
pub const MOST_N: usize = 256;
/// Rows of each of its four warps.
pub const ROWS: usize = 16;
/// 16-bit elements in a piece of 16 bytes.
const PER: usize = 8;

/// Whether an instruction has so many columns: a multiple of 8 up to 256.
pub fn is_width(n: usize) -> bool {
    n.is_multiple_of(8) && (8..=MOST_N).contains(&n)
}

/// The (row, column) of accumulator register `register` (of N/2) of one of the warpgroup's 128 threads.
pub fn d_element(register: usize, thread: usize) -> (usize, usize) {
    let (warp, lane) = (thread / 32, thread % 32);
    let row = 16 * warp + lane / 4 + 8 * (register / 2 % 2);
    (row, 8 * (register / 4) + lane % 4 * 2 + register % 2)
}

/// A warp's part of `A`: 16 rows of 16.
pub type RowsOfA = [[Operand; K]; ROWS];

/// A warp's part of `A` from four registers, two elements each.
pub fn a_from_registers(format: Format, registers: &[Warp; 4]) -> RowsOfA {
    let mut rows = [[Operand::ZERO; K]; ROWS];
    for (register, words) in registers.iter().enumerate() {
        for (lane, word) in words.iter().enumerate() {
            for element in 0..2 {
                let (row, k) = a_element(2, register, element, lane);
                rows[row][k] = format.decode(word >> (16 * element) & 0xffff);
            }
        }
    }
    rows
}

/// Calls `put(mn, k, bits)` for every 16-bit element of the given rows (or columns) of an operand in shared memory.
/// `read` gives the 16 bytes at an address.
fn each_element<E>(
    descriptor: Descriptor,
    major: Major,
    rows: Range<usize>,
    read: &mut dyn FnMut(u32) -> Result<[u8; 16], E>,
    put: &mut dyn FnMut(usize, usize, u32),
) -> Result<(), E> {
    let (along_mn, along_k) = match major {
        Major::K => (1, PER),
        Major::Mn => (PER, 1),
    };
    for mn in rows.step_by(along_mn) {
        for k in (0..K).step_by(along_k) {
            let bytes = read(descriptor.piece(major, PER as u32, mn as u32, k as u32))?;
            for (element, pair) in bytes.chunks_exact(2).enumerate() {
                let bits = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
                match major {
                    Major::K => put(mn, k + element, bits),
                    Major::Mn => put(mn + element, k, bits),
                }
            }
        }
    }
    Ok(())
}

/// The part of `A` of warp `warp` (of four) from shared memory. `read` gives the 16 bytes at an address.
pub fn a_from_shared<E>(
    format: Format,
    descriptor: Descriptor,
    (major, warp): (Major, usize),
    read: &mut dyn FnMut(u32) -> Result<[u8; 16], E>,
) -> Result<RowsOfA, E> {
    let mut rows = [[Operand::ZERO; K]; ROWS];
    let first = ROWS * (warp % 4);
    each_element(descriptor, major, first..first + ROWS, read, &mut |row, k, bits| {
        rows[row - first][k] = format.decode(bits);
    })?;
    Ok(rows)
}

/// `B`: 16 lanes for every eight columns.
pub type ColumnsOfB = Vec<[Lane; K]>;

/// `B` from shared memory, `n` columns.
pub fn b_from_shared<E>(
    format: Format,
    descriptor: Descriptor,
    (major, n): (Major, usize),
    read: &mut dyn FnMut(u32) -> Result<[u8; 16], E>,
) -> Result<ColumnsOfB, E> {
    let mut columns = vec![[Lane::ZERO; K]; n / WIDTH];
    each_element(descriptor, major, 0..n, read, &mut |column, k, bits| {
        columns[column / WIDTH][k].set(column % WIDTH, format.decode(bits));
    })?;
    Ok(columns)
}

/// The other sign for every element of `A`: `imm-scale-a` or `imm-scale-b` of -1.
pub fn negate(rows: &mut RowsOfA) {
    for operand in rows.iter_mut().flatten() {
        *operand = operand.negated();
    }
}

/// A warp's part of `D = A·B + D`, or of `A·B` if `scale_d` is false. `d` holds N/2 registers.
pub fn multiply(format: Format, a: &RowsOfA, b: &ColumnsOfB, scale_d: bool, d: &mut [Warp]) {
    let model = Model::wgmma(format);
    for (lanes, registers) in b.iter().zip(d.chunks_exact_mut(4)) {
        for (row, operands) in a.iter().enumerate() {
            // Eight columns of a row lie in two registers of a group of four lanes.
            let (first, pair) = (row % 8 * 4, row / 8 * 2);
            let mut sums = [0; WIDTH];
            if scale_d {
                for (column, sum) in sums.iter_mut().enumerate() {
                    *sum = registers[pair + column % 2][first + column / 2];
                }
            }
            model.accumulate(operands, lanes, &mut sums);
            for (column, sum) in sums.iter().enumerate() {
                registers[pair + column % 2][first + column / 2] = *sum;
            }
        }
    }
}
