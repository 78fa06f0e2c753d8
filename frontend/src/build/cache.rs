//! What the KV cache keeps of keys and values, and what is read of it: their numbers, or codes with a scale for each token
//! and head.

use std::fmt;

use sinter_ir::{DType, Dim, GraphError, ScalarOp, Sym, ValueId};

use super::attention::Paging;
use super::emit::{Emit, Emitted};
use super::{KvCache, KvCodes};
use crate::spec::AttentionSpec;

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
                (rows, Some(scales))
            }
        };
        let rows = self.written(&format!("{kind}_cache.{i}"), rows, (spec, paging))?;
        let scales =
            scales.map(|scales| self.written(&format!("{kind}_scale.{i}"), scales, (spec, paging)));
        Ok(Kept { rows, scales: scales.transpose()? })
    }

    fn written(
        &mut self,
        name: &str,
        rows: ValueId,
        (spec, paging): (&AttentionSpec, Paging),
    ) -> Emitted {
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
            let code = stored.is_float8() || !stored.is_float();
            let rows = if code { self.graph.cast(rows, DType::F32)? } else { rows };
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
            KvCodes::Fp8 => "fp8",
        })
    }
}

impl KvCodes {
    /// The type of a code, and the code of a row's greatest magnitude.
    pub(super) fn format(self) -> (DType, f64) {
        match self {
            KvCodes::Int8 => (DType::I8, 127.0),
            KvCodes::Fp8 => (DType::F8e4m3, 448.0),
        }
    }
}
