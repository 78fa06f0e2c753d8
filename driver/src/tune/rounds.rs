//! Rounds of measurements inside of real steps.
//!
//! A turn is one step of the model in which every launch runs one of its kernel's candidates; the next turn moves all on by
//! one, and with each round each kernel begins anew at random ([`judge::candidate`]). So candidates are interleaved, and each is timed where it is used: among the launches before and after it, with the
//! caches as they leave them. No cache is flushed, for none is in use: the weights of all other layers go through it
//! between two launches of a kernel, and what of a small model stays in the cache stays there in use too.

use super::database::Rows;
use super::journal::{Journal, Turn};
use super::judge::{self, Verdict};
use super::space::Space;
use crate::output::Output;
use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use sinter_ir::{Binding, Id, PAGE, Plan};
use sinter_runtime::{Batch, BatchBuilder, Chunk, DeviceModel, HostModel, Limits, uniform};
use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Positions that the token of a decode step sees.
    pub context: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Rounds that are wanted.
    pub rounds: usize,
}

/// The facts of a model that measuring needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Whether it continues texts.
    pub decoder: bool,
    /// Token ids are below this.
    pub vocab: usize,
    /// Positions are below this.
    pub context: usize,
}

/// The steps that are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// A step that leaves keys and values for the others; none of an encoder.
    pub before: Option<Batch>,
    /// A step of few rows.
    pub few: Batch,
    /// A step of many.
    pub many: Batch,
    /// The limits of all.
    pub limits: Limits,
}

impl Workload {
    /// The steps for a model: its tokens are random.
    pub fn new(facts: &Facts, effort: &Effort, result: &str) -> Self {
        let most = facts.context.max(2);
        let (context, prompt) = (effort.context.clamp(1, most - 1), effort.prompt.clamp(1, most));
        let longest = (context + 1).max(prompt);
        let tokens: Vec<u32> =
            (0..longest as u64).map(|at| (uniform(7, at) * facts.vocab as f64) as u32).collect();
        let pages = if facts.decoder { longest.div_ceil(PAGE as usize) } else { 0 };
        let table: Vec<u32> = (0..pages as u32).collect();
        let rows = match (facts.decoder, result) {
            (true, _) => sinter_runtime::Rows::Last,
            (false, "scores") => sinter_runtime::Rows::First,
            (false, _) => sinter_runtime::Rows::None,
        };
        let step = |range: std::ops::Range<usize>| {
            let mut builder = BatchBuilder::new();
            let (start, tokens) = (range.start, &tokens[range]);
            let pages =
                &table[..if facts.decoder { (start + tokens.len()).div_ceil(PAGE as usize) } else { 0 }];
            builder.push(Chunk { tokens, start, pages, rows });
            builder.finish()
        };
        let limits = Limits {
            vocab: facts.vocab,
            max_positions: longest,
            max_tokens: longest,
            max_sequences: 1,
            pages,
        };
        let few = if facts.decoder { step(context..context + 1) } else { step(0..prompt.min(16)) };
        Self { before: facts.decoder.then(|| step(0..context)), few, many: step(0..prompt), limits }
    }

    /// The step of so many rows.
    pub fn batch(&self, rows: Rows) -> &Batch {
        match rows {
            Rows::Few => &self.few,
            Rows::Many => &self.many,
        }
    }

    /// The sizes of that step.
    pub fn binding(&self, rows: Rows) -> Binding {
        self.batch(rows).binding(self.limits.pages)
    }
}

/// The positions of each space's launches in a plan, where a launch of the step has the space's rows.
pub fn steps(plan: &Plan, spaces: &[Space], binding: &Binding) -> Vec<Vec<usize>> {
    let of = |space: &Space| -> Vec<usize> {
        let rows = sinter_codegen_host::rows(&plan.kernels[space.kernel]).eval(binding);
        let few = rows <= sinter_codegen_host::FEW_ROWS;
        if few != (space.rows == Rows::Few) {
            return Vec::new();
        }
        let all = plan.steps.iter().enumerate();
        all.filter(|(_, step)| step.kernel == space.kernel).map(|(number, _)| number).collect()
    };
    spaces.iter().map(of).collect()
}

/// What the order of a space's candidates follows from.
fn number(space: &Space) -> u64 {
    space.kernel.index() as u64
}

