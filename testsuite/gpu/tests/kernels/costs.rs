//! What a decode step moves through the memory of the virtual GPU, against what it must move.

use sinter_codegen_nvptx::compile;
use sinter_codegen_schedule::contract::{choose, find};
use sinter_gpu_tests::counted;
use sinter_gpu_tests::launch::{Stream, arguments, plan_of, program_on};
use sinter_gpu_tests::plans::{llama, plan, qwen3_moe};
use sinter_ir::{Binding, DType, PAGE, Target, TileProgram};
use sinter_vgpu::VirtualGpu;
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
    let (_, counted) = counted::decode(&Arc::new(plan(&llama(shape))), target, CONTEXT);
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

/// The step in which experts are counted: its tokens, each with two of so many experts of such a width.
const TOKENS: u64 = 16;
const EXPERTS: u64 = 8;
const NARROW: u64 = 512;

/// Rows of one expert meet: DRAM gives the weights of the active experts and little beside, and what launches ask of the
/// caches is one tile of weights and one of rows for each full tile of an expert's rows, not for each row.
#[test]
fn weights_of_active_experts_are_read_once() {
    let shape = serde_json::json!({
        "hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD, "vocab_size": 64, "intermediate_size": INNER, "moe_intermediate_size": NARROW,
        "num_experts": EXPERTS, "num_experts_per_tok": 2, "norm_topk_prob": true,
    });
    let plan = plan(&qwen3_moe(shape));
    let grouped = |tile: &&TileProgram| find(tile).is_some_and(|found| found.group.is_some());
    let products: Vec<&TileProgram> = plan.kernels.values().filter(grouped).collect();
    assert_eq!(products.len(), 2, "gate with up, and down");
    for target in [Target::Sm80, Target::Sm90a] {
        products.iter().for_each(|tile| [1, 3, EXPERTS].iter().for_each(|n| active(tile, target, *n)));
    }
}

/// The products of a step whose tokens take so many experts in turn.
fn active(tile: &TileProgram, target: Target, experts: u64) {
    let binding = Binding::new(TOKENS, 1, 1, PAGE);
    let mut params = arguments(&mut Stream(3), tile, &binding);
    for (param, tensor) in tile.params.values().zip(&mut params) {
        if param.ty.dtype == DType::U32 {
            tensor.data.iter_mut().zip(0..).for_each(|(to, at)| *to = (at % experts) as f32);
        }
    }
    let program = compile(&plan_of(tile), target).expect("the program compiles");
    let mut device = VirtualGpu::new(target);
    program_on(&mut device, tile, &program, (&binding, &params));
    let counters = device.take_counters()[0].counters;
    let (found, schedule) = (find(tile).unwrap(), choose(tile, target, Some(TOKENS)).unwrap());
    let products = found.products.len() as u64;
    let weights = experts * products * 2 * HIDDEN * NARROW;
    let dram = counters.dram_bytes_read() as f64 / weights as f64;
    let row_tiles = (2 * TOKENS).div_ceil(experts).div_ceil(u64::from(schedule.tile_rows));
    let rows = u64::from(schedule.tile_rows) * found.n_columns.coeff / u64::from(schedule.tile_columns);
    let tiles = row_tiles * (weights + experts * rows * found.products[0].k * 2);
    let asked = (counters.global_sectors * 32) as f64 / tiles as f64;
    println!(
        "{target}, {schedule}, {experts} experts: DRAM {dram:.3} of the weights, caches {asked:.3} of the tiles"
    );
    assert!((1.0..1.2).contains(&dram), "{target}, {experts} experts: {dram:.3} of the weights");
    assert!((0.9..1.25).contains(&asked), "{target}, {experts} experts: {asked:.3} of the tiles");
}
