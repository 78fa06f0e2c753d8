//! The schedule of row-wise programs: norms, softmax, element-wise chains, gathers and scatters.
//!
//! A group of threads does one point of the grid. It folds each reduction together, in a tree whose shape depends on the
//! program alone, and shares the elements of each store. Neighbouring elements go to one thread where their accesses are
//! provably aligned.

use crate::access::{Lanes, depending, index_lanes, inner_axes, load_lanes};
use sinter_ir::{Access, AxisId, Dim, Expr, ExprId, Id, Stage, StageId, TileProgram};
use std::fmt;

/// Threads of a block, unless a group needs more.
const THREADS: u64 = 128;
/// The most threads of a group.
const MAX_GROUP: u64 = 256;

/// How a row-wise program is divided.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rows {
    /// Threads of a block.
    pub threads: u32,
    /// Threads that share a point of the grid: a power of two that divides [`Rows::threads`].
    pub group: u32,
    /// For each stage the number of neighbouring elements that a thread takes at a time.
    pub widths: Vec<u32>,
}

impl Rows {
    /// Points of the grid that a block does.
    pub fn points(&self) -> u32 {
        self.threads / self.group
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rows: {} threads, {} a point, widths {:?}", self.threads, self.group, self.widths)
    }
}

/// The axis along which a stage's elements are shared among threads: the innermost one of a store, the loop of a fold.
pub fn lane(stage: &Stage) -> Option<AxisId> {
    match stage {
        Stage::Reduce { axis, .. } => Some(*axis),
        Stage::Store { axes, .. } => axes.last().copied(),
        Stage::Mma { .. } | Stage::Online { .. } => None,
    }
}

/// The schedule.
pub fn choose(tile: &TileProgram) -> Rows {
    let widths: Vec<u32> = (0..tile.stages.len()).map(|at| width(tile, &tile.stages[at])).collect();
    let counts = tile.stages.iter().zip(&widths).enumerate().map(|(at, (stage, width))| {
        let own = inner_axes(tile, StageId::new(at)).is_empty();
        if own { elements(tile, stage).div_ceil(u64::from(*width)) } else { 1 }
    });
    let most = counts.max().unwrap_or(1).max(1);
    // What a program writes and reads again must be done in order.
    let group = if rereads(tile) { 1 } else { most.next_power_of_two().min(MAX_GROUP) };
    Rows { threads: group.max(THREADS) as u32, group: group as u32, widths }
}

/// The typical number of elements that a stage goes through.
fn elements(tile: &TileProgram, stage: &Stage) -> u64 {
    let typical = |axis: &AxisId| tile.axes[*axis].extent.typical();
    match stage {
        Stage::Reduce { axis, .. } => typical(axis),
        Stage::Store { axes, .. } => axes.iter().map(typical).product(),
        Stage::Mma { .. } | Stage::Online { .. } => 1,
    }
}

fn rereads(tile: &TileProgram) -> bool {
    let written = |access: Access| matches!(access, Access::Write | Access::ReadWrite);
    let read = |expr: &Expr| matches!(expr, Expr::Load(load) if written(tile.params[load.param].access));
    tile.exprs.values().any(read)
}

/// The most neighbouring elements whose accesses are all aligned and at most 16 bytes for the narrowest type.
fn width(tile: &TileProgram, stage: &Stage) -> u32 {
    let (value, lane) = match (stage, lane(stage)) {
        (Stage::Reduce { value, .. } | Stage::Store { value, .. }, Some(lane)) => (*value, lane),
        _ => return 1,
    };
    let extent: Dim = tile.axes[lane].extent;
    let fits = |width: &u32| {
        extent.coeff.is_multiple_of(u64::from(*width))
            && loads_fit(tile, value, lane, *width)
            && store_fits(tile, stage, lane, *width)
    };
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

fn loads_fit(tile: &TileProgram, value: ExprId, lane: AxisId, width: u32) -> bool {
    let depends = depending(tile, lane);
    let mut narrowest = 4;
    for id in tile.cone(value).into_iter().filter(|id| depends[id.index()]) {
        match &tile.exprs[id] {
            Expr::Stage(_) => return false,
            Expr::Load(load) if load_lanes(tile, load, lane, width) != Lanes::Aligned => return false,
            Expr::Load(load) => narrowest = narrowest.min(tile.params[load.param].ty.dtype.bytes()),
            Expr::Const(_) | Expr::Index(_) | Expr::Apply(..) | Expr::Cast(..) => {}
        }
    }
    width as usize * narrowest <= 16
}

fn store_fits(tile: &TileProgram, stage: &Stage, lane: AxisId, width: u32) -> bool {
    let Stage::Store { param, index, .. } = stage else { return true };
    index_lanes(tile, *param, index, lane, width) == Lanes::Aligned
}
