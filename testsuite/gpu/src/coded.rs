//! A model whose weights are stored in codes.

use sinter_frontend::build::{BuildOptions, build};
use sinter_frontend::config::RawConfig;
use sinter_frontend::quant::{Codes, Scales, StoredMatrix, Zeros};
use sinter_frontend::resolve::resolve;
use sinter_ir::{DType, Graph, Op};

/// The graph of a Llama of so many layers in bf16 whose layers' matrices are stored in codes of so many bits, symmetric, a scale
/// for each `group` of the columns. Its hidden values are 512 wide.
pub fn llama_in_codes(layers: usize, (bits, group): (u32, usize)) -> Graph {
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 512,
        "intermediate_size": 1536, "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 64, "vocab_size": 64, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "tie_word_embeddings": true,
    });
    let config = RawConfig::parse(config.to_string().as_bytes()).expect("the config parses");
    let mut spec = resolve(&config, &|_| true).expect("the config is understood");
    let plain = build(&spec, BuildOptions::new(DType::Bf16)).expect("the graph builds");
    for node in plain.nodes.values() {
        let (Op::Param { name, .. }, [rows, columns]) = (&node.op, &node.ty.shape[..]) else { continue };
        if !name.contains("_proj") {
            continue;
        }
        let (rows, columns) = (rows.coeff as usize, columns.coeff as usize);
        let groups = columns / group;
        let scales = Scales::Grouped {
            name: format!("{name}_scale"),
            shape: vec![rows, groups],
            groups,
            turned: false,
            order: None,
            factor: 1.0,
        };
        let codes = Codes::AlongInputs { name: format!("{name}_packed"), bits: bits as usize };
        let zeros = Zeros::Number(f64::from(1u32 << (bits - 1)));
        let stored = StoredMatrix { rows, columns, codes, zeros, scales, minima: None };
        spec.stored.insert(name.clone(), stored);
    }
    build(&spec, BuildOptions::new(DType::Bf16)).expect("the graph builds")
}
