//! The virtual GPU as a device.

use crate::counters::Counters;
use crate::exec::{self, Launch, Program};
use crate::fault::Fault;
use crate::memory::{GlobalMemory, LAUNCHES};
use crate::ptx;
use sinter_ir::{DevicePtr, GpuDevice, GpuError, GpuFunction, LaunchArg, LaunchShape, Target, TensorMap};

/// Memory of a virtual GPU, unless it is told otherwise: that of an H200.
const CAPACITY: u64 = 141 << 30;
/// Its multiprocessors.
const MULTIPROCESSORS: u32 = 132;

/// A GPU that executes PTX on the CPU and checks every step.
pub struct VirtualGpu {
    target: Target,
    multiprocessors: u32,
    workers: u32,
    most_instructions: u64,
    memory: GlobalMemory,
    functions: Vec<Function>,
    launches: Vec<LaunchCounters>,
    serial: u32,
}

/// A loaded entry.
struct Function {
    program: Program,
    dynamic_shared: u32,
}

/// What a launch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchCounters {
    /// The entry.
    pub kernel: String,
    /// The numbers.
    pub counters: Counters,
}

impl VirtualGpu {
    /// A GPU that runs code for a target.
    pub fn new(target: Target) -> VirtualGpu {
        let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        VirtualGpu {
            target,
            multiprocessors: MULTIPROCESSORS,
            workers,
            most_instructions: u64::MAX,
            memory: GlobalMemory::new(CAPACITY),
            functions: Vec::new(),
            launches: Vec::new(),
            serial: 0,
        }
    }

    /// The same with another number of multiprocessors: fewer make persistent kernels stride.
    pub fn with_multiprocessors(mut self, count: u32) -> VirtualGpu {
        self.multiprocessors = count.max(1);
        self
    }

    /// The same with so many bytes of memory.
    pub fn with_memory(mut self, bytes: u64) -> VirtualGpu {
        self.memory = GlobalMemory::new(bytes);
        self
    }

    /// The same on so many threads of this machine; results do not depend on it.
    pub fn with_workers(mut self, count: u32) -> VirtualGpu {
        self.workers = count.max(1);
        self
    }

    /// The same with a limit to the instructions of a block, each counted once for a warp: for kernels that may loop for
    /// ever while they store something.
    pub fn with_limit(mut self, instructions: u64) -> VirtualGpu {
        self.most_instructions = instructions;
        self
    }

    /// The counters of all launches since the last call, in order.
    pub fn take_counters(&mut self) -> Vec<LaunchCounters> {
        std::mem::take(&mut self.launches)
    }

    /// Bytes of device memory in use.
    pub fn memory_used(&self) -> u64 {
        self.memory.used()
    }

    fn prepare(
        &mut self,
        function: GpuFunction,
        shape: LaunchShape,
        args: &[LaunchArg],
    ) -> Result<Launch, GpuError> {
        let Some(Function { program, dynamic_shared }) = self.functions.get(function.0) else {
            return Err(GpuError::Device(format!("there is no function {}", function.0)));
        };
        let refuse = |reason: String| GpuError::Kernel { kernel: program.name.clone(), reason };
        check_shape(program, shape, self.target).map_err(refuse)?;
        if shape.shared_bytes > *dynamic_shared {
            return Err(refuse(format!(
                "launched with {} bytes of dynamic shared memory, loaded for {dynamic_shared}",
                shape.shared_bytes
            )));
        }
        let (params, tensor_maps) = parameters(program, args).map_err(refuse)?;
        self.serial += 1;
        if self.serial.is_multiple_of(LAUNCHES) {
            self.memory.forget_marks();
        }
        let launch = Launch {
            blocks: shape.blocks,
            threads: shape.threads,
            cluster: shape.cluster,
            shared_bytes: program.static_shared + shape.shared_bytes,
            dynamic_shared: shape.shared_bytes,
            params,
            tensor_maps,
            device: self.target,
            serial: self.serial,
            most_instructions: self.most_instructions,
            workers: self.workers,
        };
        launch.check_agents().map_err(refuse)?;
        Ok(launch)
    }
}

/// Whether a launch has a shape that the kernel and the target allow.
fn check_shape(program: &Program, shape: LaunchShape, target: Target) -> Result<(), String> {
    let LaunchShape { blocks, threads, cluster, .. } = shape;
    if blocks == 0 || threads == 0 || threads > 1024 {
        return Err(format!("wanted at least one block and 1 to 1024 threads, found {blocks} and {threads}"));
    }
    if let Some([x, y, z]) = program.required_threads.filter(|wanted| *wanted != [threads, 1, 1]) {
        return Err(format!("launched with {threads} threads, .reqntid demands {x}, {y}, {z}"));
    }
    if let Some([x, y, z]) = program.max_threads.filter(|[x, y, z]| threads > x * y * z) {
        return Err(format!("launched with {threads} threads, .maxntid allows {x}, {y}, {z}"));
    }
    if cluster == 0 || cluster > 8 || blocks % cluster != 0 {
        return Err(format!(
            "{blocks} blocks in clusters of {cluster}: wanted 1 to 8 that divide the blocks"
        ));
    }
    if cluster > 1 && target != Target::Sm90a {
        return Err(format!("{target} has no clusters"));
    }
    let shared = u64::from(program.static_shared) + u64::from(shape.shared_bytes);
    if shared > u64::from(target.max_shared_bytes()) {
        let most = target.max_shared_bytes();
        return Err(format!("{shared} bytes of shared memory, {target} has {most} for a block"));
    }
    Ok(())
}

