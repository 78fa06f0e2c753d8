//! Traces: one span for each request that wants a text or a vector of the model, sent to an OpenTelemetry collector. The
//! conventions have no operation for scores, and those get no spans.
//!
//! A span is made when its request is over, of what the [`Record`](super::record::Record) remembers, so that a request pays
//! nothing while it runs. Spans wait in a bounded queue for a thread of their own; where the collector does not keep up or
//! is not there, they are dropped, and nobody waits. Names of attributes are those of the semantic conventions for generative
//! models (opentelemetry.io/docs/specs/semconv/gen-ai); the times have the names that other servers gave them. No
//! attribute holds a prompt, an answer or a key.

mod collector;
mod parent;

use super::generate::{Generation, Usage};
use super::sampling::random;
use crate::UsageError;
use crate::output::Output;
use anyhow::{Context, Result};
use axum::http::{HeaderMap, Method, Uri};
use collector::Collector;
use parent::Parent;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// So long the last spans have to reach the collector when the server ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Characters of a client's text that an attribute holds.
const LONGEST: usize = 128;

/// The paths whose requests have spans, with the operation in the words of the conventions.
const OPERATIONS: &[(&str, &str)] = &[
    ("/v1/chat/completions", "chat"),
    ("/v1/responses", "chat"),
    ("/v1/messages", "chat"),
    ("/v1/completions", "text_completion"),
    ("/v1/embeddings", "embeddings"),
];

/// What a kind of span is called in OTLP (`SPAN_KIND_SERVER`).
const SERVER: u8 = 2;
/// What a status is called in OTLP (`STATUS_CODE_ERROR`).
const ERROR: u8 = 2;

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Traces {
    collector: Collector,
}

impl Traces {
    /// Spans go to the collector at this address, such as `http://127.0.0.1:4318`, to the path `/v1/traces` below it.
    ///
    /// # Errors
    /// The address is none that spans can be sent to.
    pub fn open(endpoint: &str, output: Output) -> Result<Self> {
        let address = endpoint.trim_end_matches('/');
        if !address.parse::<Uri>().is_ok_and(|uri| is_plain(&uri)) {
            let words = format!(
                "--otlp-endpoint {endpoint}: wanted http://HOST:PORT; for TLS put a collector beside the server"
            );
            return Err(UsageError(words).into());
        }
        let collector = Collector::open(format!("{address}/v1/traces"), output);
        Ok(Self { collector: collector.context("no thread for traces")? })
    }

    /// The span of a request that begins now, if it is one that gets a span.
    pub fn begin(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Open> {
        let (path, operation) = OPERATIONS.iter().find(|(known, _)| *known == path)?;
        let parent = Parent::of(headers);
        (method == Method::POST && parent.sampled).then(|| Open {
            collector: self.collector.clone(),
            parent,
            began: SystemTime::now(),
            path,
            operation,
            asked: Vec::new(),
        })
    }

    /// Sends what waits, but not for long.
    pub fn close(&self) {
        self.collector.close(FAREWELL);
    }
}

/// Whether an address is `http://HOST`, with or without a port and a path. A port that is no number would be taken for 80, and
/// a name or a query would be lost.
fn is_plain(uri: &Uri) -> bool {
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return false };
    let own = uri.port_u16().map_or(host.to_owned(), |port| format!("{host}:{port}"));
    let whole = uri.authority().is_some_and(|authority| authority.as_str() == own);
    uri.scheme_str() == Some("http") && whole && uri.query().is_none()
}

/// The span of a request that has not ended.
#[derive(Debug)]
pub struct Open {
    collector: Collector,
    parent: Parent,
    began: SystemTime,
    path: &'static str,
    operation: &'static str,
    asked: Attributes,
}

/// Names and values.
type Attributes = Vec<(&'static str, Value)>;

/// What came of a request.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// The request's id.
    pub id: &'a str,
    /// The status of the response.
    pub status: u16,
    /// Tokens, if an answer was begun.
    pub usage: Option<Usage>,
    /// From the start of the first generation to its first token.
    pub first: Option<Duration>,
    /// Why each answer ended.
    pub finish: &'a [&'static str],
    /// Why an answer failed.
    pub error: Option<&'static str>,
}

impl Open {
    /// The model that the request names.
    pub fn model(&mut self, name: &str) {
        let name: String = name.chars().take(LONGEST).collect();
        self.asked.push(("gen_ai.request.model", json!(name)));
    }

