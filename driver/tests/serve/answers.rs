//! Conversations and completions.

use crate::client::{Reply, Server};
use serde_json::{Value, json};

const QUESTION: &str = "What is 12 plus 7?";

fn conversation(more: Value) -> Value {
    let mut body = json!({ "model": "model", "messages": [{ "role": "user", "content": QUESTION }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn chat(server: &Server, more: Value) -> Value {
    server.post("/v1/chat/completions", &conversation(more)).json()
}

fn complete(server: &Server, body: Value) -> Value {
    server.post("/v1/completions", &body).json()
}

fn content(value: &Value) -> &str {
    value["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("no content in {value}"))
}

/// The texts of a stream's answers, and the reasons of their ends.
fn streamed(reply: &Reply, n: usize, text: impl Fn(&Value) -> Option<&str>) -> Vec<(String, String)> {
    let mut all = vec![(String::new(), String::new()); n];
    for event in reply.events() {
        for choice in event["choices"].as_array().unwrap() {
            let (said, reason) = &mut all[choice["index"].as_u64().unwrap() as usize];
            assert_eq!(reason, "", "nothing comes after the end");
            *said += text(choice).unwrap_or_default();
            *reason = choice["finish_reason"].as_str().unwrap_or_default().to_owned();
        }
    }
    all
}

#[test]
fn a_conversation_is_answered_whole_and_in_pieces() {
    let server = Server::start(&["--log", "off"]);
    let whole = chat(&server, json!({}));
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(content(&whole), "12 + 7 = 19.");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let usage = &whole["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    let asked = conversation(json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let reply = server.post("/v1/chat/completions", &asked);
    let pieces = streamed(&reply, 1, |choice| choice["delta"]["content"].as_str());
    assert_eq!(pieces, [("12 + 7 = 19.".to_owned(), "stop".to_owned())]);
    let events = reply.events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let last = events.last().unwrap();
    assert_eq!(
        (last["choices"].as_array().unwrap().len(), &last["usage"]["completion_tokens"]),
        (0, &usage["completion_tokens"])
    );
    assert!(events.iter().rev().skip(1).all(|event| event["usage"].is_null()));
    assert!(
        events
            .iter()
            .all(|event| event["id"] == events[0]["id"] && event["object"] == "chat.completion.chunk")
    );
    // Without the option no chunk speaks of it.
    let plain = server.post("/v1/chat/completions", &conversation(json!({ "stream": true }))).events();
    assert!(plain.iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn parts_roles_and_continued_messages_are_understood() {
    let server = Server::start(&["--log", "off"]);
    let parts =
        json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": QUESTION }] }] });
    assert_eq!(content(&server.post("/v1/chat/completions", &parts).json()), "12 + 7 = 19.");
    let begun = json!({
        "messages": [{ "role": "user", "content": QUESTION }, { "role": "assistant", "content": "12 + 7 =" }],
        "continue_final_message": true,
    });
    assert_eq!(content(&server.post("/v1/chat/completions", &begun).json()), " 19.");
}

#[test]
fn several_answers_end_each_for_its_own_reason() {
    let server = Server::start(&["--log", "off"]);
    let more = json!({ "n": 3, "temperature": 1.0, "seed": 11, "max_tokens": 6 });
    let whole = chat(&server, more.clone());
    let texts = |value: &Value| {
        let all = value["choices"].as_array().unwrap().iter();
        all.map(|choice| choice["message"]["content"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(texts(&whole).len(), 3);
    let mut more = more;
    more["stream"] = json!(true);
    let reply = server.post("/v1/chat/completions", &conversation(more));
    let pieces = streamed(&reply, 3, |choice| choice["delta"]["content"].as_str());
    assert_eq!(pieces.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>(), texts(&whole));
    // The same seed gives the same answers, another one others.
    assert_eq!(
        texts(&chat(&server, json!({ "n": 3, "temperature": 1.0, "seed": 11, "max_tokens": 6 }))),
        texts(&whole)
    );
    server.wait_until_idle();
}

#[test]
fn stop_texts_end_an_answer_before_they_are_shown() {
    let server = Server::start(&["--log", "off"]);
    for stream in [false, true] {
        let more = json!({ "stop": [" = 1"], "stream": stream, "n": 2 });
        let reply = server.post("/v1/chat/completions", &conversation(more));
        let ended = match stream {
            true => streamed(&reply, 2, |choice| choice["delta"]["content"].as_str()),
            false => {
                let value = reply.json();
                assert_eq!(value["choices"][0]["stop_reason"], " = 1");
                let one = |choice: &Value| {
                    let text = choice["message"]["content"].as_str().unwrap().to_owned();
                    (text, choice["finish_reason"].as_str().unwrap().to_owned())
                };
                value["choices"].as_array().unwrap().iter().map(one).collect()
            }
        };
        assert_eq!(ended, vec![("12 + 7".to_owned(), "stop".to_owned()); 2]);
    }
    let included = chat(&server, json!({ "stop": " = 1", "include_stop_str_in_output": true }));
    assert_eq!(content(&included), "12 + 7 = 1");
    server.wait_until_idle();
}

#[test]
fn limits_and_biases_work() {
    let server = Server::start(&["--log", "off"]);
    for name in ["max_tokens", "max_completion_tokens"] {
        let value = chat(&server, json!({ name: 2 }));
        assert_eq!(
            (&value["choices"][0]["finish_reason"], &value["usage"]["completion_tokens"]),
            (&json!("length"), &json!(2))
        );
    }
    let ids = server.post("/tokenize", &json!({ "prompt": "!", "add_special_tokens": false })).json();
    let id = ids["tokens"][0].as_u64().unwrap();
    let value =
        chat(&server, json!({ "logit_bias": { id.to_string(): 100 }, "max_tokens": 3, "temperature": 0 }));
    assert_eq!(content(&value), "!!!");
    let stopped = chat(
        &server,
        json!({ "logit_bias": { id.to_string(): 100 }, "stop_token_ids": [id], "max_tokens": 3 }),
    );
    assert_eq!((content(&stopped), &stopped["choices"][0]["stop_reason"]), ("", &json!(id)));
}

#[test]
fn log_probabilities_are_those_of_the_answer() {
    let server = Server::start(&["--log", "off"]);
    let value = chat(&server, json!({ "logprobs": true, "top_logprobs": 3, "temperature": 0 }));
    let tokens = value["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text, content(&value));
    assert_eq!(tokens.len() as u64, value["usage"]["completion_tokens"].as_u64().unwrap());
    for token in tokens {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(
            (top.len(), &top[0]["token"], &top[0]["logprob"]),
            (3, &token["token"], &token["logprob"])
        );
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    }
    let reply = server.post(
        "/v1/chat/completions",
        &conversation(json!({ "logprobs": true, "top_logprobs": 3, "temperature": 0, "stream": true })),
    );
    let events = reply.events();
    let pieces = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(&pieces.flatten().cloned().collect::<Vec<_>>(), tokens);
}

#[test]
fn answers_can_be_held_to_a_form() {
    let server = Server::start(&["--log", "off"]);
    let schema = json!({
        "type": "object",
        "properties": { "sum": { "type": "integer", "minimum": 0, "maximum": 99 } },
        "required": ["sum"],
        "additionalProperties": false,
    });
    let format =
        json!({ "type": "json_schema", "json_schema": { "name": "sum", "schema": schema, "strict": true } });
    for more in [
        json!({ "response_format": format }),
        json!({ "guided_json": schema }),
        json!({ "structured_outputs": { "json": schema } }),
    ] {
        let value = chat(&server, more);
        let answer: Value = serde_json::from_str(content(&value)).unwrap();
        assert!((0..=99).contains(&answer["sum"].as_i64().unwrap()));
    }
    let value = chat(&server, json!({ "response_format": { "type": "text" } }));
    assert_eq!(content(&value), "12 + 7 = 19.");
    let chosen = chat(&server, json!({ "guided_choice": ["yes \"it is\"", "no"] }));
    assert!(["yes \"it is\"", "no"].contains(&content(&chosen)));
    let number = chat(&server, json!({ "guided_regex": "[0-9]{3}" }));
    assert!(content(&number).len() == 3 && content(&number).bytes().all(|byte| byte.is_ascii_digit()));
    let lark = chat(&server, json!({ "guided_grammar": "start: \"left\" | \"right\"" }));
    assert!(["left", "right"].contains(&content(&lark)));
}

#[test]
fn prompts_are_texts_or_ids_one_or_many() {
    let server = Server::start(&["--log", "off"]);
    let text = "Once upon a time";
    let ids = server.post("/tokenize", &json!({ "prompt": text })).json()["tokens"].clone();
    let alone = complete(&server, json!({ "prompt": text, "max_tokens": 8 }));
    let one = alone["choices"][0]["text"].clone();
    assert_eq!(alone["object"], "text_completion");
    for prompt in [json!([text]), ids.clone(), json!([ids])] {
        assert_eq!(
            complete(&server, json!({ "prompt": prompt, "max_tokens": 8 }))["choices"][0]["text"],
            one
        );
    }
    let many = complete(&server, json!({ "prompt": [text, "The sun", text], "max_tokens": 8, "n": 2 }));
    let texts: Vec<&Value> =
        many["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts.len(), 6);
    assert_eq!((texts[0], texts[1], texts[4]), (&one, &one, &one));
    assert_eq!(
        many["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| choice["index"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5]
    );
    let reply = server.post(
        "/v1/completions",
        &json!({ "prompt": [text, "The sun", text], "max_tokens": 8, "n": 2, "stream": true }),
    );
    let pieces = streamed(&reply, 6, |choice| choice["text"].as_str());
    assert_eq!(
        pieces.iter().map(|(text, _)| json!(text)).collect::<Vec<_>>(),
        texts.into_iter().cloned().collect::<Vec<_>>()
    );
    let best = complete(
        &server,
        json!({ "prompt": text, "max_tokens": 8, "best_of": 4, "n": 1, "temperature": 1.5, "seed": 1 }),
    );
    assert_eq!(
        (best["choices"].as_array().unwrap().len(), &best["choices"][0]["logprobs"]),
        (1, &Value::Null)
    );
}

/// What `lm-eval` asks for: the log probabilities of a given text.
#[test]
fn the_prompt_is_echoed_with_its_log_probabilities() {
    let server = Server::start(&["--log", "off"]);
    let text = "The sun is";
    let asked = json!({ "prompt": text, "max_tokens": 0, "echo": true, "logprobs": 2 });
    let nothing = complete(&server, asked.clone());
    assert_eq!(nothing["choices"][0]["text"], text);
    assert_eq!(nothing["usage"]["completion_tokens"], 0);
    let logprobs = &nothing["choices"][0]["logprobs"];
    let list = |name: &str| logprobs[name].as_array().unwrap().clone();
    let count = nothing["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(list(name).len(), count, "{name}");
    }
    assert!(list("token_logprobs")[0].is_null() && list("token_logprobs")[1..].iter().all(Value::is_number));
    // A greedy answer and then its echo: the same tokens have the same log probabilities, bit by bit.
    let said = complete(&server, json!({ "prompt": text, "max_tokens": 6, "logprobs": 0, "temperature": 0 }));
    let ids =
        server.post("/tokenize", &json!({ "prompt": text })).json()["tokens"].as_array().unwrap().clone();
    let own = said["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap();
    let both = format!("{text}{}", said["choices"][0]["text"].as_str().unwrap());
    let echoed = complete(&server, json!({ "prompt": both, "max_tokens": 0, "echo": true, "logprobs": 0 }));
    let echoed = echoed["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap();
    assert_eq!(&echoed[ids.len()..ids.len() + own.len()], &own[..]);
    let reply = server.post("/v1/completions", &{
        let mut asked = asked;
        asked["stream"] = json!(true);
        asked
    });
    let pieces = streamed(&reply, 1, |choice| choice["text"].as_str());
    assert_eq!(pieces, [(text.to_owned(), "length".to_owned())]);
    let events = reply.events();
    let values =
        events.iter().filter_map(|event| event["choices"][0]["logprobs"]["token_logprobs"].as_array());
    assert_eq!(values.flatten().cloned().collect::<Vec<_>>(), list("token_logprobs"));
}

#[test]
fn texts_become_tokens_and_come_back() {
    let server = Server::start(&["--log", "off"]);
    let text = "Caf\u{e9} \u{1f600}!";
    let there = server
        .post("/tokenize", &json!({ "prompt": text, "add_special_tokens": false, "return_token_strs": true }))
        .json();
    assert_eq!(there["count"].as_u64().unwrap() as usize, there["tokens"].as_array().unwrap().len());
    assert_eq!(
        (there["token_strs"].as_array().unwrap().len(), &there["max_model_len"]),
        (there["tokens"].as_array().unwrap().len(), &json!(512))
    );
    let back = server.post("/detokenize", &json!({ "tokens": there["tokens"] })).json();
    assert_eq!(back["prompt"], text);
    let conversation =
        server.post("/tokenize", &json!({ "messages": [{ "role": "user", "content": "hi" }] })).json();
    let prompt = server.post("/detokenize", &json!({ "tokens": conversation["tokens"] })).json();
    assert_eq!(prompt["prompt"], "<|bos|><|user|>hi<|end|><|assistant|>");
}

#[test]
fn an_answer_is_the_same_alone_and_in_company() {
    let server = Server::start(&["--log", "off", "--max-sequences", "8"]);
    let asked = |seed: u64| match seed {
        0 => conversation(json!({ "temperature": 0, "logprobs": true, "top_logprobs": 2, "max_tokens": 24 })),
        _ => conversation(json!({ "temperature": 1.0, "seed": seed, "logprobs": true, "max_tokens": 24 })),
    };
    let answer = |seed: u64| server.post("/v1/chat/completions", &asked(seed)).json()["choices"].clone();
    let alone: Vec<Value> = (0..8).map(answer).collect();
    let server = &server;
    for round in 0..3 {
        let crowd: Vec<Value> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..16u64).map(|at| scope.spawn(move || answer((at + round) % 8))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (at, found) in crowd.iter().enumerate() {
            assert_eq!(found, &alone[(at + round as usize) % 8], "bits differ in company");
        }
    }
    server.wait_until_idle();
}
