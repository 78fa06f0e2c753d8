//! Packed weights against the definition of the layouts.

use half::bf16;
use sinter_codegen_host::{PackError, RawTensor, pack, packed_bytes, rows_of_packed};
use sinter_ir::*;

/// A checkpoint of two f32 matrices, `a` `[6, 40]` and `b` `[40, 6]`, and the first in bf16 and f16.
struct Checkpoint {
    tensors: Vec<(&'static str, DType, Vec<usize>, Vec<u8>)>,
}

fn number(at: usize) -> f32 {
    bf16::from_f32(((at * 37) % 101) as f32 / 16.0 - 3.0).to_f32()
}

impl Checkpoint {
    fn new() -> Self {
        let data: Vec<f32> = (0..240).map(number).collect();
        let f32: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        let half: Vec<u8> = data.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
        let other: Vec<u8> = data.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
        let tensors = vec![
            ("a", DType::F32, vec![6, 40], f32.clone()),
            ("b", DType::F32, vec![40, 6], f32),
            ("h", DType::Bf16, vec![6, 40], half),
            ("o", DType::F16, vec![6, 40], other),
        ];
        Self { tensors }
    }
    fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        let (_, dtype, shape, bytes) = self.tensors.iter().find(|tensor| tensor.0 == name)?;
        Some(RawTensor { dtype: *dtype, shape: shape.clone(), bytes })
    }
}

/// The element of a packed weight at a row-major position, by the layout's definition.
fn at(bytes: &[u8], def: &WeightDef, position: usize) -> f32 {
    let extent = |from_last: usize| def.ty.shape[def.ty.rank() - from_last].coeff as usize;
    let (rows, depth) = (extent(2), extent(1));
    let (matrix, n, k) = (position / (rows * depth), position / depth % rows, position % depth);
    let half = |at: usize| bf16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32();
    let whole = |at: usize| f32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[4 * at + byte]));
    let panel = matrix * rows.div_ceil(32) + n / 32;
    match (def.layout, def.ty.dtype) {
        (Layout::Rows, DType::Bf16) => half(position),
        (Layout::Rows, _) => whole(position),
        (Layout::Panels, DType::Bf16) => half((panel * depth.div_ceil(2) + k / 2) * 64 + n % 32 * 2 + k % 2),
        (Layout::Panels, _) => whole((panel * depth + k) * 32 + n % 32),
        (Layout::Codes(_) | Layout::Halves, _) => unreachable!("codes have tests of their own"),
    }
}

fn param(graph: &mut Graph, name: &str, dtype: DType, shape: [usize; 2]) -> ValueId {
    graph.param(name, dtype, &shape.map(Dim::of)).unwrap()
}

/// Sources of every kind: a name, and what builds it.
fn sources() -> Vec<(&'static str, Graph)> {
    let mut all = Vec::new();
    let mut add = |name, build: &dyn Fn(&mut Graph) -> ValueId| {
        let mut graph = Graph::new(name);
        let value = build(&mut graph);
        graph.output("w", value);
        all.push((name, graph));
    };
    add("one", &|g| param(g, "a", DType::F32, [6, 40]));
    add("half", &|g| param(g, "h", DType::Bf16, [6, 40]));
    add("f16", &|g| param(g, "o", DType::F16, [6, 40]));
    add("transposed", &|g| {
        let b = param(g, "b", DType::F32, [40, 6]);
        g.transpose(b, &[1, 0]).unwrap()
    });
    add("columns", &|g| {
        let a = param(g, "a", DType::F32, [6, 40]);
        g.slice(a, 1, 3, 9).unwrap()
    });
    add("rows", &|g| {
        let a = param(g, "h", DType::Bf16, [6, 40]);
        g.slice(a, 0, 2, 3).unwrap()
    });
    add("reshaped", &|g| {
        let a = param(g, "a", DType::F32, [6, 40]);
        g.reshape(a, &[Dim::of(48), Dim::of(5)]).unwrap()
    });
    add("joined", &|g| {
        let a = param(g, "a", DType::F32, [6, 40]);
        let b = param(g, "b", DType::F32, [40, 6]);
        let b = g.transpose(b, &[1, 0]).unwrap();
        let h = param(g, "h", DType::Bf16, [6, 40]);
        let h = g.cast(h, DType::F32).unwrap();
        g.concat(0, &[a, b, h, a, a, a]).unwrap()
    });
    add("stack", &|g| {
        let parts = ["a", "h", "o"].map(|name| {
            let dtype = if name == "a" { DType::F32 } else { DType::Bf16 };
            let matrix = param(g, name, dtype, [6, 40]);
            let matrix = g.cast(matrix, DType::F32).unwrap();
            g.reshape(matrix, &[Dim::ONE, Dim::of(6), Dim::of(40)]).unwrap()
        });
        g.concat(0, &parts).unwrap()
    });
    add("stack, transposed", &|g| {
        let b = param(g, "b", DType::F32, [40, 6]);
        let b = g.reshape(b, &[Dim::of(4), Dim::of(10), Dim::of(6)]).unwrap();
        g.transpose(b, &[0, 2, 1]).unwrap()
    });
    add("computed", &|g| {
        let a = param(g, "a", DType::F32, [6, 40]);
        let two = g.constant(2.0, DType::F32).unwrap();
        g.map(ScalarOp::Mul, &[a, two]).unwrap()
    });
    all
}

