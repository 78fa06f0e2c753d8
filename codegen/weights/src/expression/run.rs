//! The program of an expression, run over a few thousand positions at a time.

use super::space::Linear;
use half::{bf16, f16};
use sinter_ir::{DType, EvalError, Float8, Real, ScalarOp, ValueId};
use std::borrow::Cow;

/// Positions that are computed at a time: all registers stay in the second cache.
const CHUNK: usize = 1 << 12;
/// Elements that are given away at a time, about.
const GIVEN: usize = 1 << 16;

/// A tensor of the checkpoint, or a value that was computed before.
pub(super) struct Leaf<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    pub(super) dtype: DType,
}

impl Leaf<'_> {
    pub(super) fn numbers(data: Vec<f32>) -> Self {
        Self { bytes: Cow::Owned(data.iter().flat_map(|x| x.to_le_bytes()).collect()), dtype: DType::F32 }
    }
}

/// What fills one register.
pub(super) enum Step {
    /// The same number everywhere.
    Number(f32),
    /// Elements of a leaf, from the byte `at` on.
    Read { leaf: usize, at: Linear },
    /// Elements of a leaf of f32: `at` in the row that a register says, of `rows` rows with `row` elements.
    Look { leaf: usize, index: usize, at: Linear, row: usize, rows: usize },
    /// A scalar function of registers.
    Apply(ScalarOp, Vec<usize>),
    /// A register as an element type stores it.
    Round(DType, usize),
}

/// A row of a table that is not there.
pub(super) struct NoRow {
    index: usize,
    rows: usize,
}

impl NoRow {
    pub(super) fn at(&self, value: ValueId) -> EvalError {
        EvalError::Index { value, index: self.index, rows: self.rows }
    }
}

/// Steps over a space of positions; each has the register of its number.
pub(super) struct Program<'a> {
    /// The axes of the space, none of extent 0.
    pub(super) extents: Vec<usize>,
    pub(super) steps: Vec<Step>,
    pub(super) leaves: Vec<Leaf<'a>>,
    /// The register of the result.
    pub(super) result: usize,
    /// Elements of a row of the result.
    pub(super) row: usize,
}

/// An axis of a chunk: its extent and how far apart its neighbours are.
type Run = (usize, usize);

impl Program<'_> {
    /// Computes everything in order; rows are given away with the number of the first.
    pub(super) fn run(&self, place: &mut dyn FnMut(usize, &[f32])) -> Result<(), NoRow> {
        let inner = self.inner();
        let size: usize = self.extents[inner..].iter().product();
        let mut registers: Vec<Vec<f32>> = self.steps.iter().map(|_| vec![0.0; size]).collect();
        for (register, step) in registers.iter_mut().zip(&self.steps) {
            if let Step::Number(number) = step {
                register.fill(*number);
            }
        }
        let (mut position, mut done) = (vec![0; inner], 0);
        let mut rows: Vec<f32> = Vec::with_capacity(GIVEN + size);
        for _ in 0..self.extents[..inner].iter().product() {
            for at in 0..self.steps.len() {
                let (before, rest) = registers.split_at_mut(at);
                self.step(&self.steps[at], &position, before, &mut rest[0])?;
            }
            rows.extend_from_slice(&registers[self.result]);
            if rows.len() >= GIVEN && rows.len().is_multiple_of(self.row) {
                place(done, &rows);
                done += rows.len() / self.row;
                rows.clear();
            }
            for (at, extent) in position.iter_mut().zip(&self.extents).rev() {
                *at += 1;
                if *at < *extent {
                    break;
                }
                *at = 0;
            }
        }
        if !rows.is_empty() {
            place(done, &rows);
        }
        Ok(())
    }

    /// The first axis that lies within a chunk.
    fn inner(&self) -> usize {
        let mut inner = self.extents.len();
        let mut size = 1;
        while inner > 0 && (size * self.extents[inner - 1] <= CHUNK || size == 1) {
            inner -= 1;
            size *= self.extents[inner];
        }
        inner
    }

    /// Where a chunk begins, and its axes; neighbours that continue one another are one.
    fn runs(&self, at: &Linear, position: &[usize]) -> (usize, Vec<Run>) {
        let start =
            position.iter().zip(&at.strides).map(|(at, stride)| at * stride).sum::<usize>() + at.offset;
        let mut runs: Vec<Run> = Vec::new();
        let axes = self.extents.iter().zip(&at.strides).skip(position.len());
        for (extent, stride) in axes.filter(|(extent, _)| **extent > 1) {
            match runs.last_mut() {
                Some((outer, apart)) if *apart == extent * stride => {
                    (*outer, *apart) = (*outer * extent, *stride)
                }
                _ => runs.push((*extent, *stride)),
            }
        }
        (start, runs)
    }

    fn step(
        &self,
        step: &Step,
        position: &[usize],
        before: &[Vec<f32>],
        out: &mut [f32],
    ) -> Result<(), NoRow> {
        match step {
            Step::Number(_) => {}
            Step::Read { leaf, at } => {
                let (start, runs) = self.runs(at, position);
                read(&self.leaves[*leaf], start, &runs, out);
            }
            Step::Look { leaf, index, at, row, rows } => {
                let (start, runs) = self.runs(at, position);
                let table = &self.leaves[*leaf].bytes;
                // Where in the row first, then which row.
                let mut places = vec![0usize; out.len()];
                each(start, &runs, &mut places, |at| at);
                for ((out, place), index) in out.iter_mut().zip(places).zip(&before[*index]) {
                    let index = *index as usize;
                    if index >= *rows {
                        return Err(NoRow { index, rows: *rows });
                    }
                    *out = single(table, (index * row + place) * 4);
                }
            }
            Step::Apply(op, args) => apply(*op, args, before, out),
            Step::Round(dtype, arg) => {
                out.iter_mut().zip(&before[*arg]).for_each(|(out, x)| *out = x.stored(*dtype));
            }
        }
        Ok(())
    }
}

