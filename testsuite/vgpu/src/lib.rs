//! The virtual GPU: PTX executed on the CPU, warp by warp, with a sanitizer and counters.
//!
//! It fulfils [`sinter_ir::GpuDevice`], so whatever runs on a GPU runs here. A form of PTX that it does not know is an
//! error, never a guess.

pub mod async_copy;
pub mod tensor;
