//! Outputs as server-sent events.

use super::generate::Output;
use super::many::Outputs;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use std::convert::Infallible;
use std::time::Duration;

/// So long nothing is sent at most; proxies give up connections that are still.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An interface's way to tell outputs as events.
pub trait Render: Send + 'static {
    /// What is sent before the first output.
    fn begin(&mut self) -> Vec<Event>;
    /// What is sent for an output. The last is [`Output::Done`] or [`Output::Failed`].
    fn output(&mut self, output: Output) -> Vec<Event>;
}

/// An event whose data is JSON.
pub fn json(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

/// A response that sends outputs as they come. When the client is gone, the outputs are dropped.
pub fn respond(outputs: Outputs, mut render: impl Render) -> Response {
    let begin = stream::iter(render.begin());
    let rest = outputs.flat_map(move |output| stream::iter(render.output(output)));
    let events = begin.chain(rest).map(Ok::<_, Infallible>);
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Proxies that collect responses before they pass them on are asked not to.
    let headers = response.headers_mut();
    headers.insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}
