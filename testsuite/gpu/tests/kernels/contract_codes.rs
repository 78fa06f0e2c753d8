//! Products with weights in codes: the bits of the same weights dequantised before, whatever the schedule.

use sinter_codegen_schedule::contract::{Contract, Kind, candidates, choose, find};
use sinter_codegen_weights::{RawTensor, pack_rows};
use sinter_gpu_tests::coded::llama_in_codes;
use sinter_gpu_tests::contraction::{kernel, parsed};
use sinter_gpu_tests::counted;
use sinter_gpu_tests::launch::{Stream, alone, encode, on_device_as, same_bits};
use sinter_gpu_tests::plans::plan;
use sinter_gpu_tests::ptxas;
use sinter_ir::*;
use sinter_vgpu::VirtualGpu;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Two products that share their left operand, a gate and a residual.
const GATED: &str = "tile @contract {
  p0: DTYPE[T, K] read rows \"x\"
  p1: DTYPE[N, K] read LAYOUT \"w\"
  p2: DTYPE[N, K] read LAYOUT \"v\"
  p3: f32[T, N] read rows \"residual\"
  p4: f32[T, N] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..N \"n\"
  a2 = 0..K \"k\"
  a3 = 0..K \"k\"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
  s1 = mma a3 : p0[a0, a3] * p2[a1, a3]
  e0 = s0
  e1 = s1
  e2 = mul e0, e1
  e3 = load p3[a0, a1]
  e4 = add e2, e3
  s2 = store [] p4[a0, a1] = e4
}";

/// A part of the rows of a weight, and one of them that is read as a row of a table.
const PART: &str = "tile @contract {
  p0: DTYPE[T, K] read rows \"x\"
  p1: DTYPE[N, K] read LAYOUT \"w\"
  p2: u32[T] read rows \"ids\"
  p3: f32[T, 16] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..16 \"n\"
  a2 = 0..K \"k\"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1 + 16, a2]
  e0 = s0
  e1 = load p1[p2[a0], a1]
  e2 = add e0, e1
  s1 = store [] p3[a0, a1] = e2
}";

/// The tensors of a checkpoint, by name.
type Tensors = BTreeMap<String, (DType, Vec<usize>, Vec<u8>)>;

/// A weight in codes whose source is written as front ends write it, and its tensors.
fn weight(codes: Codes, dtype: DType, (n, k): (usize, usize), stream: &mut Stream) -> (WeightDef, Tensors) {
    let (group, groups) = (codes.group as usize, k / codes.group as usize);
    let (grouped, ones) = ([n, groups, group].map(Dim::of), [n, groups, 1].map(Dim::of));
    let mut tensors = Tensors::new();
    let mut put = |name: &str, dtype: DType, shape: &[usize], element: &mut dyn FnMut() -> f64| {
        let mut bytes = Vec::new();
        (0..shape.iter().product::<usize>()).for_each(|_| dtype.append(element(), &mut bytes));
        tensors.insert(name.into(), (dtype, shape.to_vec(), bytes));
    };
    put("codes", DType::U8, &[n, groups, group], &mut || stream.below(256) as f64);
    put("scales", DType::F32, &[n, groups, 1], &mut || f64::from(stream.number() * 0.1));
    let zeros = 1usize << codes.bits;
    put("zeros", DType::U8, &[n, groups, 1], &mut || stream.below(zeros) as f64);
    put("lows", DType::F32, &[n, groups, 1], &mut || f64::from(stream.number()));
    let mut graph = Graph::new("w");
    let mut value = graph.param("codes", DType::U8, &grouped).unwrap();
    if codes.bits == 4 {
        let mask = graph.constant(15.0, DType::U8).unwrap();
        value = graph.map(ScalarOp::Bitand, &[value, mask]).unwrap();
    }
    value = graph.cast(value, DType::F32).unwrap();
    let scales = graph.param("scales", DType::F32, &ones).unwrap();
    match codes.offset {
        Offset::Middle => {
            let middle = graph.constant(f64::from(codes.middle()), DType::F32).unwrap();
            value = graph.map(ScalarOp::Sub, &[value, middle]).unwrap();
        }
        Offset::Zeros => {
            let zeros = graph.param("zeros", DType::U8, &ones).unwrap();
            let zeros = graph.cast(zeros, DType::F32).unwrap();
            value = graph.map(ScalarOp::Sub, &[value, zeros]).unwrap();
        }
        Offset::Lows => {}
    }
    value = graph.map(ScalarOp::Mul, &[value, scales]).unwrap();
    if codes.offset == Offset::Lows {
        let lows = graph.param("lows", DType::F32, &ones).unwrap();
        value = graph.map(ScalarOp::Sub, &[value, lows]).unwrap();
    }
    value = graph.reshape(value, &[n, k].map(Dim::of)).unwrap();
    value = graph.cast(value, dtype).unwrap();
    graph.output("w", value);
    let found = dequantised(&graph, value).map(|found| found.codes);
    assert_eq!(found, Some(codes), "{graph}");
    let ty = Type::new(dtype, [n, k].map(Dim::of));
    (WeightDef { source: graph, ty, layout: Layout::Codes(codes) }, tensors)
}