fn single(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn pair(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The elements of a chunk as numbers.
fn read(leaf: &Leaf<'_>, start: usize, runs: &[Run], out: &mut [f32]) {
    let bytes = &leaf.bytes[..];
    match leaf.dtype {
        DType::U8 => each(start, runs, out, |at| f32::from(bytes[at])),
        DType::I8 => each(start, runs, out, |at| f32::from(bytes[at] as i8)),
        DType::F32 => each(start, runs, out, |at| single(bytes, at)),
        DType::F16 => each(start, runs, out, |at| f16::from_bits(pair(bytes, at)).to_f32()),
        DType::Bf16 => each(start, runs, out, |at| bf16::from_bits(pair(bytes, at)).to_f32()),
        DType::U32 | DType::I32 | DType::Bool => {
            each(start, runs, out, |at| leaf.dtype.read(&bytes[at..]) as f32);
        }
        DType::F8e4m3 | DType::F8e5m2 | DType::F8e8m0 => {
            let format = Float8::of(leaf.dtype);
            let value = |byte: u8| format.map_or(0.0, |format| format.decode(byte));
            let table: Vec<f32> = (0..=255).map(value).collect();
            each(start, runs, out, |at| table[bytes[at] as usize]);
        }
    }
}

/// Calls `value` with the place of each position in order.
fn each<T: Copy>(start: usize, runs: &[Run], out: &mut [T], value: impl Fn(usize) -> T) {
    let Some(((count, apart), outer)) = runs.split_last() else { return out.fill(value(start)) };
    let mut position = vec![0usize; outer.len()];
    let mut from = start;
    for line in out.chunks_exact_mut(*count) {
        if *apart == 0 {
            line.fill(value(from));
        } else {
            line.iter_mut().enumerate().for_each(|(at, out)| *out = value(from + at * apart));
        }
        for (at, (extent, stride)) in position.iter_mut().zip(outer).rev() {
            *at += 1;
            from += stride;
            if *at < *extent {
                break;
            }
            from -= stride * extent;
            *at = 0;
        }
    }
}

fn apply(op: ScalarOp, args: &[usize], before: &[Vec<f32>], out: &mut [f32]) {
    let binary = |out: &mut [f32], f: fn(f32, f32) -> f32| {
        let operands = before[args[0]].iter().zip(&before[args[1]]);
        out.iter_mut().zip(operands).for_each(|(out, (x, y))| *out = f(*x, *y));
    };
    match op {
        ScalarOp::Add => binary(out, |x, y| x + y),
        ScalarOp::Sub => binary(out, |x, y| x - y),
        ScalarOp::Mul => binary(out, |x, y| x * y),
        ScalarOp::Div => binary(out, |x, y| x / y),
        ScalarOp::Bitand => binary(out, |x, y| ((x as u32) & (y as u32)) as f32),
        ScalarOp::Shr => binary(out, |x, y| (x as u32).checked_shr(y as u32).unwrap_or(0) as f32),
        _ => {
            let mut operands = vec![0.0f32; args.len()];
            for (at, out) in out.iter_mut().enumerate() {
                operands.iter_mut().zip(args).for_each(|(x, arg)| *x = before[*arg][at]);
                *out = op.eval(&operands);
            }
        }
    }
}
