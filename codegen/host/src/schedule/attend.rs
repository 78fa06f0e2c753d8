//! The structure of attention: one product inside the score of one online softmax, and stores of its result.

use super::contract::contiguous;
use super::{Pieces, Schedule, Skeleton};
use crate::facts::{AxisSet, Fact, Facts};
use crate::micro::POSITIONS;
use sinter_ir::{Atom, AxisId, DType, Dim, Expr, ExprId, Index, Load, Stage, StageId, TileProgram};
use std::fmt;

/// How attention is run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Attend {
    pub(crate) online: StageId,
    pub(crate) dot: StageId,
    /// The context axis, the axis of the dot product, and that of the result.
    pub(crate) context: AxisId,
    pub(crate) depth: AxisId,
    pub(crate) lanes: AxisId,
    pub(crate) from: Option<ExprId>,
    pub(crate) to: Option<ExprId>,
    /// One score more, with which the softmax starts.
    pub(crate) start: Option<ExprId>,
    pub(crate) score: ExprId,
    pub(crate) query: Load,
    pub(crate) key: Load,
    pub(crate) value: Load,
    /// What the values of a position are multiplied by, the same for all rows.
    pub(crate) factor: Option<ExprId>,
    /// What a score reads of each position, the same for all rows: it is read once for a block.
    pub(crate) shared: Vec<ExprId>,
    pub(crate) group: Option<Group>,
    pub(crate) pieces: Scratch,
}

/// Neighbours on the last grid axis that share keys and values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    pub(crate) axis: AxisId,
    pub(crate) size: usize,
}

/// Sizes, and offsets into scratch memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scratch {
    pub(crate) depth: usize,
    pub(crate) lanes: usize,
    /// `[group][depth]` queries in f32.
    pub(crate) queries: usize,
    /// `[group][64]` scores.
    pub(crate) scores: usize,
    /// Pointers to 64 keys and to 64 values.
    pub(crate) keys: usize,
    pub(crate) values: usize,
    /// 64 factors, and 64 numbers of each expression in `shared`.
    pub(crate) factors: usize,
    pub(crate) shared: usize,
    /// `[group]` maxima and sums, `[group][lanes]` weighted sums.
    pub(crate) max: usize,
    pub(crate) sum: usize,
    pub(crate) acc: usize,
}

impl Attend {
    /// Rows of a unit.
    pub(crate) fn rows(&self) -> usize {
        self.group.map_or(1, |group| group.size)
    }
}

/// The schedule with so many rows a unit; with all that share keys and values if left out.
pub(super) fn plan(tile: &TileProgram, facts: &Facts, rows: Option<usize>) -> Option<Schedule> {
    let mut onlines =
        tile.stages.iter().enumerate().filter(|(_, stage)| matches!(stage, Stage::Online { .. }));
    let (number, online) = onlines.next()?;
    let Stage::Online { axis: context, from, to, start, score, lanes, value, factor } = online else {
        return None;
    };
    let dot = dot(tile, facts, *score, *context)?;
    let Stage::Mma { axis: depth, a, b } = &tile.stages[dot.0 as usize] else { return None };
    let online = StageId(number as u32);
    let mentions = |load: &Load| facts.load(load).axes.has(*context);
    let (query, key) = if mentions(a) { (b, a) } else { (a, b) };
    let group = match (group(tile, facts, [key, value], &[*from, *to]), rows) {
        (Some(all), Some(rows)) if rows > 0 && all.size.is_multiple_of(rows) => {
            Some(Group { size: rows, ..all })
        }
        (None, Some(1)) => None,
        (_, Some(_)) => return None,
        (all, None) => all,
    };
    let shared = shared(tile, facts, *score, (*context, group));
    let sizes =
        [tile.axes[*depth].extent.as_const()? as usize, tile.axes[*lanes].extent.as_const()? as usize];
    let rows = group.map_or(1, |group| group.size);
    let (pieces, scratch) = pieces(rows, sizes, shared.len());
    let plan = Attend {
        online,
        dot,
        context: *context,
        depth: *depth,
        lanes: *lanes,
        from: *from,
        to: *to,
        start: *start,
        score: *score,
        query: query.clone(),
        key: key.clone(),
        value: value.clone(),
        factor: *factor,
        shared,
        group,
        pieces,
    };
    if onlines.next().is_some() || !fits(tile, facts, &plan) {
        return None;
    }
    let mut units: Vec<Dim> = tile.grid.iter().map(|axis| tile.axes[*axis].extent).collect();
    if let (Some(group), Some(last)) = (group, units.last_mut()) {
        last.coeff /= group.size as u64;
    }
    Some(Schedule { skeleton: Skeleton::Attend(plan), units, scratch })
}

