//! The one door to the engine. Every interface turns a request into a [`Generation`] and gets [`Output`]s; what a
//! conversation, a tool or an event stream is, stands elsewhere.
//!
//! ```text
//! Generation ─ start ─▶ EngineHandle ─ events, bounded ─▶ Answers: text, stop strings, usage ─▶ Output
//! ```
//!
//! - Dropping [`Answers`] cancels the request; its pages are free before the engine's next step.
//! - The engine never waits for a reader. Events go through a bounded queue; whoever lets it overflow is cut off, and
//!   told so when it reads again.
//! - Stop strings are found here. The choice ends at once; tokens that the engine computed beyond it are not counted.

use super::error::ApiError;
use super::record::Caller;
use super::state::App;
use crate::text_stream::{Special, TextStream};
use axum::http::StatusCode;
use futures_util::Stream;
use sinter_runtime::engine::{Constraint, Event, Logprob, Request, Sink, Ticket, Token};
use sinter_runtime::{Finish, SamplingParams};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;
use tokio::sync::mpsc;

/// Bytes of events, about, that may wait for a reader.
const QUEUE_BYTES: usize = 64 << 10;

/// What is to be generated.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Independent answers.
    pub n: usize,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Tokens of an answer at most; as many as the context has room for if none.
    pub max_tokens: Option<usize>,
    /// Texts that end an answer.
    pub stops: Vec<String>,
    /// Whether the text that ended an answer is part of it.
    pub include_stop: bool,
    /// Ids that end an answer, besides those of the model.
    pub stop_ids: Vec<u32>,
    /// Whether the model's own end is passed over.
    pub ignore_eos: bool,
    /// Whether special tokens are left out of the text.
    pub skip_special: bool,
    /// Special tokens that are part of the text in any case, sorted.
    pub keep: Vec<u32>,
    /// Log probabilities of the answers' tokens, and of so many likeliest alternatives.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// Smaller is sooner.
    pub priority: i32,
    /// Only requests with the same salt share cached beginnings.
    pub cache_salt: Vec<u8>,
    /// What the answers must look like.
    pub constraint: Option<Arc<dyn Constraint>>,
}

impl Generation {
    /// One greedy answer to a prompt, up to the end of the context.
    pub fn new(prompt: Vec<u32>) -> Self {
        Self {
            prompt,
            n: 1,
            sampling: SamplingParams::greedy(),
            max_tokens: None,
            stops: Vec::new(),
            include_stop: false,
            stop_ids: Vec::new(),
            ignore_eos: false,
            skip_special: true,
            keep: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            priority: 0,
            cache_salt: Vec::new(),
            constraint: None,
        }
    }

    /// Hands the request to the engine.
    ///
    /// # Errors
    /// The prompt does not fit, a parameter is out of its range, too many requests wait, or the server shuts down.
    pub fn start(self, app: &Arc<App>, caller: &Caller) -> Result<Answers, ApiError> {
        let engine = app.engine()?;
        let capacity = engine.admission().capacity;
        if self.prompt.len() > capacity {
            let found = self.prompt.len();
            let message = format!("the prompt has {found} tokens, the context of this server has {capacity}");
            return Err(ApiError { code: "context_length_exceeded", ..ApiError::bad_request(message) });
        }
        let most = app.limits.queue_events(self.logprobs.max(self.prompt_logprobs), QUEUE_BYTES);
        let (sender, events) = mpsc::channel(most);
        let overflow = Arc::new(AtomicBool::new(false));
        let choice = |_| Choice { text: Some(self.text(app)), tokens: Vec::new(), count: 0, last: None };
        let choices = (0..self.n).map(choice).collect();
        let (keep_tokens, include_stop) = (self.logprobs.is_some(), self.include_stop);
        caller.record.asked(&app.model.names[0], &self);
        caller.record.admitted(self.prompt.len());
        let request = self.request(app, capacity);
        let ticket = engine.submit_to(request, sink(sender, overflow.clone()))?;
        let started = Instant::now();
        Ok(Answers {
            app: app.clone(),
            caller: caller.clone(),
            ticket,
            events,
            overflow,
            deadline: tokio::time::Instant::now() + app.limits.timeout,
            choices,
            keep_tokens,
            include_stop,
            ready: VecDeque::new(),
            usage: Usage::default(),
            started,
            ended: false,
        })
    }

    fn text(&self, app: &App) -> TextStream {
        let special = match self.skip_special {
            true => Special::Only(self.keep.clone()),
            false => Special::All,
        };
        TextStream::with_special(&app.text.tokenizer, self.stops.clone(), special)
    }

