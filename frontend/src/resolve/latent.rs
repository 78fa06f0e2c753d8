//! Multi-head latent attention.

use super::Resolver;
use crate::config::{ConfigError, limits};
use crate::family::*;
use crate::rope::RopeScaling;
use crate::spec::*;

impl Resolver<'_> {
    pub(super) fn latent(
        &self,
        row: &LatentRow,
        i: usize,
        rope: Option<usize>,
    ) -> Result<AttentionSpec, ConfigError> {
        let (dims, attention) = (&self.dims, &self.family.attention);
        let width = |key: &str| self.root.usize(key, limits::WIDTH);
        let [rank, plain, value] = row.widths;
        let (rank, plain, value) = (width(rank)?, width(plain)?, width(value)?);
        let (heads, rotated, bias) = (dims.heads, dims.head_dim, self.switch(attention.qkv_bias)?);
        if dims.kv_heads != heads {
            return Err(self.root.wrong("num_key_value_heads", format!("as many as query heads, {heads}")));
        }
        let linear = |name: &str, bias, widths| self.linear(self.name(name, i), bias, widths);
        let norm = |name: &str, width| NormSpec {
            kind: self.family.norm.kind,
            weight: Some(format!("{}.weight", self.name(name, i))),
            one_plus: self.family.norm.one_plus,
            bias: None,
            width,
            eps: row.eps,
        };
        let queries = heads * (plain + rotated);
        let (direct, [to_row, row_norm, from_row]) = row.query;
        let query = match self.root.opt_usize(row.query_rank, limits::WIDTH)? {
            None => LatentQuery::Direct(linear(direct, false, (dims.hidden, queries))),
            Some(rank) => LatentQuery::Low {
                down: linear(to_row, bias, (dims.hidden, rank)),
                norm: norm(row_norm, rank),
                up: linear(from_row, false, (rank, queries)),
            },
        };
        let [down, down_norm, up] = row.key_value;
        let latent = LatentSpec {
            query,
            down: linear(down, bias, (dims.hidden, rank + rotated)),
            norm: norm(down_norm, rank),
            up: format!("{}.weight", self.name(up, i)),
            rank,
            plain,
            rotated,
            value,
        };
        let out_bias = self.switch(attention.out_bias)?;
        Ok(AttentionSpec {
            heads,
            kv_heads: 1,
            head_dim: rank + rotated,
            qkv: QkvSpec::Latent(Box::new(latent)),
            head_norms: None,
            rope,
            clip: None,
            alibi: None,
            sinks: None,
            scale: self.factor(attention.scale)? * self.magnitude()?,
            softcap: None,
            window: None,
            out: linear(attention.out, out_bias, (heads * value, dims.hidden)),
        })
    }

    /// What a scaling of the rotary frequencies does to the scores besides.
    fn magnitude(&self) -> Result<f64, ConfigError> {
        let ropes = self.ropes()?;
        Ok(match ropes.first().map(|rope| &rope.scaling) {
            Some(RopeScaling::Yarn { score_magnitude, .. }) => score_magnitude * score_magnitude,
            _ => 1.0,
        })
    }
}
