//! Stages computed where they are used: reductions, products and the online softmax as loops.
//!
//! A sum runs down sixteen lanes that are then added as a tree, in an order that depends on the extent alone: a row
//! gets the same bits whatever rows are computed with it.

use super::{
    Emitter,
    loops::Range,
    ops::WIDE,
    value::{Kind, Val},
};
use crate::access::{Lanes, load_access};
use crate::facts::AxisSet;
use cranelift_codegen::ir::{self, InstBuilder};
use sinter_ir::{AxisId, DType, ExprId, Load, Monoid, ScalarOp, Stage, StageId};

/// Vectors that a reduction keeps going at once.
const CHAINS: i64 = 4;
/// Expressions up to which a reduction's body is repeated for each chain.
const SMALL: usize = 12;

/// What a reduction folds.
#[derive(Clone, Copy)]
enum Element<'a> {
    Value(ExprId),
    Product(&'a Load, &'a Load),
}

/// The values of an online softmax, and what those of a position are multiplied by.
#[derive(Clone, Copy)]
struct Weighed<'a> {
    value: &'a Load,
    factor: Option<ExprId>,
}

impl<'a> Emitter<'a> {
    /// The result of a stage at this point.
    pub(super) fn stage(&mut self, stage: StageId) -> Val {
        let tile = self.tile;
        match &tile.stages[stage.0 as usize] {
            Stage::Reduce { axis, monoid, value } => {
                self.hoist(*value, AxisSet::of(&[*axis]), true);
                self.fold(*axis, *monoid, Element::Value(*value), stage)
            }
            Stage::Mma { axis, a, b } => {
                let guarded = self.facts.stages[stage].guarded;
                for index in a.index.iter().chain(&b.index) {
                    self.hoist_index(index, AxisSet::of(&[*axis]), guarded);
                }
                self.fold(*axis, Monoid::Sum, Element::Product(a, b), stage)
            }
            Stage::Online { axis, from, to, start, score, value, factor, .. } => {
                for root in [Some(*score), *factor].into_iter().flatten() {
                    self.hoist(root, AxisSet::of(&[*axis]), true);
                }
                let range = self.context(*axis, *from, *to);
                let start = self.softmax_start(*start);
                self.online((*axis, range), start, (*score, Weighed { value, factor: *factor }))
            }
            Stage::Store { .. } => unreachable!("the check refuses the result of a store"),
        }
    }

    /// The run of a context axis.
    pub(super) fn context(&mut self, axis: AxisId, from: Option<ExprId>, to: Option<ExprId>) -> Range {
        let whole = self.whole_axis(axis);
        let length = if from.is_none() && to.is_none() { whole.length } else { None };
        let from = from.map(|from| {
            let from = self.bound(from);
            self.b.ins().smax(from, whole.from)
        });
        let to = to.map(|to| {
            let to = self.bound(to);
            self.b.ins().smin(to, whole.to)
        });
        Range { from: from.unwrap_or(whole.from), to: to.unwrap_or(whole.to), length }
    }

    fn bound(&mut self, id: ExprId) -> ir::Value {
        let val = self.eval(id);
        self.whole(val).value
    }

    fn element(&mut self, element: Element<'a>, guarded: bool) -> Val {
        let val = match element {
            Element::Value(id) => self.eval(id),
            Element::Product(a, b) => {
                let (a, b) = (self.load(a, guarded), self.load(b, guarded));
                let (a, b) = (self.number(a), self.number(b));
                self.apply(ScalarOp::Mul, &[a, b])
            }
        };
        let number = self.number(val);
        if self.lane.is_some() { self.widen(number) } else { number }
    }

    fn combine(&mut self, monoid: Monoid, folded: ir::Value, element: ir::Value) -> ir::Value {
        let wide = self.b.func.dfg.value_type(folded).is_vector();
        let op = if monoid == Monoid::Sum { ScalarOp::Add } else { ScalarOp::Max };
        self.apply(op, &[Val::number(folded, wide), Val::number(element, wide)]).value
    }

    fn fold(&mut self, axis: AxisId, monoid: Monoid, element: Element<'a>, stage: StageId) -> Val {
        let guarded = self.facts.stages[stage].guarded;
        let range = self.whole_axis(axis);
        let identity = if monoid == Monoid::Sum { 0.0 } else { f32::NEG_INFINITY };
        let mut folded = self.b.ins().f32const(identity);
        let mut tail = range;
        if range.length.is_none_or(|length| length >= 4) && self.can_fold_wide(axis, element, guarded) {
            let end = self.whole_fours(range);
            folded = self.fold_wide(axis, Range { to: end, ..range }, monoid, (element, guarded));
            tail = Range { from: end, ..range };
            if range.length.is_some_and(|length| length % 4 == 0) {
                return Val::number(folded, false);
            }
        }
        let folded = self.repeat((tail.from, tail.to), 1, &[folded], &mut |emitter, i, folded| {
            let element = emitter.at(axis, i, |emitter| emitter.element(element, guarded));
            vec![emitter.combine(monoid, folded[0], element.value)]
        });
        Val::number(folded[0], false)
    }

    fn can_fold_wide(&self, axis: AxisId, element: Element<'_>, guarded: bool) -> bool {
        match element {
            Element::Value(id) => self.facts.exprs[id].axes.has(axis) && self.can_widen(id, axis),
            Element::Product(a, b) => {
                let good = |load| {
                    matches!(load_access(self.tile, load, axis, guarded), Lanes::Same | Lanes::Step(1))
                };
                good(a) && good(b)
            }
        }
    }

