//! The expression of a value at a point of the iteration space.

use super::index::{div, rem, reshape};
use super::{Lowering, MEMORY, Mode, RESHAPE, Refusal, Source};
use sinter_ir::{
    Access, Atom, DType, Dim, Expr, ExprId, Index, Layout, Load, Op, ParamId, ScalarOp, Stage, StageId,
    TileParam, Type, ValueId,
};

impl Lowering<'_> {
    /// The expression of `value` at `index`, one index for each of its axes.
    pub(crate) fn value(&mut self, value: ValueId, index: &[Index]) -> Result<ExprId, Refusal> {
        let key = (value, index.to_vec());
        if let Some(known) = self.memo.get(&key) {
            return Ok(*known);
        }
        let expr = self.build(value, index)?;
        let id = self.tile.expr(expr);
        self.memo.insert(key, id);
        Ok(id)
    }

    fn build(&mut self, value: ValueId, index: &[Index]) -> Result<Expr, Refusal> {
        let node = self.graph.node(value);
        if self.is_stored(value) {
            return Ok(Expr::Load(self.load(value, index)?));
        }
        if node.ty.dtype == DType::U32 && !matches!(node.op, Op::Cast { .. } | Op::TopK { .. }) {
            return Ok(Expr::Index(self.index_of(value, index)?));
        }
        self.members.insert(value);
        match &node.op {
            Op::Const { value, .. } => Ok(Expr::Const(*value)),
            Op::Map(scalar) => {
                let mut args = Vec::with_capacity(node.args.len());
                for arg in &node.args {
                    let at = broadcast_index(&self.graph.ty(*arg).shape, index);
                    args.push(self.value(*arg, &at)?);
                }
                Ok(Expr::Apply(*scalar, args))
            }
            Op::Cast { dtype } => {
                let arg = self.value(node.args[0], index)?;
                let widens = *dtype == DType::F32 && self.graph.ty(node.args[0]).dtype.is_float();
                Ok(if widens { self.tile.exprs[arg].clone() } else { Expr::Cast(*dtype, arg) })
            }
            Op::Reduce { monoid, axis } => self.reduce(value, index, *monoid, *axis),
            Op::TopK { .. } => self.choice(value, index),
            Op::Contract { .. } => self.contract(value, index),
            Op::Attend { .. } => match &self.mode {
                Mode::Epilogue(at) if at == index => self.attend_result(),
                _ => Err(self.refuse(value, "attention is a kernel of its own")),
            },
            op if op.is_view() || matches!(op, Op::Gather {} | Op::Concat { .. }) => {
                let (source, at) = self.step(value, index)?;
                let arg = self.value(source, &at)?;
                Ok(self.tile.exprs[arg].clone())
            }
            Op::Scatter {} => Err(self.refuse(value, "the cache is written by a kernel of its own")),
            _ => Err(self.refuse(value, "no tile program computes it")),
        }
    }

    /// Whether a value lies in memory when this group runs.
    fn is_stored(&self, value: ValueId) -> bool {
        let node = self.graph.node(value);
        let widens =
            matches!(node.op, Op::Cast { dtype: DType::F32 }) && self.graph.ty(node.args[0]).dtype.is_float();
        let weight =
            self.weights[value] && !node.op.is_view() && !matches!(node.op, Op::Const { .. }) && !widens;
        let stored = self.materialised.contains(&value) && value != self.root;
        weight || stored || matches!(node.op, Op::Input { .. } | Op::State { .. } | Op::Param { .. })
    }

    fn load(&mut self, value: ValueId, index: &[Index]) -> Result<Load, Refusal> {
        let shape = self.graph.ty(value).shape.clone();
        let source =
            if self.weights[value] { Source::Weight(value, Layout::Rows) } else { Source::Value(value) };
        let param = self.param(source, &shape, Access::Read);
        Ok(Load { param, index: index.to_vec() })
    }

    /// One view, gather or concatenation undone: the operand and the indices into it.
    fn step(&mut self, value: ValueId, index: &[Index]) -> Result<(ValueId, Vec<Index>), Refusal> {
        let node = self.graph.node(value);
        let operand = node.args[0];
        let from = &self.graph.ty(operand).shape;
        let mut at = index.to_vec();
        match &node.op {
            Op::Reshape { shape } => {
                at = reshape(self.space(), index, shape, from).ok_or(self.refuse(operand, RESHAPE))?;
            }
            Op::Transpose { perm } => {
                perm.iter().zip(index).for_each(|(axis, index)| at[*axis] = index.clone())
            }
            Op::Broadcast { .. } => at = broadcast_index(from, index),
            Op::Slice { axis, start, .. } => at[*axis] = at[*axis].plus(&Index::constant(*start as i64)),
            Op::Gather {} => {
                let rank = self.graph.ty(node.args[1]).rank();
                let row = self.index_of(node.args[1], &index[..rank])?;
                at = std::iter::once(row).chain(index[rank..].iter().cloned()).collect();
            }
            Op::Concat { axis } => return self.concat_part(value, index, *axis),
            _ => return Err(self.refuse(value, "it is no view")),
        }
        Ok((operand, at))
    }

    /// The operand of a concatenation in which an index is proved to lie.
    fn concat_part(
        &mut self,
        value: ValueId,
        index: &[Index],
        axis: usize,
    ) -> Result<(ValueId, Vec<Index>), Refusal> {
        let node = self.graph.node(value);
        let range = super::index::range(self.space(), &index[axis]);
        let mut start = 0;
        for arg in &node.args {
            let len = self.graph.ty(*arg).shape[axis].as_const().unwrap_or(0) as i64;
            if range.is_some_and(|(low, high)| low >= start && high < start + len) {
                let mut at = index.to_vec();
                at[axis] = at[axis].plus(&Index::constant(-start));
                return Ok((*arg, at));
            }
            start += len;
        }
        Err(self.refuse(value, "the parts of a concatenation are read across their border"))
    }

    /// The load to which a value comes down through views and gathers; anything else must be materialised.
    pub(crate) fn as_load(&mut self, value: ValueId, index: &[Index]) -> Result<Load, Refusal> {
        let (mut value, mut at) = (value, index.to_vec());
        loop {
            if self.is_stored(value) {
                return self.load(value, &at);
            }
            self.members.insert(value);
            // A reshape of something stored is the same memory under another shape.
            if let Op::Reshape { shape } = &self.graph.node(value).op
                && let Some(base) = self.stored_below(value)
                && !self.weights[base]
            {
                let param = self.param(Source::Value(base), shape, Access::Read);
                return Ok(Load { param, index: at });
            }
            let node = self.graph.node(value);
            // Whole numbers of a byte are multiplied as numbers too.
            let widens = matches!(node.op, Op::Cast { dtype: DType::F32 })
                && (self.graph.ty(node.args[0]).dtype.is_float()
                    || self.graph.ty(node.args[0]).dtype == DType::I8);
            if widens {
                value = node.args[0];
            } else if let Some(bytes) = self.halves(value) {
                return self.load_halves(bytes, at);
            } else if node.op.is_view() || matches!(node.op, Op::Gather {}) {
                (value, at) = self.step(value, &at)?;
            } else {
                return Err(self.refuse(value, MEMORY));
            }
        }
    }

    /// The bytes, `u8[…, D / 2]`, whose halves less 8 a value is, `f32[…, D]`, lower half first: as the front end writes it.
    fn halves(&mut self, value: ValueId) -> Option<ValueId> {
        let graph = self.graph;
        let of = |value: ValueId, op: fn(&Op) -> bool| {
            let node = graph.node(value);
            op(&node.op).then_some(&node.args[..])
        };
        let number = |value: ValueId, wanted: f64| matches!(&graph.node(value).op, Op::Const { value, .. } if value.get() == wanted);
        let [numbers, eight] = of(value, |op| *op == Op::Map(ScalarOp::Sub))? else { return None };
        let [halves] = of(*numbers, |op| *op == Op::Cast { dtype: DType::F32 })? else { return None };
        let [parts] = of(*halves, |op| matches!(op, Op::Reshape { .. }))? else { return None };
        let [lower, upper] = of(*parts, |op| matches!(op, Op::Concat { .. }))? else { return None };
        let [low, mask] = of(*lower, |op| *op == Op::Map(ScalarOp::Bitand))? else { return None };
        let [high, shift] = of(*upper, |op| *op == Op::Map(ScalarOp::Shr))? else { return None };
        let [bytes] = of(*low, |op| matches!(op, Op::Reshape { .. }))? else { return None };
        let (wide, single) = (&graph.ty(value).shape, &graph.ty(*low).shape);
        let (pairs, packed) = (&graph.ty(*parts).shape, &graph.ty(*bytes).shape);
        let rows = packed.split_last().zip(wide.split_last());
        let whole = rows.is_some_and(|((half, outer), (last, others))| {
            outer == others && last.sym == half.sym && last.coeff == 2 * half.coeff
        });
        let neighbours = pairs.last() == Some(&Dim::of(2))
            && single.last() == Some(&Dim::ONE)
            && pairs[..pairs.len() - 1] == packed[..];
        let good = low == high && number(*eight, 8.0) && number(*mask, 15.0) && number(*shift, 4.0);
        if !(good && whole && neighbours) {
            return None;
        }
        self.members.extend([*numbers, *halves, *parts, *lower, *upper, *low, *eight, *mask, *shift]);
        Some(*bytes)
    }

    /// The load of a half of bytes that are gathered rows.
    fn load_halves(&mut self, bytes: ValueId, at: Vec<Index>) -> Result<Load, Refusal> {
        let (mut value, mut at) = (bytes, at);
        while !self.is_stored(value) {
            if !matches!(self.graph.node(value).op, Op::Gather {}) {
                return Err(self.refuse(value, MEMORY));
            }
            self.members.insert(value);
            (value, at) = self.step(value, &at)?;
        }
        let mut shape = self.graph.ty(value).shape.clone();
        shape.iter_mut().next_back().into_iter().for_each(|last| last.coeff *= 2);
        let (source, ty) = (Source::Value(value), Type::new(DType::I8, shape));
        let same = |(id, param): &(ParamId, &TileParam)| {
            self.sources[id.0 as usize] == source && (&param.ty, param.layout) == (&ty, Layout::Halves)
        };
        if let Some((id, _)) = self.tile.params.iter().find(same) {
            return Ok(Load { param: id, index: at });
        }
        self.sources.push(source);
        let (name, layout) = (format!("v{}", value.0), Layout::Halves);
        let param = self.tile.params.push(TileParam { name, ty, access: Access::Read, layout });
        Ok(Load { param, index: at })
    }

    fn stored_below(&self, value: ValueId) -> Option<ValueId> {
        let node = self.graph.node(value);
        match node.op {
            _ if self.is_stored(value) => Some(value),
            Op::Reshape { .. } => self.stored_below(node.args[0]),
            _ => None,
        }
    }

    /// The index arithmetic of a u32 value.
    pub(crate) fn index_of(&mut self, value: ValueId, index: &[Index]) -> Result<Index, Refusal> {
        if self.is_stored(value) {
            return Ok(Index::atom(Atom::Load(Box::new(self.load(value, index)?))));
        }
        let node = self.graph.node(value);
        self.members.insert(value);
        match &node.op {
            Op::Const { value, .. } => Ok(Index::constant(value.get() as i64)),
            Op::Iota { .. } => Ok(index[0].clone()),
            Op::Map(scalar) => {
                let mut args = Vec::with_capacity(2);
                for arg in &node.args {
                    let at = broadcast_index(&self.graph.ty(*arg).shape, index);
                    args.push(self.index_of(*arg, &at)?);
                }
                match (scalar, args[0].as_constant(), args.get(1).and_then(Index::as_constant)) {
                    (ScalarOp::Add, ..) => Ok(args[0].plus(&args[1])),
                    (ScalarOp::Mul, _, Some(factor)) => Ok(args[0].times(factor)),
                    (ScalarOp::Mul, Some(factor), _) => Ok(args[1].times(factor)),
                    (ScalarOp::Idiv, _, Some(by)) if by > 0 => Ok(div(self.space(), &args[0], by as u64)),
                    (ScalarOp::Mod, _, Some(by)) if by > 0 => Ok(rem(self.space(), &args[0], by as u64)),
                    _ => Err(self.refuse(value, "it is not index arithmetic")),
                }
            }
            op if op.is_view() || matches!(op, Op::Gather {} | Op::Concat { .. }) => {
                let (source, at) = self.step(value, index)?;
                self.index_of(source, &at)
            }
            Op::TopK { .. } => Err(self.refuse(value, MEMORY)),
            _ => Err(self.refuse(value, "no tile program computes it")),
        }
    }

    fn contract(&mut self, value: ValueId, index: &[Index]) -> Result<Expr, Refusal> {
        let allowed = match &self.mode {
            Mode::Epilogue(at) => at == index,
            Mode::Score => true,
            Mode::Rows => false,
        };
        if !allowed {
            return Err(self.refuse(value, "a product's result is read in another order than it is computed"));
        }
        match self.few_products(value) {
            Some(few) if self.mode != Mode::Score => self.unrolled(value, index, few),
            _ => self.mma(value, index),
        }
    }

    /// The number of products that each result of a contraction of activations adds up, if it is small.
    fn few_products(&self, value: ValueId) -> Option<u64> {
        let node = self.graph.node(value);
        let Op::Contract { spec } = &node.op else { return None };
        let summed = spec.summed();
        let extent = self.graph.ty(node.args[0]).shape[spec.a.find(&summed)?].as_const()?;
        let activations = node.args.iter().all(|arg| !self.weights[*arg]);
        let grouped = crate::merge::stack_of(self.graph, self.weights, value).is_some();
        (summed.len() == 1 && activations && !grouped && (1..=FEW).contains(&extent)).then_some(extent)
    }

    /// A sum of few products as an expression: the weighted sum of a token's experts.
    fn unrolled(&mut self, value: ValueId, index: &[Index], count: u64) -> Result<Expr, Refusal> {
        let node = self.graph.node(value);
        let Op::Contract { spec } = &node.op else { return Err(self.refuse(value, "it is no product")) };
        let mut sum = None;
        for at in 0..count {
            let mut product = Vec::with_capacity(2);
            for (arg, labels) in node.args.iter().zip([&spec.a, &spec.b]) {
                let summed = Index::constant(at as i64);
                let load = self.as_load(*arg, &labelled(labels, &spec.out, index, &summed))?;
                product.push(self.tile.expr(Expr::Load(load)));
            }
            let product = self.tile.expr(Expr::Apply(ScalarOp::Mul, product));
            sum = Some(match sum {
                None => product,
                Some(sum) => self.tile.expr(Expr::Apply(ScalarOp::Add, vec![sum, product])),
            });
        }
        sum.map(|sum| self.tile.exprs[sum].clone()).ok_or(self.refuse(value, "an empty product"))
    }

    /// The stage that contracts two loads.
    pub(crate) fn mma(&mut self, value: ValueId, index: &[Index]) -> Result<Expr, Refusal> {
        let node = self.graph.node(value);
        let Op::Contract { spec } = &node.op else { return Err(self.refuse(value, "it is no product")) };
        let summed = spec.summed();
        if summed.len() != 1 {
            return Err(self.refuse(value, "a product over several labels"));
        }
        let at = spec.a.find(&summed).unwrap_or(0);
        let axis = self.axis("k", self.graph.ty(node.args[0]).shape[at]);
        let labelled = |labels: &str| labelled(labels, &spec.out, index, &Index::axis(axis));
        let a = self.as_load(node.args[0], &labelled(&spec.a))?;
        let mut at = labelled(&spec.b);
        let stack = crate::merge::stack_of(self.graph, self.weights, value);
        let b = if let Some((weight, choice)) = stack {
            // The gathered weights never lie in memory: which matrix of the stack is read is an index.
            let rank = self.graph.ty(choice).rank();
            let matrix = self.index_of(choice, &at[..rank])?;
            self.members.insert(node.args[1]);
            self.panels(weight, std::iter::once(matrix).chain(at.drain(rank..)).collect())
        } else if crate::merge::is_linear(self.graph, self.weights, value)
            || crate::merge::is_by_head(self.graph, self.weights, value)
        {
            self.panels(node.args[1], at)
        } else {
            self.as_load(node.args[1], &at)?
        };
        self.tile.stages.push(Stage::Mma { axis, a, b });
        Ok(Expr::Stage(StageId(self.tile.stages.len() as u32 - 1)))
    }

    /// The load of a weight that a product reads in panels.
    fn panels(&mut self, weight: ValueId, index: Vec<Index>) -> Load {
        let shape = self.graph.ty(weight).shape.clone();
        let param = self.param(Source::Weight(weight, Layout::Panels), &shape, Access::Read);
        Load { param, index }
    }
}

/// A sum of so many products is unrolled.
const FEW: u64 = 16;

/// The indices of an operand's labels: those of the result where it has them, else the summed one.
fn labelled(labels: &str, out: &str, index: &[Index], summed: &Index) -> Vec<Index> {
    labels.chars().map(|label| out.find(label).map_or(summed, |at| &index[at]).clone()).collect()
}

/// The indices into an operand that repeats along axes of extent 1; a rank-0 operand has none.
pub(crate) fn broadcast_index(shape: &[Dim], index: &[Index]) -> Vec<Index> {
    let repeat =
        |(dim, index): (&Dim, &Index)| if *dim == Dim::ONE { Index::constant(0) } else { index.clone() };
    shape.iter().zip(index).map(repeat).collect()
}
