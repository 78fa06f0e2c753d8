//! Packing and conversion: every element where the layout says.

use super::Random;
use crate::micro::*;

/// Where the layouts put (column, depth).
fn at_f32(column: usize, depth: usize, k: usize) -> usize {
    column / PANEL * k * PANEL + depth * PANEL + column % PANEL
}

fn at_bf16(column: usize, depth: usize, k: usize) -> usize {
    column / PANEL * k.div_ceil(2) * 2 * PANEL + depth / 2 * 2 * PANEL + column % PANEL * 2 + depth % 2
}

/// The transpose of `[n][k]`.
fn transposed<T: Copy>(x: &[T], n: usize, k: usize) -> Vec<T> {
    (0..n * k).map(|i| x[i % n * k + i / n]).collect()
}

#[test]
fn sources_lie_side_by_side_and_the_rest_is_zero() {
    let mut random = Random::new(4);
    for (counts, k) in
        [([1, 1, 1], 1), ([64, 32, 32], 20), ([33, 7, 50], 129), ([5, 100, 3], 64), ([40, 40, 40], 77)]
    {
        let n: usize = counts.iter().sum();
        let (mut f, mut f_t) = (vec![0.0; panel_bytes_f32(n, k) / 4], vec![0.0; panel_bytes_f32(n, k) / 4]);
        let (mut b, mut b_t) = (vec![0; panel_bytes_bf16(n, k) / 2], vec![0; panel_bytes_bf16(n, k) / 2]);
        let (mut want_f, mut want_b) = (f.clone(), b.clone());
        let mut row0 = 0;
        for count in counts {
            let (x, y) = (random.floats(count * k), random.bf16(count * k));
            pack_f32(&x, count, k, row0, &mut f);
            pack_f32_t(&transposed(&x, count, k), count, k, row0, &mut f_t);
            pack_bf16(&y, count, k, row0, &mut b);
            pack_bf16_t(&transposed(&y, count, k), count, k, row0, &mut b_t);
            for i in 0..count * k {
                want_f[at_f32(row0 + i / k, i % k, k)] = x[i];
                want_b[at_bf16(row0 + i / k, i % k, k)] = y[i];
            }
            row0 += count;
        }
        assert!(f == want_f && f_t == want_f, "f32 {counts:?} deep {k}");
        assert!(b == want_b && b_t == want_b, "bf16 {counts:?} deep {k}");
    }
}

#[test]
#[should_panic(expected = "has no columns 32..64")]
fn a_destination_too_small_is_said() {
    pack_f32(&[0.0; 64], 32, 2, 32, &mut [0.0; 64]);
}

#[test]
fn conversions_are_those_of_half() {
    let mut random = Random::new(5);
    let mut x: Vec<f32> = (0..20_000).map(|_| f32::from_bits(random.next() as u32)).collect();
    x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::from_bits(0x3f80_8000)]);
    x.push(f32::from_bits(0x3f81_8000));
    let mut y = vec![0; x.len()];
    f32_to_bf16(&x, &mut y);
    let want: Vec<u16> = x.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
    assert!(y == want);

    let all: Vec<u16> = (0..=u16::MAX).collect();
    let (mut from_bf16, mut from_f16) = (vec![0.0; all.len()], vec![0.0; all.len()]);
    bf16_to_f32(&all, &mut from_bf16);
    f16_to_f32(&all, &mut from_f16);
    for (i, &x) in all.iter().enumerate() {
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        assert!(same(from_bf16[i], half::bf16::from_bits(x).to_f32()), "bf16 {x:#x}");
        assert!(same(from_f16[i], half::f16::from_bits(x).to_f32()), "f16 {x:#x}");
    }
}
