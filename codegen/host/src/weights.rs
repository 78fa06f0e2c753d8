//! Weights as the kernels want them: rows as everywhere, and panels, which only the host has.

use crate::codes;
use crate::micro::{PANEL, pack_bf16, pack_bf16_t, pack_f32, pack_f32_t, panel_bytes_bf16, panel_bytes_f32};
use sinter_codegen_weights::{
    AlignedBytes, PackError, RawTensor, Source, View, as_f32, as_f32_mut, as_u16, as_u16_mut, chunks,
    constant_shape, each_piece, f32_to_bf16, gathered, pack_rows,
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
        (Layout::Panels, DType::F32, [e, n, k]) => Some(e * panel_bytes_f32(*n, *k)),
        (Layout::Panels, DType::Bf16, [e, n, k]) => Some(e * panel_bytes_bf16(*n, *k)),
        (Layout::Codes(codes), DType::F32 | DType::Bf16, [n, k]) if codes.fits(*k) => {
            Some(codes.bytes(*n, *k))
        }
        (Layout::Panels | Layout::Codes(_) | Layout::Halves, ..) => None,
    }
}

/// The matrices that a weight in panels holds one after the other.
fn stacked(def: &WeightDef) -> usize {
    if let [stack, _, _] = def.ty.shape[..] { stack.coeff as usize } else { 1 }
}

/// Packs a weight into memory of its own.
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
    pack_into(def, source, &mut bytes)?;
    Ok(Packed { bytes })
}

/// Packs a weight into zeroed memory that begins at a multiple of four and is [`packed_bytes`] long: where many weights
/// lie in one piece of memory, the system can back it with huge pages.
///
/// # Errors
/// As [`pack`], or the memory is not such.
pub fn pack_into<'a>(def: &WeightDef, source: Source<'_, 'a>, bytes: &mut [u8]) -> Result<(), PackError> {
    if packed_bytes(def) != Some(bytes.len()) || !bytes.as_ptr().cast::<f32>().is_aligned() {
        return Err(PackError::refused(def, "the memory for it has another size or is not aligned"));
    }
    if def.layout == Layout::Rows {
        bytes.copy_from_slice(&pack_rows(def, source)?);
        return Ok(());
    }
    if let Layout::Codes(codes) = def.layout {
        return codes::pack(def, codes, source, bytes);
    }
    let matrix = bytes.len() / stacked(def).max(1);
    let mut panels = Panels { bytes, ty: def.ty.dtype, matrix };
    each_piece(def, source, |view, raw, row| match view.shape[..] {
        [count, _, _] => (0..count).for_each(|at| panels.fill(&view.matrix(at), raw, (row + at, 0))),
        _ => panels.fill(view, raw, (0, row)),
    })
}

/// The same weight as it lies in GPU memory, from what [`pack`] made; none if the bytes are not such a weight.
pub fn rows_of_packed(def: &WeightDef, packed: &[u8]) -> Option<AlignedBytes> {
    let size = gpu_weight_bytes(&def.ty, def.layout)? as usize;
    if packed_bytes(def)? != packed.len() {
        return None;
    }
    if let (Layout::Codes(codes), &[n, k]) = (def.layout, &constant_shape(def)?[..]) {
        return Some(codes::fragments(codes, [n, k], packed));
    }
    let mut rows = AlignedBytes::zeroed(size);
    if def.layout == Layout::Rows {
        rows.copy_from_slice(packed);
        return Some(rows);
    }
    let (k, size) = (def.ty.shape.last()?.as_const()? as usize, def.ty.dtype.bytes());
    let (pitch, panel) = (weight_pitch(def.ty.dtype, k as u64) as usize, k.div_ceil(4 / size) * 4 * PANEL);
    if k == 0 {
        return Some(rows);
    }
    let stack = stacked(def).max(1);
    let (in_matrix, matrix) = (rows.len() / pitch / stack, packed.len() / stack);
    // Four bytes of a column's depth lie together; the next four are a panel's width away.
    for (at, row) in rows.chunks_exact_mut(pitch).enumerate() {
        let n = at % in_matrix;
        let column = &packed[at / in_matrix * matrix + n / PANEL * panel + n % PANEL * 4..];
        let steps = column.chunks(PANEL * 4).zip(row[..k * size].chunks_mut(4));
        steps.for_each(|(from, to)| to.copy_from_slice(&from[..to.len()]));
    }
    Some(rows)
}

/// A weight in the making: its matrices, so many bytes each.
struct Panels<'a> {
    bytes: &'a mut [u8],
    ty: DType,
    matrix: usize,
}

impl Panels<'_> {
    /// Puts a matrix into the columns from row `at.1` on of matrix `at.0`.
    fn fill(&mut self, view: &View, raw: &RawTensor<'_>, at: (usize, usize)) {
        let (n, k, row) = (view.shape[0], view.shape[1], at.1);
        let size = self.ty.bytes();
        let matrix = &mut self.bytes[at.0 * self.matrix..(at.0 + 1) * self.matrix];
        let transposed = view.strides == [1, n];
        if raw.dtype == self.ty && (view.is_contiguous() || transposed) {
            let source = &raw.bytes[view.offset * size..(view.offset + view.len()) * size];
            if let (DType::F32, Some(source)) = (self.ty, as_f32(source)) {
                let pack = if view.is_contiguous() { pack_f32 } else { pack_f32_t };
                return pack(source, n, k, row, as_f32_mut(matrix).unwrap_or_default());
            }
            if let (DType::Bf16, Some(source)) = (self.ty, as_u16(source)) {
                let pack = if view.is_contiguous() { pack_bf16 } else { pack_bf16_t };
                return pack(source, n, k, row, as_u16_mut(matrix).unwrap_or_default());
            }
        }
        for (part, at) in chunks(view) {
            let data = gathered(&part, raw);
            let rows = part.shape[0];
            if self.ty == DType::Bf16 {
                let mut halves = vec![0; data.len()];
                f32_to_bf16(&data, &mut halves);
                pack_bf16(&halves, rows, k, row + at, as_u16_mut(matrix).unwrap_or_default());
            } else {
                pack_f32(&data, rows, k, row + at, as_f32_mut(matrix).unwrap_or_default());
            }
        }
    }
}
