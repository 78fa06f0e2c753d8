//! Results of contractions that leave by tensor copies: the bits of direct stores, every sector written whole and once, no
//! two lanes in a bank, and a dropped fence or wait is found.

use sinter_codegen_schedule::contract::{Contract, Kind, candidates, find};
use sinter_gpu_tests::contraction::{Case, parsed, product};
use sinter_gpu_tests::launch::{compare, same_bits};
use sinter_ir::{DType, GpuError, Target, Tensor};
use sinter_vgpu::Counters;

/// A product with a bias of each column and a residual, stored in 16 bits and in f32.
const BOTH: &str = "tile @contract {
  p0: bf16[T, K] read rows \"x\"
  p1: bf16[N, K] read panels \"w\"
  p2: f32[N] read rows \"bias\"
  p3: f32[T, N] read rows \"residual\"
  p4: bf16[T, N] write rows \"y\"
  p5: f32[T, N] write rows \"z\"
  a0 = 0..T \"t\"
  a1 = 0..N \"n\"
  a2 = 0..K \"k\"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
  e0 = s0
  e1 = load p2[a1]
  e2 = add e0, e1
  e3 = load p3[a0, a1]
  e4 = add e2, e3
  e5 = cast bf16 e4
  s1 = store [] p4[a0, a1] = e5
  s2 = store [] p5[a0, a1] = e2
}";

/// A plain product of f16.
fn plain(result: DType, shape: (usize, usize), tokens: u64) -> Case {
    Case::new(product((DType::F16, result), shape), tokens)
}

fn schedules(case: &Case, kind: Kind) -> impl Iterator<Item = Contract> {
    candidates(&case.tile, Target::Sm90a, None).into_iter().filter(move |schedule| schedule.kind == kind)
}

fn said(result: Result<(Vec<Tensor<f32>>, Counters), GpuError>) -> String {
    result.map(|_| "nothing".to_string()).unwrap_or_else(|error| error.to_string())
}

#[test]
fn contract_results_in_boxes() {
    let both = Case::new(parsed(BOTH, &[("N", "72"), ("K", "40")]), 150);
    for case in [both, plain(DType::F16, (304, 64), 20), plain(DType::F32, (256, 72), 257)] {
        let tiles = schedules(&case, Kind::Tiles).next().expect("tiles");
        let (wanted, _) = case.run(&case.program(Target::Sm90a, &tiles)).expect("the kernel runs");
        compare(&case.tile, &case.binding, (&case.params, &wanted), 1e-4);
        for schedule in schedules(&case, Kind::Warpgroups) {
            let program = case.program(Target::Sm90a, &schedule);
            assert!(!program.kernels[0].ptx.contains("st.global"), "{schedule}");
            let (found, counters) =
                case.run(&program).unwrap_or_else(|error| panic!("{schedule}: {error}\n{}", case.tile));
            for (found, wanted) in found.iter().zip(&wanted) {
                assert!(same_bits(&found.data, &wanted.data), "{schedule} differs\n{}", case.tile);
            }
            assert_eq!(counters.bank_conflicts, 0, "{schedule}\n{}", case.tile);
        }
    }
}

/// Rows that no tensor copy can reach are stored by each thread.
#[test]
fn contract_results_that_fit_no_box() {
    let odd = plain(DType::F16, (300, 64), 20);
    let turned = plain(DType::F32, (64, 64), 20).tile.to_string();
    let turned = parsed(&turned, &[("f32[T, 64]", "f32[64, T]"), ("p2[a0, a1]", "p2[a1, a0]")]);
    let turned = Case::new(turned, 20);
    for case in [odd, turned] {
        assert!(!find(&case.tile).expect("a contraction").boxed);
        let schedule = schedules(&case, Kind::Warpgroups).next().expect("warpgroups");
        let program = case.program(Target::Sm90a, &schedule);
        assert!(program.kernels[0].ptx.contains("st.global"));
        let (found, _) = case.run(&program).expect("the kernel runs");
        compare(&case.tile, &case.binding, (&case.params, &found), 1e-4);
    }
}

/// What the launch asks of the caches is its operands' chunks and each sector of the result once, whole.
#[test]
fn contract_stores_are_whole_sectors() {
    let (rows, columns, depth) = (256, 512, 64);
    for (result, bytes) in [(DType::F16, 2), (DType::F32, 4)] {
        let case = plain(result, (columns as usize, depth as usize), u64::from(rows));
        let schedule = schedules(&case, Kind::Warpgroups).next().expect("warpgroups");
        assert_eq!((schedule.tile_rows, schedule.tile_columns), (128, 256));
        let (_, counters) = case.run(&case.program(Target::Sm90a, &schedule)).expect("the kernel runs");
        let tiles = rows / schedule.tile_rows * (columns / schedule.tile_columns);
        let operands = tiles * (schedule.tile_rows + schedule.tile_columns) * depth * 2 / 32;
        let results = rows * columns * bytes / 32;
        assert_eq!(counters.global_sectors, u64::from(operands + results), "{counters:?}");
        assert_eq!(counters.dram_sectors_written, u64::from(results), "{counters:?}");
        assert_eq!(counters.bank_conflicts, 0, "{counters:?}");
    }
}

#[test]
fn contract_boxes_without_a_fence_or_a_wait_are_found() {
    let case = plain(DType::F16, (256, 64), 300);
    let schedule = schedules(&case, Kind::Warpgroups).next().expect("warpgroups");
    let program = case.program(Target::Sm90a, &schedule);
    assert_eq!(said(case.run(&program)), "nothing");
    let damaged = |text: &str, from: usize| {
        let mut program = program.clone();
        let ptx = &mut program.kernels[0].ptx;
        let at = ptx.match_indices(text).nth(from).map(|(at, _)| at);
        let at = at.unwrap_or_else(|| panic!("{text} is not in\n{ptx}"));
        ptx.replace_range(at..at + text.len(), "//");
        said(case.run(&program))
    };
    // The first fence shows the mbarriers to copies.
    let found = damaged("fence.proxy.async.shared::cta", 1);
    assert!(found.contains("no fence.proxy.async stands after the write"), "{found}");
    // Without it the third box goes where the first may still be read.
    let found = damaged("cp.async.bulk.wait_group.read", 2);
    assert!(found.contains("may still read"), "{found}");
    let found = damaged("cp.async.bulk.commit_group", 0);
    assert!(found.contains("may still read"), "{found}");
}
