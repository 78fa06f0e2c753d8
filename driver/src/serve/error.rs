//! What a client is told when a request is not answered: one value, of which each interface shows its own rendering.
//!
//! A client's mistake is never a 5xx, and no message speaks of paths, keys or other requests.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sinter_runtime::RuntimeError;
use sinter_runtime::engine::Refusal;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The status of the response.
    pub status: StatusCode,
    /// A word for programs, such as `context_length_exceeded`.
    pub code: &'static str,
    /// The field that is wrong, as in `messages[0].content`.
    pub param: Option<String>,
    /// A sentence for people: what was wanted, what was found.
    pub message: String,
    /// Seconds after which it may be worth to try again.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error of a status, with a word for programs.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, param: None, message: message.into(), retry_after: None }
    }
    /// A field of the request that cannot be served as it is.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_value", message);
        Self { param: Some(param.into()), ..error }
    }
    /// A request that cannot be served as it is, for a reason that is no single field.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }
    /// No such model.
    pub fn no_model(name: &str, served: &str) -> Self {
        let message = format!("the model {name:?} is not served here; served is {served:?}");
        let error = Self::new(StatusCode::NOT_FOUND, "model_not_found", message);
        Self { param: Some("model".into()), ..error }
    }
    /// The server is not able to answer now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        Self { retry_after: Some(5), ..error }
    }
    /// Something in the server is broken.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The kind of the error in OpenAI's words.
    pub fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "service_unavailable_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// OpenAI's shape: the object that stands under `error`.
    pub fn openai(&self) -> Value {
        json!({ "error": {
            "message": self.message,
            "type": self.kind(),
            "param": self.param,
            "code": self.code,
        } })
    }

    /// A response with this error in a body of the caller's making.
    pub fn with_body(&self, body: &Value) -> Response {
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.with_body(&self.openai());
        // Whoever speaks another dialect renders the value anew.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Invalid(_) => ApiError::bad_request(message),
            Refusal::Busy { .. } => {
                let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
                ApiError { retry_after: Some(1), ..error }
            }
            Refusal::Closed => ApiError::unavailable("the server is shutting down"),
        }
    }
}

impl From<RuntimeError> for ApiError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Parameter(_) | RuntimeError::Constraint(_) => {
                ApiError::bad_request(error.to_string())
            }
            RuntimeError::Stopped => {
                ApiError::unavailable("the server was shut down before the answer ended")
            }
            other => ApiError::internal(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_shape_that_clients_parse() {
        let error = ApiError::field("n", "n is 0, wanted 1 to 16");
        let wanted = json!({ "error": {
            "message": "n is 0, wanted 1 to 16", "type": "invalid_request_error", "param": "n", "code": "invalid_value",
        } });
        assert_eq!(error.openai(), wanted);
        let busy = ApiError::from(Refusal::Busy { waiting: 3, tokens: 9 }).into_response();
        assert_eq!((busy.status().as_u16(), busy.headers()["retry-after"].to_str().unwrap()), (429, "1"));
        assert_eq!(ApiError::from(Refusal::Closed).status.as_u16(), 503);
        let mine = RuntimeError::Parameter("no".into());
        assert_eq!(ApiError::from(Refusal::Invalid(mine)).status.as_u16(), 400);
    }
}
