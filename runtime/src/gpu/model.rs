//! The model on a GPU: memory for everything the plan names, and the walk over the launches of a step.

use super::arrivals::Arrivals;
use super::place::{GpuMemoryPlan, Placement, input_places, slot_bytes};
use super::recordings::{Choice, Key, Recordings, rounded_pages};
use super::{check, launch};
use crate::load::{self, Checked};
use crate::{Batch, BatchCheck, DeviceModel, KernelTime, Limits, Memory, Row, RuntimeError, WeightBytes};
use sinter_ir::draw::{DRAW_BYTES, Draw, NO_TOKEN};
use sinter_ir::{
    Arg, Binding, DevicePtr, GpuDevice, GpuError, GpuFunction, GpuKernel, GpuProgram, Plan, Sym, gpu_twins,
};
use std::sync::Arc;

/// How a model is loaded.
#[derive(Debug, Clone, Copy)]
pub struct GpuConfig {
    /// How large steps can be.
    pub limits: Limits,
    /// Whether to measure each kernel, where the device has a clock. Launches are not recorded then.
    pub profile: bool,
}

/// Gives a weight of a plan by its position.
pub type WeightSource<'w> = &'w dyn Fn(usize) -> Result<WeightBytes, RuntimeError>;

/// A model on a GPU.
pub struct GpuModel {
    pub(super) plan: Arc<Plan>,
    pub(super) program: Arc<GpuProgram>,
    pub(super) config: GpuConfig,
    checked: Checked,
    check: BatchCheck,
    pub(super) functions: Vec<GpuFunction>,
    /// For each bucket where its buffers lie.
    pub(super) placements: Vec<Placement>,
    pub(super) blocks: Blocks,
    /// Inputs on their way to the device, and the result on its way back.
    outward: Memory,
    homeward: Memory,
    /// Tokens that were drawn, on their way back.
    drawn: Memory,
    recordings: Option<Recordings>,
    pub(super) times: Vec<KernelTime>,
    pub(super) device: Box<dyn GpuDevice>,
    /// Launches of further sizes, if someone makes them.
    pub(super) arrivals: Option<Arrivals>,
}

/// A piece of device memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Block {
    at: DevicePtr,
    bytes: u64,
}

/// All device memory of a model.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// One address for each weight of the plan.
    weights: Vec<DevicePtr>,
    states: Vec<Block>,
    /// The inputs, and after them one draw a row.
    inputs: Block,
    result: Block,
    /// One token a row.
    tokens: Block,
    pub(super) slots: Vec<Block>,
    /// One for each kernel of the program.
    pub(super) scratch: Vec<Block>,
}

impl GpuModel {
    /// Checks that plan, program, weights and device belong together, loads the kernels and sets the memory aside.
    /// `weight` gives the plan's weights by their position, as they lie in GPU memory; it is asked for one after the
    /// other, so that none need be there before it is copied.
    ///
    /// # Errors
    /// If something does not belong together, a kernel is not accepted, or the device's memory does not suffice.
    pub fn new(
        plan: Arc<Plan>,
        program: Arc<GpuProgram>,
        weight: WeightSource<'_>,
        device: Box<dyn GpuDevice>,
        config: GpuConfig,
    ) -> Result<Self, RuntimeError> {
        let checked = load::check(&plan)?;
        check::device(&*device, &program).map_err(RuntimeError::Load)?;
        check::check(&plan, &program, config.limits.max_tokens as u64).map_err(RuntimeError::Load)?;
        let time = |kernel: &GpuKernel| KernelTime { name: kernel.name.clone(), launches: 0, nanos: 0 };
        let mut model = Self {
            check: BatchCheck::new(config.limits, !plan.states.is_empty()),
            functions: Vec::new(),
            placements: program.buckets.iter().map(|bucket| Placement::of(&plan, &bucket.launches)).collect(),
            blocks: Blocks::default(),
            outward: Memory::zeroed(0)?,
            homeward: Memory::zeroed(0)?,
            drawn: Memory::zeroed(0)?,
            recordings: (!config.profile).then(Recordings::default),
            times: program.kernels.iter().map(time).collect(),
            plan,
            program,
            config,
            checked,
            device,
            arrivals: None,
        };
        model.load_kernels()?;
        model.set_aside(weight)?;
        model.device.synchronize()?;
        Ok(model)
    }