    /// What the request asks for, as it reaches the engine; of several generations the first counts.
    pub fn generation(&mut self, model: &str, wanted: &Generation) {
        let has = |asked: &Attributes, wanted: &str| asked.iter().any(|(name, _)| *name == wanted);
        if has(&self.asked, "gen_ai.response.model") {
            return;
        }
        if !has(&self.asked, "gen_ai.request.model") {
            self.model(model);
        }
        let sampling = &wanted.sampling;
        self.asked.extend([
            ("gen_ai.response.model", json!(model)),
            ("gen_ai.request.temperature", json!(sampling.temperature)),
            ("gen_ai.request.top_p", json!(sampling.top_p)),
            ("gen_ai.request.choice.count", json!(wanted.n)),
        ]);
        let most = wanted.max_tokens.map(|most| ("gen_ai.request.max_tokens", json!(most)));
        let top = (sampling.top_k > 0).then(|| ("gen_ai.request.top_k", json!(sampling.top_k)));
        self.asked.extend(most.into_iter().chain(top));
    }

    /// Ends the span.
    pub fn end(self, outcome: &Outcome<'_>) {
        let now = SystemTime::now();
        let seconds = now.duration_since(self.began).unwrap_or_default().as_secs_f64();
        let model = self.asked.iter().find(|(name, _)| *name == "gen_ai.request.model");
        let model = model.and_then(|(_, value)| value.as_str());
        let name = model.map_or(self.operation.to_owned(), |model| format!("{} {model}", self.operation));
        let mut attributes = self.asked.clone();
        attributes.extend([
            ("gen_ai.operation.name", json!(self.operation)),
            ("gen_ai.provider.name", json!("sinter")),
            ("gen_ai.request.id", json!(outcome.id)),
            ("gen_ai.latency.e2e", json!(seconds)),
            ("http.request.method", json!("POST")),
            ("url.path", json!(self.path)),
            ("http.response.status_code", json!(outcome.status)),
        ]);
        attributes.extend(answered(outcome));
        // A client's mistake is no error of the server (semantic conventions for HTTP spans).
        let failed = outcome.status >= 500 || (outcome.status < 400 && outcome.error.is_some());
        let nanos =
            |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
        let mut span = json!({
            "traceId": self.parent.trace,
            "spanId": format!("{:016x}", random().max(1)),
            "name": name,
            "kind": SERVER,
            "startTimeUnixNano": nanos(self.began),
            "endTimeUnixNano": nanos(now),
            "attributes": attributes.iter().map(|(name, value)| json!({ "key": name, "value": any(value) })).collect::<Vec<_>>(),
            "status": if failed { json!({ "code": ERROR }) } else { json!({}) },
        });
        if let Some(parent) = &self.parent.span {
            span["parentSpanId"] = json!(parent);
            span["traceState"] = json!(self.parent.state);
        }
        self.collector.push(span);
    }
}

/// What is known only at the end.
fn answered(outcome: &Outcome<'_>) -> Attributes {
    let mut attributes = Vec::new();
    if let Some(usage) = outcome.usage {
        attributes.extend([
            ("gen_ai.usage.input_tokens", json!(usage.prompt)),
            ("gen_ai.usage.output_tokens", json!(usage.generated)),
            ("gen_ai.usage.cache_read.input_tokens", json!(usage.cached)),
            ("gen_ai.response.finish_reasons", json!(outcome.finish)),
        ]);
    }
    let first = outcome.first.map(|first| ("gen_ai.latency.time_to_first_token", json!(first.as_secs_f64())));
    let status = (outcome.status >= 400).then(|| outcome.status.to_string());
    let error = outcome.error.map(str::to_owned).or(status);
    attributes.extend(first.into_iter().chain(error.map(|code| ("error.type", json!(code)))));
    attributes
}

/// A value as OTLP writes it in JSON, where whole numbers are texts.
fn any(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(bool) => json!({ "boolValue": bool }),
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(all) => json!({ "arrayValue": { "values": all.iter().map(any).collect::<Vec<_>>() } }),
        Value::Object(_) => json!({ "stringValue": value.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_nothing_can_be_sent_to_is_refused() {
        let odd = ["http://a:99999", "http://a:", "http://me:key@a:1", "http://a:1?tenant=b"];
        let plain = ["https://127.0.0.1:4318", "127.0.0.1:4318", "http://", "", "grpc://a:1", "http://a b"];
        for wrong in plain.into_iter().chain(odd) {
            let error = Traces::open(wrong, Output::new(false)).unwrap_err();
            assert!(
                error.is::<UsageError>() && error.to_string().contains("wanted http://"),
                "{wrong}: {error}"
            );
        }
        for good in ["http://[::1]:4318", "http://collector", "http://a:1/below/", "HTTP://a:1"] {
            assert!(Traces::open(good, Output::new(false)).is_ok(), "{good}");
        }
    }

    #[test]
    fn only_requests_for_answers_have_spans() {
        let traces = Traces::open("http://127.0.0.1:9/", Output::new(false)).unwrap();
        let headers = HeaderMap::new();
        let begun = |method, path| traces.begin(&method, path, &headers).is_some();
        assert!(begun(Method::POST, "/v1/completions") && begun(Method::POST, "/v1/chat/completions"));
        assert!(!begun(Method::GET, "/v1/completions") && !begun(Method::GET, "/health"));
        assert!(!begun(Method::POST, "/tokenize"));
    }
}
