//! Weights into panels.
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
    pack::<f32, 1>(src, (n, k), row0, dst, rows);
}

/// Packs `src` `[n][k]` into columns `row0..row0 + n` of the zeroed panels `dst`.
///
/// # Panics
/// Where `src` is not n x k or `dst` has no such columns.
pub fn pack_bf16(src: &[u16], n: usize, k: usize, row0: usize, dst: &mut [u16]) {
    pack::<u16, 2>(src, (n, k), row0, dst, rows);
}

/// Packs the transposed `src` `[k][n]` (GPT-2's `Conv1D`) into columns `row0..row0 + n` of the zeroed panels `dst`.
///
/// # Panics
/// Where `src` is not k x n or `dst` has no such columns.
pub fn pack_f32_t(src: &[f32], n: usize, k: usize, row0: usize, dst: &mut [f32]) {
    pack::<f32, 1>(src, (n, k), row0, dst, columns);
}

/// Packs the transposed `src` `[k][n]` (GPT-2's `Conv1D`) into columns `row0..row0 + n` of the zeroed panels `dst`.
///
/// # Panics
/// Where `src` is not k x n or `dst` has no such columns.
pub fn pack_bf16_t(src: &[u16], n: usize, k: usize, row0: usize, dst: &mut [u16]) {
    pack::<u16, 2>(src, (n, k), row0, dst, columns);
}

/// A part of a source that lands in one panel.
struct Part<'a, T> {
    /// The whole source.
    src: &'a [T],
    /// Its output columns and depth.
    shape: (usize, usize),
    /// The first column of the part.
    column: usize,
    /// How many there are.
    columns: usize,
    /// Where the first lies in the panel.
    at: usize,
}

/// Packs panel by panel with `one`; `G` elements of the depth lie together in a panel.
fn pack<T: Copy, const G: usize>(
    src: &[T],
    (n, k): (usize, usize),
    row0: usize,
    dst: &mut [T],
    one: fn(&Part<'_, T>, &mut [T]),
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
        let (p, at) = ((row0 + column) / PANEL, (row0 + column) % PANEL);
        let columns = (PANEL - at).min(n - column);
        one(&Part { src, shape: (n, k), column, columns, at }, &mut dst[p * panel..][..panel]);
        column += columns;
    }
}

/// Steps of the depth that are packed at a time: 8 KiB of a panel, 256 bytes of each source row.
const STEPS: usize = 64;

/// Packs a part of a source `[n][k]`. A step of the depth is four bytes in either format, so this is a transpose of
/// 32-bit words, four by four.
fn rows<T: Copy>(part: &Part<'_, T>, panel: &mut [T]) {
    let (k, group) = (part.shape.1, 4 / size_of::<T>());
    let steps = k / group;
    for s0 in (0..steps).step_by(STEPS) {
        let end = steps.min(s0 + STEPS);
        for i in (0..part.columns).step_by(4) {
            let whole = if i + 4 <= part.columns { s0 + (end - s0) / 4 * 4 } else { s0 };
            let row = &part.src[(part.column + i) * k..];
            for s in (s0..whole).step_by(4) {
                let to = &mut panel[(s * PANEL + part.at + i) * group..];
                transpose(&row[s * group..], k * size_of::<T>(), to);
            }
            for i in i..part.columns.min(i + 4) {
                let row = &part.src[(part.column + i) * k..][..k];
                for s in whole..end {
                    let to = (s * PANEL + part.at + i) * group;
                    panel[to..to + group].copy_from_slice(&row[s * group..][..group]);
                }
            }
        }
    }
    for i in 0..part.columns {
        // The last element of an odd depth has no partner; its place stays zero.
        for kk in steps * group..k {
            panel[(steps * PANEL + part.at + i) * group + kk % group] = part.src[(part.column + i) * k + kk];
        }
    }
}

/// Four words of each of four rows, `stride` bytes apart in `from`, to four steps of a panel.
#[inline(always)]
fn transpose<T>(from: &[T], stride: usize, to: &mut [T]) {
    use std::arch::x86_64::*;
    assert!(3 * stride + 16 <= size_of_val(from) && (3 * PANEL + 4) * 4 <= size_of_val(to));
    let (from, to) = (from.as_ptr().cast::<u8>(), to.as_mut_ptr().cast::<u8>());
    // SAFETY: the assertion covers the last row read and the last step written; SSE2 is part of x86-64.
    unsafe {
        let row = |i: usize| _mm_loadu_si128(from.add(i * stride).cast());
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        let (ab0, ab1) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
        let (cd0, cd1) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
        let put = |s: usize, x| _mm_storeu_si128(to.add(s * PANEL * 4).cast(), x);
        put(0, _mm_unpacklo_epi64(ab0, cd0));
        put(1, _mm_unpackhi_epi64(ab0, cd0));
        put(2, _mm_unpacklo_epi64(ab1, cd1));
        put(3, _mm_unpackhi_epi64(ab1, cd1));
    }
}

/// Packs a part of a source `[k][n]`: a step interleaves its rows, one in f32 and two in bf16.
fn columns<T: Copy>(part: &Part<'_, T>, panel: &mut [T]) {
    let ((n, k), group) = (part.shape, 4 / size_of::<T>());
    for (s, step) in panel.chunks_mut(PANEL * group).enumerate() {
        let step = &mut step[part.at * group..][..part.columns * group];
        for (g, kk) in (s * group..k.min((s + 1) * group)).enumerate() {
            let row = &part.src[kk * n + part.column..][..part.columns];
            for (to, &x) in step.chunks_exact_mut(group).zip(row) {
                to[g] = x;
            }
        }
    }
}