    /// The memory that a model would take.
    pub fn memory(plan: &Plan, program: &GpuProgram, limits: &Limits) -> GpuMemoryPlan {
        GpuMemoryPlan::of(plan, program, limits)
    }

    fn load_kernels(&mut self) -> Result<(), GpuError> {
        for kernel in &self.program.kernels {
            self.functions.push(self.device.load(&kernel.ptx, &kernel.name, kernel.shared_bytes)?);
        }
        Ok(())
    }

    /// Takes the memory for the largest step, weights first.
    fn set_aside(&mut self, weight: WeightSource<'_>) -> Result<(), RuntimeError> {
        for (at, first) in gpu_twins(&self.plan).into_iter().enumerate() {
            let place = if first < at {
                self.blocks.weights[first]
            } else {
                let bytes = weight(at)?;
                check::weight(&self.plan, at, &bytes)?;
                upload(&mut *self.device, &bytes)?
            };
            self.blocks.weights.push(place);
        }
        let largest = load::largest(&self.config.limits);
        for state in &self.plan.states {
            let block = block(&mut *self.device, state.ty.bytes(&largest))?;
            // A page that was never written is read where a mask hides it, so it must hold numbers.
            self.device.clear(block.at, block.bytes)?;
            self.blocks.states.push(block);
        }
        let slots = slot_bytes(&self.placements, &self.program, &largest);
        self.blocks.slots = vec![Block::default(); slots.len()];
        self.blocks.scratch = vec![Block::default(); self.program.kernels.len()];
        self.grow(&slots, &largest)?;
        Ok(())
    }

    /// Grows what is too small for a step; slots as given.
    pub(super) fn grow(&mut self, slots: &[u64], binding: &Binding) -> Result<(), RuntimeError> {
        let mut moved = false;
        let device = &mut *self.device;
        for (block, bytes) in self.blocks.slots.iter_mut().zip(slots) {
            moved |= reserve(device, block, *bytes)?;
        }
        for (block, kernel) in self.blocks.scratch.iter_mut().zip(&self.program.kernels) {
            if reserve(device, block, kernel.scratch_bytes(binding))? {
                device.clear(block.at, block.bytes)?;
                moved = true;
            }
        }
        let rows = binding.get(Sym::R);
        let inputs = input_places(&self.plan, binding).1 + rows * DRAW_BYTES as u64;
        let result = self.plan.outputs[self.checked.result].ty.bytes(binding);
        moved |= reserve(device, &mut self.blocks.inputs, inputs)?;
        moved |= reserve(device, &mut self.blocks.result, result)?;
        moved |= reserve(device, &mut self.blocks.tokens, rows * 4)?;
        self.outward.reserve(inputs as usize)?;
        self.drawn.reserve(rows as usize * 4)?;
        self.homeward.reserve(result as usize)?;
        if moved {
            self.forget_recordings()?;
        }
        Ok(())
    }

    /// Forgets kernels that nothing launches, from this position on, and frees their memory.
    pub(super) fn forget_kernels(&mut self, from: usize) -> Result<(), GpuError> {
        Arc::make_mut(&mut self.program).kernels.truncate(from);
        self.functions.truncate(from);
        self.times.truncate(from);
        let scratch = self.blocks.scratch.split_off(from).into_iter();
        let mut taken = scratch.filter(|block| block.at != DevicePtr::default());
        taken.try_for_each(|block| self.device.free(block.at))
    }

    pub(super) fn forget_recordings(&mut self) -> Result<(), GpuError> {
        let old = self.recordings.as_mut().map(Recordings::clear).unwrap_or_default();
        old.into_iter().try_for_each(|recording| self.device.forget(recording))
    }

    /// The inputs go to the device in one copy.
    fn write_inputs(
        &mut self,
        batch: &Batch,
        draws: Option<&[Option<Draw>]>,
        binding: &Binding,
    ) -> Result<(), GpuError> {
        let (places, bytes) = input_places(&self.plan, binding);
        let pages = binding.get(Sym::P) as usize;
        let after = draws.map_or(0, |draws| draws.len() * DRAW_BYTES);
        let all = &mut self.outward.bytes_mut()[..bytes as usize + after];
        for (draw, to) in draws.into_iter().flatten().zip(all[bytes as usize..].chunks_mut(DRAW_BYTES)) {
            to.copy_from_slice(&Draw::bytes(draw.as_ref()));
        }
        for (input, place) in self.checked.inputs.iter().zip(places) {
            let to = &mut all[place as usize..];
            match input {
                load::Input::Table => {
                    let rows = batch.table.chunks(batch.table_width.max(1));
                    for (row, to) in rows.zip(to.chunks_mut(pages.max(1) * 4)) {
                        put(row, to);
                        to[row.len() * 4..].fill(0);
                    }
                }
                input => put(input.values(batch), to),
            }
        }
        self.device.write(self.blocks.inputs.at, all)
    }

