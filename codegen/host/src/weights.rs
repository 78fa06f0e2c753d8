//! Weights as the kernels want them: rows as everywhere, and panels, which only the host has.

use crate::micro::{PANEL, pack_bf16, pack_bf16_t, pack_f32, pack_f32_t, panel_bytes_bf16, panel_bytes_f32};
use sinter_codegen_weights::{
    AlignedBytes, PackError, RawTensor, Source, View, as_f32, as_u16, chunks, constant_shape, each_piece,
    f32_to_bf16, gathered, pack_rows,
};
use sinter_ir::{DType, Layout, WeightDef, gpu_weight_bytes, weight_pitch};

/// A weight, ready to be lent to kernels.
#[derive(Debug)]
pub struct Packed {
    /// The elements in the layout of the definition.
    pub bytes: AlignedBytes,
}

/// The bytes that a weight takes, padding included; none if its shape is not constant or its layout not possible.
pub fn packed_bytes(def: &WeightDef) -> Option<usize> {
    let shape = constant_shape(def)?;
    match (def.layout, def.ty.dtype, &shape[..]) {
        (Layout::Rows, dtype, _) => Some(shape.iter().product::<usize>() * dtype.bytes()),
        (Layout::Panels, DType::F32, [n, k]) => Some(panel_bytes_f32(*n, *k)),
        (Layout::Panels, DType::Bf16, [n, k]) => Some(panel_bytes_bf16(*n, *k)),
        (Layout::Panels, ..) => None,
    }
}

/// Packs a weight.
///
/// # Errors
/// If a tensor is missing or does not fit, or the definition is not one of a weight.
pub fn pack<'a>(def: &WeightDef, source: Source<'_, 'a>) -> Result<Packed, PackError> {
    let size =
        packed_bytes(def).ok_or_else(|| PackError::refused(def, "its layout does not fit its type"))?;
    if def.layout == Layout::Rows {
        return Ok(Packed { bytes: pack_rows(def, source)? });
    }
    let mut bytes = AlignedBytes::zeroed(size);
    each_piece(def, source, |view, raw, row| fill(&mut bytes, def.ty.dtype, view, (raw, row)))?;
    Ok(Packed { bytes })
}

/// The same weight as it lies in GPU memory, from what [`pack`] made; none if the bytes are not such a weight.
pub fn rows_of_packed(def: &WeightDef, packed: &[u8]) -> Option<AlignedBytes> {
    let mut rows = AlignedBytes::zeroed(gpu_weight_bytes(&def.ty, def.layout)? as usize);
    if packed_bytes(def)? != packed.len() {
        return None;
    }
    if def.layout == Layout::Rows {
        rows.copy_from_slice(packed);
        return Some(rows);
    }
    let (k, size) = (def.ty.shape.get(1)?.as_const()? as usize, def.ty.dtype.bytes());
    let (pitch, panel) = (weight_pitch(def.ty.dtype, k as u64) as usize, k.div_ceil(4 / size) * 4 * PANEL);
    if k == 0 {
        return Some(rows);
    }
    // Four bytes of a column's depth lie together; the next four are a panel's width away.
    for (n, row) in rows.chunks_exact_mut(pitch).enumerate() {
        let column = &packed[n / PANEL * panel + n % PANEL * 4..];
        let steps = column.chunks(PANEL * 4).zip(row[..k * size].chunks_mut(4));
        steps.for_each(|(from, to)| to.copy_from_slice(&from[..to.len()]));
    }
    Some(rows)
}

/// Puts a view into the columns of the panels from `row` on.
fn fill(panels: &mut AlignedBytes, ty: DType, view: &View, (raw, row): (&RawTensor<'_>, usize)) {
    let (n, k) = (view.shape[0], view.shape[1]);
    let transposed = view.strides == [1, n];
    if raw.dtype == ty && (view.is_contiguous() || transposed) {
        let size = ty.bytes();
        let source = &raw.bytes[view.offset * size..(view.offset + view.len()) * size];
        if let (DType::F32, Some(source)) = (ty, as_f32(source)) {
            let pack = if view.is_contiguous() { pack_f32 } else { pack_f32_t };
            return pack(source, n, k, row, panels.as_f32());
        }
        if let (DType::Bf16, Some(source)) = (ty, as_u16(source)) {
            let pack = if view.is_contiguous() { pack_bf16 } else { pack_bf16_t };
            return pack(source, n, k, row, panels.as_u16());
        }
    }
    for (part, at) in chunks(view) {
        let data = gathered(&part, raw);
        let rows = part.shape[0];
        if ty == DType::Bf16 {
            let mut halves = vec![0; data.len()];
            f32_to_bf16(&data, &mut halves);
            pack_bf16(&halves, rows, k, row + at, panels.as_u16());
        } else {
            pack_f32(&data, rows, k, row + at, panels.as_f32());
        }
    }
}
