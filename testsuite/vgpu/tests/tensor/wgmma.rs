//! wgmma: operands are laid out by TMA in every canonical layout and found again through descriptors.

use crate::random::Random;
use sinter_ir::{DType, DevicePtr, Swizzle, TensorMap};
use sinter_vgpu::async_copy::TensorMapError;
use sinter_vgpu::async_copy::tensor_map::pieces;
use sinter_vgpu::tensor::arithmetic::{Lane, Model, Operand, WIDTH};
use sinter_vgpu::tensor::descriptor::{DescriptorError, swizzle_span};
use sinter_vgpu::tensor::wgmma::{
    K, M, a_from_registers, a_from_shared, b_from_shared, d_element, is_width, multiply, negate,
};
use sinter_vgpu::tensor::{Descriptor, Format, Major, fragments::Warp, fragments::a_element};

const SWIZZLES: [Swizzle; 4] = [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128];

/// A matrix of bf16 bits, `rows` (M or N) by `k`.
struct Matrix {
    rows: usize,
    k: usize,
    bits: Vec<u16>,
}

impl Matrix {
    fn random(random: &mut Random, rows: usize, k: usize) -> Matrix {
        Matrix { rows, k, bits: (0..rows * k).map(|_| random.bf16()).collect() }
    }
    fn at(&self, row: usize, k: usize) -> u16 {
        self.bits[row * self.k + k]
    }
    /// The bytes in global memory and the extents there, innermost first.
    fn stored(&self, major: Major) -> (Vec<u8>, [usize; 2]) {
        let extents = if major == Major::K { [self.k, self.rows] } else { [self.rows, self.k] };
        let mut bytes = Vec::new();
        for outer in 0..extents[1] {
            for inner in 0..extents[0] {
                let (row, k) = if major == Major::K { (outer, inner) } else { (inner, outer) };
                bytes.extend(self.at(row, k).to_le_bytes());
            }
        }
        (bytes, extents)
    }
}

/// A copy of all of a matrix to shared memory at `start`: one box for each stripe of the swizzle's span.
fn to_shared(matrix: &Matrix, major: Major, swizzle: Swizzle, start: u32, shared: &mut [u8]) {
    let (global, extents) = matrix.stored(major);
    let across = swizzle_span(swizzle) / 2;
    let map = TensorMap {
        base: DevicePtr(0),
        dtype: DType::Bf16,
        dims: extents.map(|extent| extent as u64).to_vec(),
        strides: vec![extents[0] as u64 * 2],
        box_dims: vec![across, extents[1] as u32],
        swizzle,
    };
    let stripe = across * 2 * extents[1] as u32;
    for (count, at) in (0..extents[0]).step_by(across as usize).enumerate() {
        let to = start + count as u32 * stripe;
        let copied = pieces(&map, &[at as i32, 0], to, &mut |piece| -> Result<(), TensorMapError> {
            let (to, bytes) = (piece.shared as usize, piece.bytes as usize);
            match piece.global {
                Some(from) => {
                    shared[to..to + bytes].copy_from_slice(&global[from as usize..from as usize + bytes])
                }
                None => shared[to..to + bytes].fill(0),
            }
            Ok(())
        });
        copied.expect("the copy is allowed");
    }
}

/// The descriptor of k-step `step` of an operand that [`to_shared`] laid out.
fn descriptor(matrix: &Matrix, major: Major, swizzle: Swizzle, start: u32, step: u32) -> Descriptor {
    let span = swizzle_span(swizzle);
    let (rows, k) = (matrix.rows as u32, matrix.k as u32);
    let (leading, stride, advance) = match (major, swizzle) {
        (Major::K, Swizzle::None) => (rows * 16, 128, step * 2 * rows * 16),
        // Along K within the span, then on to the next stripe.
        (Major::K, _) => (16, 8 * span, step * 32 / span * (rows * span) + step * 32 % span),
        (Major::Mn, Swizzle::None) => (128, k * 16, step * 256),
        (Major::Mn, _) => (k * span, 8 * span, step * 16 * span),
    };
    let decoded = Descriptor { start: start + advance, leading, stride, swizzle };
    assert_eq!(Descriptor::decode(decoded.encode()), Ok(decoded), "the bits keep everything");
    decoded
}

