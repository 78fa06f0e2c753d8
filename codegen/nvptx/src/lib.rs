//! Tile programs to PTX.
//!
//! [`compile`] turns a plan into a [`GpuProgram`](sinter_ir::GpuProgram): kernels as PTX, and for steps of few and of many tokens the launches that do
//! one step. Its body is the list of what happens: group the steps into launches, make each distinct kernel once, write
//! down the launches.
//!
//! A kernel is made by a skeleton, chosen by the program's structure: [`rows`] for norms, chains, gathers and scatters (it covers
//! every program), [`contract`] for products, [`attend`] for attention;
//! [`draw`](mod@draw) has the one kernel that no program describes. A skeleton writes the frame (which thread does what, loops, shared memory,
//! barriers) through the typed builder of [`emit`]. What the program itself computes comes from [`lower`]: a
//! [`Scope`](lower::Scope) knows the iteration of each axis and the results of stages, and gives indices, addresses and values.
//!
//! The builder makes MLIR of the LLVM and NVVM dialects through melior; the module is verified, translated to LLVM IR in
//! memory, optimised and printed as PTX through inkwell. No text is written by hand but the few instructions of
//! `emit/ptx.rs`.
//!
//! ```
//! use sinter_ir::{Arg, Plan, Step, Target, TileProgram, ValueDef};
//!
//! let tile = TileProgram::parse(r#"tile @relu {
//!   p0: bf16[T, 64] read rows "x"
//!   p1: bf16[T, 64] write rows "y"
//!   a0 = 0..T "t"
//!   a1 = 0..64 "d"
//!   grid a0
//!   e0 = load p0[a0, a1]
//!   e1 = const 0.0
//!   e2 = max e0, e1
//!   s0 = store [a1] p1[a0, a1] = e2
//! }
//! "#).unwrap();
//! let value = |name: &str| ValueDef { name: name.into(), ty: tile.params.values().next().unwrap().ty.clone() };
//! let mut plan = Plan { inputs: vec![value("x")], outputs: vec![value("y")], ..Plan::default() };
//! let kernel = plan.kernels.push(tile.clone());
//! plan.steps.push(Step { kernel, args: vec![Arg::Input(0), Arg::Output(0)] });
//!
//! let program = sinter_codegen_nvptx::compile(&plan, Target::Sm90a).unwrap();
//! let kernel = &program.kernels[0];
//! // Eight threads a row, eight elements a thread, in one access each.
//! assert_eq!((kernel.threads, kernel.grid[0].per_block), (128, 16));
//! assert!(kernel.ptx.contains("ld.global.v4.b32") && kernel.ptx.contains("st.global.v4.b32"));
//! ```
//!
//! Invariants: only this crate knows MLIR and LLVM, and neither is needed to run what it wrote; the same plan gives the same
//! bytes on every run; a kernel's arithmetic does not depend on how many tokens a step has.

pub mod attend;
pub mod contract;
pub mod draw;
pub mod emit;
pub mod lower;
pub mod rows;

mod compile;
mod error;

pub use compile::{Keeper, Piece, compile, compile_sizes, stages};
pub use error::Error;
pub use sinter_codegen_schedule::BUCKETS;
