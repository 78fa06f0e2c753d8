//! A warp-specialised matrix product with TMA, mbarriers and wgmma, and what the sanitizer says where a line is missing.

use sinter_ir::{DType, DevicePtr, GpuDevice, GpuError, LaunchArg, LaunchShape, Swizzle, Target, TensorMap};
use sinter_vgpu::VirtualGpu;
use sinter_vgpu::tensor::Format;
use sinter_vgpu::tensor::arithmetic::{Lane, Model, Operand, WIDTH};

/// LLVM's text of a kernel that multiplies `[128, K]` by `[N, K]` transposed: a producer warpgroup fills a ring of four
/// stages, two consumer warpgroups multiply 64 rows each.
const GEMM: &str = include_str!("../ptx/gemm_sm90a.ptx");
const STAGES: usize = 4;
const TILE: usize = 128;
const DEPTH: usize = 64;

/// A pseudo-random bf16 matrix, row-major.
fn matrix(seed: u32, rows: usize, columns: usize) -> Vec<u16> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (((state >> 8) as f32 / 8_388_608.0 - 1.0).to_bits() >> 16) as u16
    };
    (0..rows * columns).map(|_| next()).collect()
}

fn value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// f32 to bf16, to the nearest, ties to even.
fn to_bf16(bits: u32) -> u16 {
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Runs a text of the kernel on `n` columns and a `k` of so many.
fn run(ptx: &str, n: usize, k: usize) -> Result<(VirtualGpu, Vec<u16>), GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm90a).with_workers(1);
    let upload = |gpu: &mut VirtualGpu, bits: &[u16]| -> Result<DevicePtr, GpuError> {
        let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let at = gpu.alloc(bytes.len() as u64)?;
        gpu.write(at, &bytes)?;
        Ok(at)
    };
    let (a, b) = (matrix(1, TILE, k), matrix(2, n, k));
    let (at_a, at_b) = (upload(&mut gpu, &a)?, upload(&mut gpu, &b)?);
    let out = gpu.alloc((TILE * n * 2) as u64)?;
    let map = |base, rows: usize| {
        LaunchArg::TensorMap(TensorMap {
            base,
            dtype: DType::Bf16,
            dims: vec![k as u64, rows as u64],
            strides: vec![2 * k as u64],
            box_dims: vec![DEPTH as u32, TILE as u32],
            swizzle: Swizzle::B128,
        })
    };
    let shared_bytes = (STAGES * 2 * TILE * DEPTH * 2) as u32;
    let function = gpu.load(ptx, "gemm_sm90a", shared_bytes)?;
    let shape = LaunchShape {
        blocks: n.div_ceil(TILE) as u32,
        threads: 384,
        shared_bytes,
        cluster: 1,
        dependent: false,
    };
    let steps = k.div_ceil(DEPTH) as u32;
    let args = [
        map(at_a, TILE),
        map(at_b, n),
        LaunchArg::Address(out),
        LaunchArg::U32(steps),
        LaunchArg::U32(n as u32),
    ];
    gpu.launch(function, shape, &args)?;
    let mut bytes = vec![0; TILE * n * 2];
    gpu.read(out, &mut bytes)?;
    let found = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Ok((gpu, found))
}

/// An element of the product: by the model of the tensor cores, and plainly.
fn wanted(a: &[u16], b: &[u16]) -> (u16, f64) {
    let mut sums = [0; WIDTH];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        let decode = |bits: &[u16]| {
            bits.iter().map(|bits| Format::Bf16.decode(u32::from(*bits))).collect::<Vec<Operand>>()
        };
        let mut lanes = vec![Lane::ZERO; b.len()];
        for (lane, operand) in lanes.iter_mut().zip(decode(b)) {
            lane.set(0, operand);
        }
        Model::wgmma(Format::Bf16).accumulate(&decode(a), &lanes, &mut sums);
    }
    let plain = a.iter().zip(b).map(|(a, b)| f64::from(value(*a)) * f64::from(value(*b))).sum();
    (to_bf16(sums[0]), plain)
}

fn check(n: usize, k: usize) {
    let (mut gpu, found) = run(GEMM, n, k).expect("the kernel runs");
    let (a, b) = (matrix(1, TILE, k), matrix(2, n, k));
    for row in 0..TILE {
        for column in 0..n {
            let (bits, plain) = wanted(&a[row * k..][..k], &b[column * k..][..k]);
            let element = found[row * n + column];
            assert_eq!(element, bits, "({row}, {column})");
            let off = (f64::from(value(element)) - plain).abs();
            assert!(off <= 0.01 * plain.abs() + 0.01, "{} is not {plain}", value(element));
        }
    }
    let counters = gpu.take_counters()[0].counters;
    assert_eq!(counters.matrix_flops, (2 * TILE * n * k.next_multiple_of(DEPTH)) as u64);
    assert_eq!(
        counters.dram_bytes_read(),
        ((TILE + n) * k * 2) as u64,
        "every byte is read from memory once"
    );
}

