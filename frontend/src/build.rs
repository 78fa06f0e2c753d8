//! From a [`ModelSpec`] to a [`Graph`] of primitives, one builder for every family.
//!
//! What a step gets, with T tokens of S sequences: `tokens`, `positions`, `seq` `u32[T]`; decoders also `slots`
//! `u32[T]` (where each token's key and value go), `table` `u32[S, P]` (the pages of each sequence) and `rows`
//! `u32[R]` (the tokens whose logits are wanted). Decoders keep `k_cache.{i}` and `v_cache.{i}`, `[N, Hkv, D]`
//! (latent attention the first only), or codes there with `k_scale.{i}` and `v_scale.{i}`, `f32[N, Hkv, 1]`, and give `logits`
//! `f32[R, V]`, or `hidden` `f32[R, H]` if they have no head; encoders give `hidden` `f32[T, H]`, or, with `rows` and `types`
//! `u32[T]`, `scores` `f32[R, labels]` if they have a classifier.
//!
//! With bf16 weights, activations are narrowed just before each product and keys and values before they are stored;
//! the residual stream, norms, rotation and softmax stay f32. Quantised weights are dequantised by expressions; with
//! [`Activations::Int8`] the activations before them are quantised by expressions too.

mod attention;
mod blocks;
mod cache;
mod dequantise;
mod emit;
mod experts;
mod latent;

use sinter_ir::{DType, Dim, Graph, GraphError, Sym, ValueId};
use thiserror::Error;

use crate::spec::{FeedForward, LayerSpec, ModelKind, ModelSpec, QkvSpec, Residual};
pub(crate) use dequantise::SHIFTS;

use attention::{Caches, Context};
use emit::Emit;

/// What the graph is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BuildOptions {
    /// The type of matrices and embeddings: f32 or bf16. Norms, biases and constants are f32.
    pub weight_dtype: DType,
    /// The type of queries, keys and values as attention multiplies them: f32 or bf16.
    pub kv_dtype: DType,
    /// What the cache keeps of keys and values.
    pub kv_cache: KvCache,
    /// What activations are before products with quantised weights.
    pub activations: Activations,
}

/// What activations are before products with quantised weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activations {
    /// Of the type of the build, as before other products.
    #[default]
    Exact,
    /// Rounded to whole numbers from −127 to 127, each row with its own scale (dynamic quantisation by token), where the
    /// weight's codes are whole numbers too. Other products are as ever.
    Int8,
}

/// What the cache keeps of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum KvCache {
    /// Numbers of the type of the build.
    #[default]
    Exact,
    /// Codes, with a scale for each token and head: the row's greatest magnitude over the greatest code.
    Codes(KvCodes),
}

/// Codes that a row is rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvCodes {
    /// Whole numbers from −127 to 127.
    Int8,
    /// Whole numbers from −7 to 7, two to a byte.
    Int4,
    /// 8-bit floats (E4M3) up to 448.
    Fp8,
}

impl BuildOptions {
    /// Weights and the KV cache in the same type.
    pub fn new(dtype: DType) -> Self {
        BuildOptions {
            weight_dtype: dtype,
            kv_dtype: dtype,
            kv_cache: KvCache::Exact,
            activations: Activations::Exact,
        }
    }
}

/// Why there is no graph.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A type that no product is computed in.
    #[error("{what} of type {found}: wanted f32 or bf16")]
    Type {
        /// `weights` or `a KV cache`.
        what: &'static str,
        /// The type that was asked for.
        found: DType,
    },
    /// A cache of codes where there is none that could be.
    #[error("a KV cache of {format} codes is not possible: {reason}")]
    KvCache {
        /// The codes.
        format: KvCodes,
        /// Why.
        reason: String,
    },
    /// An operation that does not fit its operands: the spec contradicts itself.
    #[error("{place}: {source}; the fields of config.json contradict each other")]
    Graph {
        /// The part of the model.
        place: String,
        /// The broken rule.
        source: GraphError,
    },
}

/// Writes the graph of one step of a model.
pub fn build(spec: &ModelSpec, options: BuildOptions) -> Result<Graph, BuildError> {
    for (what, found) in [("weights", options.weight_dtype), ("a KV cache", options.kv_dtype)] {
        if !matches!(found, DType::F32 | DType::Bf16) {
            return Err(BuildError::Type { what, found });
        }
    }
    check_cache(spec, options)?;
    let at = |place: String| move |source| BuildError::Graph { place, source };
    let mut emit = Emit::new(spec.family, options, &spec.stored);
    let tokens = emit.input("tokens", &[Sym::T.into()]).map_err(at("tokens".into()))?;
    let context = Context::new(&mut emit, spec, tokens).map_err(at("the context".into()))?;
    let mut x = emit.embedding(spec, tokens, context.positions).map_err(at("the embedding".into()))?;
    let mut caches = Vec::new();
    for (i, layer) in spec.layers.iter().enumerate() {
        let mut branches = Branches { emit: &mut emit, spec, context: &context, caches: &mut caches, i };
        x = branches.layer(layer, x).map_err(at(format!("layer {i}")))?;
    }
    let (name, result) = finish(&mut emit, (spec, &context), x).map_err(at("the head".into()))?;
    let mut graph = emit.graph;
    for (i, Caches { k, v }) in caches.into_iter().enumerate() {
        for (kind, kept) in [("k", Some(k)), ("v", v)] {
            let Some(cache::Kept { rows, scales }) = kept else { continue };
            graph.output(&format!("{kind}_cache.{i}"), rows);
            scales.into_iter().for_each(|scales| graph.output(&format!("{kind}_scale.{i}"), scales));
        }
    }
    graph.output(name, result);
    Ok(graph)
}

