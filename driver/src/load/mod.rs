//! `sinter bench MODEL serve`: requests as many clients send them, and what they saw.
//!
//! ```text
//! Options ─▶ arrivals (when), prompts (what) ─▶ client (one request, its stamps) ─▶ statistics ─▶ report, plot
//!                                                    ▲                    │
//!                                        url or child (a server)          └─▶ check: asked again alone, the same bits
//! ```
//!
//! - [`arrivals`] and [`prompts`] are functions of the seed: two runs send the same requests, and with a rate at the same
//!   times.
//! - [`client`] speaks `/v1/completions` with token ids and events, so that no tokenizer is needed and any server of that
//!   interface can be loaded. It knows nothing of the engine.
//! - [`statistics`] is arithmetic on stamps. The words are those of the field: TTFT is the time to the first token, E2E
//!   that to the last, TPOT the mean time of each later token of a request, ITL each single gap between events.
//! - A request that fails is counted and its reason told; it has no part in the times.
//! - The check beside the speed: some of the answers are asked for again, one at a time, and text, number of tokens and
//!   log probabilities must be the same to the last bit.

pub mod options;

pub mod arrivals;
pub mod prompts;

pub mod child;
pub mod client;

pub mod statistics;

pub mod plot;
pub mod report;

pub mod run;

#[cfg(test)]
mod mock;
