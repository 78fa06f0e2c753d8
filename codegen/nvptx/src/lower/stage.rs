//! Stages that a thread computes alone and in order, wherever their result is used.

use super::{Scope, Val};
use crate::emit::Float;
use sinter_ir::{AxisId, ExprId, Id, Load, Monoid, Stage, StageId};

impl<'k> Scope<'_, 'k> {
    /// The result of a stage: the known one, or computed here.
    pub fn result(&self, stage: StageId) -> Float<'k> {
        self.result_of_lane(stage, 0)
    }

    /// The result of a stage at one of the lanes.
    pub(super) fn result_of_lane(&self, stage: StageId, lane: usize) -> Float<'k> {
        if let Some(known) = &self.results[stage.index()] {
            return known[lane.min(known.len() - 1)];
        }
        match &self.tile.stages[stage.index()] {
            Stage::Reduce { axis, monoid, value } => {
                let start = self.k.float(neutral(*monoid));
                self.fold(*axis, start, |scope, folded| {
                    combine(*monoid, folded, scope.value(*value).number(self.k))
                })
            }
            Stage::Mma { axis, a, b } => self.fold(*axis, self.k.float(0.0), |scope, sum| {
                let (a, b) = (scope.load(a), scope.load(b));
                a.number(self.k).fma(b.number(self.k), sum)
            }),
            Stage::Online { axis, from, to, start, score, value, factor, .. } => {
                self.online(*axis, (*from, *to), *start, (*score, value, *factor))
            }
            // The verifier refuses the use of a store's result.
            Stage::Store { .. } => self.k.float(0.0),
        }
    }

    fn fold(
        &self,
        axis: AxisId,
        start: Float<'k>,
        step: impl FnOnce(&Self, Float<'k>) -> Float<'k>,
    ) -> Float<'k> {
        self.k.range((0, self.extent(axis), 1), start, |at, folded| step(&self.with_axis(axis, at), folded))
    }

    /// The maximum and the sum that an online softmax starts with.
    pub fn softmax_start(&self, start: Option<ExprId>) -> (Float<'k>, Float<'k>) {
        match start {
            None => (self.k.float(f32::NEG_INFINITY), self.k.float(0.0)),
            Some(start) => (self.value(start).number(self.k), self.k.float(1.0)),
        }
    }

    /// The online softmax: (maximum, sum, weighted sum), repaired when the maximum grows.
    fn online(
        &self,
        axis: AxisId,
        (from, to): (Option<ExprId>, Option<ExprId>),
        start: Option<ExprId>,
        (score, value, factor): (ExprId, &Load, Option<ExprId>),
    ) -> Float<'k> {
        let k = self.k;
        let whole = |id: ExprId| self.value(id).whole(k);
        let from = from.map_or(k.int(0), whole).greatest(0);
        let extent = self.extent(axis);
        let to = to.map_or(extent, |to| whole(to).least(extent));
        let (max, sum) = self.softmax_start(start);
        let (_, sum, weighted) =
            k.range((from, to, 1), (max, sum, k.float(0.0)), |at, (max, sum, weighted)| {
                let scope = self.with_axis(axis, at);
                let score = scope.value(score).number(k);
                // A score of -inf adds nothing, and its value may be no number.
                k.choose(
                    score.equals(f32::NEG_INFINITY),
                    || (max, sum, weighted),
                    || {
                        let greater = max.greatest(score);
                        let (repair, weight) = ((max - greater).exp(), (score - greater).exp());
                        let value: Val<'k> = scope.load(value);
                        let factor = factor.map(|factor| scope.value(factor).number(k));
                        let share = factor.map_or(weight, |factor| weight * factor);
                        (greater, sum.fma(repair, weight), share.fma(value.number(k), weighted * repair))
                    },
                )
            });
        sum.equals(0.0).select(k.float(0.0), weighted.over(sum))
    }
}

/// What changes nothing.
pub fn neutral(monoid: Monoid) -> f32 {
    match monoid {
        Monoid::Sum => 0.0,
        Monoid::Max => f32::NEG_INFINITY,
    }
}

/// Two folded values as one.
pub fn combine<'k>(monoid: Monoid, x: Float<'k>, y: Float<'k>) -> Float<'k> {
    match monoid {
        Monoid::Sum => x + y,
        Monoid::Max => x.greatest(y),
    }
}
