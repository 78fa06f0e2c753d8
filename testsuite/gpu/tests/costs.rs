//! What a decode step moves through the memory of the virtual GPU, against what it must move.

use sinter_codegen_nvptx::compile;
use sinter_gpu_tests::counted::Counted;
use sinter_gpu_tests::plans::{llama, plan};
use sinter_ir::{PAGE, Target, gpu_weight_bytes};
use sinter_runtime::{GpuConfig, GpuModel, Limits, Rows, Session, WeightBytes};
use std::sync::Arc;

/// Positions in the cache when the step is counted.
const CONTEXT: usize = 160;
const HIDDEN: u64 = 512;
const INNER: u64 = 1536;
const HEAD: u64 = 64;
const HEADS: u64 = 8;
const KV_HEADS: u64 = 2;

/// The bytes that one decode step of so many layers reads and writes.
fn decode_bytes(layers: usize, target: Target) -> u64 {
    let shape = serde_json::json!({
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": layers,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "vocab_size": 64,
    });
    let plan = plan(&llama(shape));
    let program = compile(&plan, target).expect("the plan compiles");
    // Numbers near 0.01 in bf16 and in f32 alike; what is counted does not depend on them.
    let weights: Vec<WeightBytes> = plan
        .weights
        .values()
        .map(|weight| {
            let bytes = gpu_weight_bytes(&weight.ty, weight.layout).expect("weights have a size") as usize;
            let pattern: Vec<u8> = [0x23, 0x3c].iter().copied().cycle().take(bytes).collect();
            WeightBytes::new(Arc::new(pattern))
        })
        .collect();
    let pages = (CONTEXT + 1).div_ceil(PAGE as usize);
    let limits = Limits { vocab: 64, max_positions: 256, max_tokens: CONTEXT, max_sequences: 1, pages };
    let config = GpuConfig { limits, profile: false };
    let device = Counted::new(target);
    let weight = |at: usize| Ok(weights[at].clone());
    let mut model =
        GpuModel::new(Arc::new(plan), Arc::new(program), &weight, Box::new(device.clone()), config)
            .expect("the model loads");
    let mut session = Session::new(&mut model);
    session.feed(&[7; CONTEXT], Rows::None).expect("the prompt");
    device.take();
    session.feed(&[7], Rows::Last).expect("one more token");
    let counted = device.take();
    assert!(counted.len() > 6 * layers, "only {} launches were counted", counted.len());
    counted
        .iter()
        .map(|launch| launch.counters.dram_bytes_read() + launch.counters.dram_bytes_written())
        .sum()
}

/// One layer: its weights once, the keys and values of the context once, those of the token written.
#[test]
fn a_llama_layer_moves_its_weights_and_cache_once() {
    let weights = 2 * (HIDDEN * HEAD * (HEADS + 2 * KV_HEADS) + HIDDEN * HEADS * HEAD + 3 * HIDDEN * INNER);
    let cache = 2 * 2 * KV_HEADS * HEAD * (CONTEXT as u64 + 1);
    let least = weights + cache;
    for target in [Target::Sm80, Target::Sm90a] {
        let layer = decode_bytes(2, target) - decode_bytes(1, target);
        let ratio = layer as f64 / least as f64;
        println!("{target}: a layer moves {layer} bytes, {ratio:.4} times the least, {least}");
        assert!(layer >= least, "{target}: {layer} bytes are less than the weights and the cache, {least}");
        assert!(ratio <= 1.05, "{target}: {layer} bytes, {ratio:.4} times the least");
    }
}
