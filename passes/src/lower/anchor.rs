//! Programs around a contraction or an attention.

use super::value::broadcast_index;
use super::{Lowering, Mode, Refusal};
use sinter_ir::{Atom, AxisId, Dim, Expr, ExprId, Index, Op, ScalarOp, Stage, StageId, ValueId};

impl Lowering<'_> {
    /// The contraction or attention that gives the root's cone its shape. In a cone with a reduction there is none: then
    /// each contraction is materialised.
    pub(crate) fn find_anchor(&self) -> Result<Option<ValueId>, Refusal> {
        let (mut anchors, mut reduces) = (Vec::new(), false);
        let mut stack = vec![self.root];
        let mut seen = std::collections::BTreeSet::new();
        while let Some(value) = stack.pop() {
            let node = self.graph.node(value);
            let stored = self.materialised.contains(&value) && value != self.root;
            if stored || self.weights[value] || !seen.insert(value) {
                continue;
            }
            match &node.op {
                Op::Contract { .. } | Op::Attend { .. } => anchors.push(value),
                Op::Reduce { .. } | Op::TopK { .. } => {
                    reduces = true;
                    stack.extend(&node.args);
                }
                Op::Scatter {} if value == self.root => stack.push(node.args[2]),
                Op::Scatter {} => {}
                _ => stack.extend(&node.args),
            }
        }
        anchors.sort_unstable();
        let attention = anchors.iter().find(|value| matches!(self.graph.node(**value).op, Op::Attend { .. }));
        match anchors.last() {
            Some(last) if reduces => Err(self.refuse(*last, "a reduction follows a product")),
            last => Ok(attention.or(last).copied()),
        }
    }

    /// A contraction with its epilogue: the grid runs over its result. Further contractions of the same shape in the
    /// epilogue become further accumulators.
    pub(crate) fn contraction(&mut self, anchor: ValueId) -> Result<(), Refusal> {
        let shape = self.graph.ty(anchor).shape.clone();
        let mut at = Vec::new();
        for (number, dim) in shape.iter().enumerate() {
            let axis = self.axis(["t", "n", "i", "j", "l"].get(number).unwrap_or(&"x"), *dim);
            self.tile.grid.push(axis);
            at.push(Index::axis(axis));
        }
        self.mode = Mode::Epilogue(at.clone());
        self.epilogue(anchor, vec![], &at, &shape)
    }

    /// Stores the root over the anchor's iteration space; an epilogue that does not follow it is split off.
    fn epilogue(
        &mut self,
        anchor: ValueId,
        axes: Vec<AxisId>,
        at: &[Index],
        shape: &[Dim],
    ) -> Result<(), Refusal> {
        self.store(axes, at, shape).map_err(|refusal| match refusal.value == self.root {
            true if anchor != self.root => self.refuse(anchor, "the epilogue has another shape"),
            _ => refusal,
        })
    }

    /// An attention with its epilogue. When several query heads read the same keys and values (GQA), the head axis is
    /// split so that they are rows of one tile and the repetition is gone.
    pub(crate) fn attention(&mut self, anchor: ValueId) -> Result<(), Refusal> {
        let node = self.graph.node(anchor);
        let Op::Attend { spec } = &node.op else { return Err(self.refuse(anchor, "it is no attention")) };
        let summed = spec.summed();
        let lanes_label = spec.out.chars().find(|label| !spec.a.contains(*label));
        let (Some(lanes_label), true) = (lanes_label, spec.out.len() == 3) else {
            return Err(self.refuse(anchor, "an attention of another form than tokens, heads, lanes"));
        };
        let context = spec.a.find(&summed).map(|at| self.graph.ty(node.args[0]).shape[at]);
        let shape = node.ty.shape.clone();
        let (t, h) = (self.axis("t", shape[0]), self.axis("h", shape[1]));
        let (c, d) = (self.axis("c", context.unwrap_or(Dim::ONE)), self.axis("d", shape[2]));
        let labelled = |labels: &str, head: &Index| -> Vec<Index> {
            let of = |label: char| match spec.out.find(label) {
                _ if label == lanes_label => Index::axis(d),
                None => Index::axis(c),
                Some(0) => Index::axis(t),
                Some(_) => head.clone(),
            };
            labels.chars().map(of).collect()
        };
        self.tile.grid = vec![t, h];
        let mut head = Index::axis(h);
        let (values, factors) = self.weighed(node.args[1], (&spec.b, lanes_label));
        self.members.extend(factors.map(|_| node.args[1]));
        let probe = self.as_load(values, &labelled(&spec.b, &head))?;
        if let Some(group) = probe.index.iter().find_map(|index| shared_heads(index, h)) {
            let g = self.axis("g", Dim::of(group as usize));
            self.tile.axes[h].extent = Dim::of((shape[1].coeff / group) as usize);
            self.tile.grid.push(g);
            head = Index::axis(h).times(group as i64).plus(&Index::axis(g));
        }
        self.mode = Mode::Score;
        let value = self.as_load(values, &labelled(&spec.b, &head))?;
        let score = self.value(node.args[0], &labelled(&spec.a, &head))?;
        let (from, to) = self.bounds(score, c);
        let start =
            node.args.get(2).map(|start| self.start(*start, &labelled(&spec.a, &head))).transpose()?;
        let factor = factors.map(|factors| {
            self.mode = Mode::Epilogue(Vec::new());
            let index = broadcast_index(&self.graph.ty(factors).shape, &labelled(&spec.b, &head));
            self.value(factors, &index)
        });
        let factor = factor.transpose()?;
        self.tile.stages.push(Stage::Online { axis: c, from, to, start, score, lanes: d, value, factor });
        let at = vec![Index::axis(t), head, Index::axis(d)];
        self.mode = Mode::Epilogue(at.clone());
        self.memo.clear();
        self.epilogue(anchor, vec![d], &at, &shape)
    }

    /// Values that are products as their first operand and the second, if that is the same for all lanes of a row: the scale
    /// of codes is a factor of the row's weight.
    fn weighed(&self, values: ValueId, (labels, lanes): (&str, char)) -> (ValueId, Option<ValueId>) {
        let node = self.graph.node(values);
        let Op::Map(ScalarOp::Mul) = node.op else { return (values, None) };
        let [rows, factors] = node.args[..] else { return (values, None) };
        let at = labels.find(lanes);
        let still = at.is_some_and(|at| self.graph.ty(factors).shape.get(at) == Some(&Dim::ONE));
        if still && self.graph.ty(rows).shape == node.ty.shape && !self.materialised.contains(&values) {
            (rows, Some(factors))
        } else {
            (values, None)
        }
    }

    /// The score that the online softmax starts with: no product stands in it.
    fn start(&mut self, value: ValueId, row: &[Index]) -> Result<ExprId, Refusal> {
        self.mode = Mode::Epilogue(Vec::new());
        let row = broadcast_index(&self.graph.ty(value).shape, row);
        self.value(value, &row)
    }

    /// The result of the attention's stage, in its epilogue.
    pub(crate) fn attend_result(&self) -> Result<Expr, Refusal> {
        let at = self.tile.stages.iter().position(|stage| matches!(stage, Stage::Online { .. }));
        at.map(|at| Expr::Stage(StageId(at as u32)))
            .ok_or(self.refuse(self.root, "attention has no result yet"))
    }
}

/// How many consecutive iterations of the head axis read the same rows: the divisor in ⌊h / G⌋.
fn shared_heads(index: &Index, head: AxisId) -> Option<u64> {
    index.terms.iter().find_map(|(atom, _)| match atom {
        Atom::Div(inner, group) if **inner == Index::axis(head) => Some(*group),
        _ => None,
    })
}
