//! Codes of a byte or half a byte, as rows of a cache keep them.

use sinter_ir::{DType, Layout, TileParam};

/// What a code stands for. Each is a number of bf16 exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A whole number of 8 bits with its sign.
    Int8,
    /// An 8-bit float of 4 bits of exponent and 3 of mantissa.
    E4m3,
    /// A whole number from −8 to 7, plus 8, two to a byte: [`Layout::Halves`].
    Int4,
}

impl Format {
    /// The format of a parameter that holds codes.
    pub fn of(param: &TileParam) -> Option<Format> {
        match (param.layout, param.ty.dtype) {
            (Layout::Halves, _) => Some(Format::Int4),
            (Layout::Rows, DType::I8) => Some(Format::Int8),
            (Layout::Rows, DType::F8e4m3) => Some(Format::E4m3),
            _ => None,
        }
    }
    /// Codes of 16 bytes.
    pub fn in_16_bytes(self) -> u32 {
        match self {
            Format::Int8 | Format::E4m3 => 16,
            Format::Int4 => 32,
        }
    }
    /// Bytes of so many codes.
    pub fn bytes(self, codes: u32) -> u32 {
        codes * 16 / self.in_16_bytes()
    }
}
