//! Runs a plan with the naive evaluator of tile programs. It is the oracle for the passes: what they lowered must compute
//! what the graph says, before any back end has a part in it.

use sinter_ir::{Arg, Binding, Plan, Real, Tensor, Type, evaluate, evaluate_tile};
use std::collections::BTreeMap;

/// Named tensors: weights, inputs, states.
pub type Leaves<R> = BTreeMap<String, Tensor<R>>;

/// Runs one step. Weights and inputs are read from `leaves`; states are read from and written back to it. Returns the
/// outputs by name.
pub fn run_plan<R: Real>(plan: &Plan, binding: &Binding, leaves: &mut Leaves<R>) -> Leaves<R> {
    let shape = |ty: &Type| -> Vec<usize> { ty.shape.iter().map(|dim| dim.eval(binding) as usize).collect() };
    let empty = |ty: &Type| Tensor::from_fn(&shape(ty), |_| R::from_f64(f64::NAN));
    let leaf = |leaves: &Leaves<R>, name: &str| {
        leaves.get(name).cloned().unwrap_or_else(|| panic!("{name} is not given"))
    };
    let weights: Vec<Tensor<R>> = plan
        .weights
        .values()
        .map(|weight| {
            let value = evaluate(&weight.source, binding, &|name| leaves.get(name).cloned());
            value.expect("the weight evaluates").remove(0).1
        })
        .collect();
    let mut buffers: Vec<Tensor<R>> = plan.buffers.values().map(|buffer| empty(&buffer.ty)).collect();
    let mut outputs: Vec<Tensor<R>> = plan.outputs.iter().map(|output| empty(&output.ty)).collect();
    for step in &plan.steps {
        let tile = &plan.kernels[step.kernel];
        let mut params: Vec<Tensor<R>> = Vec::new();
        for (arg, param) in step.args.iter().zip(tile.params.values()) {
            let value = match *arg {
                Arg::Weight(id) => weights[id.0 as usize].clone(),
                Arg::Buffer(id) => buffers[id.0 as usize].clone(),
                Arg::Output(at) => outputs[at].clone(),
                Arg::Input(at) => leaf(leaves, &plan.inputs[at].name),
                Arg::State(at) => leaf(leaves, &plan.states[at].name),
            };
            params.push(Tensor::new(shape(&param.stored()), value.data));
        }
        evaluate_tile(tile, binding, &mut params);
        for ((arg, param), tensor) in step.args.iter().zip(tile.params.values()).zip(params) {
            if param.access == sinter_ir::Access::Read {
                continue;
            }
            match *arg {
                Arg::Buffer(id) => buffers[id.0 as usize].data = tensor.data,
                Arg::Output(at) => outputs[at].data = tensor.data,
                Arg::State(at) => drop(leaves.insert(plan.states[at].name.clone(), tensor)),
                Arg::Weight(_) | Arg::Input(_) => panic!("{} writes to {arg:?}", tile.name),
            }
        }
    }
    plan.outputs.iter().map(|output| output.name.clone()).zip(outputs).collect()
}
