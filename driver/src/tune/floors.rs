//! How long a kernel takes at least on this machine: its bytes at the bandwidth, and its products at the speed, that were
//! measured in the same run.

use anyhow::{Context, Result};
use serde::Serialize;
use sinter_codegen_host::micro::{Isa, Operands, operations_per_second};
use sinter_codegen_schedule::group::Group;
use sinter_codegen_schedule::work::{StepSize, Work};
use sinter_codegen_schedule::{Schedule, rows};
use sinter_ir::{DType, Plan, Stage, TileProgram};
use sinter_runtime::{ThreadPool, read_bandwidth};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What this machine reaches, all threads together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speeds {
    /// Bytes a second that are read from memory.
    pub bandwidth: f64,
    /// Multiplications and additions a second: of f32, of bf16 and of 8-bit codes.
    pub operations: [f64; 3],
}

/// What a launch does at least, and how long that takes at least.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Floor {
    /// Bytes, each once.
    pub bytes: u64,
    /// Multiplications and additions of products.
    pub operations: u64,
    /// Those a second at most.
    pub peak: f64,
    /// Microseconds: the slower of both.
    pub microseconds: f64,
}

impl Speeds {
    /// Measures; takes about two seconds.
    ///
    /// # Errors
    /// If there is no memory for it, or a thread panics.
    pub fn measure(threads: usize) -> Result<Self> {
        let bandwidth = read_bandwidth(threads)?;
        let mut operations = [0.0; 3];
        for (sum, operands) in operations.iter_mut().zip([Operands::F32, Operands::Bf16, Operands::Codes]) {
            let mut pool = ThreadPool::new(threads);
            let speeds = Mutex::new(BTreeMap::new());
            let measure = |_: std::ops::Range<u64>, thread: usize| {
                let speed = operations_per_second(Isa::detect(), operands);
                speeds.lock().unwrap_or_else(PoisonError::into_inner).insert(thread, speed);
            };
            pool.parallel(threads as u64, measure)?;
            let speeds = speeds.into_inner().unwrap_or_else(PoisonError::into_inner);
            let count = speeds.len().max(1) as f64;
            let total = speeds.into_values().sum::<Result<f64, _>>()?;
            // A thread that came late leaves its share to another, which then measures twice.
            *sum = total / count * threads as f64;
        }
        Ok(Self { bandwidth, operations })
    }

    /// The floor of a launch of a plan's step.
    ///
    /// # Errors
    /// If there is no such step.
    pub fn floor(&self, plan: &Plan, number: usize, size: &StepSize) -> Result<Floor> {
        let step = plan.steps.get(number).context("there is no such step")?;
        let tile = &plan.kernels[step.kernel];
        let group = Group { steps: vec![number], schedules: vec![Schedule::Rows(rows::choose(tile))] };
        let work = Work::of(plan, &group, size);
        let peak = self.operations[operands(tile)];
        let seconds = (work.minimum as f64 / self.bandwidth).max(work.operations as f64 / peak);
        let microseconds = 1e6 * seconds;
        Ok(Floor { bytes: work.minimum, operations: work.operations, peak, microseconds })
    }
}

/// Which speed a program's products have at most. Attention multiplies in f32, whatever keys and values are stored in.
fn operands(tile: &TileProgram) -> usize {
    if tile.stages.iter().any(|stage| matches!(stage, Stage::Online { .. })) {
        return 0;
    }
    let types = tile.stages.iter().filter_map(|stage| match stage {
        Stage::Mma { a, b, .. } => Some([a, b].map(|load| tile.params[load.param].ty.dtype)),
        Stage::Reduce { .. } | Stage::Online { .. } | Stage::Store { .. } => None,
    });
    let half = |dtype: &DType| matches!(dtype, DType::Bf16 | DType::F16);
    let rank = |types: [DType; 2]| match types {
        types if types.contains(&DType::I8) => 2,
        types if types.iter().all(half) => 1,
        _ => 0,
    };
    types.map(rank).max().unwrap_or(0)
}
