//! Which steps of a plan go into one launch.
//!
//! A step of the model is latency-bound when it has few tokens, so neighbouring row-wise steps that do not need each
//! other's results run side by side in one launch: the rotation of the queries, that of the keys with their way into the
//! cache, and the values' way into the cache. With very few tokens, a product computes the norm of its rows for itself.

use crate::{LEAST_TOKENS, Schedule, choose, fold::folds_into, rows::Rows};
use sinter_ir::{Access, Arg, BufferId, Dim, Plan, Step, Target, TileProgram};

/// Steps that one launch does, with the schedule of each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// The positions in [`Plan::steps`], neighbours in order.
    pub steps: Vec<usize>,
    /// The schedule of each.
    pub schedules: Vec<Schedule>,
}

/// The launches of a plan for steps of at most `max_tokens` tokens.
pub fn launches(plan: &Plan, target: Target, max_tokens: Option<u64>) -> Vec<Group> {
    // Steps of a model repeat the same few programs, so each program's schedule is found once.
    let known: Vec<Schedule> = plan.kernels.values().map(|tile| choose(tile, target, max_tokens)).collect();
    let groups = beside(plan, &known);
    if max_tokens.is_none_or(|most| most > LEAST_TOKENS) {
        return groups;
    }
    let mut folded: Vec<Group> = Vec::new();
    for group in groups {
        match folded.last_mut() {
            Some(last) if folds_into(plan, last, &group) => {
                last.steps.extend(group.steps);
                last.schedules.extend(group.schedules);
            }
            _ => folded.push(group),
        }
    }
    folded
}

/// Row-wise steps side by side, all others alone.
fn beside(plan: &Plan, known: &[Schedule]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (at, step) in plan.steps.iter().enumerate() {
        let schedule = known[step.kernel.0 as usize].clone();
        if let Some(group) = groups.last_mut()
            && joins(plan, group, step, &schedule)
        {
            group.steps.push(at);
            group.schedules.push(schedule);
        } else {
            groups.push(Group { steps: vec![at], schedules: vec![schedule] });
        }
    }
    groups
}

/// The outermost extent of a program's grid and the constant product of the others, if it has that form.
pub fn tokens_and_rest(tile: &TileProgram) -> Option<(Dim, u64)> {
    let (first, rest) = tile.grid.split_first()?;
    let rest = rest
        .iter()
        .try_fold(1, |product: u64, axis| product.checked_mul(tile.axes[*axis].extent.as_const()?))?;
    Some((tile.axes[*first].extent, rest))
}

/// The blocks that a program takes for each iteration of its outermost axis, where it runs beside others.
pub fn blocks_beside(tile: &TileProgram, rows: &Rows) -> Option<u64> {
    tokens_and_rest(tile).map(|(_, rest)| rest.div_ceil(u64::from(rows.points())))
}

fn joins(plan: &Plan, group: &Group, step: &Step, schedule: &Schedule) -> bool {
    let (Some(last), Some(next)) = (group.schedules[0].as_rows(), schedule.as_rows()) else { return false };
    let first = &plan.kernels[plan.steps[group.steps[0]].kernel];
    let tile = &plan.kernels[step.kernel];
    let (Some((tokens, _)), Some((others, _))) = (tokens_and_rest(tile), tokens_and_rest(first)) else {
        return false;
    };
    last.threads == next.threads
        && tokens == others
        && tokens.sym.is_some()
        && group.steps.iter().all(|other| independent(plan, &plan.steps[*other], step))
}

/// Whether two steps may run at the same time: neither writes what the other touches.
fn independent(plan: &Plan, one: &Step, other: &Step) -> bool {
    let touched = |step: &Step| -> Vec<(Place, bool)> {
        let params = plan.kernels[step.kernel].params.values();
        params.zip(&step.args).map(|(param, arg)| (place(plan, *arg), param.access != Access::Read)).collect()
    };
    let others = touched(other);
    touched(one)
        .iter()
        .all(|(place, writes)| others.iter().all(|(at, also)| at != place || !(*writes || *also)))
}

/// A piece of memory: buffers of one slot are one piece.
#[derive(PartialEq)]
enum Place {
    Slot(usize),
    Other(Arg),
}

fn place(plan: &Plan, arg: Arg) -> Place {
    let slot = |id: BufferId| plan.buffers.get(id).map(|buffer| buffer.slot);
    match arg {
        Arg::Buffer(id) => slot(id).map_or(Place::Other(arg), Place::Slot),
        Arg::Weight(_) | Arg::State(_) | Arg::Input(_) | Arg::Output(_) => Place::Other(arg),
    }
}
