//! Whether the server lives, works, and may be asked.

use super::error::ApiError;
use super::state::App;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /live` and `/ping`: the process answers.
pub async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /health`: the engine works, or could at once.
///
/// It turns red when the owner thread is gone, when it showed no life although it has work for longer than
/// [`stalled_after`](super::state::ServeLimits::stalled_after), and while the server shuts down.
pub async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    check(&app)?;
    Ok(Json(json!({ "status": "ok" })))
}

/// `GET /version`
pub async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// Why nobody should ask, if so.
pub fn check(app: &App) -> Result<(), ApiError> {
    if app.phase.draining() {
        return Err(ApiError::unavailable("the server is shutting down"));
    }
    let stats = app.work().stats();
    if stats.stopped {
        return Err(ApiError::unavailable("the engine has stopped"));
    }
    // A thread without work shows life too, so a long silence means the same with and without work.
    let (silent, most) = (stats.since_progress, app.limits.stalled_after);
    if silent > most {
        let seconds = silent.as_secs_f64();
        return Err(ApiError::unavailable(format!("the engine has made no progress for {seconds:.1} s")));
    }
    Ok(())
}
