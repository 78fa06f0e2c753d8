//! `sinter tune`: how each kernel is run best on this machine.

use crate::UsageError;
use crate::atomic_file::{replace, sha256};
use crate::checkpoint::Checkpoint;
use crate::cli::{BuildArgs, TuneArgs};
use crate::device::{BuildTarget, DeviceArg};
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline::{self, threads};
use crate::tune::database::{self, Database, Rows, kernel_key};
use crate::tune::exchange::{self, Parcel};
use crate::tune::floors::Speeds;
use crate::tune::journal::{Journal, Turn};
use crate::tune::report::{self, Report};
use crate::tune::rounds::{Effort, Facts, Rounds, Workload, until, verdicts};
use crate::tune::space::{Limit, Space, spaces};
use crate::tune::{machine, plot, synthetic};
use anyhow::{Context, Result, bail};
use serde_json::json;
use sinter_ir::Plan;
use sinter_runtime::{DeviceModel, HostConfig, HostModel, WeightBytes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The part of the budget that steps of few rows get.
const FEW_SHARE: f64 = 0.4;

/// What is tuned.
struct Subject {
    name: String,
    plan: Arc<Plan>,
    weights: Vec<WeightBytes>,
    facts: Facts,
    threads: usize,
}

pub(super) fn run(args: &TuneArgs, env: &Environment, output: &Output) -> Result<()> {
    if let BuildTarget::Gpu(target) = args.target {
        bail!(
            "schedules for {target} are chosen by the cost model: nothing measures them yet; `sinter inspect MODEL --target \
             {target}` shows them"
        );
    }
    if !matches!(args.build.device, DeviceArg::Auto | DeviceArg::Host) {
        return Err(UsageError("sinter tune measures the host; leave out --device".into()).into());
    }
    let build = BuildArgs { device: DeviceArg::Host, ..args.build.clone() };
    if let Some(from) = &args.import {
        return import(from, &destination(args, &build, env)?, output);
    }
    if let Some(folder) = &args.measure {
        let parcel = Parcel::read(folder)?;
        let (facts, plan) = (parcel.facts(), Arc::new(parcel.plan));
        let weights = synthetic::weights(&plan)?;
        let subject = Subject { name: parcel.model, plan, weights, facts, threads: threads(&build) };
        let path = args.db.clone().unwrap_or_else(|| exchange::results(folder));
        return tune(subject, (args, &path), (env, output));
    }
    let model = args.model.as_deref().context("no model is named")?;
    if let Some(folder) = &args.export {
        return export(model, &build, folder, (env, output));
    }
    let path = destination(args, &build, env)?;
    let program = pipeline::prepare(model, &build, env, output)?;
    let facts =
        Facts { decoder: program.info.decoder, vocab: program.info.vocab, context: program.info.context };
    let name = crate::checkpoint::plain_name(model);
    let (plan, threads) = (program.plan.clone(), program.threads);
    let subject = Subject { name, plan, weights: program.weights.0, facts, threads };
    tune(subject, (args, &path), (env, output))
}

/// The database that is written.
fn destination(args: &TuneArgs, build: &BuildArgs, env: &Environment) -> Result<PathBuf> {
    let own = || env.cache.as_deref().map(|cache| database::of_this_machine(cache, threads(build)));
    args.db
        .clone()
        .or_else(own)
        .context("no cache directory is known (SINTER_CACHE, XDG_CACHE_HOME or HOME); give --db")
}

fn import(from: &Path, to: &Path, output: &Output) -> Result<()> {
    let file = if from.is_dir() { exchange::results(from) } else { from.to_owned() };
    let read = Database::read(&file).with_context(|| format!("{} is no tuning database", file.display()))?;
    let count = read.len();
    let mut database = Database::read_or_empty(to)?;
    database.merge(read);
    database.write(to)?;
    let value = json!({ "database": to, "imported": count, "entries": database.len() });
    output.result(&value, || format!("{}\n{count} entries added, {} in all", to.display(), database.len()))
}

fn export(
    model: &str,
    build: &BuildArgs,
    folder: &Path,
    (env, output): (&Environment, &Output),
) -> Result<()> {
    let checkpoint = Checkpoint::open_as(model, build.quant, env, output)?;
    let choice = checkpoint.choice(build, &[BuildTarget::Host])?;
    let plan = checkpoint.plan(&choice, env, output)?;
    let (info, kernels) = (&checkpoint.info, plan.kernels.len());
    let facts = Facts { decoder: info.decoder, vocab: info.vocab, context: info.context };
    Parcel::new(crate::checkpoint::plain_name(model), plan, facts).write(folder)?;
    let value = json!({ "exported": folder, "kernels": kernels });
    output.result(&value, || {
        let folder = folder.display();
        format!("{folder}\n{kernels} kernels; measure them with: sinter tune --measure {folder}")
    })
}

fn tune(
    subject: Subject,
    (args, path): (&TuneArgs, &Path),
    (env, output): (&Environment, &Output),
) -> Result<()> {
    let started = Instant::now();
    let mut database = Database::read_or_empty(path)?;
    let effort = Effort { context: args.context, prompt: args.prompt, rounds: args.rounds };
    let (device, machine) = (machine::device(subject.threads), machine::machine(subject.threads));
    let limit = if args.exhaustive { Limit::ALL } else { Limit::best(args.candidates) };
    let plan = &subject.plan;
    let all: Vec<(Rows, Vec<Space>)> = Rows::ALL
        .into_iter()
        .map(|rows| Ok((rows, spaces(plan, &machine, (rows, limit))?)))
        .collect::<Result<_>>()?;
    let key = key(plan, &device, (&all, &effort));
    let (mut journal, known) = Journal::open(&path.with_extension("journal"), &key)?;
    if !known.is_empty() {
        output.note(format!("{} turns were measured before", known.len()));
    }
    let kernels = pipeline::compile_kernels(plan, subject.threads, (env, output))?;
    let result = plan.outputs.iter().map(|output| &output.name[..]);
    let result = result.into_iter().find(|name| *name == "scores").unwrap_or_default();
    let workload = Workload::new(&subject.facts, &effort, result);
    let config = HostConfig { threads: subject.threads, limits: workload.limits, profile: false };
    let mut model = HostModel::new(plan.clone(), kernels, subject.weights.clone(), config)?;
    output.note(format!("{}: {}", subject.name, model.device()));
    let (mut rows, mut seen, mut done) = (Vec::new(), Vec::new(), true);
    for (at, spaces) in &all {
        let share = if *at == Rows::Few { FEW_SHARE } else { 1.0 };
        let until = until(started, args.budget, share)?;
        let mut turns: Vec<Turn> = known.iter().filter(|turn| turn.rows == *at).cloned().collect();
        let mut rounds = Rounds { model: &mut model, workload: &workload, spaces, rows: *at };
        done &= rounds.measure((&effort, until), (&mut journal, &mut turns), output)?;
        rows.push(verdicts(plan, (spaces, &turns), &workload.binding(*at))?);
        seen.extend(turns.iter().filter_map(|turn| turn.clock));
    }
    let seconds = started.elapsed().as_secs_f64();
    let speeds = Speeds::measure(subject.threads)?;
    let mut kernels = Vec::new();
    for ((_, spaces), verdicts) in all.iter().zip(&rows) {
        kernels.extend(report::kernels(plan, (spaces, verdicts), (&workload, &effort), &speeds)?);
        database.merge(report::database(plan, &device, (spaces, verdicts)));
    }
    database.write(path)?;
    if done {
        journal.finish()?;
    } else {
        output.note("the budget is over before all rounds were measured; the same command again goes on");
    }
    let clock = seen.iter().copied().reduce(f64::min).zip(seen.iter().copied().reduce(f64::max));
    let model_share = report::model_share(&kernels);
    let model = subject.name;
    let report = Report { model, device, clock, seconds, speeds, kernels, model_share };
    if let Some(plot) = &args.plot {
        replace(plot, plot::svg(&report).as_bytes())?;
    }
    let value = json!({ "database": path, "report": report });
    output.result(&value, || format!("{}{}\n", report.text(), path.display()))
}

/// The order of turns, counted up with each change of `judge::candidate`.
const ORDER: u32 = 2;

/// What a journal is of: the kernels, what they could be, how much is measured, and where.
fn key(plan: &Plan, device: &str, (spaces, effort): (&[(Rows, Vec<Space>)], &Effort)) -> String {
    // What runs in which turn is part of what turns mean.
    let mut text = format!("{} {device} {effort:?} {ORDER}", env!("CARGO_PKG_VERSION"));
    plan.kernels.values().for_each(|tile| text += &kernel_key(tile));
    plan.steps.iter().for_each(|step| text += &format!(" {}", step.kernel));
    for space in spaces.iter().flat_map(|(_, spaces)| spaces) {
        text += &format!(" {} {}", space.kernel, space.rows);
        space.candidates.iter().for_each(|candidate| text += &format!(" {}", candidate.choice));
    }
    sha256(text.as_bytes())
}
