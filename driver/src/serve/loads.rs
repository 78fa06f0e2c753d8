//! How loaded the server is, for routers that ask for it: `GET /v1/loads`, `/load`, `/server_info`, `/get_model_info`.

use super::state::App;
use super::work::Task;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use sinter_ir::PAGE;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// `GET /v1/loads`: one data-parallel rank.
pub async fn loads(State(app): State<Arc<App>>) -> Json<Value> {
    let stats = app.work().stats();
    let used = stats.blocks_used * PAGE;
    let share = stats.blocks_used as f64 / stats.blocks_total.max(1) as f64;
    let hits = stats.prefix_hits as f64 / stats.prefix_queries.max(1) as f64;
    let per_second = stats.step_tokens as f64 / (stats.step_micros.max(1) as f64 / 1e6);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let most = app.model.sequences;
    Json(json!({
        "timestamp": now,
        "dp_rank_count": 1,
        "loads": [{
            "dp_rank": 0,
            "num_running_reqs": stats.running,
            "num_waiting_reqs": stats.waiting,
            "num_waiting_uncached_tokens": stats.waiting_tokens,
            "num_total_reqs": stats.running + stats.waiting,
            "num_used_tokens": used,
            "max_total_num_tokens": stats.blocks_total * PAGE,
            "token_usage": share,
            "gen_throughput": per_second,
            "cache_hit_rate": hits,
            "utilization": stats.running as f64 / most.max(1) as f64,
            "max_running_requests": most,
        }],
    }))
}

/// `GET /load`: requests that have not ended.
pub async fn load(State(app): State<Arc<App>>) -> Json<Value> {
    let stats = app.work().stats();
    Json(json!({ "server_load": stats.requests - stats.finished.min(stats.requests) }))
}

/// `GET /server_info`
pub async fn server_info(State(app): State<Arc<App>>) -> Json<Value> {
    let (model, (queued, queued_tokens)) = (&app.model, app.work().queue());
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "served_model_name": model.names[0],
        "device": model.device,
        "dtype": model.dtype,
        "max_model_len": model.context,
        "max_num_seqs": model.sequences,
        "max_num_batched_tokens": model.step_tokens,
        "max_total_num_tokens": app.work().stats().blocks_total * PAGE,
        "block_size": PAGE,
        "max_num_queued_reqs": queued,
        "max_num_queued_tokens": queued_tokens,
        "speculation": model.speculation,
        "uptime_seconds": app.started.elapsed().as_secs_f64(),
    }))
}

/// `GET /get_model_info` and `/model_info`
pub async fn model_info(State(app): State<Arc<App>>) -> Json<Value> {
    let model = &app.model;
    Json(json!({
        "model_path": model.names[0],
        "served_model_name": model.names[0],
        "tokenizer_path": model.names[0],
        "is_generation": app.work().task() == Task::Writes,
        "architectures": [model.architecture],
        "vocab_size": model.vocab,
        "max_model_len": model.context,
        "max_context_length": model.context,
        "weight_version": "default",
    }))
}