/// The bytes of the parameters, and the tensor maps among them by place.
type Parameters = (Vec<u8>, Vec<(u32, TensorMap)>);

/// Lays out the arguments as the entry wants them.
fn parameters(program: &Program, args: &[LaunchArg]) -> Result<Parameters, String> {
    if args.len() != program.params.len() {
        return Err(format!(
            "launched with {} arguments, the entry has {}",
            args.len(),
            program.params.len()
        ));
    }
    let (mut bytes, mut maps) = (vec![0; program.param_bytes()], Vec::new());
    for (at, (param, arg)) in program.params.iter().zip(args).enumerate() {
        let value = match arg {
            LaunchArg::Address(DevicePtr(address)) => address.to_le_bytes().to_vec(),
            LaunchArg::U32(value) => value.to_le_bytes().to_vec(),
            LaunchArg::TensorMap(map) => {
                maps.push((param.offset, map.clone()));
                vec![0; 128]
            }
        };
        if value.len() != param.bytes as usize {
            return Err(format!(
                "argument {at} has {} bytes, {} has {}",
                value.len(),
                param.name,
                param.bytes
            ));
        }
        bytes[param.offset as usize..][..value.len()].copy_from_slice(&value);
    }
    Ok((bytes, maps))
}

impl GpuDevice for VirtualGpu {
    fn name(&self) -> String {
        format!("virtual GPU, {}", self.target)
    }

    fn capability(&self) -> (u32, u32) {
        match self.target {
            Target::Sm80 => (8, 0),
            Target::Sm89 => (8, 9),
            Target::Sm90a => (9, 0),
        }
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, GpuError> {
        self.memory.alloc(bytes).map(DevicePtr).map_err(|reason| GpuError::Memory { bytes, reason })
    }

    fn free(&mut self, at: DevicePtr) -> Result<(), GpuError> {
        self.memory.free(at.0).map_err(GpuError::Device)
    }

    fn write(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), GpuError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let found = self.memory.find(to.0, bytes.len() as u64, &mut 0).map_err(GpuError::Device)?;
        found.write(to.0 - found.base, bytes);
        Ok(())
    }

    fn clear(&mut self, at: DevicePtr, bytes: u64) -> Result<(), GpuError> {
        if bytes == 0 {
            return Ok(());
        }
        let found = self.memory.find(at.0, bytes, &mut 0).map_err(GpuError::Device)?;
        found.clear(at.0 - found.base, bytes);
        Ok(())
    }

    fn read(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), GpuError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let found = self.memory.find(from.0, bytes.len() as u64, &mut 0).map_err(GpuError::Device)?;
        let offset = from.0 - found.base;
        if let Some(at) = found.unset(offset, bytes.len() as u64) {
            return Err(GpuError::Device(format!(
                "byte {at} of an allocation of {} bytes is read and was never written",
                found.bytes
            )));
        }
        found.copy_to(offset, bytes);
        Ok(())
    }

    fn load(&mut self, ptx: &str, entry: &str, shared_bytes: u32) -> Result<GpuFunction, GpuError> {
        let refuse = |reason: String| GpuError::Module { kernel: entry.into(), reason };
        let describe = |error: ptx::PtxError| {
            let text = ptx.lines().nth(error.line.saturating_sub(1) as usize).unwrap_or_default();
            refuse(format!("{error}: {}", text.trim()))
        };
        let module = ptx::parse(ptx).map_err(describe)?;
        match Target::parse(&module.target) {
            Some(target) if target.runs_on(self.capability().0, self.capability().1) => {}
            _ => return Err(refuse(format!("PTX for {} does not run on {}", module.target, self.target))),
        }
        let Some(found) = module.entries.iter().find(|found| found.name == entry) else {
            return Err(refuse(format!("the module has no entry {entry}")));
        };
        let program = exec::decode(ptx, &module, found).map_err(describe)?;
        let shared = u64::from(program.static_shared) + u64::from(shared_bytes);
        if shared > u64::from(self.target.max_shared_bytes()) {
            let most = self.target.max_shared_bytes();
            return Err(refuse(format!("{shared} bytes of shared memory, a block has at most {most}")));
        }
        self.functions.push(Function { program, dynamic_shared: shared_bytes });
        Ok(GpuFunction(self.functions.len() - 1))
    }

    fn launch(
        &mut self,
        function: GpuFunction,
        shape: LaunchShape,
        args: &[LaunchArg],
    ) -> Result<(), GpuError> {
        let launch = self.prepare(function, shape, args)?;
        let program = &self.functions[function.0].program;
        let told =
            |fault: Box<Fault>| GpuError::Kernel { kernel: fault.kernel.clone(), reason: fault.to_string() };
        let counters = exec::run(&launch, program, &self.memory).map_err(told)?;
        self.launches.push(LaunchCounters { kernel: program.name.clone(), counters });
        Ok(())
    }

    fn synchronize(&mut self) -> Result<(), GpuError> {
        Ok(())
    }
}
