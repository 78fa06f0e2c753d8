//! PTX that LLVM printed, executed.

use sinter_ir::{DevicePtr, GpuDevice, GpuError, LaunchArg, LaunchShape, Target};
use sinter_vgpu::VirtualGpu;

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
        if x % 3 == 0 {
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
