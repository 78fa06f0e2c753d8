//! What a client of a model that writes no text is told when it is wrong, and where the paths of other models end.

use crate::client::{Server, command_for};
use crate::reader_models::{encoder, sentence_encoder, words};
use serde_json::{Value, json};
use std::path::Path;

fn serve(model: &Path, args: &[&str]) -> Server {
    Server::of(&mut command_for(model, &[&["--log", "off"], args].concat()))
}

#[test]
fn every_wrong_field_is_named() {
    let model = sentence_encoder("bert", "mean");
    let server = serve(model.path(), &[]);
    let long = words(0..63);
    for (body, name) in [
        (json!({}), "input"),
        (json!({ "input": [] }), "input"),
        (json!({ "input": 7 }), "input"),
        (json!({ "input": [[]] }), "input[0]"),
        (json!({ "input": [1, -1] }), "input"),
        (json!({ "input": [101] }), "input"),
        (json!({ "input": [1.5] }), "input"),
        (json!({ "input": [["a"]] }), "input"),
        (json!({ "input": ["w4", null] }), "input"),
        (json!({ "input": "", "add_special_tokens": false }), "input"),
        (json!({ "input": ["w4", ""], "add_special_tokens": false }), "input[1]"),
        (json!({ "input": vec!["w4"; 2049] }), "input"),
        (json!({ "input": long }), "input"),
        (json!({ "input": ["w4", long] }), "input[1]"),
        (json!({ "input": vec![5; 65] }), "input"),
        (json!({ "input": "w4", "encoding_format": "hex" }), "encoding_format"),
        (json!({ "input": "w4", "dimensions": 0 }), "dimensions"),
        (json!({ "input": "w4", "dimensions": 31 }), "dimensions"),
        (json!({ "input": "w4", "truncate_prompt_tokens": 0 }), "truncate_prompt_tokens"),
        (json!({ "input": "w4", "truncate_prompt_tokens": 65 }), "truncate_prompt_tokens"),
        (json!({ "input": "w4", "truncate_prompt_tokens": -2 }), "truncate_prompt_tokens"),
        (json!({ "input": "w4", "task": "query" }), "task"),
        (json!({ "input": "w4", "temperature": 1 }), "temperature"),
    ] {
        let reply = server.post("/v1/embeddings", &body);
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
        assert_eq!(reply.error()["param"], name, "{body}: {}", reply.text());
    }
    let reply = server.post("/v1/embeddings", &json!({ "input": long }));
    assert_eq!(reply.error()["code"], "context_length_exceeded");
    assert!(reply.error()["message"].as_str().unwrap().contains("65 tokens, this model reads 64 at most"));
    assert_eq!(server.post("/v1/embeddings", &json!({ "input": "a", "model": "other" })).status, 404);
    server.wait_until_idle();
    assert_eq!(server.metric("sinter:requests_total"), 0.0);
}

#[test]
fn texts_are_cut_where_the_request_says_so() {
    let model = sentence_encoder("bert", "mean");
    let server = serve(model.path(), &[]);
    let ask = |body: Value| server.post("/v1/embeddings", &body).json();
    let cut = ask(json!({ "input": words(0..90), "truncate_prompt_tokens": -1 }));
    // The mark at the end stays.
    let same = ask(json!({ "input": words(0..62) }));
    assert_eq!((&cut["data"], &cut["usage"]), (&same["data"], &same["usage"]));
    let short = ask(json!({ "input": [words(0..90), words(0..5)], "truncate_prompt_tokens": 10 }));
    let same = ask(json!({ "input": [words(0..8), words(0..5)] }));
    assert_eq!((&short["data"], &short["usage"]["prompt_tokens"]), (&same["data"], &json!(17)));
    let less = serve(model.path(), &["--max-context", "20"]);
    assert_eq!(less.get("/v1/models").json()["data"][0]["max_model_len"], 20);
    assert_eq!(less.post("/v1/embeddings", &json!({ "input": words(0..19) })).status, 400);
    assert_eq!(less.post("/v1/embeddings", &json!({ "input": words(0..18) })).status, 200);
}

