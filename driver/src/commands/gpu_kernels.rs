//! What `sinter inspect` shows of the kernels of a GPU program.

use super::registers;
use crate::cli::InspectArgs;
use crate::ptx;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sinter_codegen_schedule::contract::multiprocessors;
use sinter_codegen_schedule::group::{self, Group};
use sinter_codegen_schedule::roofline::{GPUS, Gpu};
use sinter_codegen_schedule::work::{StepSize, Work};
use sinter_ir::{GpuBucket, GpuKernel, GpuProgram, Plan, Sym, Target};
use std::collections::BTreeMap;

/// The kernels for one target.
#[derive(Debug, Serialize)]
pub(super) struct Kernels {
    target: Target,
    /// What is shown of each kernel is for a launch of these.
    steps: Vec<Step>,
    kernels: Vec<Kernel>,
}

/// A whole step.
#[derive(Debug, Serialize)]
struct Step {
    step: String,
    launches: usize,
    /// Weights, cache, inputs and results, each once.
    minimum_bytes: u64,
    /// What all launches move.
    moved_bytes: u64,
    operations: u64,
    /// The sum of the launches' shortest times.
    roofline: Vec<Time>,
}

/// A kernel.
#[derive(Debug, Serialize)]
struct Kernel {
    name: String,
    /// The tile programs that it does.
    programs: String,
    /// How they are divided.
    schedule: String,
    threads: u32,
    shared_bytes: u32,
    cluster: u32,
    persistent: Option<u32>,
    dependent_launch: bool,
    /// Registers of a thread, if an assembler was given.
    registers: Option<u32>,
    /// Instructions in the PTX by kind: how often they stand there, not how often they run.
    static_instructions: BTreeMap<&'static str, usize>,
    steps: Vec<Use>,
}

/// What a kernel does in a step.
#[derive(Debug, Serialize)]
struct Use {
    step: String,
    launches: usize,
    /// Blocks of one launch, as all that follows.
    blocks: u64,
    minimum_bytes: u64,
    read_bytes: u64,
    written_bytes: u64,
    operations: u64,
    roofline: Vec<Time>,
}

/// The shortest time on a GPU.
#[derive(Debug, Serialize)]
struct Time {
    gpu: &'static str,
    microseconds: f64,
    /// What a launch waits for; none for a step, whose launches may wait for different things.
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<String>,
}

/// A step that is shown, with what its launches do.
struct Shown<'a> {
    name: String,
    size: StepSize,
    bucket: &'a GpuBucket,
    /// Of each launch of the bucket.
    work: Vec<Work>,
    groups: Vec<Group>,
}

/// Everything that is known of a program without running it.
pub(super) fn describe(plan: &Plan, program: &GpuProgram, args: &InspectArgs) -> Result<Kernels> {
    let gpus: Vec<Gpu> = match args.gpu {
        Some(gpu) => {
            ensure!(gpu.runs(program.target), "{} does not run code for {}", gpu.name, program.target);
            vec![gpu]
        }
        None => GPUS.into_iter().filter(|gpu| gpu.target == program.target).collect(),
    };
    let (sequences, context) = (args.sequences.unwrap_or(1), args.context.unwrap_or(1024));
    let tokens = args.prompt.unwrap_or(512);
    let decode =
        (format!("decode of {sequences} × {context} positions"), StepSize::decode(sequences, context));
    let prompt = (format!("prompt of {tokens} tokens"), StepSize::prompt(tokens));
    let shown = [decode, prompt].map(|(name, size)| Shown::of(plan, program, (name, size)));
    let shown: Vec<Shown<'_>> = shown.into_iter().collect::<Result<_>>()?;
    let kernel = |(at, kernel): (usize, &GpuKernel)| -> Result<Kernel> {
        let registers =
            args.ptxas.as_deref().map(|ptxas| registers::of(ptxas, program.target, kernel)).transpose()?;
        let (programs, schedule) = contents(plan, program, at);
        Ok(Kernel {
            name: kernel.name.clone(),
            programs,
            schedule,
            threads: kernel.threads,
            shared_bytes: kernel.shared_bytes,
            cluster: kernel.cluster,
            persistent: kernel.persistent,
            dependent_launch: kernel.dependent_launch,
            registers,
            static_instructions: ptx::mix(&kernel.ptx),
            steps: shown.iter().filter_map(|shown| shown.used(plan, program, at, &gpus)).collect(),
        })
    };
    let kernels = program.kernels.iter().enumerate().map(kernel).collect::<Result<_>>()?;
    let steps = shown.iter().map(|shown| shown.whole(&gpus)).collect();
    Ok(Kernels { target: program.target, steps, kernels })
}

