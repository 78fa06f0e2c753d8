//! A model with every question answered: dimensions, tensor names, and the form of each block.
//!
//! A [`ModelSpec`] comes from [`resolve`](crate::resolve::resolve) and is all that [`build`](crate::build::build)
//! reads. An `Option` here means that a part is absent from the model, never that a default is to be looked up.

use std::collections::BTreeMap;

use crate::build::SHIFTS;
use crate::quant::{self, StoredMatrix};
use crate::rope::RopeSpec;

/// Whether a model writes text or reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Causal attention over a paged KV cache, logits at the end.
    Decoder,
    /// Attention in both directions inside each sequence, hidden states at the end.
    Encoder,
}

/// A resolved model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// The family, as `model_type` names it.
    pub family: &'static str,
    /// Decoder or encoder.
    pub kind: ModelKind,
    /// Rows of the token embedding, V.
    pub vocab: usize,
    /// Width of the residual stream, H.
    pub hidden: usize,
    /// The longest sequence that the model was made for, in tokens.
    pub max_position: usize,
    /// How tokens become rows of the residual stream.
    pub embedding: EmbeddingSpec,
    /// The distinct rotary tables that layers refer to by number.
    pub ropes: Vec<RopeSpec>,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// The norm after the last layer.
    pub final_norm: Option<NormSpec>,
    /// From hidden states to logits; decoders only. Without it the hidden states themselves are the result.
    pub head: Option<HeadSpec>,
    /// From hidden states to scores of a whole sequence; encoders only.
    pub classifier: Option<ClassifierSpec>,
    /// The matrices that the checkpoint holds quantised, by the name that they would have as they are.
    pub stored: BTreeMap<String, StoredMatrix>,
    /// The matrices that are parts of larger ones in the checkpoint, by the names that they have in the graph.
    pub parts: BTreeMap<String, PartSpec>,
}

/// Some rows or some columns of a matrix of the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct PartSpec {
    /// The tensor.
    pub tensor: String,
    /// Its shape.
    pub shape: [usize; 2],
    /// The axis along which it is cut: 0 for rows, 1 for columns.
    pub axis: usize,
    /// The first that is taken.
    pub start: usize,
    /// How many are taken.
    pub len: usize,
}

/// Tokens to rows: a sum of embeddings, scaled, perhaps normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingSpec {
    /// The table `[V, W]`.
    pub tokens: String,
    /// Width of the table's rows, W.
    pub width: usize,
    /// From the table's rows to those of the residual stream, where they are not as wide.
    pub project: Option<LinearSpec>,
    /// What the token's row is multiplied by; 1 means not at all.
    pub scale: f64,
    /// The table `[rows, H]` of token types, of which type 0 is used.
    pub token_types: Option<TableSpec>,
    /// The table of learned positions.
    pub positions: Option<TableSpec>,
    /// The norm of the sum.
    pub norm: Option<NormSpec>,
}

/// A table of learned rows.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSpec {
    /// The tensor.
    pub name: String,
    /// Its rows, those before `offset` included.
    pub rows: usize,
    /// The row of index 0.
    pub offset: usize,
}

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixLayout {
    /// `[N, K]`, outputs first, as `nn.Linear` does.
    OutIn,
    /// `[K, N]`, inputs first, as `Conv1D` does.
    InOut,
}

/// `y = x · Wᵀ + b`.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearSpec {
    /// The matrix.
    pub weight: String,
    /// The bias `[N]`.
    pub bias: Option<String>,
    /// How the matrix is stored.
    pub layout: MatrixLayout,
    /// Inputs, K.
    pub n_in: usize,
    /// Outputs, N.
    pub n_out: usize,
}

/// Which statistic a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// The root of the mean square.
    Rms,
    /// The standard deviation, after the mean is subtracted.
    Layer,
}

/// A norm over the last axis.
#[derive(Clone, Debug, PartialEq)]
pub struct NormSpec {
    /// Which statistic.
    pub kind: NormKind,
    /// The factor γ, `[width]`.
    pub weight: Option<String>,
    /// Whether the factor is 1 + γ.
    pub one_plus: bool,
    /// The summand β, `[width]`.
    pub bias: Option<String>,
    /// The extent of the axis.
    pub width: usize,
    /// What is added under the root.
    pub eps: f64,
}

/// How a layer's two branches join the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// Attention first; the MLP sees its sum.
    Sequential,
    /// Both see the layer's input, each through its own norm.
    Parallel,
    /// Both see the same normalised input: the one before attention.
    ParallelOneNorm,
}

