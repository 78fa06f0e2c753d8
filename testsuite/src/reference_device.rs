//! A GPU whose kernels are tile programs in their text form, run by the naive evaluator. It is the oracle for whatever
//! walks a program: memory, parameters and the order of launches are real, and only the arithmetic is plain.

use sinter_ir::{
    Access, Binding, Blocks, DType, DevicePtr, Dim, GpuBucket, GpuDevice, GpuError, GpuFunction, GpuKernel,
    GpuLaunch, GpuParam, GpuProgram, GpuRecording, LaunchArg, LaunchShape, Layout, Plan, Target, Tensor,
    TileParam, TileProgram, evaluate_tile, weight_pitch,
};
use std::collections::BTreeMap;

/// What stands between the tile programs of a kernel that does several steps.
const BETWEEN: &str = "\n----\n";
/// The largest piece of memory that can be had.
const LARGEST: u64 = 1 << 30;
/// The byte that fresh memory is full of: as numbers, −4·10⁸ and the like.
const FRESH: u8 = 0xcd;

/// A plan as a program for the reference device. Steps of up to four tokens do two steps of the plan in a launch, larger
/// ones one.
pub fn program(plan: &Plan) -> GpuProgram {
    let mut kernels = Vec::new();
    let mut launches = |at_once: usize| -> Vec<GpuLaunch> {
        let steps: Vec<usize> = (0..plan.steps.len()).collect();
        steps.chunks(at_once).map(|steps| launch(plan, &mut kernels, steps)).collect()
    };
    let buckets = vec![
        GpuBucket { max_tokens: Some(4), launches: launches(2) },
        GpuBucket { max_tokens: None, launches: launches(1) },
    ];
    GpuProgram { target: Target::Sm80, kernels, buckets, draw: None }
}

fn launch(plan: &Plan, kernels: &mut Vec<GpuKernel>, steps: &[usize]) -> GpuLaunch {
    let tiles: Vec<_> = steps.iter().map(|step| &plan.kernels[plan.steps[*step].kernel]).collect();
    let name = tiles.iter().map(|tile| tile.name.clone()).collect::<Vec<_>>().join("_");
    let args: Vec<_> = steps.iter().flat_map(|step| plan.steps[*step].args.clone()).collect();
    let known = kernels.iter().position(|kernel| kernel.name == name);
    let kernel = known.unwrap_or_else(|| {
        let addresses = (0..args.len()).map(GpuParam::Address);
        kernels.push(GpuKernel {
            name,
            ptx: tiles.iter().map(ToString::to_string).collect::<Vec<_>>().join(BETWEEN),
            params: addresses.chain([GpuParam::Symbols, GpuParam::Scratch]).collect(),
            grid: vec![Blocks { extent: Dim::ONE, per_block: 1 }],
            persistent: None,
            threads: 32,
            shared_bytes: 0,
            cluster: 1,
            dependent_launch: false,
            scratch: vec![Dim::of(8)],
        });
        kernels.len() - 1
    });
    GpuLaunch { kernel, args, steps: steps.to_vec() }
}

/// Launches that were recorded.
type Launches = Vec<(GpuFunction, Vec<LaunchArg>)>;

