//! Who answers: an engine that writes texts, or a reader that makes vectors or scores of them.

use super::error::ApiError;
use super::state::App;
use crate::vectors;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sinter_frontend::pooling::{Pooling, PoolingMode};
use sinter_frontend::scoring::Scoring;
use sinter_runtime::Rows;
use sinter_runtime::engine::{EngineHandle, Stats};
use sinter_runtime::reader::ReaderHandle;
use std::sync::Arc;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// It continues texts.
    Writes,
    /// It makes vectors of texts.
    Vectors,
    /// It scores texts, or pairs of them.
    Scores,
}

impl Task {
    /// What a model of this task does, in words.
    pub fn words(self) -> &'static str {
        match self {
            Task::Writes => "writes texts",
            Task::Vectors => "makes vectors of texts",
            Task::Scores => "scores texts",
        }
    }
}

/// What becomes of the rows of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reads {
    /// One vector.
    Vectors(Pooling),
    /// Scores.
    Scores(Scoring),
}

impl Reads {
    /// The rows that are read, and how they are put together.
    pub fn rows(&self) -> (Rows, PoolingMode) {
        match self {
            Reads::Vectors(pooling) => (vectors::rows(pooling.mode), pooling.mode),
            Reads::Scores(_) => (Rows::First, PoolingMode::Cls),
        }
    }
}

/// A model that reads, and what for.
#[derive(Clone)]
pub struct Reading {
    /// The reader.
    pub handle: ReaderHandle,
    /// What becomes of its rows.
    pub reads: Reads,
}

/// Who answers.
#[derive(Clone)]
pub enum Work {
    /// An engine.
    Writer(EngineHandle),
    /// A reader.
    Reader(Reading),
}

impl Work {
    /// What the model is for.
    pub fn task(&self) -> Task {
        match self {
            Work::Writer(_) => Task::Writes,
            Work::Reader(Reading { reads: Reads::Vectors(_), .. }) => Task::Vectors,
            Work::Reader(Reading { reads: Reads::Scores(_), .. }) => Task::Scores,
        }
    }
    /// The numbers of the moment.
    pub fn stats(&self) -> Stats {
        match self {
            Work::Writer(engine) => engine.stats(),
            Work::Reader(reading) => reading.handle.stats(),
        }
    }
    /// Sequences that may wait, or requests that may be on their way to a reader; and tokens that may wait.
    pub fn queue(&self) -> (u64, u64) {
        match self {
            Work::Writer(engine) => (engine.admission().max_waiting, engine.admission().max_waiting_tokens),
            Work::Reader(reading) => {
                let admission = reading.handle.admission();
                (admission.max_requests, admission.max_waiting_tokens)
            }
        }
    }
    /// Refuses what is new from now on.
    pub fn close(&self) {
        match self {
            Work::Writer(engine) => engine.close(),
            Work::Reader(reading) => reading.handle.close(),
        }
    }
    /// Refuses what is new, and ends what runs.
    pub fn stop(&self) {
        match self {
            Work::Writer(engine) => engine.stop(),
            Work::Reader(reading) => reading.handle.stop(),
        }
    }
}

/// Refuses what the served model is not for.
fn refused(app: &App, path: &str, wanted: Task) -> ApiError {
    let (name, found, wanted) = (&app.model.names[0], app.work().task().words(), wanted.words());
    let message = format!("{name:?} {found}; {path} is for a model that {wanted}");
    let error = ApiError::new(StatusCode::BAD_REQUEST, "unsupported_model", message);
    ApiError { param: Some("model".into()), ..error }
}

/// Stands before the paths of a task.
pub async fn guard(State((app, wanted)): State<(Arc<App>, Task)>, request: Request, next: Next) -> Response {
    match app.work().task() == wanted {
        true => next.run(request).await,
        false => refused(&app, request.uri().path(), wanted).into_response(),
    }
}

impl App {
    /// The engine.
    ///
    /// # Errors
    /// The model does not write.
    pub fn engine(&self) -> Result<&EngineHandle, ApiError> {
        match self.work() {
            Work::Writer(engine) => Ok(engine),
            Work::Reader(_) => Err(refused(self, "this path", Task::Writes)),
        }
    }
    /// The reader.
    ///
    /// # Errors
    /// The model does not read.
    pub fn reading(&self) -> Result<&Reading, ApiError> {
        match self.work() {
            Work::Reader(reading) => Ok(reading),
            Work::Writer(_) => Err(refused(self, "this path", Task::Vectors)),
        }
    }
    /// How rows become vectors.
    ///
    /// # Errors
    /// The model makes none.
    pub fn pooling(&self) -> Result<Pooling, ApiError> {
        match self.work() {
            Work::Reader(Reading { reads: Reads::Vectors(pooling), .. }) => Ok(*pooling),
            Work::Reader(_) | Work::Writer(_) => Err(refused(self, "this path", Task::Vectors)),
        }
    }
    /// What scores mean.
    ///
    /// # Errors
    /// The model gives none.
    pub fn scoring(&self) -> Result<&Scoring, ApiError> {
        match self.work() {
            Work::Reader(Reading { reads: Reads::Scores(scoring), .. }) => Ok(scoring),
            Work::Reader(_) | Work::Writer(_) => Err(refused(self, "this path", Task::Scores)),
        }
    }
}
