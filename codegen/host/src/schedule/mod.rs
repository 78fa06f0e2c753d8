//! From the structure of a tile program to the skeleton of its kernel.
//!
//! Which skeleton it is follows from the program alone, and never from names. A program that has none of the known structures
//! gets [`Skeleton::Points`], which is right for every program. What is free in a skeleton is a [`Choice`]: [`ways`] lists what
//! there is, [`cost`] says what each takes, and [`schedule`] makes it so. All are pure functions between small structures.

mod attend;
mod contract;
mod grouped;

mod choice;
pub(crate) mod cost;

pub(crate) use attend::Attend;
pub use choice::{Choice, ChoiceError, Choices, FEW_ROWS, Way};
pub(crate) use contract::{Contract, Product, Rows, Strip, WIDTH, Weights};
pub(crate) use grouped::{Grouped, SORTED};

use crate::facts::Facts;
use choice::{BLOCKS, PANELS};
use contract::Blocking;
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
    /// Products with packed weights by the micro-kernel, block by block, and an epilogue over each block. A unit is some
    /// panels, all rows; units that are called for together may be run together.
    Contract(Contract),
    /// The same where each row has the one of several weights that an index names: rows are sorted by it, so that each
    /// weight is read once for many rows.
    Grouped(Grouped),
    /// The online softmax by the micro-kernels, 64 positions at a time. A unit is a grid point, or a group of points
    /// that share keys and values.
    Attend(Attend),
}

/// Every way to run a program as it is; [`sink`] may give it another form.
pub(crate) fn ways(tile: &TileProgram, facts: &Facts) -> Vec<Way> {
    let blocking = Blocking { panels: 2, together: [1, 2], block: 48 };
    if contract::plan(tile, facts, blocking).is_some() {
        let of = |(panels, together)| BLOCKS.map(|block| Way::Contract { panels, together, block });
        return PANELS.into_iter().flat_map(of).collect();
    }
    if grouped::plan(tile, facts, (2, 48)).is_some() {
        let of = |panels| BLOCKS.map(|block| Way::Grouped { panels, block });
        return [2, 1, 4].into_iter().flat_map(of).collect();
    }
    if let Some(Schedule { skeleton: Skeleton::Attend(plan), .. }) = attend::plan(tile, facts, None) {
        let all = plan.rows();
        let divisors = (1..=all).rev().filter(|rows| all.is_multiple_of(*rows));
        return divisors.map(|rows| Way::Attend { rows }).collect();
    }
    vec![Way::Points { inner: true }]
}

/// The schedule of a program that is run in one way in launches of few rows and in another in those of many. None if it
/// cannot be run so, or if the two ways need code of their own.
pub(crate) fn schedule(tile: &TileProgram, facts: &Facts, [few, many]: [Way; 2]) -> Option<Schedule> {
    if !few.is_possible() || !many.is_possible() {
        return None;
    }
    if let (
        Way::Contract { panels, together: few, .. },
        Way::Contract { panels: same, together: many, block },
    ) = (few, many)
        && panels == same
    {
        return contract::plan(tile, facts, Blocking { panels, together: [few, many], block });
    }
    match many {
        _ if few != many => None,
        Way::Contract { panels, together, block } => {
            contract::plan(tile, facts, Blocking { panels, together: [together; 2], block })
        }
        Way::Grouped { panels, block } => grouped::plan(tile, facts, (panels, block)),
        Way::Attend { rows } => attend::plan(tile, facts, Some(rows)),
        Way::Points { .. } => {
            let units = tile.grid.iter().map(|axis| tile.axes[*axis].extent).collect();
            let unstructured = matches!(ways(tile, facts)[..], [Way::Points { .. }]);
            unstructured.then_some(Schedule { skeleton: Skeleton::Points, units, scratch: 0 })
        }
    }
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
