//! Matrices rounded to few bits: scales, zeros and codes, as compressed-tensors stores them.

use safetensors::Dtype;
use serde_json::{Value, json};
use sinter_ir::{DType, Real};

/// The codes that numbers are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Whole numbers of 8 bits.
    Int8,
    /// Whole numbers of 4 bits.
    Int4,
    /// Floats of 8 bits, 4 of them exponent.
    Fp8,
}

/// How matrices are rounded.
#[derive(Debug, Clone, Copy)]
pub struct Rounding {
    /// The codes.
    pub format: Format,
    /// So many columns of a row share a scale; a whole row if none.
    pub group: Option<usize>,
    /// Whether each scale has a zero beside it, so that codes cover a group's own range.
    pub asymmetric: bool,
}

/// A rounded matrix.
pub(super) struct Rounded {
    /// The bytes of the tensors of [`Rounding::parts`].
    pub(super) parts: Vec<Vec<u8>>,
    /// The relative distance from the matrix.
    pub(super) error: f64,
}

/// A matrix as codes `[rows, columns]`, with the scale and the zero of each group, `[rows, groups]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Coded {
    pub(super) codes: Vec<u8>,
    pub(super) scales: Vec<f32>,
    pub(super) zeros: Vec<u8>,
}

impl Coded {
    /// Room for a matrix of so many rows and columns.
    pub(super) fn empty(rounding: &Rounding, (rows, columns): (usize, usize)) -> Self {
        let groups = rows * rounding.groups(columns);
        Self { codes: vec![0; rows * columns], scales: vec![1.0; groups], zeros: vec![0; groups] }
    }
}

impl Rounding {
    pub(super) fn bits(&self) -> usize {
        if self.format == Format::Int4 { 4 } else { 8 }
    }

