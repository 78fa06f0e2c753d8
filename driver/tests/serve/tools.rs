//! Calls of tools, which the example model can only be made to write.

use crate::client::Server;
use serde_json::{Value, json};

/// Two tools whose arguments cannot be long.
fn tools() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "city": { "enum": ["Oslo", "Rome"] },
            "deep": {
                "type": "object",
                "properties": { "metric": { "type": "boolean" } },
                "required": ["metric"],
                "additionalProperties": false,
            },
        },
        "required": ["city", "deep"],
        "additionalProperties": false,
    });
    let nothing = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    json!([
        { "type": "function", "function": { "name": "weather", "description": "tells", "parameters": schema } },
        { "type": "function", "function": { "name": "now", "parameters": nothing } },
    ])
}

fn body(choice: Value, more: Value) -> Value {
    let mut body = json!({
        "messages": [{ "role": "user", "content": "weather?" }],
        "tools": tools(),
        "tool_choice": choice,
        "max_tokens": 300,
        "seed": 1,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn check(call: &Value) {
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    match call["function"]["name"].as_str().unwrap() {
        "weather" => assert!(
            ["Oslo", "Rome"].contains(&arguments["city"].as_str().unwrap())
                && arguments["deep"]["metric"].is_boolean(),
            "{call}"
        ),
        name => assert_eq!((name, arguments), ("now", json!({}))),
    }
    assert!(call["id"].as_str().unwrap().starts_with("call_") && call["type"] == "function", "{call}");
}

#[test]
fn calls_are_forced_whole_and_in_pieces() {
    let server = Server::start(&[]);
    let named = json!({ "type": "function", "function": { "name": "weather" } });
    let allowed = json!({ "type": "allowed_tools", "allowed_tools": {
        "mode": "required", "tools": [{ "type": "function", "function": { "name": "now" } }] } });
    let single = json!({ "parallel_tool_calls": false });
    for (choice, more, name) in [
        (named, json!({}), Some("weather")),
        (json!("required"), single.clone(), None),
        (allowed, single, Some("now")),
    ] {
        let whole = server.post("/v1/chat/completions", &body(choice.clone(), more.clone())).json();
        let first = &whole["choices"][0];
        assert_eq!(first["finish_reason"], "tool_calls", "{whole}");
        assert!(first["message"]["content"].is_null());
        let calls = first["message"]["tool_calls"].as_array().unwrap();
        assert_eq!(calls.len(), 1);
        calls.iter().for_each(check);
        assert!(name.is_none_or(|name| calls[0]["function"]["name"] == name));

        let mut more = more;
        more["stream"] = json!(true);
        let events = server.post("/v1/chat/completions", &body(choice, more)).events();
        let deltas = events.iter().map(|event| &event["choices"][0]["delta"]);
        let parts: Vec<&Value> =
            deltas.flat_map(|delta| delta["tool_calls"].as_array().into_iter().flatten()).collect();
        assert!(parts[0]["function"]["arguments"] == "" && parts[0]["index"] == 0);
        assert!(parts.len() >= 3, "the arguments come in pieces");
        let text: String = parts.iter().map(|part| part["function"]["arguments"].as_str().unwrap()).collect();
        assert_eq!(text, calls[0]["function"]["arguments"].as_str().unwrap());
        assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
        assert!(
            events
                .iter()
                .all(|event| event["choices"][0]["delta"]["content"].as_str().is_none_or(str::is_empty))
        );
    }
    server.wait_until_idle();
}

#[test]
fn a_conversation_goes_on_after_a_call() {
    let server = Server::start(&[]);
    let call = json!({ "id": "call_1", "type": "function", "function": {
        "name": "weather", "arguments": "{\"city\": \"Oslo\", \"deep\": {\"metric\": true}}" } });
    let mut request = body(json!("none"), json!({ "max_tokens": 5 }));
    request["messages"] = json!([
        { "role": "user", "content": "weather?" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "call_1", "content": "12" },
    ]);
    let reply = server.post("/v1/chat/completions", &request).json();
    assert!(reply["choices"][0]["message"].get("tool_calls").is_none());
}

#[test]
fn wrong_wishes_are_refused_by_name() {
    let server = Server::start(&[]);
    for (field, value, param) in [
        ("tool_choice", json!("auto"), "tool_choice"),
        ("tool_choice", json!("perhaps"), "tool_choice"),
        ("tool_choice", json!({ "type": "function", "function": { "name": "f" } }), "tool_choice"),
        ("tools", json!([]), "tool_choice"),
        ("tools", json!([{ "type": "function", "function": { "name": "a b" } }]), "tools[0].function.name"),
        (
            "tools",
            json!([{ "type": "function", "function": { "name": "f", "parameters": 3 } }]),
            "tools[0].function.parameters",
        ),
        ("tools", json!([tools()[0], tools()[0]]), "tools"),
    ] {
        let mut request = body(json!("required"), json!({}));
        request[field] = value;
        let reply = server.post("/v1/chat/completions", &request);
        assert_eq!((reply.status, reply.error()["param"].as_str()), (400, Some(param)), "{}", reply.text());
    }
}

#[test]
fn tools_that_may_be_called_and_a_form_exclude_each_other() {
    let server = Server::start(&["--tool-parser", "hermes"]);
    let mut request =
        body(json!("auto"), json!({ "response_format": { "type": "json_object" }, "max_tokens": 1 }));
    let refused = server.post("/v1/chat/completions", &request);
    assert_eq!((refused.status, refused.error()["param"].as_str()), (400, Some("tool_choice")));
    request["tool_choice"] = json!("none");
    assert_eq!(server.post("/v1/chat/completions", &request).status, 200);
    let tool = json!({ "type": "function", "name": "now" });
    let request = json!({ "input": "x", "tools": [tool], "text": { "format": { "type": "json_object" } } });
    let refused = server.post("/v1/responses", &request);
    assert_eq!((refused.status, refused.error()["param"].as_str()), (400, Some("tool_choice")));
}
