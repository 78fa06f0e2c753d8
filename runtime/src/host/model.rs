//! The model on the CPU: memory for everything the plan names, and the walk over its steps.

mod trial;

pub use trial::Trial;

use super::{Memory, ThreadPool, WeightBytes};
use crate::load::{self, Checked};
use crate::{Batch, BatchCheck, DeviceModel, KernelTime, Limits, RuntimeError};
use sinter_ir::{Arg, Binding, HostKernel, Plan, StateDef};
use std::sync::Arc;
use std::time::Instant;

/// How a model is loaded.
#[derive(Debug, Clone, Copy)]
pub struct HostConfig {
    /// Threads, the caller's included.
    pub threads: usize,
    /// How large steps can be.
    pub limits: Limits,
    /// Whether to measure each kernel.
    pub profile: bool,
}

/// A model on the CPU.
#[derive(Debug)]
pub struct HostModel {
    plan: Arc<Plan>,
    kernels: Vec<HostKernel>,
    weights: Vec<WeightBytes>,
    config: HostConfig,
    check: BatchCheck,
    checked: Checked,
    inputs: Vec<Memory>,
    states: Vec<Memory>,
    outputs: Vec<Memory>,
    slots: Vec<Memory>,
    addresses: Addresses,
    pool: ThreadPool,
    scratch: Vec<Memory>,
    times: Vec<KernelTime>,
}

/// The base address of each argument of each step.
#[derive(Debug, Default)]
struct Addresses(Vec<Vec<*mut u8>>);

// SAFETY: the addresses point into memory that the model owns or shares, and are used only while the model is borrowed
// mutably by one step.
unsafe impl Send for Addresses {}
// SAFETY: as above.
unsafe impl Sync for Addresses {}

impl HostModel {
    /// Checks that plan, kernels and weights belong together and sets the memory aside. Weights and kernels stand in the
    /// order of the plan's.
    pub fn new(
        plan: Arc<Plan>,
        kernels: Vec<HostKernel>,
        weights: Vec<WeightBytes>,
        config: HostConfig,
    ) -> Result<Self, RuntimeError> {
        let checked = super::load::check(&plan, &kernels, &weights)?;
        let largest = load::largest(&config.limits);
        let room = |state: &StateDef| Memory::zeroed(state.ty.bytes(&largest) as usize);
        let none = |count: usize| (0..count).map(|_| Memory::zeroed(0)).collect::<Result<Vec<_>, _>>();
        let pool = ThreadPool::new(config.threads);
        let scratch = kernels.iter().map(|kernel| kernel.scratch_bytes).max().unwrap_or(0);
        let time = |kernel: &HostKernel| KernelTime { name: kernel.name.clone(), launches: 0, nanos: 0 };
        let mut model = Self {
            check: BatchCheck::new(config.limits, !plan.states.is_empty()),
            checked,
            inputs: none(plan.inputs.len())?,
            states: plan.states.iter().map(room).collect::<Result<_, _>>()?,
            outputs: none(plan.outputs.len())?,
            slots: none(plan.slots.len())?,
            addresses: Addresses::default(),
            scratch: (0..pool.threads()).map(|_| Memory::zeroed(scratch)).collect::<Result<_, _>>()?,
            times: kernels.iter().map(time).collect(),
            plan: plan.clone(),
            kernels,
            weights,
            config,
            pool,
        };
        model.reserve(&largest)?;
        model.bind();
        Ok(model)
    }

    /// The plan that is run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of the KV cache.
    pub fn state_bytes(&self) -> usize {
        self.states.iter().map(|state| state.bytes().len()).sum()
    }

    /// Bytes of the memory for activations, inputs and results.
    pub fn activation_bytes(&self) -> usize {
        self.inputs.iter().chain(&self.outputs).chain(&self.slots).map(|memory| memory.bytes().len()).sum()
    }

    /// Grows what is too small for a step. What grows moves, so the addresses are taken anew, also when the memory ends
    /// halfway.
    fn reserve(&mut self, binding: &Binding) -> Result<(), RuntimeError> {
        let mut moved = false;
        let grown = self.grow(binding, &mut moved);
        if moved {
            self.bind();
        }
        grown
    }

