//! The way from what the user named to something that runs.

use crate::bundle::{self, Bundle};
use crate::checkpoint::Checkpoint;
use crate::cli::{BuildArgs, DTypeArg, QuantArg};
use crate::environment::Environment;
use crate::info::{ModelInfo, kv_bytes_per_token};
use crate::output::Output;
use anyhow::{Context, Result, bail};
use sinter_codegen_host::micro::Isa;
use sinter_frontend::source::ModelDir;
use sinter_ir::{DType, HostKernel, PAGE, Plan};
use sinter_runtime::{HostConfig, HostModel, Limits, WeightBytes};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A model that is ready to be loaded: plan, kernels and weights.
#[derive(Debug)]
pub struct Program {
    /// The facts of the model.
    pub info: ModelInfo,
    /// The element type of weights and KV cache.
    pub dtype: DType,
    /// The plan.
    pub plan: Arc<Plan>,
    /// The plan's kernels.
    pub kernels: Vec<HostKernel>,
    /// The plan's weights.
    pub weights: Vec<WeightBytes>,
    /// Where tokenizer and template lie.
    pub dir: ModelDir,
    /// Threads to run with.
    pub threads: usize,
}

/// Turns a model or a bundle into a program.
pub fn prepare(model: &str, build: &BuildArgs, env: &Environment, output: &Output) -> Result<Program> {
    check_device(build)?;
    if bundle::is_bundle(Path::new(model)) {
        return open_bundle(Path::new(model), build);
    }
    let checkpoint = Checkpoint::open(model, env, output)?;
    let dtype = checkpoint.dtype(build);
    let plan = checkpoint.plan(dtype, env, output)?;
    let kernels = compile_kernels(&plan)?;
    let weights = pack_all(&plan, &checkpoint, threads(build), output)?;
    let (info, dir) = (checkpoint.info, checkpoint.model.dir);
    Ok(Program { info, dtype, plan: Arc::new(plan), kernels, weights, dir, threads: threads(build) })
}

fn open_bundle(path: &Path, build: &BuildArgs) -> Result<Program> {
    let Bundle { manifest, plan, weights, model } = bundle::open(path)?;
    let wanted = match build.dtype {
        DTypeArg::Auto => manifest.dtype,
        DTypeArg::F32 => DType::F32,
        DTypeArg::Bf16 => DType::Bf16,
    };
    if wanted != manifest.dtype {
        bail!("the bundle was compiled for {}; leave out --dtype or compile it again", manifest.dtype);
    }
    let kernels = compile_kernels(&plan)?;
    let (dtype, info) = (manifest.dtype, manifest.info);
    let dir = ModelDir::open(&model)?;
    Ok(Program { info, dtype, plan: Arc::new(plan), kernels, weights, dir, threads: threads(build) })
}

impl Program {
    /// Loads the program for one sequence of at most `context` tokens, fed `chunk` at once.
    pub fn load(&self, context: usize, chunk: usize, profile: bool) -> Result<HostModel> {
        let context = context.min(self.info.context).max(1);
        let pages = if self.info.decoder { context.div_ceil(PAGE as usize) } else { 0 };
        let max_tokens = chunk.min(context).max(1);
        let limits =
            Limits { vocab: self.info.vocab, max_positions: context, max_tokens, max_sequences: 1, pages };
        self.load_with(limits, profile)
    }

    /// Loads the program for steps of these sizes.
    pub fn load_with(&self, limits: Limits, profile: bool) -> Result<HostModel> {
        let config = HostConfig { threads: self.threads, limits, profile };
        let loaded = HostModel::new(self.plan.clone(), self.kernels.clone(), self.weights.clone(), config);
        loaded.with_context(|| {
            let tokens = limits.pages as u64 * PAGE;
            let kv = crate::output::bytes(tokens.saturating_mul(kv_bytes_per_token(&self.plan)));
            format!("cannot load the model with a KV cache of {kv}")
        })
    }
}

/// Refuses devices and quantisations that this version does not have.
pub fn check_device(build: &BuildArgs) -> Result<()> {
    if !matches!(build.device.as_str(), "auto" | "host") {
        bail!("the device {} is not built into this version; use --device host", build.device);
    }
    match build.quant {
        QuantArg::None => Ok(()),
        QuantArg::Int8 | QuantArg::Int4 => {
            bail!("quantised weights are not built into this version; use --quant none")
        }
    }
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

/// Machine code for the plan's kernels, for the best instructions that this processor has.
pub fn compile_kernels(plan: &Plan) -> Result<Vec<HostKernel>> {
    let tiles: Vec<_> = plan.kernels.values().collect();
    Ok(sinter_codegen_host::compile_all(&tiles, Isa::detect())?)
}

/// Packs all weights of a plan, several at a time.
fn pack_all(
    plan: &Plan,
    checkpoint: &Checkpoint,
    threads: usize,
    output: &Output,
) -> Result<Vec<WeightBytes>> {
    let defs: Vec<_> = plan.weights.values().collect();
    let bar = output.progress("packing", defs.len() as u64);
    let next = AtomicUsize::new(0);
    let packed: Vec<Mutex<Option<Result<WeightBytes>>>> = defs.iter().map(|_| Mutex::new(None)).collect();
    let one = |at: usize| -> Result<WeightBytes> {
        let packed = checkpoint.pack(defs[at]).with_context(|| format!("packing weight {at}"))?;
        Ok(WeightBytes::new(packed))
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, defs.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(place) = packed.get(at) else { return };
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(one(at));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let take = |place: Mutex<Option<Result<WeightBytes>>>| {
        place.into_inner().unwrap_or_else(PoisonError::into_inner).context("a weight was not packed")?
    };
    packed.into_iter().map(take).collect()
}
