//! Which part of the context a mask leaves: bounds proved from the mask's own comparisons, never assumed.

use super::Lowering;
use sinter_ir::{AxisId, Expr, ExprId, Float, Index, ScalarOp};

impl Lowering<'_> {
    /// First and one past the last iteration of `axis` at which a score can be finite, as far as the outermost
    /// selections `select(condition, score, −∞)` tell.
    pub(crate) fn bounds(&mut self, score: ExprId, axis: AxisId) -> (Option<ExprId>, Option<ExprId>) {
        let mut conditions = Vec::new();
        let mut at = score;
        while let Expr::Apply(ScalarOp::Select, args) = &self.tile.exprs[at] {
            if self.tile.exprs[args[2]] != Expr::Const(Float::new(f64::NEG_INFINITY)) {
                break;
            }
            conditions.push(args[0]);
            at = args[1];
        }
        let (mut from, mut to) = (None, None);
        while let Some(condition) = conditions.pop() {
            match self.tile.exprs[condition].clone() {
                Expr::Apply(ScalarOp::And, args) => conditions.extend(args),
                Expr::Apply(op @ (ScalarOp::Le | ScalarOp::Lt), args) => {
                    let slack = i64::from(op == ScalarOp::Le);
                    if let Some((side, bound)) = self.comparison(&args, axis, slack) {
                        match side {
                            Side::Below => to = Some(self.tighter(to, bound, ScalarOp::Min)),
                            Side::Above => from = Some(self.tighter(from, bound, ScalarOp::Max)),
                        }
                    }
                }
                _ => {}
            }
        }
        (from, to)
    }

    fn tighter(&mut self, known: Option<ExprId>, bound: ExprId, op: ScalarOp) -> ExprId {
        known.map_or(bound, |known| self.tile.expr(Expr::Apply(op, vec![known, bound])))
    }

    /// `left < right + slack` solved for the axis, which must stand alone on one side.
    fn comparison(&mut self, args: &[ExprId], axis: AxisId, slack: i64) -> Option<(Side, ExprId)> {
        let side = |id: ExprId| {
            if let Expr::Index(index) = &self.tile.exprs[id] { Some(index.clone()) } else { None }
        };
        let (left, right) = (side(args[0])?, side(args[1])?);
        let alone = |index: &Index| index.plus(&Index::axis(axis).times(-1)).as_constant();
        let free = |index: &Index| !index.axes().contains(&axis);
        if let (Some(offset), true) = (alone(&left), free(&right)) {
            // axis + offset < right + slack
            let end = self.saturating(&right.plus(&Index::constant(slack)), offset);
            return Some((Side::Below, end));
        }
        if let (Some(offset), true) = (alone(&right), free(&left)) {
            // left < axis + offset + slack, so axis > left - offset - slack
            let start = self.saturating(&left.plus(&Index::constant(1)), offset + slack);
            return Some((Side::Above, start));
        }
        None
    }

    /// max(index, less) − less: a difference that stays a whole number from 0 up.
    fn saturating(&mut self, index: &Index, less: i64) -> ExprId {
        if less <= 0 {
            return self.tile.expr(Expr::Index(index.plus(&Index::constant(-less))));
        }
        let index = self.tile.expr(Expr::Index(index.clone()));
        let less = self.tile.expr(Expr::Index(Index::constant(less)));
        let clamped = self.tile.expr(Expr::Apply(ScalarOp::Max, vec![index, less]));
        self.tile.expr(Expr::Apply(ScalarOp::Sub, vec![clamped, less]))
    }
}

enum Side {
    Below,
    Above,
}