#[test]
fn the_product_is_that_of_the_tensor_cores() {
    check(2 * TILE, 6 * DEPTH);
}

#[test]
fn what_lies_outside_the_tensor_counts_as_zero() {
    check(TILE, 2 * DEPTH + 8);
}

/// What is said of the kernel with a piece of its text replaced everywhere; it must be there.
fn fault(replace: &[(&str, &str)], k: usize) -> String {
    let mut text = GEMM.to_string();
    for (from, to) in replace {
        assert!(text.contains(from), "{from} is not in the kernel");
        text = text.replace(from, to);
    }
    match run(&text, TILE, k) {
        Err(GpuError::Kernel { reason, .. }) => reason,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("nothing was found"),
    }
}

#[test]
fn an_accumulator_that_is_read_too_early_is_found() {
    let found = fault(&[("wgmma.wait_group.sync.aligned \t0;", "")], DEPTH);
    assert!(found.starts_with("an accumulator of the wgmma of PTX line 2"), "{found}");
    assert!(found.contains("no wgmma.wait_group stands between; at PTX line 26"), "{found}");
    // One group may stay under way: then it is the last one that is read too early.
    let found =
        fault(&[("wgmma.wait_group.sync.aligned \t0;", "wgmma.wait_group.sync.aligned \t1;")], 2 * DEPTH);
    assert!(found.contains("no wgmma.wait_group stands between"), "{found}");
}

#[test]
fn a_stage_that_is_filled_again_too_early_is_found() {
    // The consumer gives the stage back before its products are known to be done.
    let found =
        fault(&[("wgmma.wait_group.sync.aligned \t0;", "wgmma.wait_group.sync.aligned \t1;")], 9 * DEPTH);
    assert!(
        found.starts_with("race: shared address") && found.contains("cp.async.bulk.tensor.2d"),
        "{found}"
    );
}

#[test]
fn a_missing_wgmma_fence_is_found() {
    let found = fault(&[("wgmma.fence.sync.aligned;", "")], DEPTH);
    assert!(found.starts_with("a wgmma without a wgmma.fence before it"), "{found}");
    let found = fault(
        &[("wgmma.fence.sync.aligned;", "wgmma.fence.sync.aligned; mov.b32 %r134, 0f3f800000;")],
        DEPTH,
    );
    assert!(found.starts_with("a register of a wgmma was written after the last wgmma.fence"), "{found}");
}

#[test]
fn an_mbarrier_that_copies_cannot_see_is_found() {
    let found =
        fault(&[("fence.mbarrier_init.release.cluster;", ""), ("fence.proxy.async.shared::cta;", "")], DEPTH);
    assert!(found.starts_with("an mbarrier is used by a copy, and neither"), "{found}");
    // A fence of global memory says nothing of shared memory.
    let other = "fence.proxy.async.global;";
    let found = fault(
        &[("fence.mbarrier_init.release.cluster;", other), ("fence.proxy.async.shared::cta;", other)],
        DEPTH,
    );
    assert!(found.starts_with("an mbarrier is used by a copy, and neither"), "{found}");
    let found = fault(&[("bar.sync \t0;", "")], DEPTH);
    assert!(found.contains("race") || found.contains("no mbarrier was made"), "{found}");
}

#[test]
fn a_wait_with_the_wrong_parity_is_a_deadlock() {
    // The producer waits for the first phase of a barrier at which nobody arrives before it.
    let found = fault(&[("[%rd5], %r10;", "[%rd5], 0;")], DEPTH);
    assert!(found.starts_with("deadlock"), "{found}");
    assert!(found.contains("for the mbarrier"), "{found}");
    // The consumer does not wait at all: the tile is still on its way.
    let found = fault(&[("[%rd6], %r12;", "[%rd6], 1;")], DEPTH);
    assert!(found.contains("was not waited for") || found.contains("was never written"), "{found}");
}

#[test]
fn a_wrong_count_of_bytes_is_a_deadlock() {
    for wrong in ["32752", "32784"] {
        let found = fault(&[("mov.b32 \t%r68, 32768;", &format!("mov.b32 \t%r68, {wrong};"))], DEPTH);
        assert!(found.starts_with("deadlock"), "{found}");
        let bytes = if wrong == "32752" { "-16 bytes" } else { "16 bytes" };
        assert!(found.contains(bytes), "{found}");
    }
}

#[test]
fn an_arrival_too_many_is_found() {
    let found = fault(&[("mov.b32 \t%r19, 1;", "mov.b32 \t%r19, 3;")], DEPTH);
    assert!(found.contains("arrive at an mbarrier whose phase waits for"), "{found}");
}

#[test]
fn a_descriptor_that_is_not_understood_is_found() {
    let found = fault(&[("%rd27, 4611686293305360384;", "%rd27, 4611686293305376768;")], DEPTH);
    assert!(found.contains("bits set that are reserved"), "{found}");
}
