//! Weights that stay codes: what a source graph says of codes, scales and offsets, and how all of it lies in GPU memory.

use crate::{AlignedBytes, PackError, Source, each_element};
use sinter_ir::{CODE_ROWS, CodePart, Codes, Graph, Offset, ValueId, WeightDef, dequantised};

/// Where the codes of a weight go. What is not placed stays zero.
pub trait Coded {
    /// Codes of a row from a depth on.
    fn codes(&mut self, row: usize, depth: usize, codes: &[u8]);
    /// The scale of a row's group.
    fn scale(&mut self, row: usize, group: usize, scale: f32);
    /// The zero of a row's group.
    fn zero(&mut self, row: usize, group: usize, zero: u8);
    /// What is taken off the products of a row's group.
    fn low(&mut self, row: usize, group: usize, low: f32);
}

/// Places the codes, scales and offsets of a weight.
///
/// # Errors
/// If a tensor is missing or does not fit, or the weight is not defined as such codes.
pub fn place_codes(
    def: &WeightDef,
    codes: Codes,
    source: Source<'_, '_>,
    to: &mut dyn Coded,
) -> Result<(), PackError> {
    let refused = || PackError::refused(def, "its source does not dequantise codes of its layout");
    let [(_, output)] = &def.source.outputs[..] else { return Err(refused()) };
    let found = dequantised(&def.source, *output).filter(|found| found.codes == codes).ok_or_else(refused)?;
    let k = def.ty.shape.last().map_or(0, |depth| depth.coeff as usize);
    let mut row = 0;
    for part in &found.parts {
        fill(to, (codes, k), (&def.source, part), (source, row))?;
        row += part.rows;
    }
    Ok(())
}

/// Places the rows of one part from row `row0` on.
fn fill(
    to: &mut dyn Coded,
    (codes, k): (Codes, usize),
    (graph, part): (&Graph, &CodePart),
    (source, row0): (Source<'_, '_>, usize),
) -> Result<(), PackError> {
    let group = codes.group as usize;
    let all = |value: ValueId| -> Result<Vec<f32>, PackError> {
        let mut data = Vec::new();
        each_element(graph, value, source, &mut |_, some| data.extend_from_slice(some))?;
        Ok(data)
    };
    let (scales, offsets) = (all(part.scales)?, part.offsets.map(all).transpose()?);
    // Each lies for a run of elements, which is a group, whole rows or the whole part.
    let of = |data: &[f32], row: usize, g: usize| data[(row * k + g * group) * data.len() / (part.rows * k)];
    for (row, g) in (0..part.rows).flat_map(|row| (0..k / group).map(move |g| (row, g))) {
        to.scale(row0 + row, g, of(&scales, row, g));
        let offset = offsets.as_deref().map_or(0.0, |offsets| of(offsets, row, g));
        match codes.offset {
            Offset::Middle => {}
            Offset::Zeros => to.zero(row0 + row, g, (offset - part.first as f32) as u8),
            Offset::Lows => to.low(row0 + row, g, if part.added { -offset } else { offset }),
        }
    }
    let mut line = Vec::new();
    each_element(graph, part.codes, source, &mut |first, data| {
        let (mut at, mut data) = (first, data);
        while !data.is_empty() {
            let (row, depth) = (at / k, at % k);
            let (here, rest) = data.split_at(data.len().min(k - depth));
            line.clear();
            line.extend(here.iter().map(|code| (code - part.first as f32) as u8));
            to.codes(row0 + row, depth, &line);
            (at, data) = (at + here.len(), rest);
        }
    })
}

/// A weight in codes as it lies in GPU memory, in the making.
pub struct Fragments {
    codes: Codes,
    k: usize,
    /// What was placed so far.
    pub bytes: AlignedBytes,
}

impl Fragments {
    /// A weight `[n, k]` whose codes and scales are all zero.
    pub fn zeroed(codes: Codes, [n, k]: [usize; 2]) -> Self {
        Self { codes, k, bytes: AlignedBytes::zeroed(codes.gpu_bytes(n, k)) }
    }

    fn tile(&mut self, row: usize) -> (&mut [u8], usize) {
        let size = self.codes.tile_bytes(self.k);
        (&mut self.bytes[row / CODE_ROWS * size..][..size], row % CODE_ROWS)
    }

    /// Puts a number of four bytes into a record, so many bytes behind its beginning.
    fn number(&mut self, (row, group): (usize, usize), behind: usize, number: f32) {
        let at = self.codes.tile_code_bytes(self.k) + group * self.codes.record_bytes() + behind;
        let (tile, row) = self.tile(row);
        tile[at + 4 * row..][..4].copy_from_slice(&number.to_le_bytes());
    }
}

impl Coded for Fragments {
    fn codes(&mut self, row: usize, depth: usize, codes: &[u8]) {
        let layout = self.codes;
        let (tile, row) = self.tile(row);
        for (depth, code) in (depth..).zip(codes) {
            let (byte, bit) = layout.place(row, depth);
            tile[byte] |= code << bit;
        }
    }
    fn scale(&mut self, row: usize, group: usize, scale: f32) {
        self.number((row, group), 0, scale);
    }
    fn zero(&mut self, row: usize, group: usize, zero: u8) {
        let at = self.codes.tile_code_bytes(self.k) + group * self.codes.record_bytes() + 4 * CODE_ROWS;
        let (tile, row) = self.tile(row);
        tile[at + row] = zero;
    }
    fn low(&mut self, row: usize, group: usize, low: f32) {
        self.number((row, group), 4 * CODE_ROWS, -low);
    }
}