/// Refuses codes where no cache of heads is kept.
fn check_cache(spec: &ModelSpec, options: BuildOptions) -> Result<(), BuildError> {
    let KvCache::Codes(format) = options.kv_cache else { return Ok(()) };
    let refused = |reason: String| Err(BuildError::KvCache { format, reason });
    if spec.kind == ModelKind::Encoder {
        return refused(format!("{} is an encoder, which keeps no keys and values", spec.family));
    }
    let latent = |layer: &LayerSpec| matches!(layer.attention.qkv, QkvSpec::Latent(_));
    if let Some(i) = spec.layers.iter().position(latent) {
        return refused(format!(
            "layer {i} keeps the rows of latent attention (MLA), not keys and values of heads"
        ));
    }
    let odd = |layer: &LayerSpec| layer.attention.head_dim % 2 == 1;
    if let Some(i) = spec.layers.iter().position(odd).filter(|_| format == KvCodes::Int4) {
        let width = spec.layers[i].attention.head_dim;
        return refused(format!("the heads of layer {i} are {width} wide, and two codes share a byte"));
    }
    Ok(())
}

/// One layer being written.
struct Branches<'a> {
    emit: &'a mut Emit,
    spec: &'a ModelSpec,
    context: &'a Context,
    caches: &'a mut Vec<Caches>,
    i: usize,
}

impl Branches<'_> {
    fn layer(&mut self, layer: &LayerSpec, x: ValueId) -> Result<ValueId, GraphError> {
        let input = self.emit.norm_opt(x, layer.attention_norms.before.as_ref())?;
        let attention = self.attention(layer, input)?;
        let sum = self.emit.map2(sinter_ir::ScalarOp::Add, x, attention)?;
        let sum = self.emit.norm_opt(sum, layer.attention_norms.after_sum.as_ref())?;
        let input = match layer.residual {
            Residual::Sequential => self.emit.norm_opt(sum, layer.mlp_norms.before.as_ref())?,
            Residual::Parallel => self.emit.norm_opt(x, layer.mlp_norms.before.as_ref())?,
            Residual::ParallelOneNorm => input,
        };
        let mlp = match &layer.mlp {
            FeedForward::Dense(mlp) => self.emit.mlp(mlp, input)?,
            FeedForward::Experts(experts) => self.emit.experts(experts, (input, sum))?,
        };
        let mlp = self.emit.norm_opt(mlp, layer.mlp_norms.after.as_ref())?;
        let mlp = self.emit.scaled(mlp, layer.residual_scale)?;
        let sum = self.emit.map2(sinter_ir::ScalarOp::Add, sum, mlp)?;
        let mut sum = self.emit.norm_opt(sum, layer.mlp_norms.after_sum.as_ref())?;
        if let Some(own) = &layer.per_layer {
            let branch = self.emit.per_layer(own, (self.spec, self.context.tokens), sum)?;
            sum = self.emit.map2(sinter_ir::ScalarOp::Add, sum, branch)?;
        }
        let Some(scalar) = &layer.scalar else { return Ok(sum) };
        let scalar = self.emit.vector(scalar, 1, 2)?;
        self.emit.map2(sinter_ir::ScalarOp::Mul, sum, scalar)
    }

    fn attention(&mut self, layer: &LayerSpec, input: ValueId) -> Result<ValueId, GraphError> {
        let around = (self.context, &self.caches[..]);
        let (out, caches) = self.emit.attention(&layer.attention, around, (self.i, input))?;
        self.caches.extend(caches);
        let out = self.emit.norm_opt(out, layer.attention_norms.after.as_ref())?;
        self.emit.scaled(out, layer.residual_scale)
    }
}

/// The last norm and the result: logits or hidden states of the wanted rows of decoders, scores of the wanted rows of
/// encoders that score sequences, hidden states of all tokens of other encoders.
fn finish(
    emit: &mut Emit,
    (spec, context): (&ModelSpec, &Context),
    x: ValueId,
) -> Result<(&'static str, ValueId), GraphError> {
    let mut x = emit.norm_opt(x, spec.final_norm.as_ref())?;
    let Some(head) = &spec.head else {
        if spec.kind == ModelKind::Encoder && spec.classifier.is_none() {
            return Ok(("hidden", x));
        }
        let rows = emit.input("rows", &[Dim::from(Sym::R)])?;
        let Some(classifier) = &spec.classifier else { return Ok(("hidden", emit.graph.gather(x, rows)?)) };
        if classifier.mean {
            let means = emit.means(x, (context.seq, rows), spec.hidden)?;
            return Ok(("scores", emit.classifier(classifier, means)?));
        }
        let scores = emit.classifier(classifier, x)?;
        return Ok(("scores", emit.graph.gather(scores, rows)?));
    };
    if let Some(project) = &head.project {
        x = emit.linear(x, project)?;
    }
    let logits = emit.linear(x, &head.linear)?;
    let logits = emit.scaled(logits, head.scale)?;
    let logits = emit.softcap(logits, head.softcap)?;
    let rows = emit.input("rows", &[Dim::from(Sym::R)])?;
    // Last on purpose: which rows are wanted is a fact for a rule to move before the head, not for the model.
    Ok(("logits", emit.graph.gather(logits, rows)?))
}
