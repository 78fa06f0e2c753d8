//! Where everything lies: which buffers share memory, and how much there is of each kind.
//!
//! A program may do several steps of a plan in one launch, so the plan's own slots do not fit it: two buffers that follow
//! one another in the plan can meet in a launch. Here buffers share memory by the launches that use them.

use super::check::pairs;
use crate::{Limits, load};
use sinter_ir::draw::DRAW_BYTES;
use sinter_ir::{Arg, Binding, GpuLaunch, GpuProgram, IdVec, Plan, Slot, Sym, gpu_weight_bytes};
use std::fmt;

/// The boundary at which every input starts.
const BOUNDARY: u64 = 256;

/// Which slot each buffer lies in while one list of launches runs; none for buffers that it does not use.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placement {
    pub(super) slot: IdVec<sinter_ir::BufferId, Option<usize>>,
    pub(super) slots: Vec<Slot>,
}

impl Placement {
    /// Buffers that are in use at the same launch lie apart; a slot that is free again goes to the buffer nearest to it
    /// in size.
    pub(super) fn of(plan: &Plan, launches: &[GpuLaunch]) -> Self {
        let mut last = vec![0; plan.buffers.len()];
        for (number, launch) in launches.iter().enumerate() {
            buffers(plan, launch).for_each(|id| last[id.0 as usize] = number);
        }
        let slot = plan.buffers.iter().map(|_| None).collect();
        let (mut place, mut free) = (Self { slot, slots: Vec::new() }, Vec::<usize>::new());
        for (number, launch) in launches.iter().enumerate() {
            for id in buffers(plan, launch) {
                if place.slot[id].is_some() {
                    continue;
                }
                let ty = &plan.buffers[id].ty;
                let size =
                    |slot: usize| place.slots[slot].types.iter().map(|ty| ty.typical()).fold(0.0, f64::max);
                let far = |slot: &usize| (size(*slot) - ty.typical()).abs();
                let best = (0..free.len()).min_by(|a, b| far(&free[*a]).total_cmp(&far(&free[*b])));
                let slot = best.map(|at| free.remove(at)).unwrap_or_else(|| {
                    place.slots.push(Slot::default());
                    place.slots.len() - 1
                });
                place.slots[slot].types.push(ty.clone());
                place.slot[id] = Some(slot);
            }
            let mut ended: Vec<_> =
                buffers(plan, launch).filter(|id| last[id.0 as usize] == number).collect();
            ended.sort_unstable();
            ended.dedup();
            free.extend(ended.iter().filter_map(|id| place.slot[*id]));
        }
        place
    }
}

fn buffers<'p>(plan: &'p Plan, launch: &'p GpuLaunch) -> impl Iterator<Item = sinter_ir::BufferId> + 'p {
    pairs(plan, launch).filter_map(|(_, arg)| if let Arg::Buffer(id) = arg { Some(id) } else { None })
}

/// The bytes of each slot that every bucket needs for its largest step.
pub(super) fn slot_bytes(placements: &[Placement], program: &GpuProgram, largest: &Binding) -> Vec<u64> {
    let mut bytes = Vec::new();
    for (placement, bucket) in placements.iter().zip(&program.buckets) {
        let mut binding = *largest;
        let tokens = &mut binding.values[Sym::T.index()];
        *tokens = (*tokens).min(bucket.max_tokens.unwrap_or(u64::MAX));
        for (at, slot) in placement.slots.iter().enumerate() {
            bytes.resize(bytes.len().max(at + 1), 0);
            bytes[at] = slot.bytes(&binding).max(bytes[at]);
        }
    }
    bytes
}

/// Where each input begins in the one block of inputs, and the size of the block.
pub(super) fn input_places(plan: &Plan, binding: &Binding) -> (Vec<u64>, u64) {
    let mut end = 0u64;
    let place = |input: &sinter_ir::ValueDef| {
        let begin = end;
        end = begin.saturating_add(input.ty.bytes(binding)).next_multiple_of(BOUNDARY);
        begin
    };
    let places = plan.inputs.iter().map(place).collect();
    (places, end)
}

/// The memory of a model on a GPU, before it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuMemoryPlan {
    /// Bytes of weights; those with the same bytes lie there once.
    pub weights: u64,
    /// Bytes of the KV cache.
    pub states: u64,
    /// Bytes of the activations between kernels.
    pub activations: u64,
    /// Bytes of inputs and results.
    pub borders: u64,
    /// Bytes that kernels use between their blocks.
    pub scratch: u64,
}

impl GpuMemoryPlan {
    /// The memory for steps within these limits. It grows if a step wants logits of more than one row a sequence, and a
    /// little where launches come while the model runs.
    pub fn of(plan: &Plan, program: &GpuProgram, limits: &Limits) -> Self {
        let largest = load::largest(limits);
        let placements: Vec<_> =
            program.buckets.iter().map(|bucket| Placement::of(plan, &bucket.launches)).collect();
        let results = plan.outputs.iter().filter(|output| !load::is_state(plan, &output.name));
        Self {
            weights: Self::weight_bytes(plan),
            states: plan.states.iter().map(|state| state.ty.bytes(&largest)).sum(),
            activations: slot_bytes(&placements, program, &largest).iter().sum(),
            borders: input_places(plan, &largest).1
                + results.map(|output| output.ty.bytes(&largest)).sum::<u64>()
                + largest.get(Sym::R) * (DRAW_BYTES as u64 + 4),
            scratch: program.kernels.iter().map(|kernel| kernel.scratch_bytes(&largest)).sum(),
        }
    }
    /// The bytes of a plan's weights alone.
    pub fn weight_bytes(plan: &Plan) -> u64 {
        distinct(plan).filter_map(|def| gpu_weight_bytes(&def.ty, def.layout)).sum()
    }
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.states + self.activations + self.borders + self.scratch
    }
}

impl fmt::Display for GpuMemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.1} MiB: {:.1} of weights, {:.1} of KV cache, {:.1} of activations, {:.1} of inputs and results, \
             {:.1} of scratch",
            mib(self.total()),
            mib(self.weights),
            mib(self.states),
            mib(self.activations),
            mib(self.borders),
            mib(self.scratch),
        )
    }
}

/// The weights, those of the same source and the same bytes once: a tied embedding that is also the head.
fn distinct(plan: &Plan) -> impl Iterator<Item = &sinter_ir::WeightDef> {
    let same = sinter_ir::gpu_twins(plan);
    plan.weights
        .values()
        .zip(same)
        .enumerate()
        .filter(|(at, (_, first))| at == first)
        .map(|(_, (def, _))| def)
}