    fn request(self, app: &App, capacity: usize) -> Request {
        let mut stop_ids = self.stop_ids;
        if !self.ignore_eos {
            stop_ids.extend(&app.text.defaults.eos_ids);
        }
        let room = capacity.saturating_sub(self.prompt.len()).saturating_add(1);
        Request {
            max_tokens: self.max_tokens.unwrap_or(room).min(room),
            prompt: self.prompt,
            sampling: self.sampling,
            n: self.n,
            stop_ids,
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
            priority: self.priority,
            cache_salt: self.cache_salt,
            constraint: self.constraint,
        }
    }
}

/// Puts events into the queue without waiting. After one that found no room, nothing more is taken.
fn sink(sender: mpsc::Sender<Event>, overflow: Arc<AtomicBool>) -> Sink {
    Box::new(move |event| {
        if overflow.load(Relaxed) {
            return ControlFlow::Break(());
        }
        match sender.try_send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                overflow.store(true, Relaxed);
                ControlFlow::Break(())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => ControlFlow::Break(()),
        }
    })
}

/// The next of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The answer, from 0.
    pub choice: usize,
    /// The next of its text.
    pub text: String,
    /// The tokens that it was made of, if log probabilities were asked for.
    pub tokens: Vec<Token>,
}

/// What comes of a generation, in order. Nothing comes after [`Output::Done`] or [`Output::Failed`].
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Log probabilities of the next tokens of the prompt of an answer.
    Prompt(usize, Vec<Option<Logprob>>),
    /// The next of an answer.
    Piece(Piece),
    /// An answer has ended.
    Finished(usize, Reason),
    /// All answers have ended.
    Done(Usage),
    /// There is no more, because of an error.
    Failed(ApiError),
}

/// Why an answer has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The model ended it, or what was asked for is complete.
    End,
    /// This text came, which was to end it.
    Stop(String),
    /// This id came, which was to end it.
    StopId(u32),
    /// The wanted number of tokens was reached, or the context is full.
    Length,
    /// It was cancelled.
    Cancelled,
}

impl Reason {
    /// OpenAI's word.
    pub fn openai(&self) -> &'static str {
        match self {
            Reason::End | Reason::Stop(_) | Reason::StopId(_) => "stop",
            Reason::Length => "length",
            Reason::Cancelled => "abort",
        }
    }
}

/// Tokens that were read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompts.
    pub prompt: usize,
    /// Those of them that were in the cache.
    pub cached: usize,
    /// Tokens of the answers, up to where they ended.
    pub generated: usize,
    /// Guessed tokens that were right.
    pub accepted: usize,
    /// Guessed tokens that were wrong.
    pub rejected: usize,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.cached += other.cached;
        self.generated += other.generated;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
    }
}

/// The answers on their way.
pub struct Answers {
    app: Arc<App>,
    caller: Caller,
    ticket: Ticket,
    events: mpsc::Receiver<Event>,
    overflow: Arc<AtomicBool>,
    deadline: tokio::time::Instant,
    choices: Vec<Choice>,
    keep_tokens: bool,
    include_stop: bool,
    ready: VecDeque<Output>,
    usage: Usage,
    started: Instant,
    ended: bool,
}

/// One answer on its way.
struct Choice {
    /// None after its end.
    text: Option<TextStream>,
    /// Tokens whose text is not certain yet, if they are wanted.
    tokens: Vec<Token>,
    /// Tokens of the answer.
    count: usize,
    /// When its last tokens came.
    last: Option<Instant>,
}

