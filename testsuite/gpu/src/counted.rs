//! A virtual GPU whose counters can be read while a model owns the device.

use sinter_codegen_nvptx::compile;
use sinter_ir::{
    DevicePtr, GpuDevice, GpuError, GpuFunction, GpuProgram, LaunchArg, LaunchShape, PAGE, Plan, Target,
    gpu_weight_bytes,
};
use sinter_runtime::{GpuConfig, GpuModel, Limits, Rows, Session, WeightBytes};
use sinter_vgpu::{LaunchCounters, VirtualGpu};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle of a virtual GPU; clones are the same device.
#[derive(Clone)]
pub struct Counted(Arc<Mutex<VirtualGpu>>);

impl Counted {
    /// A device for a target.
    pub fn new(target: Target) -> Self {
        Self(Arc::new(Mutex::new(VirtualGpu::new(target))))
    }
    /// What was counted since the last call, launch by launch.
    pub fn take(&self) -> Vec<LaunchCounters> {
        self.device().take_counters()
    }
    fn device(&self) -> MutexGuard<'_, VirtualGpu> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GpuDevice for Counted {
    fn name(&self) -> String {
        self.device().name()
    }
    fn capability(&self) -> (u32, u32) {
        self.device().capability()
    }
    fn multiprocessors(&self) -> u32 {
        self.device().multiprocessors()
    }
    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, GpuError> {
        self.device().alloc(bytes)
    }
    fn free(&mut self, at: DevicePtr) -> Result<(), GpuError> {
        self.device().free(at)
    }
    fn write(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), GpuError> {
        self.device().write(to, bytes)
    }
    fn clear(&mut self, at: DevicePtr, bytes: u64) -> Result<(), GpuError> {
        self.device().clear(at, bytes)
    }
    fn read(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), GpuError> {
        self.device().read(from, bytes)
    }
    fn load(&mut self, ptx: &str, entry: &str, shared_bytes: u32) -> Result<GpuFunction, GpuError> {
        self.device().load(ptx, entry, shared_bytes)
    }
    fn launch(
        &mut self,
        function: GpuFunction,
        shape: LaunchShape,
        args: &[LaunchArg],
    ) -> Result<(), GpuError> {
        self.device().launch(function, shape, args)
    }
    fn synchronize(&mut self) -> Result<(), GpuError> {
        self.device().synchronize()
    }
}

/// Compiles a plan and runs a prompt of `context` tokens and one token more: the program, and what the launches of that
/// token did, in order.
pub fn decode(plan: &Arc<Plan>, target: Target, context: usize) -> (Arc<GpuProgram>, Vec<LaunchCounters>) {
    let program = Arc::new(compile(plan, target).expect("the plan compiles"));
    // Numbers near 0.01 in bf16 and in f32 alike; what is counted does not depend on them.
    let weights: Vec<WeightBytes> = plan
        .weights
        .values()
        .map(|weight| {
            let bytes = gpu_weight_bytes(&weight.ty, weight.layout).expect("weights have a size") as usize;
            let pattern: Vec<u8> = [0x23, 0x3c].iter().copied().cycle().take(bytes).collect();
            WeightBytes::new(Arc::new(pattern))
        })
        .collect();
    let pages = (context + 1).div_ceil(PAGE as usize);
    let limits =
        Limits { vocab: 64, max_positions: context + 64, max_tokens: context, max_sequences: 1, pages };
    let config = GpuConfig { limits, profile: false };
    let device = Counted::new(target);
    let weight = |at: usize| Ok(weights[at].clone());
    let model = GpuModel::new(plan.clone(), program.clone(), &weight, Box::new(device.clone()), config);
    let mut model = model.expect("the model loads");
    let mut session = Session::new(&mut model);
    session.feed(&vec![7; context], Rows::None).expect("the prompt");
    device.take();
    session.feed(&[7], Rows::Last).expect("one more token");
    (program, device.take())
}
