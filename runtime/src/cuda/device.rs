//! A device: context, stream, memory, modules and launches.

use super::driver::{self, CudaInfo, cuda_report, text, told};
use super::graphs::{Events, Graphs};
use super::parameters::{EncodedMap, LaunchAttribute, ParameterBlock, Place, attributes, suspects};
use crate::RuntimeError;
use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUfunction, CUfunction_attribute, CUjit_option, CUlaunchAttribute,
    CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig, CUmemPool_attribute, CUmemoryPool, CUmodule,
    CUresult, CUstream, CUstream_flags, CUtensorMap,
};
use sinter_ir::{DevicePtr, GpuDevice, GpuError, GpuFunction, GpuMark, GpuRecording, LaunchArg, LaunchShape};
use std::ffi::{CString, c_void};

/// Bytes of the compiler's log that are kept.
const LOG: usize = 16 << 10;
/// Launches that are remembered by name, so that an error that shows later can be told where it may come from.
const REMEMBERED: usize = 1024;
/// Shared memory that a kernel may have without asking for more (CUDA C++ programming guide).
const SHARED_DEFAULT: u32 = 48 << 10;

/// An NVIDIA GPU.
pub struct CudaDevice {
    info: CudaInfo,
    handle: CUdevice,
    context: CUcontext,
    stream: CUstream,
    modules: Vec<CUmodule>,
    functions: Vec<(CUfunction, String)>,
    graphs: Graphs,
    events: Events,
    /// The functions that were launched since all was known to be well.
    launched: Vec<usize>,
    /// How many of them were launched before the recording that is going on.
    before: usize,
    /// The functions of each recording.
    recorded: Vec<Vec<usize>>,
}

// SAFETY: the driver's handles may be used from any thread; each call makes the context current first.
unsafe impl Send for CudaDevice {}

impl CudaDevice {
    /// Opens the device of this number.
    ///
    /// # Errors
    /// If there is no driver or no such device, or the driver refuses.
    pub fn open(ordinal: u32) -> Result<Self, RuntimeError> {
        let report = cuda_report();
        let count = report.devices.len();
        let Some(info) = report.devices.get(ordinal as usize).cloned() else {
            let problem = report
                .problem
                .unwrap_or_else(|| format!("there are {count} CUDA devices, no cuda:{ordinal}"));
            return Err(RuntimeError::Load(problem));
        };
        Self::with(info, ordinal).map_err(|reason| RuntimeError::Gpu(GpuError::Device(reason)))
    }