/// The norms around one branch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BranchNorms {
    /// Of the branch's input.
    pub before: Option<NormSpec>,
    /// Of the branch's output, before the residual addition.
    pub after: Option<NormSpec>,
    /// Of the sum.
    pub after_sum: Option<NormSpec>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// How the branches join.
    pub residual: Residual,
    /// What each branch's output is multiplied by before it is added; 1 means not at all.
    pub residual_scale: f64,
    /// Norms around attention.
    pub attention_norms: BranchNorms,
    /// The attention.
    pub attention: AttentionSpec,
    /// Norms around the MLP.
    pub mlp_norms: BranchNorms,
    /// The MLP, or the experts in its place.
    pub mlp: FeedForward,
    /// A third branch, which mixes in an embedding of the token that this layer alone has.
    pub per_layer: Option<Box<PerLayerSpec>>,
    /// One number, `[1]`, that the sum of all is multiplied by.
    pub scalar: Option<String>,
}

/// A branch norm(up(act(gate(x)) · e)) behind the MLP, where e is the layer's own embedding of the token (Gemma 3n): the
/// token's row of a table plus a product of the token's row of the residual stream's first state.
#[derive(Clone, Debug, PartialEq)]
pub struct PerLayerSpec {
    /// The layer's part of a table of all layers, `[V, W]`.
    pub tokens: String,
    /// Rows of the table.
    pub rows: usize,
    /// What its rows are multiplied by.
    pub tokens_scale: f64,
    /// From the model's embedding to e.
    pub project: LinearSpec,
    /// What the product is multiplied by.
    pub project_scale: f64,
    /// The norm of that.
    pub norm: NormSpec,
    /// What the sum of both is multiplied by.
    pub scale: f64,
    /// From hidden states to W numbers.
    pub gate: LinearSpec,
    /// What they go through.
    pub activation: Activation,
    /// Back to hidden states.
    pub up: LinearSpec,
    /// The norm of the branch's output.
    pub after: NormSpec,
}

/// Where queries, keys and values come from.
#[derive(Clone, Debug, PartialEq)]
pub enum QkvSpec {
    /// Three matrices.
    Separate {
        /// Queries.
        q: LinearSpec,
        /// Keys.
        k: LinearSpec,
        /// Values.
        v: LinearSpec,
    },
    /// One matrix: all queries, then all keys, then all values.
    Stacked(LinearSpec),
    /// One matrix: for each key head its queries, its key and its value.
    Grouped(LinearSpec),
    /// Queries alone: keys and values are those that an earlier layer keeps.
    Shared {
        /// Queries.
        q: LinearSpec,
        /// The layer whose cache is read.
        layer: usize,
    },
    /// Keys and values of all heads from one short row a token, which alone is cached (DeepSeek-V2, 2.1). The cache has
    /// one head, as wide as the row and the rotated part of the key that all heads share.
    Latent(Box<LatentSpec>),
}

/// Multi-head latent attention.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentSpec {
    /// The queries.
    pub query: LatentQuery,
    /// From hidden states to a row and the shared part of the key, `rank + rotated` wide.
    pub down: LinearSpec,
    /// The norm of the row.
    pub norm: NormSpec,
    /// From the row to each head's part of the key and its value, `[H · (plain + value), rank]`.
    pub up: String,
    /// Width of the row.
    pub rank: usize,
    /// Width of a head's own part of queries and keys.
    pub plain: usize,
    /// Width of the rotated part.
    pub rotated: usize,
    /// Width of a value.
    pub value: usize,
}

/// Where the queries of latent attention come from.
#[derive(Clone, Debug, PartialEq)]
pub enum LatentQuery {
    /// One matrix.
    Direct(LinearSpec),
    /// Through a short row of their own.
    Low {
        /// To the row.
        down: LinearSpec,
        /// Its norm.
        norm: NormSpec,
        /// To the queries.
        up: LinearSpec,
    },
}

/// What a norm of queries and keys runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNormScope {
    /// Each head by itself, D wide.
    Head,
    /// Each head by itself, D wide, with a factor of its own for every head.
    EachHead,
    /// The same, with a tensor for each head: `{h}` in its name stands for the head. It has no summand.
    OwnTensors,
    /// All heads together, heads × D wide.
    All,
}

/// Norms of queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadNormSpec {
    /// Of queries.
    pub q: NormSpec,
    /// Of keys.
    pub k: NormSpec,
    /// Of values, which are each head's by itself.
    pub v: Option<NormSpec>,
    /// Over what.
    pub scope: HeadNormScope,
    /// Whether they stand behind the rotary embedding instead of before it.
    pub after_rope: bool,
}

/// The largest magnitude of queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipSpec {
    /// The limit.
    pub limit: f64,
    /// Whether it cuts what the norms of queries and keys give, instead of what goes into them.
    pub normed: bool,
}

