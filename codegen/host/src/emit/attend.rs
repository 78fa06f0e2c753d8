//! The skeleton of attention. A unit goes through the context in blocks of 64 positions that begin at multiples of 64,
//! wherever its own range begins: what a token gets depends on its own positions alone.

use super::{Emitter, Row, Units, loops::Range, plain, value::Val};
use crate::calls::Callee;
use crate::facts::AxisSet;
use crate::micro::POSITIONS;
use crate::schedule::Attend;
use cranelift_codegen::ir::{self, InstBuilder};
use sinter_ir::{AxisId, DType, Expr, Layout, Load, Stage};

impl<'a> Emitter<'a> {
    pub(super) fn attend(&mut self, plan: &Attend, units: Units) {
        let tile = self.tile;
        let mut extents: Vec<_> = tile.grid.iter().map(|axis| tile.axes[*axis].extent).collect();
        if let (Some(group), Some(last)) = (plan.group, extents.last_mut()) {
            last.coeff /= group.size as u64;
        }
        self.each_unit(units, &extents, &mut |emitter, parts| {
            let mut point: Vec<(AxisId, ir::Value)> =
                tile.grid.iter().copied().zip(parts.iter().copied()).collect();
            if let (Some(group), Some(last)) = (plan.group, point.last_mut()) {
                last.1 = emitter.times(last.1, group.size as i64);
            }
            emitter.at_point(&point, &mut |emitter| emitter.attend_unit(plan));
        });
    }

    fn attend_unit(&mut self, plan: &Attend) {
        self.start(plan);
        let inner = AxisSet::of(&[plan.context, plan.depth, plan.lanes]);
        for load in [&plan.key, &plan.value] {
            load.index.iter().for_each(|index| self.hoist_index(index, inner, false));
        }
        let moving = plan.group.map_or(inner, |group| inner.with(AxisSet::of(&[group.axis])));
        self.hoist(plan.score, moving, true);
        let context = self.context(plan.context, plan.from, plan.to);
        let first = self.b.ins().band_imm_s(context.from, -(POSITIONS as i64));
        self.repeat((first, context.to), POSITIONS as i64, &[], &mut |emitter, start, _| {
            emitter.attend_block(plan, start, context);
            Vec::new()
        });
        self.finish_rows(plan);
    }

    /// The rows of a unit: `body` gets the row's number.
    fn each_row(&mut self, plan: &Attend, body: &mut dyn FnMut(&mut Self, ir::Value)) {
        let zero = self.int(0);
        let Some(group) = plan.group else { return body(self, zero) };
        let first = self.iteration(group.axis);
        let rows = self.int(group.size as i64);
        self.repeat((zero, rows), 1, &[], &mut |emitter, row, _| {
            let at = emitter.b.ins().iadd(first, row);
            emitter.at(group.axis, at, |emitter| body(emitter, row));
            Vec::new()
        });
    }

    /// The address of a row of `width` numbers in scratch memory.
    fn row(&mut self, offset: usize, row: ir::Value, width: usize) -> ir::Value {
        let base = self.scratch(offset);
        let offset = self.times(row, 4 * width as i64);
        self.b.ins().iadd(base, offset)
    }

    /// Queries in f32, and nothing added up yet but the score that the softmax starts with.
    fn start(&mut self, plan: &Attend) {
        let pieces = plan.pieces;
        self.each_row(plan, &mut |emitter, row| {
            let inner = AxisSet::of(&[plan.depth]);
            plan.query.index.iter().for_each(|index| emitter.hoist_index(index, inner, false));
            let to = emitter.row(pieces.queries, row, pieces.depth);
            let range = emitter.whole_axis(plan.depth);
            emitter.copy(plan.depth, range, &plan.query, (DType::F32, to));
            let [max, sum] = emitter.softmax_start(plan.start);
            for (offset, val) in [(pieces.max, max), (pieces.sum, sum)] {
                let address = emitter.row(offset, row, 1);
                emitter.write(DType::F32, address, val);
            }
            let acc = emitter.row(pieces.acc, row, pieces.lanes);
            emitter.map_row(plan, acc, &mut |emitter, _| emitter.constant(0.0));
        });
    }

    /// Replaces each number of a row of the result.
    fn map_row(&mut self, plan: &Attend, row: ir::Value, body: &mut dyn FnMut(&mut Self, Val) -> Val) {
        let range = self.whole_axis(plan.lanes);
        self.each_wide(plan.lanes, range, &mut |emitter| {
            let at = emitter.iteration(plan.lanes);
            let offset = emitter.times(at, 4);
            let address = emitter.b.ins().iadd(row, offset);
            let wide = emitter.lane.is_some();
            let val = emitter.read(DType::F32, address, wide);
            let val = body(emitter, val);
            let val = if wide { emitter.widen(val) } else { val };
            emitter.write(DType::F32, address, val);
        });
    }

