//! What a weight is made of, piece by piece along its first axis.

use crate::expression::each_rows;
use crate::view::{View, views};
use crate::{AlignedBytes, gathered};
use sinter_ir::{Binding, DType, EvalError, Graph, Op, Tensor, Type, ValueId, WeightDef, evaluate};

/// A tensor as it lies in a checkpoint: row-major, little-endian.
#[derive(Clone, Debug)]
pub struct RawTensor<'a> {
    /// The element type.
    pub dtype: DType,
    /// The extents, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: &'a [u8],
}

impl<'a> RawTensor<'a> {
    /// The same bytes as a graph's parameter of a type sees them: bytes are seen of a tensor of any type, the last axis as
    /// many times longer, and 8-bit floats of bytes; of other types the elements are converted.
    pub fn seen_as(mut self, dtype: DType) -> Self {
        if dtype == DType::U8 {
            self.shape.iter_mut().next_back().iter_mut().for_each(|last| **last *= self.dtype.bytes());
            self.dtype = dtype;
        } else if dtype.is_float8() && self.dtype == DType::U8 {
            self.dtype = dtype;
        }
        self
    }
}

/// Why a weight cannot be packed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PackError {
    /// The checkpoint lacks a tensor.
    #[error("the checkpoint has no tensor {name:?}")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor has another shape than the model says.
    #[error("tensor {name:?} has shape {found:?} and {bytes} bytes, the model wants {wanted:?}")]
    Shape {
        /// Its name.
        name: String,
        /// What the model says.
        wanted: Vec<usize>,
        /// What the checkpoint has.
        found: Vec<usize>,
        /// How long it is.
        bytes: usize,
    },
    /// The definition is not one that a plan may hold.
    #[error("a weight is defined as {definition}: {reason}")]
    Definition {
        /// Its type.
        definition: String,
        /// What is wrong.
        reason: String,
    },
    /// The source cannot be evaluated.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

impl PackError {
    /// The definition cannot be packed.
    pub fn refused(def: &WeightDef, reason: &str) -> Self {
        PackError::Definition { definition: def.ty.to_string(), reason: reason.into() }
    }
}

/// Where the tensors of a checkpoint come from.
pub type Source<'s, 'a> = &'s dyn Fn(&str) -> Option<RawTensor<'a>>;

/// The extents of a weight, if they are constants.
pub fn constant_shape(def: &WeightDef) -> Option<Vec<usize>> {
    def.ty.shape.iter().map(|dim| dim.as_const().map(|extent| extent as usize)).collect()
}

/// Calls `place` with each piece of a weight in order: the elements of a tensor, and the row of the weight at which they
/// begin. The pieces together are the whole weight; their elements may still have another type.
///
/// # Errors
/// If a tensor is missing or does not fit, or the definition is not one of a weight.
pub fn each_piece<'a>(
    def: &WeightDef,
    source: Source<'_, 'a>,
    mut place: impl FnMut(&View, &RawTensor<'_>, usize),
) -> Result<(), PackError> {
    let [(_, output)] = &def.source.outputs[..] else {
        return Err(PackError::refused(def, "its source needs exactly one output"));
    };
    let wanted = constant_shape(def).ok_or_else(|| PackError::refused(def, "its shape is not constant"))?;
    let found = def.source.ty(*output).shape.iter().map(|dim| dim.as_const().map(|extent| extent as usize));
    if found.collect::<Option<Vec<_>>>().as_ref() != Some(&wanted) {
        return Err(PackError::refused(def, "its source has another shape"));
    }
    let mut row = 0;
    for part in parts(&def.source, *output) {
        let ty = def.source.ty(part);
        match views(&def.source, part, def.ty.dtype) {
            Some(views) => {
                let mut row = row;
                for view in views {
                    let raw = checked(source, &view.name, &view.tensor)?;
                    if !view.is_empty() {
                        place(&view, &raw, row);
                    }
                    row += view.shape.first().copied().unwrap_or(1);
                }
            }
            None => each_computed(def, part, source, |view, raw, at| place(view, raw, row + at))?,
        }
        row += ty.shape.first().map_or(1, |rows| rows.coeff as usize);
    }
    Ok(())
}

