//! What a client is told when it is wrong: always the same shape, never a 5xx.

use crate::client::{Server, command};
use serde_json::{Value, json};

fn user(content: &str) -> Value {
    json!([{ "role": "user", "content": content }])
}

#[test]
fn every_mistake_has_its_status_and_the_same_shape() {
    let server = Server::start(&["--log", "off", "--max-body", "20000"]);
    let refused = |method: &str, path: &str, headers: &[&str], body: &str, status: u16| {
        let reply = server.ask(method, path, headers, body);
        assert_eq!(reply.status, status, "{method} {path} {body}: {}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/json"));
        reply.error()
    };
    refused("GET", "/nowhere", &[], "", 404);
    refused("GET", "/v1/models/other", &[], "", 404);
    refused("GET", "/v1/chat/completions", &[], "", 405);
    refused("DELETE", "/health", &[], "", 405);
    let path = "/v1/chat/completions";
    for body in ["{", "[]", "\"x\"", "null", "{\"messages\": [}", "\u{0}", "{\"a\": \"\\ud800\"}"] {
        refused("POST", path, &[], body, 400);
    }
    refused("POST", path, &["content-length: 0"], "", 400);
    refused("POST", path, &["content-type: text/plain"], "{}", 415);
    refused("POST", path, &["content-encoding: gzip"], "{}", 415);
    let long = json!({ "messages": user(&"a".repeat(30000)) }).to_string();
    refused("POST", path, &[], &long, 413);
    assert_eq!(
        refused("POST", path, &[], &json!({ "model": "other", "messages": user("x") }).to_string(), 404)["code"],
        "model_not_found"
    );
    let deep = format!("{{\"messages\": {}{}}}", "[".repeat(5000), "]".repeat(5000));
    refused("POST", path, &[], &deep, 400);
    server.wait_until_idle();
}

#[test]
fn every_wrong_field_of_a_conversation_is_named() {
    let server = Server::start(&["--log", "off"]);
    let too_long = "word ".repeat(2000);
    for (name, value) in [
        ("messages", json!([])),
        ("messages", json!("hi")),
        ("messages", json!({})),
        ("messages[0].role", json!([{ "role": "king", "content": "x" }])),
        ("messages[0].content", json!([{ "role": "user" }])),
        (
            "messages[0].content[0]",
            json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "http://169.254.169.254/" } }] }]),
        ),
        ("temperature", json!(-1)),
        ("temperature", json!("hot")),
        ("temperature", json!(1e308)),
        ("top_p", json!(1.5)),
        ("n", json!(0)),
        ("n", json!(17)),
        ("n", json!(1.5)),
        ("max_tokens", json!(-3)),
        ("max_tokens", json!(0)),
        ("top_logprobs", json!(21)),
        ("top_logprobs", json!(3)),
        ("stop", json!([1])),
        ("stop", json!("")),
        ("logit_bias", json!({ "1024": 1 })),
        ("logit_bias", json!({ "-1": 1 })),
        ("logit_bias", json!({ "1": 101 })),
        ("logit_bias", json!([])),
        ("seed", json!("x")),
        ("stop_token_ids", json!([1024])),
        ("stop_token_ids", json!([4294967296u64])),
        ("response_format.type", json!({ "type": "xml" })),
        (
            "response_format.json_schema.schema",
            json!({ "type": "json_schema", "json_schema": { "name": "x" } }),
        ),
        ("stream_options.include_everything", json!({ "include_everything": true })),
        ("temprature", json!(1)),
        ("audio", json!({ "voice": "x" })),
        ("functions", json!([{ "name": "f" }])),
        ("min_tokens", json!(4)),
        ("tools[0]", json!([{ "type": "search" }])),
    ] {
        let top = name.split(['.', '[']).next().unwrap();
        let mut body = json!({ "messages": user("hi") });
        body[top] = value.clone();
        let reply = server.post("/v1/chat/completions", &body);
        assert_eq!(reply.status, 400, "{name} {value}: {}", reply.text());
        assert_eq!(reply.error()["param"], name, "{value}: {}", reply.text());
    }
    for (body, words) in [
        (json!({ "messages": user(&too_long) }), "the context of this server has 512"),
        (json!({ "messages": user("x"), "guided_regex": "(" }), "grammar"),
        (json!({ "messages": user("x"), "guided_regex": "a", "guided_choice": ["b"] }), "2 grammars"),
        (json!({ "messages": user("x"), "guided_json": { "type": "nonsense" } }), "grammar"),
        (
            json!({ "messages": user("x"), "response_format": { "type": "json_schema", "json_schema": { "name": "s", "schema": { "$ref": "#/nowhere" } } } }),
            "grammar",
        ),
    ] {
        let reply = server.post("/v1/chat/completions", &body);
        assert!(
            reply.status == 400 && reply.error()["message"].as_str().unwrap().contains(words),
            "{}",
            reply.text()
        );
    }
    server.wait_until_idle();
}

