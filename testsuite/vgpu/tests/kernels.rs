//! PTX that LLVM printed, executed.

use sinter_ir::{DType, DevicePtr, GpuDevice, GpuError, LaunchArg, LaunchShape, Swizzle, Target, TensorMap};
use sinter_vgpu::{LaunchCounters, VirtualGpu};

fn shape(blocks: u32, threads: u32) -> LaunchShape {
    LaunchShape { blocks, threads, shared_bytes: 0, cluster: 1, dependent: false }
}

/// Memory with these bytes.
fn upload(gpu: &mut VirtualGpu, bytes: &[u8]) -> DevicePtr {
    let at = gpu.alloc(bytes.len() as u64).expect("memory");
    gpu.write(at, bytes).expect("a write");
    at
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn words(gpu: &mut VirtualGpu, at: DevicePtr, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * count];
    gpu.read(at, &mut bytes).expect("a read");
    bytes.chunks(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}

/// What `total.ptx` computes, in its order.
fn total(x: &[f32], n: usize, blocks: usize) -> f32 {
    let mut sums = Vec::new();
    for row in x.chunks(n).take(blocks) {
        let mut lanes = vec![0f32; 128];
        for (at, value) in row.iter().enumerate() {
            lanes[at % 128] = value.mul_add(1.5, lanes[at % 128]);
        }
        let mut parts = Vec::new();
        for warp in lanes.chunks(32) {
            let mut warp = warp.to_vec();
            for distance in [16, 8, 4, 2, 1] {
                let old = warp.clone();
                for (lane, value) in warp.iter_mut().enumerate() {
                    *value = old[lane] + old[lane ^ distance];
                }
            }
            parts.push(warp[0]);
        }
        sums.push(((parts[0] + parts[1]) + parts[2]) + parts[3]);
    }
    sums.iter().fold(0.0, |sum, part| sum + part)
}

#[test]
fn the_last_block_adds_what_all_blocks_left() -> Result<(), GpuError> {
    for workers in [1, 2, 5] {
        let mut gpu = VirtualGpu::new(Target::Sm80).with_workers(workers);
        let (n, blocks) = (777usize, 37usize);
        let x: Vec<f32> = (0..n * blocks).map(|at| ((at * 7919 % 1009) as f32 - 500.0) / 64.0).collect();
        let at = upload(&mut gpu, &floats(&x));
        let sums = gpu.alloc(4 * blocks as u64)?;
        let count = upload(&mut gpu, &[0; 4]);
        let out = gpu.alloc(4)?;
        let kernel = gpu.load(include_str!("ptx/total.ptx"), "total", 0)?;
        let args = [
            LaunchArg::Address(at),
            LaunchArg::Address(sums),
            LaunchArg::Address(count),
            LaunchArg::Address(out),
            LaunchArg::U32(n as u32),
        ];
        gpu.launch(kernel, shape(blocks as u32, 128), &args)?;
        assert_eq!(f32::from_bits(words(&mut gpu, out, 1)[0]), total(&x, n, blocks));
        assert_eq!(words(&mut gpu, count, 1), [0]);
        let counters = gpu.take_counters();
        let read = counters[0].counters.dram_bytes_read();
        assert_eq!(read, (4 * n as u64 * blocks as u64).div_ceil(32) * 32 + 32);
    }
    Ok(())
}

#[test]
fn lanes_that_part_meet_again() -> Result<(), GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm80);
    let n = 1000u32;
    let out = gpu.alloc(4 * u64::from(n) + 4)?;
    gpu.clear(out, 4)?;
    let kernel = gpu.load(include_str!("ptx/collatz.ptx"), "collatz", 0)?;
    gpu.launch(kernel, shape(8, 128), &[LaunchArg::Address(out), LaunchArg::U32(n)])?;
    let steps = |x: u32| {
        if x.is_multiple_of(3) {
            return x / 3 * 2;
        }
        let (mut value, mut count) = (x, 0);
        while value != 1 {
            value = if value % 2 == 1 { 3 * value + 1 } else { value / 2 };
            count += 1;
        }
        count
    };
    let wanted: Vec<u32> = (1..=n).map(steps).collect();
    assert_eq!(words(&mut gpu, out, n as usize + 1)[1..], wanted);
    Ok(())
}