fn read_from(shared: &[u8]) -> impl FnMut(u32) -> Result<[u8; 16], String> {
    move |at| {
        let bytes = shared.get(at as usize..at as usize + 16).ok_or(format!("{at:#x} is outside"))?;
        Ok(bytes.try_into().expect("16 bytes"))
    }
}

/// `A·B` by the model, every element of the product by itself.
fn wanted(a: &Matrix, b: &Matrix, row: usize, column: usize) -> u32 {
    let mut sums = [0; WIDTH];
    for step in 0..a.k / K {
        let operand = |matrix: &Matrix, row, k| Format::Bf16.decode(u32::from(matrix.at(row, step * K + k)));
        let row: Vec<Operand> = (0..K).map(|k| operand(a, row, k)).collect();
        let mut lanes = [Lane::ZERO; K];
        (0..K).for_each(|k| lanes[k].set(0, operand(b, column, k)));
        Model::wgmma(Format::Bf16).accumulate(&row, &lanes, &mut sums);
    }
    sums[0]
}

fn value(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// Multiplies through descriptors and compares with the model and with a plain product.
fn check(n: usize, (major_a, swizzle_a): (Major, Swizzle), (major_b, swizzle_b): (Major, Swizzle)) {
    let mut random = Random(n as u64);
    let (a, b) = (Matrix::random(&mut random, M, 64), Matrix::random(&mut random, n, 64));
    let (start_a, start_b) = (1024, 1024 + 16 * 1024);
    let mut shared = vec![0xff; 64 * 1024];
    to_shared(&a, major_a, swizzle_a, start_a, &mut shared);
    to_shared(&b, major_b, swizzle_b, start_b, &mut shared);
    let mut d = vec![vec![[0x4000_0000; 32]; n / 2]; 4];
    for step in 0..4 {
        let (from_a, from_b) = (
            descriptor(&a, major_a, swizzle_a, start_a, step),
            descriptor(&b, major_b, swizzle_b, start_b, step),
        );
        let mut read = read_from(&shared);
        let columns = b_from_shared(Format::Bf16, from_b, (major_b, n), &mut read).expect("B");
        for (warp, d) in d.iter_mut().enumerate() {
            let rows = a_from_shared(Format::Bf16, from_a, (major_a, warp), &mut read).expect("A");
            multiply(Format::Bf16, &rows, &columns, step > 0, d);
        }
    }
    for thread in 0..128 {
        for (register, words) in d[thread / 32].iter().enumerate() {
            let (row, column) = d_element(register, thread);
            let word = words[thread % 32];
            assert_eq!(
                word,
                wanted(&a, &b, row, column),
                "({row}, {column}) of n{n} {major_a:?} {major_b:?}"
            );
            let plain: f64 = (0..64).map(|k| value(a.at(row, k)) * value(b.at(column, k))).sum();
            assert!((f64::from(f32::from_bits(word)) - plain).abs() < 1e-4, "{plain} at ({row}, {column})");
        }
    }
}

#[test]
fn every_layout_gives_the_product() {
    for swizzle in SWIZZLES {
        for major_a in [Major::K, Major::Mn] {
            for major_b in [Major::K, Major::Mn] {
                check(64, (major_a, swizzle), (major_b, swizzle));
            }
        }
    }
    check(128, (Major::K, Swizzle::B128), (Major::Mn, Swizzle::B64));
}

#[test]
fn every_width_gives_the_product() {
    for n in (8..=256).step_by(8) {
        check(n, (Major::K, Swizzle::B128), (Major::K, Swizzle::B128));
    }
    assert!((0..400).filter(|&n| is_width(n)).eq((8..=256).step_by(8)));
}

#[test]
fn accumulators_cover_the_product_once() {
    for n in [8, 24, 256] {
        let mut places: Vec<_> =
            (0..n / 2).flat_map(|r| (0..128).map(move |thread| d_element(r, thread))).collect();
        places.sort_unstable();
        assert!(places.into_iter().eq((0..M).flat_map(|row| (0..n).map(move |column| (row, column)))));
    }
    // PTX ISA, "Register fragments": d4 of thread 37 is eight columns on, d2 is eight rows below.
    assert_eq!([d_element(0, 37), d_element(2, 37), d_element(5, 37)], [(17, 2), (25, 2), (17, 11)]);
}

#[test]
fn registers_and_immediates() {
    let mut random = Random(5);
    let (a, b) = (Matrix::random(&mut random, M, K), Matrix::random(&mut random, 8, K));
    let mut shared = vec![0; 16 * 1024];
    to_shared(&a, Major::K, Swizzle::B32, 0, &mut shared);
    to_shared(&b, Major::K, Swizzle::B32, 8192, &mut shared);
    let mut read = read_from(&shared);
    let from = descriptor(&a, Major::K, Swizzle::B32, 0, 0);
    let rows = a_from_shared(Format::Bf16, from, (Major::K, 2), &mut read).expect("A");
    let from = descriptor(&b, Major::K, Swizzle::B32, 8192, 0);
    let columns = b_from_shared(Format::Bf16, from, (Major::K, 8), &mut read).expect("B");
    let registers: [Warp; 4] = std::array::from_fn(|register| {
        std::array::from_fn(|lane| {
            (0..2).fold(0, |word, element| {
                let (row, k) = a_element(2, register, element, lane);
                word | u32::from(a.at(row + 32, k)) << (16 * element)
            })
        })
    });
    let mut from_registers = a_from_registers(Format::Bf16, &registers);
    assert_eq!(from_registers, rows);
    // D = -A·B + A·B is zero, exactly, as one product has no rest and the other has the same.
    let mut d = vec![[0; 32]; 4];
    multiply(Format::Bf16, &rows, &columns, false, &mut d);
    let plain = d.clone();
    negate(&mut from_registers);
    multiply(Format::Bf16, &from_registers, &columns, false, &mut d);
    assert!(d.iter().flatten().zip(plain.iter().flatten()).all(|(minus, plain)| *minus == plain ^ 1 << 31));
    multiply(Format::Bf16, &from_registers, &columns, true, &mut d);
    let double: Vec<f32> = d.iter().flatten().map(|&bits| f32::from_bits(bits)).collect();
    let once = plain.iter().flatten().map(|&bits| f32::from_bits(bits));
    assert!(double.iter().zip(once).all(|(double, once)| (double + 2.0 * once).abs() <= once.abs() * 1e-6));
}

#[test]
fn descriptors_that_are_not_understood_are_refused() {
    let bits = Descriptor { start: 1024, leading: 16, stride: 1024, swizzle: Swizzle::B128 }.encode();
    assert_eq!(bits, 1 << 62 | 64 << 32 | 1 << 16 | 64, "as a kernel writes it");
    for reserved in [14, 15, 30, 31, 46, 47, 48, 52, 61] {
        let bits = bits | 1 << reserved;
        assert_eq!(Descriptor::decode(bits), Err(DescriptorError::Reserved(bits)));
    }
    assert_eq!(Descriptor::decode(bits | 1 << 49), Err(DescriptorError::BaseOffset(bits | 1 << 49)));
}

#[test]
fn an_operand_outside_shared_memory_is_an_error() {
    let shared = vec![0; 1024];
    let from = Descriptor { start: 0, leading: 16, stride: 1024, swizzle: Swizzle::B128 };
    let found = a_from_shared(Format::Bf16, from, (Major::K, 0), &mut read_from(&shared));
    assert_eq!(found.expect_err("rows 8 and later are missing"), "0x400 is outside");
}
