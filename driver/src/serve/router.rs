//! Which path leads where, and what stands before all of them.
//!
//! Every path but those of [`OPEN`] wants a key, if there is one: a path that is added is guarded without further doing.

use super::anthropic;
use super::error::ApiError;
use super::record::{Caller, Record};
use super::routes::{Route, routes};
use super::sampling::random;
use super::state::App;
use super::work;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Paths that want no key: whoever watches over processes has none, and the page asks for it.
pub const OPEN: &[&str] = &["/live", "/livez", "/ping", "/health", "/healthz", "/ready", "/readyz", "/"];

/// The paths of [`routes`].
pub fn router(app: Arc<App>) -> Router {
    let add = |router: Router<Arc<App>>, route: Route| {
        let handler = match route.task {
            Some(task) => route.handler.route_layer(from_fn_with_state((app.clone(), task), work::guard)),
            None => route.handler,
        };
        router.route(route.path, handler)
    };
    let router = routes().into_iter().fold(Router::new(), add);
    router
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(app.clone(), guard))
        .layer(from_fn(anthropic::error::reshape))
        .with_state(app)
}

async fn no_path(request: Request) -> ApiError {
    let message = format!("there is no {}", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn no_method(request: Request) -> ApiError {
    let message = format!("{} cannot be asked with {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// Stands before every path: gives the request its id, asks for the key, counts the response, and turns a panic of a
/// handler into an error of that request alone.
async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id: Arc<str> = request_id(&request).into();
    let what = format!("{} {}", request.method(), request.uri().path());
    let traces = app.traces.as_ref();
    let span =
        traces.and_then(|traces| traces.begin(request.method(), request.uri().path(), request.headers()));
    let record = Arc::new(Record::new(app.log, id.clone(), what).with_span(span));
    let caller = Caller { id: id.clone(), record: record.clone() };
    let open = OPEN.contains(&request.uri().path());
    request.extensions_mut().insert(caller);
    let mut response = if open || app.keys.accept(request.headers()) {
        let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        answered.unwrap_or_else(|_| {
            ApiError::internal("this is a bug in sinter, please report it").into_response()
        })
    } else {
        let message = "no valid key: send it as Authorization: Bearer KEY, or as x-api-key";
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).into_response()
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    record.status(response.status().as_u16());
    app.metrics.response(response.status().as_u16());
    response
}

/// The client's id, if it is one that can be told back and logged, or a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    let good = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(good).map_or_else(|| format!("req-{:016x}", random()), str::to_owned)
}
