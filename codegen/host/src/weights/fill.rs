//! Elements to their places.

use super::bytes::{self, AlignedBytes};
use super::{RawTensor, view::View};
use crate::micro::{bf16_to_f32, f16_to_f32, f32_to_bf16, pack_bf16, pack_bf16_t, pack_f32, pack_f32_t};
use half::f16;
use sinter_ir::{DType, Layout};

/// Elements that are converted at a time: they stay in the second cache.
const CHUNK: usize = 1 << 16;

/// A weight in the making.
pub(super) struct Target {
    pub(super) bytes: AlignedBytes,
    pub(super) ty: DType,
    pub(super) layout: Layout,
}

/// All elements of a tensor as numbers.
pub(super) fn numbers(raw: &RawTensor<'_>) -> Vec<f32> {
    gathered(&View::whole("", raw.shape.clone()), raw)
}

impl Target {
    /// Puts a view after what is there; `row` counts what that is along the first axis. Returns the new count.
    pub(super) fn fill(&mut self, view: &View, raw: &RawTensor<'_>, row: usize) -> usize {
        let rows = view.shape.first().copied().unwrap_or(1);
        if view.len() == 0 {
            return row + rows;
        }
        match self.layout {
            Layout::Rows => self.fill_rows(view, raw, row),
            Layout::Panels => self.fill_panels(view, raw, row),
        }
        row + rows
    }

    fn fill_rows(&mut self, view: &View, raw: &RawTensor<'_>, row: usize) {
        let size = self.ty.bytes();
        let width = view.shape.iter().skip(1).product::<usize>();
        let to = row * width * size;
        if raw.dtype == self.ty && view.is_contiguous() {
            let from = view.offset * size;
            self.bytes[to..to + view.len() * size]
                .copy_from_slice(&raw.bytes[from..from + view.len() * size]);
            return;
        }
        for (part, at) in chunks(view) {
            let data = gathered(&part, raw);
            let to = to + at * width * size;
            write(self.ty, &data, &mut self.bytes[to..to + data.len() * size]);
        }
    }

    fn fill_panels(&mut self, view: &View, raw: &RawTensor<'_>, row: usize) {
        let (n, k) = (view.shape[0], view.shape[1]);
        let transposed = view.strides == [1, n];
        if raw.dtype == self.ty && (view.is_contiguous() || transposed) {
            let size = self.ty.bytes();
            let source = &raw.bytes[view.offset * size..(view.offset + view.len()) * size];
            if let (DType::F32, Some(source)) = (self.ty, bytes::as_f32(source)) {
                let pack = if view.is_contiguous() { pack_f32 } else { pack_f32_t };
                return pack(source, n, k, row, self.bytes.as_f32());
            }
            if let (DType::Bf16, Some(source)) = (self.ty, bytes::as_u16(source)) {
                let pack = if view.is_contiguous() { pack_bf16 } else { pack_bf16_t };
                return pack(source, n, k, row, self.bytes.as_u16());
            }
        }
        for (part, at) in chunks(view) {
            let data = gathered(&part, raw);
            let rows = part.shape[0];
            if self.ty == DType::Bf16 {
                let mut halves = vec![0; data.len()];
                f32_to_bf16(&data, &mut halves);
                pack_bf16(&halves, rows, k, row + at, self.bytes.as_u16());
            } else {
                pack_f32(&data, rows, k, row + at, self.bytes.as_f32());
            }
        }
    }
}

/// A view in pieces along its first axis, and where each begins.
fn chunks(view: &View) -> Vec<(View, usize)> {
    let Some(rows) = view.shape.first().copied() else { return vec![(view.clone(), 0)] };
    let step = (CHUNK * rows / view.len().max(1)).max(1);
    (0..rows).step_by(step).map(|at| (view.rows(at, step.min(rows - at)), at)).collect()
}

/// The elements of a view in row-major order, as numbers.
fn gathered(view: &View, raw: &RawTensor<'_>) -> Vec<f32> {
    let size = raw.dtype.bytes();
    if view.is_contiguous() {
        let bytes = &raw.bytes[view.offset * size..(view.offset + view.len()) * size];
        let mut data = vec![0.0; view.len()];
        match (raw.dtype, bytes::as_u16(bytes)) {
            (DType::Bf16, Some(halves)) => bf16_to_f32(halves, &mut data),
            (DType::F16, Some(halves)) => f16_to_f32(halves, &mut data),
            _ => data.iter_mut().enumerate().for_each(|(at, x)| *x = element(raw.dtype, bytes, at)),
        }
        return data;
    }
    let mut position = vec![0; view.shape.len()];
    let mut data = Vec::with_capacity(view.len());
    for _ in 0..view.len() {
        let at: usize = position.iter().zip(&view.strides).map(|(p, stride)| p * stride).sum();
        data.push(element(raw.dtype, raw.bytes, view.offset + at));
        for (p, extent) in position.iter_mut().zip(&view.shape).rev() {
            *p += 1;
            if *p < *extent {
                break;
            }
            *p = 0;
        }
    }
    data
}

fn element(dtype: DType, bytes: &[u8], at: usize) -> f32 {
    let b = &bytes[at * dtype.bytes()..];
    match dtype {
        DType::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        DType::Bf16 => f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16),
        DType::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
        DType::U32 => u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32,
        DType::Bool => f32::from(u8::from(b[0] != 0)),
    }
}

fn write(dtype: DType, data: &[f32], bytes: &mut [u8]) {
    let places = data.iter().zip(bytes.chunks_exact_mut(dtype.bytes()));
    match dtype {
        DType::F32 => places.for_each(|(x, to)| to.copy_from_slice(&x.to_le_bytes())),
        DType::Bf16 => {
            let mut halves = vec![0; data.len()];
            f32_to_bf16(data, &mut halves);
            halves.iter().zip(places).for_each(|(half, (_, to))| to.copy_from_slice(&half.to_le_bytes()));
        }
        DType::F16 => places.for_each(|(x, to)| to.copy_from_slice(&f16::from_f32(*x).to_le_bytes())),
        DType::U32 => places.for_each(|(x, to)| to.copy_from_slice(&(*x as u32).to_le_bytes())),
        DType::Bool => places.for_each(|(x, to)| to[0] = u8::from(*x != 0.0)),
    }
}
