//! A GPU, real or virtual: memory for everything that a plan names, the parameters of each launch, and the model that
//! walks a [`GpuProgram`](sinter_ir::GpuProgram).
//!
//! What differs between devices stands behind [`GpuDevice`](sinter_ir::GpuDevice); nothing here knows which one it is.

mod check;
mod place;

mod launch;
mod recordings;

mod arrivals;
mod model;

pub use arrivals::KernelSource;
pub use model::{GpuConfig, GpuModel, WeightSource};
pub use place::GpuMemoryPlan;

#[cfg(test)]
mod tests;
