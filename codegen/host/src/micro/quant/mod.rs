//! Products with quantised weights: codes of 8 or 4 bits times rows that are quantised to 8 bits as they come.
//!
//! A weight is a code `u` without sign: `w = scale (u − zero)`, with one scale and one zero for each output column and group
//! of the depth. Eight bits have one group, all of the depth, and codes `w + 128`; four bits have groups of 32, 64 or 128. A
//! row of activations has one scale, the greatest magnitude over 127, and codes from −127 to 127. So for a row `q` and a
//! column
//!
//! ```text
//! c = row_scale * sum over groups of scale[g] * (sum over the group of u q  −  zero[g] * sum over the group of q)
//! ```
//!
//! where the inner sums are exact in i32, and the outer one is a chain of fused multiply-adds in the order of the groups.
//! The unsigned operand of `vpdpbusd` is the weight, so what corrects its offset is one number for each row and group,
//! which is known when the row is quantised, and not one for each column.
//!
//! Invariant: every instruction set gives the same bits; so do any number of rows and panels, as in [`super`].
//!
//! # What generated code will call
//!
//! 1. At load, [`pack_codes`] lays codes, scales and zeros into panels of 32 columns ([`QuantShape::panel_bytes`] each).
//! 2. Before a product, [`QuantKernels::quantize`] turns each row of f32 into codes, a scale and a sum for each group. It is
//!    one call for a row, so it fits behind the kernel that makes the row (a norm, or the product before), whose result is
//!    then the codes and not a row of bf16. Rows lie [`QuantShape::row_bytes`] apart.
//! 3. [`QuantKernels::gemm_u8`] or [`QuantKernels::gemm_u4`] takes the place of `gemm_bf16`: it writes f32, all scales
//!    applied, so the expressions after the product stay as they are.
//!
//! A tile program says it as an `mma` whose weight parameter has a layout of codes; that layout, and the row's scale as a
//! reduction (`max |x| / 127`) and its codes as a cast to `i8`, are what lowering has to recognise.

mod dots;
mod pack;
mod product;
mod rows;
mod table;

pub use pack::{QuantShape, pack_codes};
pub use product::{QuantGemmFn, QuantRows};
pub use rows::QuantizeFn;
#[cfg(test)]
pub(super) use table::without_dot_products;
pub use table::{QuantKernels, quant_kernels};
