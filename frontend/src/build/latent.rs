//! Multi-head latent attention as it is defined: the keys and values of every head, written out from the cached rows. That
//! they are never computed is for the rules to find.

use sinter_ir::{Dim, GraphError, ScalarOp, Sym, ValueId};

use super::attention::{Caches, Context, Paging, context_len};
use super::emit::{Emit, Emitted};
use crate::spec::{AttentionSpec, LatentQuery, LatentSpec};

impl Emit {
    /// The attention of layer `i` on its normalised input, and the one cache of rows.
    pub(super) fn latent(
        &mut self,
        (spec, latent): (&AttentionSpec, &LatentSpec),
        (context, paging): (&Context, Paging),
        (i, x): (usize, ValueId),
    ) -> Result<(ValueId, Option<Caches>), GraphError> {
        let LatentSpec { rank, plain, rotated, value, .. } = *latent;
        let q = self.latent_queries(latent, x)?;
        let q = self.by_token(q, &[spec.heads, plain + rotated])?;
        let own = self.graph.slice(q, 2, 0, plain)?;
        let own = self.query(spec, own)?;
        let turned = self.graph.slice(q, 2, plain, rotated)?;
        let turned = self.turn(spec, context, (turned, rotated))?;
        let turned = self.query(spec, turned)?;

        let row = self.linear(x, &latent.down)?;
        let short = self.graph.slice(row, 1, 0, rank)?;
        let short = self.norm(short, &latent.norm)?;
        let short = self.by_token(short, &[1, rank])?;
        let key = self.graph.slice(row, 1, rank, rotated)?;
        let key = self.by_token(key, &[1, rotated])?;
        let key = self.turn(spec, context, (key, rotated))?;
        let row = self.graph.concat(2, &[short, key])?;
        let cache = self.kept(("k", i), row, (spec, paging))?;

        let held = self.graph.gather(cache.rows, paging.context)?;
        let held = self.graph.reshape(held, &[Sym::T.into(), context_len(), Dim::of(rank + rotated)])?;
        let short = self.graph.slice(held, 2, 0, rank)?;
        let key = self.graph.slice(held, 2, rank, rotated)?;
        let up = self.matrix(&latent.up, spec.heads * (plain + value), rank)?;
        let up = self.graph.reshape(up, &[spec.heads, plain + value, rank].map(Dim::of))?;
        let to_keys = self.graph.slice(up, 1, 0, plain)?;
        let to_values = self.graph.slice(up, 1, plain, value)?;
        let keys = self.graph.contract("tcl,hdl->tchd", short, to_keys)?;
        let values = self.graph.contract("tcl,hdl->tchd", short, to_values)?;
        let own = self.graph.contract("thd,tchd->thc", own, keys)?;
        let shared = self.graph.contract("thl,tcl->thc", turned, key)?;
        let scores = self.map2(ScalarOp::Add, own, shared)?;
        let p = self.weights(scores, spec, context.score(spec))?;
        let attended = self.graph.contract("thc,tchd->thd", p, values)?;
        let joined = self.by_token(attended, &[spec.heads * value])?;
        Ok((self.linear(joined, &spec.out)?, Some(Caches { k: cache, v: None })))
    }

    fn latent_queries(&mut self, latent: &LatentSpec, x: ValueId) -> Emitted {
        match &latent.query {
            LatentQuery::Direct(all) => self.linear(x, all),
            LatentQuery::Low { down, norm, up } => {
                let row = self.linear(x, down)?;
                let row = self.norm(row, norm)?;
                self.linear(row, up)
            }
        }
    }

    /// Turned by the layer's table, if it has one.
    fn turn(&mut self, spec: &AttentionSpec, context: &Context, (x, width): (ValueId, usize)) -> Emitted {
        match spec.rope.and_then(|table| context.turns.get(table)) {
            Some(turn) => self.rotate(x, *turn, width),
            None => Ok(x),
        }
    }
}
