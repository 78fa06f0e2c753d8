//! The CPU: aligned memory, a pool of threads, and the model that calls host kernels.
//!
//! This is the only module of the crate with `unsafe` in it: kernels take raw addresses, and the pool lends a closure to
//! threads that outlive it. Each block says why it is sound.
#![allow(unsafe_code, reason = "kernels are called through raw addresses; each block says why it is sound")]

mod bandwidth;
mod load;
mod memory;
mod memory_plan;
mod model;
mod pool;

pub use bandwidth::read_bandwidth;
pub use load::packed_bytes;
pub use memory::{HugeMemory, MappedFile, Memory, WeightBytes};
pub use memory_plan::HostMemoryPlan;
pub use model::{HostConfig, HostModel, Trial};
pub(crate) use pool::panic_text;
pub use pool::{PoolPanic, ThreadPool};

#[cfg(test)]
mod tests;
