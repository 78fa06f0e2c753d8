//! Weights into panels, and slices between float formats.
//!
//! A pack function writes the columns that its source fills and nothing else, so that several sources can be laid side
//! by side in one weight (query, key and value; gate and up). The destination starts as zeros, which is the padding.

use super::PANEL;

/// Bytes of a packed f32 weight of `n` output columns and depth `k`.
pub fn panel_bytes_f32(n: usize, k: usize) -> usize {
    n.div_ceil(PANEL) * k * PANEL * 4
}

/// Bytes of a packed bf16 weight of `n` output columns and depth `k`.
pub fn panel_bytes_bf16(n: usize, k: usize) -> usize {
    n.div_ceil(PANEL) * k.div_ceil(2) * PANEL * 4
}

/// Packs `src` `[n][k]` into columns `row0..row0 + n` of the zeroed panels `dst`.
///
/// # Panics
/// Where `src` is not n x k or `dst` has no such columns.
pub fn pack_f32(src: &[f32], n: usize, k: usize, row0: usize, dst: &mut [f32]) {
    pack::<f32, 1>(src, (n, k), (k, 1), row0, dst);
}

/// Packs `src` `[n][k]` into columns `row0..row0 + n` of the zeroed panels `dst`.
///
/// # Panics
/// Where `src` is not n x k or `dst` has no such columns.
pub fn pack_bf16(src: &[u16], n: usize, k: usize, row0: usize, dst: &mut [u16]) {
    pack::<u16, 2>(src, (n, k), (k, 1), row0, dst);
}

/// Packs the transposed `src` `[k][n]` (GPT-2's `Conv1D`) into columns `row0..row0 + n` of the zeroed panels `dst`.
///
/// # Panics
/// Where `src` is not k x n or `dst` has no such columns.
pub fn pack_f32_t(src: &[f32], n: usize, k: usize, row0: usize, dst: &mut [f32]) {
    pack::<f32, 1>(src, (n, k), (1, n), row0, dst);
}

/// Packs the transposed `src` `[k][n]` (GPT-2's `Conv1D`) into columns `row0..row0 + n` of the zeroed panels `dst`.
///
/// # Panics
/// Where `src` is not k x n or `dst` has no such columns.
pub fn pack_bf16_t(src: &[u16], n: usize, k: usize, row0: usize, dst: &mut [u16]) {
    pack::<u16, 2>(src, (n, k), (1, n), row0, dst);
}

/// Depth that is packed at a time: 32 columns of it stay in L1.
const DEPTH: usize = 64;

/// Packs a source whose element (column, depth) is at `column * strides.0 + depth * strides.1`; `G` elements of the depth
/// lie together in a panel.
fn pack<T: Copy, const G: usize>(
    src: &[T],
    (n, k): (usize, usize),
    strides: (usize, usize),
    row0: usize,
    dst: &mut [T],
) {
    assert_eq!(src.len(), n * k, "the source of a packed weight is {n} x {k}");
    let panel = k.div_ceil(G) * G * PANEL;
    assert!(
        (row0 + n).div_ceil(PANEL) * panel <= dst.len(),
        "a packed weight of {} elements has no columns {row0}..{} of depth {k}",
        dst.len(),
        row0 + n
    );
    let mut column = 0;
    while column < n {
        let at = row0 + column;
        let columns = (PANEL - at % PANEL).min(n - column);
        let dst = &mut dst[at / PANEL * panel..][..panel];
        for k0 in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - k0);
            for i in 0..columns {
                let src = &src[(column + i) * strides.0 + k0 * strides.1..];
                let to = k0 * PANEL + (at % PANEL + i) * G;
                for kk in 0..depth {
                    dst[to + kk / G * G * PANEL + kk % G] = src[kk * strides.1];
                }
            }
        }
        column += columns;
    }
}

/// Rounds to bf16, to nearest even; NaN stays NaN.
///
/// # Panics
/// Where the lengths differ.
pub fn f32_to_bf16(src: &[f32], dst: &mut [u16]) {
    assert_eq!(src.len(), dst.len(), "a conversion keeps the length");
    for (dst, &x) in dst.iter_mut().zip(src) {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        *dst = if x.is_nan() { (bits >> 16) | 0x40 } else { rounded } as u16;
    }
}

/// Widens bf16, exactly.
///
/// # Panics
/// Where the lengths differ.
pub fn bf16_to_f32(src: &[u16], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "a conversion keeps the length");
    for (dst, &x) in dst.iter_mut().zip(src) {
        *dst = f32::from_bits(u32::from(x) << 16);
    }
}

/// Widens f16, exactly.
///
/// # Panics
/// Where the lengths differ.
pub fn f16_to_f32(src: &[u16], dst: &mut [f32]) {
    use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
    src.reinterpret_cast::<half::f16>().convert_to_f32_slice(dst);
}
