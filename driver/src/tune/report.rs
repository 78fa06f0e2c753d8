//! What was won, kernel by kernel.

use super::database::{Database, Entry, Rows, kernel_key};
use super::floors::{Floor, Speeds};
use super::judge::{Interval, Verdict};
use super::rounds::{Effort, Workload, steps};
use super::space::{Candidate, Space};
use anyhow::Result;
use serde::Serialize;
use sinter_codegen_schedule::work::StepSize;
use sinter_ir::Plan;

/// A whole run of the tuner.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The model.
    pub model: String,
    /// What it was measured on.
    pub device: String,
    /// The least and the greatest clock in MHz that was seen, where the system says it.
    pub clock: Option<(f64, f64)>,
    /// Seconds that measuring took.
    pub seconds: f64,
    /// Bandwidth and peaks.
    pub speeds: Speeds,
    /// The kernels, those of few rows first.
    pub kernels: Vec<Kernel>,
    /// The geometric mean over kernels of the best measured time over that of the model's choice.
    pub model_share: f64,
}

/// A kernel for some rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// The rows.
    pub rows: Rows,
    /// Launches in a step.
    pub launches: usize,
    /// Rounds that were measured; below six nothing is certain.
    pub rounds: usize,
    /// What is to be run.
    pub choice: String,
    /// What the cost model chose.
    pub model: String,
    /// The time of the choice over that of the model's choice.
    pub ratio: Interval,
    /// The least median of all candidates over that of the model's choice.
    pub model_share: f64,
    /// Microseconds of a launch of the choice, and of the model's choice.
    pub microseconds: f64,
    /// Of the model's choice.
    pub model_microseconds: f64,
    /// The least that a launch can take.
    pub floor: Floor,
    /// Everything that was measured.
    pub candidates: Vec<Measured>,
    /// Schedules that were not.
    pub dropped: usize,
}

/// A candidate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The schedule.
    pub schedule: String,
    /// Microseconds that the cost model thinks a launch of its own size takes.
    pub estimate: f64,
    /// Microseconds of a launch.
    pub microseconds: f64,
    /// Its time over that of the model's choice.
    pub ratio: Interval,
}

/// The kernels that were measured, with the floors of their launches.
///
/// # Errors
/// If a kernel has no step in the plan.
pub fn kernels(
    plan: &Plan,
    (spaces, verdicts): (&[Space], &[Option<Verdict>]),
    (workload, effort): (&Workload, &Effort),
    speeds: &Speeds,
) -> Result<Vec<Kernel>> {
    let mut all = Vec::new();
    for (space, verdict) in spaces.iter().zip(verdicts) {
        let Some(verdict) = verdict else { continue };
        let steps = &steps(plan, std::slice::from_ref(space), &workload.binding(space.rows))[0];
        let Some(first) = steps.first() else { continue };
        let floor = speeds.floor(plan, *first, &size(space.rows, workload, effort))?;
        let median = |at: usize| verdict.nanos[at].median / 1e3;
        let measured = |(at, candidate): (usize, &Candidate)| Measured {
            schedule: candidate.choice.to_string(),
            estimate: candidate.cost.nanos() / 1e3,
            microseconds: median(at),
            ratio: verdict.ratios[at],
        };
        let text = |at: usize| space.candidates[at].choice.to_string();
        all.push(Kernel {
            name: plan.kernels[space.kernel].name.clone(),
            rows: space.rows,
            launches: steps.len(),
            rounds: verdict.rounds,
            choice: text(verdict.best),
            model: text(0),
            ratio: verdict.ratios[verdict.best],
            model_share: verdict.model_share(),
            microseconds: median(verdict.best),
            model_microseconds: median(0),
            floor,
            candidates: space.candidates.iter().enumerate().map(measured).collect(),
            dropped: space.dropped,
        });
    }
    Ok(all)
}

