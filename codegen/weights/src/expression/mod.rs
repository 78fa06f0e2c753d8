//! Source graphs that compute, as one loop over the result's elements: how quantised weights become numbers in seconds.
//!
//! The result's positions are a space of axes. Each value below it is seen at those positions: views are undone by
//! arithmetic on strides, a reshape that cuts an axis in two cuts the space's axis too, and what is left is a short
//! program of reads, tables and scalar functions, which runs over a few thousand positions at a time. What has no such
//! form (a sum, a concatenation, a reshape that fits no strides) is left to the naive evaluator; both give the same bits.

mod run;
mod space;

use crate::source::{PackError, Source, declared};
use run::{Leaf, Step};
use sinter_ir::{DType, Graph, Op, ValueId};
use space::{Linear, Misfit, Space};
use std::borrow::Cow;

/// Why there is no program.
enum Stop {
    /// An axis of the space must be cut first.
    Cut(usize, usize),
    /// The naive evaluator has to do it.
    Unsupported,
    /// Nobody can do it.
    Failed(PackError),
}

impl From<Misfit> for Stop {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::Cut { axis, inner } => Stop::Cut(axis, inner),
            Misfit::Never => Stop::Unsupported,
        }
    }
}

/// The numbers of a register: those of one step at every position of a chunk.
type Register = usize;

/// Evaluates a value of a source graph and gives its rows, some at a time and in order, to `place` with the number of the
/// first. None if its graph has no such program; then nothing was given.
pub(crate) fn each_rows(
    graph: &Graph,
    value: ValueId,
    source: Source<'_, '_>,
    place: &mut dyn FnMut(usize, &[f32]),
) -> Option<Result<(), PackError>> {
    let program = match compile(graph, value, source) {
        Ok(program) => program,
        Err(Stop::Failed(error)) => return Some(Err(error)),
        Err(_) => return None,
    };
    Some(program.run(place).map_err(|index| PackError::Eval(index.at(value))))
}

fn compile<'a>(graph: &Graph, value: ValueId, source: Source<'_, 'a>) -> Result<run::Program<'a>, Stop> {
    let shape = extents(graph, value)?;
    if shape.contains(&0) {
        return Err(Stop::Unsupported);
    }
    let mut space = Space::of(&shape);
    loop {
        let mut compiler =
            Compiler { graph, source, space, steps: Vec::new(), leaves: Vec::new(), known: Vec::new() };
        let at = compiler.space.whole();
        match compiler.value(value, at) {
            Ok(result) => {
                let Compiler { space, steps, leaves, .. } = compiler;
                let row = shape.iter().skip(1).product();
                return Ok(run::Program { extents: space.extents(), steps, leaves, result, row });
            }
            Err(Stop::Cut(axis, inner)) => {
                space = compiler.space;
                space.cut(axis, inner);
            }
            Err(stop) => return Err(stop),
        }
    }
}

/// All elements of a value.
fn whole(graph: &Graph, value: ValueId, source: Source<'_, '_>) -> Result<Vec<f32>, Stop> {
    let mut data = Vec::new();
    let given = compile(graph, value, source)?.run(&mut |_, rows| data.extend_from_slice(rows));
    given.map_err(|index| Stop::Failed(PackError::Eval(index.at(value))))?;
    Ok(data)
}

fn extents(graph: &Graph, value: ValueId) -> Result<Vec<usize>, Stop> {
    let extents = graph.ty(value).shape.iter().map(|dim| dim.as_const().map(|extent| extent as usize));
    extents.collect::<Option<_>>().ok_or(Stop::Unsupported)
}

struct Compiler<'g, 's, 'a> {
    graph: &'g Graph,
    source: Source<'s, 'a>,
    space: Space,
    steps: Vec<Step>,
    leaves: Vec<Leaf<'a>>,
    /// What was compiled: a value, where it is seen, and its register.
    known: Vec<(ValueId, Vec<Linear>, Register)>,
}