    fn grow(&mut self, binding: &Binding, moved: &mut bool) -> Result<(), RuntimeError> {
        for (memory, def) in self.inputs.iter_mut().zip(&self.plan.inputs) {
            *moved |= memory.reserve(def.ty.bytes(binding) as usize)?;
        }
        for (memory, slot) in self.slots.iter_mut().zip(&self.plan.slots) {
            *moved |= memory.reserve(slot.bytes(binding) as usize)?;
        }
        let result = self.plan.outputs[self.checked.result].ty.bytes(binding) as usize;
        *moved |= self.outputs[self.checked.result].reserve(result)?;
        Ok(())
    }

    fn bind(&mut self) {
        let address = |arg: &Arg| match *arg {
            Arg::Weight(id) => self.weights[id.0 as usize].bytes().as_ptr().cast_mut(),
            Arg::Buffer(id) => self.slots[self.plan.buffers[id].slot].pointer(),
            Arg::State(at) => self.states[at].pointer(),
            Arg::Input(at) => self.inputs[at].pointer(),
            Arg::Output(at) => self.outputs[at].pointer(),
        };
        let steps = self.plan.steps.iter().map(|step| step.args.iter().map(address).collect()).collect();
        self.addresses = Addresses(steps);
    }

    fn write_inputs(&mut self, batch: &Batch) {
        for (input, memory) in self.checked.inputs.iter().zip(&mut self.inputs) {
            let values = input.values(batch);
            for (bytes, value) in memory.bytes_mut().chunks_exact_mut(4).zip(values) {
                bytes.copy_from_slice(&value.to_ne_bytes());
            }
        }
    }

    fn launch(&mut self, number: usize, binding: &Binding) -> Result<(), RuntimeError> {
        let at = self.plan.steps[number].kernel.0 as usize;
        let started = self.config.profile.then(Instant::now);
        let launch = Launch { addresses: &self.addresses, number, scratch: &self.scratch, binding };
        launch.run(&self.kernels[at], &mut self.pool)?;
        if let Some(started) = started {
            self.times[at].launches += 1;
            self.times[at].nanos += started.elapsed().as_nanos() as u64;
        }
        Ok(())
    }
}

/// One launch.
struct Launch<'a> {
    addresses: &'a Addresses,
    /// The step of the plan.
    number: usize,
    scratch: &'a [Memory],
    binding: &'a Binding,
}

impl Launch<'_> {
    /// Runs a kernel of this step's program.
    fn run(&self, kernel: &HostKernel, pool: &mut ThreadPool) -> Result<(), RuntimeError> {
        let form = kernel.form(self.binding);
        let units = form.count(self.binding);
        let body = |range: std::ops::Range<u64>, thread: usize| {
            let args = self.addresses.of(self.number);
            let (symbols, scratch) = (self.binding.values.as_ptr(), self.scratch[thread].pointer());
            // SAFETY: the checks at load have seen that every argument is the tensor that the kernel's program declares, the
            // memory was reserved for this binding, every index in it was checked, each thread has its own scratch
            // memory of the largest size, and the ranges of units are disjoint.
            unsafe { (form.entry)(args.as_ptr(), symbols, range.start, range.end, scratch) };
        };
        let done =
            if form.alone { ThreadPool::alone(|| body(0..units, 0)) } else { pool.parallel(units, body) };
        done.map_err(|panic| RuntimeError::Panic(panic.0))
    }
}

impl Addresses {
    fn of(&self, step: usize) -> &[*mut u8] {
        &self.0[step]
    }
}

impl DeviceModel for HostModel {
    fn device(&self) -> String {
        format!("host, {} threads", self.pool.threads())
    }
    fn limits(&self) -> Limits {
        self.config.limits
    }
    fn result_name(&self) -> &str {
        &self.plan.outputs[self.checked.result].name
    }
    fn width(&self) -> usize {
        self.checked.width(&self.plan)
    }
    fn step(&mut self, batch: &Batch) -> Result<&[f32], RuntimeError> {
        let binding = self.check.check(batch)?;
        self.reserve(&binding)?;
        self.write_inputs(batch);
        for number in 0..self.plan.steps.len() {
            self.launch(number, &binding)?;
        }
        let count = self.plan.outputs[self.checked.result].ty.elements(&binding);
        Ok(self.outputs[self.checked.result].floats(count as usize))
    }
    fn times(&self) -> Vec<KernelTime> {
        if self.config.profile { self.times.clone() } else { Vec::new() }
    }
}
