//! What must hold before a program's kernels may be launched: plan, program, weights and device belong together.

use crate::{RuntimeError, WeightBytes};
use sinter_ir::{
    Access, Arg, GpuBucket, GpuDevice, GpuKernel, GpuLaunch, GpuParam, GpuProgram, Plan, TileParam,
    gpu_weight_bytes,
};

/// Threads in a block, of every target (CUDA C++ programming guide, table of compute capabilities).
const MAX_THREADS: u32 = 1024;
/// Blocks in a cluster, without asking for more than the portable size.
const MAX_CLUSTER: u32 = 8;

/// All checks of what the plan alone cannot say; steps have up to so many tokens.
pub(super) fn check(plan: &Plan, program: &GpuProgram, tokens: u64) -> Result<(), String> {
    ranges(&program.buckets, tokens)?;
    launches(plan, program)
}

/// The checks of kernels and launches.
pub(super) fn launches(plan: &Plan, program: &GpuProgram) -> Result<(), String> {
    for kernel in &program.kernels {
        self::kernel(kernel, program).map_err(|reason| format!("the kernel {}: {reason}", kernel.name))?;
    }
    draw(program)?;
    for (number, bucket) in program.buckets.iter().enumerate() {
        let place = |reason| format!("bucket {number}: {reason}");
        for launch in &bucket.launches {
            self::launch(plan, program, launch).map_err(place)?;
        }
        order(plan, &bucket.launches).map_err(place)?;
    }
    Ok(())
}

/// A device runs a program if its capability is the target's.
pub(super) fn device(device: &dyn GpuDevice, program: &GpuProgram) -> Result<(), String> {
    let (major, minor) = device.capability();
    if program.target.runs_on(major, minor) {
        return Ok(());
    }
    let (name, target) = (device.name(), program.target);
    Err(format!(
        "the kernels are for {target}; {name} has compute capability {major}.{minor}, which does not run them"
    ))
}

fn kernel(kernel: &GpuKernel, program: &GpuProgram) -> Result<(), String> {
    let most = |what: &str, found: u32, least: u32, most: u32| {
        if (least..=most).contains(&found) {
            Ok(())
        } else {
            Err(format!("{found} {what}, wanted {least} to {most}"))
        }
    };
    most("threads", kernel.threads, 1, MAX_THREADS)?;
    most("blocks in a cluster", kernel.cluster, 1, MAX_CLUSTER)?;
    most("bytes of shared memory", kernel.shared_bytes, 0, program.target.max_shared_bytes())?;
    for param in &kernel.params {
        let GpuParam::TensorMap(map) = param else { continue };
        let rank = map.dims.len();
        if !(1..=5).contains(&rank) || map.box_dims.len() != rank || map.strides.len() + 1 != rank {
            return Err(format!("a tensor map of {rank} dimensions, {} strides", map.strides.len()));
        }
    }
    Ok(())
}

/// The kernel that draws exists and has no more than its three arguments.
fn draw(program: &GpuProgram) -> Result<(), String> {
    let Some(number) = program.draw else { return Ok(()) };
    let kernel =
        program.kernels.get(number).ok_or_else(|| format!("there is no kernel {number}, which draws"))?;
    let known = |param: &GpuParam| match param {
        GpuParam::Address(at) => *at < 3,
        GpuParam::TensorMap(_) => false,
        GpuParam::Symbols | GpuParam::Scratch => true,
    };
    match kernel.params.iter().all(known) {
        true => Ok(()),
        false => Err(format!("{} draws from other arguments than logits, draws and tokens", kernel.name)),
    }
}

/// Buckets are sorted, and the last takes the largest step.
fn ranges(buckets: &[GpuBucket], tokens: u64) -> Result<(), String> {
    let limit = |bucket: &GpuBucket| bucket.max_tokens.unwrap_or(u64::MAX);
    match buckets.last() {
        None => return Err("the program has no launches".into()),
        Some(last) if limit(last) < tokens => {
            return Err(format!("the last bucket takes {} tokens, steps have up to {tokens}", limit(last)));
        }
        Some(_) => {}
    }
    if buckets.windows(2).any(|pair| limit(&pair[0]) >= limit(&pair[1])) {
        return Err("the buckets are not sorted".into());
    }
    Ok(())
}

