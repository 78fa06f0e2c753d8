//! The way to a collector: spans in batches, as JSON over HTTP without encryption, from a thread of its own.

use crate::output::Output;
use anyhow::{Result, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Spans that may wait; more are dropped.
const QUEUE: usize = 2048;
/// Spans of a batch at most.
const BATCH: usize = 512;
/// So long the first span of a batch waits for others.
const DELAY: Duration = Duration::from_millis(500);
/// So long a batch may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a collector's answer.
const MOST: usize = 64 << 10;

/// The queue of spans.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    spans: SyncSender<Option<Value>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    told: Arc<Told>,
}

/// Tells once when spans do not arrive, and again when that is so after some did.
#[derive(Debug)]
struct Told {
    url: String,
    output: Output,
    failing: AtomicBool,
}

impl Told {
    fn lost(&self, reason: &str) {
        if !self.failing.swap(true, Relaxed) {
            let url = &self.url;
            self.output.note(format!("spans do not reach {url} and are dropped while that is so: {reason}"));
        }
    }
}

impl Collector {
    /// Starts the thread that sends to `url`.
    pub(super) fn open(url: String, output: Output) -> std::io::Result<Self> {
        let told = Arc::new(Told { url, output, failing: AtomicBool::new(false) });
        let (spans, received) = sync_channel(QUEUE);
        let teller = told.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("sinter-traces".into());
        let thread = thread.spawn(move || {
            let client: Http = Client::builder(TokioExecutor::new()).build_http();
            let mut over = false;
            while !over {
                let batch = batch(&received, &mut over);
                if batch.is_empty() {
                    break;
                }
                match runtime.block_on(send(&client, &teller.url, &batch)) {
                    Ok(()) => teller.failing.store(false, Relaxed),
                    Err(reason) => teller.lost(&format!("{reason:#}")),
                }
            }
        })?;
        Ok(Self { spans, thread: Arc::new(Mutex::new(Some(thread))), told })
    }

    /// Puts a span into the queue, or drops it. Does not wait.
    pub(super) fn push(&self, span: Value) {
        if self.spans.try_send(Some(span)).is_err() {
            self.told.lost("more come than it takes");
        }
    }

    /// Sends what waits, and waits for it so long at most.
    pub(super) fn close(&self, most: Duration) {
        let until = Instant::now() + most;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A full queue has no room for the end; the process takes the thread with it.
        while self.spans.try_send(None).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        while thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

type Http = Client<HttpConnector, Full<Bytes>>;

/// The next spans, at least one unless it is over; `over` says whether they are the last.
fn batch(received: &Receiver<Option<Value>>, over: &mut bool) -> Vec<Value> {
    let Ok(Some(first)) = received.recv() else { return Vec::new() };
    let (mut batch, until) = (vec![first], Instant::now() + DELAY);
    while batch.len() < BATCH {
        match received.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Some(span)) => batch.push(span),
            Err(RecvTimeoutError::Timeout) => break,
            Ok(None) | Err(RecvTimeoutError::Disconnected) => {
                *over = true;
                break;
            }
        }
    }
    batch
}

/// Spans as OTLP writes them in JSON (opentelemetry.io/docs/specs/otlp, OTLP/HTTP).
async fn send(client: &Http, url: &str, spans: &[Value]) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let body = json!({ "resourceSpans": [{
        "resource": { "attributes": [text("service.name", "sinter"), text("service.version", version)] },
        "scopeSpans": [{ "scope": { "name": "sinter", "version": version }, "spans": spans }],
    }] });
    let request = Request::post(url).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(Bytes::from(body.to_string())))?;
    let answer = tokio::time::timeout(PATIENCE, async {
        let answer = client.request(request).await?;
        let status = answer.status();
        // The rest is read so that the connection can be used again; what it says is the collector's affair.
        let _ = Limited::new(answer.into_body(), MOST).collect().await;
        Ok::<_, hyper_util::client::legacy::Error>(status)
    });
    let status = answer.await.map_err(|_| anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs()))??;
    ensure!(status.is_success(), "it answers {status}");
    Ok(())
}
