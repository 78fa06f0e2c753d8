//! What is counted, and how Prometheus reads it.
//!
//! Gauges and counters have the names that vLLM gave them where it has them, because routers and dashboards know those;
//! the rest begins with `sinter:`. Everything counts in atomic numbers: nobody waits for a reader.

use super::state::App;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use sinter_ir::PAGE;
use sinter_runtime::engine::{STEP_BUCKETS, Stats};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of times in seconds, for tokens.
const TOKEN_BOUNDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of times in seconds, for requests.
const REQUEST_BOUNDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0];
/// Why answers end.
const REASONS: [&str; 3] = ["stop", "length", "abort"];

/// Times by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound and one for the rest; not cumulative.
    counts: Vec<AtomicU64>,
    micros: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, micros: AtomicU64::new(0) }
    }

    fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(time.as_micros() as u64, Relaxed);
    }
}

/// What is counted besides the engine's own numbers.
#[derive(Debug)]
pub struct Metrics {
    first_token: Histogram,
    next_token: Histogram,
    request: Histogram,
    /// Answers by the reason of their end, as in [`REASONS`].
    ended: [AtomicU64; REASONS.len()],
    /// Responses by the hundreds of their status.
    responses: [AtomicU64; 6],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            first_token: Histogram::new(TOKEN_BOUNDS),
            next_token: Histogram::new(TOKEN_BOUNDS),
            request: Histogram::new(REQUEST_BOUNDS),
            ended: Default::default(),
            responses: Default::default(),
        }
    }
}

impl Metrics {
    /// A first token came after this time.
    pub fn first_token(&self, took: Duration) {
        self.first_token.add(took);
    }
    /// Another token came after this time.
    pub fn next_token(&self, took: Duration) {
        self.next_token.add(took);
    }
    /// An answer ended.
    pub fn finished(&self, reason: &str) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            self.ended[at].fetch_add(1, Relaxed);
        }
    }
    /// A generation ended after this time.
    pub fn ended(&self, took: Duration) {
        self.request.add(took);
    }
    /// A response began.
    pub fn response(&self, status: u16) {
        self.responses[usize::from(status / 100).min(5)].fetch_add(1, Relaxed);
    }
}

/// `GET /metrics`
pub async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page(&app))
}

/// The page that Prometheus reads.
fn page(app: &App) -> String {
    let stats = app.work().stats();
    let model = escaped(&app.model.names[0]);
    let mut page = Page { text: String::new(), labels: format!("model_name=\"{model}\"") };
    of_engine(&mut page, &stats, app);
    let metrics = &app.metrics;
    page.histogram("vllm:time_to_first_token_seconds", "Time to the first token.", &metrics.first_token);
    page.histogram("vllm:inter_token_latency_seconds", "Time between tokens.", &metrics.next_token);
    page.histogram("vllm:e2e_request_latency_seconds", "Time of a whole generation.", &metrics.request);
    page.head("vllm:request_success_total", "counter", "Answers by the reason of their end.");
    for (reason, count) in REASONS.iter().zip(&metrics.ended) {
        page.line(
            "vllm:request_success_total",
            &format!("finished_reason=\"{reason}\""),
            count.load(Relaxed),
        );
    }
    page.head("sinter:responses_total", "counter", "Responses by their status.");
    for (hundreds, count) in metrics.responses.iter().enumerate().skip(1) {
        page.line("sinter:responses_total", &format!("status=\"{hundreds}xx\""), count.load(Relaxed));
    }
    page.text
}