fn packed(def: &WeightDef, tensors: &Tensors) -> Vec<u8> {
    let raw = |name: &str| {
        let (dtype, shape, bytes) = tensors.get(name)?;
        Some(RawTensor { dtype: *dtype, shape: shape.clone(), bytes })
    };
    pack_rows(def, &raw).expect("the weight packs").to_vec()
}

/// A program with its weights in codes and the same program with numbers, and the bytes of the parameters of each.
struct Pair {
    tiles: [TileProgram; 2],
    binding: Binding,
    params: Vec<Tensor<f32>>,
    bytes: [Vec<Vec<u8>>; 2],
}

impl Pair {
    fn new(text: &str, codes: Codes, (dtype, tokens): (DType, u64), (n, k): (usize, usize)) -> Pair {
        let facts = [("DTYPE", dtype.to_string()), ("N", n.to_string()), ("K", k.to_string())];
        let facts = facts.each_ref().map(|(name, value)| (*name, value.as_str()));
        let of = |layout: &str| parsed(&text.replace("LAYOUT", layout), &facts);
        let tiles = [of(&codes.to_string()), of("panels")];
        let mut stream = Stream(tokens + n as u64);
        let binding = Binding::new(tokens, 1, 1, 16);
        let (mut params, mut bytes) = (Vec::new(), [Vec::new(), Vec::new()]);
        for param in tiles[0].params.values() {
            let shape: Vec<usize> = param.ty.shape.iter().map(|dim| dim.eval(&binding) as usize).collect();
            let element = |stream: &mut Stream| match param.ty.dtype {
                DType::U32 => stream.below(n) as f32,
                dtype => stream.number().stored(dtype),
            };
            let tensor = Tensor::from_fn(&shape, |_| element(&mut stream));
            if param.layout == Layout::Rows {
                bytes.iter_mut().for_each(|bytes| bytes.push(encode(param, &tensor)));
            } else {
                let (coded, tensors) = weight(codes, dtype, (n, k), &mut stream);
                let plain = WeightDef { layout: Layout::Panels, ..coded.clone() };
                bytes.iter_mut().zip([coded, plain]).for_each(|(to, def)| to.push(packed(&def, &tensors)));
            }
            params.push(tensor);
        }
        Pair { tiles, binding, params, bytes }
    }

    fn run(&self, which: usize, target: Target, schedule: &Contract) -> Vec<Tensor<f32>> {
        let tile = &self.tiles[which];
        let program = alone(tile, target, kernel(tile, target, schedule));
        let mut device = VirtualGpu::new(target).with_multiprocessors(2);
        let bytes = (&self.params[..], &self.bytes[which][..]);
        on_device_as(&mut device, (tile, &program), &self.binding, bytes)
            .unwrap_or_else(|error| panic!("{schedule}: {error}\n{tile}\n{}", program.kernels[0].ptx))
    }

    /// Some schedules of the program in codes against one of the program with numbers; the kinds that were seen.
    fn check(&self, target: Target, every: usize) -> Vec<Kind> {
        let takes = |tile: &TileProgram, schedule: &Contract| {
            schedule.takes(&find(tile).expect("a contraction"), &self.binding)
        };
        let numbers = choose(&self.tiles[1], target, None).expect("a schedule");
        let wanted = self.run(1, target, &numbers);
        let mut all: Vec<Contract> = Vec::new();
        for most in [Some(16), Some(4), None] {
            let some = candidates(&self.tiles[0], target, most);
            all.extend(some.into_iter().filter(|schedule| takes(&self.tiles[0], schedule)));
        }
        let mut kinds = Vec::new();
        let begin = self.binding.get(Sym::T) as usize % every.min(all.len());
        for schedule in all.iter().skip(begin).step_by(every) {
            kinds.push(schedule.kind);
            for (wanted, found) in wanted.iter().zip(self.run(0, target, schedule)) {
                assert!(same_bits(&wanted.data, &found.data), "{schedule} for {target}\n{}", self.tiles[0]);
            }
        }
        kinds
    }
}

fn codes(text: &str) -> Codes {
    Codes::parse(text).expect("a layout")
}

