//! Mixtures of experts: a choice for each token, then the weights of the chosen ones gathered and multiplied, as if every
//! token had matrices of its own. That no such matrices are ever written is the compiler's business.

use sinter_ir::{DType, Dim, Monoid, Op, ScalarOp, Sym, ValueId};

use super::emit::{Emit, Emitted};
use crate::spec::{ClampSpec, GroupSpec, MoeSpec, RouterSpec, Scoring, SharedSpec, StackSpec};

/// Added to the sum of the chosen scores where it could be 0, as the models do: σ may give nothing but zeros.
const TINY: f64 = 1e-20;

impl Emit {
    /// The weighted sum of what a token's experts give, and of what the MLP beside them gives, `f32[T, H]`. `x` is normalised,
    /// `stream` is not: where there are norms for it, router and experts read that.
    pub(super) fn experts(&mut self, spec: &MoeSpec, (x, stream): (ValueId, ValueId)) -> Emitted {
        let Some(norms) = &spec.norms else {
            let sum = self.chosen_experts(spec, x, x)?;
            let Some(shared) = &spec.shared else { return Ok(sum) };
            let shared = self.shared(shared, x)?;
            return self.map2(ScalarOp::Add, sum, shared);
        };
        let routed = self.norm(stream, &norms.router)?;
        let routed = self.scaled(routed, norms.router_scale)?;
        let before = self.norm(stream, &norms.before)?;
        let sum = self.chosen_experts(spec, before, routed)?;
        let sum = self.norm(sum, &norms.after)?;
        let Some(shared) = &spec.shared else { return Ok(sum) };
        let shared = self.shared(shared, x)?;
        let shared = self.norm(shared, &norms.shared)?;
        self.map2(ScalarOp::Add, sum, shared)
    }

    /// The weighted sum of what the experts that `routed` chooses make of `x`.
    fn chosen_experts(&mut self, spec: &MoeSpec, x: ValueId, routed: ValueId) -> Emitted {
        let (indices, weights) = self.route(&spec.router, routed)?;
        let narrow = self.narrow(x)?;
        let gate = self.grouped("tk,tjnk->tjn", narrow, (&spec.gate, indices))?;
        let up = self.grouped("tk,tjnk->tjn", narrow, (&spec.up, indices))?;
        let inner = match spec.clamp {
            Some(clamp) => self.clamped(gate, up, clamp)?,
            None => {
                let gate = self.activation(spec.activation, gate)?;
                self.map2(ScalarOp::Mul, gate, up)?
            }
        };
        let inner = self.narrow(inner)?;
        let each = self.grouped("tjk,tjnk->tjn", inner, (&spec.down, indices))?;
        self.graph.contract("tj,tjn->tn", weights, each)
    }

    /// The product with the chosen matrices of a stack.
    fn grouped(&mut self, product: &str, x: ValueId, (spec, indices): (&StackSpec, ValueId)) -> Emitted {
        let stack = self.stack(spec)?;
        let chosen = self.graph.gather(stack, indices)?;
        let product = self.graph.contract(product, x, chosen)?;
        let Some(bias) = &spec.bias else { return Ok(product) };
        let bias = self.stack_bias(spec, bias)?;
        let chosen = self.graph.gather(bias, indices)?;
        self.map2(ScalarOp::Add, product, chosen)
    }

    /// The halves of an expert with limits, multiplied.
    fn clamped(&mut self, gate: ValueId, up: ValueId, clamp: ClampSpec) -> Emitted {
        let gate = self.with(ScalarOp::Min, gate, clamp.limit)?;
        let up = self.clip(up, clamp.limit)?;
        let open = self.with(ScalarOp::Mul, gate, clamp.alpha)?;
        let open = self.sigmoid(open)?;
        let gate = self.map2(ScalarOp::Mul, gate, open)?;
        let up = self.with(ScalarOp::Add, up, 1.0)?;
        self.map2(ScalarOp::Mul, up, gate)
    }

    fn shared(&mut self, spec: &SharedSpec, x: ValueId) -> Emitted {
        let y = self.mlp(&spec.mlp, x)?;
        let Some(gate) = &spec.gate else { return Ok(y) };
        let gate = self.linear(x, gate)?;
        let gate = self.sigmoid(gate)?;
        self.map2(ScalarOp::Mul, gate, y)
    }

