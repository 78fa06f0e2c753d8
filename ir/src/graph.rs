//! The graph: an append-only list of nodes in topological order. A pass builds a new graph; nothing is patched.

use crate::entity::entity;
use crate::op::Float;
use crate::{Attr, DType, Dim, Einsum, IdVec, Monoid, Op, ScalarOp, Type, infer};

entity!(
    /// A value of a [`Graph`]: the result of one node.
    ValueId, "%"
);

/// One operation, its operands and the type of its result.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// The operands, all earlier in the graph.
    pub args: Vec<ValueId>,
    /// The type, as inferred.
    pub ty: Type,
}

/// A program over tensors: one step of a model.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Graph {
    /// The name, for dumps.
    pub name: String,
    /// The nodes in topological order.
    pub nodes: IdVec<ValueId, Node>,
    /// What the graph computes: a name and a value each.
    pub outputs: Vec<(String, ValueId)>,
}

/// Why a node cannot be added.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{op}{operands}: {reason}")]
pub struct GraphError {
    op: String,
    operands: String,
    reason: String,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
    /// The node that computes a value.
    pub fn node(&self, value: ValueId) -> &Node {
        &self.nodes[value]
    }
    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        &self.nodes[value].ty
    }
    /// Appends an operation; an ill-typed one is refused with the rule that it breaks.
    pub fn push(&mut self, op: Op, args: &[ValueId]) -> Result<ValueId, GraphError> {
        let error = |reason: String| GraphError {
            op: op.name().into(),
            operands: args.iter().map(|arg| format!(" {arg}")).collect(),
            reason,
        };
        let types: Option<Vec<&Type>> =
            args.iter().map(|arg| self.nodes.get(*arg).map(|node| &node.ty)).collect();
        let types = types.ok_or_else(|| error("an operand is not defined yet".into()))?;
        let ty = infer(&op, &types).map_err(error)?;
        Ok(self.nodes.push(Node { op, args: args.to_vec(), ty }))
    }
    /// Names a value as an output.
    pub fn output(&mut self, name: &str, value: ValueId) {
        self.outputs.push((name.into(), value));
    }
    /// How many nodes and outputs use each value.
    pub fn uses(&self) -> IdVec<ValueId, u32> {
        let mut uses: IdVec<ValueId, u32> = self.nodes.values().map(|_| 0).collect();
        for arg in self.nodes.values().flat_map(|node| &node.args) {
            uses[*arg] += 1;
        }
        for (_, value) in &self.outputs {
            uses[*value] += 1;
        }
        uses
    }

    /// Appends an operation given by name, for builders that are driven by tables.
    pub fn push_named(
        &mut self,
        name: &str,
        attrs: &[Attr],
        args: &[ValueId],
    ) -> Result<ValueId, GraphError> {
        let op = Op::from_parts(name, attrs).ok_or_else(|| GraphError {
            op: name.into(),
            operands: String::new(),
            reason: "no operation has this name and these attributes".into(),
        })?;
        self.push(op, args)
    }
}

/// Short forms for builders.
impl Graph {
    /// A tensor given at each step.
    pub fn input(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> Result<ValueId, GraphError> {
        self.push(Op::Input { name: name.into(), shape: shape.into(), dtype }, &[])
    }
    /// A weight.
    pub fn param(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> Result<ValueId, GraphError> {
        self.push(Op::Param { name: name.into(), shape: shape.into(), dtype }, &[])
    }
    /// A tensor that lives from step to step.
    pub fn state(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> Result<ValueId, GraphError> {
        self.push(Op::State { name: name.into(), shape: shape.into(), dtype }, &[])
    }
    /// A number.
    pub fn constant(&mut self, value: f64, dtype: DType) -> Result<ValueId, GraphError> {
        self.push(Op::Const { value: Float::new(value), dtype }, &[])
    }
    /// A scalar function.
    pub fn map(&mut self, scalar: ScalarOp, args: &[ValueId]) -> Result<ValueId, GraphError> {
        self.push(Op::Map(scalar), args)
    }
    /// Another element type.
    pub fn cast(&mut self, value: ValueId, dtype: DType) -> Result<ValueId, GraphError> {
        if self.ty(value).dtype == dtype { Ok(value) } else { self.push(Op::Cast { dtype }, &[value]) }
    }
    /// A contraction in Einstein notation.
    pub fn contract(&mut self, spec: &str, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        let spec = Einsum::parse(spec).ok_or_else(|| GraphError {
            op: "contract".into(),
            operands: format!(" {a} {b}"),
            reason: format!("{spec:?} is not of the form a,b->out"),
        })?;
        self.push(Op::Contract { spec }, &[a, b])
    }
    /// A reduction that keeps the axis.
    pub fn reduce(&mut self, monoid: Monoid, axis: usize, value: ValueId) -> Result<ValueId, GraphError> {
        self.push(Op::Reduce { monoid, axis }, &[value])
    }
    /// Another shape.
    pub fn reshape(&mut self, value: ValueId, shape: &[Dim]) -> Result<ValueId, GraphError> {
        if self.ty(value).shape == shape {
            Ok(value)
        } else {
            self.push(Op::Reshape { shape: shape.into() }, &[value])
        }
    }
    /// Another order of axes.
    pub fn transpose(&mut self, value: ValueId, perm: &[usize]) -> Result<ValueId, GraphError> {
        self.push(Op::Transpose { perm: perm.into() }, &[value])
    }
    /// A repetition along axes of extent 1.
    pub fn broadcast(&mut self, value: ValueId, shape: &[Dim]) -> Result<ValueId, GraphError> {
        if self.ty(value).shape == shape {
            Ok(value)
        } else {
            self.push(Op::Broadcast { shape: shape.into() }, &[value])
        }
    }
    /// A range along one axis.
    pub fn slice(
        &mut self,
        value: ValueId,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<ValueId, GraphError> {
        self.push(Op::Slice { axis, start, len }, &[value])
    }
    /// One after the other.
    pub fn concat(&mut self, axis: usize, values: &[ValueId]) -> Result<ValueId, GraphError> {
        self.push(Op::Concat { axis }, values)
    }
    /// Rows by index.
    pub fn gather(&mut self, rows: ValueId, indices: ValueId) -> Result<ValueId, GraphError> {
        self.push(Op::Gather {}, &[rows, indices])
    }
    /// Rows replaced by index.
    pub fn scatter(&mut self, base: ValueId, indices: ValueId, rows: ValueId) -> Result<ValueId, GraphError> {
        self.push(Op::Scatter {}, &[base, indices, rows])
    }
}
