//! `sinter explain MODEL --schedule`: how each kernel is run, and what the cost model says of it.

use crate::cli::BuildArgs;
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline::threads;
use crate::tune::{self, machine, space::size};
use anyhow::Result;
use serde::Serialize;
use sinter_codegen_host::{Choice, Cost, FEW_ROWS, ranked};
use sinter_ir::Plan;

/// Schedules of a kernel that are shown besides the one that is run.
const OTHERS: usize = 3;

/// A kernel in launches of few rows or of many.
#[derive(Debug, Serialize)]
struct Shown {
    kernel: String,
    rows: tune::database::Rows,
    schedule: String,
    /// Whether it is the database that says so, against the cost model.
    tuned: bool,
    estimates: Vec<Estimate>,
}

/// What the cost model says of a schedule.
#[derive(Debug, Serialize)]
struct Estimate {
    schedule: String,
    microseconds: f64,
    memory: f64,
    arithmetic: f64,
    overhead: f64,
    waking: f64,
    bytes: f64,
    operations: f64,
    units: u64,
    busiest: u64,
    #[serde(skip)]
    words: String,
}

impl Estimate {
    fn of((choice, cost): &(Choice, Cost)) -> Self {
        Self {
            schedule: choice.to_string(),
            microseconds: cost.nanos() / 1e3,
            memory: cost.memory / 1e3,
            arithmetic: cost.arithmetic / 1e3,
            overhead: cost.overhead / 1e3,
            waking: cost.wake / 1e3,
            bytes: cost.bytes,
            operations: cost.operations,
            units: cost.units,
            busiest: cost.busiest,
            words: cost.to_string(),
        }
    }
}

pub(super) fn run(plan: &Plan, build: &BuildArgs, context: (&Environment, &Output)) -> Result<()> {
    let threads = threads(build);
    let (choices, _) = tune::choices(plan, threads, context)?;
    let machine = machine::machine(threads);
    let mut all = Vec::new();
    for (tile, choices) in plan.kernels.values().zip(choices) {
        for (rows, choice) in tune::database::Rows::ALL.into_iter().zip([choices.few, choices.many]) {
            let ranked = ranked(tile, &size(rows), &machine)?;
            let own = ranked.iter().filter(|(known, _)| *known == choice);
            let others = ranked.iter().filter(|(known, _)| *known != choice).take(OTHERS);
            all.push(Shown {
                kernel: tile.name.clone(),
                rows,
                schedule: choice.to_string(),
                tuned: ranked.first().is_some_and(|(first, _)| *first != choice),
                estimates: own.chain(others).map(Estimate::of).collect(),
            });
        }
    }
    context.1.result(&all, || text(&all, threads))
}

fn text(all: &[Shown], threads: usize) -> String {
    let mut text = format!(
        "on {threads} threads; few rows are a token at position {}, many are a prompt of {}; up to {FEW_ROWS} rows are few\n",
        sinter_codegen_host::Size::FEW.context,
        sinter_codegen_host::Size::MANY.tokens
    );
    for shown in all {
        let by = if shown.tuned { ", as was measured" } else { "" };
        text += &format!("{}, {} rows: {}{by}\n", shown.kernel, shown.rows, shown.schedule);
        for estimate in &shown.estimates {
            text += &format!("    {:<36} {}\n", estimate.schedule, estimate.words);
        }
    }
    text
}
