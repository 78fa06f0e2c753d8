//! `sinter compile`: a model becomes a bundle, or a stage is printed.

use crate::UsageError;
use crate::bundle::{self, Contents, Destination};
use crate::checkpoint::{Checkpoint, Choice};
use crate::cli::{CompileArgs, EmitArg};
use crate::device::BuildTarget;
use crate::environment::Environment;
use crate::gpu;
use crate::output::{Output, bytes};
use crate::pipeline;
use anyhow::{Context, Result, bail};
use serde_json::json;
use sinter_ir::{Plan, Target};
use std::sync::Arc;
use std::time::Instant;

pub(super) fn run(args: &CompileArgs, env: &Environment, output: &Output) -> Result<()> {
    let gpus: Vec<Target> = args
        .target
        .iter()
        .filter_map(|target| if let BuildTarget::Gpu(gpu) = target { Some(*gpu) } else { None })
        .collect();
    if !gpus.is_empty() && !gpu::CAN_COMPILE {
        bail!("{}", gpu::HOW_TO_COMPILE);
    }
    let started = Instant::now();
    let checkpoint = Checkpoint::open_as(&args.model, args.build.quant, env, output)?;
    let choice = checkpoint.choice(&args.build, &args.target)?;
    let dtype = choice.dtype();
    if let Some(stage) = args.emit {
        match stage {
            EmitArg::Mlir | EmitArg::Llvm | EmitArg::Ptx => {
                let plan = checkpoint.plan(&choice, env, output)?;
                emit_gpu(stage, &plan, &gpus, output)?;
            }
            _ => emit(stage, &checkpoint, &choice, output)?,
        }
        if args.output.is_none() {
            return Ok(());
        }
    }
    let plan = checkpoint.plan(&choice, env, output)?;
    // A plan that the back end cannot compile makes no bundle.
    if args.target.contains(&BuildTarget::Host) {
        pipeline::compile_kernels(&plan, pipeline::threads(&args.build), (env, output))?;
    }
    let plan = Arc::new(plan);
    let program = |target: &Target| gpu::jit(plan.clone(), *target, env, output)?.all();
    let programs = gpus.iter().map(program).collect::<Result<Vec<_>>>()?;
    let contents = Contents {
        plan: &plan,
        targets: &args.target,
        programs: &programs,
        dtype,
        model: checkpoint.identity()?,
        info: &checkpoint.info,
        files: &checkpoint.small_files()?,
        pack: &|weight, layout| checkpoint.pack(weight, layout),
    };
    let cache = env.cache.as_ref().map(|cache| cache.join("bundles"));
    let destination = match (&args.output, &cache) {
        (Some(path), _) => Destination::At(path),
        (None, Some(cache)) => Destination::Cache(cache),
        (None, None) => {
            bail!("no cache directory is known (SINTER_CACHE, XDG_CACHE_HOME or HOME); give --output")
        }
    };
    let (path, manifest) = bundle::write(&contents, destination, output)?;
    let seconds = started.elapsed().as_secs_f64();
    let size: u64 = manifest.sections.iter().map(|section| section.bytes).sum();
    let value = json!({
        "bundle": path, "id": manifest.id, "targets": manifest.targets, "dtype": manifest.dtype,
        "kernels": plan.kernels.len(), "launches": plan.steps.len(), "bytes": size, "seconds": seconds,
    });
    output.result(&value, || {
        let (kernels, launches) = (plan.kernels.len(), plan.steps.len());
        format!(
            "{}\n{dtype}, {kernels} kernels, {launches} launches a step, {}, {seconds:.2} s",
            path.display(),
            bytes(size)
        )
    })
}

/// A stage of the GPU back end, kernel by kernel.
fn emit_gpu(stage: EmitArg, plan: &Plan, targets: &[Target], output: &Output) -> Result<()> {
    let [target] = targets else {
        let found = targets.len();
        return Err(UsageError(
            format!("--emit {stage:?} wants one GPU target, found {found}; use --target sm_80")
                .to_lowercase(),
        )
        .into());
    };
    let (name, stage) = match stage {
        EmitArg::Mlir => ("mlir", gpu::Stage::Mlir),
        EmitArg::Llvm => ("llvm", gpu::Stage::Llvm),
        _ => ("ptx", gpu::Stage::Ptx),
    };
    let text = gpu::emit(plan, *target, stage)?;
    output.result(&json!({ name: text }), || text.clone()).context("printing the stage")
}

fn emit(stage: EmitArg, checkpoint: &Checkpoint, choice: &Choice, output: &Output) -> Result<()> {
    let graph = || checkpoint.graph(choice);
    let compiled =
        || -> Result<sinter_passes::Compiled> { Ok(sinter_passes::compile(&graph()?, &choice.passes())?) };
    let (name, text) = match stage {
        EmitArg::Graph => ("graph", graph()?.to_string()),
        EmitArg::Fused => {
            ("fused", compiled()?.fused.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        EmitArg::Plan => return output.write(&(serde_json::to_string_pretty(&compiled()?.plan)? + "\n")),
        EmitArg::Tile => {
            let tiles: Vec<_> = compiled()?.plan.kernels.values().map(ToString::to_string).collect();
            ("tile", tiles.join("\n"))
        }
        EmitArg::Mlir | EmitArg::Llvm | EmitArg::Ptx => bail!("a stage of the GPU back end has no such text"),
    };
    output.result(&json!({ name: text }), || text.clone()).context("printing the stage")
}