#[test]
fn every_wrong_field_of_a_completion_is_named() {
    let server = Server::start(&["--log", "off"]);
    for (body, name) in [
        (json!({}), "prompt"),
        (json!({ "prompt": "" , "add_special_tokens": false }), "prompt"),
        (json!({ "prompt": [] }), "prompt"),
        (json!({ "prompt": [[]] }), "prompt"),
        (json!({ "prompt": [1, -1] }), "prompt"),
        (json!({ "prompt": [1024] }), "prompt"),
        (json!({ "prompt": [1.5] }), "prompt"),
        (json!({ "prompt": 7 }), "prompt"),
        (json!({ "prompt": [["a"]] }), "prompt"),
        (json!({ "prompt": vec!["a"; 129] }), "prompt"),
        (json!({ "prompt": "a", "suffix": "b" }), "suffix"),
        (json!({ "prompt": "a", "best_of": 2, "n": 3 }), "best_of"),
        (json!({ "prompt": "a", "best_of": 2, "stream": true }), "best_of"),
        (json!({ "prompt": "a", "logprobs": true }), "logprobs"),
        (json!({ "prompt": "a", "max_tokens": -1 }), "max_tokens"),
    ] {
        let reply = server.post("/v1/completions", &body);
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
        assert_eq!(reply.error()["param"], name, "{body}: {}", reply.text());
    }
    for (path, body) in [
        ("/tokenize", json!({})),
        ("/tokenize", json!({ "prompt": "a", "messages": user("b") })),
        ("/detokenize", json!({})),
        ("/detokenize", json!({ "tokens": [1024] })),
        ("/detokenize", json!({ "tokens": "a" })),
    ] {
        assert_eq!(server.post(path, &body).status, 400, "{path} {body}");
    }
    server.wait_until_idle();
}

#[test]
fn null_and_harmless_fields_change_nothing() {
    let server = Server::start(&["--log", "off"]);
    let plain = server.post("/v1/chat/completions", &json!({ "messages": user("hi") })).json();
    let with = server.post("/v1/chat/completions", &json!({
        "messages": user("hi"), "user": "u", "metadata": { "a": 1 }, "store": true, "audio": null, "anything": null,
        "stop": null, "modalities": ["text"], "tools": [], "tool_choice": "none", "n": 1.0, "stream_options": null,
    }));
    assert_eq!(with.json()["choices"], plain["choices"]);
}

#[test]
fn a_key_guards_every_path_but_those_for_watchdogs() {
    let mut command = command(&["--log", "off", "--api-key", "one"]);
    let server = Server::of(command.env("SINTER_API_KEY", "two"));
    let guarded = [
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", "/v1/loads"),
        ("GET", "/load"),
        ("GET", "/version"),
        ("GET", "/server_info"),
        ("GET", "/get_server_info"),
        ("GET", "/get_model_info"),
        ("GET", "/model_info"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/nowhere"),
        ("PUT", "/v1/models"),
    ];
    for (method, path) in guarded {
        for headers in
            [&[][..], &["authorization: Bearer wrong"], &["x-api-key: on"], &["authorization: Basic one"]]
        {
            let reply = server.ask(method, path, headers, "");
            assert_eq!(reply.status, 401, "{method} {path} {headers:?}");
            assert_eq!(reply.error()["code"], "invalid_api_key");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
        for headers in ["authorization: Bearer one", "authorization: bearer two", "x-api-key: one"] {
            assert_ne!(server.ask(method, path, &[headers], "").status, 401, "{method} {path} {headers}");
        }
    }
    for path in ["/live", "/health", "/ready", "/ping"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn a_public_address_wants_a_key() {
    for host in ["0.0.0.0", "::"] {
        let output = command(&["--host", host]).output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(words.contains("--api-key"), "{words}");
    }
    let server = Server::start(&["--host", "0.0.0.0", "--api-key", "k", "--log", "off"]);
    assert!(server.address.starts_with("0.0.0.0:"));
    assert_eq!(server.get("/live").status, 200);
}

#[test]
fn ids_are_given_back_or_made() {
    let server = Server::start(&["--log", "off"]);
    assert_eq!(
        server.ask("GET", "/live", &["x-request-id: mine-1"], "").header("x-request-id"),
        Some("mine-1")
    );
    let made = |headers: &[&str]| {
        server.ask("GET", "/nowhere", headers, "").header("x-request-id").unwrap().to_owned()
    };
    assert!(made(&[]).starts_with("req-") && made(&[]) != made(&[]));
    assert!(made(&["x-request-id: two words"]).starts_with("req-"));
    assert!(made(&[&format!("x-request-id: {}", "a".repeat(129))]).starts_with("req-"));
}
