//! Contractions at the shapes of real models, through NVIDIA's assembler: no spills, no stack, no note of lost
//! performance, and as many tensor-core instructions as the work demands.

use sinter_codegen_schedule::contract::{Contract, Kind, STEP, candidates};
use sinter_gpu_tests::contraction::{kernel, parsed};
use sinter_gpu_tests::ptxas;
use sinter_ir::Target;

/// Gate and up of a Llama, with their activation.
const GATED: &str = "tile @contract {
  p0: bf16[T, K] read rows \"x\"
  p1: bf16[N, K] read panels \"w\"
  p2: bf16[N, K] read panels \"v\"
  p3: bf16[T, N] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..N \"n\"
  a2 = 0..K \"k\"
  a3 = 0..K \"k\"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
  s1 = mma a3 : p0[a0, a3] * p2[a1, a3]
  e0 = s0
  e1 = neg e0
  e2 = exp e1
  e3 = const 1.0
  e4 = add e2, e3
  e5 = div e0, e4
  e6 = s1
  e7 = mul e5, e6
  e8 = cast bf16 e7
  s2 = store [] p3[a0, a1] = e8
}";

/// The residual sum after a projection.
const RESIDUAL: &str = "tile @contract {
  p0: f32[T, N] read rows \"r\"
  p1: bf16[T, K] read rows \"x\"
  p2: bf16[N, K] read panels \"w\"
  p3: f32[T, N] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..N \"n\"
  a2 = 0..K \"k\"
  grid a0, a1
  s0 = mma a2 : p1[a0, a2] * p2[a1, a2]
  e0 = load p0[a0, a1]
  e1 = s0
  e2 = add e0, e1
  s1 = store [] p3[a0, a1] = e2
}";

/// Gate and up of experts, of which each token has four.
const GATED_EXPERTS: &str = "tile @contract {
  p0: bf16[T, K] read rows \"x\"
  p1: u32[T, 4] read rows \"expert\"
  p2: bf16[64, N, K] read panels \"w\"
  p3: bf16[64, N, K] read panels \"v\"
  p4: bf16[T, 4, N] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..4 \"e\"
  a2 = 0..N \"n\"
  a3 = 0..K \"k\"
  a4 = 0..K \"k\"
  grid a0, a1, a2
  s0 = mma a3 : p0[a0, a3] * p2[p1[a0, a1], a2, a3]
  s1 = mma a4 : p0[a0, a4] * p3[p1[a0, a1], a2, a4]
  e0 = s0
  e1 = neg e0
  e2 = exp e1
  e3 = const 1.0
  e4 = add e2, e3
  e5 = div e0, e4
  e6 = s1
  e7 = mul e5, e6
  e8 = cast bf16 e7
  s2 = store [] p4[a0, a1, a2] = e8
}";

/// The projection after it.
const EXPERTS: &str = "tile @contract {
  p0: bf16[T, 4, K] read rows \"x\"
  p1: u32[T, 4] read rows \"expert\"
  p2: bf16[64, N, K] read panels \"w\"
  p3: f32[T, 4, N] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..4 \"e\"
  a2 = 0..N \"n\"
  a3 = 0..K \"k\"
  grid a0, a1, a2
  s0 = mma a3 : p0[a0, a1, a3] * p2[p1[a0, a1], a2, a3]
  e0 = s0
  s1 = store [] p3[a0, a1, a2] = e0
}";

/// A program with its extents, and its products.
type Case = (&'static str, &'static str, &'static str, u32);

const LLAMA: [Case; 2] = [(GATED, "8192", "2048", 2), (RESIDUAL, "2048", "8192", 1)];
const MIXTURE: [Case; 2] = [(GATED_EXPERTS, "768", "2048", 2), (EXPERTS, "2048", "768", 1)];

/// The tensor-core instructions in the text of a kernel whose summed axis is a multiple of the chunk: one loop, once.
fn instructions(schedule: &Contract, products: u32) -> u32 {
    let steps = schedule.tile_k / STEP * products;
    match schedule.kind {
        Kind::Fma => 0,
        Kind::Tiles => steps * schedule.warp_rows() / 16 * schedule.warp_columns() / 8,
        Kind::Skinny => steps * schedule.tile_rows / 8,
        Kind::Warpgroups => steps,
    }
}

/// All schedules of a kind for the last of each tile.
fn check(cases: [Case; 2], target: Target, bucket: Option<u64>, wanted: &[Kind]) {
    let assembler = ptxas::assembler();
    let mut seen = Vec::new();
    for (text, n, k, products) in cases {
        let tile = parsed(text, &[("N", n), ("K", k)]);
        for schedule in candidates(&tile, target, bucket) {
            // The number of stages changes nothing but constants.
            let shape = |s: &Contract| (products, s.kind, s.tile_rows, s.tile_columns, s.tile_k, s.warps);
            if !wanted.contains(&schedule.kind) || seen.contains(&shape(&schedule)) {
                continue;
            }
            seen.push(shape(&schedule));
            let kernel = kernel(&tile, target, &schedule);
            let found =
                ["mma.sync.aligned.m16n8k16", "wgmma.mma_async"].map(|name| kernel.ptx.matches(name).count());
            assert_eq!(found[0].max(found[1]) as u32, instructions(&schedule, products), "{schedule}");
            if let Err(error) = ptxas::assemble(&assembler, &kernel, target) {
                panic!("{schedule} for {target}: {}", error.lines().take(9).collect::<Vec<_>>().join("\n"));
            }
        }
    }
    assert!(wanted.iter().all(|kind| seen.iter().any(|shape| shape.1 == *kind)), "{target} has {seen:?}");
}

#[test]
fn contract_tiles_for_ampere() {
    check(LLAMA, Target::Sm80, None, &[Kind::Tiles]);
}

#[test]
fn contract_few_rows_for_ada() {
    check(LLAMA, Target::Sm89, Some(16), &[Kind::Skinny]);
}

#[test]
fn contract_hopper() {
    check(LLAMA, Target::Sm90a, Some(8), &[Kind::Skinny]);
    check(LLAMA, Target::Sm90a, None, &[Kind::Warpgroups]);
}

/// Every tile that rows of one expert may meet in.
#[test]
fn contract_experts() {
    check(MIXTURE, Target::Sm80, None, &[Kind::Tiles]);
    check(MIXTURE, Target::Sm90a, None, &[Kind::Tiles]);
}
