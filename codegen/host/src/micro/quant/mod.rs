//! Products with quantised weights: codes of 8 or 4 bits times rows that are quantised to 8 bits as they come.
//!
//! A weight is a code `u` without sign: `w = scale (u − zero)`, with one scale and one zero for each output column and
//! group of the depth, or `w = scale u − low`; how it lies is [`Codes`](sinter_ir::Codes). A row of activations has one
//! scale, the greatest magnitude over 127, and codes from −127 to 127. So for a row `q` and a column
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
//! # What generated code calls
//!
//! [`QuantKernels::sums`] sums rows of codes that a kernel before it has stored, and [`QuantKernels::gemm_codes`] multiplies
//! them; the row's own scale is part of the expressions after the product. Where activations are not quantised,
//! [`QuantKernels::unpack_bf16`] and [`QuantKernels::unpack_f32`] write panels of codes as the panels that products of numbers
//! read. [`QuantKernels::quantize`] is called by tests and benchmarks alone: a tile program has a row's scale and codes as
//! expressions.

mod dots;
mod entry;
mod pack;
mod product;
mod rows;
mod table;
mod unpack;

pub use entry::{CodesGemmFn, ROWS, SumsFn, UnpackFn, scratch_bytes, word};
pub(crate) use pack::{PackedPanels, Panels};
pub use pack::{QuantShape, pack_codes};
pub use product::{QuantGemmFn, QuantRows};
pub use rows::QuantizeFn;
#[cfg(test)]
pub(super) use table::without_dot_products;
pub use table::{QuantKernels, quant_kernels};
