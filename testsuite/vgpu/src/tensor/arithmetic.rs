//! Bit-exact matrix multiply-add with f32 accumulators.
//!
//! The model is the one that Xie et al. found by probing the hardware (MMA-Sim, arXiv 2511.10909). One addition takes a
//! number of products and an accumulator:
//! 1. Products are exact. A product's exponent is the sum of its operands' exponents, its significand lies in `[1, 4)`;
//!    a subnormal operand keeps the least exponent of its format and a significand below 1.
//! 2. All terms, the accumulator too, are aligned to the largest exponent and cut (toward zero, each by itself) to `F`
//!    bits after the binary point. Zero terms have no say in the largest exponent; it is never below -126.
//! 3. The cut terms are added exactly, and the sum is rounded toward zero to f32. A sum of 2^128 or more is infinite.
//! 4. A NaN among the products or in the accumulator, or infinities of both signs, give NaN 0x7fffffff.
//!
//! `F` is 24 on Ampere and Ada and 25 on Hopper. Ampere and Ada add at most 8 products of 16-bit operands at once (4 of
//! tf32, 16 of fp8), so that their `m16n8k16` is two additions, one after the other; Hopper adds a whole `k16`. Tensor
//! cores for fp8 keep 13 bits on Ada and in Hopper's wgmma.
//!
//! A sum that is exactly zero, or too small for the least subnormal, is +0.

use sinter_ir::Target;

/// The type of a matrix operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    /// bfloat16
    Bf16,
    /// IEEE half
    F16,
    /// f32 whose last 13 bits are ignored
    Tf32,
    /// fp8 with 4 exponent bits, no infinities
    E4m3,
    /// fp8 with 5 exponent bits
    E5m2,
}

/// The exponent of a zero operand: so small that a product with it is never the largest term.
const ZERO: i32 = -4096;
/// The exponent of an infinity or a NaN: so large that a product with it is seen, whatever the other operand.
const SPECIAL: i32 = 8192;
/// Exponents above this belong to sums with a special operand.
const FINITE: i32 = 2048;
/// The bits of the NaN that tensor cores return.
pub const NAN: u32 = 0x7fff_ffff;
/// Columns that are worked on together.
pub const WIDTH: usize = 8;

impl Format {
    /// Bits of an element in a register or in memory.
    pub fn bits(self) -> u32 {
        match self {
            Format::Tf32 => 32,
            Format::Bf16 | Format::F16 => 16,
            Format::E4m3 | Format::E5m2 => 8,
        }
    }
    /// An operand from its bits.
    #[inline]
    pub fn decode(self, bits: u32) -> Operand {
        match self {
            Format::Bf16 => Operand::decode::<8, 7>(bits, false),
            Format::F16 => Operand::decode::<5, 10>(bits, false),
            Format::Tf32 => Operand::decode::<8, 10>(bits >> 13, false),
            Format::E4m3 => Operand::decode::<4, 3>(bits, true),
            Format::E5m2 => Operand::decode::<5, 2>(bits, false),
        }
    }
}

/// A matrix element as `significand × 2^exponent`, with the significand in `[1, 2)`, below 1 if the element is subnormal.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Operand {
    significand: f32,
    exponent: i32,
}

impl Operand {
    /// An operand with `E` exponent bits and `F` fraction bits. `finite`: the largest exponent is one of numbers, and all
    /// bits set is the one NaN.
    #[inline(always)]
    fn decode<const E: u32, const F: u32>(bits: u32, finite: bool) -> Operand {
        let (last, bias) = ((1 << E) - 1, (1i32 << (E - 1)) - 1);
        let field = bits >> F & last;
        let fraction = bits & ((1 << F) - 1);
        let sign = bits >> (E + F) << 31;
        if field != 0 && field != last {
            let significand = f32::from_bits(sign | 127 << 23 | fraction << (23 - F));
            return Operand { significand, exponent: field as i32 - bias };
        }
        if field == 0 {
            let magnitude = fraction as f32 / (1u32 << F) as f32;
            let exponent = if fraction == 0 { ZERO } else { 1 - bias };
            return Operand { significand: f32::from_bits(sign | magnitude.to_bits()), exponent };
        }
        if finite && fraction != (1 << F) - 1 {
            let significand = f32::from_bits(sign | 127 << 23 | fraction << (23 - F));
            return Operand { significand, exponent: last as i32 - bias };
        }
        let nan = finite || fraction != 0;
        Operand { significand: f32::from_bits(sign | 0x7f80_0000 | u32::from(nan) << 22), exponent: SPECIAL }
    }
    /// Zero.
    pub const ZERO: Operand = Operand { significand: 0.0, exponent: ZERO };
    /// The element with the other sign.
    pub fn negated(self) -> Operand {
        Operand { significand: -self.significand, ..self }
    }
}

