//! What the KV cache keeps of keys and values, and what is read of it: their numbers, or codes with a scale for each token
//! and head.

use std::fmt;

use sinter_ir::{DType, Dim, GraphError, ScalarOp, Sym, ValueId};

use super::attention::Paging;
use super::emit::{Emit, Emitted};
use super::{KvCache, KvCodes};
use crate::spec::AttentionSpec;

/// What is added to a code of 4 bits so that it is not negative.
const HALF: f64 = 8.0;

/// The updated cache of a layer's keys or values.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    /// `[N, Hkv, D]`, numbers or codes.
    pub(super) rows: ValueId,
    /// `f32[N, Hkv, 1]`, what codes are multiplied by.
    pub(super) scales: Option<ValueId>,
}

/// What attention reads of a cache, for each query head.
pub(super) struct Gathered {
    /// `[T, C, H, D]`
    pub(super) rows: ValueId,
    /// `f32[T, C, H, 1]`
    pub(super) scales: Option<ValueId>,
}

impl Emit {
    /// The cache of keys (`k`) or values (`v`) of layer `i` with the step's rows in it, `f32[T, Hkv, D]`. What is kept of a
    /// token depends on its row alone.
    pub(super) fn kept(
        &mut self,
        (kind, i): (&str, usize),
        rows: ValueId,
        (spec, paging): (&AttentionSpec, Paging),
    ) -> Result<Kept, GraphError> {
        let codes = match self.options.kv_cache {
            KvCache::Exact => None,
            KvCache::Codes(codes) => Some(codes),
        };
        let (rows, scales) = match codes {
            None => (self.graph.cast(rows, self.options.kv_dtype)?, None),
            Some(codes) => {
                let (rows, scales) = self.row_codes(rows, codes)?;
                (if codes == KvCodes::Int4 { self.in_halves(rows)? } else { rows }, Some(scales))
            }
        };
        let rows = self.written(&format!("{kind}_cache.{i}"), rows, (spec, paging))?;
        let scales = scales.map(|scales| self.written(&format!("{kind}_scale.{i}"), scales, (spec, paging)));
        Ok(Kept { rows, scales: scales.transpose()? })
    }

    /// Codes of 4 bits, `i8[…, D]`, two to a byte, `u8[…, D / 2]`: 2i in the lower half of byte i, 2i + 1 in the upper one,
    /// each plus 8.
    fn in_halves(&mut self, codes: ValueId) -> Emitted {
        let (mut pairs, mut bytes) = (self.graph.ty(codes).shape.clone(), self.graph.ty(codes).shape.clone());
        let axis = pairs.len();
        for shape in [&mut pairs, &mut bytes] {
            shape.iter_mut().next_back().into_iter().for_each(|last| last.coeff /= 2);
        }
        pairs.push(Dim::of(2));
        let numbers = self.graph.cast(codes, DType::F32)?;
        let numbers = self.with(ScalarOp::Add, numbers, HALF)?;
        let numbers = self.graph.reshape(numbers, &pairs)?;
        let lower = self.graph.slice(numbers, axis, 0, 1)?;
        let upper = self.graph.slice(numbers, axis, 1, 1)?;
        let upper = self.with(ScalarOp::Mul, upper, 16.0)?;
        let sum = self.map2(ScalarOp::Add, lower, upper)?;
        let sum = self.graph.reshape(sum, &bytes)?;
        self.graph.cast(sum, DType::U8)
    }

    /// The codes in the halves of bytes as numbers.
    fn of_halves(&mut self, bytes: ValueId) -> Emitted {
        let mut shape = self.graph.ty(bytes).shape.clone();
        let axis = shape.len();
        shape.push(Dim::ONE);
        let single = self.graph.reshape(bytes, &shape)?;
        let (mask, shift) = (self.graph.constant(15.0, DType::U8)?, self.graph.constant(4.0, DType::U8)?);
        let lower = self.map2(ScalarOp::Bitand, single, mask)?;
        let upper = self.map2(ScalarOp::Shr, single, shift)?;
        let halves = self.graph.concat(axis, &[lower, upper])?;
        shape.pop();
        shape.iter_mut().next_back().into_iter().for_each(|last| last.coeff *= 2);
        let halves = self.graph.reshape(halves, &shape)?;
        let numbers = self.graph.cast(halves, DType::F32)?;
        self.with(ScalarOp::Sub, numbers, HALF)
    }

    fn written(&mut self, name: &str, rows: ValueId, (spec, paging): (&AttentionSpec, Paging)) -> Emitted {
        let ty = self.graph.ty(rows).clone();
        let width = ty.shape.last().copied().unwrap_or(Dim::ONE);
        let shape = [Sym::N.into(), Dim::of(spec.kv_heads), width];
        let cache = self.graph.state(name, ty.dtype, &shape)?;
        self.graph.scatter(cache, paging.slots, rows)
    }

    /// The rows of each token's context, each key head repeated for the query heads that share it. Codes are numbers here.
    pub(super) fn context_of(
        &mut self,
        kept: Kept,
        (spec, paging): (&AttentionSpec, Paging),
    ) -> Result<Gathered, GraphError> {
        let mut read = |rows: ValueId| -> Emitted {
            let rows = self.graph.gather(rows, paging.context)?;
            let stored = self.graph.ty(rows).dtype;
            let rows = match stored {
                DType::U8 => self.of_halves(rows)?,
                DType::I8 | DType::F8e4m3 => self.graph.cast(rows, DType::F32)?,
                _ => rows,
            };
            self.repeat_heads(rows, spec)
        };
        Ok(Gathered { rows: read(kept.rows)?, scales: kept.scales.map(&mut read).transpose()? })
    }

    /// Scores `f32[T, H, C]` of queries with codes as those with the keys that they stand for.
    pub(super) fn scaled_scores(&mut self, scores: ValueId, scales: Option<ValueId>) -> Emitted {
        let Some(scales) = scales else { return Ok(scores) };
        let shape = self.graph.ty(scales).shape.clone();
        let scales = self.graph.reshape(scales, &shape[..shape.len().saturating_sub(1)])?;
        let scales = self.graph.transpose(scales, &[0, 2, 1])?;
        self.map2(ScalarOp::Mul, scores, scales)
    }

    /// What rows of a context stand for.
    pub(super) fn scaled_rows(&mut self, read: &Gathered) -> Emitted {
        match read.scales {
            None => Ok(read.rows),
            Some(scales) => self.map2(ScalarOp::Mul, read.rows, scales),
        }
    }
}

impl fmt::Display for KvCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvCodes::Int8 => "int8",
            KvCodes::Int4 => "int4",
            KvCodes::Fp8 => "fp8",
        })
    }
}

impl KvCodes {
    /// The type of a code, and the code of a row's greatest magnitude.
    pub(super) fn format(self) -> (DType, f64) {
        match self {
            KvCodes::Int8 => (DType::I8, 127.0),
            KvCodes::Int4 => (DType::I8, 7.0),
            KvCodes::Fp8 => (DType::F8e4m3, 448.0),
        }
    }
}
