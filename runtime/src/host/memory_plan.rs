//! The memory of a model on the CPU, before it is taken.

use super::packed_bytes;
use crate::Limits;
use crate::load::largest;
use sinter_ir::{HostKernel, Plan};
use std::fmt;

/// Bytes of a model on the CPU for steps within some limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemoryPlan {
    /// Packed weights, which may be mapped from a file.
    pub weights: u64,
    /// The KV cache.
    pub states: u64,
    /// Activations between kernels, inputs and results. It grows if a step wants logits of more than one row a sequence.
    pub activations: u64,
    /// What each thread uses inside a kernel.
    pub scratch: u64,
}

impl HostMemoryPlan {
    /// The memory for steps within these limits.
    pub fn of(plan: &Plan, kernels: &[HostKernel], limits: &Limits, threads: usize) -> Self {
        let largest = largest(limits);
        let is_state = |name: &str| plan.states.iter().any(|state| state.name == name);
        let result = plan.outputs.iter().find(|output| !is_state(&output.name));
        let borders = plan.inputs.iter().chain(result).map(|value| value.ty.bytes(&largest));
        let slots = plan.slots.iter().map(|slot| slot.bytes(&largest));
        let scratch = kernels.iter().map(|kernel| kernel.scratch_bytes).max().unwrap_or(0);
        let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.fold(0, u64::saturating_add);
        Self {
            weights: sum(&mut plan.weights.values().filter_map(|def| packed_bytes(&def.ty, def.layout))),
            states: sum(&mut plan.states.iter().map(|state| state.ty.bytes(&largest))),
            activations: sum(&mut borders.chain(slots)),
            scratch: (scratch as u64).saturating_mul(threads as u64),
        }
    }
    /// What loading takes besides the weights.
    pub fn taken(&self) -> u64 {
        self.states.saturating_add(self.activations).saturating_add(self.scratch)
    }
}

impl fmt::Display for HostMemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.1} MiB: {:.1} of weights, {:.1} of KV cache, {:.1} of activations, {:.1} of scratch",
            mib(self.taken().saturating_add(self.weights)),
            mib(self.weights),
            mib(self.states),
            mib(self.activations),
            mib(self.scratch)
        )
    }
}
