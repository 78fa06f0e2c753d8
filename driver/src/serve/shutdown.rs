//! The end of a server: what runs is finished, nothing new is begun, and nobody waits for ever.
//!
//! On SIGTERM or ctrl-c `/health` turns 503 and new generations are refused, so that routers turn away; what runs goes
//! on up to the grace time and is cancelled then. A second signal ends the process at once.

use super::state::App;
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
}

/// How often it is looked whether all has ended.
const LOOK: Duration = Duration::from_millis(20);
/// So long cancelled streams have to tell their clients.
const FAREWELL: Duration = Duration::from_secs(1);

/// Waits for a signal, then for the end of all that runs.
pub async fn drained(app: Arc<App>, grace: Duration) -> std::io::Result<()> {
    signal().await?;
    eprintln!("note: shutting down; what runs has {} s to end, a second signal ends it now", grace.as_secs());
    app.phase.draining.store(true, Relaxed);
    if let Ok(engine) = app.engine() {
        engine.close();
        let ended = async {
            while engine.stats().finished < engine.stats().requests {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(grace) => eprintln!("note: the time is over, what still runs is cancelled"),
            again = signal() => {
                again?;
                // Exit code of a process that a signal ended, as shells count.
                std::process::exit(130);
            }
        }
        engine.stop();
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// So long connections may take to close after [`drained`].
pub fn farewell() -> Duration {
    FAREWELL
}

/// The next SIGTERM or ctrl-c.
async fn signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = term.recv() => Ok(()),
            done = tokio::signal::ctrl_c() => done,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
