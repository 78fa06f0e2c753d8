//! Compilation: the same bytes on every run, and a time that does not grow with depth.

use sinter_codegen_nvptx::compile;
use sinter_gpu_tests::plans::golden_plan;
use sinter_ir::{DType, Target};
use std::time::Instant;

#[test]
fn the_same_program_on_every_run() {
    for target in Target::ALL {
        let plan = golden_plan("qwen3", DType::Bf16);
        let start = Instant::now();
        let first = compile(&plan, target).expect("the plan compiles");
        eprintln!("{target}: {} kernels in {:?}", first.kernels.len(), start.elapsed());
        assert_eq!(first, compile(&plan, target).expect("the plan compiles"));
    }
}
