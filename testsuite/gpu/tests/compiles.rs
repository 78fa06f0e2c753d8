//! Compilation: the same bytes on every run, a time that does not grow with depth, and launches that do several steps.

use sinter_codegen_nvptx::compile;
use sinter_codegen_schedule::{FEW_TOKENS, group};
use sinter_gpu_tests::plans::{golden_plan, llama_1b, plan};
use sinter_ir::{DType, GpuProgram, Graph, Target};
use std::time::Instant;

#[test]
fn the_same_program_on_every_run() {
    for target in Target::ALL {
        let plan = golden_plan("qwen3", DType::Bf16);
        let first = compile(&plan, target).expect("the plan compiles");
        assert_eq!(first, compile(&plan, target).expect("the plan compiles"));
    }
}

/// From the graph to PTX: the program and the seconds.
fn timed(graph: &Graph) -> (GpuProgram, f64) {
    let start = Instant::now();
    let program = compile(&plan(graph), Target::Sm90a).expect("the plan compiles");
    (program, start.elapsed().as_secs_f64())
}

#[test]
fn sixty_four_layers_need_no_more_kernels_than_two() {
    let (shallow, deep) = (llama_1b(2), llama_1b(64));
    let ((two, seconds_two), (many, seconds_many)) = (timed(&shallow), timed(&deep));
    println!(
        "graph to PTX, all buckets: 2 layers {:.0} ms, 64 layers {:.0} ms, {} kernels",
        seconds_two * 1e3,
        seconds_many * 1e3,
        many.kernels.len()
    );
    assert_eq!(two.kernels, many.kernels);
    assert!(seconds_many < 5.0, "a cold compile took {seconds_many} s");
}

/// Steps of a Llama layer: what rotates the queries, the keys and writes the cache runs side by side.
#[test]
fn neighbouring_row_wise_steps_share_a_launch() {
    let plan = plan(&llama_1b(4));
    for few in [Some(FEW_TOKENS), None] {
        let groups = group::launches(&plan, Target::Sm90a, few);
        let names = |group: &group::Group| -> Vec<&str> {
            group.steps.iter().map(|step| &plan.kernels[plan.steps[*step].kernel].name[..]).collect()
        };
        groups.iter().for_each(|group| println!("{}: {}", names(group).join(" + "), group.schedules[0]));
        let steps: Vec<usize> = groups.iter().flat_map(|group| group.steps.clone()).collect();
        assert_eq!(steps, (0..plan.steps.len()).collect::<Vec<_>>(), "each step once, in order");
        let per_layer =
            (groups.len() - group::launches(&self::plan(&llama_1b(2)), Target::Sm90a, few).len()) / 2;
        println!("{per_layer} launches a layer");
        assert!(groups.iter().any(|group| group.steps.len() == 3), "queries, keys and values");
    }
}
