//! Quantised weights into panels of codes, and from them to what lies in GPU memory.

use crate::micro::quant::{PackedPanels, Panels, QuantShape};
use sinter_codegen_weights::{AlignedBytes, Coded, Fragments, PackError, Source, place_codes};
use sinter_ir::{Codes, Offset, WeightDef};

/// Packs the codes, scales and offsets of a weight into zeroed panels.
///
/// # Errors
/// If a tensor is missing or does not fit, or the weight is not defined as such codes.
pub(crate) fn pack(
    def: &WeightDef,
    codes: Codes,
    source: Source<'_, '_>,
    bytes: &mut [u8],
) -> Result<(), PackError> {
    let k = def.ty.shape.last().map_or(0, |depth| depth.coeff as usize);
    place_codes(def, codes, source, &mut Panels { shape: QuantShape::of(k, codes), bytes })
}

impl Coded for Panels<'_> {
    fn codes(&mut self, row: usize, depth: usize, codes: &[u8]) {
        self.put_codes(row, depth, codes.iter().copied());
    }
    fn scale(&mut self, row: usize, group: usize, scale: f32) {
        self.put_scale(row, group, scale);
    }
    fn zero(&mut self, row: usize, group: usize, zero: u8) {
        self.put_zero(row, group, zero);
    }
    fn low(&mut self, row: usize, group: usize, low: f32) {
        self.put_low(row, group, low);
    }
}

/// A weight `[n, k]` in panels as it lies in GPU memory.
pub(crate) fn fragments(codes: Codes, [n, k]: [usize; 2], packed: &[u8]) -> AlignedBytes {
    let mut to = Fragments::zeroed(codes, [n, k]);
    let panels = PackedPanels { shape: QuantShape::of(k, codes), bytes: packed };
    let each = codes.group as usize;
    let mut line = vec![0; each];
    for (row, group) in (0..n).flat_map(|row| (0..k / each).map(move |group| (row, group))) {
        panels.codes(row, group, &mut line);
        to.codes(row, group * each, &line);
        to.scale(row, group, panels.number(row, group, 0));
        match codes.offset {
            Offset::Middle => {}
            Offset::Zeros => to.zero(row, group, panels.zero(row, group)),
            Offset::Lows => to.low(row, group, -panels.number(row, group, 1)),
        }
    }
    to.bytes
}
