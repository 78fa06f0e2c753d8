//! Attention: projections, rotation, the KV cache, masks and the softmax, written out.

use sinter_ir::{DType, Dim, GraphError, Op, PAGE, ScalarOp, Sym, ValueId};

use super::cache::Kept;
use super::emit::{Emit, Emitted};
use crate::spec::{
    ALIBI_SLOPES, AlibiSpec, AttentionSpec, HeadNormScope, HeadNormSpec, ModelKind, ModelSpec, NormSpec,
    QkvSpec, inv_freq_name,
};

/// The updated caches of a layer.
#[derive(Clone, Copy)]
pub(super) struct Caches {
    pub(super) k: Kept,
    /// None where values come from what keys come from.
    pub(super) v: Option<Kept>,
}

/// What all layers share: built once, before the first.
pub(super) struct Context {
    pub(super) tokens: ValueId,
    pub(super) positions: ValueId,
    /// The sequence of each token.
    pub(super) seq: ValueId,
    /// Cosine and sine of each rotary table, `[T, 1, r/2]`.
    pub(super) turns: Vec<Turn>,
    paging: Option<Paging>,
    /// The masks by window, `[T, 1, C]` for decoders and `[T, 1, T]` for encoders.
    masks: Masks,
    /// What is added to the scores of layers with ALiBi, `[1, H, C]`.
    alibi: Option<ValueId>,
}

type Masks = Vec<(Option<usize>, ValueId)>;

#[derive(Clone, Copy)]
pub(super) struct Turn {
    cos: ValueId,
    sin: ValueId,
    pairs: usize,
    interleaved: bool,
}

/// Where keys and values go and come from.
#[derive(Clone, Copy)]
pub(super) struct Paging {
    /// The slot of each token of the step, `[T]`.
    pub(super) slots: ValueId,
    /// The slots of each token's context, `[T, 16 P]`.
    pub(super) context: ValueId,
}

/// What happens to scores besides scale and cap.
#[derive(Clone, Copy)]
pub(super) struct Score {
    bias: Option<ValueId>,
    mask: Option<ValueId>,
}

/// Queries, `[T, H, D]`, and keys and values of the layer's own, twice `[T, Hkv, D]`.
struct Heads {
    q: ValueId,
    own: Option<[ValueId; 2]>,
}

/// The extent of the context: whole pages.
pub(super) fn context_len() -> Dim {
    Dim::times(Sym::P, PAGE)
}

impl Context {
    pub(super) fn new(emit: &mut Emit, spec: &ModelSpec, tokens: ValueId) -> Result<Self, GraphError> {
        let t = Dim::from(Sym::T);
        let positions = emit.input("positions", &[t])?;
        let seq = emit.input("seq", &[t])?;
        let paging = match spec.kind {
            ModelKind::Decoder => Some(paging(emit, seq)?),
            ModelKind::Encoder => None,
        };
        let turns = (0..spec.ropes.len()).map(|table| turn(emit, spec, (table, positions)));
        let turns = turns.collect::<Result<_, _>>()?;
        let masks = match spec.kind {
            ModelKind::Decoder => causal_masks(emit, spec, positions)?,
            ModelKind::Encoder => sequence_masks(emit, spec, (seq, positions))?,
        };
        Ok(Context { tokens, positions, seq, turns, paging, masks, alibi: alibi(emit, spec)? })
    }

    /// What a layer adds to its scores, and its mask.
    pub(super) fn score(&self, spec: &AttentionSpec) -> Score {
        let mask = self.masks.iter().find(|(known, _)| *known == spec.window).map(|(_, mask)| *mask);
        Score { bias: self.alibi.filter(|_| spec.alibi.is_some()), mask }
    }
}

fn paging(emit: &mut Emit, seq: ValueId) -> Result<Paging, GraphError> {
    let t = Dim::from(Sym::T);
    let slots = emit.input("slots", &[t])?;
    let table = emit.input("table", &[Sym::S.into(), Sym::P.into()])?;
    let g = &mut emit.graph;
    let pages = g.gather(table, seq)?;
    let pages = g.reshape(pages, &[t, Sym::P.into(), Dim::ONE])?;
    let size = g.constant(PAGE as f64, DType::U32)?;
    let first = g.map(ScalarOp::Mul, &[pages, size])?;
    let within = g.push(Op::Iota { len: Dim::of(PAGE as usize) }, &[])?;
    let within = g.reshape(within, &[Dim::ONE, Dim::ONE, Dim::of(PAGE as usize)])?;
    let context = g.map(ScalarOp::Add, &[first, within])?;
    Ok(Paging { slots, context: g.reshape(context, &[t, context_len()])? })
}

