//! How fast quantised weights become numbers: `cargo run --release -p sinter-codegen-weights --example dequantise`.

use sinter_codegen_weights::{RawTensor, pack_rows};
use sinter_ir::{DType, Graph, Layout, WeightDef};
use std::time::Instant;

const ROWS: usize = 4096;
const COLUMNS: usize = 4096;

/// Halves of bytes along the columns, as compressed-tensors packs them.
const ALONG_ROWS: &str = r#"graph @w {
  %0 = param["codes", (4096, 2048), u8]
  %1 = param["shifts", (2), f32]
  %2 = cast[u8] %1
  %3 = reshape[(1, 1, 2)] %2
  %4 = reshape[(4096, 2048, 1)] %0
  %5 = shr %4, %3
  %6 = const[15.0, u8]
  %7 = bitand %5, %6
  %8 = reshape[(4096, 4096)] %7
  %9 = cast[f32] %8
  %10 = reshape[(4096, 128, 32)] %9
  %11 = param["scales", (4096, 128), bf16]
  %12 = cast[f32] %11
  %13 = reshape[(4096, 128, 1)] %12
  %14 = const[8.0, f32]
  %15 = sub %10, %14
  %16 = mul %15, %13
  %17 = reshape[(4096, 4096)] %16
  return "w" %17
}
"#;

/// Words of eight rows, as GPTQ packs them.
const DOWN_COLUMNS: &str = r#"graph @w {
  %0 = param["codes", (512, 16384), u8]
  %1 = param["shifts", (2), f32]
  %2 = cast[u8] %1
  %3 = reshape[(1, 1, 1, 2)] %2
  %4 = reshape[(512, 4096, 4, 1)] %0
  %5 = shr %4, %3
  %6 = const[15.0, u8]
  %7 = bitand %5, %6
  %8 = transpose[(1, 0, 2, 3)] %7
  %9 = reshape[(4096, 4096)] %8
  %10 = cast[f32] %9
  %11 = reshape[(4096, 128, 32)] %10
  %12 = param["scales", (128, 4096), bf16]
  %13 = cast[f32] %12
  %14 = transpose[(1, 0)] %13
  %15 = reshape[(4096, 128, 1)] %14
  %16 = const[8.0, f32]
  %17 = sub %11, %16
  %18 = mul %17, %15
  %19 = reshape[(4096, 4096)] %18
  return "w" %19
}
"#;

fn main() {
    let codes: Vec<u8> = (0..ROWS * COLUMNS / 2).map(|at| (at * 37 % 251) as u8).collect();
    let scales = vec![0x3c; ROWS * COLUMNS / 32 * 2];
    let shifts: Vec<u8> = [0.0f32, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    for (name, text) in [("along rows", ALONG_ROWS), ("down columns", DOWN_COLUMNS)] {
        let source = match Graph::parse(text) {
            Ok(source) => source,
            Err(error) => return eprintln!("{name}: {error}"),
        };
        let shape = |name: &str| {
            let leaf = source.nodes.values().find(|node| node.op.leaf_name() == Some(name))?;
            Some(leaf.ty.shape.iter().map(|dim| dim.coeff as usize).collect::<Vec<_>>())
        };
        let tensor = |name: &str| {
            let (dtype, bytes) = match name {
                "codes" => (DType::U8, &codes),
                "scales" => (DType::Bf16, &scales),
                _ => (DType::F32, &shifts),
            };
            Some(RawTensor { dtype, shape: shape(name)?, bytes })
        };
        let ty = source.ty(source.outputs[0].1).clone();
        let def = WeightDef { source: source.clone(), ty, layout: Layout::Rows };
        let start = Instant::now();
        match pack_rows(&def, &tensor) {
            Ok(packed) => {
                let each = start.elapsed().as_secs_f64() * 1e9 / (packed.len() / 4) as f64;
                println!("{name}: {each:.2} ns an element on one thread");
            }
            Err(error) => eprintln!("{name}: {error}"),
        }
    }
}
