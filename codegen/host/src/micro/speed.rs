//! How fast this machine multiplies: the yardstick of products.

use super::quant::{self, quant_kernels};
use super::{Isa, IsaError, PANEL, kernels};
use sinter_codegen_weights::AlignedBytes;
use sinter_ir::{Codes, Offset};
use std::time::{Duration, Instant};

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operands {
    /// Numbers of f32.
    F32,
    /// Numbers of bf16, sums in f32.
    Bf16,
    /// Codes of 8 bits, sums in i32.
    Codes,
}

/// Rows and panels that are multiplied again and again, few enough for the second cache.
const ROWS: usize = 24;
const PANELS: usize = 2;
/// The depth in bytes of a row.
const ROW: usize = 2048;

/// The multiplications and additions a second of one thread, with operands that lie in its caches: the best of some short
/// measurements of the micro-kernel, which is what products can hope for at most.
///
/// # Errors
/// If this machine lacks the instruction set.
pub fn operations_per_second(isa: Isa, operands: Operands) -> Result<f64, IsaError> {
    let (table, quant_table) = (kernels(isa)?, quant_kernels(isa)?);
    let codes = Codes { bits: 8, group: 64, offset: Offset::Middle };
    let (depth, panel) = match operands {
        Operands::F32 => (ROW / 4, ROW * PANEL),
        Operands::Bf16 => (ROW / 2, ROW * PANEL),
        Operands::Codes => (ROW, codes.panel_bytes(ROW)),
    };
    let (a, w) = (AlignedBytes::zeroed(ROWS * ROW), AlignedBytes::zeroed(PANELS * panel));
    let mut c = AlignedBytes::zeroed(ROWS * 4 * PANEL * 4);
    let mut scratch = AlignedBytes::zeroed(quant::scratch_bytes(ROW, &codes));
    let mut once = || {
        let (a, w, c) = (a.as_ptr(), w.as_ptr(), c.as_mut_ptr().cast());
        // SAFETY: a has the rows of this depth, w the panels, c rows of 128 elements, scratch room for the rows' sums, which are
        // zero as the codes are.
        unsafe {
            match operands {
                Operands::F32 => (table.gemm_f32)(a, depth, ROWS, w, PANELS, depth, c, 4 * PANEL),
                Operands::Bf16 => (table.gemm_bf16)(a, depth, ROWS, w, PANELS, depth, c, 4 * PANEL),
                Operands::Codes => (quant_table.gemm_codes)(
                    a.cast(),
                    depth,
                    ROWS,
                    w,
                    PANELS,
                    depth,
                    quant::word(&codes),
                    c,
                    scratch.as_mut_ptr(),
                ),
            }
        }
    };
    let work = (2 * ROWS * PANELS * PANEL * depth) as f64;
    let (mut best, mut measured) = (0f64, Duration::ZERO);
    while measured < Duration::from_millis(60) {
        let started = Instant::now();
        let calls = 16;
        (0..calls).for_each(|_| once());
        let taken = started.elapsed();
        best = best.max(work * f64::from(calls) / taken.as_secs_f64().max(1e-9));
        measured += taken;
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_a_speed() {
        for isa in Isa::available() {
            for operands in [Operands::F32, Operands::Bf16, Operands::Codes] {
                let speed = operations_per_second(isa, operands).unwrap();
                assert!(speed.is_finite() && speed > 1e6, "{isa} {operands:?}: {speed}");
            }
        }
    }
}
