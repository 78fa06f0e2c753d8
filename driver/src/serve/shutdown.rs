//! The end of a server: what runs is finished, nothing new is begun, and nobody waits for ever.
//!
//! On SIGTERM or ctrl-c `/health` turns 503 and new generations are refused, so that routers turn away; what runs goes
//! on up to the grace time and is cancelled then. A second signal ends the process at once.

use super::state::App;
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Whether the server is up or drains.
#[derive(Debug, Default)]
pub struct Phase {
    draining: AtomicBool,
}

impl Phase {
    /// Whether nothing new is begun.
    pub fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
    /// Nothing new is begun from now on.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }
}

/// How often it is looked whether all has ended.
const LOOK: Duration = Duration::from_millis(20);
/// The exit code of a process that ctrl-c ended, as shells count.
const INTERRUPTED: i32 = 130;

/// Waits for a signal, then for the end of all that runs, but not longer than `grace`. What still runs then is told so.
pub async fn drained(app: Arc<App>, mut signals: Signals, grace: Duration) {
    signals.next().await;
    eprintln!("note: shutting down; what runs has {} s to end, a second signal ends it now", grace.as_secs());
    app.phase.drain();
    let work = app.work();
    work.close();
    let ended = async {
        while work.stats().finished < work.stats().requests {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = ended => {}
        () = tokio::time::sleep(grace) => eprintln!("note: the time is over, what still runs is cancelled"),
        () = signals.next() => std::process::exit(INTERRUPTED),
    }
    work.stop();
}

/// SIGTERM and ctrl-c, from the moment this is made.
pub struct Signals {
    #[cfg(unix)]
    streams: [tokio::signal::unix::Signal; 2],
}

impl Signals {
    /// Takes the signals; before this, they end the process.
    pub fn new() -> Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { streams: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?] })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next.
    async fn next(&mut self) {
        #[cfg(unix)]
        {
            let [term, interrupt] = &mut self.streams;
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        #[cfg(not(unix))]
        {
            // Without a handler there is nothing to wait for, and the system ends the process.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
