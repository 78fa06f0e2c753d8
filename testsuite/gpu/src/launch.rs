//! Runs a tile program on a device and on the naive evaluator, from the same tensors.

use sinter_codegen_nvptx::compile;
use sinter_ir::*;
use sinter_vgpu::VirtualGpu;
use std::collections::BTreeMap;

/// A deterministic stream of numbers (Knuth's MMIX generator).
pub struct Stream(pub u64);

impl Stream {
    /// The next 31 bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
    /// A whole number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.next_bits() as usize % end
    }
    /// A number between −1 and 1.
    pub fn number(&mut self) -> f32 {
        self.next_bits() as f32 / (1u64 << 30) as f32 - 1.0
    }
}

/// The bytes of a tensor as a parameter lies in GPU memory.
pub fn encode(param: &TileParam, tensor: &Tensor<f32>) -> Vec<u8> {
    let dtype = param.stored().dtype;
    let mut bytes = Vec::with_capacity(tensor.data.len() * dtype.bytes());
    let put = |bytes: &mut Vec<u8>, data: &[f32]| {
        data.iter().for_each(|x| dtype.append(f64::from(*x), bytes));
    };
    if matches!(param.layout, Layout::Rows | Layout::Halves) {
        put(&mut bytes, &tensor.data);
        return bytes;
    }
    let k = *tensor.shape.last().expect("a weight has axes");
    let pitch = weight_pitch(dtype, k as u64) as usize;
    for (at, row) in tensor.data.chunks(k).enumerate() {
        put(&mut bytes, row);
        bytes.resize((at + 1) * pitch, 0);
    }
    bytes
}

/// The elements in bytes.
pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(dtype.bytes()).map(|element| dtype.read(element) as f32).collect()
}

/// A plan of one step: the program on inputs, weights (whose packed layout says that they are), states and outputs.
pub fn plan_of(tile: &TileProgram) -> Plan {
    let mut plan = Plan { name: tile.name.clone(), ..Plan::default() };
    let kernel = plan.kernels.push(tile.clone());
    let mut args = Vec::new();
    for param in tile.params.values() {
        let value = ValueDef { name: param.name.clone(), ty: param.ty.clone() };
        args.push(match (param.layout, param.access) {
            (Layout::Panels | Layout::Codes(_), _) => {
                let (ty, layout) = (param.ty.clone(), param.layout);
                Arg::Weight(plan.weights.push(WeightDef { source: Graph::default(), ty, layout }))
            }
            (_, Access::Read) => {
                plan.inputs.push(value);
                Arg::Input(plan.inputs.len() - 1)
            }
            (_, Access::Write) => {
                plan.outputs.push(value);
                Arg::Output(plan.outputs.len() - 1)
            }
            (_, Access::ReadWrite) => {
                plan.states.push(value);
                Arg::State(plan.states.len() - 1)
            }
        });
    }
    plan.steps.push(Step { kernel, args });
    plan
}

/// A program that does a tile program by this kernel, whatever the size of the step.
pub fn alone(tile: &TileProgram, target: Target, kernel: GpuKernel) -> GpuProgram {
    let launch = GpuLaunch { kernel: 0, args: plan_of(tile).steps[0].args.clone(), steps: vec![0] };
    let buckets = vec![GpuBucket { max_tokens: None, launches: vec![launch] }];
    GpuProgram { target, kernels: vec![kernel], buckets, draw: None }
}

/// The shape of a kernel's launch.
pub fn shape(kernel: &GpuKernel, binding: &Binding, device: &dyn GpuDevice) -> LaunchShape {
    LaunchShape {
        blocks: kernel.blocks(binding, device.multiprocessors()) as u32,
        threads: kernel.threads,
        shared_bytes: kernel.shared_bytes,
        cluster: kernel.cluster,
        dependent: kernel.dependent_launch,
    }
}

/// A launch with everything known.
pub struct Prepared {
    function: GpuFunction,
    shape: LaunchShape,
    args: Vec<LaunchArg>,
}

impl Prepared {
    /// Launches it.
    ///
    /// # Errors
    /// What the device says.
    pub fn launch(&self, device: &mut dyn GpuDevice) -> Result<(), GpuError> {
        device.launch(self.function, self.shape, &self.args)
    }
}