    fn with(info: CudaInfo, ordinal: u32) -> Result<Self, String> {
        let handle = driver::device(ordinal as i32)?;
        let mut context: CUcontext = std::ptr::null_mut();
        // SAFETY: the driver is initialised and knows the device; the call writes one handle.
        told(unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, handle) }, "cuDevicePrimaryCtxRetain")?;
        let mut device = Self {
            info,
            handle,
            context,
            stream: std::ptr::null_mut(),
            modules: Vec::new(),
            functions: Vec::new(),
            graphs: Graphs::default(),
            events: Events::default(),
            launched: Vec::new(),
            before: 0,
            recorded: Vec::new(),
        };
        device.enter()?;
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a context is current; the call writes one handle.
        told(unsafe { sys::cuStreamCreate(&mut device.stream, flags) }, "cuStreamCreate")?;
        device.keep_memory()?;
        Ok(device)
    }

    /// Memory that is given back stays in the pool, so that taking it again costs nothing.
    fn keep_memory(&self) -> Result<(), String> {
        let mut pool: CUmemoryPool = std::ptr::null_mut();
        // SAFETY: the device is known; the call writes one handle.
        told(unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, self.handle) }, "cuDeviceGetDefaultMemPool")?;
        let mut threshold = u64::MAX;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the attribute is a 64-bit number, which the call reads.
        let set =
            unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast::<c_void>()) };
        told(set, "cuMemPoolSetAttribute")
    }

    /// Makes the context current on this thread.
    fn enter(&self) -> Result<(), String> {
        // SAFETY: the context is retained until the device is dropped.
        told(unsafe { sys::cuCtxSetCurrent(self.context) }, "cuCtxSetCurrent")
    }

    /// An error that shows at a wait belongs to a kernel that was launched before it.
    fn waited(&mut self, result: Result<(), String>) -> Result<(), GpuError> {
        let launched = std::mem::take(&mut self.launched);
        result.map_err(|reason| {
            let names: Vec<&str> = launched.iter().map(|at| self.functions[*at].1.as_str()).collect();
            match names.as_slice() {
                [] => GpuError::Device(reason),
                names => GpuError::Kernel { kernel: suspects(names), reason },
            }
        })
    }

    fn module(&mut self, ptx: &str, entry: &str) -> Result<CUfunction, String> {
        self.enter()?;
        let source = CString::new(ptx).map_err(|_| "the PTX has a zero in it".to_owned())?;
        let name = CString::new(entry).map_err(|_| "the entry's name has a zero in it".to_owned())?;
        let mut log = vec![0u8; LOG];
        let mut options =
            [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG as *mut c_void];
        let mut module: CUmodule = std::ptr::null_mut();
        // SAFETY: the source ends with a zero; the two options have their two values, the log has the size that is
        // named, and all live until the call returns.
        let loaded = unsafe {
            sys::cuModuleLoadDataEx(
                &mut module,
                source.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        told(loaded, "cuModuleLoadDataEx").map_err(|reason| match text(&log) {
            log if log.is_empty() => reason,
            log => format!("{reason}: {log}"),
        })?;
        self.modules.push(module);
        let mut function: CUfunction = std::ptr::null_mut();
        // SAFETY: the module is loaded, the name ends with a zero, and the call writes one handle.
        told(
            unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) },
            "cuModuleGetFunction",
        )?;
        Ok(function)
    }

    fn launch_now(&self, function: CUfunction, shape: LaunchShape, args: &[LaunchArg]) -> Result<(), String> {
        self.enter()?;
        let block = ParameterBlock::of(args).map_err(|error| error.to_string())?;
        let mut maps = block.maps.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let mut words = block.words.clone();
        let (first_word, first_map) = (words.as_mut_ptr(), maps.as_mut_ptr());
        let pointer = |place: &Place| match *place {
            Place::Word(at) => first_word.wrapping_add(at).cast::<c_void>(),
            Place::Map(at) => first_map.wrapping_add(at).cast::<c_void>(),
        };
        let mut pointers: Vec<*mut c_void> = block.places.iter().map(pointer).collect();
        let attributes = attributes(&shape, self.info.capability.0);
        let mut attributes: Vec<CUlaunchAttribute> = attributes.into_iter().map(raw_attribute).collect();
        let config = CUlaunchConfig {
            gridDimX: shape.blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: shape.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shape.shared_bytes,
            hStream: self.stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        // SAFETY: the function and the stream are alive; there is one pointer for each parameter of the entry, each to a
        // value of the parameter's size or larger, and the driver copies the values before the call returns.
        let launched =
            unsafe { sys::cuLaunchKernelEx(&config, function, pointers.as_mut_ptr(), std::ptr::null_mut()) };
        told(launched, "cuLaunchKernelEx")
    }
}

fn raw_attribute(attribute: LaunchAttribute) -> CUlaunchAttribute {
    let mut value = CUlaunchAttributeValue { pad: [0; 64] };
    let id = match attribute {
        LaunchAttribute::Cluster(blocks) => {
            // SAFETY: all bytes of the value are zero, which any of its members may be.
            let dims = unsafe { &mut value.clusterDim };
            (dims.x, dims.y, dims.z) = (blocks, 1, 1);
            CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        }
        LaunchAttribute::Dependent => {
            value.programmaticStreamSerializationAllowed = 1;
            CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        }
    };
    CUlaunchAttribute { id, pad: [0; 4], value }
}

