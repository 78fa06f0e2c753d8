//! Weights in rows: how they lie in GPU memory.

use crate::{
    AlignedBytes, Fragments, PackError, RawTensor, Source, View, as_u16, bf16_to_f32, constant_shape,
    each_piece, f16_to_f32, f32_to_bf16, place_codes,
};
use sinter_ir::{DType, Layout, WeightDef, gpu_weight_bytes, weight_pitch};

/// Elements that are converted at a time: they stay in the second cache.
const CHUNK: usize = 1 << 16;

/// A weight with the bytes of its rows and the bytes from one row to the next.
struct Rows {
    bytes: AlignedBytes,
    ty: DType,
    width: usize,
    pitch: usize,
    /// Rows for each step along the first axis: more than one in a stack of matrices.
    each: usize,
}

/// The bytes from one row of a weight to the next in GPU memory; the weights of contractions are padded.
pub fn pitch(def: &WeightDef) -> Option<u64> {
    let width = width(def)?;
    Some(match def.layout {
        Layout::Panels => weight_pitch(def.ty.dtype, width),
        Layout::Codes(_) | Layout::Halves => return None,
        Layout::Rows => width.checked_mul(def.ty.dtype.bytes() as u64)?,
    })
}

/// The elements of a row: all but the first axis, and of a contraction's weight the last.
fn width(def: &WeightDef) -> Option<u64> {
    let outer = match def.layout {
        Layout::Panels | Layout::Codes(_) | Layout::Halves => def.ty.rank().checked_sub(1)?,
        Layout::Rows => 1,
    };
    def.ty.shape.iter().skip(outer).try_fold(1u64, |width, dim| width.checked_mul(dim.as_const()?))
}

/// Whether a weight has the same bytes in GPU memory as in plain rows.
pub fn unpitched(def: &WeightDef) -> bool {
    gpu_weight_bytes(&def.ty, def.layout) == gpu_weight_bytes(&def.ty, Layout::Rows)
}

/// Packs a weight as it lies in GPU memory: row-major, the rows of a contraction's weight padded with zeros to 16 bytes; codes
/// as [`Fragments`].
///
/// # Errors
/// If a tensor is missing or does not fit, or the definition is not one of a weight.
pub fn pack_rows<'a>(def: &WeightDef, source: Source<'_, 'a>) -> Result<AlignedBytes, PackError> {
    let refused = || PackError::refused(def, "its layout does not fit its type");
    let size = gpu_weight_bytes(&def.ty, def.layout).ok_or_else(refused)?;
    if let (Layout::Codes(codes), Some([n, k])) = (def.layout, constant_shape(def).as_deref()) {
        let mut fragments = Fragments::zeroed(codes, [*n, *k]);
        place_codes(def, codes, source, &mut fragments)?;
        return Ok(fragments.bytes);
    }
    let (bytes, pitch) = (size, pitch(def).ok_or_else(refused)?);
    let width = width(def).unwrap_or(0) as usize;
    let inner: usize = def.ty.shape.iter().skip(1).map(|dim| dim.coeff as usize).product();
    let (bytes, each) = (AlignedBytes::zeroed(bytes as usize), inner / width.max(1));
    let mut rows = Rows { bytes, ty: def.ty.dtype, width, pitch: pitch as usize, each };
    each_piece(def, source, |view, raw, row| rows.fill(view, raw, row))?;
    Ok(rows.bytes)
}

impl Rows {
    /// Puts the elements of a view at a row and those after it.
    fn fill(&mut self, view: &View, raw: &RawTensor<'_>, row: usize) {
        let size = self.ty.bytes();
        if raw.dtype == self.ty && view.is_contiguous() {
            let from = view.offset * size;
            return self.put(&raw.bytes[from..from + view.len() * size], row);
        }
        for (part, at) in chunks(view) {
            let data = gathered(&part, raw);
            let mut bytes = vec![0; data.len() * size];
            write(self.ty, &data, &mut bytes);
            self.put(&bytes, row + at);
        }
    }

    /// Puts dense rows at a row and those after it.
    fn put(&mut self, dense: &[u8], row: usize) {
        let (width, to) = (self.width * self.ty.bytes(), row * self.each * self.pitch);
        if width == self.pitch || width == 0 {
            self.bytes[to..to + dense.len()].copy_from_slice(dense);
            return;
        }
        let rows = self.bytes[to..].chunks_mut(self.pitch).zip(dense.chunks_exact(width));
        rows.for_each(|(to, from)| to[..width].copy_from_slice(from));
    }
}

/// A view in pieces along its first axis, and where each begins.
pub fn chunks(view: &View) -> Vec<(View, usize)> {
    let Some(rows) = view.shape.first().copied() else { return vec![(view.clone(), 0)] };
    let step = (CHUNK * rows / view.len().max(1)).max(1);
    (0..rows).step_by(step).map(|at| (view.rows(at, step.min(rows - at)), at)).collect()
}

/// The elements of a view in row-major order, as numbers.
pub fn gathered(view: &View, raw: &RawTensor<'_>) -> Vec<f32> {
    let size = raw.dtype.bytes();
    if view.is_contiguous() {
        let bytes = &raw.bytes[view.offset * size..(view.offset + view.len()) * size];
        let mut data = vec![0.0; view.len()];
        match (raw.dtype, as_u16(bytes)) {
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
    dtype.read(&bytes[at * dtype.bytes()..]) as f32
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
        _ => {
            let mut element = Vec::with_capacity(dtype.bytes());
            places.for_each(|(x, to)| {
                element.clear();
                dtype.append(f64::from(*x), &mut element);
                to.copy_from_slice(&element);
            });
        }
    }
}
