//! Norms that a product computes for itself.
//!
//! In a step of very few tokens a launch costs more than a norm. A product of few rows therefore folds the rows anew in
//! every block and normalises each element where it is used: the bits are those of the norm's own kernel, and one launch is
//! saved.

use crate::access::inner_axes;
use crate::contract::{Contract, Kind, find};
use crate::{Schedule, group::Group};
use sinter_ir::{
    Access, Arg, AxisId, Expr, ExprId, Id, Index, Load, ParamId, Plan, Stage, StageId, TileProgram,
};

/// A row-wise program that a product can compute for itself: folds along rows, and one store of whole rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prologue {
    /// The axis that numbers the rows.
    pub row: AxisId,
    /// The axis within a row.
    pub lane: AxisId,
    /// The element.
    pub value: ExprId,
    /// Where the elements would be stored.
    pub param: ParamId,
    /// The folds, in order.
    pub folds: Vec<StageId>,
}

impl Prologue {
    /// The prologue that a program is, if it is one.
    pub fn of(tile: &TileProgram) -> Option<Prologue> {
        let [row] = tile.grid[..] else { return None };
        let (mut folds, mut stored) = (Vec::new(), None);
        for (at, stage) in tile.stages.iter().enumerate() {
            let id = StageId::new(at);
            match stage {
                Stage::Reduce { .. } if stored.is_none() && inner_axes(tile, id).is_empty() => folds.push(id),
                Stage::Store { axes, param, index, value } if stored.is_none() => {
                    let [lane] = axes[..] else { return None };
                    let plain = *index == [Index::axis(row), Index::axis(lane)];
                    stored = plain.then_some((lane, *value, *param));
                    stored?;
                }
                _ => return None,
            }
        }
        let (lane, value, param) = stored?;
        Some(Prologue { row, lane, value, param, folds })
    }
}

/// The parameter of a product of few rows that is nothing but its left operand, row by row.
fn left(tile: &TileProgram, schedule: &Contract) -> Option<ParamId> {
    let found = find(tile).filter(|_| schedule.kind == Kind::Skinny)?;
    let ([row], param) = (&found.rows[..], found.products.first()?.a.param) else { return None };
    let plain = |load: &Load, axis: AxisId| {
        load.param == param && load.index == [Index::axis(*row), Index::axis(axis)]
    };
    let loads = |load: &Load| load.param == param;
    let only = found.products.iter().all(|product| plain(&product.a, product.axis) && !loads(&product.b));
    let elsewhere = tile.exprs.values().any(|expr| matches!(expr, Expr::Load(load) if loads(load)));
    (only && !elsewhere && found.rows_share && found.columns_share).then_some(param)
}

/// Whether the product of `next` can compute the norm of `last` for itself.
pub fn folds_into(plan: &Plan, last: &Group, next: &Group) -> bool {
    let ([norm_at], [at]) = (&last.steps[..], &next.steps[..]) else { return false };
    let (Schedule::Rows(_), Schedule::Contract(schedule)) = (&last.schedules[0], &next.schedules[0]) else {
        return false;
    };
    let (norm_step, step) = (&plan.steps[*norm_at], &plan.steps[*at]);
    let (norm, tile) = (&plan.kernels[norm_step.kernel], &plan.kernels[step.kernel]);
    let (Some(prologue), Some(left)) = (Prologue::of(norm), left(tile, schedule)) else { return false };
    let (from, to) = (&norm.params[prologue.param], &tile.params[left]);
    let arg = norm_step.args[prologue.param.index()];
    let reads = |other: usize| {
        let params = plan.kernels[plan.steps[other].kernel].params.values();
        params.zip(&plan.steps[other].args).any(|(param, a)| *a == arg && param.access != Access::Write)
    };
    let alone = (0..plan.steps.len()).all(|other| other == *at || !reads(other));
    from.ty == to.ty
        && arg == step.args[left.index()]
        && matches!(arg, Arg::Buffer(_))
        && alone
        && keeps_inputs(plan, *norm_at, *at)
}

/// Whether a step writes nothing that the one before reads, so that both may be one: buffers share memory.
fn keeps_inputs(plan: &Plan, before: usize, step: usize) -> bool {
    let slot = |arg: &Arg| match arg {
        Arg::Buffer(id) => plan.buffers.get(*id).map(|buffer| buffer.slot),
        _ => None,
    };
    let of = |at: usize, wanted: fn(Access) -> bool| -> Vec<&Arg> {
        let params = plan.kernels[plan.steps[at].kernel].params.values();
        let both = params.zip(&plan.steps[at].args);
        both.filter(|(param, _)| wanted(param.access)).map(|(_, arg)| arg).collect()
    };
    let read = of(before, |access| access != Access::Write);
    let written = of(step, |access| access != Access::Read);
    let apart = |a: &&Arg, b: &&Arg| a != b && (slot(a).is_none() || slot(a) != slot(b));
    written.iter().all(|written| read.iter().all(|read| apart(written, read)))
}
