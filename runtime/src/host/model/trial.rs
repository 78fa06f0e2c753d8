//! Steps whose launches are timed one by one, and may use other kernels than the model's own: what a tuner does.
//!
//! A kernel is measured where it is used: between the launches that come before and after it in a step, on the memory of its
//! own layer, so its caches are as warm or as cold as they are in use, and its result is part of the step's result, which
//! must not change.

use super::{HostModel, Launch};
use crate::{Batch, RuntimeError};
use sinter_ir::HostKernel;
use std::time::Instant;

/// A step that was timed.
#[derive(Debug)]
pub struct Trial<'m> {
    /// Nanoseconds of each launch, in the order of the plan's steps.
    pub nanos: Vec<u64>,
    /// The rows of the result.
    pub result: &'m [f32],
}

impl HostModel {
    /// Runs one step with a kernel for each of the plan's steps; none stands for the model's own.
    ///
    /// # Errors
    /// As [`crate::DeviceModel::step`]; and if the kernels are not one for each step, or one is not of its step's program.
    pub fn try_kernels(
        &mut self,
        batch: &Batch,
        kernels: &[Option<&HostKernel>],
    ) -> Result<Trial<'_>, RuntimeError> {
        let binding = self.check.check(batch)?;
        self.check_kernels(kernels)?;
        let scratch = kernels.iter().flatten().map(|kernel| kernel.scratch_bytes).max().unwrap_or(0);
        for memory in &mut self.scratch {
            memory.reserve(scratch)?;
        }
        self.reserve(&binding)?;
        self.write_inputs(batch);
        let mut nanos = Vec::with_capacity(self.plan.steps.len());
        for (number, step) in self.plan.steps.iter().enumerate() {
            let own = &self.kernels[step.kernel.0 as usize];
            let kernel = kernels.get(number).copied().flatten().unwrap_or(own);
            let (addresses, scratch) = (&self.addresses, &self.scratch[..]);
            let launch = Launch { addresses, number, scratch, binding: &binding };
            let started = Instant::now();
            launch.run(kernel, &mut self.pool)?;
            nanos.push(started.elapsed().as_nanos() as u64);
        }
        let count = self.plan.outputs[self.checked.result].ty.elements(&binding);
        Ok(Trial { nanos, result: self.outputs[self.checked.result].floats(count as usize) })
    }

    fn check_kernels(&self, kernels: &[Option<&HostKernel>]) -> Result<(), RuntimeError> {
        let steps = &self.plan.steps;
        if kernels.len() != steps.len() {
            let reason = format!("{} kernels for {} steps", kernels.len(), steps.len());
            return Err(RuntimeError::Parameter(reason));
        }
        for (number, (kernel, step)) in kernels.iter().zip(steps).enumerate() {
            let wanted = &self.plan.kernels[step.kernel].name;
            if let Some(kernel) = kernel.filter(|kernel| kernel.name != *wanted) {
                let reason = format!("step {number} is {wanted}, given {}", kernel.name);
                return Err(RuntimeError::Parameter(reason));
            }
        }
        Ok(())
    }
}
