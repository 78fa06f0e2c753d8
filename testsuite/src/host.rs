//! A model on the host back end, for any instruction set that this machine has.

use crate::compiled;
use sinter_codegen_host::micro::Isa;
use sinter_codegen_host::{compile_all, pack};
use sinter_frontend::build::BuildOptions;
use sinter_frontend::model::Model;
use sinter_ir::{DType, Plan};
use sinter_runtime::{HostConfig, HostModel, Limits};
use std::sync::Arc;

pub use crate::compiled::logits;

/// The instruction sets that this machine has.
pub fn instruction_sets() -> Vec<Isa> {
    let all = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];
    all.into_iter().filter(|isa| *isa <= Isa::detect()).collect()
}

/// Compiles and loads a model for one sequence of at most `context` tokens.
pub fn load(model: &Model, dtype: DType, isa: Isa, context: usize) -> HostModel {
    load_with(model, dtype, isa, compiled::limits(model, context))
}

/// Compiles and loads a model for steps of these sizes.
pub fn load_with(model: &Model, dtype: DType, isa: Isa, limits: Limits) -> HostModel {
    load_built(model, BuildOptions::new(dtype), isa, limits)
}

/// Compiles and loads a model, built so, for steps of these sizes; quantised weights are codes in memory.
pub fn load_built(model: &Model, options: BuildOptions, isa: Isa, limits: Limits) -> HostModel {
    load_plan(model, compiled::plan_of(model, options, true), isa, limits)
}

/// Compiles a plan of a model and loads it for steps of these sizes.
pub fn load_plan(model: &Model, plan: Plan, isa: Isa, limits: Limits) -> HostModel {
    let tiles: Vec<_> = plan.kernels.values().collect();
    let kernels = compile_all(&tiles, isa).expect("the kernels compile");
    let weights = compiled::weights(model, &plan, |def, source| Ok(pack(def, source)?.bytes));
    let config = HostConfig { threads: 2, limits, profile: false };
    HostModel::new(Arc::new(plan), kernels, weights, config).expect("the model loads")
}