    fn attend_block(&mut self, plan: &Attend, start: ir::Value, context: Range) {
        let pieces = plan.pieces;
        let left = self.b.ins().isub(context.to, start);
        let most = self.int(POSITIONS as i64);
        let count = self.b.ins().smin(left, most);
        let end = self.b.ins().iadd(start, count);
        self.pointers(plan, (start, count), context.from);
        let rows = self.int(plan.rows() as i64);
        let (keys, scores) = (self.scratch(pieces.keys), self.scratch(pieces.scores));
        let (queries, depth) = (self.scratch(pieces.queries), self.int(pieces.depth as i64));
        let callee = match self.format(&plan.key) {
            (DType::I8, Layout::Halves) => Callee::ScoresI4,
            (DType::I8, _) => Callee::ScoresI8,
            (DType::F8e4m3, _) => Callee::ScoresE4m3,
            (DType::Bf16, _) => Callee::ScoresBf16,
            _ => Callee::ScoresF32,
        };
        self.call_for(callee, &[queries, depth, rows, keys, count, depth, scores]);
        self.scores(plan, Range { from: start, to: end, length: None });
        let (values, lanes) = (self.scratch(pieces.values), self.int(pieces.lanes as i64));
        let (max, sum, acc) = (self.scratch(pieces.max), self.scratch(pieces.sum), self.scratch(pieces.acc));
        let callee = match self.format(&plan.value) {
            (DType::I8, Layout::Halves) => Callee::OnlineI4,
            (DType::I8, _) => Callee::OnlineI8,
            (DType::F8e4m3, _) => Callee::OnlineE4m3,
            (DType::Bf16, _) => Callee::OnlineBf16,
            _ => Callee::OnlineF32,
        };
        let factors = if plan.factor.is_some() { self.scratch(pieces.factors) } else { self.int(0) };
        self.call_for(callee, &[scores, rows, count, values, lanes, max, sum, acc, factors]);
    }

    fn format(&self, load: &Load) -> (DType, Layout) {
        let param = &self.tile.params[load.param];
        (param.ty.dtype, param.layout)
    }

    /// The addresses of a block's keys and values, and what else is read once for a position. Positions before the range
    /// get what its first has: their scores are −∞, and pages before the range may be gone.
    fn pointers(&mut self, plan: &Attend, (start, count): (ir::Value, ir::Value), from: ir::Value) {
        let zero = self.int(0);
        let (keys, values) = (self.scratch(plan.pieces.keys), self.scratch(plan.pieces.values));
        self.repeat((zero, count), 1, &[], &mut |emitter, j, _| {
            let position = emitter.b.ins().iadd(start, j);
            let position = emitter.b.ins().smax(position, from);
            let offset = emitter.times(j, 8);
            emitter.at(plan.context, position, |emitter| {
                for (load, axis, pointers) in
                    [(&plan.key, plan.depth, keys), (&plan.value, plan.lanes, values)]
                {
                    let element =
                        emitter.at(axis, zero, |emitter| emitter.address(load.param, &load.index, None));
                    let to = emitter.b.ins().iadd(pointers, offset);
                    emitter.b.ins().store(plain(), element, to, 0);
                }
                emitter.position_numbers(plan, j);
            });
            Vec::new()
        });
    }

    /// The numbers that all rows read of a position, as element `j` of their rows.
    fn position_numbers(&mut self, plan: &Attend, j: ir::Value) {
        let offset = self.times(j, 4);
        let shared = plan.shared.iter().enumerate().map(|(at, id)| (*id, Self::shared_row(plan, at)));
        let factor = plan.factor.map(|factor| (factor, plan.pieces.factors));
        for (id, row) in shared.chain(factor) {
            let val = match &self.tile.exprs[id] {
                // The position is inside, so what it reads is.
                Expr::Load(load) => self.load(load, false),
                _ => self.eval(id),
            };
            let number = self.number(val);
            let row = self.scratch(row);
            let to = self.b.ins().iadd(row, offset);
            self.write(DType::F32, to, number);
        }
    }

    fn shared_row(plan: &Attend, at: usize) -> usize {
        plan.pieces.shared + at * POSITIONS * 4
    }

    /// The score of each row and position, from the dot product and whatever else the expression says.
    fn scores(&mut self, plan: &Attend, range: Range) {
        self.each_row(plan, &mut |emitter, row| {
            let address = emitter.row(plan.pieces.scores, row, POSITIONS);
            let results = Row { address, axis: plan.context, origin: range.from };
            emitter.rows.insert(plan.dot.0, results);
            for (at, id) in plan.shared.iter().enumerate() {
                let address = emitter.scratch(Self::shared_row(plan, at));
                emitter.strips.insert(*id, Row { address, ..results });
            }
            emitter.hoist(plan.score, AxisSet::of(&[plan.context]), true);
            let mut step = |emitter: &mut Self| {
                let val = emitter.eval(plan.score);
                let val = emitter.cast(DType::F32, val);
                let val = if emitter.lane.is_some() { emitter.widen(val) } else { val };
                let at = emitter.iteration(plan.context);
                let at = emitter.b.ins().isub(at, range.from);
                let offset = emitter.times(at, 4);
                let to = emitter.b.ins().iadd(address, offset);
                emitter.write(DType::F32, to, val);
            };
            match emitter.can_widen(plan.score, plan.context) {
                true => emitter.each_wide(plan.context, range, &mut step),
                false => emitter.each(plan.context, range, &mut step),
            }
            emitter.rows.clear();
            emitter.strips.clear();
        });
    }

    /// Divides, and stores.
    fn finish_rows(&mut self, plan: &Attend) {
        let (tile, pieces) = (self.tile, plan.pieces);
        self.each_row(plan, &mut |emitter, row| {
            let sum = emitter.row(pieces.sum, row, 1);
            let sum = emitter.read(DType::F32, sum, false);
            let acc = emitter.row(pieces.acc, row, pieces.lanes);
            emitter.map_row(plan, acc, &mut |emitter, acc| emitter.weighted(sum, acc));
            let origin = emitter.int(0);
            emitter.rows.insert(plan.online.0, Row { address: acc, axis: plan.lanes, origin });
            for stage in &tile.stages {
                if let Stage::Store { axes, .. } = stage {
                    let ranges: Vec<(AxisId, Range)> =
                        axes.iter().map(|axis| (*axis, emitter.whole_axis(*axis))).collect();
                    emitter.store(stage, &ranges);
                }
            }
            emitter.rows.clear();
        });
    }
}
