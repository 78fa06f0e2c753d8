//! The contract between a GPU kernel, the device it runs on, and whoever launches it.
//!
//! A [`GpuProgram`] is a plan compiled for one target: PTX kernels and, for a range of step sizes, the launches that do
//! one step. A [`GpuDevice`] is where it runs: a GPU through the CUDA driver, or the virtual GPU. Both take the same
//! calls, so whatever walks a program cannot tell them apart.

use crate::{Arg, Binding, DType, Dim, Layout, Plan, Type};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What PTX is written for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Target {
    /// Ampere: cp.async, ldmatrix, mma.sync.
    Sm80,
    /// Ada: as Ampere.
    Sm89,
    /// Hopper: TMA, mbarrier, wgmma.
    Sm90a,
}

impl Target {
    /// All targets.
    pub const ALL: [Target; 3] = [Target::Sm80, Target::Sm89, Target::Sm90a];
    /// The name that `ptxas` takes: `sm_90a`.
    pub fn name(self) -> &'static str {
        ["sm_80", "sm_89", "sm_90a"][self as usize]
    }
    /// The target of that name.
    pub fn parse(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|target| target.name() == name)
    }
    /// The most shared memory that one block can have, in bytes (CUDA C++ programming guide, table of compute
    /// capabilities).
    pub fn max_shared_bytes(self) -> u32 {
        [163, 99, 227][self as usize] * 1024
    }
    /// Whether a device of compute capability `major.minor` runs code for this target. PTX of `sm_90a` runs on 9.0 alone.
    pub fn runs_on(self, major: u32, minor: u32) -> bool {
        match self {
            Target::Sm80 => major >= 8,
            Target::Sm89 => (major, minor) >= (8, 9),
            Target::Sm90a => (major, minor) == (9, 0),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One factor of a grid: ⌈extent / per_block⌉ blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Blocks {
    /// What is divided among blocks.
    pub extent: Dim,
    /// How much of it a block does.
    pub per_block: u64,
}

/// How a tensor map swizzles shared memory (PTX ISA, tensor swizzling modes).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Swizzle {
    /// None.
    None,
    /// 16-byte pieces within 32 bytes.
    B32,
    /// 16-byte pieces within 64 bytes.
    B64,
    /// 16-byte pieces within 128 bytes.
    B128,
}

/// A tiled tensor map over an argument, as a kernel wants it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TensorMapDef {
    /// The position of the tensor among the launch's arguments.
    pub arg: usize,
    /// The element type: bf16, f16 or f32.
    pub dtype: DType,
    /// The extents, innermost first.
    pub dims: Vec<Dim>,
    /// The byte strides of all dimensions but the innermost; multiples of 16.
    pub strides: Vec<u64>,
    /// The box that one copy moves, innermost first; at most 256 each.
    pub box_dims: Vec<u32>,
    /// The swizzle.
    pub swizzle: Swizzle,
}

/// One parameter of a kernel's entry, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum GpuParam {
    /// `.u64`: the address of an argument of the launch, a multiple of 16.
    Address(usize),
    /// Five `.u32`: the values of [`Sym::ALL`](crate::Sym::ALL).
    Symbols,
    /// `.u64`: the address of the launch's scratch memory.
    Scratch,
    /// 128 bytes, 64-byte aligned, `.param` grid constant: a tensor map.
    TensorMap(TensorMapDef),
}

/// A kernel for a GPU.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GpuKernel {
    /// The entry's name in its PTX module.
    pub name: String,
    /// The PTX module, which holds this one entry.
    pub ptx: String,
    /// The entry's parameters.
    pub params: Vec<GpuParam>,
    /// The number of blocks is the product of these; the last factor varies fastest in `ctaid.x`.
    pub grid: Vec<Blocks>,
    /// If set, no more than so many blocks for each multiprocessor are launched and each does several pieces of work;
    /// the kernel strides by `nctaid.x`.
    pub persistent: Option<u32>,
    /// Threads in a block.
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// Blocks in a cluster; 1 means no cluster launch.
    pub cluster: u32,
    /// Whether the kernel waits for its predecessor itself (`griddepcontrol.wait`), so that it may start early.
    pub dependent_launch: bool,
    /// Bytes of scratch memory: the product of these, or none. Scratch is zero before the first launch, and each launch
    /// leaves zero what it needs to find zero.
    pub scratch: Vec<Dim>,
}

