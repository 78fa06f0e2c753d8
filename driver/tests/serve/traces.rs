//! Spans as a collector gets them, and collectors that are not there.

use crate::client::{PATIENCE, Server, command};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A stand-in for a collector: what it gets comes out of the receiver.
fn collector() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if sender.send(take(stream.unwrap())).is_err() {
                return;
            }
        }
    });
    (address, received)
}

/// The first line and the body of a request, which is answered.
fn take(stream: TcpStream) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    reader.get_mut().write_all(answer.as_bytes()).unwrap();
    (first.trim().to_owned(), body)
}

fn server(endpoint: &str) -> Server {
    Server::of(&mut command(&["--log", "off", "--served-model-name", "tiny", "--otlp-endpoint", endpoint]))
}

/// The next so many spans, and that they are about this service.
fn spans(received: &Receiver<(String, Vec<u8>)>, count: usize) -> Vec<Value> {
    let mut spans = Vec::new();
    while spans.len() < count {
        let (first, body) = received.recv_timeout(PATIENCE).unwrap();
        assert_eq!(first, "POST /v1/traces HTTP/1.1");
        let body: Value = serde_json::from_slice(&body).unwrap();
        for group in body["resourceSpans"].as_array().unwrap() {
            assert_eq!(attribute(&group["resource"], "service.name"), "sinter");
            let scopes = group["scopeSpans"].as_array().unwrap();
            spans.extend(scopes.iter().flat_map(|scope| scope["spans"].as_array().unwrap().clone()));
        }
    }
    spans
}

/// An attribute as a plain value; null if there is none.
fn attribute(span: &Value, name: &str) -> Value {
    let all = span["attributes"].as_array().unwrap();
    all.iter().find(|known| known["key"] == name).map_or(Value::Null, |known| plain(&known["value"]))
}

/// A value of OTLP, whose form is looked at.
fn plain(value: &Value) -> Value {
    let (form, value) = value.as_object().unwrap().iter().next().unwrap();
    match form.as_str() {
        "stringValue" => json!(value.as_str().unwrap()),
        "intValue" => json!(value.as_str().unwrap().parse::<i64>().unwrap()),
        "doubleValue" => json!(value.as_f64().unwrap()),
        "arrayValue" => value["values"].as_array().unwrap().iter().map(plain).collect(),
        other => panic!("a value of the form {other}"),
    }
}

fn nanos(span: &Value, name: &str) -> u64 {
    span[name].as_str().unwrap().parse().unwrap()
}

#[test]
fn an_answer_is_one_span_below_that_of_the_client() {
    let (address, received) = collector();
    let server = server(&address);
    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let chat = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 4,
                       "temperature": 0.5, "seed": 1, "n": 2, "ignore_eos": true });
    let reply =
        server.ask("POST", "/v1/chat/completions", &[&parent, "x-request-id: mine"], &chat.to_string());
    let usage = reply.json()["usage"].clone();

    let span = &spans(&received, 1)[0];
    assert_eq!((&span["traceId"], &span["parentSpanId"]), (&json!(TRACE), &json!(PARENT)));
    assert_eq!((&span["name"], &span["kind"]), (&json!("chat tiny"), &json!(2)));
    let own = span["spanId"].as_str().unwrap();
    assert!(own.len() == 16 && own != PARENT);
    for (name, wanted) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.request.model", json!("tiny")),
        ("gen_ai.response.model", json!("tiny")),
        ("gen_ai.request.max_tokens", json!(4)),
        ("gen_ai.request.temperature", json!(0.5)),
        ("gen_ai.request.choice.count", json!(2)),
        ("gen_ai.request.id", json!("mine")),
        ("gen_ai.usage.input_tokens", usage["prompt_tokens"].clone()),
        ("gen_ai.usage.output_tokens", json!(8)),
        ("gen_ai.response.finish_reasons", json!(["length", "length"])),
        ("http.response.status_code", json!(200)),
        ("error.type", Value::Null),
    ] {
        assert_eq!(attribute(span, name), wanted, "{name}");
    }
    let seconds = |name| attribute(span, name).as_f64().unwrap();
    let (first, all) = (seconds("gen_ai.latency.time_to_first_token"), seconds("gen_ai.latency.e2e"));
    let told = (nanos(span, "endTimeUnixNano") - nanos(span, "startTimeUnixNano")) as f64 / 1e9;
    assert!(first > 0.0 && first <= all && (told - all).abs() < 1e-3, "{first} {all} {told}");
}

#[test]
fn what_fails_says_so_and_what_is_not_asked_of_the_model_has_no_span() {
    let (address, received) = collector();
    let server = server(&address);
    let body = json!({ "prompt": "Once", "max_tokens": 3, "ignore_eos": true, "stream": true });
    server.get("/health");
    server.post("/tokenize", &json!({ "prompt": "Once" })).json();
    let unwanted = format!("traceparent: 00-{TRACE}-{PARENT}-00");
    server.ask("POST", "/v1/completions", &[&unwanted], &body.to_string());
    server.post("/v1/completions", &json!({ "prompt": "Once", "max_tokens": -1 })).error();
    server.ask("POST", "/v1/completions", &["traceparent: 00-zz-1-01"], &body.to_string());

    let spans = spans(&received, 2);
    let names: Vec<&Value> = spans.iter().map(|span| &span["name"]).collect();
    assert_eq!(names, ["text_completion", "text_completion tiny"]);
    let told = |at: usize, name| attribute(&spans[at], name);
    assert_eq!((told(0, "http.response.status_code"), told(0, "error.type")), (json!(400), json!("400")));
    assert_eq!(told(0, "gen_ai.usage.input_tokens"), Value::Null);
    assert_eq!(told(1, "gen_ai.usage.output_tokens"), json!(3));
    for span in &spans {
        assert!(span["parentSpanId"].is_null(), "a parent that nobody named");
        assert!(span["status"]["code"].is_null(), "a client's mistake is no error of the server");
    }
}

#[test]
fn a_collector_that_is_gone_or_silent_changes_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), gone] {
        let mut server = server(&format!("http://{address}"));
        let body = json!({ "prompt": "Once", "max_tokens": 1, "temperature": 0 });
        for _ in 0..50 {
            assert_eq!(server.post("/v1/completions", &body).status, 200);
        }
        let begun = Instant::now();
        server.signal("TERM");
        assert_eq!(server.exit_code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(20), "the end took {:?}", begun.elapsed());
        let mut words = String::new();
        server.child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        if address == gone {
            assert_eq!(words.matches("spans do not reach").count(), 1, "{words}");
        }
    }
}

#[test]
fn an_address_that_cannot_work_is_bad_usage() {
    let done = command(&["--otlp-endpoint", "https://127.0.0.1:4318"]).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("wanted http://HOST:PORT"));
}