/// Score (h, c) gets `scale` · slope_h · position_c added (ALiBi, Press et al. 2022); the slopes are a constant of the
/// model, [`ALIBI_SLOPES`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlibiSpec {
    /// The factor.
    pub scale: f64,
    /// Whether slope, position and their product are rounded to bf16, as the model was trained.
    pub rounded: bool,
}

/// The attention of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads, H.
    pub heads: usize,
    /// Key and value heads, Hkv; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, D.
    pub head_dim: usize,
    /// The input projections.
    pub qkv: QkvSpec,
    /// Norms of queries and keys.
    pub head_norms: Option<HeadNormSpec>,
    /// Which of [`ModelSpec::ropes`] turns queries and keys.
    pub rope: Option<usize>,
    /// The largest magnitude of queries, keys and values; what exceeds it is cut.
    pub clip: Option<ClipSpec>,
    /// What scores get added by position.
    pub alibi: Option<AlibiSpec>,
    /// One score more for each head, `[H]`, whose weight goes to no value.
    pub sinks: Option<String>,
    /// What scores are multiplied by.
    pub scale: f64,
    /// Scores s become cap · tanh(s / cap).
    pub softcap: Option<f64>,
    /// Decoders: a token sees itself and so many tokens before it less one. Encoders: so many tokens to either side
    /// less one.
    pub window: Option<usize>,
    /// The output projection.
    pub out: LinearSpec,
}

/// The non-linearity of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · σ(x).
    Silu,
    /// x · Φ(x), with the error function.
    GeluErf,
    /// The same with the tanh approximation.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// max(x, 0)².
    Relu2,
    /// tanh(x).
    Tanh,
}

/// The first half of an MLP.
#[derive(Clone, Debug, PartialEq)]
pub enum MlpInput {
    /// act(gate) · up, from two matrices.
    Gated {
        /// Goes through the activation.
        gate: LinearSpec,
        /// Multiplies.
        up: LinearSpec,
    },
    /// act(gate) · up, from one matrix with the gate first.
    GatedStacked(LinearSpec),
    /// act(up).
    Plain(LinearSpec),
}

/// A feed-forward block.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpSpec {
    /// The first half.
    pub input: MlpInput,
    /// The non-linearity.
    pub activation: Activation,
    /// Width between the halves.
    pub inner: usize,
    /// The second half.
    pub down: LinearSpec,
}

/// The second branch of a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// One MLP for every token.
    Dense(Box<MlpSpec>),
    /// Several MLPs of which each token goes through a few.
    Experts(Box<MoeSpec>),
}

/// How logits of the router become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// σ of each by itself.
    Sigmoid,
    /// Softmax over the chosen experts alone.
    SoftmaxOfChosen,
}

/// Experts are chosen from few groups: those whose best scores have the greatest sums (DeepSeek-V3, 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// Groups of equal size.
    pub count: usize,
    /// Groups from which experts may come.
    pub chosen: usize,
    /// How many scores of a group are added up.
    pub best: usize,
}

/// Which experts a token goes through, and with which weights.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterSpec {
    /// From hidden states to a logit for each expert.
    pub linear: LinearSpec,
    /// From logits to scores.
    pub scoring: Scoring,
    /// The vector `[E]` that is added to the scores for the choice alone.
    pub correction: Option<String>,
    /// From which groups experts may come.
    pub groups: Option<GroupSpec>,
    /// Experts of a token, k.
    pub chosen: usize,
    /// Whether the scores of the chosen are divided by their sum.
    pub normalise: bool,
    /// What the weights are multiplied by; 1 means not at all.
    pub scale: f64,
    /// The vector `[E]` with one more factor for each expert's weight.
    pub each: Option<String>,
}

/// How the matrices of a stack are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackForm {
    /// A tensor for each expert, `{e}` in its name.
    Each,
    /// One tensor of several stacks side by side along the outputs: `[E, parts · N, K]`, or `[E, K, parts · N]` with inputs
    /// first. Where it is quantised, outputs come first.
    Joined {
        /// How many stacks there are.
        parts: usize,
        /// Which this is.
        part: usize,
        /// Whether outputs or inputs come first.
        layout: MatrixLayout,
        /// Whether the stacks take turns, output by output, instead of following one another.
        turns: bool,
    },
}

/// The same matrix of every expert, `[N, K]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct StackSpec {
    /// The tensors.
    pub weight: String,
    /// How they are stored.
    pub form: StackForm,
    /// What is added to the outputs: one tensor `[E, parts · N]`, in which stacks stand as in the weights.
    pub bias: Option<String>,
    /// Experts, E.
    pub count: usize,
    /// Inputs, K.
    pub n_in: usize,
    /// Outputs, N.
    pub n_out: usize,
}