/// A launch's kernel exists, its arguments are those of its steps, and its parameters are among them.
fn launch(plan: &Plan, program: &GpuProgram, launch: &GpuLaunch) -> Result<(), String> {
    let kernel =
        program.kernels.get(launch.kernel).ok_or_else(|| format!("there is no kernel {}", launch.kernel))?;
    let mut args: Vec<&Arg> = Vec::new();
    for step in &launch.steps {
        args.extend(&plan.steps.get(*step).ok_or_else(|| format!("there is no step {step}"))?.args);
    }
    if args.into_iter().ne(&launch.args) {
        return Err(format!("{} has other arguments than its steps {:?}", kernel.name, launch.steps));
    }
    let known = |at: usize| {
        let found = launch.args.len();
        if at < found { Ok(()) } else { Err(format!("{} wants argument {at} of {found}", kernel.name)) }
    };
    kernel.params.iter().try_for_each(|param| match param {
        GpuParam::Address(at) => known(*at),
        GpuParam::TensorMap(map) => known(map.arg),
        GpuParam::Symbols | GpuParam::Scratch => Ok(()),
    })
}

/// Each step of the plan is done once, and nothing is read before the launch that writes it or written before the launch
/// that still reads it.
fn order(plan: &Plan, launches: &[GpuLaunch]) -> Result<(), String> {
    let mut place = vec![None; plan.steps.len()];
    for (number, launch) in launches.iter().enumerate() {
        for step in &launch.steps {
            if place[*step].replace(number).is_some() {
                return Err(format!("step {step} is done twice"));
            }
        }
    }
    // For each tensor, the last launches that read and that wrote it.
    let mut last = std::collections::BTreeMap::<(u8, u32), (usize, usize)>::new();
    for (number, step) in plan.steps.iter().enumerate() {
        let at = place[number].ok_or_else(|| format!("step {number} is not done"))?;
        for (param, arg) in plan.kernels[step.kernel].params.values().zip(&step.args) {
            let Some(tensor) = tensor(*arg) else { continue };
            let (read, written) = last.entry(tensor).or_default();
            let writes = param.access != Access::Read;
            if at < *written || (writes && at < *read) {
                return Err(format!("step {number} comes before one that it needs, because of {arg:?}"));
            }
            *(if writes { written } else { read }) = at.max(if writes { *written } else { *read });
        }
    }
    Ok(())
}

/// What steps can change, as something that can be compared.
fn tensor(arg: Arg) -> Option<(u8, u32)> {
    match arg {
        Arg::Buffer(id) => Some((0, id.0)),
        Arg::State(at) => Some((1, at as u32)),
        Arg::Output(at) => Some((2, at as u32)),
        Arg::Weight(_) | Arg::Input(_) => None,
    }
}

/// A weight has the bytes that its definition takes on a GPU.
pub(super) fn weight(plan: &Plan, at: usize, weight: &WeightBytes) -> Result<(), RuntimeError> {
    let (id, def) =
        plan.weights.iter().nth(at).ok_or_else(|| RuntimeError::Load(format!("there is no w{at}")))?;
    let (found, wanted) = (weight.bytes().len() as u64, gpu_weight_bytes(&def.ty, def.layout));
    if wanted == Some(found) {
        return Ok(());
    }
    let wanted = wanted.map_or("a constant shape".into(), |bytes| format!("{bytes} bytes"));
    Err(RuntimeError::Load(format!("{id}, {} on a GPU, has {found} bytes, wanted {wanted}", def.ty)))
}

/// The parameters and arguments of a launch, step by step.
pub(super) fn pairs<'p>(plan: &'p Plan, launch: &'p GpuLaunch) -> impl Iterator<Item = (&'p TileParam, Arg)> {
    let of = |step: &'p usize| {
        let step = &plan.steps[*step];
        plan.kernels[step.kernel].params.values().zip(step.args.iter().copied())
    };
    launch.steps.iter().flat_map(of)
}
