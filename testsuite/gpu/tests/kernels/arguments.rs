//! The random arguments that kernels are tried with: whole numbers stay within every tensor that they are indices of.

use sinter_codegen_nvptx::compile;
use sinter_gpu_tests::launch::{Stream, arguments, on_device, plan_of};
use sinter_gpu_tests::plans::golden_plan;
use sinter_ir::{Binding, DType, Target, TileProgram};
use sinter_vgpu::VirtualGpu;

/// Whether a program reads whole numbers, of which some are indices.
fn has_indices(tile: &TileProgram) -> bool {
    tile.params.values().any(|param| param.ty.dtype == DType::U32)
}

/// The programs in which experts are chosen among groups add a group's first expert to a number that lies in memory; an
/// embedding, a cache and a table have the number alone.
#[test]
fn no_random_argument_points_outside() {
    let mut tried = 0;
    for name in ["glm4_moe_groups", "deepseek_v2_groups", "qwen3_moe", "bert"] {
        let plan = golden_plan(name, DType::F32);
        for tile in plan.kernels.values().filter(|tile| has_indices(tile)) {
            let program = compile(&plan_of(tile), Target::Sm80).expect("the program compiles");
            // As many sequences as tokens, or fewer; as many rows of logits, or fewer.
            for (seed, binding) in (1..20)
                .zip([Binding::new(5, 2, 2, 64).with_rows(3), Binding::new(4, 4, 1, 64)].iter().cycle())
            {
                let before = arguments(&mut Stream(seed), tile, binding);
                let mut device = VirtualGpu::new(Target::Sm80).with_workers(1);
                on_device(&mut device, (tile, &program), binding, &before)
                    .unwrap_or_else(|error| panic!("{name}, seed {seed}: {error}\n{tile}"));
                tried += 1;
            }
        }
    }
    assert!(tried > 400, "only {tried} runs");
}
