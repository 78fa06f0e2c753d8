//! Loops.

use super::{Bound, Emitter, Units};
use crate::access::{LANES, Lanes, access};
use crate::facts::AxisSet;
use cranelift_codegen::ir::{self, BlockArg, InstBuilder, condcodes::IntCC, types};
use sinter_ir::{AxisId, DType, Dim, ExprId, Stage};

/// A run of an axis; `length` if it is known beforehand.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) from: ir::Value,
    pub(super) to: ir::Value,
    pub(super) length: Option<u64>,
}

/// The body of a loop: from the iteration and the values carried to those carried on.
type Body<'b, E> = &'b mut dyn FnMut(&mut E, ir::Value, &[ir::Value]) -> Vec<ir::Value>;

fn args(values: &[ir::Value]) -> Vec<BlockArg> {
    values.iter().map(|value| BlockArg::from(*value)).collect()
}

impl<'a> Emitter<'a> {
    /// `for i in (from..to).step_by(step)`; returns the values carried out.
    pub(super) fn repeat(
        &mut self,
        range: (ir::Value, ir::Value),
        step: i64,
        carried: &[ir::Value],
        body: Body<'_, Self>,
    ) -> Vec<ir::Value> {
        let step = self.int(step);
        self.repeat_by(range, step, carried, body)
    }

