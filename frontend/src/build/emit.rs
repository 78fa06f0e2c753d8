//! The short words that the blocks are written in.

use std::collections::BTreeMap;

use sinter_ir::{DType, Dim, Graph, GraphError, Monoid, ScalarOp, Sym, ValueId, dequantised};

use super::{Activations, BuildOptions};
use crate::quant::StoredMatrix;
use crate::spec::{MatrixLayout, StackForm, StackSpec};

/// A value, or the rule that it breaks.
pub(super) type Emitted = Result<ValueId, GraphError>;

/// A graph being written.
pub(super) struct Emit {
    pub(super) graph: Graph,
    pub(super) options: BuildOptions,
    /// Each weight is one node, also where it is used twice.
    params: BTreeMap<String, ValueId>,
    /// The matrices that are quantised in the checkpoint, and the values of those that were written.
    stored: BTreeMap<String, StoredMatrix>,
    dequantised: BTreeMap<String, ValueId>,
    /// Each activation is narrowed once, also where several products read it.
    narrowed: BTreeMap<ValueId, ValueId>,
    /// The codes of quantised activations, and the scales of their rows.
    pub(super) rounded: BTreeMap<ValueId, (ValueId, ValueId)>,
}

impl Emit {
    pub(super) fn new(name: &str, options: BuildOptions, stored: &BTreeMap<String, StoredMatrix>) -> Self {
        Emit {
            graph: Graph::new(name),
            options,
            params: BTreeMap::new(),
            stored: stored.clone(),
            dequantised: BTreeMap::new(),
            narrowed: BTreeMap::new(),
            rounded: BTreeMap::new(),
        }
    }

    pub(super) fn input(&mut self, name: &str, shape: &[Dim]) -> Emitted {
        self.graph.input(name, DType::U32, shape)
    }

    pub(super) fn param(&mut self, name: &str, dtype: DType, shape: &[usize]) -> Emitted {
        if let Some(value) = self.params.get(name) {
            return Ok(*value);
        }
        let shape: Vec<Dim> = shape.iter().copied().map(Dim::of).collect();
        let value = self.graph.param(name, dtype, &shape)?;
        self.params.insert(name.to_owned(), value);
        Ok(value)
    }

    /// Whether the checkpoint holds a matrix quantised.
    pub(super) fn is_stored(&self, name: &str) -> bool {
        self.stored.contains_key(name)
    }

    /// A matrix or a table, in the type of the build.
    pub(super) fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Emitted {
        match self.numbers(name)? {
            Some(value) => self.graph.cast(value, self.options.weight_dtype),
            None => self.param(name, self.options.weight_dtype, &[rows, columns]),
        }
    }

    /// The numbers of a matrix that is stored quantised, in f32.
    fn numbers(&mut self, name: &str) -> Result<Option<ValueId>, GraphError> {
        if let Some(value) = self.dequantised.get(name) {
            return Ok(Some(*value));
        }
        let Some(stored) = self.stored.get(name).cloned() else { return Ok(None) };
        let value = self.dequantised(&stored)?;
        self.dequantised.insert(name.to_owned(), value);
        Ok(Some(value))
    }

    /// The numbers of a matrix in f32 where activations are quantised before products with it: its codes are whole numbers,
    /// with scales for groups of columns.
    pub(super) fn codes_of(&mut self, name: &str) -> Result<Option<ValueId>, GraphError> {
        if self.options.activations == Activations::Exact {
            return Ok(None);
        }
        Ok(self.numbers(name)?.filter(|value| dequantised(&self.graph, *value).is_some()))
    }

