//! Schedules of GPU kernels: how a tile program is divided among blocks, warps and stages.
//!
//! Pure functions between small printable structs: tile program → structure → schedule. Nothing here knows MLIR or LLVM,
//! so a machine without them can list, print and compare schedules.
//!
//! The structure of a program decides its skeleton. [`rows`] covers every program: a group of threads for each point of
//! the grid. Structures that a better skeleton covers have a module of their own, and [`choose`] asks them first.
//!
//! [`group`] says which steps of a plan go into one launch, for steps of a few tokens and of many; [`work`] what a launch
//! moves and computes, and [`roofline`] how long a GPU takes for that at least.

pub mod access;
pub mod attend;
pub mod codes;
pub mod contract;
pub mod fold;
pub mod group;
pub mod roofline;
pub mod rows;
pub mod work;

use sinter_ir::{Target, TileProgram};
use std::fmt;

/// The most tokens of a step for which kernels are written that read each weight once and little else: the columns of two
/// tensor-core instructions.
pub const FEW_TOKENS: u64 = 16;

/// The most tokens of a step for which products compute their norms for themselves: more rows take longer to fold in every
/// block than a launch of their own.
pub const LEAST_TOKENS: u64 = 4;

/// The sizes of steps that have launches of their own, each the most tokens: very few, few, a batch of decodes, a short
/// prompt, and any number. Kernels that two of them share are compiled once.
pub const BUCKETS: [Option<u64>; 5] = [Some(LEAST_TOKENS), Some(FEW_TOKENS), Some(64), Some(512), None];

/// How a program is divided.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Schedule {
    /// A group of threads for each point of the grid.
    Rows(rows::Rows),
    /// Blocks of attention.
    Attend(attend::AttendSchedule),
    /// Tiles of rows and columns.
    Contract(contract::Contract),
}

impl Schedule {
    /// The schedule of a row-wise program, which may run beside others.
    pub fn as_rows(&self) -> Option<&rows::Rows> {
        match self {
            Schedule::Rows(rows) => Some(rows),
            Schedule::Attend(_) => None,
            Schedule::Contract(_) => None,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Rows(rows) => rows.fmt(f),
            Schedule::Attend(schedule) => schedule.fmt(f),
            Schedule::Contract(contract) => contract.fmt(f),
        }
    }
}

/// The schedule of a program for a target and steps of at most `max_tokens` tokens.
pub fn choose(tile: &TileProgram, target: Target, max_tokens: Option<u64>) -> Schedule {
    let attention = attend::Attend::of(tile).ok();
    let attention = attention.and_then(|attend| attend.schedules(target, max_tokens).into_iter().next());
    if let Some(schedule) = attention {
        return Schedule::Attend(schedule);
    }
    if let Some(contract) = contract::choose(tile, target, max_tokens) {
        return Schedule::Contract(contract);
    }
    Schedule::Rows(rows::choose(tile))
}
