//! What can go wrong at run time. Each message says what was wanted and what was found.

use sinter_ir::{GpuError, PlanError};

/// Why a model cannot be loaded, or a step, a sample or a generation cannot be done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The plan contradicts itself.
    #[error("the plan cannot be run: {0}")]
    Plan(#[from] PlanError),
    /// The plan, the kernels and the weights do not belong together.
    #[error("the model cannot be loaded: {0}")]
    Load(String),
    /// A GPU did not do what it was told.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The system has no memory left.
    #[error("there is no memory for {0} bytes")]
    Memory(usize),
    /// An index of a batch is out of range; no kernel has seen it.
    #[error("the batch is refused: {0}")]
    Batch(String),
    /// The KV cache has no free page.
    #[error("the KV cache is full: {wanted} more pages are wanted, {free} of {total} are free")]
    CacheFull {
        /// Pages that were asked for.
        wanted: usize,
        /// Pages that are free.
        free: usize,
        /// Pages of the pool.
        total: usize,
    },
    /// A worker thread panicked. The step's results are lost; the model can still be used.
    #[error("a worker thread panicked: {0}")]
    Panic(String),
    /// The logits are not numbers that can be sampled.
    #[error("the logits cannot be sampled: {0}")]
    Logits(String),
    /// The constraint of a request cannot be kept up.
    #[error("the answer cannot be constrained: {0}")]
    Constraint(String),
    /// The engine was stopped before the request ended.
    #[error("the engine was stopped")]
    Stopped,
    /// A parameter of a request is out of its range.
    #[error("{0}")]
    Parameter(String),
}
