//! Clients that leave or do not read, a full queue, a shutdown: what happens to those who did nothing wrong, and what is
//! left behind.

use crate::client::{PATIENCE, Server, command};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// A generation that goes on to the end of the context.
fn endless(more: Value) -> String {
    let mut body =
        json!({ "prompt": "Once", "max_tokens": 500, "ignore_eos": true, "temperature": 0, "stream": true });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

fn begin(server: &Server, more: Value) -> TcpStream {
    server.send("POST", "/v1/completions", &[], &endless(more))
}

/// Reads a stream up to its first event.
fn first_event(stream: &TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the stream ended before its first event");
    }
}

fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    let server = Server::start(&["--log", "off", "--max-sequences", "1", "--max-step-tokens", "1"]);
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(6);
    for round in 0..4 {
        // While its answer is streamed.
        let stream = begin(&server, json!({}));
        first_event(&stream);
        // While it waits behind another.
        let waits = begin(&server, json!({ "stream": round % 2 == 0 }));
        server.wait_for("vllm:num_requests_waiting", 1.0);
        drop(waits);
        server.wait_for("vllm:num_requests_waiting", 0.0);
        drop(stream);
        server.wait_until_idle();
        // While its prompt is read, token by token, and while an answer is made that is sent as a whole.
        for (prompt, stream) in [(long.as_str(), true), (long.as_str(), false), ("Once", false)] {
            let stream = begin(&server, json!({ "prompt": format!("{round} {prompt}"), "stream": stream }));
            server.wait_for("vllm:num_requests_running", 1.0);
            std::thread::sleep(Duration::from_millis(5 * round));
            drop(stream);
            server.wait_until_idle();
        }
        // Before the engine knows of it: at once, in the middle of the body, and with only one side closed.
        drop(begin(&server, json!({})));
        let mut half = TcpStream::connect(&server.address).unwrap();
        half.write_all(
            b"POST /v1/completions HTTP/1.1\r\nhost: s\r\ncontent-length: 90\r\n\r\n{\"prompt\": ",
        )
        .unwrap();
        drop(half);
        let one_side = begin(&server, json!({}));
        one_side.shutdown(Shutdown::Write).unwrap();
        drop(one_side);
        server.wait_until_idle();
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_reader_that_never_reads_is_cut_off_and_delays_nobody() {
    let server = Server::start(&["--log", "off"]);
    let stalled = begin(&server, json!({ "n": 16, "logprobs": 20 }));
    server.wait_for("sinter:requests_total", 1.0);
    let answer = server.post("/v1/completions", &json!({ "prompt": "a", "max_tokens": 4 }));
    assert_eq!(answer.status, 200);
    server.wait_until_idle();
    let aborted = server.get("/metrics").text();
    assert!(aborted.contains("vllm:request_success_total{model_name=\"model\",finished_reason=\"abort\"} 0"));
    // Whoever reads at last is told why there is no more.
    let text = rest(stalled);
    assert!(text.contains("\"code\":\"slow_reader\""), "{}", &text[text.len() - 500..]);
    assert!(text.len() < 12 << 20, "{} bytes were kept for a reader that does not read", text.len());
}

#[test]
fn what_is_too_much_is_refused_and_may_come_again() {
    let server = Server::start(&["--log", "off", "--max-sequences", "1", "--max-queue", "3"]);
    let running = begin(&server, json!({}));
    first_event(&running);
    let waiting: Vec<TcpStream> = (0..3).map(|_| begin(&server, json!({}))).collect();
    server.wait_for("vllm:num_requests_waiting", 3.0);
    let asked = Instant::now();
    let reply = server.ask("POST", "/v1/completions", &[], &endless(json!({})));
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")), "{}", reply.text());
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert_eq!(reply.error()["type"], "rate_limit_error");
    assert_eq!(server.get("/health").status, 200, "a full queue is no illness");
    for stream in [running].into_iter().chain(waiting) {
        assert!(rest(stream).contains("data: [DONE]"));
    }
    server.wait_until_idle();
    assert_eq!(server.post("/v1/completions", &json!({ "prompt": "a" })).status, 200);
}

#[test]
fn an_answer_that_takes_too_long_is_ended() {
    let server = Server::start(&["--log", "off", "--timeout", "0"]);
    let reply = server.ask("POST", "/v1/completions", &[], &endless(json!({ "stream": false })));
    assert_eq!((reply.status, &reply.error()["code"]), (504, &json!("timeout")));
    let stream = rest(begin(&server, json!({})));
    assert!(stream.contains("\"code\":\"timeout\""), "{stream}");
    server.wait_until_idle();
}

#[test]
fn a_shutdown_lets_running_answers_end() {
    let mut server = Server::start(&["--log", "off", "--max-sequences", "1"]);
    let streams: Vec<TcpStream> = (0..3).map(|_| begin(&server, json!({}))).collect();
    server.wait_for("sinter:requests_total", 3.0);
    server.signal("TERM");
    let until = Instant::now() + PATIENCE;
    while server.get("/health").status != 503 {
        assert!(Instant::now() < until, "/health does not turn red");
    }
    assert_eq!(server.get("/live").status, 200);
    let refused = server.post("/v1/completions", &json!({ "prompt": "a" }));
    assert_eq!((refused.status, &refused.error()["type"]), (503, &json!("service_unavailable_error")));
    assert!(refused.header("retry-after").is_some());
    for stream in streams {
        let text = rest(stream);
        assert!(text.contains("\"finish_reason\":\"length\"") && text.contains("data: [DONE]"), "{text}");
    }
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_shutdown_does_not_wait_for_ever() {
    let mut server = Server::start(&["--log", "off", "--grace", "0"]);
    let stream = begin(&server, json!({ "n": 16, "logprobs": 20 }));
    first_event(&stream);
    server.signal("INT");
    let text = rest(stream);
    assert!(
        text.contains("shut down") && text.contains("data: [DONE]"),
        "{}",
        &text[text.len().saturating_sub(500)..]
    );
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&["--log", "off", "--max-sequences", "1", "--grace", "600"]);
    let streams: Vec<TcpStream> = (0..40).map(|_| begin(&server, json!({}))).collect();
    server.wait_for("sinter:requests_total", 40.0);
    server.signal("TERM");
    let until = Instant::now() + PATIENCE;
    while server.get("/health").status != 503 {
        assert!(Instant::now() < until, "/health does not turn red");
    }
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(130));
    drop(streams);
}

