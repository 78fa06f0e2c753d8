//! Weights on their way from a checkpoint to a device: the tensors are joined, converted and laid out, once.
//!
//! ```text
//! WeightDef + tensors ──views──▶ pieces of rows ──▶ a layout: rows for GPUs (here), panels for the host (codegen/host)
//!                     ──codes──▶ codes, scales, offsets ──▶ fragments for GPUs (here), panels of codes for the host
//! ```
//!
//! Mostly a weight is one tensor, a part of it, or several one after the other: then its elements go straight from the
//! checkpoint's bytes to their places ([`View`]). A source graph that computes, as that of a quantised weight, becomes one
//! loop over the result's elements (`expression/`); what has no such form is evaluated naively, in f32. Weights do not depend on
//! one another: a caller with several threads packs several at once.
//!
//! ```
//! use sinter_codegen_weights::{RawTensor, pack_rows};
//! use sinter_ir::{DType, Dim, Graph, Layout, Type, WeightDef};
//!
//! // A contraction's weight [2, 3] in f32: on a GPU its rows are padded to 16 bytes.
//! let mut source = Graph::new("w");
//! let value = source.param("t", DType::F32, &[Dim::of(2), Dim::of(3)]).unwrap();
//! source.output("w", value);
//! let ty = Type::new(DType::F32, [Dim::of(2), Dim::of(3)]);
//! let bytes: Vec<u8> = (1..=6).flat_map(|x| (x as f32).to_le_bytes()).collect();
//! let tensor = |_: &str| Some(RawTensor { dtype: DType::F32, shape: vec![2, 3], bytes: &bytes });
//! let packed = pack_rows(&WeightDef { source, ty, layout: Layout::Panels }, &tensor)?;
//! assert_eq!((packed.len(), &packed[16..20]), (32, &4f32.to_le_bytes()[..]));
//! # Ok::<(), sinter_codegen_weights::PackError>(())
//! ```

mod bytes;
mod codes;
mod convert;
mod expression;
mod rows;
mod source;
mod view;

pub use bytes::{AlignedBytes, as_f32, as_f32_mut, as_u16, as_u16_mut};
pub use codes::{Coded, Fragments, place_codes};
pub use convert::{bf16_to_f32, f16_to_f32, f32_to_bf16};
pub use rows::{chunks, gathered, pack_rows, pitch, unpitched};
pub use source::{PackError, RawTensor, Source, constant_shape, each_element, each_piece};
pub use view::View;
