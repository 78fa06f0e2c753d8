//! `sinter compile`: a model becomes a bundle, or a stage is printed.

use crate::bundle::{self, Contents, Destination};
use crate::checkpoint::Checkpoint;
use crate::cli::{CompileArgs, EmitArg};
use crate::environment::Environment;
use crate::output::{Output, bytes};
use crate::pipeline;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::time::Instant;

pub(super) fn run(args: &CompileArgs, env: &Environment, output: &Output) -> Result<()> {
    pipeline::check_device(&args.build)?;
    if let Some(target) = args.target.iter().find(|target| *target != "host") {
        bail!("the target {target} is not built into this version; use --target host");
    }
    let started = Instant::now();
    let checkpoint = Checkpoint::open(&args.model, env, output)?;
    let dtype = checkpoint.dtype(&args.build);
    if let Some(stage) = args.emit {
        emit(stage, &checkpoint, dtype, output)?;
        if args.output.is_none() {
            return Ok(());
        }
    }
    let plan = checkpoint.plan(dtype, env, output)?;
    // A plan that the back end cannot compile makes no bundle.
    pipeline::compile_kernels(&plan)?;
    let contents = Contents {
        plan: &plan,
        dtype,
        model: checkpoint.identity()?,
        info: &checkpoint.info,
        files: &checkpoint.small_files()?,
        pack: &|weight| checkpoint.pack(weight),
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
        "bundle": path, "id": manifest.id, "target": manifest.target, "dtype": manifest.dtype,
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

fn emit(stage: EmitArg, checkpoint: &Checkpoint, dtype: sinter_ir::DType, output: &Output) -> Result<()> {
    let graph = || checkpoint.graph(dtype);
    let compiled = || -> Result<sinter_passes::Compiled> {
        Ok(sinter_passes::compile(&graph()?, &sinter_passes::Options::default())?)
    };
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
        EmitArg::Mlir | EmitArg::Llvm | EmitArg::Ptx => {
            bail!("the GPU back end is not built into this version; --emit takes graph, fused, plan or tile")
        }
    };
    output.result(&json!({ name: text }), || text.clone()).context("printing the stage")
}
