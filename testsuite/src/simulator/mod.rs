//! A simulator of the scheduler: clients, a clock that counts steps, and a model without arithmetic, all from one seed.
//!
//! After every step everything that must always hold is checked; the first thing that does not ends the run with the seed
//! and the step. The same seed replays the same run to the last decision. What is simulated is `crate::machine`: the
//! engine's scheduler, or, in the test of the simulator itself, a copy with planted bugs.

mod check;
mod memory;
mod world;

use crate::machine::{Arrival, Outcome, Scheduler, StepPlan, Turn};
use memory::{Memory, next_token};
use sinter_runtime::Rows;
use std::collections::BTreeMap;

pub use world::{Client, Drafts, Moment, World};

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trace {
    /// A hash of every decision.
    pub hash: u64,
    /// Steps.
    pub steps: u64,
    /// Tokens that were computed.
    pub computed: u64,
    /// Sequences that were put back.
    pub preemptions: u64,
    /// Tokens that were found in the cache.
    pub hits: u64,
    /// Drafts that were right.
    pub accepted: u64,
    /// Clients that left before their answer was complete.
    pub left: u64,
}

/// A client on its way.
#[derive(Debug, Default)]
struct State {
    turn: Option<Turn>,
    arrived: u64,
    answer: Vec<u32>,
    /// Rows of the prompt whose logits were computed.
    rows: usize,
    ended: bool,
}

/// One run.
#[derive(Debug)]
struct Simulation {
    world: World,
    scheduler: Scheduler,
    memory: Memory,
    states: Vec<State>,
    /// Which client a sequence belongs to.
    clients: BTreeMap<Turn, usize>,
    trace: Trace,
}

/// Runs the world of a seed to its end.
pub fn run(seed: u64) -> Result<Trace, String> {
    run_world(World::from_seed(seed)).map_err(|reason| format!("seed {seed}: {reason}"))
}

/// Runs a world to its end: every client has been answered or has left, and no page is held.
pub fn run_world(world: World) -> Result<Trace, String> {
    let scheduler = Scheduler::new(world.config).map_err(|error| error.to_string())?;
    let states = world.clients.iter().map(|_| State::default()).collect();
    let (memory, clients) = (Memory::new(world.config.pages), BTreeMap::new());
    let most = world.most_steps();
    let mut simulation = Simulation { world, scheduler, memory, states, clients, trace: Trace::default() };
    while !simulation.is_over() {
        let step = simulation.trace.steps;
        if step > most {
            return Err(format!("not over after {step} steps"));
        }
        simulation.step().map_err(|reason| format!("step {step}: {reason}"))?;
    }
    simulation.check_end()?;
    Ok(simulation.trace)
}

impl Simulation {
    fn is_over(&self) -> bool {
        self.states.iter().all(|state| state.ended)
    }

    fn step(&mut self) -> Result<(), String> {
        self.arrive()?;
        self.leave(Moment::BeforePlan)?;
        self.propose();
        let waiting = self.scheduler.waiting().keys().copied().collect::<Vec<_>>();
        let plan = self.scheduler.plan();
        self.check_plan(&plan, &waiting)?;
        self.note(&plan);
        let written = self.memory.compute(&plan, &self.scheduler)?;
        self.leave(Moment::BeforeCommit)?;
        let outcomes = self.choose(&plan)?;
        self.memory.write(written);
        self.scheduler.commit(&plan, &outcomes).map_err(|error| error.to_string())?;
        self.check_state()?;
        self.trace.steps += 1;
        Ok(())
    }

    fn arrive(&mut self) -> Result<(), String> {
        for at in 0..self.states.len() {
            let client = &self.world.clients[at];
            if client.arrives != self.trace.steps {
                continue;
            }
            let fits = (1..=self.world.config.capacity()).contains(&client.prompt.len());
            match (self.scheduler.submit(client.arrival()), fits) {
                (Ok(turn), true) => {
                    self.clients.insert(turn, at);
                    (self.states[at].turn, self.states[at].arrived) = (Some(turn), self.trace.steps);
                }
                (Err(_), false) => self.states[at].ended = true,
                (result, _) => return Err(format!("client {at}: fits is {fits}, but {result:?}")),
            }
        }
        Ok(())
    }

    fn leave(&mut self, moment: Moment) -> Result<(), String> {
        for at in 0..self.states.len() {
            let (client, state) = (&self.world.clients[at], &mut self.states[at]);
            let Some((after, _)) = client.leaves.filter(|(_, when)| *when == moment) else { continue };
            let (Some(turn), false) = (state.turn, state.ended) else { continue };
            if self.trace.steps < state.arrived + after {
                continue;
            }
            state.ended = true;
            self.trace.left += 1;
            if !self.scheduler.cancel(turn) || self.scheduler.cancel(turn) {
                return Err(format!("client {at} cannot be cancelled once and only once"));
            }
            if self.scheduler.sequence(turn).is_some() {
                return Err(format!("client {at} has left, but its sequence is there"));
            }
            self.check_pages()?;
        }
        Ok(())
    }

