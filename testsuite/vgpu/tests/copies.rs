//! Asynchronous copies in whole kernels, and what the sanitizer says where a line is missing.

use sinter_ir::{DType, DevicePtr, GpuDevice, GpuError, LaunchArg, LaunchShape, Swizzle, Target, TensorMap};
use sinter_vgpu::VirtualGpu;
use sinter_vgpu::tensor::Format;
use sinter_vgpu::tensor::arithmetic::{Lane, Model, Operand, WIDTH};

const TILE_ADD: &str = include_str!("ptx/tile_add.ptx");
const MMA: &str = include_str!("ptx/mma_sm80.ptx");

fn upload(gpu: &mut VirtualGpu, bytes: &[u8]) -> Result<DevicePtr, GpuError> {
    let at = gpu.alloc(bytes.len() as u64)?;
    gpu.write(at, bytes)?;
    Ok(at)
}

fn download(gpu: &mut VirtualGpu, at: DevicePtr, floats: usize) -> Result<Vec<f32>, GpuError> {
    let mut bytes = vec![0; 4 * floats];
    gpu.read(at, &mut bytes)?;
    Ok(bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
}

/// A text with pieces replaced, which must be there; only the first of each, or all.
fn with(text: &str, replace: &[(&str, &str)]) -> String {
    replace.iter().fold(text.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in the kernel");
        text.replace(from, to)
    })
}

fn reason<T>(result: Result<T, GpuError>) -> String {
    match result {
        Err(GpuError::Kernel { reason, .. }) => reason,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("nothing was found"),
    }
}

const ROWS: usize = 13;
const COLUMNS: usize = 20;

/// Adds 1 to a matrix of 13 rows and 20 columns, which are no multiples of the tile's 8 and 16.
fn tile_add(ptx: &str) -> Result<(Vec<f32>, VirtualGpu), GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm90a);
    let bytes: Vec<u8> = (0..ROWS * COLUMNS).flat_map(|at| (at as f32 * 0.5).to_le_bytes()).collect();
    let (from, to) = (upload(&mut gpu, &bytes)?, gpu.alloc(bytes.len() as u64)?);
    let map = |base| {
        LaunchArg::TensorMap(TensorMap {
            base,
            dtype: DType::F32,
            dims: vec![COLUMNS as u64, ROWS as u64],
            strides: vec![4 * COLUMNS as u64],
            box_dims: vec![16, 8],
            swizzle: Swizzle::None,
        })
    };
    let function = gpu.load(ptx, "tile_add", 0)?;
    let shape = LaunchShape { blocks: 4, threads: 64, shared_bytes: 0, cluster: 1, dependent: false };
    gpu.launch(function, shape, &[map(from), map(to), LaunchArg::U32(2)])?;
    Ok((download(&mut gpu, to, ROWS * COLUMNS)?, gpu))
}

#[test]
fn tiles_go_in_and_out_and_are_clipped() {
    let (found, mut gpu) = tile_add(TILE_ADD).expect("the kernel runs");
    assert!(found.iter().enumerate().all(|(at, value)| *value == at as f32 * 0.5 + 1.0), "{found:?}");
    let counters = gpu.take_counters()[0].counters;
    let sectors = (4 * ROWS * COLUMNS).div_ceil(32) as u64;
    assert_eq!([counters.dram_sectors_read, counters.dram_sectors_written], [sectors; 2]);
}

#[test]
fn a_missing_proxy_fence_is_found() {
    let second = "\tfence.proxy.async.shared::cta;\n\tbar.sync 0;\n\t@%p1 bra $end;";
    let found = reason(tile_add(&with(TILE_ADD, &[(second, "\tbar.sync 0;\n\t@%p1 bra $end;")])));
    assert!(found.contains("no fence.proxy.async stands after the write of PTX line"), "{found}");
    let first = "\tfence.proxy.async.shared::cta;\n\tmov.b32 %r8, 512;";
    let found = reason(tile_add(&with(TILE_ADD, &[(first, "\tmov.b32 %r8, 512;")])));
    assert!(found.contains("an mbarrier is used by a copy"), "{found}");
    // A fence of the thread that copies, after the barrier, is as good as one of each thread before it.
    let after = "\tbar.sync 0;\n\tfence.proxy.async.shared::cta;\n\t@%p1 bra $end;";
    assert!(tile_add(&with(TILE_ADD, &[(second, after)])).is_ok());
}

#[test]
fn a_missing_barrier_or_wait_is_found() {
    let found = reason(tile_add(&with(TILE_ADD, &[("\tbar.sync 0;\n\t@%p1 bra $end;", "\t@%p1 bra $end;")])));
    assert!(found.starts_with("race"), "{found}");
    let found = reason(tile_add(&with(TILE_ADD, &[("\t@!%p2 bra $wait;", ""), ("[bar], 0;", "[bar], 1;")])));
    assert!(found.contains("was not waited for"), "{found}");
    let found = reason(tile_add(&with(TILE_ADD, &[("\tcp.async.bulk.wait_group.read 0;", "")])));
    assert!(found.starts_with("a block ends while a bulk store may still read"), "{found}");
    let found = reason(tile_add(&with(TILE_ADD, &[("\tcp.async.bulk.commit_group;", "")])));
    assert!(found.starts_with("a block ends while a bulk store may still read"), "{found}");
    let again = "\tcp.async.bulk.commit_group;\n\tst.shared.f32 [%r11], %f1;";
    let found = reason(tile_add(&with(TILE_ADD, &[("\tcp.async.bulk.commit_group;", again)])));
    assert!(found.starts_with("race"), "{found}");
}