    /// As [`Self::repeat`], by a step that is known when it runs.
    pub(super) fn repeat_by(
        &mut self,
        (from, to): (ir::Value, ir::Value),
        step: ir::Value,
        carried: &[ir::Value],
        body: Body<'_, Self>,
    ) -> Vec<ir::Value> {
        let (head, exit) = (self.b.create_block(), self.b.create_block());
        let i = self.b.append_block_param(head, types::I64);
        let types: Vec<ir::Type> = carried.iter().map(|value| self.b.func.dfg.value_type(*value)).collect();
        let inside: Vec<_> = types.iter().map(|ty| self.b.append_block_param(head, *ty)).collect();
        let after: Vec<_> = types.iter().map(|ty| self.b.append_block_param(exit, *ty)).collect();
        let any = self.b.ins().icmp(IntCC::SignedLessThan, from, to);
        let start: Vec<ir::Value> = std::iter::once(from).chain(carried.iter().copied()).collect();
        self.b.ins().brif(any, head, &args(&start), exit, &args(carried));
        self.b.switch_to_block(head);
        self.frames.push(Default::default());
        let carried = body(self, i, &inside);
        self.frames.pop();
        let next = self.b.ins().iadd(i, step);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, next, to);
        let again: Vec<ir::Value> = std::iter::once(next).chain(carried.iter().copied()).collect();
        self.b.ins().brif(more, head, &args(&again), exit, &args(&carried));
        self.b.switch_to_block(exit);
        after
    }

    /// The whole of an axis.
    pub(super) fn whole_axis(&mut self, axis: AxisId) -> Range {
        let length = self.tile.axes[axis].extent.as_const();
        Range { from: self.int(0), to: self.extent(axis), length }
    }

    /// What `body` emits where `axis` stands at `value`, in the frame that is open.
    pub(super) fn at<R>(&mut self, axis: AxisId, value: ir::Value, body: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.axes[axis].replace(Bound { value, frame: self.frames.len() - 1 });
        let result = body(self);
        self.axes[axis] = before;
        result
    }

    /// Runs `axis` over a range one by one.
    pub(super) fn each(&mut self, axis: AxisId, range: Range, body: &mut dyn FnMut(&mut Self)) {
        self.repeat((range.from, range.to), 1, &[], &mut |emitter, i, _| {
            emitter.at(axis, i, &mut *body);
            Vec::new()
        });
    }

    /// Runs `axis` over a range by fours, in vectors, and what is left one by one. The range begins at a multiple of
    /// four.
    pub(super) fn each_wide(&mut self, axis: AxisId, range: Range, body: &mut dyn FnMut(&mut Self)) {
        let end = self.whole_fours(range);
        if range.length.is_none_or(|length| length >= LANES as u64) {
            self.repeat((range.from, end), LANES, &[], &mut |emitter, i, _| {
                emitter.lane = Some(axis);
                emitter.at(axis, i, &mut *body);
                emitter.lane = None;
                Vec::new()
            });
        }
        if range.length.is_none_or(|length| length % LANES as u64 != 0) {
            self.each(axis, Range { from: end, ..range }, body);
        }
    }

    /// The end of the last whole four of a range.
    pub(super) fn whole_fours(&mut self, range: Range) -> ir::Value {
        if range.length.is_some_and(|length| length % LANES as u64 == 0) {
            return range.to;
        }
        let length = self.b.ins().isub(range.to, range.from);
        let length = self.b.ins().band_imm_s(length, -LANES);
        self.b.ins().iadd(range.from, length)
    }

    /// Runs the units of this call: `extents` tell how the unit's number splits, and `body` gets the parts.
    pub(super) fn each_unit(
        &mut self,
        units: Units,
        extents: &[Dim],
        body: &mut dyn FnMut(&mut Self, &[ir::Value]),
    ) {
        self.repeat((units.begin, units.end), 1, &[], &mut |emitter, unit, _| {
            let parts = emitter.split(unit, extents);
            body(emitter, &parts);
            Vec::new()
        });
    }

    /// The position in a grid of these extents that has this number in row-major order.
    pub(super) fn split(&mut self, number: ir::Value, extents: &[Dim]) -> Vec<ir::Value> {
        let (mut rest, mut parts) = (number, Vec::new());
        for dim in extents.iter().skip(1).rev() {
            if dim.as_const() == Some(1) {
                parts.push(self.int(0));
                continue;
            }
            let extent = self.dim(*dim);
            let quotient = self.b.ins().udiv(rest, extent);
            let whole = self.b.ins().imul(quotient, extent);
            parts.push(self.b.ins().isub(rest, whole));
            rest = quotient;
        }
        if !extents.is_empty() {
            parts.push(rest);
        }
        parts.reverse();
        parts
    }

    /// Emits a store over `ranges` of axes, outermost first.
    pub(super) fn store(&mut self, store: &'a Stage, ranges: &[(AxisId, Range)]) {
        let Stage::Store { index, value, .. } = store else { return };
        let careful = self.facts.overlaps(self.tile, store);
        let inner: Vec<AxisId> = ranges.iter().map(|(axis, _)| *axis).collect();
        self.hoist(*value, AxisSet::of(&inner), !careful);
        index.iter().for_each(|index| self.hoist_index(index, AxisSet::of(&inner), false));
        let Some(((axis, range), rest)) = ranges.split_first() else {
            self.store_here(store);
            return;
        };
        if !rest.is_empty() || careful || !self.can_store_wide(*value, store, *axis) {
            let (axis, range) = (*axis, *range);
            self.each(axis, range, &mut |emitter| {
                if rest.is_empty() { emitter.store_here(store) } else { emitter.store(store, rest) }
            });
        } else {
            self.each_wide(*axis, *range, &mut |emitter| emitter.store_here(store));
        }
    }

    fn can_store_wide(&self, value: ExprId, store: &Stage, axis: AxisId) -> bool {
        let Stage::Store { param, index, .. } = store else { return false };
        let param = &self.tile.params[*param];
        (param.ty.dtype.is_float() || matches!(param.ty.dtype, DType::I8 | DType::U8))
            && access(param, index, axis, false) == Lanes::Step(1)
            && self.can_widen(value, axis)
    }

    fn store_here(&mut self, store: &Stage) {
        let Stage::Store { param, index, value, .. } = store else { return };
        let val = self.eval(*value);
        let val = if self.lane.is_some() { self.widen(val) } else { val };
        let address = self.address(*param, index, None);
        self.write(self.tile.params[*param].ty.dtype, address, val);
        self.forget_mutable();
    }
}