    /// The layout's name.
    pub(super) fn layout(&self) -> &'static str {
        if self.format == Format::Fp8 { "float-quantized" } else { "pack-quantized" }
    }

    /// The arguments of the weights in the configuration.
    pub(super) fn description(&self) -> Value {
        json!({
            "num_bits": self.bits(),
            "type": if self.format == Format::Fp8 { "float" } else { "int" },
            "symmetric": !self.asymmetric,
            "strategy": if self.group.is_some() { "group" } else { "channel" },
            "group_size": self.group,
            "dynamic": false,
        })
    }

    pub(super) fn groups(&self, columns: usize) -> usize {
        self.group.map_or(1, |group| columns / group)
    }

    /// The tensors that a matrix becomes: ending, type, shape.
    pub(super) fn parts(
        &self,
        (rows, columns): (usize, usize),
        weights: Dtype,
    ) -> Vec<(&'static str, Dtype, Vec<usize>)> {
        let groups = self.groups(columns);
        if self.format == Format::Fp8 {
            return vec![
                ("weight", Dtype::F8_E4M3, vec![rows, columns]),
                ("weight_scale", weights, vec![rows, groups]),
            ];
        }
        let words = |count: usize| (count * self.bits()).div_ceil(32);
        let mut parts = vec![
            ("weight_packed", Dtype::I32, vec![rows, words(columns)]),
            ("weight_scale", weights, vec![rows, groups]),
        ];
        if self.asymmetric {
            parts.push(("weight_zero_point", Dtype::I32, vec![words(rows), groups]));
        }
        parts
    }

    /// The shape of a packed matrix, which its words do not tell.
    pub(super) fn shape_bytes(&self, (rows, columns): (usize, usize)) -> Option<Vec<u8>> {
        let extents = [rows as i64, columns as i64];
        (self.format != Format::Fp8).then(|| extents.iter().flat_map(|extent| extent.to_le_bytes()).collect())
    }

    /// Rounds a matrix, row-major.
    pub(super) fn apply(&self, values: &[f32], columns: usize, weights: DType) -> Rounded {
        let coded = self.nearest(values, columns, weights);
        let error = distance(values, &self.values(&coded, columns));
        Rounded { parts: self.packed(&coded, columns, weights), error }
    }

    /// The nearest code of each number of a matrix, row-major.
    pub(super) fn nearest(&self, values: &[f32], columns: usize, weights: DType) -> Coded {
        let width = self.width(columns);
        let mut coded = Coded::empty(self, (values.len() / columns.max(1), columns));
        for (at, (group, codes)) in values.chunks(width).zip(coded.codes.chunks_mut(width)).enumerate() {
            let (scale, zero) = self.scale(range(group), weights);
            codes.iter_mut().zip(group).for_each(|(code, value)| *code = self.code(*value, scale, zero));
            (coded.scales[at], coded.zeros[at]) = (scale, zero);
        }
        coded
    }

    /// Columns that share a scale.
    pub(super) fn width(&self, columns: usize) -> usize {
        self.group.unwrap_or(columns).max(1)
    }

    /// The numbers that codes stand for.
    pub(super) fn values(&self, coded: &Coded, columns: usize) -> Vec<f32> {
        let groups = coded.codes.chunks(self.width(columns)).zip(coded.scales.iter().zip(&coded.zeros));
        let number = |code: &u8, scale: &f32, zero: &u8| self.number(*code, *scale, *zero);
        groups
            .flat_map(|(codes, (scale, zero))| codes.iter().map(move |code| number(code, scale, zero)))
            .collect()
    }

    /// Codes, scales and zeros as they are stored.
    pub(super) fn packed(&self, coded: &Coded, columns: usize, weights: DType) -> Vec<Vec<u8>> {
        let mut stored = Vec::new();
        coded.scales.iter().for_each(|scale| weights.append(f64::from(*scale), &mut stored));
        if self.format == Format::Fp8 {
            return vec![coded.codes.clone(), stored];
        }
        let mut parts = vec![self.packed_rows(&coded.codes, columns), stored];
        if self.asymmetric {
            parts.push(self.packed_columns(&coded.zeros, self.groups(columns)));
        }
        parts
    }

    /// The scale of numbers in a range that 0 is in, as it is stored, and their zero as an unsigned code.
    pub(super) fn scale(&self, (low, high): (f32, f32), weights: DType) -> (f32, u8) {
        let most = ((1u32 << self.bits()) - 1) as f32;
        let half = 1u8 << (self.bits() - 1);
        let scale = match (self.format, self.asymmetric) {
            (Format::Fp8, _) => high.max(-low) / 448.0,
            (_, true) => (high - low) / most,
            (_, false) => high.max(-low) / (most / 2.0).floor(),
        };
        // Codes are chosen for the scale that readers see.
        let scale = scale.stored(weights);
        let scale = if scale > 0.0 && scale.is_finite() { scale } else { 1.0 };
        let zero =
            if self.asymmetric { (-low / scale).round_ties_even().clamp(0.0, most) as u8 } else { half };
        (scale, zero)
    }

    /// The code that is nearest to a number, unsigned.
    pub(super) fn code(&self, value: f32, scale: f32, zero: u8) -> u8 {
        if self.format == Format::Fp8 {
            return sinter_ir::Float8::E4m3.encode(value / scale);
        }
        let most = ((1u32 << self.bits()) - 1) as f32;
        ((value / scale).round_ties_even() + f32::from(zero)).clamp(0.0, most) as u8
    }

    /// The number that a code stands for.
    pub(super) fn number(&self, code: u8, scale: f32, zero: u8) -> f32 {
        match self.format {
            Format::Fp8 => sinter_ir::Float8::E4m3.decode(code) * scale,
            Format::Int8 | Format::Int4 => (f32::from(code) - f32::from(zero)) * scale,
        }
    }

    /// Codes of rows as little-endian bits of words, each row padded to whole ones.
    fn packed_rows(&self, codes: &[u8], columns: usize) -> Vec<u8> {
        let bytes = (columns * self.bits()).div_ceil(32) * 4;
        let row = |row: &[u8]| {
            let mut packed: Vec<u8> = match self.bits() {
                4 => row.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |high| high << 4)).collect(),
                _ => row.to_vec(),
            };
            packed.resize(bytes, 0);
            packed
        };
        codes.chunks(columns.max(1)).flat_map(row).collect()
    }

    /// Zeros `[rows, groups]` packed along rows.
    fn packed_columns(&self, zeros: &[u8], groups: usize) -> Vec<u8> {
        let rows = zeros.len() / groups.max(1);
        let column = |group: usize| (0..rows).map(|row| zeros[row * groups + group]).collect::<Vec<u8>>();
        let columns: Vec<Vec<u8>> = (0..groups).map(|group| self.packed_rows(&column(group), rows)).collect();
        let words = columns.first().map_or(0, |column| column.len() / 4);
        (0..words)
            .flat_map(|word| columns.iter().flat_map(move |column| column[word * 4..][..4].to_vec()))
            .collect()
    }
}

