//! Row programs: maps and reductions over whole rows.

use super::{Lowering, Mode, Refusal};
use sinter_ir::{Dim, Expr, Index, Monoid, Op, ScalarOp, Stage, StageId, ValueId};
use std::collections::BTreeSet;

impl Lowering<'_> {
    /// A program without a contraction: the grid runs over all axes but the last, stores over the last. Where parts of
    /// the last axis are computed differently (a concatenation, such as RoPE's halves), each part has its own store.
    pub(crate) fn rows(&mut self) -> Result<(), Refusal> {
        self.mode = Mode::Rows;
        let node = self.graph.node(self.root);
        let rows = if let Op::Scatter {} = node.op { node.args[2] } else { self.root };
        let shape = self.graph.ty(rows).shape.clone();
        let Some((last, outer)) = shape.split_last() else { return self.store(vec![], &[], &[]) };
        let mut at: Vec<Index> = Vec::new();
        for (number, dim) in outer.iter().enumerate() {
            let axis = self.axis(["t", "h", "i", "j", "l"].get(number).unwrap_or(&"x"), *dim);
            self.tile.grid.push(axis);
            at.push(Index::axis(axis));
        }
        let Some(extent) = last.as_const() else {
            let lane = self.axis("d", *last);
            at.push(Index::axis(lane));
            return self.store(vec![lane], &at, &shape);
        };
        let mut borders = BTreeSet::from([0, extent as usize]);
        self.borders(rows, 0, &mut borders);
        let borders: Vec<usize> = borders.into_iter().collect();
        for pair in borders.windows(2) {
            if pair[1] - pair[0] == 1 {
                at.push(Index::constant(pair[0] as i64));
                self.store(vec![], &at, &shape)?;
                at.pop();
                continue;
            }
            let lane = self.axis("d", Dim::of(pair[1] - pair[0]));
            at.push(Index::axis(lane).plus(&Index::constant(pair[0] as i64)));
            self.store(vec![lane], &at, &shape)?;
            at.pop();
        }
        Ok(())
    }

    /// Where along the last axis the computation changes, seen from the root at an offset.
    fn borders(&self, value: ValueId, offset: usize, borders: &mut BTreeSet<usize>) {
        let node = self.graph.node(value);
        if (self.materialised.contains(&value) && value != self.root) || self.weights[value] {
            return;
        }
        match &node.op {
            Op::Concat { axis } if *axis + 1 == node.ty.rank() => {
                let mut start = offset;
                for arg in &node.args {
                    borders.insert(start);
                    self.borders(*arg, start, borders);
                    start += self.graph.ty(*arg).shape[*axis].as_const().unwrap_or(0) as usize;
                }
            }
            // Each place of the choice has reductions of its own.
            Op::TopK { k } => borders.extend((0..*k).map(|place| offset + place)),
            Op::Map(_) | Op::Cast { .. } => {
                let same = |arg: &&ValueId| self.graph.ty(**arg).shape.last() == node.ty.shape.last();
                node.args.iter().filter(same).for_each(|arg| self.borders(*arg, offset, borders));
            }
            Op::Reshape { .. } if self.graph.ty(node.args[0]).shape.last() == node.ty.shape.last() => {
                self.borders(node.args[0], offset, borders);
            }
            _ => {}
        }
    }

    /// Refuses a reduction at indices that depend on more than the grid point, and one in a product's epilogue.
    pub(crate) fn once_a_point<'i>(
        &self,
        value: ValueId,
        fixed: impl Iterator<Item = &'i Index>,
    ) -> Result<(), Refusal> {
        let mut axes = fixed.flat_map(Index::axes);
        if self.mode == Mode::Rows && axes.all(|axis| self.tile.grid.contains(&axis)) {
            return Ok(());
        }
        Err(self.refuse(value, "a reduction's result is used across its rows"))
    }

    /// The stage that folds an operand along an axis. It runs once for each grid point, so its other indices must not
    /// depend on the lanes of a store.
    pub(crate) fn reduce(
        &mut self,
        value: ValueId,
        index: &[Index],
        monoid: Monoid,
        axis: usize,
    ) -> Result<Expr, Refusal> {
        let fixed = index.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, index)| index);
        self.once_a_point(value, fixed)?;
        let operand = self.graph.node(value).args[0];
        let extent = self.graph.ty(operand).shape[axis];
        let mut borders = BTreeSet::from([0]);
        if let (Monoid::Max, Some(extent), true) = (monoid, extent.as_const(), axis + 1 == index.len()) {
            // The greatest of parts is the greatest of all; a sum of parts would be another sum.
            self.borders(operand, 0, &mut borders);
            borders.remove(&(extent as usize));
        }
        let ends = borders.iter().copied().skip(1).chain([extent.coeff as usize]);
        let ranges: Vec<(usize, usize)> = borders.iter().copied().zip(ends).collect();
        if ranges.len() == 1 || ranges.iter().any(|(start, end)| end - start == 1) {
            return self.fold(operand, index, (monoid, axis), (0, extent));
        }
        let mut parts = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            let part = self.fold(operand, index, (monoid, axis), (start, Dim::of(end - start)))?;
            parts.push(self.tile.expr(part));
        }
        let greatest = |this: &mut Self, x, y| this.tile.expr(Expr::Apply(ScalarOp::Max, vec![x, y]));
        let greatest = parts.into_iter().reduce(|x, y| greatest(self, x, y));
        greatest.map(|id| self.tile.exprs[id].clone()).ok_or(self.refuse(value, "it reduces nothing"))
    }

    /// The stage that folds so many elements of an operand along an axis, from `start` on.
    fn fold(
        &mut self,
        operand: ValueId,
        index: &[Index],
        (monoid, axis): (Monoid, usize),
        (start, len): (usize, Dim),
    ) -> Result<Expr, Refusal> {
        let fold = self.axis("r", len);
        let mut at = index.to_vec();
        at[axis] = Index::axis(fold).plus(&Index::constant(start as i64));
        let folded = self.value(operand, &at)?;
        self.tile.stages.push(Stage::Reduce { axis: fold, monoid, value: folded });
        Ok(Expr::Stage(StageId(self.tile.stages.len() as u32 - 1)))
    }
}
