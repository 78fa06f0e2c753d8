//! GPU kernels: compiled here if this build can; and the devices that run them.

use crate::device::Place;
use crate::environment::Environment;
use crate::jit::{Compiler, Jit, Keeper};
use crate::output::Output;
use anyhow::{Context, Result, bail};
#[cfg(feature = "nvptx")]
use sinter_ir::GpuKernel;
use sinter_ir::{GpuDevice, GpuProgram, Plan, Target};
use sinter_runtime::CudaDevice;
use sinter_vgpu::VirtualGpu;
use std::sync::Arc;

/// Whether this build can compile for GPUs.
pub const CAN_COMPILE: bool = cfg!(feature = "nvptx");

/// What to do with a build that cannot.
pub const HOW_TO_COMPILE: &str = "this build of sinter cannot compile for GPUs, it only runs bundles that were; build it \
                                  with `cargo build --release -p sinter-driver --features nvptx`, which needs LLVM and \
                                  MLIR 22";

/// The kernels of a plan for a target, compiled when they are needed, from the compile cache if they are there.
pub fn jit(plan: Arc<Plan>, target: Target, env: &Environment, output: &Output) -> Result<Jit> {
    if !CAN_COMPILE {
        bail!("{HOW_TO_COMPILE}");
    }
    Ok(Jit::new(plan, target, COMPILER, (env.cache.as_deref(), output)))
}

#[cfg(feature = "nvptx")]
const COMPILER: Compiler = Compiler { compile, sizes: &sinter_codegen_nvptx::BUCKETS };

#[cfg(not(feature = "nvptx"))]
const COMPILER: Compiler = Compiler { compile, sizes: &[None] };

#[cfg(feature = "nvptx")]
fn compile(
    plan: &Plan,
    target: Target,
    sizes: &[Option<u64>],
    keeper: &mut Keeper<'_>,
) -> Result<GpuProgram> {
    let mut keep = |description: &str, make: &dyn Fn() -> Result<GpuKernel, sinter_codegen_nvptx::Error>| {
        keeper(description, &|| Ok(make()?))
    };
    let program = sinter_codegen_nvptx::compile_sizes(plan, target, sizes, &mut keep);
    program.with_context(|| format!("compiling for {target}"))
}

#[cfg(not(feature = "nvptx"))]
fn compile(_: &Plan, target: Target, _: &[Option<u64>], _: &mut Keeper<'_>) -> Result<GpuProgram> {
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