/// The launches of a program for a binding; `at` says where each argument lies. As in the runtime, scratch memory is a
/// kernel's, and a launch finds it as the last one left it.
///
/// # Errors
/// If a kernel is not accepted, or memory does not suffice.
pub fn prepare(
    device: &mut dyn GpuDevice,
    program: &GpuProgram,
    binding: &Binding,
    at: &dyn Fn(Arg) -> DevicePtr,
) -> Result<Vec<Prepared>, GpuError> {
    let bucket = program.bucket(binding.get(Sym::T)).expect("a bucket for every size");
    let mut scratches: BTreeMap<usize, DevicePtr> = BTreeMap::new();
    let mut prepared = Vec::new();
    for launch in &bucket.launches {
        let kernel = &program.kernels[launch.kernel];
        let function = device.load(&kernel.ptx, &kernel.name, kernel.shared_bytes)?;
        let scratch = match scratches.get(&launch.kernel) {
            Some(known) => *known,
            None => {
                let bytes = kernel.scratch_bytes(binding).max(16);
                let scratch = device.alloc(bytes)?;
                device.clear(scratch, bytes)?;
                scratches.insert(launch.kernel, scratch);
                scratch
            }
        };
        let mut args = Vec::new();
        for param in &kernel.params {
            match param {
                GpuParam::Address(arg) => args.push(LaunchArg::Address(at(launch.args[*arg]))),
                GpuParam::Symbols => {
                    args.extend(binding.values.map(|value| LaunchArg::U32(value as u32)));
                }
                GpuParam::Scratch => args.push(LaunchArg::Address(scratch)),
                GpuParam::TensorMap(map) => args.push(LaunchArg::TensorMap(TensorMap {
                    base: at(launch.args[map.arg]),
                    dtype: map.dtype,
                    dims: map.dims.iter().map(|dim| dim.eval(binding)).collect(),
                    strides: map.strides.clone(),
                    box_dims: map.box_dims.clone(),
                    swizzle: map.swizzle,
                })),
            }
        }
        let shape = shape(kernel, binding, device);
        prepared.push(Prepared { function, shape, args });
    }
    Ok(prepared)
}

/// Does the launches of a program for a binding; `at` says where each argument lies.
///
/// # Errors
/// What the device says.
pub fn run(
    device: &mut dyn GpuDevice,
    program: &GpuProgram,
    binding: &Binding,
    at: &dyn Fn(Arg) -> DevicePtr,
) -> Result<(), GpuError> {
    prepare(device, program, binding, at)?.iter().try_for_each(|launch| launch.launch(device))?;
    device.synchronize()
}

/// Compiles a program and runs it on the virtual GPU on copies of the tensors; returns them as it left them.
pub fn on_virtual_gpu(
    tile: &TileProgram,
    target: Target,
    binding: &Binding,
    params: &[Tensor<f32>],
) -> Vec<Tensor<f32>> {
    let program = compile(&plan_of(tile), target).unwrap_or_else(|error| panic!("{error}\n{tile}"));
    program_on_virtual_gpu(tile, &program, binding, params)
}

/// The same with what [`plan_of`] a program was compiled to.
pub fn program_on_virtual_gpu(
    tile: &TileProgram,
    program: &GpuProgram,
    binding: &Binding,
    params: &[Tensor<f32>],
) -> Vec<Tensor<f32>> {
    program_on(&mut VirtualGpu::new(program.target), tile, program, (binding, params))
}

/// The same on a device.
pub fn program_on(
    device: &mut dyn GpuDevice,
    tile: &TileProgram,
    program: &GpuProgram,
    (binding, params): (&Binding, &[Tensor<f32>]),
) -> Vec<Tensor<f32>> {
    on_device(device, (tile, program), binding, params)
        .unwrap_or_else(|error| panic!("{}: {error}\n{tile}\n{}", tile.name, program.kernels[0].ptx))
}

/// The same on a device that may fail.
pub fn on_device(
    device: &mut dyn GpuDevice,
    (tile, program): (&TileProgram, &GpuProgram),
    binding: &Binding,
    params: &[Tensor<f32>],
) -> Result<Vec<Tensor<f32>>, GpuError> {
    let bytes: Vec<Vec<u8>> =
        tile.params.values().zip(params).map(|(param, tensor)| encode(param, tensor)).collect();
    on_device_as(device, (tile, program), binding, (params, &bytes))
}

