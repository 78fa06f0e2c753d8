//! Every kernel of every golden model, through NVIDIA's assembler. Ada's code is Ampere's but for a few instructions: of
//! its models every fourth is taken.

use sinter_codegen_nvptx::compile;
use sinter_gpu_tests::{plans::golden_plan, ptxas};
use sinter_ir::{DType, Target};
use sinter_testsuite::golden;

fn check(dtype: DType, target: Target, every: usize) {
    let assembler = ptxas::assembler();
    let mut count = 0;
    for name in golden::names().into_iter().step_by(every) {
        let plan = golden_plan(&name, dtype);
        let program = compile(&plan, target).unwrap_or_else(|error| panic!("{name}: {error}"));
        for kernel in &program.kernels {
            ptxas::assemble(&assembler, kernel, target).unwrap_or_else(|error| panic!("{name}: {error}"));
            count += 1;
        }
    }
    assert!(count > 50, "only {count} kernels were seen");
}

#[test]
fn goldens_in_f32_for_ampere() {
    check(DType::F32, Target::Sm80, 1);
}

#[test]
fn goldens_in_bf16_for_ada() {
    check(DType::Bf16, Target::Sm89, 4);
}

#[test]
fn goldens_in_bf16_for_hopper() {
    check(DType::Bf16, Target::Sm90a, 1);
}