fn turn(emit: &mut Emit, spec: &ModelSpec, (table, positions): (usize, ValueId)) -> Result<Turn, GraphError> {
    let (frequencies, scale) = spec.ropes[table].inverse_frequencies();
    let pairs = frequencies.len();
    let angle = emit.graph.cast(positions, DType::F32)?;
    let angle = emit.by_token(angle, &[1])?;
    let frequencies = emit.vector(&inv_freq_name(table), pairs, 2)?;
    let angle = emit.map2(ScalarOp::Mul, angle, frequencies)?;
    let mut of = |op| {
        let value = emit.map1(op, angle)?;
        let value = emit.scaled(value, f64::from(scale))?;
        emit.by_token(value, &[1, pairs])
    };
    let interleaved = spec.ropes[table].interleaved;
    Ok(Turn { cos: of(ScalarOp::Cos)?, sin: of(ScalarOp::Sin)?, pairs, interleaved })
}

/// The position of each slot of the context, `[1, 1, C]`, and of each token, `[T, 1, 1]`.
#[derive(Clone, Copy)]
struct Positions {
    context: ValueId,
    token: ValueId,
}

/// One mask for each window that a layer has: a token sees no later position and none before its window.
fn causal_masks(emit: &mut Emit, spec: &ModelSpec, positions: ValueId) -> Result<Masks, GraphError> {
    let context = emit.graph.push(Op::Iota { len: context_len() }, &[])?;
    let context = emit.graph.reshape(context, &[Dim::ONE, Dim::ONE, context_len()])?;
    let both = Positions { context, token: emit.by_token(positions, &[1, 1])? };
    let causal = emit.map2(ScalarOp::Le, both.context, both.token)?;
    let mut masks = Masks::new();
    for window in spec.layers.iter().map(|layer| layer.attention.window) {
        if masks.iter().all(|(known, _)| *known != window) {
            masks.push((window, windowed(emit, both, (causal, window))?));
        }
    }
    Ok(masks)
}

fn windowed(emit: &mut Emit, at: Positions, (causal, window): (ValueId, Option<usize>)) -> Emitted {
    let Some(window) = window else { return Ok(causal) };
    let window = emit.graph.constant(window as f64, DType::U32)?;
    let end = emit.map2(ScalarOp::Add, at.context, window)?;
    let near = emit.map2(ScalarOp::Lt, at.token, end)?;
    emit.map2(ScalarOp::And, causal, near)
}

/// The masks of encoders, one for each window: a token sees the tokens of its own sequence, as far as the window goes to
/// either side.
fn sequence_masks(
    emit: &mut Emit,
    spec: &ModelSpec,
    (seq, positions): (ValueId, ValueId),
) -> Result<Masks, GraphError> {
    let along = [Dim::ONE, Dim::ONE, Sym::T.into()];
    let (token, other) = (emit.by_token(seq, &[1, 1])?, emit.graph.reshape(seq, &along)?);
    let same = emit.map2(ScalarOp::Eq, token, other)?;
    let mut masks = Masks::new();
    for window in spec.layers.iter().map(|layer| layer.attention.window) {
        if masks.iter().any(|(known, _)| *known == window) {
            continue;
        }
        let mask = match window {
            None => same,
            Some(_) => {
                let (token, other) =
                    (emit.by_token(positions, &[1, 1])?, emit.graph.reshape(positions, &along)?);
                let before = windowed(emit, Positions { context: other, token }, (same, window))?;
                windowed(emit, Positions { context: token, token: other }, (before, window))?
            }
        };
        masks.push((window, mask));
    }
    Ok(masks)
}

