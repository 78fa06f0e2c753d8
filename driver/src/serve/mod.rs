//! `sinter serve`: the engine behind HTTP.
//!
//! A request goes through these rooms, in this order:
//!
//! ```text
//! connection ─▶ router::guard ─▶ JsonBody ─▶ Fields ─▶ conversation, sampling, structured ─▶ Generation
//!               id, key, log     limits      tables     ids, parameters, grammar                │ start
//!                                                                                               ▼
//! connection ◀─ sse or JSON ◀─ openai::chat_answer ◀─ tools ◀─ Output ◀─ Answers ◀─ events ◀─ EngineHandle
//!                              the interface's shape   meaning  text, stop strings, usage      one thread
//! ```
//!
//! - [`state::App`] is what all requests share. It never changes; what counts, counts in atomic numbers.
//! - [`generate::Generation`] is the one door to the engine, and knows no interface. [`many`] makes several generations
//!   one, [`sse`] sends outputs as events. An interface is a room of its own, such as [`openai`]: it turns bodies into
//!   generations and outputs into its shapes, and nothing else.
//! - A model that writes no text has [`read::Texts`] for its door, and a reader for its engine: vectors
//!   ([`openai::embeddings`]) and [`scores`]. [`work`] knows which of the two is served, and keeps the paths of the other shut.
//! - [`body`] has the rule for fields: what is in no table is refused by name. Nothing that could change an answer is
//!   passed over in silence.
//! - [`error::ApiError`] is every reason not to answer. A client's mistake is never a 5xx.
//! - [`health`], [`metrics`] and [`loads`] tell what the engine's numbers say; the engine's thread writes them and waits
//!   for nobody.
//! - [`record`] remembers a request until its line in the log, and [`trace`] makes a span of that for a collector.
//! - [`shutdown`] ends what runs before the process ends.
//!
//! Invariant: nothing here waits for the engine on a thread of the server, and the engine waits for no reader. What
//! takes time (templates, tokenizing, grammars) runs in [`state::App::aside`].
//!
//! Invariant: the request decides its answer. Neither company nor the interface changes a bit of it.

pub mod error;

pub mod auth;
pub mod base64;
pub mod body;
pub mod inputs;
pub mod log;
pub mod record;
pub mod state;
pub mod trace;
pub mod work;

pub mod conversation;
pub mod generate;
pub mod many;
pub mod read;
pub mod sampling;
pub mod sse;
pub mod structured;
pub mod tools;

pub mod anthropic;
pub mod openai;
pub mod responses;
pub mod scores;
pub mod tokens;

pub mod health;
pub mod loads;
pub mod metrics;
pub mod page;

pub mod sizing;

pub mod connection;
pub mod openapi;
pub mod router;
pub mod routes;
pub mod shutdown;

#[cfg(test)]
mod tests;

use anyhow::{Context, Result};
use state::App;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Threads that read and write connections. The model's threads have the cores.
const HTTP_THREADS: usize = 2;
/// Threads for what takes its time.
const WORKERS_MAX: usize = 16;

/// Serves until a signal ends it; `ready` is told the address.
pub fn run(
    app: Arc<App>,
    address: SocketAddr,
    grace: Duration,
    ready: impl FnOnce(SocketAddr),
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .max_blocking_threads(WORKERS_MAX)
        .thread_name("sinter-http")
        .enable_all()
        .build()
        .context("cannot start the threads of the server")?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen at {address}"))?;
        let signals = shutdown::Signals::new().context("cannot wait for signals")?;
        ready(listener.local_addr()?);
        let over = shutdown::drained(app.clone(), signals, grace);
        connection::serve(listener, router::router(app), over).await
    });
    // What is still at work has nobody to tell its result to.
    runtime.shutdown_background();
    served
}
