//! The estimated time of a schedule: what each block keeps busy, and how evenly blocks fill the machine.
//!
//! After DeepGEMM's heuristic (`csrc/jit_kernels/heuristics/sm90.hpp`): the slowest of the tensor cores, the first cache
//! and shared memory, the second cache and DRAM, divided by the efficiency of the waves.

use super::{Contract, Contraction, Kind, Product, STEP};
use sinter_ir::{Layout, Target, TileProgram};

/// What the estimate knows of a machine.
struct Machine {
    multiprocessors: u64,
    /// Products of bf16 that a multiprocessor does in a cycle.
    products: u64,
    /// Bytes in a cycle: shared memory of one multiprocessor, and the second cache and DRAM of all.
    shared: u64,
    cache: u64,
    dram: u64,
    /// Shared memory of a multiprocessor.
    shared_bytes: u64,
    /// From a request to DRAM to its data, in cycles.
    latency: u64,
}

fn machine(target: Target) -> Machine {
    let kib = 1024;
    match target {
        // A100 (2,039 GB/s at 1.41 GHz), L40S (864 GB/s at 2.5 GHz), H200 (4,800 GB/s at 1.75 GHz): NVIDIA's data sheets.
        Target::Sm80 => Machine {
            multiprocessors: 108,
            products: 1024,
            shared: 128,
            cache: 4000,
            dram: 1446,
            shared_bytes: 164 * kib,
            latency: 600,
        },
        Target::Sm89 => Machine {
            multiprocessors: 142,
            products: 512,
            shared: 128,
            cache: 2400,
            dram: 345,
            shared_bytes: 100 * kib,
            latency: 700,
        },
        Target::Sm90a => Machine {
            multiprocessors: 132,
            products: 2048,
            shared: 128,
            cache: 5500,
            dram: 2700,
            shared_bytes: 228 * kib,
            latency: 800,
        },
    }
}

/// The multiprocessors of the device that the estimate has in mind.
pub fn multiprocessors(target: Target) -> u64 {
    machine(target).multiprocessors
}

/// The rows that a step has, for the estimate: the most that the bucket allows, or those of a prefill chunk.
fn rows(found: &Contraction, max_tokens: Option<u64>) -> u64 {
    let tokens = max_tokens.unwrap_or(2048);
    found.n_rows.coeff * if found.n_rows.sym.is_some() { tokens } else { 1 }
}

/// Bytes that a multiprocessor should have on their way, whatever the latency: DRAM answers in bursts.
const IN_FLIGHT: u64 = 40 << 10;
/// The latency of one dependent step in cycles: an accumulator is one chain.
const STEP_LATENCY: u64 = 33;
/// Instructions that make a number of a code.
const CONVERT: u64 = 4;
/// Of an f32 multiply-add.
const FMA_LATENCY: u64 = 4;

/// The estimated cycles of a launch.
pub fn cycles(
    schedule: &Contract,
    tile: &TileProgram,
    found: &Contraction,
    (target, max_tokens): (Target, Option<u64>),
) -> u64 {
    let machine = machine(target);
    let (tile_rows, tile_columns) = block_tile(schedule, found);
    let (rows, columns) = (rows(found, max_tokens).max(1), found.n_columns.typical().max(1));
    // Of a stack of weights, as many are used as there are rows, and rows are spread evenly.
    let weights = found.group.as_ref().map_or(1, |(_, count)| rows.min(*count));
    let blocks = weights * rows.div_ceil(weights).div_ceil(tile_rows) * columns.div_ceil(tile_columns);
    let shared = schedule.shared_bytes(found).max(1) + 1024;
    let registers = 65_536 / (u64::from(schedule.threads()) * 128);
    let resident = (machine.shared_bytes / shared).min(registers).clamp(1, 8);
    let rounds = blocks.div_ceil(machine.multiprocessors);
    let together = rounds.min(resident);
    if schedule.kind == Kind::Skinny {
        let bytes: u64 =
            found.products.iter().map(|product| columns * product.k * bits(tile, product) / 8).sum();
        let depth: u64 = found.products.iter().map(|product| product.k).sum();
        // Each multiprocessor gets its share of DRAM if its rings have enough on their way.
        let even = bytes / machine.dram * (rounds * machine.multiprocessors) / blocks.max(1);
        let flying = schedule.shared_bytes(found) * together;
        let even = even * IN_FLIGHT / flying.clamp(1, IN_FLIGHT);
        let chain = rounds.div_ceil(together) * depth / u64::from(STEP) * STEP_LATENCY;
        return even.max(chain) + machine.latency;
    }
    let mut total = 0;
    for product in &found.products {
        let left = tile.params[product.a.param].ty.dtype.bytes() as u64;
        let right = |columns: u64| columns * product.k * bits(tile, product) / 8;
        let outputs = u64::from(schedule.tile_rows) * u64::from(schedule.tile_columns);
        let (compute, chain) = match schedule.kind {
            Kind::Fma => (outputs * product.k / 128, product.k * FMA_LATENCY),
            Kind::Warpgroups => (outputs * product.k / machine.products, product.k / u64::from(STEP) * 32),
            Kind::Tiles | Kind::Skinny => {
                // `mma.sync` reaches about five eighths of Hopper's tensor cores.
                let rate = if target == Target::Sm90a { machine.products * 5 / 8 } else { machine.products };
                (outputs * product.k / rate, product.k / u64::from(STEP) * STEP_LATENCY)
            }
        };
        let moved = tile_rows * left * product.k + right(tile_columns);
        // The tensor cores read the operands of wgmma from shared memory themselves, at a rate of their own.
        let again =
            if schedule.kind == Kind::Warpgroups { 0 } else { schedule.warps.0.max(schedule.warps.1) };
        let fragments = moved * u64::from(again);
        let cache = moved * machine.multiprocessors / machine.cache;
        let read = weights * right(columns) + rows.min(64) * product.k * left;
        let dram = read / machine.dram;
        // Each warp along the rows makes numbers of the codes for itself, on the lanes that feed the tensor cores.
        let converted = if product.codes.is_some() { tile_columns * u64::from(schedule.warps.0) } else { 0 };
        let convert = converted * product.k * CONVERT / 128;
        let busy =
            [compute, (moved + fragments) / machine.shared, cache, convert].into_iter().max().unwrap_or(0);
        // Blocks that run together share the machine but hide each other's chains.
        let all = (rounds * busy).max(rounds.div_ceil(together) * chain).max(dram);
        total += all;
    }
    total + machine.latency * rounds.div_ceil(together)
}

/// Bits of an element of a product's weights.
fn bits(tile: &TileProgram, product: &Product) -> u64 {
    let param = &tile.params[product.b.param];
    match param.layout {
        Layout::Codes(codes) => u64::from(codes.bits),
        Layout::Rows | Layout::Panels | Layout::Halves => param.ty.dtype.bytes() as u64 * 8,
    }
}

/// The rows and columns of a tile that are used.
fn block_tile(schedule: &Contract, found: &Contraction) -> (u64, u64) {
    let used = |size: u32, shared: bool| if shared { u64::from(size) } else { 1 };
    (used(schedule.tile_rows, found.rows_share), used(schedule.tile_columns, found.columns_share))
}
