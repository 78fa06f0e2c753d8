//! Kernels with random damage: they are refused, go wrong with a fault, or run; nothing panics.

use sinter_ir::{DType, DevicePtr, GpuDevice, LaunchArg, LaunchShape, Swizzle, Target, TensorMap};
use sinter_vgpu::VirtualGpu;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// The text with one or two pieces cut out, doubled, swapped or replaced by a number.
fn damage(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    for _ in 0..=random.below(2) {
        let (at, other) = (random.below(lines.len()), random.below(lines.len()));
        match random.below(6) {
            0 => drop(lines.remove(at)),
            1 => lines.swap(at, other),
            2 => lines.insert(at, lines[other].clone()),
            3 => lines[at] = lines[at].replace(|c: char| c.is_ascii_digit(), &random.below(10).to_string()),
            4 => {
                let words: Vec<&str> = lines[at].split(' ').collect();
                let from: Vec<&str> = lines[other].split(' ').collect();
                let (word, new) = (random.below(words.len()), from[random.below(from.len())]);
                let replaced =
                    |(place, old): (usize, &&str)| String::from(if place == word { new } else { *old });
                lines[at] = words.iter().enumerate().map(replaced).collect::<Vec<_>>().join(" ");
            }
            _ => {
                let cut = random.below(lines[at].len() + 1);
                if lines[at].is_char_boundary(cut) {
                    lines[at].truncate(cut);
                }
            }
        }
    }
    lines.join("\n")
}

/// Arguments that fit `product`, or `total`, as far as damage lets them.
fn arguments(gpu: &mut VirtualGpu, tensor: bool) -> Vec<LaunchArg> {
    let mut memory = |bytes: u64| {
        let at = gpu.alloc(bytes).expect("memory");
        gpu.clear(at, bytes).expect("cleared");
        at
    };
    if !tensor {
        let places = [2048, 64, 4, 4].map(|bytes| LaunchArg::Address(memory(bytes)));
        return [&places[..], &[LaunchArg::U32(100)]].concat();
    }
    let map = |base: DevicePtr, dtype, width: u64, swizzle| {
        let strides = vec![width * if dtype == DType::F32 { 4 } else { 2 }];
        LaunchArg::TensorMap(TensorMap {
            base,
            dtype,
            dims: vec![width, 64],
            strides,
            box_dims: vec![64, 64],
            swizzle,
        })
    };
    vec![
        map(memory(64 * 256), DType::Bf16, 128, Swizzle::B128),
        map(memory(64 * 256), DType::Bf16, 128, Swizzle::B128),
        map(memory(64 * 256), DType::F32, 64, Swizzle::None),
        LaunchArg::U32(2),
    ]
}

#[test]
fn damaged_kernels_never_panic() {
    let mut random = Random(0x5eed);
    let kernels = [
        (include_str!("ptx/total.ptx"), "total", Target::Sm80, 128, 0),
        (include_str!("ptx/product.ptx"), "product", Target::Sm90a, 160, 49152),
    ];
    let (mut refused, mut wrong, mut ran) = (0, 0, 0);
    for round in 0..ROUNDS {
        let (text, entry, target, threads, shared_bytes) = kernels[round % 2];
        let text = damage(text, &mut random);
        let mut gpu = VirtualGpu::new(target).with_workers(1).with_limit(100_000);
        let Ok(kernel) = gpu.load(&text, entry, shared_bytes) else {
            refused += 1;
            continue;
        };
        let args = arguments(&mut gpu, target == Target::Sm90a);
        let shape = LaunchShape { blocks: 1, threads, shared_bytes, cluster: 1, dependent: false };
        match gpu.launch(kernel, shape, &args) {
            Ok(()) => ran += 1,
            Err(_) => wrong += 1,
        }
    }
    assert!(refused > 20 && wrong > 20 && ran > 20, "{refused} refused, {wrong} wrong, {ran} ran");
}

/// Enough to meet every kind of damage.
const ROUNDS: usize = 800;