/// What ALiBi adds to scores, `[1, H, C]`, if any layer has it. A query's own position would shift all its scores alike.
fn alibi(emit: &mut Emit, spec: &ModelSpec) -> Result<Option<ValueId>, GraphError> {
    let mut attentions = spec.layers.iter().map(|layer| &layer.attention);
    let biased = attentions.find_map(|attention| Some((attention.alibi?, attention.heads)));
    let Some((AlibiSpec { scale, rounded }, heads)) = biased else { return Ok(None) };
    let context = emit.graph.push(Op::Iota { len: context_len() }, &[])?;
    let context = emit.graph.cast(context, DType::F32)?;
    let context = emit.graph.reshape(context, &[Dim::ONE, Dim::ONE, context_len()])?;
    let slopes = emit.vector(ALIBI_SLOPES, heads, 2)?;
    let slopes = emit.graph.reshape(slopes, &[Dim::ONE, Dim::of(heads), Dim::ONE])?;
    if !rounded {
        let bias = emit.map2(ScalarOp::Mul, slopes, context)?;
        return emit.scaled(bias, scale).map(Some);
    }
    let (slopes, context) = (emit.rounded(slopes)?, emit.rounded(context)?);
    let bias = emit.map2(ScalarOp::Mul, slopes, context)?;
    let bias = emit.rounded(bias)?;
    emit.scaled(bias, scale).map(Some)
}

impl Emit {
    /// The attention of layer `i` on its normalised input: the projected output `f32[T, H]`, and the caches of decoders.
    /// `kept` is what the layers before it keep.
    pub(super) fn attention(
        &mut self,
        spec: &AttentionSpec,
        (context, kept): (&Context, &[Caches]),
        (i, x): (usize, ValueId),
    ) -> Result<(ValueId, Option<Caches>), GraphError> {
        if let (QkvSpec::Latent(latent), Some(paging)) = (&spec.qkv, context.paging) {
            return self.latent((spec, latent), (context, paging), (i, x));
        }
        let heads = self.heads(spec, context, x)?;
        let q = self.query(spec, heads.q)?;
        let score = context.score(spec);
        let (attended, caches) = match (context.paging, heads.own) {
            (None, own) => {
                // Queries alone have nothing to look at: the product below is then one of queries with themselves.
                let [k, v] = own.unwrap_or([q, q]);
                let dtype = self.options.kv_dtype;
                let (k, v) = (self.graph.cast(k, dtype)?, self.graph.cast(v, dtype)?);
                let (k, v) = (self.repeat_heads(k, spec)?, self.repeat_heads(v, spec)?);
                let scores = self.graph.contract("thd,chd->thc", q, k)?;
                let p = self.weights(scores, spec, score)?;
                (self.graph.contract("thc,chd->thd", p, v)?, None)
            }
            (Some(paging), Some([k, v])) => {
                let k = self.kept(("k", i), k, (spec, paging))?;
                let v = self.kept(("v", i), v, (spec, paging))?;
                let caches = Caches { k, v: Some(v) };
                (self.attend((spec, score), (q, paging), caches)?, Some(caches))
            }
            (Some(paging), None) => {
                let layer = if let QkvSpec::Shared { layer, .. } = spec.qkv { layer } else { i };
                let caches = kept.get(layer).copied();
                let caches = caches.unwrap_or(Caches { k: Kept { rows: q, scales: None }, v: None });
                (self.attend((spec, score), (q, paging), caches)?, None)
            }
        };
        let joined = self.by_token(attended, &[spec.heads * spec.head_dim])?;
        Ok((self.linear(joined, &spec.out)?, caches))
    }

    /// The weighted sum of the values of each token's context, `f32[T, H, D]`.
    fn attend(
        &mut self,
        (spec, score): (&AttentionSpec, Score),
        (q, paging): (ValueId, Paging),
        caches: Caches,
    ) -> Emitted {
        let k = self.context_of(caches.k, (spec, paging))?;
        let scores = self.graph.contract("thd,tchd->thc", q, k.rows)?;
        // The scale of a key goes to its few scores, that of a value stands at each of its elements.
        let scores = self.scaled_scores(scores, k.scales)?;
        let p = self.weights(scores, spec, score)?;
        let v = self.context_of(caches.v.unwrap_or(caches.k), (spec, paging))?;
        let v = self.scaled_rows(&v)?;
        self.graph.contract("thc,tchd->thd", p, v)
    }