#[test]
fn a_killed_start_leaves_no_cache_that_is_loaded_wrongly() {
    let cache = tempfile::tempdir().unwrap();
    let start = |patience: Option<Duration>| {
        let mut command = command(&["--log", "off"]);
        command.env("SINTER_CACHE", cache.path());
        match patience {
            None => Some(Server::of(&mut command)),
            Some(patience) => {
                let mut child = command.spawn().unwrap();
                std::thread::sleep(patience);
                child.kill().unwrap();
                child.wait().unwrap();
                None
            }
        }
    };
    for round in 0..12 {
        let entries = cache.path().join("plans");
        if round % 4 == 0 {
            // The next start has to compile again.
            let _ = std::fs::remove_dir_all(&entries);
        }
        start(Some(Duration::from_millis(20 * round)));
        let mut server = start(None).unwrap();
        let asked =
            json!({ "messages": [{ "role": "user", "content": "What is 12 plus 7?" }], "temperature": 0 });
        let answer = server.post("/v1/chat/completions", &asked).json();
        assert_eq!(answer["choices"][0]["message"]["content"], "12 + 7 = 19.");
        server.signal("TERM");
        assert_eq!(server.exit_code(), Some(0));
        let mut words = String::new();
        server.child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        assert!(!words.contains("is not used"), "{words}");
    }
}

#[test]
fn the_log_has_one_line_a_request_and_no_secrets() {
    let mut command = command(&["--log", "json", "--api-key", "sesame"]);
    let mut server = Server::of(&mut command);
    let key = "authorization: Bearer sesame";
    let body =
        json!({ "messages": [{ "role": "user", "content": "canary bird" }], "max_tokens": 4 }).to_string();
    assert_eq!(server.ask("POST", "/v1/chat/completions", &[key, "x-request-id: first"], &body).status, 200);
    assert_eq!(server.ask("POST", "/v1/chat/completions", &["x-api-key: canary"], &body).status, 401);
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    let mut words = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    let lines: Vec<Value> = words.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(lines.len(), 2, "{words}");
    assert_eq!(
        (&lines[0]["id"], &lines[0]["status"], &lines[0]["completion_tokens"]),
        (&json!("first"), &json!(200), &json!(4))
    );
    assert_eq!((&lines[0]["finish"], &lines[1]["status"]), (&json!("length"), &json!(401)));
    assert!(lines[0]["first_token_seconds"].as_f64().unwrap() > 0.0);
    for secret in ["canary", "sesame"] {
        assert!(!words.contains(secret), "{words}");
    }
}
