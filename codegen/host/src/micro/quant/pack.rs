//! Codes into panels.

use super::super::PANEL;

/// Bytes of a panel's scales of a group.
pub(super) const SCALES: usize = 4 * PANEL;
/// Bytes of a panel's zeros of a group, and padding to a cache line.
pub(super) const ZEROS: usize = 64;

/// How a quantised weight of depth `k` lies.
///
/// A panel is its groups one after the other, and a group is its codes, 32 scales in f32 and, with `zeros`, 32 zeros of a
/// byte in 64 bytes. Codes of eight bits are `[group / 4][32][4]`. Codes of four bits are `[group / 8][2][16][4]` bytes for
/// the halves of the panel, where a byte holds the codes of a column at depths d (low) and d + 4 (high).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct QuantShape {
    /// The depth.
    pub k: usize,
    /// Depth of a group: a multiple of 8.
    pub group: usize,
    /// Bits of a code: 8 or 4.
    pub bits: usize,
    /// Whether each group and column has a zero of its own; it is 128 or 8 otherwise.
    pub zeros: bool,
}

impl QuantShape {
    /// Eight bits, symmetric, a scale a column. The sums of products stay within i32 up to a depth of 65,536.
    pub fn int8(k: usize) -> Self {
        Self { k, group: k.next_multiple_of(8).max(8), bits: 8, zeros: false }
    }

    /// Four bits, symmetric, a scale for each column and `group` of the depth.
    pub fn int4(k: usize, group: usize) -> Self {
        Self { k, group, bits: 4, zeros: false }
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
        self.group * PANEL * self.bits / 8 + SCALES + if self.zeros { ZEROS } else { 0 }
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
        if self.bits == 8 { 128 } else { 8 }
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
    assert!(shape.is_possible(), "{shape:?} is no shape of quantised weights");
    assert_eq!(codes.len(), n * k, "the codes are not rows of {k}");
    assert_eq!(scales.len(), n * groups, "wanted {groups} scales for each of {n} columns");
    assert_eq!(zeros.map(<[u8]>::len), shape.zeros.then_some(n * groups), "wanted zeros as the shape says");
    assert!(shape.bits == 8 || codes.iter().all(|code| *code < 16), "a code has more than four bits");
    assert!(dst.len() >= shape.bytes(row0 + n), "the panels have no columns {row0}..{}", row0 + n);
    for i in 0..n {
        let (panel, column) = ((row0 + i) / PANEL, (row0 + i) % PANEL);
        let panel = &mut dst[panel * shape.panel_bytes()..][..shape.panel_bytes()];
        for (g, to) in panel.chunks_exact_mut(shape.group_bytes()).enumerate() {
            let depth = g * shape.group..k.min((g + 1) * shape.group);
            put(shape, &codes[i * k..][depth], column, to);
            let at = shape.group_bytes() - SCALES - if shape.zeros { ZEROS } else { 0 };
            to[at + 4 * column..][..4].copy_from_slice(&scales[i * groups + g].to_ne_bytes());
            if let Some(zeros) = zeros {
                to[at + SCALES + column] = zeros[i * groups + g];
            }
        }
    }
}

/// Puts the codes of a column's group.
fn put(shape: &QuantShape, codes: &[u8], column: usize, group: &mut [u8]) {
    for (d, code) in codes.iter().enumerate() {
        if shape.bits == 8 {
            group[d / 4 * PANEL * 4 + column * 4 + d % 4] = *code;
        } else {
            let half = column / 16 * 64 + column % 16 * 4;
            group[d / 8 * PANEL * 4 + half + d % 4] |= code << (d % 8 / 4 * 4);
        }
    }
}