/// The same with the bytes of the parameters as they lie in memory, which those of the tensors are not where weights are codes.
///
/// # Errors
/// What the device says.
pub fn on_device_as(
    device: &mut dyn GpuDevice,
    (tile, program): (&TileProgram, &GpuProgram),
    binding: &Binding,
    (params, bytes): (&[Tensor<f32>], &[Vec<u8>]),
) -> Result<Vec<Tensor<f32>>, GpuError> {
    let steps = &plan_of(tile).steps[0];
    let mut places: BTreeMap<String, DevicePtr> = BTreeMap::new();
    for (bytes, arg) in bytes.iter().zip(&steps.args) {
        let at = device.alloc(bytes.len().max(1) as u64)?;
        device.write(at, bytes)?;
        places.insert(format!("{arg:?}"), at);
    }
    let at = |arg: Arg| places[&format!("{arg:?}")];
    run(device, program, binding, &at)?;
    let mut out = Vec::new();
    for ((param, tensor), arg) in tile.params.values().zip(params).zip(&steps.args) {
        if param.access == Access::Read {
            out.push(tensor.clone());
            continue;
        }
        let mut bytes = vec![0; tensor.data.len() * param.ty.dtype.bytes()];
        device.read(at(*arg), &mut bytes)?;
        out.push(Tensor::new(tensor.shape.clone(), decode(param.ty.dtype, &bytes)));
    }
    Ok(out)
}

/// Compares with the evaluator in double precision: `tolerance` is relative to the greater of 1 and the value, and one
/// rounding of the stored type is allowed besides. Returns what the device left.
pub fn check(
    tile: &TileProgram,
    target: Target,
    binding: &Binding,
    params: &[Tensor<f32>],
    tolerance: f64,
) -> Vec<Tensor<f32>> {
    assert_eq!(verify_tile(tile), vec![], "{tile}");
    let found = on_virtual_gpu(tile, target, binding, params);
    compare(tile, binding, (params, &found), tolerance);
    found
}

/// As [`check`], with the evaluator in single precision, which rounds where a program rounds on its way to 16 bits.
pub fn check_single(
    tile: &TileProgram,
    target: Target,
    binding: &Binding,
    params: &[Tensor<f32>],
    tolerance: f64,
) {
    assert_eq!(verify_tile(tile), vec![], "{tile}");
    let found = on_virtual_gpu(tile, target, binding, params);
    let mut wanted = params.to_vec();
    evaluate_tile(tile, binding, &mut wanted);
    near(tile, &found, &wanted.iter().map(double).collect::<Vec<_>>(), tolerance);
}

/// Compares what a device left of `params` with the evaluator, as [`check`] does.
pub fn compare(
    tile: &TileProgram,
    binding: &Binding,
    (params, found): (&[Tensor<f32>], &[Tensor<f32>]),
    tolerance: f64,
) {
    let mut wanted: Vec<Tensor<f64>> = params.iter().map(double).collect();
    evaluate_tile(tile, binding, &mut wanted);
    near(tile, found, &wanted, tolerance);
}

fn double(tensor: &Tensor<f32>) -> Tensor<f64> {
    Tensor::new(tensor.shape.clone(), tensor.data.iter().map(|x| f64::from(*x)).collect())
}

fn near(tile: &TileProgram, found: &[Tensor<f32>], wanted: &[Tensor<f64>], tolerance: f64) {
    for ((param, found), wanted) in tile.params.values().zip(found).zip(wanted) {
        let rounding = match param.ty.dtype {
            DType::Bf16 => 1.0 / 256.0,
            DType::F16 => 1.0 / 2048.0,
            DType::F32 => 1e-6,
            _ => 0.0,
        };
        for (at, (found, wanted)) in found.data.iter().zip(&wanted.data).enumerate() {
            let found = f64::from(*found);
            let bound = tolerance * wanted.abs().max(1.0) + rounding * wanted.abs();
            let good =
                found == *wanted || (found - wanted).abs() <= bound || found.is_nan() && wanted.is_nan();
            assert!(good, "{} of {}, element {at}: {found}, wanted {wanted}\n{tile}", param.name, tile.name);
        }
    }
}

