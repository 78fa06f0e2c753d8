//! Quantised weights into panels of codes.

use crate::micro::quant::{Panels, QuantShape};
use sinter_codegen_weights::{PackError, Source, each_element};
use sinter_ir::{CodePart, Codes, Graph, Offset, ValueId, WeightDef, dequantised};

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
    let refused = || PackError::refused(def, "its source does not dequantise codes of its layout");
    let [(_, output)] = &def.source.outputs[..] else { return Err(refused()) };
    let found = dequantised(&def.source, *output).filter(|found| found.codes == codes).ok_or_else(refused)?;
    let k = def.ty.shape.last().map_or(0, |depth| depth.coeff as usize);
    let mut panels = Panels { shape: QuantShape::of(k, codes), bytes };
    let mut row = 0;
    for part in &found.parts {
        fill(&mut panels, &def.source, part, (source, row))?;
        row += part.rows;
    }
    Ok(())
}

/// Packs the rows of one part from row `row0` on.
fn fill(
    panels: &mut Panels<'_>,
    graph: &Graph,
    part: &CodePart,
    (source, row0): (Source<'_, '_>, usize),
) -> Result<(), PackError> {
    let (k, group) = (panels.shape.k, panels.shape.group);
    let groups = k / group;
    let all = |value: ValueId| -> Result<Vec<f32>, PackError> {
        let mut data = Vec::new();
        each_element(graph, value, source, &mut |_, some| data.extend_from_slice(some))?;
        Ok(data)
    };
    let (scales, offsets) = (all(part.scales)?, part.offsets.map(all).transpose()?);
    // Each lies for a run of elements, which is a group, whole rows or the whole part.
    let of = |data: &[f32], row: usize, g: usize| data[(row * k + g * group) * data.len() / (part.rows * k)];
    for row in 0..part.rows {
        for g in 0..groups {
            panels.scale(row0 + row, g, of(&scales, row, g));
            let offset = offsets.as_deref().map(|offsets| of(offsets, row, g));
            match panels.shape.offset {
                Offset::Middle => {}
                Offset::Zeros => {
                    panels.zero(row0 + row, g, (offset.unwrap_or(0.0) - part.first as f32) as u8);
                }
                Offset::Lows => {
                    let low = offset.unwrap_or(0.0);
                    panels.low(row0 + row, g, if part.added { -low } else { low });
                }
            }
        }
    }
    each_element(graph, part.codes, source, &mut |first, data| {
        let (mut at, mut data) = (first, data);
        while !data.is_empty() {
            let (row, depth) = (at / k, at % k);
            let (here, rest) = data.split_at(data.len().min(k - depth));
            let codes = here.iter().map(|code| (code - part.first as f32) as u8);
            panels.codes(row0 + row, depth, codes);
            (at, data) = (at + here.len(), rest);
        }
    })
}