impl Answers {
    /// The next output; none after the last. A call that is given up loses nothing.
    pub async fn next(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.ready.pop_front() {
                return Some(output);
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.take(event),
                    None => self.fail(self.broken_off()),
                },
                () = tokio::time::sleep_until(self.deadline) => self.fail(self.too_slow()),
            }
        }
    }

    /// The outputs as a stream.
    pub fn stream(self) -> impl Stream<Item = Output> + Send {
        futures_util::stream::unfold(self, |mut answers| async move {
            answers.next().await.map(|output| (output, answers))
        })
    }

    fn broken_off(&self) -> ApiError {
        match self.overflow.load(Relaxed) {
            true => {
                let message = "the answer was cut off, because it was not read as fast as it was generated";
                ApiError::new(StatusCode::REQUEST_TIMEOUT, "slow_reader", message)
            }
            false => ApiError::unavailable("the server was shut down before the answer ended"),
        }
    }

    fn too_slow(&self) -> ApiError {
        let message = format!("the answer took longer than {} s", self.app.limits.timeout.as_secs());
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    fn fail(&mut self, error: ApiError) {
        self.ticket.cancel();
        self.ended = true;
        self.caller.record.failed(error.code);
        self.ready.push_back(Output::Failed(error));
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Prompt(logprobs) => self.ready.push_back(Output::Prompt(0, logprobs)),
            Event::Tokens { choice, tokens } => {
                self.time(choice);
                for token in tokens {
                    if let Err(error) = self.push(choice, token) {
                        return self.fail(ApiError::internal(error.to_string()));
                    }
                }
            }
            Event::Finished { choice, finish } => {
                if let Err(error) = self.finish(choice, finish) {
                    self.fail(ApiError::internal(error.to_string()));
                }
            }
            Event::Done(usage) => {
                self.usage.prompt = usage.prompt;
                self.usage.cached = usage.cached;
                self.usage.generated = self.choices.iter().map(|choice| choice.count).sum();
                self.usage.accepted = usage.accepted;
                self.usage.rejected = usage.drafted - usage.accepted;
                self.ended = true;
                self.caller.record.done(self.usage);
                self.ready.push_back(Output::Done(self.usage));
            }
            Event::Failed(error) => self.fail(error.into()),
        }
    }

    fn push(&mut self, index: usize, token: Token) -> anyhow::Result<()> {
        let Some(choice) = self.choices.get_mut(index) else { return Ok(()) };
        let Some(text) = &mut choice.text else { return Ok(()) };
        let piece = text.push(token.id)?;
        choice.count += 1;
        if self.keep_tokens {
            choice.tokens.push(token);
        }
        let stopped = piece.stop.is_some();
        self.give(index, piece.text, piece.stop);
        if stopped {
            self.ticket.cancel_choice(index);
        }
        Ok(())
    }

    /// Gives text that is certain, and the end if it was a stop string.
    fn give(&mut self, choice: usize, mut text: String, stop: Option<String>) {
        if let Some(stop) = stop.as_ref().filter(|_| self.include_stop) {
            text += stop;
        }
        let open = &mut self.choices[choice];
        if !text.is_empty() || (stop.is_some() && !open.tokens.is_empty()) {
            let tokens = std::mem::take(&mut open.tokens);
            self.ready.push_back(Output::Piece(Piece { choice, text, tokens }));
        }
        if let Some(stop) = stop {
            self.end(choice, Reason::Stop(stop));
        }
    }

    fn finish(&mut self, choice: usize, finish: Finish) -> anyhow::Result<()> {
        let Some(text) = self.choices.get_mut(choice).and_then(|choice| choice.text.as_mut()) else {
            return Ok(());
        };
        let piece = text.finish()?;
        let stop = piece.stop.clone();
        self.give(choice, piece.text, piece.stop);
        if stop.is_some() {
            return Ok(());
        }
        let tokens = std::mem::take(&mut self.choices[choice].tokens);
        if !tokens.is_empty() {
            self.ready.push_back(Output::Piece(Piece { choice, text: String::new(), tokens }));
        }
        let own = &self.app.text.defaults.eos_ids;
        self.end(
            choice,
            match finish {
                Finish::Stop(id) if !own.contains(&id) => Reason::StopId(id),
                Finish::Stop(_) | Finish::Complete => Reason::End,
                Finish::Length | Finish::Context => Reason::Length,
                Finish::Cancelled => Reason::Cancelled,
            },
        );
        Ok(())
    }

    fn end(&mut self, choice: usize, reason: Reason) {
        self.choices[choice].text = None;
        self.caller.record.finished(reason.openai());
        self.app.metrics.finished(reason.openai());
        self.ready.push_back(Output::Finished(choice, reason));
    }

    /// Takes the times of a choice's tokens.
    fn time(&mut self, choice: usize) {
        let Some(choice) = self.choices.get_mut(choice) else { return };
        let now = Instant::now();
        match choice.last.replace(now) {
            None => {
                let took = now - self.started;
                self.app.metrics.first_token(took);
                self.caller.record.first_token(took);
            }
            Some(last) => self.app.metrics.next_token(now - last),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if !self.ended {
            self.caller.record.failed("disconnected");
            self.app.metrics.finished("abort");
        }
        self.app.metrics.ended(self.started.elapsed());
    }
}
