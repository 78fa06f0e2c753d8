//! The runtime: it walks a [`Plan`](sinter_ir::Plan) step by step and turns requests into tokens.
//!
//! It is thin on purpose. Compilers, checkpoints and tokenizers live elsewhere; what comes in here is a verified plan,
//! its kernels as machine code, its weights as bytes, and token ids. The flow of one step:
//!
//! ```text
//! Sequence + BlockPool → BatchBuilder → Batch → DeviceModel::step → rows of f32 → Sampler → token → Sequence
//! ```
//!
//! - [`BlockPool`] hands out the pages of the KV cache and counts who uses them; a [`Sequence`] holds its tokens and its
//!   block table.
//! - [`Batch`] is one step: a flat list of tokens of any number of sequences, prefill chunks and decodes together.
//! - [`DeviceModel`] runs a step. [`HostModel`] is the one for the CPU, on a [`ThreadPool`] whose division of the work
//!   never changes a result; [`GpuModel`] is the one for any [`GpuDevice`](sinter_ir::GpuDevice). Every index of a batch is checked on the host before a kernel sees it.
//! - [`Sampler`] picks the next token. Its random numbers come from the seed and the position alone, so the same request
//!   gives the same text whoever shares the batch.
//! - [`Session`] feeds one sequence in chunks of any size, for logits and measurements.
//! - [`engine::Engine`] answers requests, many at once; [`reader::Reader`] gives the rows of texts, for vectors and scores.
//!
//! ```
//! use sinter_runtime::{Sampler, SamplingParams};
//!
//! let mut greedy = Sampler::new(SamplingParams::greedy()).unwrap();
//! assert_eq!(greedy.sample(&[0.5, 2.0, 2.0], &Default::default()).unwrap(), 1);
//! ```
//!
//! Invariant: nothing here knows LLVM, Cranelift, a file format or the environment, and `unsafe` stands only in `host`
//! and `cuda`.

mod error;

mod blocks;
mod sequence;

mod batch;
mod check;
mod device;
mod load;

mod cuda;
mod gpu;
mod host;

mod rng;
mod sampler;
mod token_set;

mod owner;

pub mod engine;
pub mod reader;

mod session;

pub use batch::{Batch, BatchBuilder, Chunk, Rows};
pub use blocks::BlockPool;
pub use check::BatchCheck;
pub use cuda::{CudaDevice, CudaInfo, CudaReport, cuda_report};
pub use device::{DeviceModel, KernelTime, Limits, Row};
pub use engine::Finish;
pub use error::RuntimeError;
pub use gpu::{GpuConfig, GpuMemoryPlan, GpuModel, KernelSource, WeightSource};
pub use host::{
    HostConfig, HostMemoryPlan, HostModel, HugeMemory, MappedFile, Memory, PoolPanic, ThreadPool, Trial,
    WeightBytes, packed_bytes, read_bandwidth,
};
pub use rng::uniform;
pub use sampler::{SampleContext, Sampler, SamplingParams};
pub use sequence::Sequence;
pub use session::{Session, encode, encode_typed};
pub use token_set::TokenSet;
