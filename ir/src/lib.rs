//! The contracts of the house: what each stage hands to the next.
//!
//! A model enters as a [`Graph`] of about thirty primitive operations over symbolic shapes. The passes rewrite it and
//! lower each fused group to one [`TileProgram`]; a [`Plan`] says which program runs when, on which buffers. The back
//! ends turn tile programs into kernels, and the runtime walks the plan. This crate owns all of these types, their text
//! forms, their verifiers and the naive evaluator, which *is* the semantics: every back end is compared with it.
//!
//! ```
//! use sinter_ir::{Graph, evaluate, Tensor, Binding};
//!
//! let text = r#"graph @relu {
//!   %0 = input["x", (T, 4), f32] : f32[T, 4]
//!   %1 = const[0.0, f32] : f32[]
//!   %2 = max %0, %1 : f32[T, 4]
//!   return "y" %2
//! }
//! "#;
//! let graph = Graph::parse(text).unwrap();
//! assert_eq!(graph.to_string(), text);
//! let x = Tensor::<f64>::new(vec![1, 4], vec![-1.0, 2.0, -3.0, 4.0]);
//! let out = evaluate(&graph, &Binding::new(1, 1, 1, 16), &|name| (name == "x").then(|| x.clone())).unwrap();
//! assert_eq!(out[0].1.data, vec![0.0, 2.0, 0.0, 4.0]);
//! ```
//!
//! Nothing here knows a model family, a rewrite rule, or a machine.

mod codes;
mod dim;
mod dot;
mod dtype;
mod entity;
mod eval;
mod float8;
mod fragments;
mod graph;
mod infer;
mod op;
mod scalar;
mod text;
mod tile;
mod verify;

pub mod draw;
mod gpu;
mod kernel;
mod plan;
mod tile_eval;
mod tile_text;

pub use codes::{CodePart, Codes, Dequantised, Offset, dequantised};
pub use dim::{Binding, Dim, PAGE, Sym};
pub use dot::to_dot;
pub use dtype::{DType, Type};
pub use entity::{Id, IdVec};
pub use eval::{EvalError, Real, Tensor, evaluate, evaluate_op};
pub use float8::Float8;
pub use fragments::{CODE_PIECE, CODE_ROWS};
pub use gpu::{
    Blocks, DevicePtr, GpuBucket, GpuDevice, GpuError, GpuFunction, GpuKernel, GpuLaunch, GpuMark, GpuParam,
    GpuProgram, GpuRecording, LaunchArg, LaunchShape, Swizzle, Target, TensorMap, TensorMapDef, gpu_twins,
    gpu_weight_bytes, weight_pitch,
};
pub use graph::{Graph, GraphError, Node, ValueId};
pub use infer::infer;
pub use kernel::{FewRows, HostForm, HostKernel, KernelEntry};
pub use op::{Attr, Einsum, Float, Monoid, OP_NAMES, Op};
pub use plan::{
    Arg, Buffer, BufferId, KernelId, Plan, PlanError, Slot, StateDef, Step, ValueDef, WeightDef, WeightId,
};
pub use scalar::ScalarOp;
pub use text::ParseError;
pub use tile::{
    Access, Atom, Axis, AxisId, Expr, ExprId, Index, Layout, Load, ParamId, Stage, StageId, TileParam,
    TileProgram,
};
pub use tile_eval::evaluate_tile;
pub use verify::{Violation, verify, verify_tile};