    /// The matrices of all experts as one `[E, N, K]`.
    pub(super) fn stack(&mut self, spec: &StackSpec) -> Emitted {
        if let StackForm::Joined { parts, layout, .. } = spec.form {
            let (count, n_in, outputs) = (spec.count, spec.n_in, parts * spec.n_out);
            if self.is_stored(&spec.weight) {
                let all = self.matrix(&spec.weight, count * outputs, n_in)?;
                let all = self.graph.reshape(all, &[count, outputs, n_in].map(Dim::of))?;
                return self.part_of(all, 1, spec);
            }
            let dtype = self.options.weight_dtype;
            if layout == MatrixLayout::OutIn {
                let all = self.param(&spec.weight, dtype, &[count, outputs, n_in])?;
                return self.part_of(all, 1, spec);
            }
            let all = self.param(&spec.weight, dtype, &[count, n_in, outputs])?;
            let own = self.part_of(all, 2, spec)?;
            return self.graph.transpose(own, &[0, 2, 1]);
        }
        let each = [Dim::ONE, Dim::of(spec.n_out), Dim::of(spec.n_in)];
        let mut parts = Vec::with_capacity(spec.count);
        for expert in 0..spec.count {
            let name = spec.weight.replace("{e}", &expert.to_string());
            let matrix = self.matrix(&name, spec.n_out, spec.n_in)?;
            parts.push(self.graph.reshape(matrix, &each)?);
        }
        self.graph.concat(0, &parts)
    }

    /// What is added to the outputs of all experts, `[E, N]`.
    pub(super) fn stack_bias(&mut self, spec: &StackSpec, name: &str) -> Emitted {
        let parts = if let StackForm::Joined { parts, .. } = spec.form { parts } else { 1 };
        let all = self.param(name, DType::F32, &[spec.count, parts * spec.n_out])?;
        self.part_of(all, 1, spec)
    }

    /// Of stacks that stand side by side along an axis, the one that is meant.
    fn part_of(&mut self, all: ValueId, axis: usize, spec: &StackSpec) -> Emitted {
        let StackForm::Joined { parts, part, turns, .. } = spec.form else { return Ok(all) };
        if parts == 1 || !turns {
            let first = part * spec.n_out;
            return if parts == 1 { Ok(all) } else { self.graph.slice(all, axis, first, spec.n_out) };
        }
        let mut shape = self.graph.ty(all).shape.clone();
        let mut by_turn = shape.clone();
        by_turn.splice(axis..=axis, [spec.n_out, parts].map(Dim::of));
        shape[axis] = Dim::of(spec.n_out);
        let all = self.graph.reshape(all, &by_turn)?;
        let own = self.graph.slice(all, axis + 1, part, 1)?;
        self.graph.reshape(own, &shape)
    }

    /// A vector in f32, with `rank − 1` axes of extent 1 before it.
    pub(super) fn vector(&mut self, name: &str, len: usize, rank: usize) -> Emitted {
        let value = self.param(name, DType::F32, &[len])?;
        let mut shape = vec![Dim::ONE; rank.saturating_sub(1)];
        shape.push(Dim::of(len));
        self.graph.reshape(value, &shape)
    }

    /// Vectors in f32, one for each head: `[1, count, len]`.
    pub(super) fn vectors(&mut self, name: &str, count: usize, len: usize) -> Emitted {
        if name.contains("{h}") {
            let mut each = Vec::with_capacity(count);
            for head in 0..count {
                each.push(self.vector(&name.replace("{h}", &head.to_string()), len, 3)?);
            }
            return self.graph.concat(1, &each);
        }
        let value = self.param(name, DType::F32, &[count, len])?;
        self.graph.reshape(value, &[Dim::ONE, Dim::of(count), Dim::of(len)])
    }

    pub(super) fn number(&mut self, value: f64) -> Emitted {
        self.graph.constant(value, DType::F32)
    }

    pub(super) fn map1(&mut self, op: ScalarOp, x: ValueId) -> Emitted {
        self.graph.map(op, &[x])
    }

    pub(super) fn map2(&mut self, op: ScalarOp, x: ValueId, y: ValueId) -> Emitted {
        self.graph.map(op, &[x, y])
    }