#[test]
fn codes_give_the_bits_of_numbers() {
    let cases = [
        ("codes8x32", (48, 96)),
        ("codes8x160z", (37, 160)),
        ("codes8x64m", (64, 192)),
        ("codes4x32z", (40, 96)),
        ("codes4x16m", (16, 80)),
        ("codes4x128", (70, 256)),
        ("codes4x80z", (48, 80)),
    ];
    let mut kinds = Vec::new();
    for (at, (name, shape)) in cases.into_iter().enumerate() {
        for (tokens, target) in [(1, Target::Sm90a), (13, Target::Sm80), (40, Target::Sm89)] {
            let pair = Pair::new(GATED, codes(name), (DType::Bf16, tokens), shape);
            kinds.extend(pair.check(target, 13 + at % 3));
        }
    }
    assert!(kinds.contains(&Kind::Skinny) && kinds.contains(&Kind::Tiles));
}

/// Groups that are no whole steps of the tensor cores, or do not fit into chunks, and products in f32: numbers are made one by
/// one.
#[test]
fn codes_of_any_group_give_the_bits_of_numbers() {
    for (name, shape) in [("codes8x24", (20, 48)), ("codes4x96z", (18, 192)), ("codes4x8m", (17, 40))] {
        let pair = Pair::new(GATED, codes(name), (DType::Bf16, 5), shape);
        assert!(!pair.check(Target::Sm80, 9).contains(&Kind::Skinny));
    }
    for name in ["codes8x32z", "codes4x8", "codes4x32m"] {
        Pair::new(GATED, codes(name), (DType::F32, 5), (20, 64)).check(Target::Sm90a, 2);
    }
}

#[test]
fn rows_of_codes_are_read_as_a_table() {
    for name in ["codes8x32z", "codes4x16m"] {
        let pair = Pair::new(PART, codes(name), (DType::Bf16, 9), (50, 64));
        assert!(pair.check(Target::Sm90a, 7).contains(&Kind::Skinny));
    }
}

/// A layer in codes: each code, each scale and the cache once.
#[test]
fn codes_are_moved_once() {
    const CONTEXT: usize = 40;
    let elements = 512 * 64 * (8 + 2 * 2) + 512 * 512 + 3 * 512 * 1536;
    let cache = 2 * 2 * 2 * 64 * (CONTEXT + 1);
    for (bits, group, target) in [(8, 512, Target::Sm80), (4, 128, Target::Sm90a), (4, 32, Target::Sm89)] {
        let least = elements * bits as usize / 8 + elements / group * 4 + cache;
        let bytes = |layers| -> u64 {
            let plan = Arc::new(plan(&llama_in_codes(layers, (bits, group))));
            let counted = counted::decode(&plan, target, CONTEXT).1;
            let moved = counted.iter().map(|launch| &launch.counters);
            moved.map(|counters| counters.dram_bytes_read() + counters.dram_bytes_written()).sum()
        };
        let layer = bytes(2) - bytes(1);
        let ratio = layer as f64 / least as f64;
        println!("{target}: a layer in {bits} bits moves {layer} bytes, {ratio:.4} times the least, {least}");
        assert!((1.0..1.05).contains(&ratio), "{target}: {layer} bytes, {ratio:.4} times the least");
    }
}

/// At the shapes of real models no schedule of codes spills.
#[test]
fn codes_assemble() {
    let assembler = ptxas::assembler();
    let cases = [
        ("codes4x128z", Target::Sm80, None, Kind::Tiles),
        ("codes8x2048", Target::Sm90a, None, Kind::Tiles),
        ("codes4x32", Target::Sm90a, Some(16), Kind::Skinny),
        ("codes8x128z", Target::Sm89, Some(16), Kind::Skinny),
    ];
    for (name, target, most, kind) in cases {
        let facts = [("LAYOUT", name), ("DTYPE", "bf16"), ("N", "8192"), ("K", "2048")];
        let tile = parsed(GATED, &facts);
        let mut seen = Vec::new();
        for schedule in candidates(&tile, target, most) {
            let shape = (schedule.tile_rows, schedule.tile_columns, schedule.tile_k);
            if schedule.kind != kind || seen.contains(&shape) {
                continue;
            }
            seen.push(shape);
            let kernel = kernel(&tile, target, &schedule);
            let used = ptxas::assemble(&assembler, &kernel, target);
            let used = used.unwrap_or_else(|error| {
                panic!("{schedule}: {}", error.lines().take(9).collect::<Vec<_>>().join("\n"))
            });
            println!("{name} {target} {schedule}: {} registers", used.registers);
        }
        assert!(!seen.is_empty(), "{name} for {target}");
    }
}
