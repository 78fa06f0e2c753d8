//! Floats of one byte, and the value of any element's bytes.

use crate::DType;

/// A format of 8-bit floats (OCP 8-bit floating point specification 1.0, and OCP microscaling formats 1.0 for the scale).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Float8 {
    /// 1 sign, 4 exponent (bias 7), 3 mantissa; no infinities.
    E4m3,
    /// 1 sign, 5 exponent (bias 15), 2 mantissa.
    E5m2,
    /// 8 exponent (bias 127).
    E8m0,
}

impl Float8 {
    /// The format of an element type, if it is one of these.
    pub fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F8e4m3 => Some(Float8::E4m3),
            DType::F8e5m2 => Some(Float8::E5m2),
            DType::F8e8m0 => Some(Float8::E8m0),
            _ => None,
        }
    }

    /// The number; every one is an f32.
    pub fn decode(self, byte: u8) -> f32 {
        let (mantissa_bits, bias) = match self {
            Float8::E4m3 => (3, 7),
            Float8::E5m2 => (2, 15),
            Float8::E8m0 if byte == 0xff => return f32::NAN,
            Float8::E8m0 => return 2f64.powi(i32::from(byte) - 127) as f32,
        };
        let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
        let exponent = i32::from(byte & 0x7f) >> mantissa_bits;
        let mantissa = f32::from(byte & ((1 << mantissa_bits) - 1));
        let steps = (1 << mantissa_bits) as f32;
        match (self, exponent, mantissa) {
            (Float8::E4m3, 15, 7.0) => f32::NAN,
            (Float8::E5m2, 31, 0.0) => sign * f32::INFINITY,
            (Float8::E5m2, 31, _) => f32::NAN,
            (_, 0, _) => sign * mantissa / steps * 2f32.powi(1 - bias),
            _ => sign * (1.0 + mantissa / steps) * 2f32.powi(exponent - bias),
        }
    }

    /// The nearest number's byte, ties to even, what is too great to the greatest finite one, as PTX's
    /// `cvt.rn.satfinite` has it. A power of two is rounded towards zero.
    pub fn encode(self, value: f32) -> u8 {
        let (mantissa_bits, bias, most) = match self {
            Float8::E4m3 => (3, 7, 0x7e),
            Float8::E5m2 => (2, 15, 0x7b),
            Float8::E8m0 if value.is_nan() => return 0xff,
            Float8::E8m0 => return exponent(value.abs()).clamp(-127, 127).wrapping_add(127) as u8,
        };
        let sign = if value.is_sign_negative() { 0x80 } else { 0 };
        if value.is_nan() {
            return sign | 0x7f;
        }
        if value.abs() >= self.decode(most) {
            return sign | most;
        }
        // In double precision the quotient by the distance of neighbours is exact.
        let exponent = exponent(value.abs()).max(1 - bias);
        let steps = f64::from(value.abs()) / 2f64.powi(exponent - mantissa_bits);
        let whole = steps.round_ties_even() as i32;
        // A mantissa that overflows carries into the exponent.
        sign | (((exponent + bias - 1) << mantissa_bits) + whole) as u8
    }
}

/// ⌊log₂ x⌋ of a number that is not negative.
fn exponent(x: f32) -> i32 {
    let bits = f64::from(x).to_bits() >> 52;
    bits as i32 - 1023
}

impl DType {
    /// The value of one element, little endian, in double precision; the bytes are [`DType::bytes`] many.
    pub fn read(self, bytes: &[u8]) -> f64 {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let half = u16::from_le_bytes([byte(0), byte(1)]);
        let word = u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]);
        match self {
            DType::F32 => f64::from(f32::from_bits(word)),
            DType::Bf16 => f64::from(half::bf16::from_bits(half).to_f32()),
            DType::F16 => f64::from(half::f16::from_bits(half).to_f32()),
            DType::U32 => f64::from(word),
            DType::I32 => f64::from(word as i32),
            DType::Bool => f64::from(u8::from(byte(0) != 0)),
            DType::U8 => f64::from(byte(0)),
            DType::I8 => f64::from(byte(0) as i8),
            DType::F8e4m3 => f64::from(Float8::E4m3.decode(byte(0))),
            DType::F8e5m2 => f64::from(Float8::E5m2.decode(byte(0))),
            DType::F8e8m0 => f64::from(Float8::E8m0.decode(byte(0))),
        }
    }

    /// Appends the bytes of the nearest element of this type, little endian; integers are truncated and kept in range.
    pub fn append(self, value: f64, bytes: &mut Vec<u8>) {
        match self {
            DType::F32 => bytes.extend((value as f32).to_le_bytes()),
            DType::Bf16 => bytes.extend(half::bf16::from_f32(value as f32).to_le_bytes()),
            DType::F16 => bytes.extend(half::f16::from_f32(value as f32).to_le_bytes()),
            DType::U32 => bytes.extend((value as u32).to_le_bytes()),
            DType::I32 => bytes.extend((value as i32).to_le_bytes()),
            DType::Bool => bytes.push(u8::from(value != 0.0)),
            DType::U8 => bytes.push(value as u8),
            DType::I8 => bytes.push(value as i8 as u8),
            DType::F8e4m3 => bytes.push(Float8::E4m3.encode(value as f32)),
            DType::F8e5m2 => bytes.push(Float8::E5m2.encode(value as f32)),
            DType::F8e8m0 => bytes.push(Float8::E8m0.encode(value as f32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        for format in [Float8::E4m3, Float8::E5m2, Float8::E8m0] {
            for byte in 0..=255u8 {
                let value = format.decode(byte);
                if value.is_finite() {
                    assert_eq!(format.encode(value), byte, "{format:?} {byte:#04x} {value}");
                }
            }
        }
    }

    #[test]
    fn known_values() {
        // OCP 8-bit floating point specification, table 1.
        assert_eq!(Float8::E4m3.decode(0x7e), 448.0);
        assert_eq!(Float8::E4m3.decode(0x01), 2f32.powi(-9));
        assert!(Float8::E4m3.decode(0x7f).is_nan() && Float8::E4m3.decode(0xff).is_nan());
        assert_eq!(Float8::E5m2.decode(0x7b), 57344.0);
        assert_eq!(Float8::E5m2.decode(0x01), 2f32.powi(-16));
        assert_eq!(Float8::E5m2.decode(0xfc), f32::NEG_INFINITY);
        assert_eq!((Float8::E8m0.decode(127), Float8::E8m0.decode(0)), (1.0, 2f32.powi(-127)));
    }

    #[test]
    fn rounds_to_the_nearest_and_saturates() {
        for format in [Float8::E4m3, Float8::E5m2] {
            for byte in 0..0x77u8 {
                let (low, high) = (format.decode(byte), format.decode(byte + 1));
                let middle = (low + high) / 2.0;
                assert_eq!(format.encode(middle), byte + (byte & 1), "{format:?} {middle}");
                assert_eq!(format.encode(-middle), 0x80 | (byte + (byte & 1)));
                assert_eq!(format.encode(low + (middle - low) * 0.99), byte);
            }
            assert_eq!(format.decode(format.encode(1e30)), format.decode(format.encode(f32::INFINITY)));
        }
        assert_eq!((Float8::E8m0.encode(3.9), Float8::E8m0.encode(0.0)), (128, 0));
    }
}