    /// Folds a range of whole fours.
    fn fold_wide(
        &mut self,
        axis: AxisId,
        range: Range,
        monoid: Monoid,
        what: (Element<'a>, bool),
    ) -> ir::Value {
        let small = match what.0 {
            Element::Value(id) => self.tile.cone(id).len() <= SMALL,
            Element::Product(..) => true,
        };
        let identity = if monoid == Monoid::Sum { 0.0 } else { f32::NEG_INFINITY };
        let identity = self.b.ins().f32const(identity);
        let identity = self.b.ins().splat(WIDE, identity);
        let step = |emitter: &mut Self, i: ir::Value, folded: ir::Value| {
            emitter.lane = Some(axis);
            let element = emitter.at(axis, i, |emitter| emitter.element(what.0, what.1));
            emitter.lane = None;
            emitter.combine(monoid, folded, element.value)
        };
        let mut chains = vec![identity; if small { CHAINS as usize } else { 1 }];
        let mut from = range.from;
        if small {
            let length = self.b.ins().isub(range.to, range.from);
            let length = self.b.ins().band_imm_s(length, -4 * CHAINS);
            let end = self.b.ins().iadd(range.from, length);
            chains = self.repeat((from, end), 4 * CHAINS, &chains, &mut |emitter, i, chains| {
                let mut next = Vec::new();
                for (at, chain) in chains.iter().enumerate() {
                    let i = emitter.plus(i, 4 * at as i64);
                    emitter.frames.push(Default::default());
                    next.push(step(emitter, i, *chain));
                    emitter.frames.pop();
                }
                next
            });
            from = end;
        }
        let first = self.repeat((from, range.to), 4, &chains[..1], &mut |emitter, i, folded| {
            vec![step(emitter, i, folded[0])]
        });
        chains[0] = first[0];
        while chains.len() > 1 {
            chains = chains.chunks(2).map(|pair| self.combine(monoid, pair[0], pair[1])).collect();
        }
        let lanes: Vec<ir::Value> = (0..4).map(|at| self.b.ins().extractlane(chains[0], at as u8)).collect();
        let (low, high) =
            (self.combine(monoid, lanes[0], lanes[1]), self.combine(monoid, lanes[2], lanes[3]));
        self.combine(monoid, low, high)
    }

    /// The maximum and the sum that an online softmax starts with.
    pub(super) fn softmax_start(&mut self, start: Option<ExprId>) -> [Val; 2] {
        let Some(start) = start else { return [f64::NEG_INFINITY, 0.0].map(|number| self.constant(number)) };
        let start = self.eval(start);
        [self.cast(DType::F32, start), self.constant(1.0)]
    }

    /// The softmax-weighted sum in one pass, with its repair: the plain form for programs of no known structure.
    fn online(
        &mut self,
        (axis, range): (AxisId, Range),
        [max, sum]: [Val; 2],
        (score, value): (ExprId, Weighed<'_>),
    ) -> Val {
        let start = [max.value, sum.value, self.b.ins().f32const(0.0)];
        let end = self.repeat((range.from, range.to), 1, &start, &mut |emitter, i, carried| {
            let carried = [carried[0], carried[1], carried[2]].map(|value| Val::number(value, false));
            emitter
                .at(axis, i, |emitter| emitter.online_step(carried, score, value))
                .map(|val| val.value)
                .to_vec()
        });
        let [sum, acc] = [end[1], end[2]].map(|value| Val::number(value, false));
        self.weighted(sum, acc)
    }

    /// `acc / sum`, and 0 where nothing was added.
    pub(super) fn weighted(&mut self, sum: Val, acc: Val) -> Val {
        let zero = self.constant(0.0);
        let none = self.apply(ScalarOp::Eq, &[sum, zero]);
        let quotient = self.apply(ScalarOp::Div, &[acc, sum]);
        self.apply(ScalarOp::Select, &[none, zero, quotient])
    }

    fn online_step(&mut self, [max, sum, acc]: [Val; 3], score: ExprId, value: Weighed<'_>) -> [Val; 3] {
        let score = self.eval(score);
        let score = self.cast(DType::F32, score);
        let lowest = self.constant(f64::NEG_INFINITY);
        let zero = self.constant(0.0);
        let greater = self.apply(ScalarOp::Max, &[max, score]);
        let masked = self.apply(ScalarOp::Eq, &[score, lowest]);
        let shift = self.apply(ScalarOp::Sub, &[max, greater]);
        let repair = self.apply(ScalarOp::Exp, &[shift]);
        let gap = self.apply(ScalarOp::Sub, &[score, greater]);
        let weight = self.apply(ScalarOp::Exp, &[gap]);
        let element = self.load(value.value, true);
        let element = self.number(element);
        let factor = value.factor.map(|factor| self.eval(factor));
        let share = factor.map_or(weight, |factor| self.apply(ScalarOp::Mul, &[weight, factor]));
        let product = self.apply(ScalarOp::Mul, &[share, element]);
        let nothing = self.apply(ScalarOp::Eq, &[weight, zero]);
        let product = self.apply(ScalarOp::Select, &[nothing, zero, product]);
        let mut next = |kept: Val, addend: Val| {
            let repaired = self.apply(ScalarOp::Mul, &[kept, repair]);
            let added = self.apply(ScalarOp::Add, &[repaired, addend]);
            self.apply(ScalarOp::Select, &[masked, kept, added])
        };
        let (sum, acc) = (next(sum, weight), next(acc, product));
        debug_assert_eq!(acc.kind, Kind::Number);
        [greater, sum, acc]
    }
}