    /// Scaled queries in the type of the keys, for products whose operands have one type. The scale comes first: it then
    /// costs no rounding of its own, and nothing for each position of the context.
    pub(super) fn query(&mut self, spec: &AttentionSpec, q: ValueId) -> Emitted {
        let q = self.scaled(q, spec.scale)?;
        self.graph.cast(q, self.options.kv_dtype)
    }

    /// Queries, keys and values, normalised and rotated.
    fn heads(&mut self, spec: &AttentionSpec, context: &Context, x: ValueId) -> Result<Heads, GraphError> {
        let mut heads = self.project(spec, x)?;
        if let Some(norms) = spec.head_norms.as_ref().filter(|norms| !norms.after_rope) {
            self.head_norms(spec, norms, &mut heads)?;
        }
        if let Some(clip) = spec.clip.filter(|clip| clip.normed) {
            for x in std::iter::once(&mut heads.q).chain(heads.own.iter_mut().flatten()) {
                *x = self.clip(*x, clip.limit)?;
            }
        }
        if let Some(turn) = spec.rope.and_then(|table| context.turns.get(table)) {
            for x in std::iter::once(&mut heads.q).chain(heads.own.iter_mut().flatten().take(1)) {
                *x = self.rotate(*x, *turn, spec.head_dim)?;
            }
        }
        if let Some(norms) = spec.head_norms.as_ref().filter(|norms| norms.after_rope) {
            self.head_norms(spec, norms, &mut heads)?;
        }
        Ok(heads)
    }

    fn head_norms(
        &mut self,
        spec: &AttentionSpec,
        norms: &HeadNormSpec,
        heads: &mut Heads,
    ) -> Result<(), GraphError> {
        heads.q = self.head_norm(heads.q, (&norms.q, norms.scope), (spec.heads, spec.head_dim))?;
        let Some([k, v]) = &mut heads.own else { return Ok(()) };
        *k = self.head_norm(*k, (&norms.k, norms.scope), (spec.kv_heads, spec.head_dim))?;
        *v = self.norm_opt(*v, norms.v.as_ref())?;
        Ok(())
    }

    fn head_norm(
        &mut self,
        x: ValueId,
        (norm, scope): (&NormSpec, HeadNormScope),
        (count, head_dim): (usize, usize),
    ) -> Emitted {
        match scope {
            HeadNormScope::Head => self.norm(x, norm),
            HeadNormScope::EachHead | HeadNormScope::OwnTensors => self.norm_by_head(x, norm, count),
            HeadNormScope::All => {
                let wide = self.by_token(x, &[norm.width])?;
                let wide = self.norm(wide, norm)?;
                self.by_token(wide, &[count, head_dim])
            }
        }
    }

    fn project(&mut self, spec: &AttentionSpec, x: ValueId) -> Result<Heads, GraphError> {
        let (heads, kv_heads, head_dim) = (spec.heads, spec.kv_heads, spec.head_dim);
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let (q, own) = match &spec.qkv {
            QkvSpec::Separate { q, k, v } => {
                (self.linear(x, q)?, Some([self.linear(x, k)?, self.linear(x, v)?]))
            }
            QkvSpec::Shared { q, .. } => (self.linear(x, q)?, None),
            QkvSpec::Stacked(all) => {
                let all = self.linear(x, all)?;
                let q = self.graph.slice(all, 1, 0, q_width)?;
                let k = self.graph.slice(all, 1, q_width, kv_width)?;
                (q, Some([k, self.graph.slice(all, 1, q_width + kv_width, kv_width)?]))
            }
            QkvSpec::Latent(latent) => {
                // Without a cache the spec contradicts itself: a row has not the elements of queries and keys.
                let row = self.linear(x, &latent.down)?;
                (row, Some([row, row]))
            }
            QkvSpec::Grouped(all) => {
                let all = self.linear(x, all)?;
                let group = heads / kv_heads * head_dim;
                let all = self.by_token(all, &[kv_heads, group + 2 * head_dim])?;
                let q = self.graph.slice(all, 2, 0, group)?;
                let k = self.graph.slice(all, 2, group, head_dim)?;
                (q, Some([k, self.graph.slice(all, 2, group + head_dim, head_dim)?]))
            }
        };
        let mut by_head = |x, count| -> Emitted {
            let x = match spec.clip {
                Some(clip) if !clip.normed => self.clip(x, clip.limit)?,
                _ => x,
            };
            self.by_token(x, &[count, head_dim])
        };
        let q = by_head(q, heads)?;
        let own = own.map(|[k, v]| Ok([by_head(k, kv_heads)?, by_head(v, kv_heads)?])).transpose()?;
        Ok(Heads { q, own })
    }

