//! NVIDIA GPUs through the CUDA driver, which is loaded when it is first asked for: nothing here needs CUDA to be built.
//!
//! - [`cuda_report`] says whether there is a driver and which devices it has; it never fails and never panics.
//! - [`CudaDevice`] is a [`GpuDevice`](sinter_ir::GpuDevice): one stream, memory from the stream-ordered pool, modules
//!   compiled by the driver from PTX, launches with their attributes (clusters, programmatic dependent launch), graphs
//!   captured from the stream, and events as marks.
//!
//! What can be decided without a driver is decided in `parameters`, which is pure.
//!
//! This module speaks C to the driver, so it may be `unsafe`; each block says why it is sound.
#![allow(unsafe_code, reason = "the CUDA driver is a C library")]

mod driver;
mod parameters;

mod device;
mod graphs;

pub use device::CudaDevice;
pub use driver::{CudaInfo, CudaReport, cuda_report};
