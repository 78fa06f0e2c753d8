//! What is the host back end's test too is tested there; here is what only the rows of a GPU have.

use sinter_codegen_weights::{PackError, RawTensor, pack_rows, pitch, unpitched};
use sinter_ir::{DType, Dim, Graph, Layout, Type, WeightDef};

fn weight(dtype: DType, layout: Layout, [n, k]: [usize; 2]) -> WeightDef {
    let shape = [Dim::of(n), Dim::of(k)];
    let mut source = Graph::new("w");
    let value = source.param("t", DType::F32, &shape).unwrap();
    source.output("w", value);
    WeightDef { source, ty: Type::new(dtype, shape), layout }
}

fn packed(def: &WeightDef) -> Result<Vec<u8>, PackError> {
    let shape: Vec<usize> = def.ty.shape.iter().map(|dim| dim.coeff as usize).collect();
    let count = shape.iter().product::<usize>();
    let bytes: Vec<u8> = (0..count).flat_map(|x| (x as f32).to_le_bytes()).collect();
    let tensor = |_: &str| Some(RawTensor { dtype: DType::F32, shape: shape.clone(), bytes: &bytes });
    Ok(pack_rows(def, &tensor)?.to_vec())
}

#[test]
fn halves_are_padded_with_zeros() {
    let def = weight(DType::F16, Layout::Panels, [3, 5]);
    let bytes = packed(&def).unwrap();
    assert_eq!((bytes.len(), pitch(&def), unpitched(&def)), (48, Some(16), false));
    for (n, row) in bytes.chunks(16).enumerate() {
        let halves: Vec<f32> =
            row.chunks(2).map(|half| half::f16::from_le_bytes([half[0], half[1]]).to_f32()).collect();
        let wanted: Vec<f32> = (0..8).map(|k| if k < 5 { (n * 5 + k) as f32 } else { 0.0 }).collect();
        assert_eq!(halves, wanted);
    }
}

#[test]
fn tables_are_dense() {
    let def = weight(DType::F16, Layout::Rows, [3, 5]);
    assert_eq!((packed(&def).unwrap().len(), pitch(&def), unpitched(&def)), (30, Some(10), true));
    let def = weight(DType::F32, Layout::Panels, [3, 4]);
    assert_eq!((packed(&def).unwrap().len(), unpitched(&def)), (48, true));
}

#[test]
fn a_weight_without_elements_is_empty() {
    assert_eq!(packed(&weight(DType::F32, Layout::Panels, [0, 4])).unwrap(), []);
    assert_eq!(packed(&weight(DType::F32, Layout::Panels, [4, 0])).unwrap(), []);
}

#[test]
fn a_computed_weight_without_elements_is_empty() {
    let (rows, parts) = ([Dim::of(0), Dim::of(4)], [Dim::of(0), Dim::of(2), Dim::of(2)]);
    let mut source = Graph::new("w");
    let bytes = source.param("t", DType::U8, &parts).unwrap();
    let bytes = source.reshape(bytes, &rows).unwrap();
    let value = source.cast(bytes, DType::F32).unwrap();
    source.output("w", value);
    let def = WeightDef { source, ty: Type::new(DType::F32, rows), layout: Layout::Rows };
    let tensor = |_: &str| Some(RawTensor { dtype: DType::U8, shape: vec![0, 2, 2], bytes: &[] });
    assert!(pack_rows(&def, &tensor).unwrap().is_empty());
}
