//! The owner thread: the one place that holds the model, the scheduler and all requests. Everyone else sends messages.

use super::choice::{Choice, Step};
use super::handle::Message;
use super::plan::{Outcome, StepPlan};
use super::stats::{Gauges, add, change, set};
use super::{
    Admission, Arrival, EngineConfig, EngineHandle, Event, Request, RequestId, Scheduler, SchedulerConfig,
    Sink, Speculation, Turn, Usage,
};
use crate::owner::{self, Deserted};
use crate::{DeviceModel, Finish, Row, Rows, RuntimeError};
use sinter_ir::draw::Draw;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// A model with its requests.
pub struct Engine {
    model: Box<dyn DeviceModel>,
    scheduler: Scheduler,
    speculation: Speculation,
    requests: BTreeMap<RequestId, Live>,
    choices: BTreeMap<Turn, Choice>,
    gauges: Arc<Gauges>,
    /// Sequences and tokens that wait, as the gauges say it.
    waiting: (usize, usize),
    messages: Receiver<Message>,
}

/// A request that has not ended.
struct Live {
    sink: Sink,
    usage: Usage,
    /// The choices that have not ended.
    open: Vec<Turn>,
}

impl Engine {
    /// Starts an owner thread for a model.
    ///
    /// # Errors
    /// The model is an encoder, or its limits and the configuration do not go together.
    pub fn spawn(
        model: Box<dyn DeviceModel>,
        config: EngineConfig,
    ) -> Result<(EngineHandle, JoinHandle<()>), RuntimeError> {
        Self::spawn_with(model, Speculation::None, config)
    }

    /// Starts an owner thread for a model whose next tokens are guessed.
    ///
    /// # Errors
    /// As [`Engine::spawn`], or the draft model has another vocabulary.
    pub fn spawn_with(
        model: Box<dyn DeviceModel>,
        speculation: Speculation,
        config: EngineConfig,
    ) -> Result<(EngineHandle, JoinHandle<()>), RuntimeError> {
        let (mut engine, handle) = Self::new(model, speculation, config)?;
        let thread = owner::start("engine", move || engine.serve())?;
        Ok((handle, thread))
    }

    /// An engine without a thread, for callers that step it themselves.
    pub fn new(
        model: Box<dyn DeviceModel>,
        speculation: Speculation,
        config: EngineConfig,
    ) -> Result<(Self, EngineHandle), RuntimeError> {
        let limits = model.limits();
        if let Speculation::Draft(draft) = &speculation
            && draft.vocab() != limits.vocab
        {
            let (found, wanted) = (draft.vocab(), limits.vocab);
            return Err(RuntimeError::Parameter(format!(
                "the draft model has {found} tokens, the model has {wanted}"
            )));
        }
        let scheduler = Scheduler::new(SchedulerConfig {
            max_tokens: limits.max_tokens,
            max_sequences: limits.max_sequences.min(limits.max_tokens),
            max_rows: config.max_rows.max(limits.max_sequences),
            pages: limits.pages,
            max_positions: limits.max_positions,
            patience: config.patience,
            prefix_cache: config.prefix_cache,
        })?;
        let gauges = Arc::new(Gauges::new());
        set(&gauges.blocks_total, limits.pages);
        let (sender, messages) = channel();
        let admission = Admission {
            vocab: limits.vocab,
            capacity: scheduler.config().capacity(),
            max_waiting: config.max_waiting,
            max_waiting_tokens: config.max_waiting_tokens,
            bounds: config.bounds,
        };
        let handle = EngineHandle::new(sender, gauges.clone(), admission);
        let (requests, choices, waiting) = (BTreeMap::new(), BTreeMap::new(), (0, 0));
        let engine = Self { model, scheduler, speculation, requests, choices, gauges, waiting, messages };
        Ok((engine, handle))
    }