/// The programs that a kernel does, and how they are divided.
fn contents(plan: &Plan, program: &GpuProgram, at: usize) -> (String, String) {
    if program.draw == Some(at) {
        return ("draws tokens".into(), "a block for each piece of a row".into());
    }
    for bucket in &program.buckets {
        let Some(launch) = bucket.launches.iter().find(|launch| launch.kernel == at) else { continue };
        let names = launch.steps.iter().filter_map(|step| plan.steps.get(*step));
        let names: Vec<&str> = names.map(|step| &plan.kernels[step.kernel].name[..]).collect();
        let groups = group::launches(plan, program.target, bucket.max_tokens);
        let group = groups.iter().find(|group| group.steps == launch.steps);
        let schedules = group.iter().flat_map(|group| &group.schedules);
        let schedules: Vec<String> = schedules.map(ToString::to_string).collect();
        return (names.join(" | "), schedules.join(" | "));
    }
    (String::new(), String::new())
}

impl<'a> Shown<'a> {
    fn of(plan: &Plan, program: &'a GpuProgram, (name, size): (String, StepSize)) -> Result<Self> {
        let bucket = program.bucket(size.tokens()).context("the program has no launches for such a step")?;
        let groups = group::launches(plan, program.target, bucket.max_tokens);
        let same = groups.len() == bucket.launches.len()
            && groups.iter().zip(&bucket.launches).all(|(group, launch)| group.steps == launch.steps);
        ensure!(same, "the launches for {} are not those that this version of sinter makes", program.target);
        let work = groups.iter().map(|group| Work::of(plan, group, &size)).collect();
        Ok(Self { name, size, bucket, work, groups })
    }

    /// What a kernel does in the step; none if it has no part in it.
    fn used(&self, plan: &Plan, program: &GpuProgram, at: usize, gpus: &[Gpu]) -> Option<Use> {
        let binding = self.size.binding();
        let kernel = &program.kernels[at];
        let mut launches =
            self.bucket.launches.iter().zip(&self.work).filter(|(launch, _)| launch.kernel == at);
        let (count, work) = if program.draw == Some(at) {
            let width = plan.outputs.iter().find_map(|output| match output.ty.shape[..] {
                [rows, width] if rows == Sym::R.into() => width.as_const(),
                _ => None,
            });
            (1, Work::of_draw(binding.get(Sym::R), width?, kernel.scratch_bytes(&binding)))
        } else {
            (launches.clone().count(), *launches.next()?.1)
        };
        let time = |gpu: &Gpu| {
            let estimate = gpu.estimate(&work);
            let (microseconds, bound) = (estimate.microseconds, Some(estimate.bound.to_string()));
            Time { gpu: gpu.name, microseconds, bound }
        };
        Some(Use {
            step: self.name.clone(),
            launches: count,
            blocks: kernel.blocks(&binding, multiprocessors(program.target) as u32),
            minimum_bytes: work.minimum,
            read_bytes: work.read,
            written_bytes: work.written,
            operations: work.operations,
            roofline: gpus.iter().map(time).collect(),
        })
    }

    /// The step as a whole, without the launch that draws, which is only there where a token is wanted.
    fn whole(&self, gpus: &[Gpu]) -> Step {
        let mut sum = Work::default();
        self.work.iter().for_each(|work| sum += *work);
        let time = |gpu: &Gpu| Time {
            gpu: gpu.name,
            microseconds: self.work.iter().map(|work| gpu.estimate(work).microseconds).sum(),
            bound: None,
        };
        Step {
            step: self.name.clone(),
            launches: self.groups.len(),
            minimum_bytes: sum.minimum - sum.between,
            moved_bytes: sum.moved(),
            operations: sum.operations,
            roofline: gpus.iter().map(time).collect(),
        }
    }
}

/// `H200 2.1 µs (memory)`
fn times(times: &[Time]) -> String {
    crate::device::words(times.iter().map(|time| {
        let bound = time.bound.as_ref().map_or(String::new(), |bound| format!(" ({bound})"));
        format!("{} {:.1} µs{bound}", time.gpu, time.microseconds)
    }))
}

/// `1.2 MiB, 1.004 × the least`
fn against(moved: u64, least: u64) -> String {
    let bytes = crate::output::bytes(moved);
    if least == 0 { bytes } else { format!("{bytes}, {:.3} × the least", moved as f64 / least as f64) }
}