/// The 128 bytes of a tensor map.
fn encode(map: &EncodedMap) -> Result<CUtensorMap, String> {
    use sys::CUtensorMapDataType as Type;
    use sys::CUtensorMapSwizzle as Swizzle;
    let dtype = match map.dtype {
        2 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT32,
        6 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        7 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        _ => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    };
    let swizzle = match map.swizzle {
        0 => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        1 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        2 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        _ => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let mut encoded = CUtensorMap { opaque: [0; 16] };
    // SAFETY: extents, box and element strides have one entry for each dimension and strides one less; the call reads
    // them and writes the map, which has the alignment of its type. The address is that of device memory.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut encoded,
            dtype,
            map.dims.len() as u32,
            map.base as *mut c_void,
            map.dims.as_ptr(),
            map.strides.as_ptr(),
            map.box_dims.as_ptr(),
            map.element_strides.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    told(result, "cuTensorMapEncodeTiled")?;
    Ok(encoded)
}

impl GpuDevice for CudaDevice {
    fn name(&self) -> String {
        self.info.name.clone()
    }
    fn capability(&self) -> (u32, u32) {
        self.info.capability
    }
    fn multiprocessors(&self) -> u32 {
        self.info.multiprocessors
    }
    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, GpuError> {
        self.enter().map_err(GpuError::Device)?;
        let mut at = 0;
        // SAFETY: the stream is alive; the call writes one address.
        let result = unsafe { sys::cuMemAllocAsync(&mut at, bytes.max(1) as usize, self.stream) };
        let taken = told(result, "cuMemAllocAsync");
        match taken {
            Err(reason) if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(GpuError::Memory { bytes, reason })
            }
            taken => taken.map(|()| DevicePtr(at)).map_err(GpuError::Device),
        }
    }
    fn free(&mut self, at: DevicePtr) -> Result<(), GpuError> {
        self.enter().map_err(GpuError::Device)?;
        // SAFETY: the address came from `alloc`; a wrong one is an error of the driver. Work before it is not disturbed.
        told(unsafe { sys::cuMemFreeAsync(at.0, self.stream) }, "cuMemFreeAsync").map_err(GpuError::Device)
    }
    fn write(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), GpuError> {
        self.enter().map_err(GpuError::Device)?;
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: the source has so many bytes. It is ordinary memory, which the driver has copied when the call returns
        // (CUDA driver API, API synchronisation behaviour); the driver checks the destination.
        let copied =
            unsafe { sys::cuMemcpyHtoDAsync_v2(to.0, bytes.as_ptr().cast(), bytes.len(), self.stream) };
        told(copied, "cuMemcpyHtoDAsync").map_err(GpuError::Device)
    }
    fn clear(&mut self, at: DevicePtr, bytes: u64) -> Result<(), GpuError> {
        self.enter().map_err(GpuError::Device)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: only device memory is written; the driver checks the range.
        told(unsafe { sys::cuMemsetD8Async(at.0, 0, bytes as usize, self.stream) }, "cuMemsetD8Async")
            .map_err(GpuError::Device)
    }
    fn read(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), GpuError> {
        self.enter().map_err(GpuError::Device)?;
        if !bytes.is_empty() {
            // SAFETY: the destination has so many bytes and lives until the wait below.
            let copied = unsafe {
                sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from.0, bytes.len(), self.stream)
            };
            let copied = told(copied, "cuMemcpyDtoHAsync");
            if copied.is_err() {
                return self.waited(copied);
            }
        }
        self.synchronize()
    }
    fn load(&mut self, ptx: &str, entry: &str, shared_bytes: u32) -> Result<GpuFunction, GpuError> {
        let refused = |reason: String| GpuError::Module { kernel: entry.into(), reason };
        let function = self.module(ptx, entry).map_err(refused)?;
        if shared_bytes > SHARED_DEFAULT {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            let set = unsafe { sys::cuFuncSetAttribute(function, attribute, shared_bytes as i32) };
            told(set, "cuFuncSetAttribute").map_err(refused)?;
        }
        self.functions.push((function, entry.into()));
        Ok(GpuFunction(self.functions.len() - 1))
    }
    fn launch(
        &mut self,
        function: GpuFunction,
        shape: LaunchShape,
        args: &[LaunchArg],
    ) -> Result<(), GpuError> {
        let Some((handle, name)) = self.functions.get(function.0) else {
            return Err(GpuError::Device(format!("there is no function {}", function.0)));
        };
        let failed = |reason: String| GpuError::Kernel { kernel: name.clone(), reason };
        self.launch_now(*handle, shape, args).map_err(failed)?;
        if self.launched.len() < REMEMBERED {
            self.launched.push(function.0);
        }
        Ok(())
    }
    fn synchronize(&mut self) -> Result<(), GpuError> {
        let entered = self.enter();
        // SAFETY: the stream is alive.
        let wait = || told(unsafe { sys::cuStreamSynchronize(self.stream) }, "cuStreamSynchronize");
        let result = entered.and_then(|()| wait());
        self.waited(result)
    }
    fn record(&mut self) -> Result<bool, GpuError> {
        self.enter().and_then(|()| Graphs::begin(self.stream)).map_err(GpuError::Device)?;
        self.before = self.launched.len();
        Ok(true)
    }
    fn recorded(&mut self) -> Result<GpuRecording, GpuError> {
        let functions = self.launched.split_off(self.before.min(self.launched.len()));
        let number = self.enter().and_then(|()| self.graphs.end(self.stream)).map_err(GpuError::Device)?;
        self.recorded.resize(self.recorded.len().max(number + 1), Vec::new());
        self.recorded[number] = functions;
        Ok(GpuRecording(number))
    }
    fn replay(&mut self, recording: GpuRecording) -> Result<(), GpuError> {
        self.enter().and_then(|()| self.graphs.launch(recording.0, self.stream)).map_err(GpuError::Device)?;
        let room = REMEMBERED.saturating_sub(self.launched.len());
        self.launched.extend(self.recorded.get(recording.0).into_iter().flatten().take(room));
        Ok(())
    }
    fn forget(&mut self, recording: GpuRecording) -> Result<(), GpuError> {
        self.enter().and_then(|()| self.graphs.forget(recording.0)).map_err(GpuError::Device)
    }
    fn mark(&mut self) -> Result<Option<GpuMark>, GpuError> {
        self.enter().map_err(GpuError::Device)?;
        self.events.mark(self.stream).map(|at| Some(GpuMark(at))).map_err(GpuError::Device)
    }
    fn nanos_between(&mut self, from: GpuMark, to: GpuMark) -> Result<u64, GpuError> {
        self.enter().map_err(GpuError::Device)?;
        let nanos = self.events.between(from.0, to.0);
        let result = nanos.as_ref().map(|_| ()).map_err(Clone::clone);
        self.waited(result)?;
        nanos.map_err(GpuError::Device)
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // Errors here can be told to nobody, and whatever is left goes with the context.
        if self.enter().is_err() {
            return;
        }
        // SAFETY: every handle is ours and is not used again; the stream is idle before anything of it goes.
        unsafe {
            let _ = sys::cuStreamSynchronize(self.stream);
            self.graphs.clear();
            self.events.clear();
            for module in self.modules.drain(..) {
                let _ = sys::cuModuleUnload(module);
            }
            let _ = sys::cuStreamDestroy_v2(self.stream);
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_what_the_driver_reads() {
        let cluster = raw_attribute(LaunchAttribute::Cluster(2));
        assert_eq!(cluster.id as u32, 4);
        // SAFETY: the member was written.
        let dims = unsafe { cluster.value.clusterDim };
        assert_eq!((dims.x, dims.y, dims.z), (2, 1, 1));
        let dependent = raw_attribute(LaunchAttribute::Dependent);
        assert_eq!(dependent.id as u32, 6);
        // SAFETY: the member was written.
        assert_eq!(unsafe { dependent.value.programmaticStreamSerializationAllowed }, 1);
    }

    #[test]
    fn a_device_that_is_not_there_has_a_reason() {
        let error = CudaDevice::open(1000).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("CUDA"), "{error}");
    }
}
