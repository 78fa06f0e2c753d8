//! `GET /v1/models` and `/v1/models/{name}`

use crate::serve::error::ApiError;
use crate::serve::state::App;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use std::sync::Arc;

/// All names of the model.
pub async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    let all: Vec<Value> = app.model.names.iter().map(|name| one(&app, name)).collect();
    Json(json!({ "object": "list", "data": all }))
}

/// One name; names may have slashes.
pub async fn get(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    app.check_model(Some(&name))?;
    Ok(Json(one(&app, &name)))
}

fn one(app: &App, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": app.model.created,
        "owned_by": "sinter",
        "root": app.model.names[0],
        "parent": null,
        "max_model_len": app.model.context,
    })
}