/// The least and the greatest of some numbers and 0.
pub(super) fn range(numbers: &[f32]) -> (f32, f32) {
    numbers.iter().fold((0.0, 0.0), |(low, high), x| (x.min(low), x.max(high)))
}

/// The root of the squared differences' sum over that of the squares.
pub(super) fn distance(wanted: &[f32], found: &[f32]) -> f64 {
    let apart: f64 = wanted.iter().zip(found).map(|(x, y)| f64::from(y - x).powi(2)).sum();
    let whole: f64 = wanted.iter().map(|x| f64::from(*x).powi(2)).sum();
    (apart / whole.max(f64::MIN_POSITIVE)).sqrt()
}

/// Random numbers for tests of roundings, most of them near 0.
#[cfg(test)]
pub(super) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut seed = seed;
    let mut next = || {
        seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
        f32::from((seed >> 16) as u16) / 65536.0 - 0.5
    };
    (0..count).map(|_| next() + next() + next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(format: Format, group: Option<usize>, asymmetric: bool) -> f64 {
        let mut seed = 9u32;
        let mut next = || {
            seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
            f32::from((seed >> 16) as u16) / 65536.0
        };
        let values: Vec<f32> = (0..64 * 96).map(|_| (next() + next() + next() - 1.4) * 0.1).collect();
        Rounding { format, group, asymmetric }.apply(&values, 96, DType::Bf16).error
    }

    #[test]
    fn errors_are_those_of_the_step_between_codes() {
        // A step s leaves s/√12; three uniform numbers spread 0.5 and reach 1.6.
        assert!(error(Format::Int8, None, false) < 8e-3);
        assert!((0.03..0.12).contains(&error(Format::Int4, Some(32), false)));
        assert!(error(Format::Int4, Some(32), true) < error(Format::Int4, Some(32), false));
        assert!(error(Format::Int4, Some(32), false) < error(Format::Int4, None, false));
        assert!((0.015..0.04).contains(&error(Format::Fp8, None, false)));
    }

    #[test]
    fn a_group_of_zeros_stays_zero() {
        let rounding = Rounding { format: Format::Int4, group: Some(32), asymmetric: true };
        let rounded = rounding.apply(&[0.0; 64], 32, DType::F32);
        assert_eq!((rounded.error, rounded.parts[0].iter().all(|byte| *byte == 0)), (0.0, true));
    }

    #[test]
    fn codes_and_zeros_are_packed_low_bits_first() {
        let rounding = Rounding { format: Format::Int4, group: Some(2), asymmetric: true };
        assert_eq!(rounding.packed_rows(&[1, 2, 3, 4, 5, 6], 3), [0x21, 3, 0, 0, 0x54, 6, 0, 0]);
        // Two groups of three rows: a word of each group.
        assert_eq!(rounding.packed_columns(&[1, 2, 3, 4, 5, 6], 2), [0x31, 5, 0, 0, 0x42, 6, 0, 0]);
    }
}
