//! Plans: of the golden models, and of the shape of a large one.

use sinter_frontend::build::{BuildOptions, KvCache, KvCodes, build};
use sinter_frontend::config::RawConfig;
use sinter_frontend::resolve::resolve;
use sinter_ir::{DType, Graph, Plan};
use sinter_testsuite::{compiled, golden};

/// The plan of a golden model.
pub fn golden_plan(name: &str, dtype: DType) -> Plan {
    compiled::plan(&golden::open(name).model, dtype)
}

/// The graph of the Llama-3.2-1B shape with so many layers, in bf16.
pub fn llama_1b(layers: usize) -> Graph {
    llama(serde_json::json!({
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": layers,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
    }))
}

/// The graph of a Llama of the given shape, in bf16.
pub fn llama(shape: serde_json::Value) -> Graph {
    graph(("llama", "LlamaForCausalLM"), shape)
}

/// The same with a cache of codes.
pub fn llama_on_codes(shape: serde_json::Value, codes: KvCodes) -> Graph {
    let options = BuildOptions { kv_cache: KvCache::Codes(codes), ..BuildOptions::new(DType::Bf16) };
    graph_of(("llama", "LlamaForCausalLM"), shape, options)
}

/// The graph of a Qwen3 with experts of the given shape, in bf16.
pub fn qwen3_moe(shape: serde_json::Value) -> Graph {
    graph(("qwen3_moe", "Qwen3MoeForCausalLM"), shape)
}

/// The graph of a Mistral of the given shape, in bf16; its `sliding_window` is what a token sees.
pub fn mistral(shape: serde_json::Value) -> Graph {
    graph(("mistral", "MistralForCausalLM"), shape)
}

fn graph(kind: (&str, &str), config: serde_json::Value) -> Graph {
    graph_of(kind, config, BuildOptions::new(DType::Bf16))
}

fn graph_of(
    (family, architecture): (&str, &str),
    mut config: serde_json::Value,
    options: BuildOptions,
) -> Graph {
    let rest = serde_json::json!({
        "model_type": family, "architectures": [architecture], "hidden_act": "silu",
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true,
    });
    for (key, value) in rest.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    let config = RawConfig::parse(config.to_string().as_bytes()).expect("the config parses");
    let spec = resolve(&config, &|_| true).expect("the config is understood");
    build(&spec, options).expect("the graph builds")
}

/// The plan of a graph; weights stay codes where they can.
pub fn plan(graph: &Graph) -> Plan {
    let options = sinter_passes::Options { codes: true, ..sinter_passes::Options::default() };
    sinter_passes::compile(graph, &options).expect("the graph compiles").plan
}