    /// Runs the launches of a step, from a recording if there is one.
    fn run(&mut self, key: Key) -> Result<(), GpuError> {
        let bounded = self.program.buckets[key.bucket].max_tokens.is_some();
        let choice = self.recordings.as_mut().filter(|_| bounded).map(|recordings| recordings.choose(key));
        match choice {
            Some(Choice::Replay(recording)) => self.device.replay(recording),
            Some(Choice::Record) if self.device.record()? => {
                let launched = self.launch_all(key);
                // The recording ends also where a launch was refused, or the device would record for ever.
                let recording = self.device.recorded();
                launched?;
                let recording = recording?;
                let old = self.recordings.as_mut().map(|all| all.keep(key, recording)).unwrap_or_default();
                old.into_iter().try_for_each(|recording| self.device.forget(recording))?;
                self.device.replay(recording)
            }
            Some(Choice::Record) => {
                self.recordings = None;
                self.launch_all(key)
            }
            Some(Choice::Launch) | None => self.launch_all(key),
        }
    }

    fn launch_all(&mut self, key: Key) -> Result<(), GpuError> {
        let binding = &key.binding;
        let (inputs, bytes) = input_places(&self.plan, binding);
        for number in 0..self.program.buckets[key.bucket].launches.len() {
            let launch = &self.program.buckets[key.bucket].launches[number];
            let address = |arg: &Arg| self.address(key.bucket, *arg, &inputs);
            let addresses: Vec<DevicePtr> = launch.args.iter().map(address).collect();
            self.launch(launch.kernel, &addresses, binding)?;
        }
        if let Some(kernel) = self.program.draw.filter(|_| key.draws) {
            let draws = DevicePtr(self.blocks.inputs.at.0 + bytes);
            self.launch(kernel, &[self.blocks.result.at, draws, self.blocks.tokens.at], binding)?;
        }
        Ok(())
    }

    fn launch(&mut self, number: usize, addresses: &[DevicePtr], binding: &Binding) -> Result<(), GpuError> {
        let kernel = &self.program.kernels[number];
        let Some(shape) = launch::shape(kernel, binding, self.device.multiprocessors())? else {
            return Ok(());
        };
        let values = launch::values(kernel, addresses, self.blocks.scratch[number].at, binding)?;
        let before = if self.config.profile { self.device.mark()? } else { None };
        self.device.launch(self.functions[number], shape, &values)?;
        if let Some(before) = before
            && let Some(after) = self.device.mark()?
        {
            let time = &mut self.times[number];
            time.launches += 1;
            time.nanos += self.device.nanos_between(before, after)?;
        }
        Ok(())
    }

    /// Launches a step.
    fn begin(&mut self, batch: &Batch, draws: Option<&[Option<Draw>]>) -> Result<Binding, RuntimeError> {
        let mut binding = self.check.check(batch)?;
        let most = load::largest(&self.config.limits).get(Sym::P);
        let pages = &mut binding.values[Sym::P.index()];
        *pages = rounded_pages(*pages, most);
        let tokens = binding.get(Sym::T);
        let bucket = self.bucket_for(tokens);
        let slots: Vec<u64> = self.placements[bucket].slots.iter().map(|slot| slot.bytes(&binding)).collect();
        self.grow(&slots, &binding)?;
        self.write_inputs(batch, draws, &binding)?;
        self.run(Key { bucket, binding, draws: draws.is_some() })?;
        Ok(binding)
    }

    fn address(&self, bucket: usize, arg: Arg, inputs: &[u64]) -> DevicePtr {
        match arg {
            Arg::Weight(id) => self.blocks.weights[id.0 as usize],
            Arg::Buffer(id) => {
                let slot = self.placements[bucket].slot[id].unwrap_or_default();
                self.blocks.slots[slot].at
            }
            Arg::State(at) => self.blocks.states[at].at,
            Arg::Input(at) => DevicePtr(self.blocks.inputs.at.0 + inputs[at]),
            Arg::Output(_) => self.blocks.result.at,
        }
    }
}