    fn propose(&mut self) {
        let running: Vec<Turn> = self.scheduler.running().keys().copied().collect();
        for turn in running {
            let Some(sequence) = self.scheduler.sequence(turn) else { continue };
            let client = &self.world.clients[self.clients[&turn]];
            let drafts = client.guess(sequence.tokens(), self.world.vocab, self.trace.steps);
            self.scheduler.propose(turn, drafts);
        }
    }

    /// What the model says after each chunk; some steps fail for some sequences, which the engine then takes out.
    fn choose(&mut self, plan: &StepPlan) -> Result<Vec<Outcome>, String> {
        let mut outcomes = Vec::with_capacity(plan.chunks.len());
        for chunk in &plan.chunks {
            let Some(sequence) = self.scheduler.sequence(chunk.turn) else {
                outcomes.push(Outcome::default());
                continue;
            };
            let at = self.clients[&chunk.turn];
            let (client, state) = (&self.world.clients[at], &mut self.states[at]);
            if client.all_rows && chunk.rows == Rows::All && chunk.start < sequence.prompt() {
                if chunk.start > state.rows {
                    return Err(format!("client {at} never gets rows {} to {}", state.rows, chunk.start));
                }
                state.rows = state.rows.max(chunk.start + chunk.len);
            }
            if client.fails_at == Some(self.trace.steps) {
                state.ended = true;
                self.scheduler.cancel(chunk.turn);
                outcomes.push(Outcome::default());
                continue;
            }
            let mut outcome = Outcome::default();
            if chunk.samples(sequence) {
                let drafts = &sequence.drafts()[..chunk.drafts];
                outcome = answer(client, sequence.tokens(), drafts, self.world.vocab);
                state.answer.extend_from_slice(&outcome.tokens);
                self.trace.accepted += outcome.tokens.len().saturating_sub(1) as u64;
                state.ended = outcome.finished;
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn note(&mut self, plan: &StepPlan) {
        let mut hash = self.trace.hash;
        let mut mix = |value: u64| hash = (hash ^ value).wrapping_mul(0x100_0000_01b3).rotate_left(17);
        for chunk in &plan.chunks {
            [chunk.turn.serial, chunk.start as u64, chunk.count() as u64].into_iter().for_each(&mut mix);
            let pages = self.scheduler.sequence(chunk.turn).map(|sequence| sequence.pages());
            pages.into_iter().flatten().for_each(|page| mix(u64::from(*page)));
        }
        plan.preempted.iter().for_each(|turn| mix(!turn.serial));
        self.trace.hash = hash;
        self.trace.computed += plan.tokens() as u64;
        self.trace.preemptions += plan.preempted.len() as u64;
        self.trace.hits = self.scheduler.prefix_counts().1;
    }
}

/// What the model answers after `tokens`, drafts that it agrees with included, up to the end of the client's answer.
fn answer(client: &Client, tokens: &[u32], drafts: &[u32], vocab: u32) -> Outcome {
    let end = client.prompt.len() + client.answer;
    let (mut all, mut outcome) = (tokens.to_vec(), Outcome::default());
    for at in 0..=drafts.len() {
        let token = next_token(&all, vocab);
        all.push(token);
        outcome.tokens.push(token);
        outcome.finished = all.len() >= end;
        if outcome.finished || drafts.get(at) != Some(&token) {
            break;
        }
    }
    outcome
}

impl Client {
    fn arrival(&self) -> Arrival {
        Arrival {
            tokens: self.prompt.clone(),
            priority: self.priority,
            salt: self.salt.clone(),
            all_rows: self.all_rows,
        }
    }

    /// Drafts after `tokens`: right, wrong, or right for a while.
    fn guess(&self, tokens: &[u32], vocab: u32, step: u64) -> Vec<u32> {
        let (count, right) = match self.drafts {
            Drafts::None => return Vec::new(),
            Drafts::Right(count) => (count, count),
            Drafts::Wrong(count) => (count, 0),
            Drafts::Mixed(count) => (count, step as usize % (count + 1)),
        };
        let mut all = tokens.to_vec();
        for at in 0..count {
            let token = next_token(&all, vocab);
            all.push(if at < right { token } else { (token + 1) % vocab });
        }
        all.split_off(tokens.len())
    }
}