    /// The experts of each token, `u32[T, k]`, and their weights, `f32[T, k]`.
    fn route(&mut self, spec: &RouterSpec, x: ValueId) -> Result<(ValueId, ValueId), sinter_ir::GraphError> {
        let experts = spec.linear.n_out;
        let logits = self.linear(x, &spec.linear)?;
        let scores = match spec.scoring {
            Scoring::Softmax => self.softmax(logits, 1)?,
            Scoring::Sigmoid => self.sigmoid(logits)?,
            Scoring::SoftmaxOfChosen => logits,
        };
        let mut by = scores;
        if let Some(correction) = &spec.correction {
            let correction = self.vector(correction, experts, 2)?;
            by = self.map2(ScalarOp::Add, by, correction)?;
        }
        if let Some(groups) = spec.groups {
            by = self.best_groups(by, groups, experts)?;
        }
        let indices = self.graph.push(Op::TopK { k: spec.chosen }, &[by])?;
        let mut weights = self.along(scores, indices)?;
        if spec.scoring == Scoring::SoftmaxOfChosen {
            weights = self.softmax(weights, 1)?;
        }
        if spec.normalise {
            let mut sum = self.graph.reduce(Monoid::Sum, 1, weights)?;
            if spec.scoring == Scoring::Sigmoid {
                sum = self.with(ScalarOp::Add, sum, TINY)?;
            }
            weights = self.map2(ScalarOp::Div, weights, sum)?;
        }
        weights = self.scaled(weights, spec.scale)?;
        if let Some(each) = &spec.each {
            let each = self.vector(each, experts, 1)?;
            let each = self.graph.gather(each, indices)?;
            weights = self.map2(ScalarOp::Mul, weights, each)?;
        }
        Ok((indices, weights))
    }

    /// The elements of each row of `x`, `[T, …, N]`, at the row's own indices.
    fn along(&mut self, x: ValueId, indices: ValueId) -> Emitted {
        let shape = self.graph.ty(x).shape.clone();
        let extents: Vec<u64> = shape.iter().skip(1).map(|dim| dim.coeff).collect();
        let (rows, width) = match extents.split_last() {
            Some((width, outer)) => (outer.iter().product(), *width),
            None => (1, 1),
        };
        let row = self.graph.push(Op::Iota { len: Dim::times(Sym::T, rows) }, &[])?;
        let mut one_each = shape;
        one_each.pop();
        one_each.push(Dim::ONE);
        let row = self.graph.reshape(row, &one_each)?;
        let size = self.graph.constant(width as f64, DType::U32)?;
        let start = self.map2(ScalarOp::Mul, row, size)?;
        let at = self.map2(ScalarOp::Add, start, indices)?;
        let flat = self.graph.reshape(x, &[Dim::times(Sym::T, rows * width)])?;
        self.graph.gather(flat, at)
    }

    /// The scores, −∞ outside the best groups: those whose best scores have the greatest sums.
    fn best_groups(&mut self, scores: ValueId, groups: GroupSpec, experts: usize) -> Emitted {
        let by_group = self.by_token(scores, &[groups.count, experts / groups.count])?;
        let best = self.graph.push(Op::TopK { k: groups.best }, &[by_group])?;
        let best = self.along(by_group, best)?;
        let sums = self.graph.reduce(Monoid::Sum, 2, best)?;
        let sums = self.by_token(sums, &[groups.count])?;
        let open = self.graph.push(Op::TopK { k: groups.chosen }, &[sums])?;
        let open = self.by_token(open, &[1, groups.chosen])?;
        let group = self.graph.push(Op::Iota { len: Dim::of(groups.count) }, &[])?;
        let group = self.graph.reshape(group, &[Dim::ONE, Dim::of(groups.count), Dim::ONE])?;
        let is_open = self.map2(ScalarOp::Eq, group, open)?;
        let is_open = self.graph.cast(is_open, DType::F32)?;
        let is_open = self.graph.reduce(Monoid::Max, 2, is_open)?;
        let nothing = self.number(0.0)?;
        let is_open = self.map2(ScalarOp::Lt, nothing, is_open)?;
        let never = self.number(f64::NEG_INFINITY)?;
        let left = self.graph.map(ScalarOp::Select, &[is_open, by_group, never])?;
        self.by_token(left, &[experts])
    }
}
