//! The client's side of an engine: any number of handles, on any thread.

use super::request::Bounds;
use super::stats::{Gauges, add, sub};
use super::{Event, Request, Sink, Stats};
use crate::RuntimeError;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The name of a request within its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What the owner thread is told.
pub(super) enum Message {
    Submit(RequestId, Box<Request>, Sink),
    Cancel(RequestId),
    CancelChoice(RequestId, usize),
    Stop,
}

/// Why a request was not accepted. Nothing of it is kept.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// It could never be served: a client's mistake.
    #[error("{0}")]
    Invalid(RuntimeError),
    /// Too many wait; it may be accepted later.
    #[error("{waiting} sequences of {tokens} tokens wait already")]
    Busy {
        /// Sequences that wait.
        waiting: u64,
        /// Their tokens.
        tokens: u64,
    },
    /// The engine takes no more requests.
    #[error("the engine takes no more requests")]
    Closed,
}

/// What an engine accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Token ids are below this.
    pub vocab: usize,
    /// Tokens of prompt and answer together that one sequence can have in the cache.
    pub capacity: usize,
    /// Sequences that may wait.
    pub max_waiting: u64,
    /// Tokens of prompts that may wait.
    pub max_waiting_tokens: u64,
    /// The largest parameters of a request.
    pub bounds: Bounds,
}

/// Sends requests to an engine's owner thread. The thread ends when the last handle is gone.
#[derive(Clone)]
pub struct EngineHandle {
    sender: Sender<Message>,
    gauges: Arc<Gauges>,
    next: Arc<AtomicU64>,
    admission: Admission,
}

impl EngineHandle {
    pub(super) fn new(sender: Sender<Message>, gauges: Arc<Gauges>, admission: Admission) -> Self {
        Self { sender, gauges, next: Arc::default(), admission }
    }

    /// Sends a request and gives its events. Dropping them cancels the request.
    pub fn submit(&self, request: Request) -> Result<Events, Refusal> {
        let (sender, receiver) = channel();
        let forward = move |event| match sender.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        Ok(Events { ticket: self.submit_to(request, Box::new(forward))?, receiver })
    }

    /// Sends a request whose events go to `sink`. Dropping the ticket cancels the request.
    pub fn submit_to(&self, request: Request, sink: Sink) -> Result<Ticket, Refusal> {
        let admission = &self.admission;
        request.check(admission.vocab, admission.capacity, &admission.bounds).map_err(Refusal::Invalid)?;
        if self.gauges.closed.load(Relaxed) {
            return Err(Refusal::Closed);
        }
        let (sequences, tokens) = (request.n, request.prompt.len());
        let (waiting, waiting_tokens) =
            (self.gauges.waiting.load(Relaxed), self.gauges.waiting_tokens.load(Relaxed));
        if waiting >= admission.max_waiting || waiting_tokens >= admission.max_waiting_tokens {
            return Err(Refusal::Busy { waiting, tokens: waiting_tokens });
        }
        // Counted before the owner thread knows of it, so that an engine with a message on its way is not drained.
        add(&self.gauges.requests, 1);
        add(&self.gauges.waiting, sequences);
        add(&self.gauges.waiting_tokens, sequences * tokens);
        add(&self.gauges.tokens_in, tokens);
        let id = RequestId(self.next.fetch_add(1, Relaxed));
        if self.sender.send(Message::Submit(id, Box::new(request), sink)).is_err() {
            add(&self.gauges.finished, 1);
            sub(&self.gauges.waiting, sequences);
            sub(&self.gauges.waiting_tokens, sequences * tokens);
            return Err(Refusal::Closed);
        }
        Ok(Ticket { id, sender: self.sender.clone() })
    }

    /// The numbers of the moment.
    pub fn stats(&self) -> Stats {
        self.gauges.read()
    }

    /// What the engine accepts.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Refuses new requests from now on; those that were accepted go on. The engine is drained when
    /// [`Stats::finished`] equals [`Stats::requests`].
    pub fn close(&self) {
        self.gauges.closed.store(true, Relaxed);
    }

    /// Refuses new requests, cancels those that were accepted, and ends the owner thread.
    pub fn stop(&self) {
        self.close();
        // If nobody listens any more, it has stopped.
        let _ = self.sender.send(Message::Stop);
    }
}

/// A request that was accepted. Dropping it cancels the request; after the last event that does nothing.
pub struct Ticket {
    id: RequestId,
    sender: Sender<Message>,
}

impl Ticket {
    /// The request's name.
    pub fn id(&self) -> RequestId {
        self.id
    }
    /// Cancels the request: its pages are free before the next step begins. What was generated is kept, and the
    /// choices that had not ended end with [`Finish::Cancelled`](crate::Finish::Cancelled).
    pub fn cancel(&self) {
        // If nobody listens any more, there is nothing to cancel.
        let _ = self.sender.send(Message::Cancel(self.id));
    }
    /// Cancels one choice, and the request with its last; what has ended already is left alone.
    pub fn cancel_choice(&self, choice: usize) {
        // If nobody listens any more, there is nothing to cancel.
        let _ = self.sender.send(Message::CancelChoice(self.id, choice));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The events of a request, as they come: the iterator ends after the last.
pub struct Events {
    ticket: Ticket,
    receiver: Receiver<Event>,
}

impl Events {
    /// The request.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.receiver.recv().ok()
    }
}