/// Whether two tensors have the same bits.
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Tensors for a program: numbers between −1 and 1 as their types store them, and whole numbers small enough for every
/// index they are part of.
pub fn arguments(stream: &mut Stream, tile: &TileProgram, binding: &Binding) -> Vec<Tensor<f32>> {
    let mut tensors = Vec::new();
    for (id, param) in tile.params.iter() {
        let stored = param.stored();
        let shape: Vec<usize> = stored.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
        let distinct = is_store_index(tile, id);
        let most = bound(tile, id, binding);
        let mut taken = 0;
        tensors.push(Tensor::from_fn(&shape, |_| match stored.dtype {
            // No two tokens go to one slot.
            DType::U32 if distinct => {
                taken += 1;
                ((taken * 5 + 2) % most) as f32
            }
            DType::U32 => stream.below(most) as f32,
            DType::Bool => stream.below(2) as f32,
            DType::U8 => stream.below(256) as f32,
            DType::I8 => stream.below(256) as f32 - 128.0,
            dtype => stream.number().stored(dtype),
        }));
    }
    tensors
}

/// What [`each_index`] calls: an index, the extent that it must stay below, and whether it is a store's.
type See<'s> = dyn FnMut(&Index, Dim, bool) + 's;

/// Calls `see` with every index of a program.
fn each_index(tile: &TileProgram, see: &mut See<'_>) {
    for expr in tile.exprs.values() {
        match expr {
            Expr::Load(load) => each_of(tile, load.param, &load.index, false, see),
            Expr::Index(index) => each_inside(tile, index, see),
            Expr::Const(_) | Expr::Stage(_) | Expr::Apply(..) | Expr::Cast(..) => {}
        }
    }
    for stage in &tile.stages {
        match stage {
            Stage::Mma { a, b, .. } => {
                [a, b].iter().for_each(|load| each_of(tile, load.param, &load.index, false, see));
            }
            Stage::Online { value, .. } => each_of(tile, value.param, &value.index, false, see),
            Stage::Store { param, index, .. } => each_of(tile, *param, index, true, see),
            Stage::Reduce { .. } => {}
        }
    }
}

fn each_of(tile: &TileProgram, param: ParamId, index: &[Index], stores: bool, see: &mut See<'_>) {
    for (extent, index) in tile.params[param].ty.shape.iter().zip(index) {
        see(index, *extent, stores);
        each_inside(tile, index, see);
    }
}

/// The indices of what an index reads.
fn each_inside(tile: &TileProgram, index: &Index, see: &mut See<'_>) {
    for (atom, _) in &index.terms {
        match atom {
            Atom::Axis(_) => {}
            Atom::Div(inner, _) | Atom::Mod(inner, _) => each_inside(tile, inner, see),
            Atom::Load(load) => each_of(tile, load.param, &load.index, false, see),
        }
    }
}

/// The terms of an index that read a parameter, as factors.
fn factors(index: &Index, param: ParamId) -> impl Iterator<Item = i64> {
    let reads = move |(atom, factor): &(Atom, i64)| match atom {
        Atom::Load(load) if load.param == param => Some(*factor),
        _ => None,
    };
    index.terms.iter().filter_map(reads)
}

fn is_store_index(tile: &TileProgram, param: ParamId) -> bool {
    let mut found = false;
    each_index(tile, &mut |index, _, stores| found |= stores && factors(index, param).next().is_some());
    found
}

/// A number that every element of a parameter must stay below; positions stay within the longest context.
fn bound(tile: &TileProgram, param: ParamId, binding: &Binding) -> usize {
    let mut most = binding.get(Sym::P) * PAGE;
    each_index(tile, &mut |index, extent, _| {
        for factor in factors(index, param) {
            let left = extent.eval(binding).saturating_sub(rest(tile, index, binding));
            most = most.min(left.div_ceil(factor.unsigned_abs()));
        }
    });
    most.max(1) as usize
}

/// The most that the terms of an index come to which read nothing.
fn rest(tile: &TileProgram, index: &Index, binding: &Binding) -> u64 {
    let most = |(atom, factor): &(Atom, i64)| {
        let last = match atom {
            Atom::Axis(axis) => tile.axes[*axis].extent.eval(binding).saturating_sub(1),
            Atom::Mod(_, by) => by - 1,
            Atom::Div(..) | Atom::Load(_) => 0,
        };
        last * (*factor).max(0) as u64
    };
    index.terms.iter().map(most).sum::<u64>() + index.offset.max(0) as u64
}
