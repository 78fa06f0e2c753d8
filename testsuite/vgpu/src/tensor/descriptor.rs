//! Matrix descriptors: where an operand of wgmma lies in shared memory.
//!
//! PTX ISA, "Asynchronous warpgroup level matrix shared memory layout": "Shared memory matrix layout", "Strides" and
//! "Matrix descriptor format". Elements along the major dimension lie in pieces of 16 bytes.

use sinter_ir::Swizzle;

/// Which dimension of an operand is contiguous in shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Major {
    /// K: `tnsp` is 0.
    K,
    /// M of `A`, N of `B`: `tnsp` is 1.
    Mn,
}

/// A matrix descriptor, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Descriptor {
    /// The address in shared memory, a multiple of 16.
    pub start: u32,
    /// Leading dimension byte offset.
    pub leading: u32,
    /// Stride dimension byte offset.
    pub stride: u32,
    /// The swizzle.
    pub swizzle: Swizzle,
}

/// Why a descriptor is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum DescriptorError {
    /// Bits that must be zero are not.
    #[error("the matrix descriptor {0:#018x} has bits set that are reserved")]
    Reserved(u64),
    /// A base offset, whose effect on addresses is not published.
    #[error("the matrix descriptor {0:#018x} has a base offset; align the tile to 8 rows of its swizzle")]
    BaseOffset(u64),
}

/// The bytes that a swizzle mixes: the width of a row of its pattern. 16 without swizzle.
pub fn swizzle_span(swizzle: Swizzle) -> u32 {
    [16, 32, 64, 128][swizzle as usize]
}

/// The address at which a swizzle keeps the byte of an address: the number of the 16-byte piece within the span is
/// xored with the number of the 128-byte line (PTX ISA, "Swizzling modes"; CUDA programming guide, "TMA swizzle": the
/// pattern depends on the address itself, not on the start of the tile).
pub fn swizzled(swizzle: Swizzle, address: u32) -> u32 {
    let pieces = swizzle_span(swizzle) - 16;
    address ^ (address >> 3 & pieces)
}

impl Descriptor {
    /// Takes a descriptor apart.
    pub fn decode(bits: u64) -> Result<Descriptor, DescriptorError> {
        let field = |at: u32| ((bits >> at & 0x3fff) << 4) as u32;
        let reserved = 0b11 << 14 | 0b11 << 30 | 0b111 << 46 | 0x3ff << 52;
        if bits & reserved != 0 {
            return Err(DescriptorError::Reserved(bits));
        }
        if bits >> 49 & 7 != 0 {
            return Err(DescriptorError::BaseOffset(bits));
        }
        let swizzle = [Swizzle::None, Swizzle::B128, Swizzle::B64, Swizzle::B32][(bits >> 62) as usize];
        Ok(Descriptor { start: field(0), leading: field(16), stride: field(32), swizzle })
    }

    /// The bits of a descriptor.
    pub fn encode(self) -> u64 {
        let field = |value: u32, at: u32| u64::from(value >> 4 & 0x3fff) << at;
        let mode = [0, 3, 2, 1][self.swizzle as usize];
        field(self.start, 0) | field(self.leading, 16) | field(self.stride, 32) | mode << 62
    }

    /// The address of the 16-byte piece with element (`mn`, `k`), where `per` elements make up a piece and the piece
    /// begins at a multiple of `per` along the major dimension.
    ///
    /// - K-major, no swizzle: cores of 8 rows by 16 bytes, `leading` apart along K and `stride` apart along M/N.
    /// - K-major, swizzled: rows of the swizzle's span, groups of 8 rows `stride` apart. K stays within a row.
    /// - M/N-major, no swizzle: cores of 16 bytes along M/N by 8 along K, `stride` apart along M/N and `leading` along K.
    /// - M/N-major, swizzled: 8 rows (along K) of the swizzle's span, `leading` apart along M/N and `stride` along K.
    pub fn piece(self, major: Major, per: u32, mn: u32, k: u32) -> u32 {
        let span = swizzle_span(self.swizzle);
        let plain = self.swizzle == Swizzle::None;
        let offset = match (major, plain) {
            (Major::K, true) => mn % 8 * 16 + mn / 8 * self.stride + k / per * self.leading,
            (Major::K, false) => mn % 8 * span + mn / 8 * self.stride + k / per * 16,
            (Major::Mn, true) => k % 8 * 16 + k / 8 * self.leading + mn / per * self.stride,
            (Major::Mn, false) => {
                let row = span / 16 * per;
                mn % row / per * 16 + mn / row * self.leading + k % 8 * span + k / 8 * self.stride
            }
        };
        swizzled(self.swizzle, self.start + offset)
    }
}
