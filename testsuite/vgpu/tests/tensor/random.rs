//! Random bits for operands: plain values, and values that hurt.

use sinter_vgpu::tensor::Format;

/// A splitmix64 generator.
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }
    /// The bits of a bf16 between -2 and 2.
    pub fn bf16(&mut self) -> u16 {
        let value = (self.below(1 << 16) as f32 / 32768.0 - 1.0) * 2.0;
        (value.to_bits() >> 16) as u16
    }
    /// The bits of any finite element, or of zero now and then.
    pub fn finite(&mut self, format: Format) -> u32 {
        let mask = u32::MAX >> (32 - format.bits());
        loop {
            let bits = self.bits() as u32 & mask;
            let bits = if self.below(12) == 0 { 0 } else { bits };
            if is_finite(format, bits) {
                return bits;
            }
        }
    }
    /// The bits of an element whose exponent is one of a few around 1, so that nothing is too small to matter.
    pub fn near_one(&mut self, format: Format) -> u32 {
        let (exponent, fraction) = fields(format);
        let bias = (1u64 << (exponent - 1)) - 1;
        let field = bias - 3 + self.below(6);
        let bits = self.below(2) << (exponent + fraction) | field << fraction | self.below(1 << fraction);
        bits as u32
    }
}

/// Exponent bits and fraction bits as they lie in memory.
pub fn fields(format: Format) -> (u32, u32) {
    match format {
        Format::Bf16 => (8, 7),
        Format::F16 => (5, 10),
        Format::Tf32 => (8, 23),
        Format::E4m3 => (4, 3),
        Format::E5m2 => (5, 2),
    }
}

/// Whether bits are neither an infinity nor a NaN.
pub fn is_finite(format: Format, bits: u32) -> bool {
    let (exponent, fraction) = fields(format);
    match format {
        Format::E4m3 => bits & 0x7f != 0x7f,
        _ => bits >> fraction & ((1 << exponent) - 1) != (1 << exponent) - 1,
    }
}
