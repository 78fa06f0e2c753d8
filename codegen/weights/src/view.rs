//! Source graphs that only move elements: as tensors of the checkpoint seen with other extents and strides.

use sinter_ir::{DType, Graph, Op, ValueId};

/// Elements of one tensor: that at position p is element `offset + Σ p[i] · strides[i]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// The tensor.
    pub name: String,
    /// The tensor's own extents.
    pub tensor: Vec<usize>,
    /// The first element.
    pub offset: usize,
    /// The extents of the view.
    pub shape: Vec<usize>,
    /// How many elements lie between neighbours along each axis.
    pub strides: Vec<usize>,
}

/// The strides of a row-major tensor.
fn row_major(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

impl View {
    /// All elements of a tensor.
    pub fn whole(name: &str, shape: Vec<usize>) -> Self {
        let strides = row_major(&shape);
        Self { name: name.into(), tensor: shape.clone(), offset: 0, shape, strides }
    }
    /// Whether the elements follow one another.
    pub fn is_contiguous(&self) -> bool {
        let order = row_major(&self.shape);
        (0..self.shape.len()).all(|axis| self.shape[axis] == 1 || self.strides[axis] == order[axis])
    }
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// A range of the first axis.
    pub fn rows(&self, from: usize, count: usize) -> Self {
        let mut part = self.clone();
        part.offset += from * self.strides[0];
        part.shape[0] = count;
        part
    }
    /// One matrix of a stack.
    pub fn matrix(&self, at: usize) -> Self {
        let mut matrix = self.rows(at, 1);
        matrix.shape.remove(0);
        matrix.strides.remove(0);
        matrix
    }
    fn reshaped(mut self, shape: Vec<usize>) -> Option<Self> {
        if !self.is_contiguous() {
            return None;
        }
        self.strides = row_major(&shape);
        self.shape = shape;
        Some(self)
    }
}

/// The value as views one after the other along the first axis; none if it computes something. Roundings are left to
/// the conversion to `stored`, where that gives the same.
pub(crate) fn views(graph: &Graph, value: ValueId, stored: DType) -> Option<Vec<View>> {
    let node = graph.node(value);
    let shape: Option<Vec<usize>> =
        node.ty.shape.iter().map(|dim| dim.as_const().map(|extent| extent as usize)).collect();
    let shape = shape?;
    let one = |arg: usize| -> Option<View> {
        let mut views = views(graph, *node.args.get(arg)?, stored)?;
        if views.len() == 1 { views.pop() } else { None }
    };
    match &node.op {
        // Of bytes, and of 8-bit floats, the elements of the checkpoint's tensor are something else.
        Op::Param { name, dtype, .. } if *dtype != DType::U8 && !dtype.is_float8() => {
            Some(vec![View::whole(name, shape)])
        }
        Op::Slice { axis, start, .. } => {
            let mut view = one(0)?;
            view.offset += start * view.strides[*axis];
            view.shape = shape;
            Some(vec![view])
        }
        Op::Transpose { perm } => {
            let mut view = one(0)?;
            view.strides = perm.iter().map(|axis| view.strides[*axis]).collect();
            view.shape = shape;
            Some(vec![view])
        }
        Op::Reshape { .. } => Some(vec![one(0)?.reshaped(shape)?]),
        // From a narrower float to f32 nothing is lost; to the stored type it is the conversion itself.
        Op::Cast { dtype } if *dtype == DType::F32 || *dtype == stored => {
            let from = graph.ty(node.args[0]).dtype;
            if from.is_float() && dtype.is_float() { views(graph, node.args[0], stored) } else { None }
        }
        Op::Concat { axis: 0 } => {
            let parts: Option<Vec<Vec<View>>> =
                node.args.iter().map(|arg| views(graph, *arg, stored)).collect();
            Some(parts?.concat())
        }
        _ => None,
    }
}