    /// A function of a value and a number.
    pub(super) fn with(&mut self, op: ScalarOp, x: ValueId, number: f64) -> Emitted {
        let number = self.number(number)?;
        self.map2(op, x, number)
    }

    /// x · factor; x itself for 1.
    pub(super) fn scaled(&mut self, x: ValueId, factor: f64) -> Emitted {
        if factor == 1.0 { Ok(x) } else { self.with(ScalarOp::Mul, x, factor) }
    }

    /// cap · tanh(x / cap).
    pub(super) fn softcap(&mut self, x: ValueId, cap: Option<f64>) -> Emitted {
        let Some(cap) = cap else { return Ok(x) };
        let inner = self.with(ScalarOp::Div, x, cap)?;
        let inner = self.map1(ScalarOp::Tanh, inner)?;
        self.with(ScalarOp::Mul, inner, cap)
    }

    /// e^(x − max) / Σ e^(x − max) along an axis.
    pub(super) fn softmax(&mut self, x: ValueId, axis: usize) -> Emitted {
        let max = self.graph.reduce(Monoid::Max, axis, x)?;
        let e = self.map2(ScalarOp::Sub, x, max)?;
        let e = self.map1(ScalarOp::Exp, e)?;
        let sum = self.graph.reduce(Monoid::Sum, axis, e)?;
        self.map2(ScalarOp::Div, e, sum)
    }

    /// The same with one more element along the axis, which is then left out.
    pub(super) fn softmax_beside(&mut self, x: ValueId, axis: usize, more: ValueId) -> Emitted {
        let max = self.graph.reduce(Monoid::Max, axis, x)?;
        let max = self.map2(ScalarOp::Max, max, more)?;
        let e = self.map2(ScalarOp::Sub, x, max)?;
        let e = self.map1(ScalarOp::Exp, e)?;
        let rest = self.map2(ScalarOp::Sub, more, max)?;
        let rest = self.map1(ScalarOp::Exp, rest)?;
        let sum = self.graph.reduce(Monoid::Sum, axis, e)?;
        let sum = self.map2(ScalarOp::Add, sum, rest)?;
        self.map2(ScalarOp::Div, e, sum)
    }

    /// Rounded to bf16, in f32.
    pub(super) fn rounded(&mut self, x: ValueId) -> Emitted {
        let x = self.graph.cast(x, DType::Bf16)?;
        self.graph.cast(x, DType::F32)
    }

    /// 1 / (1 + e^−x).
    pub(super) fn sigmoid(&mut self, x: ValueId) -> Emitted {
        let e = self.map1(ScalarOp::Neg, x)?;
        let e = self.map1(ScalarOp::Exp, e)?;
        let e = self.with(ScalarOp::Add, e, 1.0)?;
        self.map1(ScalarOp::Recip, e)
    }

    /// The mean along the last axis, which stays with extent 1.
    pub(super) fn mean(&mut self, x: ValueId, width: usize) -> Emitted {
        let axis = self.graph.ty(x).rank().saturating_sub(1);
        let sum = self.graph.reduce(Monoid::Sum, axis, x)?;
        self.with(ScalarOp::Mul, sum, 1.0 / width as f64)
    }

    /// An activation in the type in which products are computed.
    pub(super) fn narrow(&mut self, x: ValueId) -> Emitted {
        if let Some(value) = self.narrowed.get(&x) {
            return Ok(*value);
        }
        let value = self.graph.cast(x, self.options.weight_dtype)?;
        self.narrowed.insert(x, value);
        Ok(value)
    }

    /// The shape [T, …].
    pub(super) fn by_token(&mut self, x: ValueId, rest: &[usize]) -> Emitted {
        let shape: Vec<Dim> =
            std::iter::once(Dim::from(Sym::T)).chain(rest.iter().copied().map(Dim::of)).collect();
        self.graph.reshape(x, &shape)
    }
}
