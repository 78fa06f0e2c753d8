//! Rows of activations to codes.

/// Quantises a row of `k` numbers: `codes[i] = round(x[i] * (127 / max))` to even with `max` the greatest magnitude, `sums[g]`
/// the sum of the codes of group g, `scale = max / 127`. Codes up to the end of the last group are 0. A row of zeros has the
/// scale 0. A NaN counts as 0; an infinity makes every finite code 0 and its own ±127.
///
/// Arguments: `x`, `k`, `group`, `codes`, `sums`, `scale`.
///
/// # Safety
/// `x` has k elements, `codes` k rounded up to whole groups, `sums` as many as there are groups, `scale` one; none overlaps
/// another; `group` is not 0.
pub type QuantizeFn = unsafe extern "C" fn(
    x: *const f32,
    k: usize,
    group: usize,
    codes: *mut i8,
    sums: *mut i32,
    scale: *mut f32,
);

/// See [`QuantizeFn`]. Compiled for each instruction set; every step is exact or rounded once, so all give the same bits.
///
/// # Safety
/// The contract of [`QuantizeFn`].
#[inline(always)]
pub(super) unsafe fn quantize(
    (x, k): (*const f32, usize),
    group: usize,
    codes: *mut i8,
    (sums, scale): (*mut i32, *mut f32),
) {
    let groups = k.div_ceil(group);
    // SAFETY: the caller lends these elements.
    let (x, codes, sums) = unsafe {
        (
            std::slice::from_raw_parts(x, k),
            std::slice::from_raw_parts_mut(codes, groups * group),
            std::slice::from_raw_parts_mut(sums, groups),
        )
    };
    let mut lanes = [0f32; 16];
    for chunk in x.chunks(16) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            let x = x.abs();
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let most = lanes.into_iter().fold(0f32, |most, x| if x > most { x } else { most });
    let factor = if most > 0.0 { 127.0 / most } else { 0.0 };
    // A row of subnormals alone has no finite factor.
    let factor = if factor.is_finite() { factor } else { f32::MAX };
    for (code, x) in codes.iter_mut().zip(x) {
        // Infinity times zero is no number, which the cast makes 0.
        let exact = if x.is_infinite() { x.signum() * 127.0 } else { x * factor };
        *code = exact.round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    codes[k..].fill(0);
    for (sum, codes) in sums.iter_mut().zip(codes.chunks_exact(group)) {
        *sum = codes.iter().map(|code| i32::from(*code)).sum();
    }
    // SAFETY: the caller lends it.
    unsafe { scale.write_unaligned(most / 127.0) };
}
