//! Runs a tile program on the host back end and on the naive evaluator, from the same tensors.
#![allow(unsafe_code, reason = "a kernel is called with addresses")]
#![allow(dead_code, reason = "each test uses a part")]

use half::bf16;
use sinter_codegen_host::micro::{Isa, pack_bf16, pack_f32, panel_bytes_bf16, panel_bytes_f32};
use sinter_codegen_host::{Choices, HostKernel, RawTensor, candidates, compile, compile_as, pack};
use sinter_ir::*;

/// A deterministic stream of numbers (Knuth's MMIX generator).
pub struct Stream(pub u64);

impl Stream {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
    pub fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }
    /// Between −1 and 1.
    pub fn number(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }
}

/// A tensor for a parameter: numbers between −1 and 1 as its type stores them.
pub fn numbers(stream: &mut Stream, param: &TileParam, binding: &Binding) -> Tensor<f32> {
    let ty = param.stored();
    let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
    Tensor::from_fn(&shape, |_| stream.number().stored(ty.dtype))
}

/// A tensor of whole numbers below `end`.
pub fn wholes(stream: &mut Stream, shape: &[usize], end: usize) -> Tensor<f32> {
    Tensor::from_fn(shape, |_| stream.below(end) as f32)
}

/// One parameter in memory.
pub struct Memory {
    words: Vec<[u64; 8]>,
}

impl Memory {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: whole words seen as bytes.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.words.len() * 64) }
    }
    fn of(bytes: &[u8]) -> Self {
        let mut memory = Self { words: vec![[0; 8]; bytes.len() / 64 + 2] };
        memory.bytes()[..bytes.len()].copy_from_slice(bytes);
        memory
    }
    fn pointer(&mut self) -> *mut u8 {
        self.words.as_mut_ptr().cast()
    }
}

/// The bytes of a tensor in an element type.
pub fn encode(dtype: DType, data: &[f32]) -> Vec<u8> {
    let each = |x: &f32| {
        let mut bytes = Vec::new();
        dtype.append(f64::from(*x), &mut bytes);
        bytes
    };
    data.iter().flat_map(each).collect()
}

/// The elements in bytes.
pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(dtype.bytes()).map(|element| dtype.read(element) as f32).collect()
}

/// A weight in codes: the codes, scales and offsets of a parameter, the same at every call.
struct Quantised {
    codes: Vec<u8>,
    scales: Vec<f32>,
    offsets: Vec<f32>,
}

fn quantised(codes: Codes, n: usize, k: usize) -> Quantised {
    let (mut stream, groups) = (Stream(u64::from(codes.bits) + 9), n * k / codes.group as usize);
    let all = (0..n * k).map(|_| stream.below(1 << codes.bits) as u8).collect();
    let scales = (0..groups).map(|_| 0.001 + 0.01 * stream.number().abs()).collect();
    let offsets = (0..groups).map(|_| match codes.offset {
        Offset::Middle => f32::from(codes.middle()),
        Offset::Zeros => stream.below(1 << codes.bits) as f32,
        Offset::Lows => stream.number() * 0.1,
    });
    Quantised { codes: all, scales, offsets: offsets.collect() }
}

/// The numbers of a parameter in codes, rounded as its type says.
pub fn numbers_of_codes(param: &TileParam) -> Tensor<f32> {
    let Layout::Codes(codes) = param.layout else { panic!("{} holds no codes", param.name) };
    let (n, k) = (param.ty.shape[0].coeff as usize, param.ty.shape[1].coeff as usize);
    let weight = quantised(codes, n, k);
    let number = |at: usize| {
        let (group, code) = (at / codes.group as usize, f32::from(weight.codes[at]));
        let number = match codes.offset {
            Offset::Lows => code * weight.scales[group] - weight.offsets[group],
            _ => (code - weight.offsets[group]) * weight.scales[group],
        };
        number.stored(param.ty.dtype)
    };
    Tensor::new(vec![n, k], (0..n * k).map(number).collect())
}

