//! Expressions, and which of their values are at hand.

use super::{Emitter, Key, Known, Row, plain, value::Kind, value::Val};
use crate::access::{LANES, Lanes, lanes};
use crate::facts::{AxisSet, Fact};
use cranelift_codegen::ir::{InstBuilder, types};
use sinter_ir::{Atom, AxisId, Expr, ExprId, Index, Load, StageId};

impl Emitter<'_> {
    /// The value of an expression at this point. It has four lanes only if it depends on the vector's axis.
    pub(super) fn eval(&mut self, id: ExprId) -> Val {
        let fact = self.facts.exprs[id];
        let wide = self.lane.is_some_and(|lane| fact.axes.has(lane));
        let key = Key::Expr(id, wide);
        if let Some(val) = self.known(&key, fact.axes) {
            return val;
        }
        let tile = self.tile;
        let val = match &tile.exprs[id] {
            _ if self.strips.contains_key(&id) => self.of_row(self.strips[&id]),
            Expr::Const(number) => self.constant(number.get()),
            Expr::Index(index) => self.index_value(index, fact.guarded),
            Expr::Load(load) => self.load(load, fact.guarded),
            Expr::Stage(stage) => self.result(*stage),
            Expr::Cast(dtype, arg) => {
                let arg = self.eval(*arg);
                self.cast(*dtype, arg)
            }
            Expr::Apply(op, args) => {
                let args: Vec<Val> = args.iter().map(|arg| self.eval(*arg)).collect();
                self.apply(*op, &args)
            }
        };
        self.remember(key, val, fact);
        val
    }

    /// The value of an expression, if it is at hand and no loop since has run one of its axes anew.
    pub(super) fn known(&self, key: &Key, axes: AxisSet) -> Option<Val> {
        let first = self.frame_of(axes);
        let known = self.frames[first..].iter().rev().find_map(|frame| frame.get(key))?;
        Some(known.value)
    }

    pub(super) fn remember(&mut self, key: Key, value: Val, fact: Fact) {
        let known = Known { value, mutable: fact.mutable };
        if let Some(frame) = self.frames.last_mut() {
            frame.insert(key, known);
        }
    }

    /// Forgets what was read from memory that a store has changed.
    pub(super) fn forget_mutable(&mut self) {
        self.frames.iter_mut().for_each(|frame| frame.retain(|_, known| !known.mutable));
    }

    /// Computes now what `root` needs that does not depend on the loops over `inner`. What a store of those loops may
    /// change is left alone unless `mutable`.
    pub(super) fn hoist(&mut self, root: ExprId, inner: AxisSet, mutable: bool) {
        let tile = self.tile;
        for id in tile.cone(root) {
            let fact = self.facts.exprs[id];
            let still = !fact.axes.meets(inner) && (mutable || !fact.mutable);
            match &tile.exprs[id] {
                Expr::Const(_) => {}
                Expr::Index(index) => self.hoist_index(index, inner, fact.guarded),
                _ if still => {
                    self.eval(id);
                }
                Expr::Load(load) => {
                    load.index.iter().for_each(|index| self.hoist_index(index, inner, fact.guarded))
                }
                Expr::Stage(_) | Expr::Apply(..) | Expr::Cast(..) => {}
            }
        }
    }

    /// Reads now what an index reads from memory and does not depend on the loops over `inner`.
    pub(super) fn hoist_index(&mut self, index: &Index, inner: AxisSet, guarded: bool) {
        for (atom, _) in &index.terms {
            match atom {
                Atom::Axis(_) => {}
                Atom::Div(index, _) | Atom::Mod(index, _) => self.hoist_index(index, inner, guarded),
                Atom::Load(load) => self.hoist_load(load, inner, guarded),
            }
        }
    }

    fn hoist_load(&mut self, load: &Load, inner: AxisSet, guarded: bool) {
        let fact = self.facts.load(load);
        if !fact.axes.meets(inner) && !fact.mutable {
            self.index_load(load, guarded);
        } else {
            load.index.iter().for_each(|index| self.hoist_index(index, inner, guarded));
        }
    }

    fn index_value(&mut self, index: &Index, guarded: bool) -> Val {
        let step = self.lane.map(|axis| (axis, lanes(index, axis)));
        match step {
            None | Some((_, Lanes::Same)) => Val::new(self.index(index, guarded), Kind::Whole, false),
            Some((_, Lanes::Step(step))) if step.abs() < 1 << 20 => {
                let first = self.index(index, guarded);
                let first = self.widen(Val::new(first, Kind::Whole, false));
                let mut bytes = Vec::with_capacity(16);
                (0..LANES).for_each(|at| bytes.extend(((at * step) as i32).to_le_bytes()));
                let constant = self.b.func.dfg.constants.insert(bytes.into());
                let steps = self.b.ins().vconst(types::I32X4, constant);
                Val::new(self.b.ins().iadd(first.value, steps), Kind::Whole, true)
            }
            Some((axis, _)) => {
                let lanes = [0, 1, 2, 3].map(|at| {
                    let value = self.at_lane(axis, at, |emitter| emitter.index(index, guarded));
                    Val::new(value, Kind::Whole, false)
                });
                self.gather(lanes)
            }
        }
    }

    /// The result of a stage: from where a micro-kernel left it, or computed here.
    fn result(&mut self, stage: StageId) -> Val {
        let Some(row) = self.rows.get(&stage.0).copied() else {
            let lane = self.lane.take();
            let val = self.stage(stage);
            self.lane = lane;
            return val;
        };
        self.of_row(row)
    }

    /// This iteration's element of a row.
    fn of_row(&mut self, row: Row) -> Val {
        let at = self.iteration(row.axis);
        let at = self.b.ins().isub(at, row.origin);
        let offset = self.b.ins().ishl_imm_u(at, 2);
        let address = self.b.ins().iadd(row.address, offset);
        let wide = self.lane == Some(row.axis);
        let ty = if wide { types::F32X4 } else { types::F32 };
        Val::number(self.b.ins().load(ty, plain(), address, 0), wide)
    }

    /// Whether `root` can be computed for four iterations of `axis` at once, to advantage.
    pub(super) fn can_widen(&self, root: ExprId, axis: AxisId) -> bool {
        let (mut side_by_side, mut scattered) = (0, 0);
        for id in self.tile.cone(root) {
            let fact = self.facts.exprs[id];
            if !fact.axes.has(axis) {
                continue;
            }
            if self.strips.get(&id).is_some_and(|row| row.axis == axis) {
                side_by_side += 1;
                continue;
            }
            match &self.tile.exprs[id] {
                Expr::Stage(stage) => match self.rows.get(&stage.0) {
                    Some(row) if row.axis == axis => side_by_side += 1,
                    _ => return false,
                },
                Expr::Load(load) => match crate::access::load_access(self.tile, load, axis, fact.guarded) {
                    Lanes::Same | Lanes::Step(1) => side_by_side += 1,
                    Lanes::Step(_) | Lanes::Any => scattered += 1,
                },
                _ => {}
            }
        }
        scattered <= 2 + side_by_side
    }
}