    /// Works until the last handle is gone or one says stop.
    pub fn serve(&mut self) {
        loop {
            let turn = || self.listen().then(|| self.step()).is_some();
            match catch_unwind(AssertUnwindSafe(turn)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(panic) => self.fail_all(&RuntimeError::Panic(crate::host::panic_text(&*panic))),
            }
        }
        self.fail_all(&RuntimeError::Stopped);
        self.gauges.stopped.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Computes one step, if anything is to be computed.
    pub fn step(&mut self) {
        self.speculation.propose(&mut self.scheduler);
        let plan = self.scheduler.plan();
        let steps = self.compute(&plan);
        let committed = self.commit(&plan, &steps);
        self.publish();
        self.deliver(&plan, steps);
        if let Err(error) = committed {
            self.fail_all(&error);
        }
    }

    /// Reads the messages that have come, waiting for one if there is nothing to compute; false at the end.
    fn listen(&mut self) -> bool {
        loop {
            let idle = self.requests.is_empty();
            match owner::next(&self.messages, idle, &self.gauges) {
                Ok(Some(Message::Submit(id, request, sink))) => self.submit(id, &request, sink),
                Ok(Some(Message::Cancel(id))) => self.cancel(id),
                Ok(Some(Message::CancelChoice(id, choice))) => self.cancel_choice(id, choice),
                Ok(Some(Message::Stop)) | Err(Deserted) => return false,
                Ok(None) if idle => {}
                Ok(None) => return true,
            }
        }
    }

    fn submit(&mut self, id: RequestId, request: &Request, sink: Sink) {
        let tokens = request.prompt.len();
        self.waiting.0 += request.n;
        self.waiting.1 += request.n * tokens;
        let usage = Usage { prompt: tokens, ..Usage::default() };
        self.requests.insert(id, Live { sink, usage, open: Vec::new() });
        if let Err(error) = self.open_choices(id, request) {
            self.fail(id, error);
        }
        self.publish();
    }

    fn open_choices(&mut self, id: RequestId, request: &Request) -> Result<(), RuntimeError> {
        let capacity = self.scheduler.config().capacity();
        for index in 0..request.n {
            let choice = Choice::new(id, request, index, capacity)?;
            let turn = self.scheduler.submit(Arrival {
                tokens: request.prompt.clone(),
                priority: request.priority,
                salt: request.cache_salt.clone(),
                all_rows: choice.wants_prompt(),
            })?;
            self.choices.insert(turn, choice);
            if let Some(live) = self.requests.get_mut(&id) {
                live.open.push(turn);
            }
        }
        Ok(())
    }

    /// Runs the model and lets every choice of the step choose.
    fn compute(&mut self, plan: &StepPlan) -> Vec<Result<Step, RuntimeError>> {
        add(&self.gauges.preemptions, plan.preempted.len());
        if plan.chunks.is_empty() {
            return Vec::new();
        }
        let batch = plan.batch(&self.scheduler);
        let draws = self.draws(plan);
        let started = Instant::now();
        let stepped = self.model.step_drawing(&batch, &draws);
        self.gauges.step(plan.tokens(), started.elapsed());
        let rows = match stepped {
            Ok(rows) => rows,
            Err(error) => return plan.chunks.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut rows = rows.into_iter();
        let mut steps = Vec::with_capacity(plan.chunks.len());
        for chunk in &plan.chunks {
            let own: Vec<Row<'_>> = rows.by_ref().take(chunk.row_count()).collect();
            let (sequence, choice) = (self.scheduler.sequence(chunk.turn), self.choices.get_mut(&chunk.turn));
            let Some((sequence, choice)) = sequence.zip(choice) else {
                steps.push(Ok(Step::default()));
                continue;
            };
            let mut step = Step { cached: sequence.cached(), ..Step::default() };
            if chunk.rows == Rows::All {
                choice.tell_prompt(chunk.start, own.iter().copied(), &mut step);
            }
            let first = own.len().saturating_sub(chunk.drafts + 1);
            let drafts = &sequence.drafts()[..chunk.drafts];
            let chosen = match chunk.samples(sequence) {
                true => choice.choose(own.into_iter().skip(first), drafts, &mut step),
                false => Ok(()),
            };
            steps.push(chosen.map(|()| step));
        }
        steps
    }

    /// For each row of a step how a device may choose from it.
    fn draws(&self, plan: &StepPlan) -> Vec<Option<Draw>> {
        let mut draws = Vec::with_capacity(plan.rows());
        for chunk in &plan.chunks {
            let (sequence, choice) = (self.scheduler.sequence(chunk.turn), self.choices.get(&chunk.turn));
            let choice = sequence.filter(|sequence| chunk.samples(sequence)).and(choice);
            let first = chunk.row_count().saturating_sub(chunk.drafts + 1);
            let draw = |at: usize| choice?.on_device(at.checked_sub(first)?);
            draws.extend((0..chunk.row_count()).map(draw));
        }
        draws
    }

    /// Tells the scheduler what the step gave. What failed is taken out first: its pages must serve nobody else.
    fn commit(&mut self, plan: &StepPlan, steps: &[Result<Step, RuntimeError>]) -> Result<(), RuntimeError> {
        let failed = plan.chunks.iter().zip(steps).filter(|(_, step)| step.is_err());
        for (chunk, _) in failed {
            self.scheduler.cancel(chunk.turn);
        }
        let outcome = |step: &Result<Step, RuntimeError>| match step {
            Ok(step) => step.outcome(),
            Err(_) => Outcome::default(),
        };
        self.scheduler.commit(plan, &steps.iter().map(outcome).collect::<Vec<_>>())
    }

    /// Tells the clients what the step gave.
    fn deliver(&mut self, plan: &StepPlan, steps: Vec<Result<Step, RuntimeError>>) {
        for (chunk, step) in plan.chunks.iter().zip(steps) {
            let Some(choice) = self.choices.get(&chunk.turn) else { continue };
            let (id, index) = (choice.request, choice.index);
            match step {
                Err(error) => self.fail(id, error),
                Ok(step) => {
                    self.count_guesses(id, chunk.drafts, step.tokens.len());
                    self.tell(id, index, chunk.turn, step);
                }
            }
        }
    }

    /// Counts guesses: all tokens of a step but the last were guessed.
    fn count_guesses(&mut self, id: RequestId, drafted: usize, tokens: usize) {
        let accepted = tokens.saturating_sub(1);
        add(&self.gauges.drafted, drafted);
        add(&self.gauges.accepted, accepted);
        if let Some(live) = self.requests.get_mut(&id) {
            live.usage.drafted += drafted;
            live.usage.accepted += accepted;
        }
    }

    fn tell(&mut self, id: RequestId, choice: usize, turn: Turn, step: Step) {
        let Step { prompt, tokens, finish, cached } = step;
        let mut events = Vec::new();
        if !prompt.is_empty() {
            events.push(Event::Prompt(prompt));
        }
        if let Some(live) = self.requests.get_mut(&id) {
            live.usage.generated += tokens.len();
            live.usage.cached = if choice == 0 { cached } else { live.usage.cached };
            add(&self.gauges.tokens_out, tokens.len());
        }
        if !tokens.is_empty() {
            events.push(Event::Tokens { choice, tokens });
        }
        if let Some(finish) = finish {
            events.extend(self.end_choice((id, choice, turn), finish));
        }
        let gone = self.send(id, events);
        if gone {
            self.cancel(id);
        }
    }

    /// Forgets a choice that has ended; gives what its client is told: its end, and that of the request with the last.
    fn end_choice(&mut self, (id, choice, turn): (RequestId, usize, Turn), finish: Finish) -> Vec<Event> {
        self.choices.remove(&turn);
        let mut events = vec![Event::Finished { choice, finish }];
        if let Some(live) = self.requests.get_mut(&id) {
            live.open.retain(|open| *open != turn);
            events.extend(live.open.is_empty().then_some(Event::Done(live.usage)));
        }
        events
    }

    /// Sends events; true if nobody takes them any more. A request is forgotten after its last event.
    fn send(&mut self, id: RequestId, events: Vec<Event>) -> bool {
        let Some(live) = self.requests.get_mut(&id) else { return false };
        for event in events {
            // Counted first, so that a client that reads the gauges after its last event finds itself there.
            let last = event.is_last();
            add(&self.gauges.finished, usize::from(last));
            let taken = catch_unwind(AssertUnwindSafe(|| (live.sink)(event)));
            let gone = !taken.is_ok_and(|taken| taken.is_continue());
            if last {
                self.requests.remove(&id);
                return false;
            }
            if gone {
                return true;
            }
        }
        false
    }

    /// Frees what the open choices hold and gives their numbers.
    fn close_choices(&mut self, id: RequestId) -> Vec<usize> {
        let open = self.requests.get_mut(&id).map(|live| std::mem::take(&mut live.open)).unwrap_or_default();
        let mut closed = Vec::new();
        for turn in open {
            self.scheduler.cancel(turn);
            closed.extend(self.choices.remove(&turn).map(|choice| choice.index));
        }
        closed
    }

    fn cancel(&mut self, id: RequestId) {
        let closed = self.close_choices(id);
        self.publish();
        let Some(live) = self.requests.get(&id) else { return };
        let finish = Finish::Cancelled;
        let mut events: Vec<_> =
            closed.into_iter().map(|choice| Event::Finished { choice, finish }).collect();
        events.push(Event::Done(live.usage));
        if self.send(id, events) {
            self.forget(id);
        }
    }

    fn cancel_choice(&mut self, id: RequestId, choice: usize) {
        let is_it = |turn: &&Turn| self.choices.get(turn).is_some_and(|open| open.index == choice);
        let Some(turn) = self.requests.get(&id).and_then(|live| live.open.iter().find(is_it).copied()) else {
            return;
        };
        self.scheduler.cancel(turn);
        self.publish();
        let events = self.end_choice((id, choice, turn), Finish::Cancelled);
        if self.send(id, events) {
            self.cancel(id);
        }
    }

    fn fail(&mut self, id: RequestId, error: RuntimeError) {
        self.close_choices(id);
        self.publish();
        add(&self.gauges.failed, usize::from(self.requests.contains_key(&id)));
        self.send(id, vec![Event::Failed(error)]);
    }

    /// Drops a request whose sink takes nothing more.
    fn forget(&mut self, id: RequestId) {
        if self.requests.remove(&id).is_some() {
            add(&self.gauges.finished, 1);
        }
    }

    fn fail_all(&mut self, error: &RuntimeError) {
        for id in self.requests.keys().copied().collect::<Vec<_>>() {
            self.fail(id, error.clone());
        }
    }

    /// Writes the gauges. Handles add to the waiting, so only the change since the last time is written there.
    fn publish(&mut self) {
        let waiting = self.scheduler.waiting();
        let tokens = waiting.values().map(|sequence| sequence.prompt()).sum();
        change(&self.gauges.waiting, self.waiting.0, waiting.len());
        change(&self.gauges.waiting_tokens, self.waiting.1, tokens);
        self.waiting = (waiting.len(), tokens);
        set(&self.gauges.running, self.scheduler.running().len());
        let cache = self.scheduler.cache();
        set(&self.gauges.blocks_used, cache.used());
        set(&self.gauges.blocks_cached, cache.pool().idle());
        let (queries, hits) = self.scheduler.prefix_counts();
        set(&self.gauges.prefix_queries, queries as usize);
        set(&self.gauges.prefix_hits, hits as usize);
    }
}
