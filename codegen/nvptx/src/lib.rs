//! Tile programs to PTX: MLIR through melior, LLVM's NVPTX back end through inkwell.
//!
//! Invariant: only this crate knows MLIR and LLVM, and neither is needed to run what it wrote.

pub mod attend;
pub mod contract;
pub mod emit;
pub mod lower;
pub mod rows;

mod compile;
mod error;

pub use compile::{Piece, compile, stages};
pub use error::Error;
