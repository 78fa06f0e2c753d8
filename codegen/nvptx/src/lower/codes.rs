//! Codes of one byte or half a byte as numbers, and numbers as such codes, in registers.
//!
//! Every code is a number of bf16 exactly. As pairs of bf16, its bits go to where they stand in a bf16 of some other
//! exponent, and one subtraction or product puts that right: two or three logical operations for a pair and one of `bf16x2`,
//! where a conversion instruction takes a quarter of the rate for each number.

use crate::emit::{F32, Float, I8, I32, Int, V};
use sinter_codegen_schedule::codes::Format;

/// Two of bf16's 128, whose last place is 1.
const MAGIC: i32 = 0x4300_4300;
/// Two of bf16's 136.
const MAGIC_AND_EIGHT: i32 = 0x4308_4308;
/// Two of bf16's 2¹²⁰: the exponent of E4M3 is off by 7, that of bf16 by 127.
const E4M3_TO_BF16: i32 = 0x7b80_7b80;

/// Codes of 32 bits as pairs of bf16 in order, the first of two in the lower half: two pairs, or four of codes of 4 bits.
pub fn pairs(format: Format, word: Int<'_>) -> Vec<Int<'_>> {
    match format {
        Format::Int8 => [0x4140, 0x4342].map(|bytes| int8_pair(word.bytes(0, bytes))).into(),
        Format::E4m3 => [0x1404, 0x3424].map(|bytes| e4m3_pair(word.bytes(0, bytes))).into(),
        Format::Int4 => (0..4).map(|at| int4_pair(word, at)).collect(),
    }
}

/// Of two codes, each in the lower byte of a half. The 7 bits below the sign come on top of 128, and 128 is taken off, or
/// 256 where the sign is set, which is the bit after the exponent's last.
fn int8_pair(codes: Int<'_>) -> Int<'_> {
    let (low, sign) = (codes & 0x007f_007f, codes & 0x0080_0080);
    (low | MAGIC).minus_bf16_pair(sign | MAGIC)
}

/// Of two codes, each in the upper byte of a half. What is no number fills the exponent.
fn e4m3_pair(codes: Int<'_>) -> Int<'_> {
    let (sign, rest) = (codes & -0x7fff_8000, (codes >> 4) & 0x07f0_07f0);
    let no_number = (rest + 0x0010_0010) & 0x0800_0800;
    (sign | rest | (no_number * 15)).times_bf16_pair(rest.kernel().int(E4M3_TO_BF16))
}

/// Of the two codes of one byte of a word.
fn int4_pair(word: Int<'_>, byte: i32) -> Int<'_> {
    let low = word >> (8 * byte);
    let high = if byte < 2 { word << (12 - 8 * byte) } else { word >> (8 * byte - 12) };
    ((low & 0xf) | (high & 0xf_0000) | MAGIC).minus_bf16_pair(word.kernel().int(MAGIC_AND_EIGHT))
}

/// The number of an E4M3 in the lower byte.
pub fn of_e4m3(code: Int<'_>) -> Float<'_> {
    let k = code.kernel();
    let (sign, rest) = ((code & 0x80) << 24, code & 0x7f);
    // As in pairs: no bit is lost, and the product is exact.
    let bits = (sign | (rest << 20)).bits::<F32>() * 2f32.powi(120);
    rest.equals(0x7f).select(k.float(f32::NAN), bits)
}

/// The nearest E4M3 as the host rounds to it: ties to even, too great a number to the greatest, no number with its sign.
pub fn to_e4m3(value: Float<'_>) -> Int<'_> {
    let k = value.kernel();
    let magnitude = value.abs();
    // What is no number is put right last; until then it must not overflow.
    let bits = magnitude.bits::<I32>().least(f32::INFINITY.to_bits() as i32);
    let sign = (value.bits::<I32>() >> 24) & 0x80;
    // From 2⁻⁶ on the mantissa is cut to 3 bits; what carries goes to the exponent. 0x7ffff is just below half.
    let normal = ((bits + 0x7_ffff + ((bits >> 20) & 1)) >> 20) - ((127 - 7) << 3);
    // Below, codes are multiples of 2⁻⁹, the last place of 2¹⁴.
    let small = (magnitude + 16_384.0).bits::<I32>() - 16_384f32.to_bits() as i32;
    let code = magnitude.lt(2f32.powi(-6)).select(small, normal).least(0x7e);
    sign | magnitude.differs(magnitude).select(k.int(0x7f), code)
}

/// The code of 4 bits with that number among those of a byte, as a whole number.
pub fn of_half<'k>(byte: Int<'k>, number: Int<'k>) -> Int<'k> {
    (byte >> ((number & 1) << 2) & 0xf) - 8
}

/// A byte without sign, of a word.
pub fn byte_of(word: Int<'_>, at: u32) -> Int<'_> {
    let word = if at == 0 { word } else { word >> (8 * at as i32) };
    if at == 3 { word } else { word & 0xff }
}

/// A byte as a whole number with its sign.
pub fn signed(byte: Int<'_>) -> Int<'_> {
    let byte: V<'_, I8> = byte.low_byte();
    byte.signed_int()
}
