//! The way from what the user named to something that runs.

use crate::bundle::{self, Bundle, WeightLayout};
use crate::checkpoint::Checkpoint;
use crate::cli::{ActivationsArg, BuildArgs, DTypeArg, KvCacheArg, QuantArg};
use crate::device::{self, BuildTarget, Kernels, Place};
use crate::environment::Environment;
use crate::gpu;
use crate::info::{ModelInfo, kv_bytes_per_token};
use crate::jit::{Background, Jit};
use crate::output::Output;
use anyhow::{Context, Result, bail};
use sinter_codegen_host::Choices;
use sinter_codegen_host::micro::Isa;
use sinter_frontend::source::ModelDir;
use sinter_ir::{DType, GpuProgram, HostKernel, PAGE, Plan, WeightDef};
use sinter_runtime::{
    DeviceModel, GpuConfig, GpuMemoryPlan, GpuModel, HostConfig, HostMemoryPlan, HostModel, HugeMemory,
    Limits, RuntimeError, WeightBytes,
};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A model that is ready to be loaded: plan, kernels and weights.
#[derive(Debug)]
pub struct Program {
    /// The facts of the model.
    pub info: ModelInfo,
    /// The element type of weights, and of the KV cache unless that keeps codes.
    pub dtype: DType,
    /// The plan.
    pub plan: Arc<Plan>,
    /// What runs where.
    pub ready: Ready,
    /// The plan's weights, and how they lie.
    pub weights: (Vec<WeightBytes>, WeightLayout),
    /// Where tokenizer and template lie.
    pub dir: ModelDir,
    /// Threads to run with.
    pub threads: usize,
    /// Whether all kernels are compiled before the model runs.
    ahead: bool,
    output: Output,
}

/// Kernels and the place that they are for.
#[derive(Debug)]
pub enum Ready {
    /// The plan's kernels as machine code.
    Host(Vec<HostKernel>),
    /// Kernels for a GPU, and the GPU.
    Gpu(GpuKernels, Place),
}

/// Kernels for a GPU.
#[derive(Debug)]
pub enum GpuKernels {
    /// For steps of every size, as a bundle has them.
    There(Arc<GpuProgram>),
    /// Compiled when they are needed.
    Jit(Arc<Jit>),
}

/// Turns a model or a bundle into a program.
pub fn prepare(model: &str, build: &BuildArgs, env: &Environment, output: &Output) -> Result<Program> {
    if bundle::is_bundle(Path::new(model)) {
        return open_bundle(Path::new(model), build, (env, output));
    }
    let checkpoint = Checkpoint::open_as(model, build.quant, env, output)?;
    let place = place(build, &Kernels::Compiled { gpu: gpu::CAN_COMPILE }, output)?;
    let targets = [place.target()];
    let choice = checkpoint.choice(build, &targets)?;
    let (dtype, plan) = (choice.dtype(), Arc::new(checkpoint.plan(&choice, env, output)?));
    let ready = match place.target() {
        BuildTarget::Host => Ready::Host(compile_kernels(&plan, threads(build), (env, output))?),
        BuildTarget::Gpu(target) => {
            let jit = gpu::jit(plan.clone(), target, env, output)?;
            Ready::Gpu(GpuKernels::Jit(Arc::new(jit)), place)
        }
    };
    let layout = WeightLayout::of(&targets);
    let weights = (pack_all(&plan, (&checkpoint, layout), threads(build), output)?, layout);
    let (info, dir) = (checkpoint.info, checkpoint.model.dir);
    Ok(Program {
        info,
        dtype,
        plan,
        ready,
        weights,
        dir,
        threads: threads(build),
        ahead: false,
        output: *output,
    })
}

