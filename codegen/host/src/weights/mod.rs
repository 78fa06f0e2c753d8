//! Weights as the kernels want them: the tensors of a checkpoint, joined, converted and laid out, once at load time.
//!
//! Mostly a weight is one tensor, a part of it, or several one after the other: then its elements go straight from the
//! checkpoint's bytes to their places ([`View`]). Any other source graph is evaluated in f32. Weights do not depend on
//! one another: a caller with several threads packs several at once.

mod bytes;
mod fill;
mod view;

pub use bytes::AlignedBytes;

use fill::Target;
use sinter_ir::{Binding, DType, EvalError, Layout, Op, Tensor, WeightDef, evaluate};
use view::View;

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

/// A weight, ready to be lent to kernels.
#[derive(Debug)]
pub struct Packed {
    /// The elements in the layout of the definition.
    pub bytes: AlignedBytes,
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

/// Where the tensors of a checkpoint come from.
pub type Source<'s, 'a> = &'s dyn Fn(&str) -> Option<RawTensor<'a>>;

fn refused(def: &WeightDef, reason: &str) -> PackError {
    PackError::Definition { definition: def.ty.to_string(), reason: reason.into() }
}

/// The extents of a weight, which are constants.
fn shape(def: &WeightDef) -> Option<Vec<usize>> {
    def.ty.shape.iter().map(|dim| dim.as_const().map(|extent| extent as usize)).collect()
}

/// The bytes that a weight takes, padding included; none if its shape is not constant or its layout not possible.
pub fn packed_bytes(def: &WeightDef) -> Option<usize> {
    let shape = shape(def)?;
    match (def.layout, def.ty.dtype, &shape[..]) {
        (Layout::Rows, dtype, _) => Some(shape.iter().product::<usize>() * dtype.bytes()),
        (Layout::Panels, DType::F32, [n, k]) => Some(crate::micro::panel_bytes_f32(*n, *k)),
        (Layout::Panels, DType::Bf16, [n, k]) => Some(crate::micro::panel_bytes_bf16(*n, *k)),
        (Layout::Panels, ..) => None,
    }
}

/// Packs a weight.
///
/// # Errors
/// If a tensor is missing or does not fit, or the definition is not one of a weight.
pub fn pack<'a>(def: &WeightDef, source: Source<'_, 'a>) -> Result<Packed, PackError> {
    let bytes = packed_bytes(def).ok_or_else(|| refused(def, "its layout does not fit its type"))?;
    let [(_, output)] = &def.source.outputs[..] else {
        return Err(refused(def, "its source needs exactly one output"));
    };
    let wanted = shape(def).unwrap_or_default();
    let found: Option<Vec<usize>> =
        def.source.ty(*output).shape.iter().map(|dim| dim.as_const().map(|extent| extent as usize)).collect();
    if found.as_ref() != Some(&wanted) {
        return Err(refused(def, "its source has another shape"));
    }
    let mut target = Target { bytes: AlignedBytes::zeroed(bytes), ty: def.ty.dtype, layout: def.layout };
    match view::views(&def.source, *output, def.ty.dtype) {
        Some(views) => {
            let mut row = 0;
            for view in views {
                let raw = checked(source, &view.name, &view.tensor)?;
                row = target.fill(&view, &raw, row);
            }
        }
        None => {
            let (tensor, whole) = evaluated(def, source)?;
            target.fill(&whole, &tensor.raw(), 0);
        }
    }
    Ok(Packed { bytes: target.bytes })
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

/// The result of a source graph, in f32.
struct Evaluated {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Evaluated {
    fn raw(&self) -> RawTensor<'_> {
        RawTensor { dtype: DType::F32, shape: self.shape.clone(), bytes: &self.bytes }
    }
}

fn evaluated(def: &WeightDef, source: Source<'_, '_>) -> Result<(Evaluated, View), PackError> {
    let mut leaves = std::collections::BTreeMap::new();
    for node in def.source.nodes.values() {
        if let Op::Param { name, .. } = &node.op {
            let shape: Vec<usize> = node.ty.shape.iter().map(|dim| dim.coeff as usize).collect();
            let raw = checked(source, name, &shape)?;
            let data = fill::numbers(&raw);
            leaves.insert(name.clone(), Tensor::<f32>::new(shape, data));
        }
    }
    let binding = Binding { values: [1; 5] };
    let mut outputs = evaluate(&def.source, &binding, &|name| leaves.get(name).cloned())?;
    let (_, tensor) = outputs.remove(0);
    let bytes = tensor.data.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = View::whole("", tensor.shape.clone());
    Ok((Evaluated { shape: tensor.shape, bytes }, view))
}
