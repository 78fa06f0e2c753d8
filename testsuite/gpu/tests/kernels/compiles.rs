//! Compilation: the same bytes on every run, a time that does not grow with depth, and launches that do several steps.

use sinter_codegen_nvptx::compile;
use sinter_codegen_schedule::{FEW_TOKENS, LEAST_TOKENS, group};
use sinter_gpu_tests::plans::{golden_plan, llama_1b, plan};
use sinter_ir::{DType, GpuProgram, Graph, Target};

#[test]
fn the_same_program_on_every_run() {
    for target in Target::ALL {
        let plan = golden_plan("qwen3", DType::Bf16);
        let first = compile(&plan, target).expect("the plan compiles");
        assert_eq!(first, compile(&plan, target).expect("the plan compiles"));
    }
}

/// Seconds that this thread ran, whatever else the machine does.
fn seconds_of_thread() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the times of a thread");
    let nanoseconds = times.split(' ').next().and_then(|time| time.parse::<f64>().ok());
    nanoseconds.expect("a number of nanoseconds") / 1e9
}

/// From the graph to PTX, which one thread does: the program and the thread's seconds.
fn timed(graph: &Graph) -> (GpuProgram, f64) {
    let start = seconds_of_thread();
    let program = compile(&plan(graph), Target::Sm90a).expect("the plan compiles");
    (program, seconds_of_thread() - start)
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

/// A Llama layer in decode: the product of queries, keys and values with its norm; rotations and writes to the cache;
/// attention; the output product; gate and up with their norm; down.
#[test]
fn a_layer_takes_six_launches_in_decode() {
    let (short, long) = (plan(&llama_1b(2)), plan(&llama_1b(4)));
    for (max_tokens, wanted) in [(Some(LEAST_TOKENS), 6), (Some(FEW_TOKENS), 8), (None, 8)] {
        let groups = group::launches(&long, Target::Sm90a, max_tokens);
        for group in &groups {
            let names: Vec<&str> =
                group.steps.iter().map(|step| &long.kernels[long.steps[*step].kernel].name[..]).collect();
            println!("{}: {}", names.join(" + "), group.schedules[group.schedules.len() - 1]);
        }
        let steps: Vec<usize> = groups.iter().flat_map(|group| group.steps.clone()).collect();
        assert_eq!(steps, (0..long.steps.len()).collect::<Vec<_>>(), "each step once, in order");
        let layers = groups.len() - group::launches(&short, Target::Sm90a, max_tokens).len();
        assert_eq!(layers, 2 * wanted, "launches of two layers, at most {max_tokens:?} tokens");
        assert!(groups.iter().any(|group| group.steps.len() == 3), "queries, keys and values");
    }
}
