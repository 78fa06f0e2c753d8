//! The client's side of a reader: any number of handles, on any thread.

use super::{PartSink, Text};
use crate::RuntimeError;
use crate::engine::{Gauges, Refusal, RequestId, Stats, add, sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;

/// What the owner thread is told.
pub(super) enum Message {
    Submit(RequestId, Vec<Text>, PartSink),
    Cancel(RequestId),
    Stop,
}

/// What a reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderAdmission {
    /// Token ids are below this.
    pub vocab: usize,
    /// Tokens of a text.
    pub capacity: usize,
    /// Requests that may be on their way.
    pub max_requests: u64,
    /// Tokens of texts that may wait.
    pub max_waiting_tokens: u64,
}

/// Sends texts to a reader's owner thread. The thread ends when the last handle is gone.
#[derive(Clone)]
pub struct ReaderHandle {
    sender: Sender<Message>,
    gauges: Arc<Gauges>,
    next: Arc<AtomicU64>,
    admission: ReaderAdmission,
    width: usize,
}

impl ReaderHandle {
    pub(super) fn new(
        sender: Sender<Message>,
        gauges: Arc<Gauges>,
        admission: ReaderAdmission,
        width: usize,
    ) -> Self {
        Self { sender, gauges, next: Arc::default(), admission, width }
    }

    /// Sends the texts of a request, whose rows go to `sink`. Dropping the ticket cancels the request.
    pub fn submit(&self, texts: Vec<Text>, sink: PartSink) -> Result<ReaderTicket, Refusal> {
        let admission = &self.admission;
        if texts.is_empty() {
            return Err(Refusal::Invalid(RuntimeError::Parameter("there is no text".into())));
        }
        let check = |text: &Text| text.check(admission.vocab, admission.capacity);
        texts.iter().try_for_each(check).map_err(Refusal::Invalid)?;
        if self.gauges.closed.load(Relaxed) {
            return Err(Refusal::Closed);
        }
        let (count, tokens) = (texts.len(), texts.iter().map(|text| text.ids.len()).sum());
        let (gauges, waiting_tokens) = (&self.gauges, self.gauges.waiting_tokens.load(Relaxed));
        // Requests, not texts: one of many texts shuts nobody out, as they take turns.
        let open = gauges.requests.load(Relaxed).saturating_sub(gauges.finished.load(Relaxed));
        if open >= admission.max_requests || waiting_tokens >= admission.max_waiting_tokens {
            return Err(Refusal::Busy { waiting: gauges.waiting.load(Relaxed), tokens: waiting_tokens });
        }
        // Counted before the owner thread knows of it, so that a reader with a message on its way is not drained.
        add(&self.gauges.requests, 1);
        add(&self.gauges.waiting, count);
        add(&self.gauges.waiting_tokens, tokens);
        add(&self.gauges.tokens_in, tokens);
        let id = RequestId(self.next.fetch_add(1, Relaxed));
        if self.sender.send(Message::Submit(id, texts, sink)).is_err() {
            add(&self.gauges.finished, 1);
            sub(&self.gauges.waiting, count);
            sub(&self.gauges.waiting_tokens, tokens);
            return Err(Refusal::Closed);
        }
        Ok(ReaderTicket { id, sender: self.sender.clone() })
    }

    /// The numbers of the moment: of texts where an engine counts sequences.
    pub fn stats(&self) -> Stats {
        self.gauges.read()
    }

    /// What the reader accepts.
    pub fn admission(&self) -> &ReaderAdmission {
        &self.admission
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Refuses new requests from now on; those that were accepted go on. The reader is drained when
    /// [`Stats::finished`] equals [`Stats::requests`].
    pub fn close(&self) {
        self.gauges.closed.store(true, Relaxed);
    }

    /// Refuses new requests, ends those that were accepted with an error, and ends the owner thread.
    pub fn stop(&self) {
        self.close();
        // If nobody listens any more, it has stopped.
        let _ = self.sender.send(Message::Stop);
    }
}

/// A request that was accepted. Dropping it cancels the request; after its end that does nothing.
pub struct ReaderTicket {
    id: RequestId,
    sender: Sender<Message>,
}

impl Drop for ReaderTicket {
    fn drop(&mut self) {
        // If nobody listens any more, there is nothing to cancel.
        let _ = self.sender.send(Message::Cancel(self.id));
    }
}
