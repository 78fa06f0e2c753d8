//! Codes into panels.

use super::super::PANEL;
use sinter_ir::{Codes, Offset};
use std::ops::Range;

/// Bytes of a panel's scales of a group.
pub(super) const SCALES: usize = 4 * PANEL;

/// How a quantised weight of depth `k` lies: as [`Codes`] say, the last group filled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantShape {
    /// The depth.
    pub k: usize,
    /// Depth of a group: a multiple of 8.
    pub group: usize,
    /// Bits of a code: 8 or 4.
    pub bits: usize,
    /// What is taken off codes.
    pub offset: Offset,
}

impl QuantShape {
    /// A weight of depth `k` as codes; the depth is whole groups.
    pub fn of(k: usize, codes: Codes) -> Self {
        Self { k, group: codes.group as usize, bits: codes.bits as usize, offset: codes.offset }
    }

    fn codes(&self) -> Codes {
        Codes { bits: self.bits as u32, group: self.group as u32, offset: self.offset }
    }

    /// Eight bits, symmetric, a scale a column. The sums of products stay within i32 up to a depth of 65,536.
    pub fn int8(k: usize) -> Self {
        Self { k, group: k.next_multiple_of(8).max(8), bits: 8, offset: Offset::Middle }
    }

    /// Four bits, symmetric, a scale for each column and `group` of the depth.
    pub fn int4(k: usize, group: usize) -> Self {
        Self { k, group, bits: 4, offset: Offset::Middle }
    }

    /// Whether this is a shape that the kernels take.
    pub fn is_possible(&self) -> bool {
        let codes = self.bits == 8 || self.bits == 4;
        codes && self.group >= 8 && self.group.is_multiple_of(8) && self.group <= 1 << 16
    }

    /// Groups of the depth, the last filled up with codes that no row multiplies.
    pub fn groups(&self) -> usize {
        self.k.div_ceil(self.group)
    }

    /// Bytes of a group of a panel.
    pub fn group_bytes(&self) -> usize {
        self.codes().group_bytes()
    }

    /// Bytes of a panel.
    pub fn panel_bytes(&self) -> usize {
        self.groups() * self.group_bytes()
    }

    /// Bytes of a packed weight of `n` output columns.
    pub fn bytes(&self, n: usize) -> usize {
        n.div_ceil(PANEL) * self.panel_bytes()
    }

    /// Bytes between rows of activations: the groups, and a line more, lest rows of a power of two share sets of the cache.
    pub fn row_bytes(&self) -> usize {
        (self.groups() * self.group).next_multiple_of(64) + 64
    }

    /// The zero of every group and column where they have none of their own.
    pub(super) fn zero(&self) -> u8 {
        self.codes().middle()
    }
}

impl QuantShape {
    /// Where the bytes of a column's group lie in panels.
    fn group_range(&self, row: usize, group: usize) -> Range<usize> {
        let at = row / PANEL * self.panel_bytes() + group * self.group_bytes();
        at..at + self.group_bytes()
    }

    /// Where a code of a column lies in its group: the byte, and the number of its lowest bit.
    fn place(&self, column: usize, depth: usize) -> (usize, usize) {
        match self.bits {
            8 => (depth / 4 * PANEL * 4 + column * 4 + depth % 4, 0),
            _ => {
                let half = column / 16 * 64 + column % 16 * 4;
                (depth / 8 * PANEL * 4 + half + depth % 4, depth % 8 / 4 * 4)
            }
        }
    }
}

/// Panels in the making.
pub(crate) struct Panels<'a> {
    pub(crate) shape: QuantShape,
    /// Zeroed panels.
    pub(crate) bytes: &'a mut [u8],
}

