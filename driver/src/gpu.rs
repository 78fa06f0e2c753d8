//! GPU programs: compiled here if this build can, kept in the compile cache, opened on a device.

use crate::atomic_file::sha256;
use crate::cache::{self, Cache};
use crate::device::Place;
use crate::environment::Environment;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use sinter_ir::{GpuDevice, GpuProgram, Plan, Target};
use sinter_runtime::CudaDevice;
use sinter_vgpu::VirtualGpu;

/// Whether this build can compile for GPUs.
pub const CAN_COMPILE: bool = cfg!(feature = "nvptx");

/// What to do with a build that cannot.
pub const HOW_TO_COMPILE: &str = "this build of sinter cannot compile for GPUs, it only runs bundles that were; build it \
                                  with `cargo build --release -p sinter-driver --features nvptx`, which needs LLVM and \
                                  MLIR 22";

/// The program of a plan for a target, from the compile cache if it is there.
pub fn program(plan: &Plan, target: Target, env: &Environment, output: &Output) -> Result<GpuProgram> {
    if !CAN_COMPILE {
        bail!("{HOW_TO_COMPILE}");
    }
    let key = cache::key(&sha256(&serde_json::to_vec(plan)?), target.name());
    let check = |program: &GpuProgram| {
        if program.target == target { Ok(()) } else { bail!("it is for {}", program.target) }
    };
    let cache = Cache::new(env.cache.as_deref(), "programs");
    cache.get_or((&key, output), check, || compile(plan, target))
}

#[cfg(feature = "nvptx")]
fn compile(plan: &Plan, target: Target) -> Result<GpuProgram> {
    sinter_codegen_nvptx::compile(plan, target).with_context(|| format!("compiling for {target}"))
}

#[cfg(not(feature = "nvptx"))]
fn compile(_: &Plan, target: Target) -> Result<GpuProgram> {
    Err(anyhow::anyhow!("{HOW_TO_COMPILE}")).with_context(|| format!("compiling for {target}"))
}

/// Opens the device of a place; none for the host.
pub fn open(place: &Place) -> Result<Option<Box<dyn GpuDevice>>> {
    Ok(match place {
        Place::Host => None,
        Place::Vgpu(target) => Some(Box::new(VirtualGpu::new(*target))),
        Place::Cuda { ordinal, .. } => {
            let device = CudaDevice::open(*ordinal).with_context(|| format!("cannot open cuda:{ordinal}"))?;
            Some(Box::new(device))
        }
    })
}

/// A form of a kernel on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// As it was written, in MLIR.
    Mlir,
    /// After optimisation, in LLVM's form.
    Llvm,
    /// As the driver of a GPU takes it.
    Ptx,
}

/// All kernels of a plan at a stage, one after the other.
#[cfg(feature = "nvptx")]
pub fn emit(plan: &Plan, target: Target, stage: Stage) -> Result<String> {
    let kernels =
        sinter_codegen_nvptx::stages(plan, target).with_context(|| format!("compiling for {target}"))?;
    let text = |(name, stages): &(String, sinter_codegen_nvptx::emit::Stages)| {
        let (comment, text) = match stage {
            Stage::Mlir => ("//", &stages.mlir),
            Stage::Llvm => (";", &stages.llvm),
            Stage::Ptx => ("//", &stages.ptx),
        };
        format!("{comment} {name}\n{text}\n")
    };
    Ok(kernels.iter().map(text).collect())
}

/// All kernels of a plan at a stage, one after the other.
#[cfg(not(feature = "nvptx"))]
pub fn emit(_: &Plan, _: Target, _: Stage) -> Result<String> {
    bail!("{HOW_TO_COMPILE}")
}
