//! Vectors and scores over HTTP: those of `sinter embed` and `sinter score`, bit for bit, alone and in company.

use crate::client::{Server, command_for};
use crate::reader_models::{encoder, sentence_decoder, sentence_encoder, texts, words};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn serve(model: &Path, args: &[&str]) -> Server {
    Server::of(&mut command_for(model, &[&["--log", "off"], args].concat()))
}

/// What a command says, as JSON.
fn command(args: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
    command.env("SINTER_CACHE", std::env::temp_dir().join("sinter-serve-tests"));
    let done = command.args(["--json"]).args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn bits(vector: &Value) -> Vec<u32> {
    vector.as_array().unwrap().iter().map(|x| (x.as_f64().unwrap() as f32).to_bits()).collect()
}

/// The bits of each vector of a response, which must be complete and in order.
fn vectors(response: &Value) -> Vec<Vec<u32>> {
    assert_eq!(response["object"], "list");
    let one = |(at, one): (usize, &Value)| {
        assert_eq!((&one["object"], &one["index"]), (&json!("embedding"), &json!(at)));
        bits(&one["embedding"])
    };
    response["data"].as_array().unwrap().iter().enumerate().map(one).collect()
}

/// The bits of numbers in base64.
fn decoded(text: &str) -> Vec<u32> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let value = |byte: &u8| LETTERS.iter().position(|letter| letter == byte).unwrap_or(0) as u32;
        let all = four.iter().fold(0, |all, byte| all << 6 | value(byte));
        bytes.extend(
            all.to_be_bytes()[1..].iter().take(3 - four.iter().filter(|byte| **byte == b'=').count()),
        );
    }
    bytes.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn vectors_are_those_of_the_command_alone_and_in_company() {
    let models = [
        ("bert", sentence_encoder("bert", "mean")),
        ("roberta", encoder("roberta")),
        ("modernbert", sentence_encoder("modernbert", "cls")),
        ("nomic_bert", sentence_encoder("nomic_bert", "mean")),
        ("qwen3", sentence_decoder("qwen3")),
    ];
    for (name, model) in models {
        let texts = texts(24);
        let path = model.path().display().to_string();
        let given: Vec<&str> = texts.iter().map(String::as_str).collect();
        let wanted = command(&[&["embed", &path, "--device", "host", "--"], &given[..]].concat());
        let tokens: u64 =
            wanted["tokens"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
        let wanted: Vec<Vec<u32>> = wanted["embeddings"].as_array().unwrap().iter().map(bits).collect();
        let server = serve(model.path(), &["--max-sequences", "6", "--max-step-tokens", "100"]);
        let all = server.post("/v1/embeddings", &json!({ "input": texts })).json();
        assert_eq!(vectors(&all), wanted, "{name}");
        assert_eq!(all["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
        // Many clients, each with one text.
        std::thread::scope(|scope| {
            for (text, wanted) in texts.iter().zip(&wanted) {
                let server = &server;
                scope.spawn(move || {
                    let one = server.post("/v1/embeddings", &json!({ "input": text })).json();
                    assert_eq!(&vectors(&one)[0], wanted, "{name}");
                });
            }
        });
        let coded =
            server.post("/v1/embeddings", &json!({ "input": texts, "encoding_format": "base64" })).json();
        for (one, wanted) in coded["data"].as_array().unwrap().iter().zip(&wanted) {
            assert_eq!(&decoded(one["embedding"].as_str().unwrap()), wanted, "{name}");
        }
        server.wait_until_idle();
        assert_eq!(server.metric("sinter:requests_total"), 26.0);
        assert_eq!(server.metric("vllm:prompt_tokens_total"), 3.0 * tokens as f64);
    }
}

#[test]
fn every_form_of_input_is_read() {
    let model = sentence_encoder("bert", "mean");
    let server = serve(model.path(), &["--served-model-name", "small"]);
    let ask =
        |input: Value| server.post("/v1/embeddings", &json!({ "input": input, "model": "small" })).json();
    let text = words([1, 2, 3]);
    let one = vectors(&ask(json!(text)));
    let ids = server.post("/tokenize", &json!({ "prompt": text })).json()["tokens"].clone();
    assert_eq!(ids, json!([2, 5, 6, 7, 3]));
    for (input, count) in [
        (json!([text]), 1),
        (ids.clone(), 1),
        (json!([ids]), 1),
        (json!([text, ids]), 2),
        (json!([ids, ids]), 2),
    ] {
        assert_eq!(vectors(&ask(input)), vec![one[0].clone(); count]);
    }
    let plain = json!({ "input": text, "add_special_tokens": false });
    let bare = server.post("/v1/embeddings", &plain).json();
    assert_eq!(bare["usage"]["prompt_tokens"], 3);
    assert_eq!(vectors(&bare), vectors(&ask(json!([5, 6, 7]))));
    // Harmless fields and null change nothing.
    let with = json!({ "input": text, "user": "u", "dimensions": null, "encoding_format": "float" });
    let with = server.post("/v1/embeddings", &with).json();
    assert_eq!((vectors(&with), &with["model"]), (one, &json!("small")));
    assert_eq!(server.get("/v1/models/small").json()["max_model_len"], 64);
}

#[test]
fn a_vector_is_shortened_as_it_is_asked_for() {
    let model = sentence_encoder("bert", "mean");
    let server = serve(model.path(), &[]);
    let plain_model = encoder("bert");
    let plain = serve(plain_model.path(), &[]);
    let ask = |server: &Server, dimensions: Option<usize>| -> Vec<f64> {
        let body = json!({ "input": words([9, 8, 7]), "dimensions": dimensions });
        let found = server.post("/v1/embeddings", &body).json();
        found["data"][0]["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let (whole, raw) = (ask(&server, None), ask(&plain, None));
    assert_eq!((whole.len(), ask(&server, Some(30))), (30, whole.clone()));
    let length = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    for dimensions in [1, 7, 29] {
        let short = ask(&server, Some(dimensions));
        assert_eq!(short.len(), dimensions);
        assert!((length(&short) - 1.0).abs() < 1e-6);
        let scale = length(&whole[..dimensions]);
        assert!(short.iter().zip(&whole).all(|(short, whole)| (short - whole / scale).abs() < 1e-6));
        // A model whose vectors have any length keeps it.
        assert_eq!(ask(&plain, Some(dimensions)), raw[..dimensions]);
    }
}

#[test]
fn scores_are_those_of_the_command() {
    let model = one_label("bert_scores");
    let path = model.path().display().to_string();
    let documents: Vec<String> = texts(12);
    let query = words([3, 1, 4, 1, 5]);
    let given: Vec<&str> = documents.iter().map(String::as_str).collect();
    let wanted = command(&[&["score", &path, "--device", "host", &query], &given[..]].concat());
    let tokens: u64 = wanted["tokens"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    let wanted: Vec<f64> =
        wanted["scores"].as_array().unwrap().iter().map(|row| row[0].as_f64().unwrap()).collect();
    let server = serve(model.path(), &["--max-sequences", "5"]);
    let body = json!({ "text_1": query, "text_2": documents, "use_activation": false });
    let scores = server.post("/score", &body).json();
    let found = |list: &Value, name: &str| -> Vec<f64> {
        list.as_array().unwrap().iter().map(|one| one[name].as_f64().unwrap()).collect()
    };
    assert_eq!(found(&scores["data"], "score"), wanted);
    assert_eq!((&scores["object"], &scores["usage"]["prompt_tokens"]), (&json!("list"), &json!(tokens)));
    // One label without a word of sentence-transformers goes through a sigmoid.
    let shares: Vec<f64> = wanted.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    let pairs = json!({ "text_1": vec![&query; 12], "text_2": documents });
    assert_eq!(found(&server.post("/v1/score", &pairs).json()["data"], "score"), shares);
    // The best come first, with their places and texts.
    let ranked = server.post("/v1/rerank", &json!({ "query": query, "documents": documents })).json();
    let ranked = ranked["results"].as_array().unwrap();
    assert_eq!(ranked.len(), 12);
    assert!(
        ranked.windows(2).all(|two| two[0]["relevance_score"].as_f64() >= two[1]["relevance_score"].as_f64())
    );
    for one in ranked {
        let at = one["index"].as_u64().unwrap() as usize;
        assert_eq!(
            (one["relevance_score"].as_f64().unwrap(), &one["document"]["text"]),
            (shares[at], &json!(documents[at]))
        );
    }
    let objects: Vec<Value> = documents.iter().map(|text| json!({ "text": text })).collect();
    let few = json!({ "query": query, "documents": objects, "top_n": 3, "return_documents": false });
    for path in ["/rerank", "/v2/rerank"] {
        let few = server.post(path, &few).json();
        let few = few["results"].as_array().unwrap();
        assert_eq!(few.len(), 3);
        for (one, whole) in few.iter().zip(ranked) {
            assert_eq!(
                (&one["index"], &one["relevance_score"]),
                (&whole["index"], &whole["relevance_score"])
            );
            assert!(one.get("document").is_none());
        }
    }
}

/// A golden whose head is cut to its first label.
fn one_label(golden: &str) -> tempfile::TempDir {
    let folder = encoder(golden);
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let shorter = tensors.tensors().into_iter().map(|(name, view)| {
        let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
        if name.starts_with("classifier.") {
            data.truncate(data.len() / shape[0]);
            shape[0] = 1;
        }
        (name, view.dtype(), shape, data)
    });
    let shorter: Vec<_> = shorter.collect();
    let views = shorter.iter().map(|(name, dtype, shape, data)| {
        (name.as_str(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let map = config.as_object_mut().unwrap();
    map.insert("id2label".into(), json!({ "0": "relevant" }));
    map.insert("label2id".into(), json!({ "relevant": 0 }));
    std::fs::write(&path, config.to_string()).unwrap();
    folder
}

#[test]
fn texts_get_their_labels() {
    let model = encoder("bert_scores");
    let config: Value =
        serde_json::from_slice(&std::fs::read(model.path().join("config.json")).unwrap()).unwrap();
    let labels = config["id2label"].as_object().unwrap().clone();
    let path = model.path().display().to_string();
    let (text, other) = (words([11, 12]), words([50, 60, 70]));
    let wanted = command(&["score", &path, "--device", "host", &text]);
    let wanted: Vec<f64> =
        wanted["scores"][0].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let server = serve(model.path(), &[]);
    let raw = json!({ "input": [other, text], "use_activation": false });
    let raw = server.post("/classify", &raw).json();
    let numbers = |value: &Value| -> Vec<f64> {
        value["probs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    assert_eq!(
        (numbers(&raw["data"][1]), &raw["data"][1]["num_classes"]),
        (wanted.clone(), &json!(wanted.len()))
    );
    let shares = server.post("/v1/classify", &json!({ "input": text })).json();
    let shares = &shares["data"][0];
    assert!((numbers(shares).iter().sum::<f64>() - 1.0).abs() < 1e-12);
    let best = (0..wanted.len()).max_by(|a, b| wanted[*a].total_cmp(&wanted[*b])).unwrap();
    assert_eq!(shares["label"], labels[&best.to_string()]);
    // A head with several labels gives no one score.
    for (path, body) in [
        ("/v1/rerank", json!({ "query": text, "documents": [other] })),
        ("/score", json!({ "text_1": text, "text_2": other })),
    ] {
        let reply = server.post(path, &body);
        assert_eq!((reply.status, &reply.error()["code"]), (400, &json!("unsupported_model")), "{path}");
    }
}

/// The mean of all tokens is summed over a step, so texts that shared one would change each other's bits.
#[test]
fn scores_of_a_mean_are_those_of_the_command_in_company() {
    let model = encoder("modernbert_scores_mean");
    let path = model.path().display().to_string();
    let texts = texts(4);
    let wanted: Vec<Value> = texts
        .iter()
        .map(|text| command(&["score", &path, "--device", "host", text])["scores"][0].clone())
        .collect();
    let server = serve(model.path(), &[]);
    let body = json!({ "input": texts, "use_activation": false });
    let found = server.post("/classify", &body).json();
    for (found, wanted) in found["data"].as_array().unwrap().iter().zip(&wanted) {
        assert_eq!(bits(&found["probs"]), bits(wanted));
    }
    assert_eq!(found["data"].as_array().unwrap().len(), 4);
}
