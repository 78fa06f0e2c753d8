//! From the structure of a tile program to the skeleton of its kernel.
//!
//! [`choose`] is a pure function between two small structures. It never looks at names. A program that has none of the
//! known structures gets [`Skeleton::Points`], which is right for every program.

mod attend;
mod contract;
mod grouped;

pub(crate) use attend::Attend;
pub(crate) use contract::{COLUMNS, Contract, FEW, Product, Rows, Strip, TOGETHER, WIDTH, Weights};
pub(crate) use grouped::{Grouped, SORTED};

use crate::facts::Facts;
use sinter_ir::{AxisId, Dim, Stage, TileProgram};
use std::fmt;

/// How a program is run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Schedule {
    pub(crate) skeleton: Skeleton,
    /// The work units: the product of these extents.
    pub(crate) units: Vec<Dim>,
    /// Bytes of scratch memory.
    pub(crate) scratch: usize,
}

/// The shape of the code.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Skeleton {
    /// A loop over grid points, the innermost loops in vectors where memory allows. A unit is a point.
    Points,
    /// Products with packed weights by the micro-kernel, block by block, and an epilogue over each block. A unit is 64
    /// columns, all rows; of many rows, two units that are called for together are run together.
    Contract(Contract),
    /// The same where each row has the one of several weights that an index names: rows are sorted by it, so that each
    /// weight is read once for many rows.
    Grouped(Grouped),
    /// The online softmax by the micro-kernels, 64 positions at a time. A unit is a grid point, or a group of points
    /// that share keys and values.
    Attend(Attend),
}

/// The schedule of a program.
pub(crate) fn choose(tile: &TileProgram, facts: &Facts) -> Schedule {
    if let Some(schedule) = contract::plan(tile, facts) {
        return schedule;
    }
    if let Some(schedule) = grouped::plan(tile, facts) {
        return schedule;
    }
    if let Some(schedule) = attend::plan(tile, facts) {
        return schedule;
    }
    let units = tile.grid.iter().map(|axis| tile.axes[*axis].extent).collect();
    Schedule { skeleton: Skeleton::Points, units, scratch: 0 }
}

/// Makes the last grid axis the inner loop of the stores, if they have none and no other stage depends on it: an
/// element-wise program whose grid has every axis then runs in vectors.
pub(crate) fn sink(tile: &TileProgram, facts: &Facts) -> TileProgram {
    let mut sunk = tile.clone();
    let Some(last) = (if tile.grid.len() > 1 { sunk.grid.pop() } else { None }) else { return sunk };
    let inner = |axis: AxisId| !tile.grid[..tile.grid.len() - 1].contains(&axis);
    let mut stages = tile.stages.iter().zip(facts.stages.values());
    let good = stages.all(|(stage, fact)| match stage {
        Stage::Store { axes, .. } => axes.is_empty(),
        _ => !fact.axes.has(last),
    });
    if !good || !inner(last) {
        return tile.clone();
    }
    for stage in &mut sunk.stages {
        if let Stage::Store { axes, .. } = stage {
            axes.push(last);
        }
    }
    sunk
}

/// Scratch memory handed out in pieces of whole cache lines.
#[derive(Clone, Copy, Default)]
struct Pieces {
    bytes: usize,
}

impl Pieces {
    /// The offset of a piece.
    fn take(&mut self, bytes: usize) -> usize {
        let at = self.bytes;
        self.bytes += bytes.next_multiple_of(64);
        at
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units: Vec<String> = self.units.iter().map(Dim::to_string).collect();
        write!(f, "units ({}), scratch {}: ", units.join(", "), self.scratch)?;
        match &self.skeleton {
            Skeleton::Points => f.write_str("points"),
            Skeleton::Contract(plan) => write!(f, "{plan}"),
            Skeleton::Grouped(plan) => write!(f, "{plan}"),
            Skeleton::Attend(plan) => write!(f, "{plan}"),
        }
    }
}