impl Panels<'_> {
    /// The bytes of a column's group, and the column in its panel.
    fn group(&mut self, row: usize, group: usize) -> (&mut [u8], usize) {
        (&mut self.bytes[self.shape.group_range(row, group)], row % PANEL)
    }

    /// Puts the codes of a column from a depth on.
    pub(crate) fn put_codes(
        &mut self,
        row: usize,
        mut depth: usize,
        mut codes: impl ExactSizeIterator<Item = u8>,
    ) {
        let (each, shape) = (self.shape.group, self.shape);
        while codes.len() > 0 {
            let (group, column) = self.group(row, depth / each);
            let from = depth % each;
            for (d, code) in (from..each).zip(&mut codes) {
                let (byte, bit) = shape.place(column, d);
                group[byte] |= code << bit;
            }
            depth += each - from;
        }
    }

    /// Puts the scale of a column's group.
    pub(crate) fn put_scale(&mut self, row: usize, group: usize, scale: f32) {
        let at = self.shape.codes().code_bytes();
        let (group, column) = self.group(row, group);
        group[at + 4 * column..][..4].copy_from_slice(&scale.to_ne_bytes());
    }

    /// Puts the zero of a column's group.
    pub(crate) fn put_zero(&mut self, row: usize, group: usize, zero: u8) {
        let at = self.shape.codes().code_bytes() + SCALES;
        let (group, column) = self.group(row, group);
        group[at + column] = zero;
    }

    /// Puts what is taken off the products of a column's group; its negative lies there, as it is added.
    pub(crate) fn put_low(&mut self, row: usize, group: usize, low: f32) {
        let at = self.shape.codes().code_bytes() + SCALES;
        let (group, column) = self.group(row, group);
        group[at + 4 * column..][..4].copy_from_slice(&(-low).to_ne_bytes());
    }
}

/// Panels to be read.
pub(crate) struct PackedPanels<'a> {
    pub(crate) shape: QuantShape,
    pub(crate) bytes: &'a [u8],
}

impl PackedPanels<'_> {
    /// The bytes of a column's group, and the column in its panel.
    fn group(&self, row: usize, group: usize) -> (&[u8], usize) {
        (&self.bytes[self.shape.group_range(row, group)], row % PANEL)
    }

    /// The codes of a column's group.
    pub(crate) fn codes(&self, row: usize, group: usize, codes: &mut [u8]) {
        let mask = if self.shape.bits == 8 { 255 } else { 15 };
        let (group, column) = self.group(row, group);
        for (depth, code) in codes.iter_mut().enumerate() {
            let (byte, bit) = self.shape.place(column, depth);
            *code = group[byte] >> bit & mask;
        }
    }

    /// The zero of a column's group.
    pub(crate) fn zero(&self, row: usize, group: usize) -> u8 {
        let (group, column) = self.group(row, group);
        group[self.shape.codes().code_bytes() + SCALES + column]
    }

    /// A number of a column's group: the first is its scale, the second is added to products.
    pub(crate) fn number(&self, row: usize, group: usize, which: usize) -> f32 {
        let at = self.shape.codes().code_bytes() + which * SCALES;
        let (group, column) = self.group(row, group);
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&group[at + 4 * column..][..4]);
        f32::from_ne_bytes(bytes)
    }
}

/// Packs `codes` `[n][k]`, `scales` `[n][groups]` and `zeros` `[n][groups]` into columns `row0..row0 + n` of the zeroed panels
/// `dst`. Padding columns have the scale 0.
///
/// # Panics
/// Where the shape is not possible, a source is not of this size, a code does not fit, or `dst` has no such columns.
pub fn pack_codes(
    shape: &QuantShape,
    (codes, scales, zeros): (&[u8], &[f32], Option<&[u8]>),
    row0: usize,
    dst: &mut [u8],
) {
    let (k, groups) = (shape.k, shape.groups());
    let n = codes.len() / k.max(1);
    let own = shape.offset == Offset::Zeros;
    assert!(shape.is_possible(), "{shape:?} is no shape of quantised weights");
    assert_eq!(codes.len(), n * k, "the codes are not rows of {k}");
    assert_eq!(scales.len(), n * groups, "wanted {groups} scales for each of {n} columns");
    assert_eq!(zeros.map(<[u8]>::len), own.then_some(n * groups), "wanted zeros as the shape says");
    assert!(shape.bits == 8 || codes.iter().all(|code| *code < 16), "a code has more than four bits");
    assert!(dst.len() >= shape.bytes(row0 + n), "the panels have no columns {row0}..{}", row0 + n);
    let mut panels = Panels { shape: *shape, bytes: dst };
    for i in 0..n {
        panels.put_codes(row0 + i, 0, codes[i * k..(i + 1) * k].iter().copied());
        for g in 0..groups {
            panels.put_scale(row0 + i, g, scales[i * groups + g]);
            if let Some(zeros) = zeros {
                panels.put_zero(row0 + i, g, zeros[i * groups + g]);
            }
        }
    }
}
