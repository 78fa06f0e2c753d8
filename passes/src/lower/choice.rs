//! The k greatest of a row, as 2k reductions.
//!
//! "Value descending, index ascending" is a total order. The j-th greatest value is the maximum of what comes after
//! the (j−1)-th in that order, and its index the least one that attains it among those. The least index is found as a
//! maximum too, counted from the end of the row, so that it lies in the row whatever the values are, NaN included.

use super::{Lowering, Refusal};
use sinter_ir::{AxisId, DType, Expr, ExprId, Float, Index, Monoid, Op, ScalarOp, Stage, StageId, ValueId};
use std::collections::BTreeMap;

/// Each choice at its outer indices: the row that it looks at, and the picks so far.
pub(crate) type Picks = BTreeMap<(ValueId, Vec<Index>), (Row, Vec<Pick>)>;

/// One of the k greatest: its value and its index, both in f32.
#[derive(Clone, Copy)]
pub(crate) struct Pick {
    value: ExprId,
    index: ExprId,
}

/// The row that a choice looks at.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// The axis along it, its iteration in f32, and the last of them.
    axis: AxisId,
    at: ExprId,
    last: ExprId,
    /// The element at the iteration.
    element: ExprId,
}

impl Lowering<'_> {
    /// What every element of a choice is below.
    pub(crate) fn limit(&self, value: ValueId) -> Option<u64> {
        let node = self.graph.node(value);
        match node.op {
            Op::TopK { .. } => self.graph.ty(node.args[0]).shape.last()?.as_const(),
            _ => None,
        }
    }

    /// The index that stands at one place of a choice; the place must be constant.
    pub(crate) fn choice(&mut self, value: ValueId, index: &[Index]) -> Result<Expr, Refusal> {
        let place = index.split_last().and_then(|(last, outer)| Some((last.as_constant()?, outer)));
        let Some((place, outer)) = place else {
            return Err(
                self.refuse(value, "the places of a choice are read in another order than they are found")
            );
        };
        self.once_a_point(value, outer.iter())?;
        let key = (value, outer.to_vec());
        let (row, mut picks) = match self.picks.remove(&key) {
            Some(known) => known,
            None => (self.row(value, outer)?, Vec::new()),
        };
        while picks.len() <= place as usize {
            let pick = self.pick(&row, picks.last().copied());
            picks.push(pick);
        }
        let found = picks[place as usize].index;
        self.picks.insert(key, (row, picks));
        Ok(Expr::Cast(DType::U32, found))
    }

    fn row(&mut self, value: ValueId, outer: &[Index]) -> Result<Row, Refusal> {
        let operand = self.graph.node(value).args[0];
        let extent = self.graph.ty(operand).shape[outer.len()];
        let axis = self.axis("r", extent);
        let whole = self.tile.expr(Expr::Index(Index::axis(axis)));
        let at = self.tile.expr(Expr::Cast(DType::F32, whole));
        let last = self.number(extent.coeff as f64 - 1.0);
        let index: Vec<Index> = outer.iter().cloned().chain([Index::axis(axis)]).collect();
        let element = self.value(operand, &index)?;
        Ok(Row { axis, at, last, element })
    }

    /// The pick that follows another, or the first.
    fn pick(&mut self, row: &Row, before: Option<Pick>) -> Pick {
        use ScalarOp::{And, Eq, Lt, Or, Select, Sub};
        let (lowest, zero) = (self.number(f64::NEG_INFINITY), self.number(0.0));
        let after = before.map(|pick| {
            let less = self.apply(Lt, &[row.element, pick.value]);
            let equal = self.apply(Eq, &[row.element, pick.value]);
            let later = self.apply(Lt, &[pick.index, row.at]);
            let tied = self.apply(And, &[equal, later]);
            self.apply(Or, &[less, tied])
        });
        let candidate = match after {
            Some(after) => self.apply(Select, &[after, row.element, lowest]),
            None => row.element,
        };
        let value = self.greatest(row, candidate);
        let mut attains = self.apply(Eq, &[row.element, value]);
        if let Some(after) = after {
            attains = self.apply(And, &[after, attains]);
        }
        let from_end = self.apply(Sub, &[row.last, row.at]);
        let candidate = self.apply(Select, &[attains, from_end, zero]);
        let from_end = self.greatest(row, candidate);
        Pick { value, index: self.apply(Sub, &[row.last, from_end]) }
    }

    fn greatest(&mut self, row: &Row, value: ExprId) -> ExprId {
        self.tile.stages.push(Stage::Reduce { axis: row.axis, monoid: Monoid::Max, value });
        let stage = StageId(self.tile.stages.len() as u32 - 1);
        self.tile.expr(Expr::Stage(stage))
    }

    fn apply(&mut self, op: ScalarOp, args: &[ExprId]) -> ExprId {
        self.tile.expr(Expr::Apply(op, args.to_vec()))
    }

    fn number(&mut self, value: f64) -> ExprId {
        self.tile.expr(Expr::Const(Float::new(value)))
    }
}