/// One launch of a step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GpuLaunch {
    /// The position in [`GpuProgram::kernels`].
    pub kernel: usize,
    /// The arguments that [`GpuParam::Address`] and [`TensorMapDef::arg`] count; those of several plan steps one after
    /// the other where the launch does several.
    pub args: Vec<Arg>,
    /// The plan's steps that it does.
    pub steps: Vec<usize>,
}

/// The launches for steps of up to a number of tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GpuBucket {
    /// The most tokens; none means any number.
    pub max_tokens: Option<u64>,
    /// The launches in order.
    pub launches: Vec<GpuLaunch>,
}

/// A plan compiled for one target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GpuProgram {
    /// What it is compiled for.
    pub target: Target,
    /// The kernels.
    pub kernels: Vec<GpuKernel>,
    /// The launch lists by step size, smallest first; the last has no limit.
    pub buckets: Vec<GpuBucket>,
    /// The position of the kernel that draws tokens, if there is one: its arguments are the result, rows of f32, one
    /// [`Draw`](crate::draw::Draw) a row, and the tokens, one `u32` a row.
    pub draw: Option<usize>,
}

/// The bytes from one row of a contraction's weight `[N, K]` to the next in GPU memory: rows are padded with zeros to
/// 16 bytes, as vector loads and tensor maps need. Weights of no contraction are not padded.
pub fn weight_pitch(dtype: DType, k: u64) -> u64 {
    (k * dtype.bytes() as u64).div_ceil(16) * 16
}

/// The bytes that a weight takes in GPU memory; none if its shape is not constant, or it is a contraction's weight and
/// neither a matrix nor a stack of them, `[E, N, K]`, whose rows follow one another. Codes lie as `fragments.rs` says.
pub fn gpu_weight_bytes(ty: &Type, layout: Layout) -> Option<u64> {
    let shape: Vec<u64> = ty.shape.iter().map(|dim| dim.as_const()).collect::<Option<_>>()?;
    let row = |k: u64| k.checked_mul(ty.dtype.bytes() as u64)?.checked_next_multiple_of(16);
    match (layout, shape.as_slice()) {
        (Layout::Panels, [n, k]) => n.checked_mul(row(*k)?),
        (Layout::Panels, [e, n, k]) => e.checked_mul(*n)?.checked_mul(row(*k)?),
        (Layout::Codes(codes), [n, k]) => {
            let (n, k) = (usize::try_from(*n).ok()?, usize::try_from(*k).ok()?);
            codes.fits(k).then(|| codes.gpu_bytes(n, k) as u64)
        }
        (Layout::Panels | Layout::Codes(_) | Layout::Halves, _) => None,
        (Layout::Rows, shape) => {
            shape.iter().try_fold(ty.dtype.bytes() as u64, |bytes, dim| bytes.checked_mul(*dim))
        }
    }
}

/// For each weight of a plan the first one that has the same bytes in GPU memory: a tied embedding that is also the head
/// needs to lie there only once.
pub fn gpu_twins(plan: &Plan) -> Vec<usize> {
    let weights: Vec<_> = plan.weights.values().collect();
    let value = |at: usize| weights[at].source.outputs.first().map(|(_, value)| *value);
    let padded = |at: usize| {
        let ty = &weights[at].ty;
        gpu_weight_bytes(ty, weights[at].layout) != gpu_weight_bytes(ty, Layout::Rows)
    };
    let codes = |at: usize| if let Layout::Codes(codes) = weights[at].layout { Some(codes) } else { None };
    let twins = |a: usize, b: usize| {
        weights[a].ty == weights[b].ty
            && codes(a) == codes(b)
            && padded(a) == padded(b)
            && value(a) == value(b)
            && weights[a].source.nodes == weights[b].source.nodes
    };
    (0..weights.len()).map(|at| (0..at).find(|first| twins(*first, at)).unwrap_or(at)).collect()
}

