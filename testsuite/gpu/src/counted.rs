//! A virtual GPU whose counters can be read while a model owns the device.

use sinter_ir::{DevicePtr, GpuDevice, GpuError, GpuFunction, LaunchArg, LaunchShape, Target};
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