#[test]
fn every_wrong_field_of_scores_is_named() {
    let model = encoder("roberta_scores");
    let server = serve(model.path(), &[]);
    let long = words(0..80);
    for (path, body, name) in [
        ("/v1/rerank", json!({ "documents": ["a"] }), "query"),
        ("/v1/rerank", json!({ "query": "a" }), "documents"),
        ("/v1/rerank", json!({ "query": "a", "documents": [] }), "documents"),
        ("/v1/rerank", json!({ "query": "a", "documents": [1] }), "documents[0]"),
        ("/v1/rerank", json!({ "query": "a", "documents": ["b", { "image": "c" }] }), "documents[1]"),
        ("/v1/rerank", json!({ "query": "a", "documents": ["b", long] }), "documents[1]"),
        ("/v1/rerank", json!({ "query": "a", "documents": ["b"], "top_n": -1 }), "top_n"),
        (
            "/v1/rerank",
            json!({ "query": long, "documents": [long], "truncate_prompt_tokens": -1 }),
            "documents[0]",
        ),
        ("/score", json!({ "text_1": "a" }), "text_2"),
        ("/score", json!({ "text_1": ["a", "b"], "text_2": ["a", "b", "c"] }), "text_2"),
        ("/score", json!({ "text_1": [1], "text_2": "a" }), "text_1"),
        ("/score", json!({ "text_1": "a", "text_2": ["a", long] }), "text_2[1]"),
        ("/classify", json!({ "input": long }), "input"),
        ("/classify", json!({ "input": "a", "dimensions": 2 }), "dimensions"),
    ] {
        let reply = server.post(path, &body);
        assert_eq!(reply.status, 400, "{path} {body}: {}", reply.text());
        assert_eq!(reply.error()["param"], name, "{path} {body}: {}", reply.text());
    }
    server.wait_until_idle();
}

#[test]
fn paths_of_other_models_say_so() {
    let (vectors, scores) = (sentence_encoder("bert", "mean"), encoder("bert_scores"));
    let (vectors, scores) = (serve(vectors.path(), &[]), serve(scores.path(), &[]));
    let writer = Server::start(&["--log", "off"]);
    let conversation = json!({ "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 4 });
    let writing = [
        ("/v1/chat/completions", conversation.clone()),
        ("/v1/completions", json!({ "prompt": "a" })),
        ("/v1/responses", json!({ "input": "a" })),
    ];
    let embedding = [("/v1/embeddings", json!({ "input": "a" }))];
    let scoring = [
        ("/v1/rerank", json!({ "query": "a", "documents": ["b"] })),
        ("/score", json!({ "text_1": "a", "text_2": "b" })),
        ("/classify", json!({ "input": "a" })),
    ];
    for (server, refused, words) in [
        (&vectors, [&writing[..], &scoring].concat(), "makes vectors of texts; "),
        (&scores, [&writing[..], &embedding].concat(), "scores texts; "),
        (&writer, [&embedding[..], &scoring].concat(), "writes texts; "),
    ] {
        for (path, body) in refused {
            let reply = server.post(path, &body);
            assert_eq!(reply.status, 400, "{path}: {}", reply.text());
            let error = reply.error();
            assert_eq!((&error["code"], &error["param"]), (&json!("unsupported_model"), &json!("model")));
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(words) && message.contains(path), "{message}");
        }
    }
    // The Messages interface has a shape of its own for errors.
    let reply = vectors.post("/v1/messages", &conversation);
    let error: Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!((reply.status, &error["error"]["type"]), (400, &json!("invalid_request_error")), "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("makes vectors of texts"));
    assert_eq!(vectors.get("/").status, 400);
    assert_eq!(vectors.get("/v1/state").json()["running"], 0);
    for (server, writes) in [(&vectors, false), (&scores, false), (&writer, true)] {
        assert_eq!(server.get("/get_model_info").json()["is_generation"], writes);
        assert_eq!(server.get("/health").status, 200);
        assert!(server.get("/openapi.json").json()["paths"]["/v1/embeddings"]["post"].is_object());
    }
}

#[test]
fn flags_that_would_do_nothing_are_refused() {
    let model = encoder("bert");
    for flags in [
        &["--speculate", "ngram"][..],
        &["--draft-model", "m"],
        &["--tool-parser", "none"],
        &["--reasoning-parser", "none"],
        &["--no-prefix-cache"],
        &["--kv-memory", "1GiB"],
    ] {
        let output = command_for(model.path(), flags).output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {words}");
        assert!(words.contains(flags[0].replace("draft-model", "speculate").as_str()), "{words}");
    }
}
