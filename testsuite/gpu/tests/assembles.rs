//! Kernels of the golden models, through NVIDIA's assembler: every second model for one of the targets, or with the feature
//! `goldens` each for all; `SINTER_GOLDENS=llama,bert` takes those alone.

use sinter_codegen_nvptx::compile;
use sinter_frontend::build::{BuildOptions, KvCache, KvCodes};
use sinter_gpu_tests::{plans::golden_plan, ptxas};
use sinter_ir::{DType, GpuKernel, Target};
use sinter_testsuite::compiled::plan_of;
use sinter_testsuite::golden;

fn check(dtype: DType, target: Target) {
    let assembler = ptxas::assembler();
    let (all, own) = (cfg!(feature = "goldens"), target as usize);
    let (mut count, names) = (0, golden::chosen());
    for (at, name) in names.iter().enumerate() {
        if !all && at % (2 * Target::ALL.len()) != own {
            continue;
        }
        let plan = golden_plan(name, dtype);
        let program = compile(&plan, target).unwrap_or_else(|error| panic!("{name}: {error}"));
        for kernel in &program.kernels {
            ptxas::assemble(&assembler, kernel, target).unwrap_or_else(|error| panic!("{name}: {error}"));
            count += 1;
        }
    }
    assert!(count > names.len().min(50), "only {count} kernels were seen");
}

/// With a cache of codes: what writes rows and what reads them, in f32 and in bf16.
#[test]
fn caches_of_codes() {
    let assembler = ptxas::assembler();
    for (name, dtype, codes, target) in [
        ("llama", DType::F32, KvCodes::Int4, Target::Sm80),
        ("gemma2", DType::Bf16, KvCodes::Int8, Target::Sm89),
        ("mistral_window", DType::Bf16, KvCodes::Fp8, Target::Sm90a),
    ] {
        let options = BuildOptions { kv_cache: KvCache::Codes(codes), ..BuildOptions::new(dtype) };
        let plan = plan_of(&golden::open(name).model, options, false);
        let program = compile(&plan, target).unwrap_or_else(|error| panic!("{name}: {error}"));
        let own = |kernel: &&GpuKernel| !kernel.name.starts_with("contract");
        let kernels: Vec<&GpuKernel> = program.kernels.iter().filter(own).collect();
        assert!(kernels.len() >= 4, "only {} kernels were seen", kernels.len());
        for kernel in kernels {
            ptxas::assemble(&assembler, kernel, target).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[test]
fn goldens_in_f32_for_ampere() {
    check(DType::F32, Target::Sm80);
}

#[test]
fn goldens_in_bf16_for_ada() {
    check(DType::Bf16, Target::Sm89);
}

#[test]
fn goldens_in_bf16_for_hopper() {
    check(DType::Bf16, Target::Sm90a);
}