impl Compiler<'_, '_, '_> {
    fn push(&mut self, step: Step) -> Register {
        self.steps.push(step);
        self.steps.len() - 1
    }

    /// The register of a value whose axes stand at `at`.
    fn value(&mut self, value: ValueId, at: Vec<Linear>) -> Result<Register, Stop> {
        if let Some((.., register)) =
            self.known.iter().find(|(other, place, _)| *other == value && *place == at)
        {
            return Ok(*register);
        }
        let register = self.compute(value, &at)?;
        self.known.push((value, at, register));
        Ok(register)
    }

    fn compute(&mut self, value: ValueId, at: &[Linear]) -> Result<Register, Stop> {
        let graph = self.graph;
        let node = graph.node(value);
        match &node.op {
            Op::Const { value, dtype } => {
                let number = sinter_ir::Real::stored(value.get() as f32, *dtype);
                Ok(self.push(Step::Number(number)))
            }
            Op::Param { name, .. } => {
                let raw = declared(self.source, name, graph.ty(value)).map_err(Stop::Failed)?;
                let at = self.space.flat(at, &raw.shape).times(raw.dtype.bytes());
                self.leaves.push(Leaf { bytes: Cow::Borrowed(raw.bytes), dtype: raw.dtype });
                Ok(self.push(Step::Read { leaf: self.leaves.len() - 1, at }))
            }
            Op::Map(scalar) => {
                let mut args = Vec::with_capacity(node.args.len());
                for arg in &node.args {
                    let seen = self.repeated(*arg, at)?;
                    args.push(self.value(*arg, seen)?);
                }
                Ok(self.push(Step::Apply(*scalar, args)))
            }
            Op::Cast { dtype } => {
                let arg = self.value(node.args[0], at.to_vec())?;
                let from = graph.ty(node.args[0]).dtype;
                let exact =
                    *dtype == DType::F32 || from == *dtype || (from == DType::U8 && *dtype == DType::U32);
                Ok(if exact { arg } else { self.push(Step::Round(*dtype, arg)) })
            }
            Op::Gather {} => self.look_up(value, at),
            _ => match self.view(value, at)? {
                Some((below, at)) => self.value(below, at),
                None => Err(Stop::Unsupported),
            },
        }
    }

    /// One view undone.
    fn view(&self, value: ValueId, at: &[Linear]) -> Result<Option<(ValueId, Vec<Linear>)>, Stop> {
        let node = self.graph.node(value);
        let Some(below) = node.args.first().copied() else { return Ok(None) };
        let mut seen = at.to_vec();
        match &node.op {
            Op::Transpose { perm } => perm.iter().zip(at).for_each(|(axis, at)| seen[*axis] = at.clone()),
            Op::Broadcast { .. } => seen = self.repeated(below, at)?,
            Op::Slice { axis, start, .. } => seen[*axis].offset += start,
            Op::Reshape { .. } => {
                let flat = self.space.flat(at, &extents(self.graph, value)?);
                seen = self.space.unravel(flat, &extents(self.graph, below)?)?;
            }
            _ => return Ok(None),
        }
        Ok(Some((below, seen)))
    }

    /// Where an operand is seen that repeats along axes of extent 1; a number is seen nowhere.
    fn repeated(&self, operand: ValueId, at: &[Linear]) -> Result<Vec<Linear>, Stop> {
        let shape = extents(self.graph, operand)?;
        let one =
            |(extent, at): (&usize, &Linear)| if *extent == 1 { self.space.nowhere() } else { at.clone() };
        Ok(shape.iter().zip(at).map(one).collect())
    }

    /// Rows of a table: the table is computed whole.
    fn look_up(&mut self, value: ValueId, at: &[Linear]) -> Result<Register, Stop> {
        let [table, indices] = self.graph.node(value).args[..] else { return Err(Stop::Unsupported) };
        let rank = self.graph.ty(indices).rank();
        let index = self.value(indices, at[..rank].to_vec())?;
        let shape = extents(self.graph, table)?;
        let at = self.space.flat(&at[rank..], &shape[1..]);
        self.leaves.push(Leaf::numbers(whole(self.graph, table, self.source)?));
        let (leaf, row) = (self.leaves.len() - 1, shape[1..].iter().product());
        Ok(self.push(Step::Look { leaf, index, at, row, rows: shape[0] }))
    }
}
