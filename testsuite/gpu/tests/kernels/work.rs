//! What launches are computed to move, against what the virtual GPU counts when they run.

use sinter_codegen_schedule::group;
use sinter_codegen_schedule::work::{StepSize, Work};
use sinter_frontend::build::KvCodes;
use sinter_gpu_tests::counted;
use sinter_gpu_tests::plans::{llama, llama_on_codes, mistral, plan, qwen3_moe};
use sinter_ir::{Graph, Target};
use std::sync::Arc;

/// Every launch of a decode step moves what was computed, within two percent and some sectors, and the whole step within
/// one percent; no launch moves less than its least.
fn check(graph: &Graph, target: Target, context: usize) {
    let plan = Arc::new(plan(graph));
    let (program, counted) = counted::decode(&plan, target, context);
    let size = StepSize::decode(1, context as u64 + 1);
    let bucket = program.bucket(1).expect("launches of one token");
    let groups = group::launches(&plan, target, bucket.max_tokens);
    assert_eq!(groups.len(), counted.len(), "a group is a launch");
    let (mut computed, mut moved) = (0, 0);
    for (group, counted) in groups.iter().zip(&counted) {
        let work = Work::of(&plan, group, &size);
        let name = format!("{target}: {}, {}", counted.kernel, group.schedules[group.schedules.len() - 1]);
        let (read, written) = (counted.counters.dram_bytes_read(), counted.counters.dram_bytes_written());
        println!("{name}: read {} for {read}, written {} for {written}", work.read, work.written);
        for (computed, counted) in [(work.read, read), (work.written, written)] {
            let off = computed.abs_diff(counted);
            assert!(off <= counted / 50 + 256, "{name}: {computed} bytes were computed, {counted} counted");
        }
        assert!(
            read + written + 256 >= work.minimum,
            "{name}: less than {} bytes were counted",
            work.minimum
        );
        computed += work.moved();
        moved += read + written;
    }
    let ratio = computed as f64 / moved as f64;
    println!("{target}: {computed} bytes for {moved}, {ratio:.4}");
    assert!((0.99..1.01).contains(&ratio), "{target}: {ratio}");
}

fn shape(more: serde_json::Value) -> serde_json::Value {
    let mut shape = serde_json::json!({
        "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 64,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        shape[key] = value.clone();
    }
    shape
}

#[test]
fn a_decode_step_moves_what_was_computed() {
    for target in [Target::Sm80, Target::Sm90a] {
        check(&llama(shape(serde_json::json!({}))), target, 160);
    }
}

#[test]
fn a_cache_of_codes_moves_what_was_computed() {
    for (codes, target) in [(KvCodes::Fp8, Target::Sm80), (KvCodes::Int4, Target::Sm90a)] {
        check(&llama_on_codes(shape(serde_json::json!({})), codes), target, 160);
    }
}

/// Two splits of the context; the prompt is what takes time here, so the model is narrow.
#[test]
fn a_long_context_moves_what_was_computed() {
    let narrow = serde_json::json!({
        "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 32,
    });
    check(&llama(shape(narrow)), Target::Sm90a, 540);
}

#[test]
fn a_window_moves_what_was_computed() {
    check(&mistral(shape(serde_json::json!({ "sliding_window": 50 }))), Target::Sm80, 170);
}

#[test]
fn experts_move_what_was_computed() {
    let experts = serde_json::json!({
        "moe_intermediate_size": 192, "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": true,
    });
    check(&qwen3_moe(shape(experts)), Target::Sm90a, 40);
}

#[test]
fn weights_in_codes_move_what_was_computed() {
    for (codes, target) in [((4, 32), Target::Sm90a), ((8, 64), Target::Sm80)] {
        check(&sinter_gpu_tests::coded::llama_in_codes(1, codes), target, 40);
    }
}
