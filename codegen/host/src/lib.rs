//! The host back end: from tile programs to machine code, and from a checkpoint's tensors to weights that the code
//! reads.
//!
//! ```text
//! TileProgram ──facts──▶ Facts ──choose──▶ Schedule ──emit──▶ Cranelift form ──finish──▶ HostKernel
//! WeightDef + tensors ──views──▶ pieces ──fill──▶ Packed
//! ```
//!
//! A kernel is machine code for one tile program, under the contract of [`KernelEntry`](sinter_ir::KernelEntry). What
//! costs time is done by [`micro`]-kernels that were compiled with this crate; Cranelift generates everything around
//! them: the loops, the addresses, the expressions before and after. A kernel takes about a millisecond to compile.
//!
//! The structure of a program, never a name, decides its skeleton:
//! - *points*: a loop over grid points. Norms, element-wise chains, gathers and scatters, and any program of no other
//!   structure. Inner loops run in vectors of four where memory allows.
//! - *contract*: products with packed weights. A unit is 64 columns, and of many rows two units run together; 48 rows at
//!   a time go through the micro-kernel into scratch memory, and the stores' expressions run over the block while it is at
//!   hand.
//! - *attend*: the online softmax. A unit is a grid point, or the neighbours that share keys and values; the context
//!   goes by in blocks of 64 positions, and the score is any expression.
//!
//! A weight may lie in panels of codes: rows of numbers are multiplied by what they are unpacked to, unit by unit, and rows of
//! codes by the codes themselves.
//!
//! What they mean is the same for all, and is what [`evaluate_tile`](sinter_ir::evaluate_tile) says.
//!
//! ```
//! use sinter_codegen_host::{compile, emit_text, micro::Isa};
//! use sinter_ir::*;
//!
//! // y[t, d] = x[t, d] + x[t, d]
//! let mut tile = TileProgram { name: "double".into(), ..TileProgram::default() };
//! let t = tile.axes.push(Axis { name: "t".into(), extent: Sym::T.into() });
//! let d = tile.axes.push(Axis { name: "d".into(), extent: 4.into() });
//! let ty = Type::new(DType::F32, [Sym::T.into(), 4.into()]);
//! let mut param = |name: &str, access| {
//!     let (name, ty, layout) = (name.into(), ty.clone(), Layout::Rows);
//!     tile.params.push(TileParam { name, ty, access, layout })
//! };
//! let (x, y) = (param("x", Access::Read), param("y", Access::Write));
//! let index = vec![Index::axis(t), Index::axis(d)];
//! let load = tile.expr(Expr::Load(Load { param: x, index: index.clone() }));
//! let value = tile.expr(Expr::Apply(ScalarOp::Add, vec![load, load]));
//! tile.stages.push(Stage::Store { axes: vec![], param: y, index, value });
//! tile.grid = vec![t, d];
//!
//! let kernel = compile(&tile, Isa::detect())?;
//! let (mut x, mut y) = ([1.0f32, 2.0, 3.0, 4.0], [0.0f32; 4]);
//! let args: [*mut u8; 2] = [x.as_mut_ptr().cast(), y.as_mut_ptr().cast()];
//! let step = Binding::new(1, 1, 1, 16);
//! let form = kernel.form(&step);
//! // SAFETY: x and y have one row of four numbers; the kernel asks for no scratch memory.
//! unsafe { (form.entry)(args.as_ptr(), step.values.as_ptr(), 0, form.count(&step), std::ptr::null_mut()) };
//! assert_eq!(y, [2.0, 4.0, 6.0, 8.0]);
//! assert!(emit_text(&tile, Isa::detect()).starts_with("; double: units (T), scratch 0: points"));
//! # Ok::<(), sinter_codegen_host::CodegenError>(())
//! ```
//!
//! Invariant: what a unit computes does not depend on which units run with it, nor a row on the other rows of the step.
//! Sums run in an order that depends on the summed extent alone.
//!
//! Invariant: the same programs give the same code. Nothing iterates over a hash map.
//!
//! Invariant: two parameters of a launch never overlap, unless every element that is read through one and stored
//! through another is read and stored at the same iteration.

pub mod micro;

// What is known about a program.
mod access;
mod facts;

// How it is run.
mod schedule;

// The code.
mod calls;
mod emit;

mod code;
mod compile;
mod error;

// The weights.
mod codes;
mod weights;

pub use compile::{candidates, choose, compile, compile_all, compile_as, emit_text, ranked, rows};
pub use error::CodegenError;
pub use schedule::cost::{Bound, Cost, Machine, Size};
pub use schedule::{Choice, ChoiceError, Choices, FEW_ROWS, Way};
pub use sinter_codegen_weights::{AlignedBytes, PackError, RawTensor, Source};
pub use sinter_ir::HostKernel;
pub use weights::{Packed, pack, pack_into, packed_bytes, rows_of_packed};