/// bf16 values as floats, and their bytes.
fn bf16s(count: usize, seed: usize) -> (Vec<f32>, Vec<u8>) {
    let value = |at: usize| half::bf16::from_f32(((at * 7919 + seed * 31) % 251) as f32 / 16.0 - 7.5);
    let values: Vec<half::bf16> = (0..count).map(value).collect();
    (
        values.iter().map(|value| value.to_f32()).collect(),
        values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    )
}

fn tensor_map(
    base: DevicePtr,
    dtype: DType,
    dims: [u64; 2],
    box_dims: [u32; 2],
    swizzle: Swizzle,
) -> LaunchArg {
    let strides = vec![dims[0] * dtype.bytes() as u64];
    LaunchArg::TensorMap(TensorMap {
        base,
        dtype,
        dims: dims.to_vec(),
        strides,
        box_dims: box_dims.to_vec(),
        swizzle,
    })
}

/// The operands, the result, and what it cost.
type Product = (Vec<f32>, Vec<f32>, Vec<f32>, Vec<LaunchCounters>);

/// `product.ptx`: TMA, mbarriers, wgmma and a bulk store, with a warp that copies and four that multiply.
fn product(ptx: &str, rows: usize, k: usize) -> Result<Product, GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm90a);
    let ((a, a_bytes), (b, b_bytes)) = (bf16s(rows * k, 1), bf16s(64 * k, 2));
    let (a_at, b_at) = (upload(&mut gpu, &a_bytes), upload(&mut gpu, &b_bytes));
    let out = gpu.alloc(4 * 64 * rows as u64)?;
    let kernel = gpu.load(ptx, "product", 49152)?;
    let args = [
        tensor_map(a_at, DType::Bf16, [k as u64, rows as u64], [64, 64], Swizzle::B128),
        tensor_map(b_at, DType::Bf16, [k as u64, 64], [64, 64], Swizzle::B128),
        tensor_map(out, DType::F32, [64, rows as u64], [64, 64], Swizzle::None),
        LaunchArg::U32(k.div_ceil(64) as u32),
    ];
    let shape = LaunchShape { shared_bytes: 49152, ..shape(rows.div_ceil(64) as u32, 160) };
    gpu.launch(kernel, shape, &args)?;
    let found = words(&mut gpu, out, 64 * rows).into_iter().map(f32::from_bits).collect();
    Ok((a, b, found, gpu.take_counters()))
}

#[test]
fn a_warp_copies_and_a_warpgroup_multiplies() -> Result<(), GpuError> {
    for (rows, k) in [(64, 64), (128, 320), (72, 200)] {
        let (a, b, found, counters) = product(include_str!("ptx/product.ptx"), rows, k)?;
        for (at, value) in found.iter().enumerate() {
            let (row, column) = (at / 64, at % 64);
            let wanted: f64 =
                (0..k).map(|k_at| f64::from(a[row * k + k_at]) * f64::from(b[column * k + k_at])).sum();
            let sum: f64 = (0..k).map(|k_at| f64::from(a[row * k + k_at] * b[column * k + k_at]).abs()).sum();
            assert!((f64::from(*value) - wanted).abs() <= sum * 1e-6, "{row} {column}: {value} {wanted}");
        }
        let counters = counters[0].counters;
        let blocks = rows.div_ceil(64) as u64;
        assert_eq!(counters.matrix_flops, blocks * 2 * 64 * 64 * k.div_ceil(64) as u64 * 64);
        assert_eq!(counters.dram_bytes_written(), 4 * 64 * rows as u64);
        assert_eq!(counters.dram_bytes_read(), 2 * (rows + 64) as u64 * k as u64);
    }
    Ok(())
}