/// The kernels as a table.
pub(super) fn text(kernels: &Kernels) -> String {
    let mut text = format!(
        "kernels for {}; bytes and times are computed, not measured, and instructions are counted where they stand\n",
        kernels.target
    );
    for step in &kernels.steps {
        text += &format!(
            "  {}: {} launches move {}, {:.3} GFLOP, at least {}\n",
            step.step,
            step.launches,
            against(step.moved_bytes, step.minimum_bytes),
            step.operations as f64 / 1e9,
            times(&step.roofline)
        );
    }
    for kernel in &kernels.kernels {
        let registers = kernel.registers.map_or("unknown (needs --ptxas)".into(), |count| count.to_string());
        text += &format!(
            "  {} ({}): {}\n    {} threads, {} bytes of shared memory, registers {registers}\n",
            kernel.name, kernel.programs, kernel.schedule, kernel.threads, kernel.shared_bytes
        );
        let mix = kernel.static_instructions.iter().map(|(kind, count)| format!("{count} {kind}"));
        text += &format!("    instructions in the text: {}\n", crate::device::words(mix));
        for step in &kernel.steps {
            text += &format!(
                "    {}: {} × {} blocks, each launch {}, {:.3} GFLOP, at least {}\n",
                step.step,
                step.launches,
                step.blocks,
                against(step.read_bytes + step.written_bytes, step.minimum_bytes),
                step.operations as f64 / 1e9,
                times(&step.roofline)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use sinter_codegen_schedule::BUCKETS;
    use sinter_frontend::build::BuildOptions;
    use sinter_frontend::model::Model;
    use sinter_frontend::source::ModelDir;
    use sinter_ir::{DType, GpuLaunch};

    /// The plan of a golden model, and its launches with kernels that do nothing.
    fn golden() -> (Plan, GpuProgram) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testsuite/goldens/llama");
        let model = Model::open(ModelDir::open(folder.as_ref()).unwrap()).unwrap();
        let graph = model.build(BuildOptions::new(DType::Bf16)).unwrap();
        let plan = sinter_passes::compile(&graph, &sinter_passes::Options::default()).unwrap().plan;
        let target = Target::Sm90a;
        let (mut kernels, mut buckets) = (Vec::new(), Vec::new());
        for max_tokens in BUCKETS {
            let mut launches = Vec::new();
            for group in group::launches(&plan, target, max_tokens) {
                launches.push(GpuLaunch { kernel: kernels.len(), args: vec![], steps: group.steps });
                kernels.push(GpuKernel {
                    name: format!("k{}", kernels.len()),
                    ptx: "\tret;\n".into(),
                    params: vec![],
                    grid: vec![],
                    persistent: None,
                    threads: 32,
                    shared_bytes: 0,
                    cluster: 1,
                    dependent_launch: false,
                    scratch: vec![],
                });
            }
            buckets.push(GpuBucket { max_tokens, launches });
        }
        (plan, GpuProgram { target, kernels, buckets, draw: None })
    }

    fn args(more: &[&str]) -> InspectArgs {
        let line = [&["sinter", "inspect", "m", "--target", "sm_90a"], more].concat();
        let Command::Inspect(args) = <Cli as clap::Parser>::parse_from(line).command else {
            panic!("another command")
        };
        args
    }

    #[test]
    fn steps_and_kernels_are_shown_with_what_they_move() {
        let (plan, mut program) = golden();
        let shown =
            describe(&plan, &program, &args(&["--context", "40", "--prompt", "100", "--gpu", "h200"]))
                .unwrap();
        let value = serde_json::to_value(&shown).unwrap();
        let decode = &value["steps"][0];
        assert_eq!(decode["step"], "decode of 1 × 40 positions");
        // The weights but the table of tokens, of which one row is read.
        let least = crate::info::weight_bytes(&plan, crate::bundle::WeightLayout::Rows);
        let (minimum, moved) =
            (decode["minimum_bytes"].as_u64().unwrap(), decode["moved_bytes"].as_u64().unwrap());
        assert!(
            minimum > least / 2 && minimum < 2 * least && moved >= minimum,
            "{minimum}, {least}, {moved}"
        );
        let kernels = value["kernels"].as_array().unwrap();
        let of = |step: &str| {
            let uses = kernels.iter().flat_map(|kernel| kernel["steps"].as_array().unwrap());
            uses.filter(|used| used["step"] == step).count()
        };
        assert_eq!(decode["launches"], of("decode of 1 × 40 positions"));
        assert_eq!(value["steps"][1]["launches"], of("prompt of 100 tokens"));
        let first = &kernels[0]["steps"][0];
        assert_eq!((&first["launches"], &first["roofline"][0]["gpu"]), (&1.into(), &"H200".into()));
        assert_eq!(first["roofline"][0]["bound"], "memory");
        let words = text(&shown);
        assert!(
            words.contains("registers unknown (needs --ptxas)") && words.contains("× the least"),
            "{words}"
        );
        let refused = describe(&plan, &program, &args(&["--gpu", "A100"])).unwrap_err().to_string();
        assert_eq!(refused, "A100 does not run code for sm_90a");
        program.buckets[0].launches.pop();
        let refused = describe(&plan, &program, &args(&[])).unwrap_err().to_string();
        assert!(refused.contains("are not those that this version"), "{refused}");
    }
}
