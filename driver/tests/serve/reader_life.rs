//! Clients of a model that writes no text: those that leave, too many of them, and the end of the server.

use crate::client::{PATIENCE, Server, command_for};
use crate::reader_models::{sentence_decoder, sentence_encoder, words};
use serde_json::{Value, json};
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Each text has a step of its own, so that a request of many takes its time.
const SLOW: &[&str] = &["--log", "off", "--max-sequences", "1"];

fn serve(model: &Path, args: &[&str]) -> Server {
    Server::of(&mut command_for(model, &[SLOW, args].concat()))
}

/// A request of many texts, on its way.
fn begin(server: &Server, count: usize) -> TcpStream {
    let text = words(0..60);
    let body = json!({ "input": vec![text; count], "encoding_format": "base64" });
    server.send("POST", "/v1/embeddings", &[], &body.to_string())
}

fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    for model in [sentence_encoder("bert", "mean"), sentence_decoder("qwen3")] {
        let server = serve(model.path(), &[]);
        for round in 0..4u32 {
            let stream = begin(&server, 2000);
            let waits = begin(&server, 2000);
            server.wait_for("sinter:requests_total", 2.0 * f64::from(round) + 2.0);
            std::thread::sleep(Duration::from_millis(3 * u64::from(round)));
            drop((stream, waits));
            server.wait_until_idle();
        }
        let read = server.metric("sinter:step_tokens_total");
        assert!(read < server.metric("vllm:prompt_tokens_total") / 2.0, "{read} tokens were read for nobody");
        assert_eq!(server.post("/v1/embeddings", &json!({ "input": "w4" })).status, 200);
        let text = server.get("/metrics").text();
        assert!(
            text.contains("finished_reason=\"abort\"} 8") && text.contains("finished_reason=\"stop\"} 1")
        );
    }
}

#[test]
fn a_request_of_many_texts_delays_nobody() {
    let model = sentence_encoder("bert", "mean");
    let server = serve(model.path(), &[]);
    let many = begin(&server, 2048);
    server.wait_for("sinter:requests_total", 1.0);
    let one = server.post("/v1/embeddings", &json!({ "input": "w4 w5" }));
    assert_eq!(one.status, 200);
    assert!(server.metric("vllm:num_requests_waiting") > 0.0, "the many are not done before the one");
    assert!(rest(many).contains("\"index\":2047"));
}

#[test]
fn what_is_too_much_is_refused_and_may_come_again() {
    let model = sentence_encoder("bert", "mean");
    let server = serve(model.path(), &["--max-queue", "3"]);
    let running: Vec<TcpStream> = (0..3).map(|_| begin(&server, 2048)).collect();
    server.wait_for("sinter:requests_total", 3.0);
    let reply = server.post("/v1/embeddings", &json!({ "input": "w4" }));
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")), "{}", reply.text());
    assert_eq!(reply.error()["type"], "rate_limit_error");
    assert_eq!(server.get("/health").status, 200, "a full queue is no illness");
    drop(running);
    server.wait_until_idle();
    assert_eq!(server.post("/v1/embeddings", &json!({ "input": "w4" })).status, 200);
    let hurried = serve(model.path(), &["--timeout", "0"]);
    let reply = hurried.post("/v1/embeddings", &json!({ "input": vec![words(0..60); 500] }));
    assert_eq!((reply.status, &reply.error()["code"]), (504, &json!("timeout")));
    hurried.wait_until_idle();
}

#[test]
fn a_shutdown_lets_running_requests_end() {
    let model = sentence_encoder("bert", "mean");
    let mut server = serve(model.path(), &[]);
    let streams: Vec<TcpStream> = (0..2).map(|_| begin(&server, 2048)).collect();
    server.wait_for("sinter:requests_total", 2.0);
    server.signal("TERM");
    let until = Instant::now() + PATIENCE;
    while server.get("/health").status != 503 {
        assert!(Instant::now() < until, "/health does not turn red");
    }
    let refused = server.post("/v1/embeddings", &json!({ "input": "w4" }));
    assert_eq!((refused.status, &refused.error()["type"]), (503, &json!("service_unavailable_error")));
    for stream in streams {
        assert!(rest(stream).contains("\"index\":2047"));
    }
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_shutdown_does_not_wait_for_ever() {
    let model = sentence_encoder("bert", "mean");
    let mut server = serve(model.path(), &["--grace", "0"]);
    let stream = begin(&server, 2048);
    server.wait_for("sinter:requests_total", 1.0);
    server.signal("TERM");
    let text = rest(stream);
    let body = text.split_once("\r\n\r\n").unwrap().1;
    let error: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!(error["error"]["code"], "unavailable");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_key_is_wanted() {
    let model = sentence_encoder("bert", "mean");
    let server = serve(model.path(), &["--api-key", "one"]);
    let body = json!({ "input": "w4" }).to_string();
    for path in ["/v1/embeddings", "/v1/rerank", "/rerank", "/score", "/classify", "/v1/chat/completions"] {
        assert_eq!(server.ask("POST", path, &[], &body).status, 401, "{path}");
    }
    assert_eq!(server.ask("POST", "/v1/embeddings", &["authorization: Bearer one"], &body).status, 200);
}