impl GpuKernel {
    /// The number of blocks under a binding on a device with so many multiprocessors.
    pub fn blocks(&self, binding: &Binding, multiprocessors: u32) -> u64 {
        let factor = |blocks: &Blocks| blocks.extent.eval(binding).div_ceil(blocks.per_block.max(1));
        let wanted = self.grid.iter().fold(1u64, |product, blocks| product.saturating_mul(factor(blocks)));
        match self.persistent {
            Some(each) => wanted.min(u64::from(each) * u64::from(multiprocessors)),
            None => wanted,
        }
    }
    /// The bytes of scratch memory under a binding.
    pub fn scratch_bytes(&self, binding: &Binding) -> u64 {
        if self.scratch.is_empty() {
            return 0;
        }
        self.scratch.iter().fold(1u64, |product, dim| product.saturating_mul(dim.eval(binding)))
    }
}

impl GpuProgram {
    /// The launches for a step of so many tokens.
    pub fn bucket(&self, tokens: u64) -> Option<&GpuBucket> {
        self.buckets.iter().find(|bucket| bucket.max_tokens.is_none_or(|most| tokens <= most))
    }
}

/// An address in a device's memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DevicePtr(pub u64);

/// An entry of a loaded module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GpuFunction(pub usize);

/// Launches that a device has recorded, to be run again at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GpuRecording(pub usize);

/// A point in a device's work.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GpuMark(pub usize);

/// A tensor map with everything known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorMap {
    /// Where the tensor lies.
    pub base: DevicePtr,
    /// The element type.
    pub dtype: DType,
    /// The extents, innermost first.
    pub dims: Vec<u64>,
    /// The byte strides of all dimensions but the innermost.
    pub strides: Vec<u64>,
    /// The box that one copy moves, innermost first.
    pub box_dims: Vec<u32>,
    /// The swizzle.
    pub swizzle: Swizzle,
}

/// A value for a kernel parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaunchArg {
    /// `.u64`
    Address(DevicePtr),
    /// `.u32`
    U32(u32),
    /// 128 bytes
    TensorMap(TensorMap),
}

/// The shape of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaunchShape {
    /// Blocks, all along x.
    pub blocks: u32,
    /// Threads in a block.
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// Blocks in a cluster.
    pub cluster: u32,
    /// Whether the kernel may start before its predecessor ends.
    pub dependent: bool,
}

/// Why a device did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The memory is used up.
    #[error("the GPU has no {bytes} bytes left: {reason}")]
    Memory {
        /// How many were wanted.
        bytes: u64,
        /// The device's words.
        reason: String,
    },
    /// A module was refused.
    #[error("the kernel {kernel} was not accepted: {reason}")]
    Module {
        /// The entry.
        kernel: String,
        /// The device's words.
        reason: String,
    },
    /// A kernel went wrong.
    #[error("the kernel {kernel} failed: {reason}")]
    Kernel {
        /// The entry.
        kernel: String,
        /// The device's words; the virtual GPU names the PTX line.
        reason: String,
    },
    /// Anything else.
    #[error("the GPU failed: {0}")]
    Device(String),
}

/// A GPU, real or virtual. Work is done in the order of the calls; only [`GpuDevice::read`] and
/// [`GpuDevice::synchronize`] wait for it.
pub trait GpuDevice: Send {
    /// The device in words: `NVIDIA H200`, `virtual GPU, sm_90a`.
    fn name(&self) -> String;
    /// The compute capability, major and minor.
    fn capability(&self) -> (u32, u32);
    /// The number of multiprocessors.
    fn multiprocessors(&self) -> u32;
    /// Memory of so many bytes, aligned to 256, its content undefined.
    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, GpuError>;
    /// Gives memory back.
    fn free(&mut self, at: DevicePtr) -> Result<(), GpuError>;
    /// Copies bytes to the device.
    fn write(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), GpuError>;
    /// Sets bytes to zero.
    fn clear(&mut self, at: DevicePtr, bytes: u64) -> Result<(), GpuError>;
    /// Copies bytes from the device, after all work before it.
    fn read(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), GpuError>;
    /// Loads a PTX module and finds its entry.
    fn load(&mut self, ptx: &str, entry: &str, shared_bytes: u32) -> Result<GpuFunction, GpuError>;
    /// Launches a kernel.
    fn launch(
        &mut self,
        function: GpuFunction,
        shape: LaunchShape,
        args: &[LaunchArg],
    ) -> Result<(), GpuError>;
    /// Waits for all work, and says what went wrong in it.
    fn synchronize(&mut self) -> Result<(), GpuError>;

