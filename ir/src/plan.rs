//! The plan: which kernel runs when, on which buffers. It is all that the runtime needs besides kernels and weights.

use crate::entity::entity;
use crate::{Binding, Graph, IdVec, Layout, TileProgram, Type};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

entity!(
    /// A kernel of a plan.
    KernelId, "k"
);
entity!(
    /// A packed weight of a plan.
    WeightId, "w"
);
entity!(
    /// An activation buffer of a plan.
    BufferId, "b"
);

/// One step of the model as a list of kernel launches.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The name, for dumps.
    pub name: String,
    /// The distinct tile programs.
    pub kernels: IdVec<KernelId, TileProgram>,
    /// The weights, as the kernels want them.
    pub weights: IdVec<WeightId, WeightDef>,
    /// The tensors given at each step, in order.
    pub inputs: Vec<ValueDef>,
    /// The tensors that live from step to step.
    pub states: Vec<StateDef>,
    /// The results of a step, in order.
    pub outputs: Vec<ValueDef>,
    /// The activations between kernels.
    pub buffers: IdVec<BufferId, Buffer>,
    /// The pieces of memory that buffers share.
    pub slots: Vec<Slot>,
    /// The launches, in order.
    pub steps: Vec<Step>,
}

/// A named tensor at the border of the plan.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ValueDef {
    /// The graph's name for it.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

/// A tensor that lives from step to step.
pub type StateDef = ValueDef;

/// A weight: an expression over the checkpoint's tensors, and how the result lies in memory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WeightDef {
    /// A graph with weights as its only leaves and one output: mostly one tensor, or a concatenation.
    #[serde(serialize_with = "graph_text", deserialize_with = "text_graph")]
    pub source: Graph,
    /// Element type and shape of the result.
    pub ty: Type,
    /// How it lies in memory.
    pub layout: Layout,
}

fn graph_text<S: Serializer>(graph: &Graph, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(graph)
}

fn text_graph<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Graph, D::Error> {
    Graph::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// An activation and the slot it lies in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Buffer {
    /// Its type.
    pub ty: Type,
    /// The position in [`Plan::slots`].
    pub slot: usize,
}

/// A piece of memory that buffers use one after the other: as large as its largest buffer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Slot {
    /// The types of the buffers that lie here.
    pub types: Vec<Type>,
}

impl Slot {
    /// The bytes needed under a binding.
    pub fn bytes(&self, binding: &Binding) -> u64 {
        self.types.iter().map(|ty| ty.bytes(binding)).max().unwrap_or(0)
    }
}

/// An argument of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Arg {
    /// A packed weight.
    Weight(WeightId),
    /// An activation.
    Buffer(BufferId),
    /// The position in [`Plan::states`].
    State(usize),
    /// The position in [`Plan::inputs`].
    Input(usize),
    /// The position in [`Plan::outputs`].
    Output(usize),
}

/// One kernel launch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// The kernel.
    pub kernel: KernelId,
    /// One argument for each parameter of its tile program.
    pub args: Vec<Arg>,
}

/// Why a plan cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("step {step}: {reason}")]
pub struct PlanError {
    /// The position in [`Plan::steps`].
    pub step: usize,
    /// What is wrong.
    pub reason: String,
}

impl Plan {
    /// Checks that every id exists, that arguments match their parameters, and that buffers are written before they are
    /// read. A plan that passes is safe to launch.
    pub fn verify(&self) -> Result<(), PlanError> {
        let mut written = vec![false; self.buffers.len()];
        for (number, step) in self.steps.iter().enumerate() {
            let error = |reason: String| PlanError { step: number, reason };
            let kernel =
                self.kernels.get(step.kernel).ok_or_else(|| error(format!("there is no {}", step.kernel)))?;
            if kernel.params.len() != step.args.len() {
                let (wanted, found) = (kernel.params.len(), step.args.len());
                return Err(error(format!("{} takes {wanted} arguments, found {found}", kernel.name)));
            }
            for (param, arg) in kernel.params.values().zip(&step.args) {
                let ty = self.arg_type(*arg).ok_or_else(|| error(format!("there is no {arg:?}")))?;
                if !same_bytes(ty, &param.stored()) {
                    return Err(error(format!(
                        "{} of {} is {}, given {ty}",
                        param.name, kernel.name, param.ty
                    )));
                }
                let Arg::Buffer(buffer) = *arg else { continue };
                match param.access {
                    crate::Access::Write => written[buffer.0 as usize] = true,
                    _ if written[buffer.0 as usize] => {}
                    _ => return Err(error(format!("{buffer} is read before it is written"))),
                }
            }
        }
        Ok(())
    }

    fn arg_type(&self, arg: Arg) -> Option<&Type> {
        match arg {
            Arg::Weight(id) => self.weights.get(id).map(|weight| &weight.ty),
            Arg::Buffer(id) => self.buffers.get(id).map(|buffer| &buffer.ty),
            Arg::State(at) => self.states.get(at).map(|state| &state.ty),
            Arg::Input(at) => self.inputs.get(at).map(|input| &input.ty),
            Arg::Output(at) => self.outputs.get(at).map(|output| &output.ty),
        }
    }
}

/// Whether two types have the same element type and number of elements; a parameter may see a buffer under another shape.
fn same_bytes(a: &Type, b: &Type) -> bool {
    let probes = [Binding { values: [3, 5, 7, 11, 23] }, Binding { values: [13, 2, 17, 19, 29] }];
    a.dtype == b.dtype && probes.iter().all(|probe| a.elements(probe) == b.elements(probe))
}
