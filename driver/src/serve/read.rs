//! The one door to the reader. An interface turns a request into [`Texts`] and gets a [`Pooled`] row for each.
//!
//! The reader never waits: rows are added up where they are computed, and the request is told once, at its end. Dropping
//! [`Texts::read`] before that cancels the request.

use super::body::{Fields, Kind, Row, row};
use super::error::ApiError;
use super::generate::Usage;
use super::record::Caller;
use super::state::App;
use crate::vectors::{self, Pooled};
use axum::http::StatusCode;
use sinter_frontend::tokenizer::Encoded;
use sinter_runtime::RuntimeError;
use sinter_runtime::reader::{Part, PartSink, Text};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Cuts texts that are too long, if the request says so.
pub const TRUNCATE: Row = row(
    "truncate_prompt_tokens",
    Kind::Int(-1, 1 << 31),
    "Cuts texts to so many tokens, -1 to as many as the model reads; without it, longer ones are refused.",
);

/// How many tokens a text may have, and whether it is cut to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Tokens of a text.
    pub most: usize,
    /// Whether what is longer is cut.
    pub cut: bool,
}

impl Length {
    /// As [`TRUNCATE`] says.
    pub fn of(app: &App, fields: &Fields) -> Result<Self, ApiError> {
        let most = app.model.context;
        match fields.int(TRUNCATE.name) {
            None => Ok(Self { most, cut: false }),
            Some(-1) => Ok(Self { most, cut: true }),
            Some(count) => match usize::try_from(count).ok().filter(|count| (1..=most).contains(count)) {
                Some(most) => Ok(Self { most, cut: true }),
                None => {
                    let message = format!("truncate_prompt_tokens is {count}, wanted -1 or 1 to {most}");
                    Err(fields.wrong(TRUNCATE.name, message))
                }
            },
        }
    }

    /// A text within these bounds; `place` is its name in the request.
    pub fn keep(self, app: &App, mut text: Encoded, place: &str) -> Result<Encoded, ApiError> {
        let (found, most) = (text.ids.len(), self.most);
        if found == 0 {
            return Err(ApiError::field(place, format!("{place} has no tokens")));
        }
        if self.cut {
            vectors::cut(&mut text.ids, most, &app.text.tokenizer);
            text.types.truncate(most);
        } else if found > most {
            let message = format!(
                "{place} has {found} tokens, this model reads {most} at most; truncate_prompt_tokens cuts texts"
            );
            return Err(ApiError { code: "context_length_exceeded", ..ApiError::field(place, message) });
        }
        Ok(text)
    }
}

/// Texts to be read.
#[derive(Debug, Clone, Default)]
pub struct Texts(pub Vec<Encoded>);

impl Texts {
    /// Tokens of all texts.
    pub fn tokens(&self) -> usize {
        self.0.iter().map(|text| text.ids.len()).sum()
    }

    /// Hands the texts to the reader and waits for what it makes of them.
    ///
    /// # Errors
    /// Too many texts wait, the server shuts down, a step fails, or it takes too long.
    pub async fn read(self, app: &Arc<App>, caller: &Caller) -> Result<Vec<Pooled>, ApiError> {
        let reading = app.reading()?;
        let (rows, mode) = reading.reads.rows();
        let (tokens, width) = (self.tokens(), reading.handle.width());
        let pooled = vec![Pooled::new(mode, width); self.0.len()];
        let text = |text: Encoded| Text { ids: text.ids, types: text.types, rows };
        let texts = self.0.into_iter().map(text).collect();
        caller.record.admitted(tokens);
        let (sender, answer) = oneshot::channel();
        // Dropping the ticket cancels.
        let _ticket = reading.handle.submit(texts, sink(pooled, sender))?;
        let mut watch =
            Watch { app: app.clone(), caller: caller.clone(), started: Instant::now(), end: None };
        let read = tokio::select! {
            read = answer => read.map_err(|_| RuntimeError::Stopped.into()).and_then(|read| Ok(read?)),
            () = tokio::time::sleep(app.limits.timeout) => Err(too_slow(app)),
        };
        watch.end = Some(read.as_ref().map(|_| tokens).map_err(|error: &ApiError| error.code));
        read
    }
}

/// Adds up rows, and sends what they come to at the end.
fn sink(mut pooled: Vec<Pooled>, sender: oneshot::Sender<Result<Vec<Pooled>, RuntimeError>>) -> PartSink {
    let mut sender = Some(sender);
    Box::new(move |part| {
        let result = match part {
            Part::Rows { text, rows } => {
                pooled[text].add(rows);
                return match sender.as_ref().is_some_and(|sender| !sender.is_closed()) {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                };
            }
            Part::Done => Ok(std::mem::take(&mut pooled)),
            Part::Failed(error) => Err(error.clone()),
        };
        if let Some(sender) = sender.take() {
            // A client that is gone wants nothing.
            let _ = sender.send(result);
        }
        ControlFlow::Continue(())
    })
}

fn too_slow(app: &App) -> ApiError {
    let message = format!("the answer took longer than {} s", app.limits.timeout.as_secs());
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
}

/// Tells record and metrics how a request ended, also if its client left.
struct Watch {
    app: Arc<App>,
    caller: Caller,
    started: Instant,
    /// The tokens that were read, or the code of the error.
    end: Option<Result<usize, &'static str>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let (record, metrics) = (&self.caller.record, &self.app.metrics);
        match self.end {
            Some(Ok(prompt)) => {
                record.done(Usage { prompt, ..Usage::default() });
                record.finished("stop");
                metrics.finished("stop");
            }
            Some(Err(code)) => record.failed(code),
            None => {
                record.failed("disconnected");
                metrics.finished("abort");
            }
        }
        metrics.ended(self.started.elapsed());
    }
}

/// A text as the model takes it, of token ids that the client gave.
pub fn of_ids(ids: Vec<u32>) -> Encoded {
    Encoded { types: vec![0; ids.len()], ids }
}