#[test]
fn every_source_in_every_layout() {
    let checkpoint = Checkpoint::new();
    for (name, source) in sources() {
        let shape = source.ty(source.outputs[0].1).shape.clone();
        let leaf = |name: &str| {
            let raw = checkpoint.get(name)?;
            Some(Tensor::<f32>::new(raw.shape, (0..240).map(number).collect()))
        };
        let wanted = evaluate(&source, &Binding::new(1, 1, 1, 16), &leaf).unwrap().remove(0).1;
        for dtype in [DType::F32, DType::Bf16] {
            for layout in [Layout::Rows, Layout::Panels] {
                let def = WeightDef { source: source.clone(), ty: Type::new(dtype, shape.clone()), layout };
                let packed = pack(&def, &|name| checkpoint.get(name)).unwrap();
                assert_eq!(packed.bytes.len(), packed_bytes(&def).unwrap());
                assert_eq!(packed.bytes.as_ptr() as usize % 64, 0);
                for (position, wanted) in wanted.data.iter().enumerate() {
                    let found = at(&packed.bytes, &def, position);
                    assert_eq!(found, *wanted, "{name} {dtype} {layout:?} at {position}");
                }
                let sum: f64 = wanted.data.iter().map(|x| f64::from(*x)).sum();
                let total: f64 = match dtype {
                    DType::F32 => packed
                        .bytes
                        .chunks(4)
                        .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
                        .sum(),
                    _ => packed.bytes.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).sum(),
                };
                assert_eq!(sum, total, "the padding of {name} is not zero");
            }
        }
    }
}

/// The element of a weight in GPU memory at a row-major position.
fn in_row(bytes: &[u8], def: &WeightDef, position: usize) -> f32 {
    let (size, depth) = (def.ty.dtype.bytes(), def.ty.shape[def.ty.rank() - 1].coeff as usize);
    let (n, k) = (position / depth, position % depth);
    let pitch = match def.layout {
        Layout::Panels => (depth * size).div_ceil(16) * 16,
        Layout::Rows => depth * size,
        Layout::Codes(_) | Layout::Halves => unreachable!("codes are no rows"),
    };
    let element = &bytes[n * pitch + k * size..][..size];
    match def.ty.dtype {
        DType::Bf16 => bf16::from_le_bytes([element[0], element[1]]).to_f32(),
        _ => f32::from_le_bytes([0, 1, 2, 3].map(|byte| element[byte])),
    }
}

#[test]
fn every_source_in_the_rows_of_a_gpu() {
    let checkpoint = Checkpoint::new();
    for (name, source) in sources() {
        let shape = source.ty(source.outputs[0].1).shape.clone();
        for (dtype, layout) in [DType::F32, DType::Bf16]
            .map(|dtype| (dtype, Layout::Panels))
            .into_iter()
            .chain([DType::F32, DType::Bf16].map(|dtype| (dtype, Layout::Rows)))
        {
            let def = WeightDef { source: source.clone(), ty: Type::new(dtype, shape.clone()), layout };
            let packed = pack(&def, &|name| checkpoint.get(name)).unwrap();
            let rows = sinter_codegen_weights::pack_rows(&def, &|name| checkpoint.get(name)).unwrap();
            assert_eq!(Some(rows.len() as u64), gpu_weight_bytes(&def.ty, layout));
            for position in 0..shape.iter().map(|dim| dim.coeff as usize).product() {
                let (a, b) = (in_row(&rows, &def, position), at(&packed.bytes, &def, position));
                assert_eq!(a, b, "{name} {dtype} {layout:?} at {position}");
            }
            let again = rows_of_packed(&def, &packed.bytes).unwrap();
            assert!(again[..] == rows[..], "{name} {dtype} {layout:?}");
            assert!(rows_of_packed(&def, &packed.bytes[1..]).is_none());
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let checkpoint = Checkpoint::new();
    let mut graph = Graph::new("w");
    let value = param(&mut graph, "a", DType::F32, [5, 40]);
    graph.output("w", value);
    let ty = Type::new(DType::F32, [Dim::of(5), Dim::of(40)]);
    let def = WeightDef { source: graph, ty, layout: Layout::Panels };
    let get = |name: &str| checkpoint.get(name);
    assert!(matches!(pack(&def, &get), Err(PackError::Shape { .. })));
    assert!(matches!(pack(&def, &|_| None), Err(PackError::Missing { .. })));
    let half = WeightDef { ty: Type::new(DType::F16, def.ty.shape.clone()), ..def.clone() };
    assert!(matches!(pack(&half, &get), Err(PackError::Definition { .. })));
}
