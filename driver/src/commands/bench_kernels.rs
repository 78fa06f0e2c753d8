//! `sinter bench MODEL kernels` on the host: each kernel of a prompt and of a decode step against its floor.
//!
//! A launch is timed among the others of its step. Its floor is its bytes, each once, at the bandwidth, or its products at the
//! speed, that are measured in the same run.

use crate::cli::bench::Speed;
use crate::load::statistics::percentile;
use crate::pipeline::Program;
use crate::tune::database::Rows;
use crate::tune::floors::{Floor, Speeds};
use crate::tune::rounds::{Effort, Facts, Workload};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sinter_codegen_schedule::work::StepSize;
use sinter_ir::{HostKernel, KernelId};
use sinter_runtime::{DeviceModel, HostConfig, HostModel};

/// Decode steps for each repetition: they are short.
const STEPS: usize = 8;

/// The tables of both steps, and what they are held against.
pub(super) fn on_host(args: &Speed, program: &Program, kernels: &[HostKernel]) -> Result<Value> {
    let info = &program.info;
    let facts = Facts { decoder: info.decoder, vocab: info.vocab, context: info.context };
    let effort = Effort { context: args.prompt, prompt: args.prompt, rounds: args.repetitions };
    let workload = Workload::new(&facts, &effort, program.result_name().unwrap_or_default());
    let config = HostConfig { threads: program.threads, limits: workload.limits, profile: false };
    let mut model =
        HostModel::new(program.plan.clone(), kernels.to_vec(), program.weights.0.clone(), config)?;
    let speeds = Speeds::measure(program.threads)?;
    if let Some(before) = &workload.before {
        model.step(before)?;
    }
    let mut measure = |rows: Rows, times: usize| -> Result<Value> {
        let own = vec![None; program.plan.steps.len()];
        model.try_kernels(workload.batch(rows), &own)?;
        let steps = (0..times).map(|_| Ok(model.try_kernels(workload.batch(rows), &own)?.nanos));
        let steps = steps.collect::<Result<Vec<_>>>()?;
        let tokens = workload.batch(rows).tokens.len() as u64;
        let size = match (rows, &workload.before) {
            (Rows::Few, Some(before)) => StepSize::decode(1, before.tokens.len() as u64 + 1),
            _ => StepSize::prompt(tokens),
        };
        table(program, &steps, (&speeds, &size))
    };
    let mut value = json!({ "speeds": speeds, "prefill_kernels": measure(Rows::Many, args.repetitions)? });
    if info.decoder {
        value["decode_kernels"] = measure(Rows::Few, STEPS * args.repetitions)?;
    }
    Ok(value)
}

/// The kernels of some steps, those that take longest first.
fn table(program: &Program, steps: &[Vec<u64>], (speeds, size): (&Speeds, &StepSize)) -> Result<Value> {
    let plan = &program.plan;
    let mut rows = Vec::new();
    for (id, tile) in plan.kernels.iter() {
        let launches = launches(program, id);
        let Some(first) = launches.first() else { continue };
        let mut times: Vec<f64> =
            steps.iter().flat_map(|nanos| launches.iter().map(|at| nanos[*at] as f64 / 1e3)).collect();
        ensure!(!times.is_empty(), "nothing was measured");
        times.sort_by(f64::total_cmp);
        let median = percentile(&times, 50.0);
        let spread = (percentile(&times, 90.0) - percentile(&times, 10.0)) / median.max(1e-3);
        let floor = speeds.floor(plan, *first, size)?;
        let all = median * launches.len() as f64;
        rows.push((all, tile.name.clone(), launches.len(), (median, spread), floor));
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let total: f64 = rows.iter().map(|row| row.0).sum();
    type Row = (f64, String, usize, (f64, f64), Floor);
    let row = |(all, name, launches, (median, spread), floor): Row| {
        json!({
            "kernel": name, "launches": launches, "microseconds_each": median, "spread": spread,
            "share": all / total.max(1e-9), "bytes": floor.bytes, "operations": floor.operations,
            "floor_microseconds": floor.microseconds, "floor_share": floor.microseconds / median.max(1e-3),
        })
    };
    Ok(rows.into_iter().map(row).collect())
}

/// The plan's steps that launch a kernel.
fn launches(program: &Program, kernel: KernelId) -> Vec<usize> {
    let steps = program.plan.steps.iter().enumerate();
    steps.filter(|(_, step)| step.kernel == kernel).map(|(at, _)| at).collect()
}
