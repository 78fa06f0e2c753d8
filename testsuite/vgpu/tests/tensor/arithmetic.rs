//! The arithmetic against a reference that follows the published words term by term in f64.

use crate::random::{Random, fields, is_finite};
use sinter_ir::Target;
use sinter_vgpu::tensor::arithmetic::{Lane, Model, NAN, Operand, WIDTH, dot_i8};
use sinter_vgpu::tensor::{Format, fragments::MmaForm};

const FORMATS: [Format; 5] = [Format::Bf16, Format::F16, Format::Tf32, Format::E4m3, Format::E5m2];

/// The value of a finite element, and the least exponent of its format.
fn value(format: Format, bits: u32) -> (f64, i32) {
    let bits = if format == Format::Tf32 { bits & !0x1fff } else { bits };
    let (exponent, fraction) = fields(format);
    let field = (bits >> fraction & ((1 << exponent) - 1)) as i32;
    let part = f64::from(bits & ((1 << fraction) - 1)) / f64::from(1u32 << fraction);
    let least = 2 - (1 << (exponent - 1));
    let magnitude = match field {
        0 => part * 2f64.powi(least),
        _ => (1.0 + part) * 2f64.powi(field + least - 1),
    };
    let negative = bits >> (exponent + fraction) & 1 == 1;
    (if negative { -magnitude } else { magnitude }, least)
}

