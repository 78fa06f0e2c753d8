//! What the server says of itself.

use crate::client::Server;
use serde_json::json;

#[test]
fn the_model_is_listed_under_all_its_names() {
    let server =
        Server::start(&["--log", "off", "--served-model-name", "small", "--served-model-name", "org/tiny"]);
    let list = server.get("/v1/models").json();
    assert_eq!(list["object"], "list");
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(names, ["small", "org/tiny"]);
    let one = server.get("/v1/models/org/tiny").json();
    assert_eq!(
        (&one["object"], &one["owned_by"], &one["max_model_len"]),
        (&json!("model"), &json!("sinter"), &json!(512))
    );
    for (name, found) in [("small", 200), ("org/tiny", 200), ("model", 404)] {
        let body = json!({ "model": name, "prompt": "a", "max_tokens": 1 });
        assert_eq!(server.post("/v1/completions", &body).status, found, "{name}");
    }
    let unnamed = server.post("/v1/completions", &json!({ "prompt": "a", "max_tokens": 1 })).json();
    assert_eq!(unnamed["model"], "small");
}

#[test]
fn metrics_count_what_was_done() {
    let server = Server::start(&["--log", "off"]);
    let asked =
        json!({ "messages": [{ "role": "user", "content": "What is 12 plus 7?" }], "temperature": 0 });
    let usage = server.post("/v1/chat/completions", &asked).json()["usage"].clone();
    server.wait_until_idle();
    let page = server.get("/metrics");
    assert!(page.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let (prompt, said) =
        (usage["prompt_tokens"].as_f64().unwrap(), usage["completion_tokens"].as_f64().unwrap());
    for (name, value) in [
        ("vllm:num_requests_running", 0.0),
        ("vllm:num_requests_waiting", 0.0),
        ("vllm:kv_cache_usage_perc", 0.0),
        ("vllm:prompt_tokens_total", prompt),
        ("vllm:generation_tokens_total", said),
        ("vllm:num_preemptions_total", 0.0),
        ("vllm:time_to_first_token_seconds_count", 1.0),
        ("vllm:e2e_request_latency_seconds_count", 1.0),
        ("sinter:requests_total", 1.0),
        ("sinter:requests_failed_total", 0.0),
    ] {
        assert_eq!(server.metric(name), value, "{name}");
    }
    let text = page.text();
    for line in [
        "vllm:cache_config_info{model_name=\"model\",block_size=\"16\",num_gpu_blocks=\"",
        "vllm:request_success_total{model_name=\"model\",finished_reason=\"stop\"} 1",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"model\",le=\"+Inf\"} 1",
        "# TYPE vllm:inter_token_latency_seconds histogram",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    // Every sample has a type, every name is one that Prometheus takes.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split('{').next().unwrap();
        let plain =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(
            text.contains(&format!("# TYPE {plain} ")) || text.contains(&format!("# TYPE {name} ")),
            "{line}"
        );
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":_".contains(&byte)), "{line}");
        assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn a_beginning_that_was_seen_is_found_again() {
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(8);
    for (args, found) in [(&["--log", "off"][..], true), (&["--log", "off", "--no-prefix-cache"], false)] {
        let server = Server::start(args);
        let ask = || {
            server
                .post("/v1/completions", &json!({ "prompt": long, "max_tokens": 4, "temperature": 0 }))
                .json()
        };
        let (first, second) = (ask(), ask());
        assert_eq!(first["choices"], second["choices"]);
        let cached = |value: &serde_json::Value| {
            value["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
        };
        assert_eq!((cached(&first), cached(&second) > 0), (0, found));
        assert_eq!(server.metric("vllm:prefix_cache_hits_total") > 0.0, found);
        let salted = server
            .post("/v1/completions", &json!({ "prompt": long, "max_tokens": 4, "cache_salt": "s" }))
            .json();
        assert_eq!(cached(&salted), 0);
    }
}

#[test]
fn routers_can_read_loads_and_facts() {
    let server = Server::start(&["--log", "off", "--max-sequences", "4"]);
    let loads = server.get("/v1/loads?include=core,queues").json();
    let load = &loads["loads"][0];
    assert_eq!(
        (&loads["dp_rank_count"], &load["num_running_reqs"], &load["max_running_requests"]),
        (&json!(1), &json!(0), &json!(4))
    );
    assert_eq!(server.get("/load").json()["server_load"], 0);
    let info = server.get("/server_info").json();
    assert_eq!(
        (&info["max_num_seqs"], &info["block_size"], &info["max_model_len"]),
        (&json!(4), &json!(16), &json!(512))
    );
    assert_eq!(server.get("/get_model_info").json()["is_generation"], true);
    assert!(server.get("/version").json()["version"].is_string());
    for path in ["/live", "/livez", "/ping", "/health", "/healthz", "/ready", "/readyz"] {
        assert_eq!(server.get(path).json()["status"], "ok", "{path}");
    }
}