/// The one product in a score that depends on the context.
fn dot(tile: &TileProgram, facts: &Facts, score: ExprId, context: AxisId) -> Option<StageId> {
    let mut moving: Vec<StageId> = tile.stages_of(score);
    moving.retain(|stage| facts.stages[*stage].axes.has(context));
    moving.dedup();
    if let [dot] = moving[..] { Some(dot) } else { None }
}

fn pieces(rows: usize, [depth, lanes]: [usize; 2], shared: usize) -> (Scratch, usize) {
    let mut pieces = Pieces::default();
    let scratch = Scratch {
        depth,
        lanes,
        queries: pieces.take(rows * depth * 4),
        scores: pieces.take(rows * POSITIONS * 4),
        keys: pieces.take(POSITIONS * 8),
        values: pieces.take(POSITIONS * 8),
        factors: pieces.take(POSITIONS * 4),
        shared: pieces.take(shared * POSITIONS * 4),
        max: pieces.take(rows * 4),
        sum: pieces.take(rows * 4),
        acc: pieces.take(rows * lanes * 4),
    };
    (scratch, pieces.bytes)
}

fn fits(tile: &TileProgram, facts: &Facts, plan: &Attend) -> bool {
    let grid = AxisSet::of(&tile.grid);
    let inner = [plan.context, plan.depth, plan.lanes];
    let own = AxisSet::of(&inner);
    let with = |axis: AxisId| grid.with(AxisSet::of(&[axis]));
    let vector = |load: &Load, axis: AxisId, others: AxisSet| {
        let dtype = tile.params[load.param].ty.dtype;
        matches!(dtype, DType::F32 | DType::Bf16 | DType::I8 | DType::F8e4m3)
            && contiguous(tile, load, axis)
            && facts.load(load).axes.within(others.with(AxisSet::of(&[axis])))
    };
    let stage_fits = |(number, stage): (usize, &Stage)| {
        let fact = facts.stages[StageId(number as u32)];
        match stage {
            Stage::Store { value, .. } => {
                !tile.stages_of(*value).contains(&plan.dot) && !facts.overlaps(tile, stage)
            }
            Stage::Online { .. } => !fact.mutable,
            _ if number == plan.dot.0 as usize => !fact.mutable && fact.axes.within(with(plan.context)),
            Stage::Reduce { .. } | Stage::Mma { .. } => fact.axes.within(grid) && !fact.mutable,
        }
    };
    !grid.meets(own)
        && inner[0] != inner[1]
        && inner[0] != inner[2]
        && plan.pieces.depth > 0
        && plan.pieces.lanes > 0
        && facts.load(&plan.query).axes.within(with(plan.depth))
        && vector(&plan.key, plan.depth, with(plan.context))
        && vector(&plan.value, plan.lanes, with(plan.context))
        && facts.exprs[plan.score].axes.within(with(plan.context))
        && [plan.from, plan.to, plan.start]
            .into_iter()
            .flatten()
            .all(|bound| facts.exprs[bound].axes.within(grid))
        && plan.factor.is_none_or(|factor| {
            let loads = loads(tile, factor);
            facts.exprs[factor].axes.within(with(plan.context))
                && !facts.exprs[factor].mutable
                && tile.stages_of(factor).is_empty()
                && loads.is_some_and(|loads| loads.iter().all(|load| is_shared(facts, load, plan.group)))
        })
        && tile.stages.iter().enumerate().all(stage_fits)
}