fn open_bundle(path: &Path, build: &BuildArgs, (env, output): (&Environment, &Output)) -> Result<Program> {
    let Bundle { manifest, plan, targets, programs, weights, model } = bundle::open(path)?;
    let wanted = match build.dtype {
        DTypeArg::Auto => manifest.dtype,
        DTypeArg::F32 => DType::F32,
        DTypeArg::Bf16 => DType::Bf16,
    };
    if wanted != manifest.dtype {
        bail!("the bundle was compiled for {}; leave out --dtype or compile it again", manifest.dtype);
    }
    if build.quant != QuantArg::None || build.activations != ActivationsArg::Auto {
        bail!(
            "a bundle is quantised as it was compiled; leave out --quant and --activations or compile it again"
        );
    }
    if build.kv_cache != KvCacheArg::Auto {
        bail!("a bundle keeps keys and values as it was compiled; leave out --kv-cache or compile it again");
    }
    let place = place(build, &Kernels::There(&targets), output)?;
    let ready = match place.target() {
        BuildTarget::Host => Ready::Host(compile_kernels(&plan, threads(build), (env, output))?),
        BuildTarget::Gpu(target) => {
            let program = programs.into_iter().find(|program| program.target == target);
            let program = program.with_context(|| format!("no kernels for {target}"))?;
            Ready::Gpu(GpuKernels::There(Arc::new(program)), place)
        }
    };
    let (dtype, info, weights) = (manifest.dtype, manifest.info, (weights, manifest.weights));
    let dir = ModelDir::open(&model)?;
    Ok(Program {
        info,
        dtype,
        plan: Arc::new(plan),
        ready,
        weights,
        dir,
        threads: threads(build),
        ahead: false,
        output: *output,
    })
}

/// Where to run, as asked for; what the user should know of it goes to stderr.
fn place(build: &BuildArgs, kernels: &Kernels<'_>, output: &Output) -> Result<Place> {
    let chosen = device::choose(build.device, kernels, &sinter_runtime::cuda_report);
    let (place, note) = chosen.map_err(anyhow::Error::msg)?;
    note.iter().for_each(|note| output.note(note));
    Ok(place)
}

impl GpuKernels {
    /// The program that a model begins with, and who makes the rest of it: nobody if all is there, or wanted at once.
    fn begin(&self, limits: &Limits, ahead: bool) -> Result<(Arc<GpuProgram>, Option<Background>)> {
        Ok(match self {
            GpuKernels::There(program) => (program.clone(), None),
            GpuKernels::Jit(jit) if ahead => (Arc::new(jit.all()?), None),
            GpuKernels::Jit(jit) => (Arc::new(jit.first(limits)?), Some(Background::new(jit.clone()))),
        })
    }
}

impl Program {
    /// The same program, all of whose kernels are compiled before it runs: for who measures.
    pub fn ahead(self) -> Self {
        Self { ahead: true, ..self }
    }

    /// What the model gives: `logits`, `hidden` or `scores`.
    pub fn result_name(&self) -> Option<&str> {
        let names = self.plan.outputs.iter().map(|output| output.name.as_str());
        names.into_iter().find(|name| ["logits", "hidden", "scores"].contains(name))
    }

    /// Refuses a model that gives no logits.
    pub fn check_writes(&self) -> Result<()> {
        if self.result_name() == Some("logits") {
            return Ok(());
        }
        let name = &self.info.architecture;
        let kind = if self.info.decoder { "a decoder that makes vectors of texts" } else { "an encoder" };
        bail!("{name} is {kind}, it writes no text; use `sinter embed` or `sinter score`")
    }

    /// Loads the program for one sequence of at most `context` tokens, fed `chunk` at once.
    pub fn load(&self, context: usize, chunk: usize, profile: bool) -> Result<Box<dyn DeviceModel>> {
        let context = context.min(self.info.context).max(1);
        let pages = if self.info.decoder { context.div_ceil(PAGE as usize) } else { 0 };
        let max_tokens = chunk.min(context).max(1);
        let limits =
            Limits { vocab: self.info.vocab, max_positions: context, max_tokens, max_sequences: 1, pages };
        self.load_with(limits, profile)
    }

    /// Loads the program for steps of these sizes.
    pub fn load_with(&self, limits: Limits, profile: bool) -> Result<Box<dyn DeviceModel>> {
        match &self.ready {
            Ready::Host(kernels) => self.on_host(kernels, limits, profile),
            Ready::Gpu(kernels, place) => self.on_gpu(kernels, place, (limits, profile)),
        }
    }