    /// Begins to record launches instead of running them; false if the device cannot, and then they are run.
    fn record(&mut self) -> Result<bool, GpuError> {
        Ok(false)
    }
    /// Ends a recording.
    fn recorded(&mut self) -> Result<GpuRecording, GpuError> {
        Err(GpuError::Device("nothing was being recorded".into()))
    }
    /// Runs recorded launches with the arguments that they had.
    fn replay(&mut self, recording: GpuRecording) -> Result<(), GpuError> {
        Err(GpuError::Device(format!("there is no recording {}", recording.0)))
    }
    /// Forgets a recording.
    fn forget(&mut self, recording: GpuRecording) -> Result<(), GpuError> {
        Err(GpuError::Device(format!("there is no recording {}", recording.0)))
    }
    /// Marks this point in the work; none if the device has no clock.
    fn mark(&mut self) -> Result<Option<GpuMark>, GpuError> {
        Ok(None)
    }
    /// The nanoseconds between two marks, after all work before the second. Both marks are used up.
    fn nanos_between(&mut self, from: GpuMark, to: GpuMark) -> Result<u64, GpuError> {
        Err(GpuError::Device(format!("there are no marks {} and {}", from.0, to.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Graph, WeightDef};

    fn weight(name: &str, layout: Layout, [n, k]: [usize; 2]) -> WeightDef {
        let shape = [Dim::of(n), Dim::of(k)];
        let mut source = Graph::new(name);
        let value = source.param(name, DType::F32, &shape).unwrap();
        source.output("w", value);
        WeightDef { source, ty: Type::new(DType::F32, shape), layout }
    }

    #[test]
    fn weights_of_the_same_bytes_are_twins() {
        let (rows, panels) = (Layout::Rows, Layout::Panels);
        let weights = [
            weight("a", rows, [4, 8]),
            weight("a", panels, [4, 8]),
            weight("b", panels, [4, 8]),
            weight("c", rows, [4, 7]),
            weight("c", panels, [4, 7]),
            weight("c", rows, [4, 7]),
        ];
        let plan = Plan { weights: weights.into_iter().collect(), ..Plan::default() };
        // The rows of the second `c` are padded.
        assert_eq!(gpu_twins(&plan), [0, 0, 2, 3, 4, 3]);
    }

    #[test]
    fn the_rows_of_contractions_are_padded() {
        let bytes = |layout, n: usize, k: usize| gpu_weight_bytes(&weight("a", layout, [n, k]).ty, layout);
        assert_eq!(bytes(Layout::Panels, 3, 5), Some(3 * 32));
        assert_eq!(bytes(Layout::Rows, 3, 5), Some(60));
        assert_eq!(bytes(Layout::Panels, 3, usize::MAX), None);
        assert_eq!(gpu_weight_bytes(&Type::new(DType::F32, [3.into()]), Layout::Panels), None);
    }

    #[test]
    fn blocks_follow_the_binding() {
        let blocks = |persistent| GpuKernel {
            name: "k".into(),
            ptx: String::new(),
            params: vec![],
            grid: vec![
                Blocks { extent: crate::Sym::T.into(), per_block: 4 },
                Blocks { extent: 10.into(), per_block: 3 },
            ],
            persistent,
            threads: 32,
            shared_bytes: 0,
            cluster: 1,
            dependent_launch: false,
            scratch: vec![crate::Sym::S.into(), 8.into()],
        };
        let binding = Binding::new(9, 2, 1, 16);
        assert_eq!(blocks(None).blocks(&binding, 2), 12);
        assert_eq!(blocks(Some(2)).blocks(&binding, 2), 4);
        assert_eq!(blocks(None).scratch_bytes(&binding), 16);
        assert_eq!(blocks(None).blocks(&Binding::new(0, 0, 0, 0), 2), 0);
    }
}
