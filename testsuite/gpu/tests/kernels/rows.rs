//! Row-wise kernels on the virtual GPU.

use sinter_gpu_tests::launch::{Stream, arguments, check, check_single, same_bits};
use sinter_gpu_tests::plans::golden_plan;
use sinter_gpu_tests::random;
use sinter_ir::*;
use sinter_testsuite::golden;

fn rms_norm(dtype: &str, width: usize) -> TileProgram {
    let text = format!(
        "tile @norm {{
  p0: {dtype}[T, {width}] read rows \"x\"
  p1: f32[{width}] read rows \"g\"
  p2: {dtype}[T, {width}] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..{width} \"d\"
  a2 = 0..{width} \"r\"
  grid a0
  e0 = load p0[a0, a1]
  e1 = load p0[a0, a2]
  e2 = mul e1, e1
  s0 = reduce sum a2 : e2
  e3 = s0
  e4 = const {:?}
  e5 = mul e3, e4
  e6 = const 1e-5
  e7 = add e5, e6
  e8 = rsqrt e7
  e9 = mul e0, e8
  e10 = load p1[a1]
  e11 = mul e9, e10
  s1 = store [a1] p2[a0, a1] = e11
}}
",
        1.0 / width as f64
    );
    TileProgram::parse(&text).expect("the program parses")
}

#[test]
fn norms_of_all_widths_do_not_see_their_neighbours() {
    for dtype in ["f32", "bf16", "f16"] {
        for width in [1, 3, 8, 24, 37, 100, 128, 576, 1100] {
            let tile = rms_norm(dtype, width);
            let (mut stream, binding) = (Stream(width as u64), Binding::new(5, 2, 1, 16));
            let params = arguments(&mut stream, &tile, &binding);
            // A sum of squares below 1 in f32.
            let all = check(&tile, Target::Sm80, &binding, &params, 2e-6);
            let row = |at: usize| Tensor::new(vec![1, width], params[at].data[2 * width..3 * width].to_vec());
            let alone = [row(0), params[1].clone(), row(2)];
            let one = check(&tile, Target::Sm80, &Binding::new(1, 1, 1, 16), &alone, 2e-6);
            assert!(same_bits(&one[2].data, &all[2].data[2 * width..3 * width]), "{dtype} {width}");
        }
    }
}

/// Every distinct program of every second golden model; whole models are the business of `goldens`.
fn goldens(dtype: DType, target: Target, tolerance: f64) {
    let mut seen: Vec<TileProgram> = Vec::new();
    for name in golden::names().into_iter().step_by(2) {
        for tile in golden_plan(&name, dtype).kernels.values() {
            if seen.contains(tile) {
                continue;
            }
            let (mut stream, binding) =
                (Stream(seen.len() as u64 + 1), Binding::new(5, 2, 2, 64).with_rows(3));
            let params = arguments(&mut stream, tile, &binding);
            let rounds = |expr: &Expr| matches!(expr, Expr::Cast(DType::Bf16 | DType::F16, _));
            if dtype == DType::F32 && tile.exprs.values().any(rounds) {
                // Such as the slopes of ALiBi, which the model has in bf16.
                check_single(tile, target, &binding, &params, tolerance);
            } else {
                check(tile, target, &binding, &params, tolerance);
            }
            seen.push(tile.clone());
        }
    }
    assert!(seen.len() > 30, "only {} programs were seen", seen.len());
}

#[test]
fn programs_of_the_goldens_in_f32() {
    goldens(DType::F32, Target::Sm80, 1e-5);
}

#[test]
fn programs_of_the_goldens_in_bf16() {
    // Casts in the middle of a program round to bf16, and an operand next to a rounding boundary goes either way.
    goldens(DType::Bf16, Target::Sm90a, 1.0 / 64.0);
}

#[test]
fn random_programs() {
    let cases = std::env::var("SINTER_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300u64);
    for seed in 0..cases {
        let tile = random::program(seed);
        let (mut stream, binding) = (Stream(seed), Binding::new(7 + seed % 3, 2, 1, 16));
        let params = arguments(&mut stream, &tile, &binding);
        let target = Target::ALL[seed as usize % 3];
        // Sums of a few terms up to 6⁴, nested twice.
        check(&tile, target, &binding, &params, 1e-4);
    }
}