/// A weight in codes as a checkpoint might have it, packed by the back end.
fn packed_codes(param: &TileParam, codes: Codes) -> Vec<u8> {
    let (n, k) = (param.ty.shape[0].coeff as usize, param.ty.shape[1].coeff as usize);
    let (weight, group) = (quantised(codes, n, k), codes.group as usize);
    let dims = |shape: &[usize]| shape.iter().copied().map(Dim::of).collect::<Vec<_>>();
    let (by_group, one_each) = (dims(&[n, k / group, group]), dims(&[n, k / group, 1]));
    let mut graph = Graph::new("w");
    let mut number = graph.param("codes", DType::U8, &by_group).unwrap();
    if codes.bits == 4 {
        let mask = graph.constant(15.0, DType::U8).unwrap();
        number = graph.map(ScalarOp::Bitand, &[number, mask]).unwrap();
    }
    number = graph.cast(number, DType::F32).unwrap();
    let scales = graph.param("scales", DType::F32, &one_each).unwrap();
    let offsets = match codes.offset {
        Offset::Middle => graph.constant(f64::from(codes.middle()), DType::F32).unwrap(),
        Offset::Zeros => {
            let zeros = graph.param("offsets", DType::U8, &one_each).unwrap();
            graph.cast(zeros, DType::F32).unwrap()
        }
        Offset::Lows => graph.param("offsets", DType::F32, &one_each).unwrap(),
    };
    let (first, second) = if codes.offset == Offset::Lows { (scales, offsets) } else { (offsets, scales) };
    let ops = if codes.offset == Offset::Lows {
        [ScalarOp::Mul, ScalarOp::Sub]
    } else {
        [ScalarOp::Sub, ScalarOp::Mul]
    };
    number = graph.map(ops[0], &[number, first]).unwrap();
    number = graph.map(ops[1], &[number, second]).unwrap();
    number = graph.reshape(number, &dims(&[n, k])).unwrap();
    number = graph.cast(number, param.ty.dtype).unwrap();
    graph.output("w", number);
    let bytes = |data: &[f32]| data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (scales, mut offsets) = (bytes(&weight.scales), bytes(&weight.offsets));
    let mut type_of_offsets = DType::F32;
    if codes.offset == Offset::Zeros {
        offsets = weight.offsets.iter().map(|x| *x as u8).collect();
        type_of_offsets = DType::U8;
    }
    let source = |name: &str| {
        let (dtype, bytes, last) = match name {
            "codes" => (DType::U8, &weight.codes, group),
            "scales" => (DType::F32, &scales, 1),
            _ => (type_of_offsets, &offsets, 1),
        };
        Some(RawTensor { dtype, shape: vec![n, k / group, last], bytes })
    };
    let def = WeightDef { source: graph, ty: param.ty.clone(), layout: param.layout };
    pack(&def, &source).unwrap().bytes.to_vec()
}

fn packed(param: &TileParam, tensor: &Tensor<f32>) -> Vec<u8> {
    if let [e, n, k] = tensor.shape[..] {
        let matrix = |at: usize| Tensor::new(vec![n, k], tensor.data[at * n * k..(at + 1) * n * k].to_vec());
        return (0..e).flat_map(|at| packed(param, &matrix(at))).collect();
    }
    let (n, k) = (tensor.shape[0], tensor.shape[1]);
    if param.ty.dtype == DType::Bf16 {
        let source: Vec<u16> = tensor.data.iter().map(|x| bf16::from_f32(*x).to_bits()).collect();
        let mut packed = vec![0u16; panel_bytes_bf16(n, k) / 2];
        pack_bf16(&source, n, k, 0, &mut packed);
        packed.iter().flat_map(|x| x.to_le_bytes()).collect()
    } else {
        let mut packed = vec![0f32; panel_bytes_f32(n, k) / 4];
        pack_f32(&tensor.data, n, k, 0, &mut packed);
        packed.iter().flat_map(|x| x.to_le_bytes()).collect()
    }
}

/// How the units of a launch are divided.
#[derive(Clone, Copy, Debug)]
pub enum Split {
    Whole,
    Single,
    Random(u64),
}

