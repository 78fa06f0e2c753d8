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

/// A text with pieces replaced everywhere; they must be there.
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
    // Four boxes of 8 rows by 64 bytes come in whole. Of the rows of 80 bytes, which begin in the middle of every second
    // sector, 64 bytes go out as 2 or 3 sectors and the last 16 as one.
    let rows = |odd: usize| (0..ROWS).filter(|row| row % 2 == odd).count() as u64;
    assert_eq!(counters.global_sectors, 4 * 8 * 2 + rows(0) * 3 + rows(1) * 4);
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

/// The operands of a product as bf16, and it.
type Product = (Vec<u16>, Vec<u16>, Vec<f32>);

/// The one-warp product on a target.
fn mma(ptx: &str, target: Target) -> Result<Product, GpuError> {
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

/// Runs a kernel of 64 threads that takes 512 bytes from one place to another.
fn passed_on(ptx: &str, entry: &str, target: Target) -> Result<(Vec<u16>, Vec<u16>), GpuError> {
    let mut gpu = VirtualGpu::new(target);
    let bits: Vec<u16> = (0..256u16).map(|at| at.wrapping_mul(257)).collect();
    let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let (from, to) = (upload(&mut gpu, &bytes)?, gpu.alloc(512)?);
    let function = gpu.load(ptx, entry, 0)?;
    let shape = LaunchShape { blocks: 1, threads: 64, shared_bytes: 0, cluster: 1, dependent: false };
    gpu.launch(function, shape, &[from, to].map(LaunchArg::Address))?;
    let mut bytes = vec![0; 512];
    gpu.read(to, &mut bytes)?;
    Ok((bits, bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()))
}

const RELAY: &str = include_str!("ptx/relay.ptx");

#[test]
fn bulk_copies_and_matrix_stores_pass_bytes_on() {
    let (before, after) = passed_on(RELAY, "relay", Target::Sm90a).expect("the kernel runs");
    for (at, found) in after.iter().enumerate() {
        let (matrix, row, column) = (at / 64, at / 8 % 8, at % 8);
        assert_eq!(*found, before[64 * matrix + 8 * column + row], "element {at}");
    }
}

#[test]
fn what_is_missing_in_a_relay_is_found() {
    let relay = |replace: &[(&str, &str)]| reason(passed_on(&with(RELAY, replace), "relay", Target::Sm90a));
    let found = relay(&[("\tfence.proxy.async.shared::cta;\n", "")]);
    assert!(found.contains("no fence.proxy.async stands after the write"), "{found}");
    let found = relay(&[("\t@!%p4 bra $test;", "")]);
    assert!(found.contains("never written") || found.starts_with("race"), "{found}");
    let found = relay(&[("\tmbarrier.arrive.shared.b64 %rd4, [turned];", "")]);
    assert!(found.starts_with("deadlock"), "{found}");
    let found = relay(&[("[full], 512;", "[full], 496;")]);
    assert!(found.starts_with("deadlock") && found.contains("-16 bytes"), "{found}");
    let found = relay(&[("[second], 512;", "[second], 520;")]);
    assert!(found.contains("all must be multiples of 16"), "{found}");
    let found = relay(&[("[second], 512;", "[second], 528;")]);
    assert!(found.contains("out of bounds") || found.contains("never written"), "{found}");
}

const HAND_OVER: &str = include_str!("ptx/small_copies.ptx");

#[test]
fn small_copies_arrive_at_an_mbarrier() {
    for target in [Target::Sm80, Target::Sm90a] {
        let (before, after) = passed_on(HAND_OVER, "hand_over", target).expect("the kernel runs");
        assert_eq!(before, after);
    }
    let hand_over =
        |replace: &[(&str, &str)]| reason(passed_on(&with(HAND_OVER, replace), "hand_over", Target::Sm80));
    let found = hand_over(&[(
        "cp.async.mbarrier.arrive.noinc.shared.b64 [full];",
        "mbarrier.arrive.shared.b64 %rd6, [full];",
    )]);
    assert!(found.contains("was not waited for"), "{found}");
    // Without .noinc the phase waits for one arrival more each time, and so for ever for its own 32.
    let found = hand_over(&[("arrive.noinc", "arrive")]);
    assert!(found.starts_with("deadlock") && found.contains("lacks 32 arrivals"), "{found}");
}

const PRODUCT: &str = include_str!("ptx/wgmma_registers.ptx");

fn product(ptx: &str) -> Result<Product, GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm90a);
    let bits = |seed: usize, count: usize| -> Vec<u16> {
        (0..count).map(|at| ((((at * 131 + seed) % 97) as f32 / 31.0 - 1.5).to_bits() >> 16) as u16).collect()
    };
    let (a, b) = (bits(5, 64 * 16), bits(17, 16 * 8));
    let bytes = |bits: &[u16]| bits.iter().flat_map(|bits| bits.to_le_bytes()).collect::<Vec<u8>>();
    let (at_a, at_b) = (upload(&mut gpu, &bytes(&a))?, upload(&mut gpu, &bytes(&b))?);
    let out = gpu.alloc(4 * 64 * 8)?;
    let function = gpu.load(ptx, "product", 0)?;
    let shape = LaunchShape { blocks: 1, threads: 128, shared_bytes: 0, cluster: 1, dependent: false };
    gpu.launch(function, shape, &[at_a, at_b, out].map(LaunchArg::Address))?;
    let found = download(&mut gpu, out, 64 * 8)?;
    Ok((a, b, found))
}

/// `A·B`, then less `A·B`, then `(-A)·(-B)` more: the first once more, as nothing is lost on the way.
#[test]
fn a_warpgroup_multiplies_registers_by_columns() {
    let (a, b, found) = product(PRODUCT).expect("the kernel runs");
    let value = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
    for (at, found) in found.iter().enumerate() {
        let plain: f64 = (0..16).map(|k| value(a[at / 8 * 16 + k]) * value(b[8 * k + at % 8])).sum();
        assert!((f64::from(*found) - plain).abs() < 1e-4, "{found} is not {plain} at {at}");
    }
}

#[test]
fn registers_of_a_product_are_left_alone() {
    let commit = "\twgmma.commit_group.sync.aligned;";
    let found = reason(product(&with(PRODUCT, &[(commit, &format!("{commit}\n\tmov.b32 %a2, 0;"))])));
    assert!(found.starts_with("a register of A was written before wgmma.wait_group"), "{found}");
    let found =
        reason(product(&with(PRODUCT, &[(commit, &format!("{commit}\n\tmov.f32 %f1, 0f00000000;"))])));
    assert!(found.contains("was written before wgmma.wait_group"), "{found}");
    let found = reason(product(&with(PRODUCT, &[("\tfence.proxy.async.shared::cta;", "")])));
    assert!(found.contains("no fence.proxy.async stands after the write"), "{found}");
    let found = reason(product(&with(PRODUCT, &[(commit, "")])));
    assert!(found.contains("no wgmma.wait_group stands between"), "{found}");
    let found = reason(product(&with(PRODUCT, &[("wgmma.fence", "@%p1 wgmma.fence")])));
    assert!(found.contains("wants all lanes"), "{found}");
    let found = reason(product(&with(PRODUCT, &[("%rd9, 1, -1, 1, 1;", "%rd9, 1, 2, 1, 1;")])));
    assert!(found.contains("a scale of wgmma is 1 or -1, found 2"), "{found}");
}