/// Calls `place` with the elements of a value of a source graph, some at a time and in order, and the number of the first.
///
/// # Errors
/// If a tensor is missing or does not fit, or the value cannot be computed.
pub fn each_element(
    graph: &Graph,
    value: ValueId,
    source: Source<'_, '_>,
    place: &mut dyn FnMut(usize, &[f32]),
) -> Result<(), PackError> {
    let width: usize = graph.ty(value).shape.iter().skip(1).map(|dim| dim.coeff as usize).product();
    if let Some(given) = each_rows(graph, value, source, &mut |row, data| place(row * width, data)) {
        return given;
    }
    place(0, &evaluated(graph, value, source)?.data);
    Ok(())
}

/// What lies one after the other along the first axis.
fn parts(graph: &Graph, value: ValueId) -> Vec<ValueId> {
    match graph.node(value).op {
        Op::Concat { axis: 0 } => graph.node(value).args.iter().flat_map(|arg| parts(graph, *arg)).collect(),
        _ => vec![value],
    }
}

/// The rows of a part that is computed, some at a time.
fn each_computed(
    def: &WeightDef,
    part: ValueId,
    source: Source<'_, '_>,
    mut place: impl FnMut(&View, &RawTensor<'_>, usize),
) -> Result<(), PackError> {
    let ty = def.source.ty(part);
    let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.coeff as usize).collect();
    let width = shape.iter().skip(1).product::<usize>().max(1);
    let mut give = |row: usize, data: &[f32]| {
        let mut bytes = AlignedBytes::zeroed(data.len() * 4);
        bytes.chunks_exact_mut(4).zip(data).for_each(|(to, x)| to.copy_from_slice(&x.to_le_bytes()));
        let mut shape = shape.clone();
        shape.iter_mut().take(1).for_each(|rows| *rows = data.len() / width);
        let view = View::whole("", shape.clone());
        place(&view, &RawTensor { dtype: DType::F32, shape, bytes: &bytes }, row);
    };
    if let Some(given) = each_rows(&def.source, part, source, &mut give) {
        return given;
    }
    give(0, &evaluated(&def.source, part, source)?.data);
    Ok(())
}

/// A tensor of the checkpoint, of the shape that the model says.
fn checked<'a>(source: Source<'_, 'a>, name: &str, wanted: &[usize]) -> Result<RawTensor<'a>, PackError> {
    let raw = source(name).ok_or_else(|| PackError::Missing { name: name.into() })?;
    if raw.shape != wanted || raw.bytes.len() != wanted.iter().product::<usize>() * raw.dtype.bytes() {
        let (wanted, bytes) = (wanted.to_vec(), raw.bytes.len());
        return Err(PackError::Shape { name: name.into(), wanted, found: raw.shape, bytes });
    }
    Ok(raw)
}

/// A tensor of the checkpoint as a graph declares it: as bytes, whatever its type is, or in its own type.
pub(crate) fn declared<'a>(
    source: Source<'_, 'a>,
    name: &str,
    ty: &Type,
) -> Result<RawTensor<'a>, PackError> {
    let wanted: Vec<usize> = ty.shape.iter().map(|dim| dim.coeff as usize).collect();
    checked(&|name| source(name).map(|raw| raw.seen_as(ty.dtype)), name, &wanted)
}

/// A value of a source graph by the naive evaluator.
fn evaluated(graph: &Graph, value: ValueId, source: Source<'_, '_>) -> Result<Tensor<f32>, PackError> {
    let mut leaves = std::collections::BTreeMap::new();
    for node in graph.nodes.values() {
        if let Op::Param { name, .. } = &node.op {
            let raw = declared(source, name, &node.ty)?;
            let data = gathered(&View::whole("", raw.shape.clone()), &raw);
            leaves.insert(name.clone(), Tensor::<f32>::new(raw.shape, data));
        }
    }
    let mut graph = graph.clone();
    graph.outputs = vec![("weight".into(), value)];
    let binding = Binding { values: [1; 5] };
    let mut outputs = evaluate(&graph, &binding, &|name| leaves.get(name).cloned())?;
    Ok(outputs.remove(0).1)
}
