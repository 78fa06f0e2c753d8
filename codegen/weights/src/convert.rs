//! Slices between float formats.

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
