//! The host back end: tile programs to machine code.

pub mod micro;

mod access;
mod facts;

mod schedule;

mod calls;
mod emit;

mod code;
mod compile;
mod error;

mod weights;

pub use compile::{compile, compile_all, emit_text};
pub use error::CodegenError;
pub use sinter_ir::HostKernel;
pub use weights::{AlignedBytes, PackError, Packed, RawTensor, Source, pack, packed_bytes};
