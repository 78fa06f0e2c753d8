//! Errors in Anthropic's shape.

use crate::serve::error::ApiError;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

/// Where Anthropic's interface begins.
const PATH: &str = "/v1/messages";

/// The value that is told.
pub fn value(error: &ApiError, id: Option<&str>) -> Value {
    let kind = match error.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 | 405 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    let message = match &error.param {
        Some(param) if !error.message.contains(param.as_str()) => format!("{param}: {}", error.message),
        _ => error.message.clone(),
    };
    json!({ "type": "error", "error": { "type": kind, "message": message }, "request_id": id })
}

/// Renders errors of this interface's paths anew, whoever made them.
pub async fn reshape(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let mine = path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut response = next.run(request).await;
    if !mine {
        return response;
    }
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok());
    let mut shaped = error.with_body(&value(&error, id));
    for name in ["x-request-id", "request-id"] {
        if let Some(id) = response.headers().get("x-request-id") {
            shaped.headers_mut().insert(name, id.clone());
        }
    }
    shaped
}
