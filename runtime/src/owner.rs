//! What the threads that own a model have in common: how they start, and how they wait for messages.

use crate::RuntimeError;
use crate::engine::Gauges;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a thread without work shows that it lives.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// Nobody has a handle any more.
pub(crate) struct Deserted;

/// Starts the thread of an `engine` or a `reader`.
pub(crate) fn start(
    what: &str,
    serve: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, RuntimeError> {
    let thread = std::thread::Builder::new().name(format!("sinter-{what}"));
    let thread = thread.spawn(serve);
    thread.map_err(|error| RuntimeError::Load(format!("no thread for the {what}: {error}")))
}

/// The next message, if one has come. Who is idle waits for it, a heartbeat long at most.
pub(crate) fn next<M>(messages: &Receiver<M>, idle: bool, gauges: &Gauges) -> Result<Option<M>, Deserted> {
    if !idle {
        return match messages.try_recv() {
            Ok(message) => Ok(Some(message)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Deserted),
        };
    }
    gauges.alive();
    match messages.recv_timeout(HEARTBEAT) {
        Ok(message) => Ok(Some(message)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(Deserted),
    }
}