    /// Bytes that steps within these limits take besides the weights and the KV cache.
    pub fn step_bytes(&self, limits: &Limits) -> Result<u64> {
        Ok(match &self.ready {
            Ready::Host(kernels) => {
                let memory = HostMemoryPlan::of(&self.plan, kernels, limits, self.threads);
                memory.activations.saturating_add(memory.scratch)
            }
            Ready::Gpu(kernels, _) => {
                let memory = GpuModel::memory(&self.plan, &kernels.begin(limits, self.ahead)?.0, limits);
                memory.total() - memory.weights - memory.states
            }
        })
    }

    /// Bytes that there are for all but the weights, where the system says so.
    pub fn free_bytes(&self) -> Option<u64> {
        match &self.ready {
            Ready::Gpu(_, Place::Cuda { ordinal, .. }) => {
                let report = sinter_runtime::cuda_report();
                let all = report.devices.get(*ordinal as usize)?.memory;
                let weights = GpuMemoryPlan::weight_bytes(&self.plan);
                // The driver and whoever else is there want some.
                Some((all / 10 * 9).saturating_sub(weights))
            }
            _ => free_memory(),
        }
    }

    fn on_host(&self, kernels: &[HostKernel], limits: Limits, profile: bool) -> Result<Box<dyn DeviceModel>> {
        let config = HostConfig { threads: self.threads, limits, profile };
        let memory = HostMemoryPlan::of(&self.plan, kernels, &limits, self.threads);
        self.output.note(format!("host: {memory}"));
        if let Some(free) = free_memory().filter(|free| memory.taken() > *free) {
            let (taken, free) = (crate::output::bytes(memory.taken()), crate::output::bytes(free));
            bail!("the model wants {taken} besides its weights, {free} are free: ask for a smaller context");
        }
        let loaded = HostModel::new(self.plan.clone(), kernels.to_vec(), self.weights.0.clone(), config);
        let model = loaded.with_context(|| {
            let tokens = limits.pages as u64 * PAGE;
            let kv = crate::output::bytes(tokens.saturating_mul(kv_bytes_per_token(&self.plan)));
            format!("cannot load the model with a KV cache of {kv}")
        })?;
        Ok(Box::new(model))
    }

    fn on_gpu(
        &self,
        kernels: &GpuKernels,
        place: &Place,
        (limits, profile): (Limits, bool),
    ) -> Result<Box<dyn DeviceModel>> {
        let device = gpu::open(place)?.context("the host is no GPU")?;
        let (program, source) = kernels.begin(&limits, self.ahead || profile)?;
        let memory = GpuModel::memory(&self.plan, &program, &limits);
        self.output.note(format!("{}: {memory}", device.name()));
        let (weights, layout) = &self.weights;
        let defs: Vec<_> = self.plan.weights.values().collect();
        let weight = |at: usize| {
            let rows = bundle::rows_of(*layout, defs[at], &weights[at]);
            rows.map_err(|error| RuntimeError::Load(error.to_string()))
        };
        let config = GpuConfig { limits, profile };
        let model = GpuModel::new(self.plan.clone(), program, &weight, device, config);
        let model = model.with_context(|| format!("cannot load the model, which wants {memory}"))?;
        Ok(match source {
            Some(source) => Box::new(model.with_source(Box::new(source))),
            None => Box::new(model),
        })
    }
}

/// Bytes that the system could give to this program, where it says so.
fn free_memory() -> Option<u64> {
    crate::commands::meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")
}

/// The threads that a command uses: as asked for, or one for each core.
pub fn threads(build: &BuildArgs) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    build.threads.map_or_else(cores, usize::from)
}

/// The directory of a model's tokenizer and the facts of the model, without compiling anything.
pub fn describe(model: &str, env: &Environment, output: &Output) -> Result<(ModelDir, ModelInfo)> {
    if bundle::is_bundle(Path::new(model)) {
        let bundle = bundle::open(Path::new(model))?;
        return Ok((ModelDir::open(&bundle.model)?, bundle.manifest.info));
    }
    let checkpoint = Checkpoint::open(model, env, output)?;
    Ok((checkpoint.model.dir, checkpoint.info))
}

