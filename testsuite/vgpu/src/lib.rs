//! The virtual GPU: PTX executed on the CPU, warp by warp, with a sanitizer and counters.
//!
//! It fulfils [`sinter_ir::GpuDevice`], so whatever runs on a GPU runs here. A form of PTX that it does not know is an
//! error, never a guess.

pub mod async_copy;
mod counters;
mod device;
mod exec;
mod fault;
pub mod forms;
mod memory;
pub mod ptx;
pub mod tensor;

pub use counters::Counters;
pub use device::{LaunchCounters, VirtualGpu};
pub use fault::Fault;
