//! Compile time against the number of layers: 2 and 64 layers of the Llama-3.2-1B shape, from the graph to machine code.
//!
//! More layers need no more kernels and no more rewriting; what still grows is the copying of names and launches, some
//! 0.1 ms a layer. The ratio is printed, the aim is 1.3; cold compiles must stay below five seconds.

use sinter_codegen_host::{compile_all, micro::Isa};
use sinter_frontend::build::{BuildOptions, build};
use sinter_frontend::config::RawConfig;
use sinter_frontend::resolve::resolve;
use sinter_ir::{DType, Graph};
use std::time::Instant;

fn graph(layers: usize) -> Graph {
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "tie_word_embeddings": true,
        "rope_scaling": { "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 8192 }
    });
    built(&config)
}

fn built(config: &serde_json::Value) -> Graph {
    let config = RawConfig::parse(config.to_string().as_bytes()).expect("the config parses");
    let spec = resolve(&config, &|_| true).expect("the config is understood");
    build(&spec, BuildOptions::new(DType::Bf16)).expect("the graph builds")
}

fn seconds(graph: &Graph) -> (f64, usize) {
    let start = Instant::now();
    let compiled = sinter_passes::compile(graph, &sinter_passes::Options::default()).expect("it compiles");
    let tiles: Vec<_> = compiled.plan.kernels.values().collect();
    let kernels = compile_all(&tiles, Isa::detect()).expect("the kernels compile");
    (start.elapsed().as_secs_f64(), kernels.len())
}

/// One after the other: they would disturb each other's clocks.
#[test]
fn compile_times() {
    sixty_four_layers_compile_almost_as_fast_as_two();
    many_experts_compile_within_five_seconds();
}

fn sixty_four_layers_compile_almost_as_fast_as_two() {
    let (shallow, deep) = (graph(2), graph(64));
    assert!(deep.nodes.len() > 20 * shallow.nodes.len());
    let mut ratios = Vec::new();
    for _ in 0..9 {
        let ((two, kernels), (many, as_many)) = (seconds(&shallow), seconds(&deep));
        assert_eq!(kernels, as_many, "more layers need no more kernels");
        assert!(many < 5.0, "a cold compile took {many} s");
        println!("2 layers {:.1} ms, 64 layers {:.1} ms", two * 1e3, many * 1e3);
        ratios.push(many / two);
    }
    ratios.sort_by(f64::total_cmp);
    println!("ratio: median {:.2}, from {:.2} to {:.2}", ratios[4], ratios[0], ratios[8]);
    assert!(ratios[4] <= 1.3, "64 layers take {:.2} times as long as 2", ratios[4]);
}

/// The shape of Qwen3-30B-A3B: 18,432 matrices of experts, which are one expression a layer.
fn many_experts_compile_within_five_seconds() {
    let graph = built(&serde_json::json!({
        "model_type": "qwen3_moe", "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true, "vocab_size": 151936,
        "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": false
    }));
    let (took, kernels) = seconds(&graph);
    println!("{} nodes, {kernels} kernels, {:.1} ms", graph.nodes.len(), took * 1e3);
    assert!(took < 5.0, "a cold compile took {took} s");
}
