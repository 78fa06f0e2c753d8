//! Element types and tensor types.

use crate::{Binding, Dim};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of one element.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// The upper half of a binary32.
    Bf16,
    /// IEEE 754 binary16.
    F16,
    /// Unsigned 32-bit integer: token ids, slots, page numbers.
    U32,
    /// Truth value.
    Bool,
    /// Unsigned byte: packed bits of a quantised weight, or the bytes of any stored tensor.
    U8,
    /// Signed byte, two's complement.
    I8,
    /// Signed 32-bit integer: words of a stored tensor, and what a signed byte is computed as.
    I32,
    /// 8-bit float, 4 bits of exponent and 3 of mantissa, no infinities, ±448 the greatest (OCP FP8, `E4M3`).
    F8e4m3,
    /// 8-bit float, 5 bits of exponent and 2 of mantissa, ±57344 the greatest (OCP FP8, `E5M2`).
    F8e5m2,
    /// A power of two: 8 bits of exponent, bias 127, 255 is NaN (OCP MX, `E8M0`).
    F8e8m0,
}

impl DType {
    /// All types, for parsers and tests.
    pub const ALL: [DType; 11] = [
        DType::F32,
        DType::Bf16,
        DType::F16,
        DType::U32,
        DType::Bool,
        DType::U8,
        DType::I8,
        DType::I32,
        DType::F8e4m3,
        DType::F8e5m2,
        DType::F8e8m0,
    ];

    /// Bytes of one element in memory.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 | DType::I32 => 4,
            DType::Bf16 | DType::F16 => 2,
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::F8e4m3 | DType::F8e5m2 | DType::F8e8m0 => 1,
        }
    }
    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::Bf16 | DType::F16) || self.is_float8()
    }
    /// Whether it is a float of one byte: stored only, never what a product is computed in.
    pub fn is_float8(self) -> bool {
        matches!(self, DType::F8e4m3 | DType::F8e5m2 | DType::F8e8m0)
    }
    /// The name in the text forms.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::U32 => "u32",
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::I32 => "i32",
            DType::F8e4m3 => "f8e4m3",
            DType::F8e5m2 => "f8e5m2",
            DType::F8e8m0 => "f8e8m0",
        }
    }
    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The type of a tensor: element type and extents, row-major.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Type {
    /// The element type.
    pub dtype: DType,
    /// The extents, outermost first.
    pub shape: Vec<Dim>,
}

impl Type {
    /// A tensor type.
    pub fn new(dtype: DType, shape: impl Into<Vec<Dim>>) -> Self {
        Self { dtype, shape: shape.into() }
    }
    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
    /// Elements under a binding.
    pub fn elements(&self, binding: &Binding) -> u64 {
        self.shape.iter().fold(1, |product, dim| product.saturating_mul(dim.eval(binding)))
    }
    /// Bytes under a binding.
    pub fn bytes(&self, binding: &Binding) -> u64 {
        self.elements(binding).saturating_mul(self.dtype.bytes() as u64)
    }
    /// A typical number of elements, for costs.
    pub fn typical(&self) -> f64 {
        self.shape.iter().map(|dim| dim.typical() as f64).product()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (index, dim) in self.shape.iter().enumerate() {
            write!(f, "{}{dim}", if index == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}