    /// What exceeds the limit in magnitude is cut.
    pub(super) fn clip(&mut self, x: ValueId, limit: f64) -> Emitted {
        let x = self.with(ScalarOp::Min, x, limit)?;
        self.with(ScalarOp::Max, x, -limit)
    }

    /// Turns the first `2 · pairs` dimensions of every head by the angles of its position. Pairs of neighbours come out
    /// with all first elements before all second ones: queries and keys alike, so their products are the same.
    pub(super) fn rotate(&mut self, x: ValueId, turn: Turn, head_dim: usize) -> Emitted {
        let (Turn { cos, sin, pairs, interleaved }, rest) = (turn, head_dim - 2 * turn.pairs);
        let (x1, x2) = if interleaved {
            let heads = self.graph.ty(x).shape[1].as_const().unwrap_or(0) as usize;
            let turned = self.graph.slice(x, 2, 0, 2 * pairs)?;
            let turned = self.by_token(turned, &[heads, pairs, 2])?;
            let mut part = |start| -> Emitted {
                let part = self.graph.slice(turned, 3, start, 1)?;
                self.by_token(part, &[heads, pairs])
            };
            (part(0)?, part(1)?)
        } else {
            (self.graph.slice(x, 2, 0, pairs)?, self.graph.slice(x, 2, pairs, pairs)?)
        };
        let (a, b) = (self.map2(ScalarOp::Mul, x1, cos)?, self.map2(ScalarOp::Mul, x2, sin)?);
        let first = self.map2(ScalarOp::Sub, a, b)?;
        let (a, b) = (self.map2(ScalarOp::Mul, x2, cos)?, self.map2(ScalarOp::Mul, x1, sin)?);
        let second = self.map2(ScalarOp::Add, a, b)?;
        if rest == 0 {
            return self.graph.concat(2, &[first, second]);
        }
        let tail = self.graph.slice(x, 2, 2 * pairs, rest)?;
        self.graph.concat(2, &[first, second, tail])
    }

    /// Each key head repeated for the query heads that share it: […, Hkv, D] becomes […, H, D].
    pub(super) fn repeat_heads(&mut self, x: ValueId, spec: &AttentionSpec) -> Emitted {
        let group = spec.heads / spec.kv_heads;
        if group == 1 {
            return Ok(x);
        }
        let shape = self.graph.ty(x).shape.clone();
        let outer = &shape[..shape.len().saturating_sub(2)];
        let width = shape.last().copied().unwrap_or(Dim::ONE);
        let with = |heads: &[usize]| -> Vec<Dim> {
            let heads = heads.iter().copied().map(Dim::of);
            outer.iter().copied().chain(heads).chain([width]).collect()
        };
        let x = self.graph.reshape(x, &with(&[spec.kv_heads, 1]))?;
        let x = self.graph.broadcast(x, &with(&[spec.kv_heads, group]))?;
        self.graph.reshape(x, &with(&[spec.heads]))
    }

    /// Scaled scores `[T, H, C]` to weights that sum to 1 along C.
    pub(super) fn weights(&mut self, scores: ValueId, spec: &AttentionSpec, score: Score) -> Emitted {
        let mut s = self.softcap(scores, spec.softcap)?;
        if let Some(bias) = score.bias {
            s = self.map2(ScalarOp::Add, s, bias)?;
        }
        if let Some(mask) = score.mask {
            let never = self.number(f64::NEG_INFINITY)?;
            s = self.graph.map(ScalarOp::Select, &[mask, s, never])?;
        }
        let Some(sinks) = &spec.sinks else { return self.softmax(s, 2) };
        let sinks = self.vector(sinks, spec.heads, 1)?;
        let sinks = self.graph.reshape(sinks, &[Dim::ONE, Dim::of(spec.heads), Dim::ONE])?;
        self.softmax_beside(s, 2, sinks)
    }
}
