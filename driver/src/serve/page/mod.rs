//! `GET /`: a page to talk with the model and to see the engine work, and `GET /v1/state`, the numbers that it shows.
//!
//! The page is one file without anything from elsewhere. Its content security policy names its script and its style by
//! their hashes, so that nothing else runs, whatever a model says.

use super::base64::base64;
use super::health;
use super::state::App;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sinter_ir::PAGE;
use std::sync::{Arc, LazyLock};

const INDEX: &str = include_str!("index.html");

/// What the browser may do: run what stands in the page, and ask this server.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| format!("'sha256-{}'", base64(&Sha256::digest(between(INDEX, tag).as_bytes())));
    let (style, script) = (hash("style"), hash("script"));
    // The two parts of the bar get their width by CSSOM, which needs no leave.
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// What stands between the first tags of a kind.
fn between<'a>(page: &'a str, tag: &str) -> &'a str {
    let inner = page.split_once(&format!("<{tag}>")).map_or("", |(_, rest)| rest);
    inner.split_once(&format!("</{tag}>")).map_or("", |(inner, _)| inner)
}

/// `GET /`
pub async fn index() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Html(INDEX))
}

/// `GET /v1/state`: the engine's numbers of the moment. Blocks have [`PAGE`] tokens; prefix counts are in tokens.
pub async fn state(State(app): State<Arc<App>>) -> Json<Value> {
    let stats = app.work().stats();
    let model = &app.model;
    Json(json!({
        "model": model.names[0],
        "dtype": model.dtype,
        "device": model.device,
        "context": model.context,
        "sequences": model.sequences,
        "running": stats.running,
        "waiting": stats.waiting,
        "blocks": {
            "tokens": PAGE,
            "used": stats.blocks_used,
            "cached": stats.blocks_cached,
            "total": stats.blocks_total,
        },
        "prefix": { "queries": stats.prefix_queries, "hits": stats.prefix_hits },
        "requests": stats.requests,
        "finished": stats.finished,
        "failed": stats.failed,
        "preemptions": stats.preemptions,
        "tokens_in": stats.tokens_in,
        "tokens_out": stats.tokens_out,
        "steps": stats.steps,
        "trouble": health::check(&app).err().map(|error| error.message),
        "uptime_seconds": app.started.elapsed().as_secs_f64(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_makes_no_html_of_text() {
        for tag in ["style", "script"] {
            assert_eq!(INDEX.matches(&format!("<{tag}")).count(), 1, "{tag}: the policy has one hash");
            assert!(between(INDEX, tag).len() > 1000);
        }
        for never in ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"]
        {
            assert!(!INDEX.contains(never), "{never}");
        }
        // Attributes with code or style would be refused by the policy.
        for never in [" onclick=", " onload=", " style=\"", "javascript:"] {
            assert!(!INDEX.contains(never), "{never}");
        }
    }
}
