//! What `sinter inspect` shows of the kernels of a GPU program.

use crate::ptx::{self, Estimate};
use crate::roofline::{self, Minimum};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sinter_ir::{GpuKernel, GpuProgram, Plan, Target};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Tokens of the steps that are shown: a decode of one sequence, and a part of a prompt.
const STEPS: [u64; 2] = [1, 512];

/// The kernels for one target.
#[derive(Debug, Serialize)]
pub(super) struct Gpu {
    target: Target,
    /// Launches of a decode step.
    launches: usize,
    kernels: Vec<Kernel>,
}

/// A kernel.
#[derive(Debug, Serialize)]
struct Kernel {
    name: String,
    /// The tile programs that it does.
    programs: String,
    threads: u32,
    shared_bytes: u32,
    cluster: u32,
    persistent: Option<u32>,
    dependent_launch: bool,
    /// Registers of a thread, if an assembler was given.
    registers: Option<u32>,
    /// Instructions in the PTX by kind.
    instructions: BTreeMap<&'static str, usize>,
    steps: Vec<Use>,
}

/// What a kernel does in a step.
#[derive(Debug, Serialize)]
struct Use {
    tokens: u64,
    launches: usize,
    blocks: u64,
    /// What one launch must move and compute at least.
    minimum_bytes: u64,
    operations: u64,
    /// The shortest times of one launch in microseconds.
    microseconds: Estimate,
}

/// Everything that is known of a program without running it.
pub(super) fn describe(plan: &Plan, program: &GpuProgram, ptxas: Option<&Path>) -> Result<Gpu> {
    let launches = program.bucket(1).map_or(0, |bucket| bucket.launches.len());
    let kernel = |(at, kernel): (usize, &GpuKernel)| -> Result<Kernel> {
        let registers = ptxas.map(|ptxas| registers(ptxas, program.target, kernel)).transpose()?;
        let all = program.buckets.iter().flat_map(|bucket| &bucket.launches);
        let first = all.clone().find(|launch| launch.kernel == at);
        let names = first.iter().flat_map(|launch| &launch.steps);
        let names = names.map(|step| plan.kernels[plan.steps[*step].kernel].name.clone());
        Ok(Kernel {
            name: kernel.name.clone(),
            programs: names.collect::<Vec<_>>().join(" | "),
            threads: kernel.threads,
            shared_bytes: kernel.shared_bytes,
            cluster: kernel.cluster,
            persistent: kernel.persistent,
            dependent_launch: kernel.dependent_launch,
            registers,
            instructions: ptx::mix(&kernel.ptx),
            steps: STEPS.into_iter().filter_map(|tokens| used(plan, program, at, tokens)).collect(),
        })
    };
    let kernels = program.kernels.iter().enumerate().map(kernel).collect::<Result<_>>()?;
    Ok(Gpu { target: program.target, launches, kernels })
}

/// What a kernel does in a step of so many tokens; none if it has no part in it.
fn used(plan: &Plan, program: &GpuProgram, at: usize, tokens: u64) -> Option<Use> {
    let binding = roofline::binding(tokens);
    let launches = program.bucket(tokens)?.launches.iter().filter(|launch| launch.kernel == at);
    let least = Minimum::of(plan, launches.clone().next()?, &binding);
    Some(Use {
        tokens,
        launches: launches.count(),
        blocks: program.kernels[at].blocks(&binding, 132),
        minimum_bytes: least.bytes,
        operations: least.operations,
        microseconds: least.estimate(),
    })
}

/// The registers that CUDA's assembler gives a thread.
fn registers(ptxas: &Path, target: Target, kernel: &GpuKernel) -> Result<u32> {
    let name = format!("sinter-{}-{}.ptx", std::process::id(), kernel.name);
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, &kernel.ptx).with_context(|| format!("cannot write {}", file.display()))?;
    let output = Command::new(ptxas)
        .arg(format!("-arch={target}"))
        .args(["-v", "-o", "/dev/null"])
        .arg(&file)
        .output();
    // The file is of no use any more, whatever happened.
    let _ = std::fs::remove_file(&file);
    let output = output.with_context(|| format!("cannot run {}", ptxas.display()))?;
    let words =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{} refuses {}: {words}", ptxas.display(), kernel.name);
    used_registers(&words).with_context(|| format!("{} says nothing of registers: {words}", ptxas.display()))
}

/// `ptxas info    : Used 40 registers, used 1 barriers`
fn used_registers(words: &str) -> Option<u32> {
    words.split("Used ").nth(1)?.split_once(" registers")?.0.trim().parse().ok()
}

/// The kernels as a table.
pub(super) fn text(gpu: &Gpu) -> String {
    let mut text = format!("{}: {} launches a decode step\n", gpu.target, gpu.launches);
    for kernel in &gpu.kernels {
        let registers = kernel.registers.map_or(String::new(), |count| format!(", {count} registers"));
        let (name, programs, threads, shared) =
            (&kernel.name, &kernel.programs, kernel.threads, kernel.shared_bytes);
        text += &format!(
            "  {name} ({programs}): {threads} threads, {shared} bytes of shared memory{registers}\n"
        );
        let mix = kernel.instructions.iter().map(|(kind, count)| format!("{count} {kind}"));
        text += &format!("    {}\n", crate::device::words(mix));
        for step in &kernel.steps {
            let Estimate { a100, h100, h200 } = step.microseconds;
            let least = crate::output::bytes(step.minimum_bytes);
            let caption = roofline::caption(&roofline::binding(step.tokens));
            text += &format!(
                "    {caption}: {} × {} blocks, at least {least} and {:.3} GFLOP each: A100 {a100:.1} µs, H100 {h100:.1} µs, H200 {h200:.1} µs\n",
                step.launches,
                step.blocks,
                step.operations as f64 / 1e9,
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn registers_are_read_from_the_words_of_the_assembler() {
        let words = "ptxas info    : Compiling entry function 'k' for 'sm_80'\nptxas info    : Used 40 registers, used 1 barriers\n";
        assert_eq!(super::used_registers(words), Some(40));
        assert_eq!(super::used_registers("nothing"), None);
    }
}
