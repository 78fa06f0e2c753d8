//! A norm that a product computes for itself has the bits of the norm's own kernel.

use sinter_codegen_nvptx::compile;
use sinter_gpu_tests::contraction::product;
use sinter_gpu_tests::launch::{Stream, encode, run};
use sinter_ir::*;
use sinter_vgpu::VirtualGpu;

const COLUMNS: usize = 40;

/// A norm with two folds, which the second needs the first for, and a product.
fn programs(width: usize) -> [TileProgram; 2] {
    let scale = 1.0 / width as f64;
    let norm = format!(
        "tile @norm {{
  p0: f32[T, {width}] read rows \"x\"
  p1: f32[{width}] read rows \"g\"
  p2: bf16[T, {width}] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..{width} \"d\"
  a2 = 0..{width} \"r\"
  a3 = 0..{width} \"r\"
  grid a0
  e0 = load p0[a0, a1]
  e1 = load p0[a0, a2]
  s0 = reduce sum a2 : e1
  e2 = s0
  e3 = const {scale:?}
  e4 = mul e2, e3
  e5 = load p0[a0, a3]
  e6 = sub e5, e4
  e7 = mul e6, e6
  s1 = reduce sum a3 : e7
  e8 = s1
  e9 = mul e8, e3
  e10 = const 1e-5
  e11 = add e9, e10
  e12 = rsqrt e11
  e13 = sub e0, e4
  e14 = mul e13, e12
  e15 = load p1[a1]
  e16 = mul e14, e15
  s2 = store [a1] p2[a0, a1] = e16
}}
"
    );
    let norm = TileProgram::parse(&norm).expect("the program parses");
    [norm, product((DType::Bf16, DType::F32), (COLUMNS, width))]
}

fn plan(width: usize) -> Plan {
    let [norm, product] = programs(width);
    let ty = |tile: &TileProgram, at: u32| tile.params[ParamId(at)].ty.clone();
    let value = |name: &str, ty| ValueDef { name: name.into(), ty };
    let weight = |ty, layout| WeightDef { source: Graph::default(), ty, layout };
    let mut plan = Plan {
        inputs: vec![value("x", ty(&norm, 0))],
        outputs: vec![value("y", ty(&product, 2))],
        ..Plan::default()
    };
    let g = Arg::Weight(plan.weights.push(weight(ty(&norm, 1), Layout::Rows)));
    let w = Arg::Weight(plan.weights.push(weight(ty(&product, 1), Layout::Panels)));
    plan.slots.push(Slot { types: vec![ty(&norm, 2)] });
    let between = Arg::Buffer(plan.buffers.push(Buffer { ty: ty(&norm, 2), slot: 0 }));
    let (norm, product) = (plan.kernels.push(norm), plan.kernels.push(product));
    plan.steps.push(Step { kernel: norm, args: vec![Arg::Input(0), g, between] });
    plan.steps.push(Step { kernel: product, args: vec![between, w, Arg::Output(0)] });
    plan.verify().expect("the plan is sound");
    plan
}

/// The outputs for the first `tokens` rows, and the number of launches.
fn outputs(width: usize, target: Target, tokens: usize) -> (Vec<u8>, usize) {
    let (plan, mut stream) = (plan(width), Stream(width as u64));
    let program = compile(&plan, target).expect("the plan compiles");
    let binding = Binding::new(tokens as u64, 1, 1, 16);
    let mut device = VirtualGpu::new(target);
    let [norm, product] = programs(width);
    let mut place = |param: &TileParam, rows: usize| {
        let tensor = Tensor::from_fn(&[rows, width], |_| stream.number());
        let bytes = encode(param, &tensor);
        let at = device.alloc(bytes.len() as u64).expect("memory");
        device.write(at, &bytes).expect("a write");
        at
    };
    let gain = place(&norm.params[ParamId(1)], 1);
    let weight = place(&product.params[ParamId(1)], COLUMNS);
    let rows = place(&norm.params[ParamId(0)], tokens);
    let between = device.alloc((tokens * width * 2) as u64).expect("memory");
    let result = device.alloc((tokens * COLUMNS * 4) as u64).expect("memory");
    let at = |arg: Arg| match arg {
        Arg::Input(_) => rows,
        Arg::Weight(WeightId(0)) => gain,
        Arg::Weight(_) => weight,
        Arg::Buffer(_) => between,
        _ => result,
    };
    run(&mut device, &program, &binding, &at).unwrap_or_else(|error| panic!("{error}"));
    let mut bytes = vec![0; tokens * COLUMNS * 4];
    device.read(result, &mut bytes).expect("all elements were written");
    (bytes, program.bucket(tokens as u64).map_or(0, |bucket| bucket.launches.len()))
}

#[test]
fn a_folded_norm_keeps_the_bits() {
    for target in [Target::Sm80, Target::Sm90a] {
        for width in [24, 200, 1000, 2048] {
            let (many, launches) = outputs(width, target, 20);
            assert_eq!(launches, 2);
            for tokens in [1, 3, 4, 5, 16] {
                let (few, launches) = outputs(width, target, tokens);
                assert_eq!(launches, if tokens <= 4 { 1 } else { 2 }, "{tokens} tokens of {width}");
                assert!(few[..] == many[..few.len()], "{target}, {tokens} tokens of {width}");
            }
        }
    }
}