/// Little-endian words, as far as both sides reach.
fn put(values: &[u32], to: &mut [u8]) {
    to.chunks_exact_mut(4).zip(values).for_each(|(to, value)| to.copy_from_slice(&value.to_le_bytes()));
}

fn block(device: &mut dyn GpuDevice, bytes: u64) -> Result<Block, GpuError> {
    Ok(Block { at: device.alloc(bytes.max(1))?, bytes })
}

fn upload(device: &mut dyn GpuDevice, weight: &WeightBytes) -> Result<DevicePtr, GpuError> {
    let block = block(device, weight.bytes().len() as u64)?;
    device.write(block.at, weight.bytes())?;
    Ok(block.at)
}

/// Makes a block at least so large; what was in it is lost if it was smaller. Returns whether it moved.
fn reserve(device: &mut dyn GpuDevice, old: &mut Block, bytes: u64) -> Result<bool, GpuError> {
    let taken = old.at != DevicePtr::default();
    if taken && bytes <= old.bytes {
        return Ok(false);
    }
    if taken {
        // Work that is under way may still use it.
        device.synchronize()?;
        device.free(old.at)?;
        *old = Block::default();
    }
    *old = block(device, bytes)?;
    Ok(true)
}

impl DeviceModel for GpuModel {
    fn device(&self) -> String {
        format!("{}, {} code", self.device.name(), self.program.target)
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
        let binding = self.begin(batch, None)?;
        let result = &self.plan.outputs[self.checked.result].ty;
        let bytes = &mut self.homeward.bytes_mut()[..result.bytes(&binding) as usize];
        if !bytes.is_empty() {
            self.device.read(self.blocks.result.at, bytes)?;
        }
        Ok(self.homeward.floats(result.elements(&binding) as usize))
    }
    /// Where a token is drawn on the device, 4 bytes come back in place of the row.
    fn step_drawing(&mut self, batch: &Batch, draws: &[Option<Draw>]) -> Result<Vec<Row<'_>>, RuntimeError> {
        let width = self.width().max(1);
        let here = self.program.draw.is_some() && draws.iter().any(Option::is_some);
        if !here || draws.len() != batch.rows.len() {
            return Ok(self.step(batch)?.chunks_exact(width).map(Row::Logits).collect());
        }
        self.begin(batch, Some(draws))?;
        let tokens = &mut self.drawn.bytes_mut()[..draws.len() * 4];
        self.device.read(self.blocks.tokens.at, tokens)?;
        let tokens =
            tokens.chunks_exact(4).map(|token| u32::from_le_bytes([token[0], token[1], token[2], token[3]]));
        let tokens: Vec<u32> = tokens.collect();
        for (at, _) in tokens.iter().enumerate().filter(|(_, token)| **token == NO_TOKEN) {
            let (first, bytes) = (at * width * 4, width * 4);
            let from = DevicePtr(self.blocks.result.at.0 + first as u64);
            self.device.read(from, &mut self.homeward.bytes_mut()[first..first + bytes])?;
        }
        let rows = self.homeward.floats(draws.len() * width).chunks_exact(width);
        let row = |(token, row)| if token == NO_TOKEN { Row::Logits(row) } else { Row::Token(token) };
        Ok(tokens.into_iter().zip(rows).map(row).collect())
    }
    fn times(&self) -> Vec<KernelTime> {
        let told = self.config.profile && self.times.iter().any(|time| time.launches > 0);
        if told { self.times.clone() } else { Vec::new() }
    }
}

impl Drop for GpuModel {
    fn drop(&mut self) {
        // The device may outlive the model in its pool of memory; an error here can be told to nobody.
        let _ = self.device.synchronize();
        let _ = self.forget_recordings();
        let blocks = &self.blocks;
        let mut all: Vec<DevicePtr> = blocks.weights.clone();
        all.sort_unstable();
        all.dedup();
        let rest = blocks.states.iter().chain(&blocks.slots).chain(&blocks.scratch);
        all.extend(rest.chain([&blocks.inputs, &blocks.result, &blocks.tokens]).map(|block| block.at));
        for at in all.into_iter().filter(|at| *at != DevicePtr::default()) {
            let _ = self.device.free(at);
        }
    }
}

impl std::fmt::Debug for GpuModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuModel")
            .field("device", &self.device.name())
            .field("target", &self.program.target)
            .finish()
    }
}