/// Significand and exponent of a number that is not below the least exponent.
fn taken_apart((value, least): (f64, i32)) -> (f64, i32) {
    let exponent = ((value.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(least);
    (value / 2f64.powi(exponent), exponent)
}

/// f64 to f32 toward zero, keeping `kept` fraction bits.
fn toward_zero(value: f64, kept: i32) -> u32 {
    if value.abs() >= 2f64.powi(128) {
        return (f32::INFINITY.copysign(value as f32)).to_bits();
    }
    let exponent = ((value.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(-126);
    let unit = 2f64.powi(exponent - kept);
    let cut = ((value / unit).trunc() * unit) as f32;
    if cut == 0.0 { 0 } else { cut.to_bits() }
}

/// One chain of additions for finite operands.
fn reference(model: Model, format: Format, a: &[u32], b: &[u32], sum: u32) -> u32 {
    let mut sum = sum;
    for (a, b) in a.chunks(model.step).zip(b.chunks(model.step)) {
        if !f32::from_bits(sum).is_finite() {
            return sum;
        }
        let mut terms = vec![taken_apart((f64::from(f32::from_bits(sum)), -126))];
        for (&a, &b) in a.iter().zip(b) {
            let (a, b) = (taken_apart(value(format, a)), taken_apart(value(format, b)));
            if a.0 * b.0 != 0.0 {
                terms.push((a.0 * b.0, a.1 + b.1));
            }
        }
        let top = terms.iter().map(|term| term.1).max().expect("a term").max(-126);
        let fraction = model.fraction as i32;
        let cut = |&(significand, exponent): &(f64, i32)| {
            (significand * 2f64.powi(fraction) * 2f64.powi(exponent - top)).trunc()
        };
        let total: f64 = terms.iter().map(cut).sum();
        sum = toward_zero(total * 2f64.powi(top - fraction), model.kept as i32);
    }
    sum
}

/// The model itself, in column `column` with other things in the other columns.
fn computed(model: Model, format: Format, a: &[u32], b: &[u32], sum: u32) -> u32 {
    let column = a.len() % WIDTH;
    let row: Vec<Operand> = a.iter().map(|&bits| format.decode(bits)).collect();
    let mut lanes = vec![Lane::ZERO; b.len()];
    for (k, &bits) in b.iter().enumerate() {
        lanes[k].set(column, format.decode(bits));
        lanes[k].set((column + 1) % WIDTH, format.decode(if k % 3 == 0 { 0 } else { bits }));
    }
    let mut sums = [0x3f80_0000; WIDTH];
    sums[column] = sum;
    model.accumulate(&row, &lanes, &mut sums);
    if a.iter().all(|&bits| is_finite(format, bits)) {
        assert_eq!(sums[(column + 2) % WIDTH], 0x3f80_0000, "a column of zeros keeps its sum");
    }
    sums[column]
}

/// Every model of a format, with the K of an instruction.
fn models(format: Format) -> Vec<(Model, usize)> {
    let k = (256 / format.bits()) as usize;
    let mma = Target::ALL.map(|target| (Model::mma(target, format), k));
    mma.into_iter().chain([(Model::wgmma(format), k)]).collect()
}

fn agrees(random: &mut Random, rounds: usize, mut draw: impl FnMut(&mut Random, Format) -> u32) {
    for format in FORMATS {
        for (model, k) in models(format) {
            for _ in 0..rounds {
                let a: Vec<u32> = (0..k).map(|_| draw(random, format)).collect();
                let b: Vec<u32> = (0..k).map(|_| draw(random, format)).collect();
                let scale = [1.0, 0.0, 1e-3, 1e4, 1e-40, 3e38][random.below(6) as usize];
                let sum = (f32::from_bits(random.near_one(Format::Tf32)) * scale).to_bits();
                let (found, wanted) =
                    (computed(model, format, &a, &b, sum), reference(model, format, &a, &b, sum));
                assert_eq!(
                    found, wanted,
                    "{format:?} {model:?}\n{a:x?}\n{b:x?}\n{sum:x}: {found:x} {wanted:x}"
                );
            }
        }
    }
}

#[test]
fn sums_of_neighbouring_sizes_are_those_of_the_model() {
    agrees(&mut Random(1), 4000, |random, format| random.near_one(format));
}

#[test]
fn sums_of_any_sizes_are_those_of_the_model() {
    agrees(&mut Random(2), 4000, |random, format| random.finite(format));
}

#[test]
fn sums_in_the_subnormal_range_are_those_of_the_model() {
    let mut random = Random(3);
    for (model, k) in models(Format::Bf16) {
        for _ in 0..4000 {
            // Products around 2^-150 to 2^-125, with subnormal operands among them.
            let a: Vec<u32> = (0..k).map(|_| (random.bits() as u32 & 0x83ff) | 0x0010).collect();
            let b: Vec<u32> = (0..k).map(|_| random.near_one(Format::Bf16) - (12 << 7)).collect();
            let sum = random.bits() as u32 & 0x81ff_ffff;
            let wanted = reference(model, Format::Bf16, &a, &b, sum);
            assert_eq!(computed(model, Format::Bf16, &a, &b, sum), wanted, "{a:x?} {b:x?} {sum:x}");
        }
    }
}

const ONE: u32 = 0x3f80;

fn bf16(value: f32) -> u32 {
    value.to_bits() >> 16
}

/// A dot product of bf16 values, K of 16, as f32.
fn dot(model: Model, a: &[f32], b: &[f32], sum: f32) -> f32 {
    let mut operands = [[0; 16]; 2];
    for (k, (&a, &b)) in a.iter().zip(b).enumerate() {
        (operands[0][k], operands[1][k]) = (bf16(a), bf16(b));
    }
    f32::from_bits(computed(model, Format::Bf16, &operands[0], &operands[1], sum.to_bits()))
}

#[test]
fn ampere_and_hopper_differ_where_they_should() {
    let (ampere, hopper) = (Model::mma(Target::Sm80, Format::Bf16), Model::mma(Target::Sm90a, Format::Bf16));
    let small = [2f32.powi(-25); 8];
    // Eight products of 2^-25 beside 1: below Ampere's 24 bits each of them is cut away, Hopper's 25 bits keep them.
    assert_eq!(dot(ampere, &small, &[1.0; 8], 1.0), 1.0);
    assert_eq!(dot(hopper, &small, &[1.0; 8], 1.0), 1.0 + 2f32.powi(-22));
    // One bit more is cut away on both; one bit less is kept by both.
    assert_eq!(dot(hopper, &small, &[0.5; 8], 1.0), 1.0);
    assert_eq!(dot(ampere, &small, &[2.0; 8], 1.0), 1.0 + 2f32.powi(-21));
    // Two halves: on Ampere the large terms cancel before the small one, in the second half, is aligned to them.
    let a = [2f32.powi(30), -2f32.powi(30), 0., 0., 0., 0., 0., 0., 1.0];
    assert_eq!(dot(ampere, &a, &[1.0; 9], 0.0), 1.0);
    assert_eq!(dot(hopper, &a, &[1.0; 9], 0.0), 0.0);
    assert_eq!(Model::mma(Target::Sm89, Format::Bf16), ampere);
}

#[test]
fn random_sums_differ_between_ampere_and_hopper() {
    let mut random = Random(4);
    let mut different = 0;
    for _ in 0..1000 {
        let draw = |random: &mut Random| (0..16).map(|_| random.near_one(Format::F16)).collect::<Vec<u32>>();
        let (a, b) = (draw(&mut random), draw(&mut random));
        let on = |target| computed(Model::mma(target, Format::F16), Format::F16, &a, &b, 0x3eaa_aaab);
        different += usize::from(on(Target::Sm80) != on(Target::Sm90a));
    }
    assert!((100..900).contains(&different), "{different} of 1000 differ");
}

#[test]
fn rounding_is_toward_zero_and_cancellation_exact() {
    for (model, _) in models(Format::Bf16) {
        // 1 + 2^-24 and its negative both lose the bit that f32 has no room for.
        assert_eq!(dot(model, &[2f32.powi(-12)], &[2f32.powi(-12)], 1.0), 1.0);
        assert_eq!(dot(model, &[2f32.powi(-12)], &[-(2f32.powi(-12))], -1.0), -1.0);
        // 1 - 2^-24 is a number of f32.
        assert_eq!(dot(model, &[2f32.powi(-12)], &[-(2f32.powi(-12))], 1.0), 1.0 - 2f32.powi(-24));
        // What cancels leaves +0, not -0.
        assert_eq!(dot(model, &[-3.0, 3.0], &[2.0, 2.0], -0.0).to_bits(), 0);
        assert_eq!(dot(model, &[-0.0], &[1.0], -0.0).to_bits(), 0);
        // A cancelled sum shows the bits below it.
        assert_eq!(dot(model, &[1.0, -1.0, 2f32.powi(-20)], &[1.0; 3], 0.0), 2f32.powi(-20));
        // Too large for f32.
        let large = 2f32.powi(127);
        assert_eq!(dot(model, &[large, large], &[1.0, 1.0], 0.0), f32::INFINITY);
        assert_eq!(dot(model, &[large, large, -large], &[1.0; 3], 0.0), large);
        // The largest f32 stays where the sum is below 2^128.
        assert_eq!(dot(model, &[1.0], &[2f32.powi(100)], f32::MAX), f32::MAX);
    }
}

#[test]
fn a_zero_does_not_hide_small_terms() {
    for (model, _) in models(Format::Bf16) {
        let huge = 2f32.powi(127);
        assert_eq!(dot(model, &[0.0, 2f32.powi(-60)], &[huge, 2f32.powi(-60)], 0.0), 2f32.powi(-120));
    }
}

#[test]
fn infinities_and_nans() {
    let (infinity, nan) = (f32::INFINITY, f32::NAN);
    for (model, _) in models(Format::Bf16) {
        assert_eq!(dot(model, &[infinity], &[-1.0], 5.0), -infinity);
        assert_eq!(dot(model, &[1.0], &[1.0], infinity), infinity);
        assert_eq!(dot(model, &[infinity, infinity], &[1.0, 1.0], infinity), infinity);
        let last = [0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., infinity];
        assert_eq!(dot(model, &last, &[1.0; 16], 0.0), infinity);
        for (a, b, sum) in [
            ([infinity, 0.0], [0.0, 0.0], 0.0),
            ([infinity, infinity], [1.0, -1.0], 0.0),
            ([infinity, 0.0], [1.0, 0.0], -infinity),
            ([nan, 0.0], [1.0, 0.0], 0.0),
            ([1.0, 0.0], [1.0, 0.0], -nan),
        ] {
            assert_eq!(dot(model, &a, &b, sum).to_bits(), NAN, "{a:?} {b:?} {sum}");
        }
    }
    // E4M3 has no infinity: its largest pattern is NaN, the one below is 448.
    let model = Model::wgmma(Format::E4m3);
    assert_eq!(computed(model, Format::E4m3, &[0x7f], &[0x38], 0), NAN);
    assert_eq!(computed(model, Format::E4m3, &[0x7e], &[0x38], 0), 448f32.to_bits());
    assert_eq!(computed(model, Format::E5m2, &[0x7c], &[0xbc], 0), (-infinity).to_bits());
}

#[test]
fn tf32_ignores_the_last_bits_and_fp8_keeps_few() {
    let model = Model::mma(Target::Sm80, Format::Tf32);
    let (almost_two, two_less) = (0x3fff_ffff, 0x3fff_e000);
    let found = computed(model, Format::Tf32, &[almost_two], &[almost_two], 0);
    assert_eq!(f32::from_bits(found), f32::from_bits(two_less) * f32::from_bits(two_less));
    let one = 0x38;
    // 1 + 2^-14 in an accumulator with 13 bits.
    let sum = (1.0 + 2f32.powi(-14)).to_bits();
    assert_eq!(f32::from_bits(computed(Model::wgmma(Format::E4m3), Format::E4m3, &[one], &[one], sum)), 2.0);
    let ampere = Model::mma(Target::Sm80, Format::E4m3);
    assert_eq!(computed(ampere, Format::E4m3, &[one], &[one], sum), (2.0 + 2f32.powi(-14)).to_bits());
    assert_eq!(Model::mma(Target::Sm89, Format::E4m3).kept, 13);
}

#[test]
fn forms_are_those_of_the_instruction() {
    assert!(MmaForm::new(16, Format::Bf16, Format::Bf16).is_some());
    assert!(MmaForm::new(32, Format::E4m3, Format::E5m2).is_some());
    assert!(MmaForm::new(16, Format::Bf16, Format::F16).is_none());
    assert!(MmaForm::new(16, Format::Tf32, Format::Tf32).is_none());
    assert_eq!(Format::Bf16.decode(ONE), Format::F16.decode(0x3c00));
}

#[test]
fn integers_wrap_or_stay_at_their_bounds() {
    let (a, b) = ([127i8; 32], [127i8; 32]);
    assert_eq!(dot_i8(&a, &b, 5, false), 32 * 127 * 127 + 5);
    assert_eq!(dot_i8(&a, &b, i32::MAX, true), i32::MAX);
    assert_eq!(dot_i8(&a, &b, i32::MAX, false), i32::MAX.wrapping_add(32 * 127 * 127));
    assert_eq!(dot_i8(&[-128; 32], &b, i32::MIN, true), i32::MIN);
}