fn of_engine(page: &mut Page, stats: &Stats, app: &App) {
    let used = stats.blocks_used as f64 / stats.blocks_total.max(1) as f64;
    page.gauge("vllm:num_requests_running", "Sequences that are computed.", stats.running);
    page.gauge("vllm:num_requests_waiting", "Sequences that wait to be computed.", stats.waiting);
    page.gauge("vllm:kv_cache_usage_perc", "Share of the KV cache that sequences hold, from 0 to 1.", used);
    page.head("vllm:cache_config_info", "gauge", "The KV cache.");
    let blocks = stats.blocks_total;
    let dtype = app.model.cache_dtype;
    let config = format!("block_size=\"{PAGE}\",num_gpu_blocks=\"{blocks}\",cache_dtype=\"{dtype}\"");
    page.line("vllm:cache_config_info", &config, 1);
    for (name, about, value) in [
        ("vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache.", stats.prefix_queries),
        ("vllm:prefix_cache_hits_total", "Tokens found in the prefix cache.", stats.prefix_hits),
        ("vllm:num_preemptions_total", "Sequences that were put back.", stats.preemptions),
        ("vllm:prompt_tokens_total", "Tokens of prompts.", stats.tokens_in),
        ("vllm:generation_tokens_total", "Tokens of answers.", stats.tokens_out),
        ("vllm:spec_decode_num_draft_tokens_total", "Guessed tokens.", stats.drafted),
        ("vllm:spec_decode_num_accepted_tokens_total", "Guessed tokens that were right.", stats.accepted),
        ("sinter:requests_total", "Generations that were accepted.", stats.requests),
        ("sinter:requests_finished_total", "Generations that ended.", stats.finished),
        ("sinter:requests_failed_total", "Generations that ended with an error.", stats.failed),
        ("sinter:steps_total", "Steps of the model.", stats.steps),
        ("sinter:step_tokens_total", "Tokens computed in steps.", stats.step_tokens),
    ] {
        page.head(name, "counter", about);
        page.line(name, "", value);
    }
    page.gauge("sinter:waiting_tokens", "Tokens of prompts that wait.", stats.waiting_tokens);
    page.gauge("sinter:blocks_used", "Pages that sequences hold.", stats.blocks_used);
    page.gauge("sinter:blocks_cached", "Pages kept for later.", stats.blocks_cached);
    page.gauge(
        "sinter:since_progress_seconds",
        "Time since a sign of life.",
        stats.since_progress.as_secs_f64(),
    );
    page.gauge("sinter:uptime_seconds", "Time since the start.", app.started.elapsed().as_secs_f64());
    let bounds = STEP_BUCKETS.iter().map(|micros| *micros as f64 / 1e6);
    let sum = stats.step_micros as f64 / 1e6;
    page.buckets(
        "sinter:step_seconds",
        "Time of a step.",
        bounds.zip(stats.step_buckets),
        (stats.steps, sum),
    );
}

/// A value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, about: &str) {
        // Writing to a text does not fail.
        let _ = write!(self.text, "# HELP {name} {about}\n# TYPE {name} {kind}\n");
    }
    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let comma = if labels.is_empty() { "" } else { "," };
        let _ = writeln!(self.text, "{name}{{{}{comma}{labels}}} {value}", self.labels);
    }
    fn gauge(&mut self, name: &str, about: &str, value: impl std::fmt::Display) {
        self.head(name, "gauge", about);
        self.line(name, "", value);
    }
    fn histogram(&mut self, name: &str, about: &str, histogram: &Histogram) {
        let counts: Vec<u64> = histogram.counts.iter().map(|count| count.load(Relaxed)).collect();
        let all = counts.iter().sum();
        let sum = histogram.micros.load(Relaxed) as f64 / 1e6;
        let buckets = histogram.bounds.iter().copied().zip(counts);
        self.buckets(name, about, buckets, (all, sum));
    }
    fn buckets(
        &mut self,
        name: &str,
        about: &str,
        buckets: impl Iterator<Item = (f64, u64)>,
        (all, sum): (u64, f64),
    ) {
        self.head(name, "histogram", about);
        let mut below = 0;
        for (bound, count) in buckets {
            below += count;
            self.line(&format!("{name}_bucket"), &format!("le=\"{bound}\""), below);
        }
        self.line(&format!("{name}_bucket"), "le=\"+Inf\"", all.max(below));
        self.line(&format!("{name}_sum"), "", sum);
        self.line(&format!("{name}_count"), "", all.max(below));
    }
}
