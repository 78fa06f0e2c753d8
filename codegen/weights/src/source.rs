//! What a weight is made of, piece by piece along its first axis.

use crate::view::{View, views};
use crate::{AlignedBytes, gathered};
use sinter_ir::{Binding, DType, EvalError, Op, Tensor, WeightDef, evaluate};

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
    let Some(views) = views(&def.source, *output, def.ty.dtype) else {
        let (shape, data) = evaluated(def, source)?;
        let whole = View::whole("", shape.clone());
        place(&whole, &RawTensor { dtype: DType::F32, shape, bytes: &data }, 0);
        return Ok(());
    };
    let mut row = 0;
    for view in views {
        let raw = checked(source, &view.name, &view.tensor)?;
        if !view.is_empty() {
            place(&view, &raw, row);
        }
        row += view.shape.first().copied().unwrap_or(1);
    }
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

/// The result of a source graph: its shape, and its elements in f32.
fn evaluated(def: &WeightDef, source: Source<'_, '_>) -> Result<(Vec<usize>, AlignedBytes), PackError> {
    let mut leaves = std::collections::BTreeMap::new();
    for node in def.source.nodes.values() {
        if let Op::Param { name, .. } = &node.op {
            let shape: Vec<usize> = node.ty.shape.iter().map(|dim| dim.coeff as usize).collect();
            let raw = checked(source, name, &shape)?;
            let data = gathered(&View::whole("", shape.clone()), &raw);
            leaves.insert(name.clone(), Tensor::<f32>::new(shape, data));
        }
    }
    let binding = Binding { values: [1; 5] };
    let mut outputs = evaluate(&def.source, &binding, &|name| leaves.get(name).cloned())?;
    let (_, tensor) = outputs.remove(0);
    let mut bytes = AlignedBytes::zeroed(tensor.data.len() * 4);
    bytes.chunks_exact_mut(4).zip(&tensor.data).for_each(|(to, x)| to.copy_from_slice(&x.to_le_bytes()));
    Ok((tensor.shape, bytes))
}