/// What a score reads of each position, if no row of the group reads anything else.
fn shared(
    tile: &TileProgram,
    facts: &Facts,
    score: ExprId,
    (context, group): (AxisId, Option<Group>),
) -> Vec<ExprId> {
    let number = |id: &ExprId| match &tile.exprs[*id] {
        Expr::Load(load) => {
            let fact = facts.exprs[*id];
            let float = tile.params[load.param].ty.dtype.is_float();
            float && fact.axes.has(context) && !fact.mutable && is_shared(facts, load, group)
        }
        _ => false,
    };
    tile.cone(score).into_iter().filter(number).collect()
}

/// The loads of an expression without stages, unless it tells rows apart by an index of its own.
fn loads(tile: &TileProgram, root: ExprId) -> Option<Vec<&Load>> {
    let mut loads = Vec::new();
    for id in tile.cone(root) {
        match &tile.exprs[id] {
            Expr::Load(load) => loads.push(load),
            Expr::Index(_) | Expr::Stage(_) => return None,
            Expr::Const(_) | Expr::Apply(..) | Expr::Cast(..) => {}
        }
    }
    Some(loads)
}

/// Whether a load reads the same for all rows of a group, which may be a part of all that share it.
fn is_shared(facts: &Facts, load: &Load, group: Option<Group>) -> bool {
    let Some(Group { axis, size }) = group.filter(|group| facts.load(load).axes.has(group.axis)) else {
        return true;
    };
    let mut divisors = Vec::new();
    let whole = load.index.iter().all(|index| quotients(index, axis, &mut divisors));
    whole && divisors.iter().all(|by| by.is_multiple_of(size as u64))
}

/// The neighbours that share keys, values and bounds: all of the last grid axis, or as many as the indices divide by.
fn group(tile: &TileProgram, facts: &Facts, loads: [&Load; 2], bounds: &[Option<ExprId>]) -> Option<Group> {
    let axis = *tile.grid.last()?;
    let extent = tile.axes[axis].extent.as_const()?;
    let moves = |fact: Fact| fact.axes.has(axis);
    if extent == 0 || bounds.iter().flatten().any(|bound| moves(facts.exprs[*bound])) {
        return None;
    }
    if !loads.iter().any(|load| moves(facts.load(load))) {
        return Some(Group { axis, size: extent as usize });
    }
    let mut divisors = Vec::new();
    let whole = loads.iter().flat_map(|load| &load.index).all(|index| quotients(index, axis, &mut divisors));
    divisors.dedup();
    match divisors[..] {
        [by] if whole && by > 0 && extent % by == 0 => Some(Group { axis, size: by as usize }),
        _ => None,
    }
}

/// Whether an index mentions `axis` only as a quotient; collects the divisors.
fn quotients(index: &Index, axis: AxisId, divisors: &mut Vec<u64>) -> bool {
    index.terms.iter().all(|(atom, _)| match atom {
        Atom::Axis(other) => *other != axis,
        Atom::Div(inner, by) if **inner == Index::axis(axis) => {
            divisors.push(*by);
            true
        }
        Atom::Div(inner, _) | Atom::Mod(inner, _) => quotients(inner, axis, divisors),
        Atom::Load(load) => load.index.iter().all(|index| quotients(index, axis, divisors)),
    })
}

impl fmt::Display for Attend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scratch { depth, lanes, .. } = self.pieces;
        let Attend { online, dot, context, .. } = self;
        write!(f, "attend {} rows, {dot} depth {depth}, {online} lanes {lanes}, ", self.rows())?;
        write!(f, "{context} in blocks of {POSITIONS}")
    }
}
