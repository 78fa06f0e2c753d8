//! The typed builder in which kernels are written.
//!
//! [`Assembler::kernel`] opens a kernel and hands its body a [`K`], the one context argument. Values are [`V`]s of a
//! marker type: [`Int`], [`Float`], [`Global`] and so on. They know their kernel, so arithmetic is written with operators:
//!
//! ```
//! use sinter_codegen_nvptx::emit::{Assembler, Cache, Entry, F32};
//! use sinter_ir::{GpuParam, Sym, Target};
//!
//! let params = vec![GpuParam::Address(0), GpuParam::Address(1), GpuParam::Symbols];
//! let entry = Entry { name: "double".into(), params, threads: 128, max_registers: None, min_blocks: None };
//! let assembler = Assembler::new(Target::Sm80).unwrap();
//! let kernel = assembler.kernel(&entry, |k| {
//!     let i = k.block() * 128 + k.thread();
//!     k.when(i.lt(k.symbol(Sym::T)), || {
//!         let x = k.load::<F32>(k.address(0).at(i * 4), Cache::Any);
//!         k.store(k.address(1).at(i * 4), x + x);
//!     });
//! });
//! assert!(kernel.unwrap().ptx.contains("add.rn.f32"));
//! ```
//!
//! Loops and conditionals are calls with closures ([`Body::range`], [`Body::when`]); what a loop changes it carries
//! ([`Carry`]). They become blocks of the LLVM dialect with arguments, which translate without any pass of MLIR.
//!
//! Which file holds what: `value` types and operators, `flow` control, `memory` pointers, `intrinsic` what LLVM has an
//! intrinsic for, `hopper` what only sm_90 has, `ptx` the instructions that have to be written as PTX text, `math` the scalar functions, `assemble` the
//! way from a body to PTX.

mod assemble;
mod body;
mod flow;
mod hopper;
mod intrinsic;
mod math;
mod memory;
mod ptx;
mod value;

pub use assemble::{Assembled, Assembler, Entry, Stages};
pub use body::{Body, K};
pub use flow::Carry;
pub use hopper::{Left, REGISTERS, REGISTERS_AT_START, Right};
pub use memory::{Cache, Vector};
pub use value::{
    Bit, Double, F32, F64, Float, Global, I1, I8, I16, I32, I64, Int, Long, Param, Ptr, Scalar, Shared,
    Short, V,
};