/// A mixture of experts: the weighted sum of what the chosen ones give, act(gate) · up through down.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeSpec {
    /// The choice.
    pub router: RouterSpec,
    /// Goes through the activation.
    pub gate: StackSpec,
    /// Multiplies.
    pub up: StackSpec,
    /// The second half.
    pub down: StackSpec,
    /// The non-linearity.
    pub activation: Activation,
    /// Limits on both halves, if there are any.
    pub clamp: Option<ClampSpec>,
    /// What every token goes through besides.
    pub shared: Option<SharedSpec>,
    /// Norms around the parts, where experts do not read what the MLP beside them reads.
    pub norms: Option<Box<MoeNormsSpec>>,
}

/// The norms of experts that read the residual stream itself and stand beside an MLP that does not.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeNormsSpec {
    /// Of what the router reads; its factor is the router's own.
    pub router: NormSpec,
    /// What that is multiplied by.
    pub router_scale: f64,
    /// Of what the experts read.
    pub before: NormSpec,
    /// Of what they give.
    pub after: NormSpec,
    /// Of what the MLP beside them gives.
    pub shared: NormSpec,
}

/// min(gate, limit) · σ(alpha · min(gate, limit)) · (clamp(up, ±limit) + 1) in place of act(gate) · up (gpt-oss).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClampSpec {
    /// The factor in the sigmoid.
    pub alpha: f64,
    /// The limit.
    pub limit: f64,
}

/// An MLP beside the experts.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedSpec {
    /// The MLP.
    pub mlp: MlpSpec,
    /// One logit for each token, of which σ multiplies the MLP's output.
    pub gate: Option<LinearSpec>,
}

/// From one hidden state of a sequence to a score for each label: linear · norm · act(dense).
#[derive(Clone, Debug, PartialEq)]
pub struct ClassifierSpec {
    /// Whether that is the mean of all its tokens instead of the first.
    pub mean: bool,
    /// The first matrix.
    pub dense: LinearSpec,
    /// What it goes through.
    pub activation: Activation,
    /// The norm behind that.
    pub norm: Option<NormSpec>,
    /// The second matrix.
    pub linear: LinearSpec,
}

/// From hidden states to logits.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSpec {
    /// To the width of the matrix, where that is the embedding's and not the residual stream's.
    pub project: Option<LinearSpec>,
    /// The matrix; the token embedding itself where they are tied.
    pub linear: LinearSpec,
    /// What logits are multiplied by; 1 means not at all.
    pub scale: f64,
    /// Logits l become cap · tanh(l / cap).
    pub softcap: Option<f64>,
}

impl AttentionSpec {
    /// Numbers that a token leaves in the cache.
    pub fn cached(&self) -> usize {
        let rows = match self.qkv {
            QkvSpec::Shared { .. } => 0,
            QkvSpec::Latent(_) => 1,
            _ => 2,
        };
        rows * self.kv_heads * self.head_dim
    }
}

impl ModelSpec {
    /// The weights that no checkpoint holds, by name: the rotary frequencies of each table, the slopes of ALiBi, and the
    /// shifts and tables that unpack quantised weights.
    pub fn constants(&self) -> Vec<(String, Vec<f32>)> {
        let tables = self.ropes.iter().enumerate();
        let tables = tables.map(|(table, rope)| (inv_freq_name(table), rope.inverse_frequencies().0));
        let biased =
            self.layers.iter().map(|layer| &layer.attention).find(|attention| attention.alibi.is_some());
        let slopes = biased.map(|attention| (ALIBI_SLOPES.into(), alibi_slopes(attention.heads)));
        let shifts = SHIFTS.iter().map(|(name, amounts)| ((*name).into(), amounts.to_vec()));
        let unpack = shifts.chain(quant::tables()).filter(|_| !self.stored.is_empty());
        tables.chain(slopes).chain(unpack).collect()
    }
}

/// The name of the slopes of ALiBi, `[H]`.
pub const ALIBI_SLOPES: &str = "const.alibi_slopes";

/// The slope of each head (Press et al. 2022, section 3): 2^(-8 i / n) for n heads, n a power of two; for other numbers
/// those of the power of two below, and between them as many of the next power's odd ones as are missing.
fn alibi_slopes(heads: usize) -> Vec<f32> {
    let closest = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    // Bases and powers are single precision in the reference.
    let slope = |base: f64, power: usize| (base as f32 as f64).powi(power as i32) as f32;
    let base = |n: usize| 2f64.powf(-8.0 / n as f64);
    let first = (1..=closest).map(|power| slope(base(closest), power));
    let rest = (0..heads - closest).map(|i| slope(base(2 * closest), 2 * i + 1));
    first.chain(rest).collect()
}

/// The name of the frequencies of one rotary table.
pub fn inv_freq_name(table: usize) -> String {
    format!("const.rope_inv_freq.{table}")
}