/// Runs a kernel on copies of the tensors and returns them as it left them.
pub fn launch(
    kernel: &HostKernel,
    tile: &TileProgram,
    binding: &Binding,
    params: &[Tensor<f32>],
    split: Split,
) -> Vec<Tensor<f32>> {
    let mut memory: Vec<Memory> = (tile.params.values().zip(params))
        .map(|(param, tensor)| match param.layout {
            Layout::Rows | Layout::Halves => Memory::of(&encode(param.stored().dtype, &tensor.data)),
            Layout::Panels => Memory::of(&packed(param, tensor)),
            Layout::Codes(codes) => Memory::of(&packed_codes(param, codes)),
        })
        .collect();
    let args: Vec<*mut u8> = memory.iter_mut().map(Memory::pointer).collect();
    let form = kernel.form(binding);
    // Garbage in the scratch memory must not matter.
    let mut scratch = vec![Line([f32::NAN; 16]); kernel.scratch_bytes / 64 + 1];
    for (begin, end) in ranges(form.count(binding), split) {
        // SAFETY: every parameter has the bytes that the program names, scratch has what the kernel asks for.
        unsafe {
            (form.entry)(args.as_ptr(), binding.values.as_ptr(), begin, end, scratch.as_mut_ptr().cast())
        };
    }
    let read = |((param, tensor), memory): ((&TileParam, &Tensor<f32>), &mut Memory)| match param.layout {
        Layout::Panels | Layout::Codes(_) | Layout::Halves => tensor.clone(),
        Layout::Rows => {
            let bytes = tensor.data.len() * param.ty.dtype.bytes();
            let used = &memory.bytes()[..bytes];
            let out = Tensor::new(tensor.shape.clone(), decode(param.ty.dtype, used));
            assert!(memory.bytes()[bytes..].iter().all(|byte| *byte == 0), "{} is overrun", param.name);
            out
        }
    };
    tile.params.values().zip(params).zip(&mut memory).map(read).collect()
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([f32; 16]);

fn ranges(units: u64, split: Split) -> Vec<(u64, u64)> {
    match split {
        Split::Whole => vec![(0, units)],
        Split::Single => (0..units).rev().map(|unit| (unit, unit + 1)).collect(),
        Split::Random(seed) => {
            let (mut stream, mut at, mut ranges) = (Stream(seed), 0, vec![(0, 0)]);
            while at < units {
                let end = units.min(at + 1 + stream.next() % 5);
                ranges.push((at, end));
                at = end;
            }
            ranges.reverse();
            ranges
        }
    }
}

/// Compiles, runs under every split (the bits must agree) and compares with the evaluator in double precision:
/// `tolerance` is relative to the greater of 1 and the value, and one rounding of the stored type is allowed besides.
pub fn check(
    tile: &TileProgram,
    binding: &Binding,
    params: &[Tensor<f32>],
    tolerance: f64,
) -> Vec<Tensor<f32>> {
    assert_eq!(verify_tile(tile), vec![]);
    let kernel = compile(tile, Isa::detect()).unwrap_or_else(|error| panic!("{error}"));
    let out = launch(&kernel, tile, binding, params, Split::Whole);
    for split in [Split::Single, Split::Random(7)] {
        let other = launch(&kernel, tile, binding, params, split);
        for (a, b) in out.iter().zip(&other) {
            assert!(same_bits(&a.data, &b.data), "{}: {split:?} gives other bits", tile.name);
        }
    }
    check_choices(tile, binding, params, &out);
    let mut wanted: Vec<Tensor<f64>> = params
        .iter()
        .map(|t| Tensor::new(t.shape.clone(), t.data.iter().map(|x| f64::from(*x)).collect()))
        .collect();
    evaluate_tile(tile, binding, &mut wanted);
    for ((param, found), wanted) in tile.params.values().zip(&out).zip(&wanted) {
        compare(&format!("{} of {}", param.name, tile.name), param.ty.dtype, found, wanted, tolerance);
    }
    out
}

/// Runs a program in the ways in which it can be run: the bits must be those that are known. Of many ways, those of products,
/// a fourth at a time: another fourth at another number of tokens.
pub fn check_choices(tile: &TileProgram, binding: &Binding, params: &[Tensor<f32>], known: &[Tensor<f32>]) {
    let all = candidates(tile).unwrap();
    let every = if all.len() > 12 { 4 } else { 1 };
    let first = binding.get(Sym::T) as usize % every;
    let ways = all.iter().filter(|choice| !choice.alone).skip(first).step_by(every);
    // Few rows in one way and many in another: both, and the change between them, are run.
    let last = all[all.len() - 1];
    let mixed = [Choices { few: all[0], many: last }, Choices { few: last, many: all[0] }];
    let pairs: Vec<Choices> = ways.map(|way| Choices { few: *way, many: *way }).chain(mixed).collect();
    let tiles: Vec<(&TileProgram, Choices)> = pairs.iter().map(|choices| (tile, *choices)).collect();
    for (kernel, choices) in compile_as(&tiles, Isa::detect()).unwrap().iter().zip(&pairs) {
        let out = launch(kernel, tile, binding, params, Split::Random(3));
        for (a, b) in known.iter().zip(&out) {
            assert!(same_bits(&a.data, &b.data), "{}: {} gives other bits", tile.name, choices.many);
        }
    }
}

pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

fn compare(place: &str, dtype: DType, found: &Tensor<f32>, wanted: &Tensor<f64>, tolerance: f64) {
    let rounding = match dtype {
        DType::Bf16 => 1.0 / 256.0,
        DType::F16 => 1.0 / 2048.0,
        DType::F32 => 1e-6,
        _ => 0.0,
    };
    for (at, (found, wanted)) in found.data.iter().zip(&wanted.data).enumerate() {
        let found = f64::from(*found);
        let bound = tolerance * wanted.abs().max(1.0) + rounding * wanted.abs();
        let good = found == *wanted || (found - wanted).abs() <= bound || (found.is_nan() && wanted.is_nan());
        assert!(good, "{place}, element {at}: {found}, wanted {wanted}");
    }
}

/// Short forms for building tile programs.
pub struct Build {
    pub tile: TileProgram,
}

impl Build {
    pub fn new(name: &str) -> Self {
        Self { tile: TileProgram { name: name.into(), ..TileProgram::default() } }
    }
    pub fn axis(&mut self, name: &str, extent: impl Into<Dim>) -> AxisId {
        self.tile.axes.push(Axis { name: name.into(), extent: extent.into() })
    }
    pub fn param(&mut self, name: &str, dtype: DType, shape: &[Dim], access: Access) -> ParamId {
        let ty = Type::new(dtype, shape);
        self.tile.params.push(TileParam { name: name.into(), ty, access, layout: Layout::Rows })
    }
    pub fn input(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> ParamId {
        self.param(name, dtype, shape, Access::Read)
    }
    pub fn output(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> ParamId {
        self.param(name, dtype, shape, Access::Write)
    }
    pub fn panels(&mut self, name: &str, dtype: DType, n: usize, k: usize) -> ParamId {
        let ty = Type::new(dtype, [n.into(), k.into()]);
        let (access, layout) = (Access::Read, Layout::Panels);
        self.tile.params.push(TileParam { name: name.into(), ty, access, layout })
    }
    pub fn stack(&mut self, name: &str, dtype: DType, e: usize, n: usize, k: usize) -> ParamId {
        let id = self.panels(name, dtype, n, k);
        self.tile.params[id].ty = Type::new(dtype, [e.into(), n.into(), k.into()]);
        id
    }
    pub fn number(&mut self, value: f64) -> ExprId {
        self.tile.expr(Expr::Const(Float::new(value)))
    }
    pub fn load(&mut self, param: ParamId, index: &[Index]) -> ExprId {
        self.tile.expr(Expr::Load(at(param, index)))
    }
    pub fn index(&mut self, index: Index) -> ExprId {
        self.tile.expr(Expr::Index(index))
    }
    pub fn apply(&mut self, op: ScalarOp, args: &[ExprId]) -> ExprId {
        self.tile.expr(Expr::Apply(op, args.into()))
    }
    pub fn stage(&mut self, stage: Stage) -> ExprId {
        self.tile.stages.push(stage);
        let id = StageId(self.tile.stages.len() as u32 - 1);
        self.tile.expr(Expr::Stage(id))
    }
    pub fn reduce(&mut self, axis: AxisId, monoid: Monoid, value: ExprId) -> ExprId {
        self.stage(Stage::Reduce { axis, monoid, value })
    }
    pub fn mma(&mut self, axis: AxisId, a: Load, b: Load) -> ExprId {
        self.stage(Stage::Mma { axis, a, b })
    }
    pub fn store(&mut self, axes: &[AxisId], param: ParamId, index: &[Index], value: ExprId) {
        self.tile.stages.push(Stage::Store { axes: axes.into(), param, index: index.into(), value });
    }
}

/// A load.
pub fn at(param: ParamId, index: &[Index]) -> Load {
    Load { param, index: index.into() }
}

/// The iteration of an axis.
pub fn ax(axis: AxisId) -> Index {
    Index::axis(axis)
}

/// An index read from memory.
pub fn read(param: ParamId, index: &[Index]) -> Index {
    Index::atom(Atom::Load(Box::new(at(param, index))))
}

pub fn div(index: Index, by: u64) -> Index {
    Index::atom(Atom::Div(Box::new(index), by))
}

pub fn rem(index: Index, by: u64) -> Index {
    Index::atom(Atom::Mod(Box::new(index), by))
}