/// One row of `B` for eight columns: the operands that meet one element of a row of `A`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lane {
    significands: [f32; WIDTH],
    exponents: [i32; WIDTH],
}

impl Lane {
    /// All columns zero.
    pub const ZERO: Lane = Lane { significands: [0.0; WIDTH], exponents: [ZERO; WIDTH] };
    /// Puts an operand in a column below [`WIDTH`].
    pub fn set(&mut self, column: usize, operand: Operand) {
        self.significands[column] = operand.significand;
        self.exponents[column] = operand.exponent;
    }
}

/// How an instruction adds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Model {
    /// `F`: bits after the binary point that aligned terms keep.
    pub fraction: u32,
    /// Products added at once.
    pub step: usize,
    /// Fraction bits of the result: 23, or 13 where fp8 sums are kept short.
    pub kept: u32,
}

impl Model {
    /// The model of `mma.sync`.
    pub fn mma(target: Target, format: Format) -> Model {
        let fp8 = matches!(format, Format::E4m3 | Format::E5m2);
        let at_once = (128 / format.bits()) as usize;
        match target {
            Target::Sm90a => Model { fraction: 25, step: 2 * at_once, kept: 23 },
            Target::Sm89 if fp8 => Model { fraction: 13, step: at_once, kept: 13 },
            Target::Sm80 | Target::Sm89 => Model { fraction: 24, step: at_once, kept: 23 },
        }
    }
    /// The model of Hopper's `wgmma`.
    pub fn wgmma(format: Format) -> Model {
        let step = (256 / format.bits()) as usize;
        match format {
            Format::E4m3 | Format::E5m2 => Model { fraction: 13, step, kept: 13 },
            _ => Model { fraction: 25, step, kept: 23 },
        }
    }

    /// Adds the products of a row of `A` with eight columns of `B` to eight f32 accumulators (given as bits), in as many
    /// additions as the model takes for that many products. Both operands have the same length K.
    pub fn accumulate(self, row: &[Operand], lanes: &[Lane], sums: &mut [u32; WIDTH]) {
        for (row, lanes) in row.chunks(self.step).zip(lanes.chunks(self.step)) {
            self.add(row, lanes, sums);
        }
    }

    /// One addition.
    fn add(self, row: &[Operand], lanes: &[Lane], sums: &mut [u32; WIDTH]) {
        let top = largest(row, lanes, sums);
        let products = self.products(row, lanes, &top);
        for column in 0..WIDTH {
            sums[column] = if top[column] > FINITE {
                special(row, lanes, column, sums[column])
            } else {
                let sum = products[column] + self.cut(sums[column], top[column]);
                self.round(sum, top[column])
            };
        }
    }

    /// The sums of the cut products, in units of 2^(top - fraction).
    fn products(self, row: &[Operand], lanes: &[Lane], top: &[i32; WIDTH]) -> [i64; WIDTH] {
        let unit = 127 + self.fraction as i32;
        let mut total = [0f64; WIDTH];
        for (a, b) in row.iter().zip(lanes) {
            for column in 0..WIDTH {
                // Exact: a power of two times a product of at most 22 bits. Far below the top nothing is left.
                let below = top[column].wrapping_sub(a.exponent).wrapping_sub(b.exponents[column]);
                let scale = f32::from_bits((unit.wrapping_sub(below.min(100)) as u32) << 23);
                total[column] += toward_zero(a.significand * b.significands[column] * scale);
            }
        }
        total.map(|total| total as i64)
    }

