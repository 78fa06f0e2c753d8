//! Which lane's register holds which element of a warp's matrices.
//!
//! PTX ISA, "Matrix fragments for mma.m16n8k8", "... m16n8k16", "... m16n8k32" and "... m16n8k4": with `per` elements in
//! a 32-bit register, every shape follows one rule. Lanes form eight groups of four. A group is a row of `A` and of `C`
//! and a column of `B`; the four lanes lie side by side along K (or along the columns of `C`).

use super::arithmetic::{Format, Lane, Model, Operand, WIDTH, dot_i8};
use sinter_ir::Target;

/// A warp's 32-bit register: one value for each lane.
pub type Warp = [u32; 32];

/// The (row, k) of element `element` in register `register` of a lane's `A`, 16 rows. `per` elements share a register.
pub fn a_element(per: usize, register: usize, element: usize, lane: usize) -> (usize, usize) {
    let (group, member) = (lane / 4, lane % 4);
    (group + 8 * (register % 2), member * per + element + 4 * per * (register / 2))
}

/// The (k, column) of element `element` in register `register` of a lane's `B`, 8 columns.
pub fn b_element(per: usize, register: usize, element: usize, lane: usize) -> (usize, usize) {
    let (group, member) = (lane / 4, lane % 4);
    (member * per + element + 4 * per * register, group)
}

/// The (row, column) of register `register` of a lane's 32-bit `C` or `D`, 16 rows by 8 columns.
pub fn c_element(register: usize, lane: usize) -> (usize, usize) {
    (lane / 4 + 8 * (register / 2), lane % 4 * 2 + register % 2)
}

/// A form of `mma.sync.aligned.m16n8k*.row.col` with floating-point operands and f32 accumulators.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MmaForm {
    /// K of the instruction.
    pub k: usize,
    /// The type of `A`.
    pub a: Format,
    /// The type of `B`; of as many bits as `A`.
    pub b: Format,
}

/// The most that K can be.
const MOST_K: usize = 32;

impl MmaForm {
    /// The form, if there is one with f32 accumulators (PTX ISA, mma: table of shapes).
    pub fn new(k: usize, a: Format, b: Format) -> Option<MmaForm> {
        let mixed = matches!((a, b), (Format::E4m3, Format::E5m2) | (Format::E5m2, Format::E4m3));
        let fits = match a {
            Format::Bf16 | Format::F16 => k == 8 || k == 16,
            Format::Tf32 => k == 4 || k == 8,
            Format::E4m3 | Format::E5m2 => k == 16 || k == 32,
        };
        (fits && (a == b || mixed)).then_some(MmaForm { k, a, b })
    }
    /// Elements in a register.
    fn per(self) -> usize {
        (32 / self.a.bits()) as usize
    }
    /// Registers of a lane for `A`.
    pub fn a_registers(self) -> usize {
        self.k / self.per() / 2
    }
    /// Registers of a lane for `B`.
    pub fn b_registers(self) -> usize {
        self.a_registers() / 2
    }

    /// `D = A·B + C` of one warp. `a` has [`MmaForm::a_registers`] registers, `b` has [`MmaForm::b_registers`]; missing
    /// ones count as zero.
    pub fn multiply(self, target: Target, a: &[Warp], b: &[Warp], c: &[Warp; 4]) -> [Warp; 4] {
        let model = Model::mma(target, self.a);
        let mut rows = [[Operand::ZERO; MOST_K]; 16];
        each_element(self, a, |register, element, lane, bits| {
            let (row, k) = a_element(self.per(), register, element, lane);
            rows[row][k] = self.a.decode(bits);
        });
        let mut lanes = [Lane::ZERO; MOST_K];
        each_element(self, b, |register, element, lane, bits| {
            let (k, column) = b_element(self.per(), register, element, lane);
            lanes[k].set(column, self.b.decode(bits));
        });
        let mut sums = [[0; WIDTH]; 16];
        for (register, lane) in (0..4).flat_map(|register| (0..32).map(move |lane| (register, lane))) {
            let (row, column) = c_element(register, lane);
            sums[row][column] = c[register][lane];
        }
        for (row, sums) in rows.iter().zip(&mut sums) {
            model.accumulate(&row[..self.k], &lanes[..self.k], sums);
        }
        gathered(|row, column| sums[row][column])
    }
}

/// Calls `f` with register, element, lane and bits of every element of a fragment.
fn each_element(form: MmaForm, registers: &[Warp], mut f: impl FnMut(usize, usize, usize, u32)) {
    let bits = form.a.bits();
    let mask = u32::MAX >> (32 - bits);
    for (register, warp) in registers.iter().enumerate() {
        for (lane, &word) in warp.iter().enumerate() {
            for element in 0..form.per() {
                f(register, element, lane, word >> (bits * element as u32) & mask);
            }
        }
    }
}

/// The accumulator registers of a matrix.
fn gathered(at: impl Fn(usize, usize) -> u32) -> [Warp; 4] {
    let mut registers = [[0; 32]; 4];
    for (register, warp) in registers.iter_mut().enumerate() {
        for (lane, word) in warp.iter_mut().enumerate() {
            let (row, column) = c_element(register, lane);
            *word = at(row, column);
        }
    }
    registers
}

/// `mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32` of one warp, with `.satfinite` if `saturate`.
pub fn multiply_i8(a: &[Warp; 4], b: &[Warp; 2], c: &[Warp; 4], saturate: bool) -> [Warp; 4] {
    let (mut rows, mut columns) = ([[0i8; 32]; 16], [[0i8; 32]; 8]);
    for lane in 0..32 {
        for element in 0..4 {
            for (register, warp) in a.iter().enumerate() {
                let (row, k) = a_element(4, register, element, lane);
                rows[row][k] = (warp[lane] >> (8 * element)) as i8;
            }
            for (register, warp) in b.iter().enumerate() {
                let (k, column) = b_element(4, register, element, lane);
                columns[column][k] = (warp[lane] >> (8 * element)) as i8;
            }
        }
    }
    let mut d = [[0; 32]; 4];
    for (register, warp) in d.iter_mut().enumerate() {
        for (lane, word) in warp.iter_mut().enumerate() {
            let (row, column) = c_element(register, lane);
            *word = dot_i8(&rows[row], &columns[column], c[register][lane] as i32, saturate) as u32;
        }
    }
    d
}

/// Where one half of a register of `ldmatrix` comes from, and where one half of a register of `stmatrix` goes to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MatrixHalf {
    /// The lane whose address points at the row of 16 bytes.
    pub address_lane: usize,
    /// Bytes into that row.
    pub byte: usize,
}

/// `ldmatrix` / `stmatrix` `.m8n8.b16` (PTX ISA, "ldmatrix"): lane `8 i + r` has the address of row `r` of matrix `i`;
/// register `i` of a lane holds two neighbouring elements of matrix `i`, with `.trans` of its transpose. `half` is 0
/// for the low 16 bits of the register and 1 for the high ones.
pub fn matrix_half(transposed: bool, register: usize, half: usize, lane: usize) -> MatrixHalf {
    let (group, member) = (lane / 4, lane % 4);
    let (row, column) = (group, member * 2 + half);
    let (row, column) = if transposed { (column, row) } else { (row, column) };
    MatrixHalf { address_lane: 8 * register + row, byte: 2 * column }
}