#[test]
fn an_mbarrier_that_was_not_made_or_written_over_is_found() {
    let found = reason(tile_add(&with(TILE_ADD, &[("\tmbarrier.init.shared.b64 [bar], 1;", "")])));
    assert!(found.contains("no mbarrier was made"), "{found}");
    let over = "mbarrier.init.shared.b64 [bar], 1;\n\tst.shared.u32 [bar], %r2;";
    let found = reason(tile_add(&with(TILE_ADD, &[("mbarrier.init.shared.b64 [bar], 1;", over)])));
    assert!(found.contains("was written over"), "{found}");
    let found = reason(tile_add(&with(
        TILE_ADD,
        &[("mbarrier.init.shared.b64 [bar], 1;", "mbarrier.init.shared.b64 [bar], 2;")],
    )));
    assert!(found.starts_with("deadlock") && found.contains("lacks 1 arrivals and 0 bytes"), "{found}");
}

/// Operands of the one-warp product, and it by a target.
fn mma(ptx: &str, target: Target) -> Result<(Vec<u16>, Vec<u16>, Vec<f32>), GpuError> {
    let mut gpu = VirtualGpu::new(target);
    let bits = |seed: usize, count: usize| -> Vec<u16> {
        let value = |at: usize| (at * 7919 + seed) % 251;
        (0..count).map(|at| ((value(at) as f32 / 83.0 - 1.5).to_bits() >> 16) as u16).collect()
    };
    let (a, b) = (bits(3, 256), bits(11, 128));
    let bytes = |bits: &[u16]| bits.iter().flat_map(|bits| bits.to_le_bytes()).collect::<Vec<u8>>();
    let (at_a, at_b) = (upload(&mut gpu, &bytes(&a))?, upload(&mut gpu, &bytes(&b))?);
    let out = gpu.alloc(4 * 128)?;
    let function = gpu.load(ptx, "mma", 0)?;
    let shape = LaunchShape { blocks: 1, threads: 32, shared_bytes: 0, cluster: 1, dependent: false };
    gpu.launch(function, shape, &[at_a, at_b, out].map(LaunchArg::Address))?;
    let found = download(&mut gpu, out, 128)?;
    Ok((a, b, found))
}

#[test]
fn a_warp_multiplies_as_its_generation_does() {
    let mut results = Vec::new();
    for target in Target::ALL {
        let (a, b, found) = mma(MMA, target).expect("the kernel runs");
        for (at, value) in found.iter().enumerate() {
            let decode = |bits: &u16| Format::Bf16.decode(u32::from(*bits));
            let row: Vec<Operand> = a[at / 8 * 16..][..16].iter().map(decode).collect();
            let mut lanes = [Lane::ZERO; 16];
            for (lane, bits) in lanes.iter_mut().zip(&b[at % 8 * 16..][..16]) {
                lane.set(0, decode(bits));
            }
            let mut sums = [0; WIDTH];
            Model::mma(target, Format::Bf16).accumulate(&row, &lanes, &mut sums);
            assert_eq!(value.to_bits(), sums[0], "element {at} on {target}");
        }
        results.push(found);
    }
    assert_eq!(results[0], results[1], "Ada adds as Ampere does");
}

#[test]
fn a_missing_wait_for_small_copies_is_found() {
    let found = reason(mma(&with(MMA, &[("\tcp.async.wait_group 0;", "")]), Target::Sm80));
    assert!(found.contains("is the target of an asynchronous copy") && found.contains("ldmatrix"), "{found}");
    let found =
        reason(mma(&with(MMA, &[("cp.async.wait_group 0;", "cp.async.wait_group 1;")]), Target::Sm80));
    assert!(found.contains("was not waited for"), "{found}");
    let found = reason(mma(&with(MMA, &[("\tcp.async.commit_group;", "")]), Target::Sm80));
    assert!(found.contains("was not waited for"), "{found}");
    assert!(mma(&with(MMA, &[("cp.async.wait_group 0;", "cp.async.wait_all;")]), Target::Sm80).is_ok());
    let found = reason(mma(&with(MMA, &[("\tbar.warp.sync -1;", "")]), Target::Sm80));
    assert!(found.starts_with("race") && found.contains("bar.warp.sync"), "{found}");
}

#[test]
fn what_a_small_copy_does_not_have_is_zero() {
    let half = [("[%rd5], 16;", "[%rd5], 16, 8;")];
    let (_, _, found) = mma(&with(MMA, &half), Target::Sm80).expect("the kernel runs");
    let (a, b, _) = mma(MMA, Target::Sm80).expect("the kernel runs");
    let value = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
    for (at, found) in found.iter().enumerate() {
        let there = |k: &usize| k % 8 < 4;
        let sum: f64 =
            (0..16).filter(there).map(|k| value(a[at / 8 * 16 + k]) * value(b[at % 8 * 16 + k])).sum();
        assert!((f64::from(*found) - sum).abs() < 1e-4, "{found} is not {sum}");
    }
    let found = reason(mma(&with(MMA, &[("[%rd5], 16;", "[%rd5], 16, 24;")]), Target::Sm80));
    assert!(found.contains("with 24 bytes in its source"), "{found}");
}

#[test]
fn a_matrix_instruction_wants_the_whole_warp() {
    let found = reason(mma(&with(MMA, &[("\tmma.sync", "\t@%p1 mma.sync")]), Target::Sm80));
    assert!(found.contains("wants all lanes of a warp"), "{found}");
    let found = reason(mma(
        &with(MMA, &[("add.u32 %r12, %r3, %r11;", "add.u32 %r12, %r3, %r11;\n add.u32 %r12, %r12, 8;")]),
        Target::Sm80,
    ));
    assert!(found.contains("misaligned: a row of a matrix"), "{found}");
}