/// A model and what its launches may run.
#[derive(Debug)]
pub struct Rounds<'a> {
    /// The model.
    pub model: &'a mut HostModel,
    /// The steps.
    pub workload: &'a Workload,
    /// What each kernel could be.
    pub spaces: &'a [Space],
    /// The rows of the spaces.
    pub rows: Rows,
}

impl Rounds<'_> {
    /// Measures until there are rounds enough or the time is over, and says whether there are; `turns` are those of before. Each
    /// turn goes to the journal.
    ///
    /// # Errors
    /// If a step fails, a candidate gives other bits than the model's choice, or the journal cannot be written.
    pub fn measure(
        &mut self,
        (effort, until): (&Effort, Instant),
        (journal, turns): (&mut Journal, &mut Vec<Turn>),
        output: &Output,
    ) -> Result<bool> {
        let steps = steps(self.model.plan(), self.spaces, &self.workload.binding(self.rows));
        let most = self.spaces.iter().zip(&steps).filter(|(_, steps)| !steps.is_empty());
        let most = most.map(|(space, _)| space.candidates.len()).max().unwrap_or(0);
        let wanted = if most > 1 { most * effort.rounds } else { 0 };
        if turns.len() >= wanted {
            return Ok(true);
        }
        if let Some(before) = &self.workload.before {
            self.model.step(before)?;
        }
        let own = vec![None; self.model.plan().steps.len()];
        let batch = self.workload.batch(self.rows);
        let bits = |result: &[f32]| result.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        let reference = bits(self.model.try_kernels(batch, &own)?.result);
        let name = if self.rows == Rows::Few { "few rows" } else { "many rows" };
        let bar: ProgressBar = output.progress(name, wanted as u64);
        bar.set_position(turns.len() as u64);
        while turns.len() < wanted && Instant::now() < until {
            let mut kernels = own.clone();
            for (space, steps) in self.spaces.iter().zip(&steps) {
                for (launch, step) in steps.iter().enumerate() {
                    let at = judge::candidate((number(space), launch), turns.len(), space.candidates.len());
                    kernels[*step] = space.candidates.get(at).map(|candidate| &candidate.built);
                }
            }
            let trial = self.model.try_kernels(batch, &kernels)?;
            if bits(trial.result) != reference {
                bail!("{}", self.differing(&steps, turns.len()));
            }
            let turn = Turn { rows: self.rows, nanos: trial.nanos, clock: super::machine::clock() };
            journal.add(&turn)?;
            turns.push(turn);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(turns.len() >= wanted)
    }

    /// The reason of a turn whose result was another: what ran in it.
    fn differing(&self, steps: &[Vec<usize>], turn: usize) -> String {
        let mut ran: Vec<String> = Vec::new();
        for (space, steps) in self.spaces.iter().zip(steps) {
            for launch in 0..steps.len().min(space.candidates.len()) {
                let at = judge::candidate((number(space), launch), turn, space.candidates.len());
                if at > 0 {
                    ran.push(format!(
                        "{} as `{}`",
                        space.candidates[at].built.name, space.candidates[at].choice
                    ));
                }
            }
        }
        format!("a schedule changed the result, please report this; one of {}", ran.join(", "))
    }
}

/// What turns say of each space; none where no launch of the step is one of the space's.
pub fn verdicts(
    plan: &Plan,
    (spaces, turns): (&[Space], &[Turn]),
    binding: &Binding,
) -> Result<Vec<Option<Verdict>>> {
    let nanos: Vec<Vec<u64>> = turns.iter().map(|turn| turn.nanos.clone()).collect();
    ensure!(nanos.iter().all(|turn| turn.len() == plan.steps.len()), "the journal is of another plan");
    let all = spaces.iter().zip(steps(plan, spaces, binding));
    let judged = all.map(|(space, steps)| {
        let rounds = judge::rounds((number(space), &steps), space.candidates.len(), &nanos);
        (!steps.is_empty()).then(|| Verdict::of(&rounds))
    });
    Ok(judged.collect())
}

/// When so much of a budget is over.
pub fn until(started: Instant, budget: Duration, share: f64) -> Result<Instant> {
    started.checked_add(budget.mul_f64(share)).context("the budget is too long")
}