/// The device.
#[derive(Default)]
pub struct ReferenceDevice {
    blocks: BTreeMap<u64, Vec<u8>>,
    next: u64,
    functions: Vec<Vec<TileProgram>>,
    recording: Option<Launches>,
    recordings: Vec<Option<Launches>>,
    /// How often recorded launches were run again.
    pub replays: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl ReferenceDevice {
    /// The bytes at an address.
    fn at(&mut self, at: DevicePtr, bytes: u64) -> Result<&mut [u8], GpuError> {
        let (base, block) = self
            .blocks
            .range_mut(..=at.0)
            .next_back()
            .ok_or_else(|| GpuError::Device(format!("nothing lies at {at:?}")))?;
        let (begin, len) = ((at.0 - base) as usize, block.len());
        block
            .get_mut(begin..begin + bytes as usize)
            .ok_or_else(|| GpuError::Device(format!("{bytes} bytes at {at:?} of a block of {len}")))
    }

    fn tensor(
        &mut self,
        param: &TileParam,
        binding: &Binding,
        at: DevicePtr,
    ) -> Result<Tensor<f64>, GpuError> {
        let stored = param.stored();
        let shape: Vec<usize> = stored.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
        let size = stored.dtype.bytes() as u64;
        let width = shape.last().copied().unwrap_or(1) as u64;
        let rows = shape.iter().rev().skip(1).product::<usize>() as u64;
        let pitch = match param.layout {
            Layout::Panels => weight_pitch(param.ty.dtype, width),
            Layout::Rows | Layout::Halves => width * size,
            Layout::Codes(codes) => {
                return Err(GpuError::Device(format!("the reference device reads no {codes}")));
            }
        };
        let mut data = Vec::new();
        for row in 0..rows {
            let bytes = self.at(DevicePtr(at.0 + row * pitch), width * size)?;
            data.extend(bytes.chunks_exact(size as usize).map(|bytes| stored.dtype.read(bytes)));
        }
        Ok(Tensor::new(shape, data))
    }

    fn run(&mut self, function: GpuFunction, args: &[LaunchArg]) -> Result<(), GpuError> {
        let tiles = self.functions[function.0].clone();
        let symbols: Vec<u64> = args
            .iter()
            .filter_map(|arg| if let LaunchArg::U32(x) = arg { Some(u64::from(*x)) } else { None })
            .collect();
        let binding = Binding { values: symbols.try_into().expect("five symbols") };
        let mut addresses = args.iter().map(|arg| match arg {
            LaunchArg::Address(at) => *at,
            other => panic!("{other:?} where an address was wanted"),
        });
        for tile in &tiles {
            let places: Vec<DevicePtr> = addresses.by_ref().take(tile.params.len()).collect();
            let read = |(param, at): (&TileParam, &DevicePtr)| self.tensor(param, &binding, *at);
            let mut tensors: Vec<_> =
                tile.params.values().zip(&places).map(read).collect::<Result<_, _>>()?;
            evaluate_tile(tile, &binding, &mut tensors);
            for ((param, at), tensor) in tile.params.values().zip(&places).zip(&tensors) {
                if param.access != Access::Read {
                    let bytes: Vec<u8> = tensor.data.iter().flat_map(|x| bytes(param.ty.dtype, *x)).collect();
                    self.write(*at, &bytes)?;
                }
            }
        }
        Ok(())
    }
}

fn bytes(dtype: DType, x: f64) -> Vec<u8> {
    let mut bytes = Vec::new();
    dtype.append(x, &mut bytes);
    bytes
}

impl GpuDevice for ReferenceDevice {
    fn name(&self) -> String {
        "reference device".into()
    }
    fn capability(&self) -> (u32, u32) {
        (8, 0)
    }
    fn multiprocessors(&self) -> u32 {
        1
    }
    fn alloc(&mut self, bytes: u64) -> Result<DevicePtr, GpuError> {
        if bytes > LARGEST {
            return Err(GpuError::Memory { bytes, reason: "no golden needs so many".into() });
        }
        self.next = (self.next + 512).next_multiple_of(256);
        self.blocks.insert(self.next, vec![FRESH; bytes as usize]);
        let at = DevicePtr(self.next);
        self.next += bytes;
        Ok(at)
    }
    fn free(&mut self, at: DevicePtr) -> Result<(), GpuError> {
        self.blocks.remove(&at.0).map(drop).ok_or_else(|| GpuError::Device(format!("{at:?} is no block")))
    }
    fn write(&mut self, to: DevicePtr, bytes: &[u8]) -> Result<(), GpuError> {
        self.at(to, bytes.len() as u64)?.copy_from_slice(bytes);
        Ok(())
    }
    fn clear(&mut self, at: DevicePtr, bytes: u64) -> Result<(), GpuError> {
        self.at(at, bytes)?.fill(0);
        Ok(())
    }
    fn read(&mut self, from: DevicePtr, bytes: &mut [u8]) -> Result<(), GpuError> {
        bytes.copy_from_slice(self.at(from, bytes.len() as u64)?);
        Ok(())
    }
    fn load(&mut self, ptx: &str, entry: &str, _: u32) -> Result<GpuFunction, GpuError> {
        let refused = |reason: String| GpuError::Module { kernel: entry.into(), reason };
        let tiles = ptx.split(BETWEEN).map(TileProgram::parse).collect::<Result<Vec<_>, _>>();
        self.functions.push(tiles.map_err(|error| refused(error.to_string()))?);
        Ok(GpuFunction(self.functions.len() - 1))
    }
    fn launch(
        &mut self,
        function: GpuFunction,
        shape: LaunchShape,
        args: &[LaunchArg],
    ) -> Result<(), GpuError> {
        assert_eq!((shape.blocks, shape.threads), (1, 32));
        if let Some(recording) = &mut self.recording {
            recording.push((function, args.to_vec()));
            return Ok(());
        }
        self.run(function, args)
    }
    fn synchronize(&mut self) -> Result<(), GpuError> {
        Ok(())
    }
    fn record(&mut self) -> Result<bool, GpuError> {
        self.recording = Some(Vec::new());
        Ok(true)
    }
    fn recorded(&mut self) -> Result<GpuRecording, GpuError> {
        self.recordings.push(self.recording.take());
        Ok(GpuRecording(self.recordings.len() - 1))
    }
    fn replay(&mut self, recording: GpuRecording) -> Result<(), GpuError> {
        self.replays.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let launches = self.recordings[recording.0].clone();
        let launches = launches.ok_or_else(|| GpuError::Device(format!("{recording:?} is forgotten")))?;
        launches.iter().try_for_each(|(function, args)| self.run(*function, args))
    }
    fn forget(&mut self, recording: GpuRecording) -> Result<(), GpuError> {
        self.recordings[recording.0] = None;
        Ok(())
    }
}