    /// An accumulator cut to the common exponent.
    fn cut(self, bits: u32, top: i32) -> i64 {
        let (significand, exponent) = split(bits);
        let below = (top - exponent).min(63) as u32;
        let magnitude = ((u64::from(significand) << self.fraction) >> 23 >> below) as i64;
        if bits >> 31 == 0 { magnitude } else { -magnitude }
    }

    /// A sum in units of 2^(top - fraction), rounded toward zero to f32.
    fn round(self, sum: i64, top: i32) -> u32 {
        if sum == 0 {
            return 0;
        }
        let sign = u32::from(sum < 0) << 31;
        let magnitude = sum.unsigned_abs();
        let unit = top - self.fraction as i32;
        let exponent = unit + 63 - magnitude.leading_zeros() as i32;
        if exponent > 127 {
            return sign | 0x7f80_0000;
        }
        // The unit of the result's last bit: 2^-149 in the subnormal range.
        let last = exponent.max(-126) - self.kept as i32;
        let shift = last - unit;
        let kept = if shift >= 0 { magnitude >> shift.min(63) } else { magnitude << -shift };
        let significand = (kept as u32) << (23 - self.kept);
        match (significand, exponent < -126) {
            (0, _) => 0,
            (_, true) => sign | significand,
            (_, false) => sign | ((exponent + 127) as u32) << 23 | (significand & 0x7f_ffff),
        }
    }
}

/// The integer between zero and a term of at most 22 significant bits below 2^27. `trunc` would do, but the host makes it
/// one lane at a time.
///
/// An integer and up to half of the next, less the half and a little, rounds to that integer. 2^52 has no room for a
/// fraction, so that adding it rounds.
#[inline(always)]
fn toward_zero(term: f32) -> f64 {
    const ROOM: f64 = 1.5 * (1u64 << 52) as f64;
    const HALF: f64 = 0.5 - 1.0 / (1 << 23) as f64;
    let term = f64::from(term);
    (term - HALF.copysign(term) + ROOM) - ROOM
}

/// The integer significand (24 bits) and the exponent of an f32.
fn split(bits: u32) -> (u32, i32) {
    let field = (bits >> 23 & 0xff) as i32;
    let fraction = bits & 0x7f_ffff;
    match field {
        0 => (fraction, -126),
        255 => (fraction, SPECIAL),
        _ => (fraction | 0x80_0000, field - 127),
    }
}

/// The largest exponent among the terms of each column. It is at least -126, the least exponent of the accumulator.
fn largest(row: &[Operand], lanes: &[Lane], sums: &[u32; WIDTH]) -> [i32; WIDTH] {
    let mut top = sums.map(|bits| split(bits).1);
    for (a, b) in row.iter().zip(lanes) {
        for (top, exponent) in top.iter_mut().zip(&b.exponents) {
            *top = (*top).max(a.exponent.wrapping_add(*exponent));
        }
    }
    top
}

/// A sum with an infinity or a NaN among its operands.
#[cold]
fn special(row: &[Operand], lanes: &[Lane], column: usize, sum: u32) -> u32 {
    let products = row.iter().zip(lanes).map(|(a, b)| a.significand * b.significands[column]);
    // Finite terms do not matter, and their significands cannot overflow.
    let finite = if f32::from_bits(sum).is_finite() { 0.0 } else { f32::from_bits(sum) };
    let total =
        products.filter(|product| !product.is_finite()).fold(finite, |total, product| total + product);
    if total.is_nan() { NAN } else { total.to_bits() }
}

/// The product of int8 operands added to an i32 that wraps, or stays at its bounds if `saturate`.
pub fn dot_i8(a: &[i8], b: &[i8], sum: i32, saturate: bool) -> i32 {
    let exact = a.iter().zip(b).fold(i64::from(sum), |sum, (&a, &b)| sum + i64::from(a) * i64::from(b));
    if saturate { exact.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32 } else { exact as i32 }
}