/// Machine code for the plan's kernels, for the best instructions that this processor has: run as was measured best for so
/// many threads, and as the cost model says where nothing was measured.
pub fn compile_kernels(
    plan: &Plan,
    threads: usize,
    context: (&Environment, &Output),
) -> Result<Vec<HostKernel>> {
    let (choices, _) = crate::tune::choices(plan, threads, context)?;
    compile_as(plan, choices)
}

/// The same as the cost model says alone, for plans that nobody measures.
pub fn compile_untuned(plan: &Plan, threads: usize) -> Result<Vec<HostKernel>> {
    compile_as(plan, crate::tune::modelled(plan, threads)?)
}

fn compile_as(plan: &Plan, choices: Vec<Choices>) -> Result<Vec<HostKernel>> {
    let tiles: Vec<_> = plan.kernels.values().zip(choices).collect();
    Ok(sinter_codegen_host::compile_as(&tiles, Isa::detect())?)
}

/// Packs all weights of a plan, several at a time.
fn pack_all(
    plan: &Plan,
    (checkpoint, layout): (&Checkpoint, WeightLayout),
    threads: usize,
    output: &Output,
) -> Result<Vec<WeightBytes>> {
    let defs: Vec<_> = plan.weights.values().collect();
    match layout {
        WeightLayout::Panels => pack_together(&defs, checkpoint, threads, output),
        WeightLayout::Rows => {
            let packed = many((defs.len(), threads), output, |at| {
                let packed = checkpoint.pack(defs[at], layout);
                Ok(WeightBytes::new(packed.with_context(|| format!("packing weight {at}"))?))
            });
            packed.into_iter().collect()
        }
    }
}

/// Packs weights into one piece of memory: most are smaller than a huge page, of which a piece for each would get none.
fn pack_together(
    defs: &[&WeightDef],
    checkpoint: &Checkpoint,
    threads: usize,
    output: &Output,
) -> Result<Vec<WeightBytes>> {
    const BOUNDARY: usize = 64;
    let mut places = Vec::with_capacity(defs.len());
    let mut end = 0usize;
    for (at, def) in defs.iter().enumerate() {
        let bytes = sinter_codegen_host::packed_bytes(def);
        let bytes =
            bytes.with_context(|| format!("weight {at}, a {}, has no layout for the host", def.ty))?;
        places.push(end..end + bytes);
        end = (end + bytes).next_multiple_of(BOUNDARY);
    }
    let mut memory = HugeMemory::zeroed(end)?;
    let mut rest = memory.bytes_mut();
    let mut parts = Vec::with_capacity(defs.len());
    for place in &places {
        let (part, behind) = rest.split_at_mut(place.len().next_multiple_of(BOUNDARY));
        parts.push(Mutex::new(&mut part[..place.len()]));
        rest = behind;
    }
    let packed = many((defs.len(), threads), output, |at| {
        let mut part = parts[at].lock().unwrap_or_else(PoisonError::into_inner);
        checkpoint.pack_into(defs[at], &mut part).with_context(|| format!("packing weight {at}"))
    });
    drop(parts);
    packed.into_iter().collect::<Result<()>>()?;
    let memory: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(memory);
    let part = |place| WeightBytes::part(Arc::clone(&memory), place).context("a weight lies outside");
    places.into_iter().map(part).collect()
}

/// What `one` makes of each of so many numbers, on some threads, with progress shown.
fn many<R: Send>(
    (count, threads): (usize, usize),
    output: &Output,
    one: impl Fn(usize) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    let bar = output.progress("packing", count as u64);
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<R>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, count.max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(place) = done.get(at) else { return };
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(one(at));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let take = |place: Mutex<Option<Result<R>>>| {
        place.into_inner().unwrap_or_else(PoisonError::into_inner).context("a weight was not packed")?
    };
    done.into_iter().map(take).collect()
}
