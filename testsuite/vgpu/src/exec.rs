//! Execution: what an instruction does, to which registers, and in which order warps do it.

mod arithmetic;
mod banks;
mod barrier;
mod block;
mod clock;
mod cluster;
mod copies;
mod decode;
mod flow;
mod grid;
mod memory;
mod op;
mod phases;
mod products;
mod program;
mod shuffle;
mod special;
mod stores;
mod tensor;
mod warp;
mod watched;

pub(crate) use decode::decode;
pub use grid::{Launch, run};
pub use op::{Op, Vote};
pub use program::Program;