/// The step that is measured, as its work is counted.
fn size(rows: Rows, workload: &Workload, effort: &Effort) -> StepSize {
    let tokens = workload.batch(rows).tokens.len() as u64;
    match rows {
        Rows::Few if workload.before.is_some() => StepSize::decode(1, effort.context as u64 + 1),
        Rows::Few | Rows::Many => StepSize::prompt(tokens),
    }
}

/// What goes into a database: the verdicts that are certain.
pub fn database(plan: &Plan, device: &str, (spaces, verdicts): (&[Space], &[Option<Verdict>])) -> Database {
    let mut database = Database::default();
    for (space, verdict) in spaces.iter().zip(verdicts) {
        let Some(verdict) = verdict.as_ref().filter(|verdict| verdict.is_certain()) else { continue };
        let tile = &plan.kernels[space.kernel];
        let ratio = verdict.ratios[verdict.best];
        database.put(Entry {
            device: device.into(),
            kernel: kernel_key(tile),
            rows: space.rows,
            name: tile.name.clone(),
            choice: space.candidates[verdict.best].choice.to_string(),
            model: space.candidates[0].choice.to_string(),
            ratio: [ratio.median, ratio.low, ratio.high],
            rounds: verdict.rounds,
        });
    }
    database
}

/// The geometric mean of the best measured time over that of the model's choice, over kernels that are certain; 1 if there
/// are none.
pub fn model_share(kernels: &[Kernel]) -> f64 {
    let certain = kernels.iter().filter(|kernel| kernel.rounds >= super::judge::LEAST_ROUNDS);
    let logs: Vec<f64> = certain.map(|kernel| kernel.model_share.ln()).collect();
    if logs.is_empty() { 1.0 } else { (logs.iter().sum::<f64>() / logs.len() as f64).exp() }
}

impl Report {
    /// The report as a table.
    pub fn text(&self) -> String {
        let mut text = format!("{} on {}\n", self.model, self.device);
        text += &format!(
            "{:<28} {:<5} {:>6} {:>10} {:>10} {:>6} {:>7}  schedule\n",
            "kernel", "rows", "rounds", "µs", "model's µs", "floor", "won"
        );
        for kernel in &self.kernels {
            let share = 100.0 * kernel.floor.microseconds / kernel.microseconds;
            let won = match (kernel.rounds >= super::judge::LEAST_ROUNDS, kernel.choice == kernel.model) {
                (false, _) => "unsure".into(),
                (true, true) => "-".into(),
                (true, false) => format!("{:.1} %", 100.0 * (1.0 - kernel.ratio.median)),
            };
            let was = if kernel.choice == kernel.model {
                String::new()
            } else {
                format!(" instead of {}", kernel.model)
            };
            text += &format!(
                "{:<28} {:<5} {:>6} {:>10.1} {:>10.1} {:>4.0} % {won:>7}  {}{was}\n",
                kernel.name,
                kernel.rows,
                kernel.rounds,
                kernel.microseconds,
                kernel.model_microseconds,
                share,
                kernel.choice,
            );
        }
        let [few, many] = [Rows::Few, Rows::Many].map(|rows| self.step(rows));
        for (name, (tuned, model)) in [("few rows", few), ("many rows", many)] {
            if model > 0.0 {
                text +=
                    &format!("a step of {name}: {tuned:.1} µs in kernels, {model:.1} as the model chooses\n");
            }
        }
        let best = 100.0 * self.model_share;
        text += &format!("the model's choices reach {best:.1} % of the best measured\n");
        text + "check: all schedules gave the same bits\n"
    }

    /// Microseconds in the kernels of a step: as chosen, and as the model chooses.
    fn step(&self, rows: Rows) -> (f64, f64) {
        let kernels = self.kernels.iter().filter(|kernel| kernel.rows == rows);
        kernels.fold((0.0, 0.0), |(tuned, model), kernel| {
            let launches = kernel.launches as f64;
            (tuned + launches * kernel.microseconds, model + launches * kernel.model_microseconds)
        })
    }
}
