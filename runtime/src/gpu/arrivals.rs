//! Launches for further sizes of steps, which come while the model runs.
//!
//! A model can begin with launches for its largest step and for what is needed at once. Any step may be done by launches
//! that are made for more tokens: schedules differ, bits do not. So when a step comes whose size has better launches, they
//! are asked for, and until they are there the step is done by those that are. Nobody waits for a compiler.

use super::check;
use super::model::GpuModel;
use super::place::Placement;
use crate::{KernelTime, RuntimeError, load};
use sinter_ir::{GpuBucket, GpuFunction, GpuKernel, GpuProgram, Sym};
use std::sync::Arc;

/// Makes launches for further sizes of steps while a model runs.
pub trait KernelSource: Send {
    /// The sizes that have launches of their own, smallest first, as in [`GpuBucket::max_tokens`].
    fn sizes(&self) -> &[Option<u64>];
    /// Asks for the launches of a size. Does not wait.
    fn want(&mut self, size: Option<u64>);
    /// What was asked for and is ready: a program of that size alone. Does not wait.
    fn ready(&mut self) -> Option<GpuProgram>;
    /// What was ready is not used, for this reason.
    fn refused(&mut self, reason: &RuntimeError);
}

/// What was asked for, and what is on its way to the device.
pub(super) struct Arrivals {
    source: Box<dyn KernelSource>,
    asked: Vec<Option<u64>>,
    coming: Option<Coming>,
}

/// A program whose kernels are being loaded.
struct Coming {
    program: GpuProgram,
    /// Those of its kernels that the model lacks. They are the model's when all are there, so that no step takes memory for
    /// what it does not launch.
    loaded: Vec<(GpuKernel, GpuFunction)>,
    /// The positions that its first kernels will have in the model's program.
    places: Vec<usize>,
}

impl Arrivals {
    pub(super) fn new(source: Box<dyn KernelSource>) -> Self {
        Self { source, asked: Vec::new(), coming: None }
    }

    /// Asks, once, for launches that suit a step of so many tokens better than those for `size`.
    fn want(&mut self, tokens: u64, size: Option<u64>) {
        let limit = |size: Option<u64>| size.unwrap_or(u64::MAX);
        let best = self.source.sizes().iter().copied().find(|size| tokens <= limit(*size));
        if let Some(best) = best.filter(|best| limit(*best) < limit(size) && !self.asked.contains(best)) {
            self.asked.push(best);
            self.source.want(best);
        }
    }
}

impl GpuModel {
    /// The same model, which asks `source` for launches of the sizes that its steps have and its program lacks.
    pub fn with_source(mut self, source: Box<dyn KernelSource>) -> Self {
        self.arrivals = Some(Arrivals::new(source));
        self
    }

    /// The position of the launches that do a step of so many tokens.
    pub(super) fn bucket_for(&mut self, tokens: u64) -> usize {
        self.take_arrivals();
        let buckets = &self.program.buckets;
        let holds = |bucket: &GpuBucket| bucket.max_tokens.is_none_or(|most| tokens <= most);
        let at = buckets.iter().position(holds).unwrap_or_default();
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.want(tokens, buckets[at].max_tokens);
        }
        at
    }

    /// Takes what has become ready. What cannot be used is told, and changes nothing.
    fn take_arrivals(&mut self) {
        let Some(mut arrivals) = self.arrivals.take() else { return };
        if let Err(reason) = self.take_next(&mut arrivals) {
            arrivals.coming = None;
            arrivals.source.refused(&reason);
        }
        self.arrivals = Some(arrivals);
    }

    /// Loads the next kernel. One at a time, since a driver compiles a kernel while it is loaded, and a step waits for it.
    fn take_next(&mut self, arrivals: &mut Arrivals) -> Result<(), RuntimeError> {
        if arrivals.coming.is_none() {
            let Some(program) = arrivals.source.ready() else { return Ok(()) };
            check::device(&*self.device, &program).map_err(RuntimeError::Load)?;
            check::launches(&self.plan, &program).map_err(RuntimeError::Load)?;
            if program.buckets.len() != 1 {
                let found = program.buckets.len();
                return Err(RuntimeError::Load(format!("launches for {found} sizes of steps, wanted one")));
            }
            arrivals.coming = Some(Coming { program, loaded: Vec::new(), places: Vec::new() });
        }
        let Some(coming) = &mut arrivals.coming else { return Ok(()) };
        let first = self.program.kernels.len();
        let mut busy = false;
        while let Some(kernel) = coming.program.kernels.get(coming.places.len()) {
            let known = self.program.kernels.iter().position(|known| known == kernel);
            if known.is_none() && busy {
                return Ok(());
            }
            if known.is_none() {
                let function = self.device.load(&kernel.ptx, &kernel.name, kernel.shared_bytes)?;
                coming.loaded.push((kernel.clone(), function));
                busy = true;
            }
            coming.places.push(known.unwrap_or(first + coming.loaded.len() - 1));
        }
        arrivals.coming.take().map_or(Ok(()), |coming| self.accept(coming))
    }

    /// Takes kernels and launches, or none of them.
    fn accept(&mut self, coming: Coming) -> Result<(), RuntimeError> {
        let Coming { program, loaded, places } = coming;
        let first = self.program.kernels.len();
        for (kernel, function) in loaded {
            self.functions.push(function);
            self.times.push(KernelTime { name: kernel.name.clone(), launches: 0, nanos: 0 });
            self.blocks.scratch.push(Default::default());
            Arc::make_mut(&mut self.program).kernels.push(kernel);
        }
        let added = program.buckets.into_iter().try_for_each(|bucket| self.add(bucket, &places));
        if added.is_err() {
            self.forget_kernels(first)?;
        }
        added
    }

    /// Adds launches, whose kernels have these positions, with the memory for the largest step that they do.
    fn add(&mut self, mut bucket: GpuBucket, places: &[usize]) -> Result<(), RuntimeError> {
        bucket.launches.iter_mut().for_each(|launch| launch.kernel = places[launch.kernel]);
        let placement = Placement::of(&self.plan, &bucket.launches);
        let largest = load::largest(&self.config.limits);
        let mut own = largest;
        let tokens = &mut own.values[Sym::T.index()];
        *tokens = (*tokens).min(bucket.max_tokens.unwrap_or(u64::MAX));
        let slots: Vec<u64> = placement.slots.iter().map(|slot| slot.bytes(&own)).collect();
        let count = self.blocks.slots.len().max(slots.len());
        self.blocks.slots.resize(count, Default::default());
        // Recordings know launches by their position, and memory that may move now.
        self.forget_recordings()?;
        // Every step has room for what all kernels put aside, so a kernel that is taken has it for the largest.
        self.grow(&slots, &largest)?;
        let limit = |bucket: &GpuBucket| bucket.max_tokens.unwrap_or(u64::MAX);
        let buckets = &mut Arc::make_mut(&mut self.program).buckets;
        let at = buckets.partition_point(|known| limit(known) < limit(&bucket));
        buckets.insert(at, bucket);
        self.placements.insert(at, placement);
        Ok(())
    }
}
