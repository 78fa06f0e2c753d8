//! The shape of a row in the table of families: what a model family fixes, and which config field decides the rest.
//!
//! A row holds no code. Weight names are written without the checkpoint's prefix and without `.weight`; `{i}`
//! stands for the layer.

use crate::spec::{Activation, HeadNormScope, MatrixLayout, ModelKind, NormKind, Residual, Scoring};

/// One family of models.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The value of `model_type`.
    pub model_type: &'static str,
    /// What fields must say, written as JSON, for this row to be the one: a family with several forms has a row for each
    /// and the first that fits is taken. `null` stands for an absent field.
    pub when: &'static [(&'static str, &'static str)],
    /// Decoder or encoder.
    pub kind: ModelKind,
    /// The names of the common fields.
    pub keys: Keys,
    /// Fields that mean nothing in this family whatever they say.
    pub ignored: &'static [&'static str],
    /// Fields that mean nothing as long as they have this value, written as JSON.
    pub only: &'static [(&'static str, &'static str)],
    /// Fields that may only repeat another field.
    pub equal: &'static [(&'static str, &'static str)],
    /// What may stand before every weight name but the head's; the first that fits the checkpoint is taken.
    pub prefixes: &'static [&'static str],
    /// Tokens to rows.
    pub embedding: EmbeddingRow,
    /// What all norms have in common.
    pub norm: NormRow,
    /// Where norms stand.
    pub norms: NormPlaces,
    /// How the branches join.
    pub residual: ResidualRow,
    /// The attention.
    pub attention: AttentionRow,
    /// The MLP.
    pub mlp: MlpRow,
    /// The experts that stand in place of the MLP.
    pub moe: Option<MoeRow>,
    /// What stands behind the MLP.
    pub per_layer: Option<PerLayerRow>,
    /// From hidden states to logits.
    pub head: Option<HeadRow>,
    /// From a sequence's hidden states to scores, where the checkpoint has such a head.
    pub classifier: Option<ClassifierRow>,
}

/// The names of the fields that every family has under one name or another.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Width of the residual stream.
    pub hidden: &'static str,
    /// Number of layers.
    pub layers: &'static str,
    /// Query heads.
    pub heads: &'static str,
    /// Key and value heads.
    pub kv_heads: KvHeads,
    /// Width of a head; without the field, `hidden / heads`.
    pub head_dim: Option<&'static str>,
    /// Width inside the MLP.
    pub inner: &'static str,
    /// The width inside the MLP as a multiple of `hidden` where the field is absent; 0 where it must be there.
    pub inner_multiple: usize,
    /// The longest sequence.
    pub positions: &'static str,
    /// The longest sequence where the field is absent; 0 where it must be there.
    pub positions_absent: usize,
    /// The norms' epsilon.
    pub eps: Factor,
    /// The activation.
    pub activation: ActivationRow,
}

/// How many key and value heads there are.
#[derive(Clone, Copy, Debug)]
pub enum KvHeads {
    /// As many as query heads.
    AsQueries,
    /// So many.
    Fixed(usize),
    /// As the field says; without it, as many as query heads.
    Field(&'static str),
}

/// Which activation the MLP has.
#[derive(Clone, Copy, Debug)]
pub enum ActivationRow {
    /// Always this one.
    Fixed(Activation),
    /// The one that the field names.
    Field(&'static str),
    /// The one that the field names, where the family means something else by the names.
    FieldOf(&'static str, &'static [(&'static str, Activation)]),
}

/// A yes or no that a family fixes or a field decides.
#[derive(Clone, Copy, Debug)]
pub enum Switch {
    /// Always so.
    Fixed(bool),
    /// As the field says, or as given where it is absent.
    Field(&'static str, bool),
}

/// A factor that a family fixes or a field decides.
#[derive(Clone, Copy, Debug)]
pub enum Factor {
    /// Always this.
    Fixed(f64),
    /// √hidden.
    SqrtHidden,
    /// 1/√hidden.
    InverseSqrtHidden,
    /// 1/√head_dim.
    InverseSqrtHead,
    /// 1/√field.
    InverseSqrtField(&'static str),
    /// 1/√(field + field).
    InverseSqrtSum(&'static str, &'static str),
    /// The field's value.
    Field(&'static str),
    /// The field's value, or as given where it is absent.
    FieldOr(&'static str, f64),
    /// 1/field.
    InverseField(&'static str),
}

/// Tokens to rows.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingRow {
    /// The token table.
    pub tokens: &'static str,
    /// What its rows are multiplied by.
    pub scale: Factor,
    /// The field with the width of its rows, and the matrices from it and back to it where it is not the hidden one.
    pub project: Option<(&'static str, [&'static str; 2])>,
    /// The table of token types and the field with the number of its rows.
    pub token_types: Option<(&'static str, &'static str)>,
    /// The table of learned positions.
    pub positions: Option<PositionRow>,
    /// The norm of the sum.
    pub norm: Option<&'static str>,
}

/// The table of learned positions.
#[derive(Clone, Copy, Debug)]
pub struct PositionRow {
    /// The table.
    pub table: &'static str,
    /// The row of position 0.
    pub offset: usize,
    /// Whether the field with the longest sequence counts the rows before that one too.
    pub counted: bool,
}

/// What all norms of a family have in common.
#[derive(Clone, Copy, Debug)]
pub struct NormRow {
    /// Which statistic.
    pub kind: NormKind,
    /// Whether there is a factor γ.
    pub weight: bool,
    /// Whether the factor is 1 + γ.
    pub one_plus: bool,
    /// Whether there is a summand.
    pub bias: bool,
}

/// The norms of a layer and after the last one.
#[derive(Clone, Copy, Debug)]
pub struct NormPlaces {
    /// Around attention.
    pub attention: BranchPlaces,
    /// Whether the first layer lacks the norm before attention: its input is normalised already.
    pub first_is_bare: bool,
    /// Around the MLP.
    pub mlp: BranchPlaces,
    /// After the last layer.
    pub last: Option<&'static str>,
}

/// The norms around one branch.
#[derive(Clone, Copy, Debug)]
pub struct BranchPlaces {
    /// Of its input.
    pub before: Option<&'static str>,
    /// Of its output.
    pub after: Option<&'static str>,
    /// Of its sum with the residual stream.
    pub after_sum: Option<&'static str>,
}

/// No norm around a branch; rows name those that they have.
pub const NO_NORMS: BranchPlaces = BranchPlaces { before: None, after: None, after_sum: None };

/// How the branches of a layer join.
#[derive(Clone, Copy, Debug)]
pub struct ResidualRow {
    /// Whether they run side by side.
    pub parallel: Switch,
    /// The form if they do.
    pub form: Residual,
    /// What each branch's output is multiplied by.
    pub scale: Factor,
}

/// Where queries, keys and values come from.
#[derive(Clone, Copy, Debug)]
pub enum QkvRow {
    /// Three matrices, in the order q, k, v.
    Separate(&'static str, &'static str, &'static str),
    /// One matrix: all queries, all keys, all values.
    Stacked(&'static str),
    /// One matrix: by key head its queries, its key, its value.
    Grouped(&'static str),
    /// One short row a token, from which keys and values of all heads come.
    Latent(LatentRow),
}

/// Multi-head latent attention. The width of the rotated part is that of a head in [`Keys`].
#[derive(Clone, Copy, Debug)]
pub struct LatentRow {
    /// The fields with the widths of the row of keys and values, of a head's own part of queries and keys, of a value.
    pub widths: [&'static str; 3],
    /// The field with the width of the row of queries; without a number, queries come from one matrix.
    pub query_rank: &'static str,
    /// Queries: the one matrix, or the matrix to the row, its norm, the matrix from it.
    pub query: (&'static str, [&'static str; 3]),
    /// The matrix to the row of keys and values, its norm, the matrix from it.
    pub key_value: [&'static str; 3],
    /// The norms' epsilon.
    pub eps: f64,
}

/// Norms of queries and keys.
#[derive(Clone, Copy, Debug)]
pub struct HeadNormRow {
    /// Of queries.
    pub q: &'static str,
    /// Of keys.
    pub k: &'static str,
    /// Over what.
    pub scope: HeadNormScope,
    /// Whether each head's value is normalised too, without a factor.
    pub values: bool,
    /// Whether they stand behind the rotary embedding instead of before it.
    pub after_rope: bool,
    /// Whether there are any.
    pub present: Switch,
}

/// Which layers have a rotary embedding.
#[derive(Clone, Copy, Debug)]
pub enum RopeLayers {
    /// All.
    All,
    /// Those with a window.
    Sliding,
    /// Those with a window, or all where none has one.
    SlidingOrAll,
    /// Those with a 1 in the list; without the list, all but every n-th, with the field for n and its default.
    Listed(&'static str, (&'static str, usize)),
}

/// The rotary embedding before the fields are read.
#[derive(Clone, Copy, Debug)]
pub struct RopeRow {
    /// Whether neighbours make a pair instead of the two halves of what is rotated.
    pub interleaved: bool,
    /// The field with the number of rotated dimensions of a head, where it is not given as a share.
    pub dim: Option<&'static str>,
    /// Which layers are rotated.
    pub layers: RopeLayers,
    /// Layers with a window have a table of their own: the field with its base in older files, and the base where no
    /// field gives one. It is never scaled there.
    pub local: Option<(&'static str, f64)>,
    /// The base where no field gives one.
    pub theta: f64,
    /// The share of a head that is rotated where no field says it; `None` where a field that says so is refused.
    pub partial: Option<f64>,
}

/// Which layers see a window only. A list `layer_types` decides where there is one.
#[derive(Clone, Copy, Debug)]
pub enum WindowRow {
    /// None.
    Never,
    /// All, as soon as `sliding_window` is a number; the number stands for an absent field.
    AllLayers(Option<usize>),
    /// Those from the layer on that the field says, as soon as `sliding_window` is a number.
    FromLayer(&'static str),
    /// Those that are named, if `use_sliding_window` says so.
    IfUsed(UsedWindow),
    /// All but every n-th.
    AllButEvery {
        /// n, where no field says it.
        period: usize,
        /// The field with n.
        period_field: &'static str,
        /// What stands for an absent `sliding_window`.
        absent: usize,
    },
    /// Those that a list names, which must be there and end with a layer without a window.
    Listed {
        /// What stands for an absent `sliding_window`.
        absent: usize,
    },
    /// Encoders: all but the first of every n layers, half the width to either side. Each is a field and what stands for
    /// it where it is absent.
    BothSides {
        /// The width of the window, both sides together.
        width: (&'static str, usize),
        /// n.
        period: (&'static str, usize),
    },
}

/// Which layers have a window that `use_sliding_window` switches on.
#[derive(Clone, Copy, Debug)]
pub enum UsedWindow {
    /// All.
    All,
    /// Those from `max_window_layers` on.
    FromLayer,
    /// Every second before `max_window_layers`, from the first on.
    EverySecondBefore,
}

/// What layers without a window have of their own where others have one.
#[derive(Clone, Copy, Debug)]
pub struct GlobalRow {
    /// The field with the width of a head, and what stands for it where it is absent.
    pub head_dim: (&'static str, usize),
    /// The field that says whether values are what keys are made of.
    pub keys_are_values: &'static str,
    /// The field with the number of key heads where they are.
    pub kv_heads: &'static str,
}

/// Last layers that read keys and values of an earlier one: the last before them that has a window if they have one, and none
/// if they have none.
#[derive(Clone, Copy, Debug)]
pub struct SharedLayersRow {
    /// The field with their number.
    pub count: &'static str,
    /// The field that says whether their MLP is twice as wide.
    pub wide: &'static str,
}

/// What scores get added by position (ALiBi).
#[derive(Clone, Copy, Debug)]
pub enum AlibiRow {
    /// Nothing.
    Never,
    /// The slope of the head times the position.
    Plain,
    /// The same, rounded to bf16, and then scaled as scores are.
    RoundedAndScaled,
}

/// Where queries, keys and values are cut.
#[derive(Clone, Copy, Debug)]
pub enum ClipRow {
    /// Before the norms of queries and keys: the field with the limit.
    Projections(&'static str),
    /// Behind them: the field with the limit.
    Normed(&'static str),
}

/// The attention of a family.
#[derive(Clone, Copy, Debug)]
pub struct AttentionRow {
    /// The input projections.
    pub qkv: QkvRow,
    /// Whether they have a bias.
    pub qkv_bias: Switch,
    /// The output projection.
    pub out: &'static str,
    /// Whether it has a bias.
    pub out_bias: Switch,
    /// Norms of queries and keys.
    pub head_norms: Option<HeadNormRow>,
    /// The rotary embedding.
    pub rope: Option<RopeRow>,
    /// What scores get added by position.
    pub alibi: AlibiRow,
    /// The largest magnitude of queries, keys and values.
    pub clip: Option<ClipRow>,
    /// The vector with one score more for each head; its whole name.
    pub sinks: Option<&'static str>,
    /// What scores are multiplied by.
    pub scale: Factor,
    /// The field with the cap on scores.
    pub softcap: Option<&'static str>,
    /// Which layers see a window only.
    pub window: WindowRow,
    /// What those without one have of their own.
    pub global: Option<GlobalRow>,
    /// Whether last layers read the keys and values of earlier ones.
    pub shared: Option<SharedLayersRow>,
    /// How the projections of attention and MLP are stored.
    pub layout: MatrixLayout,
}

/// The first half of an MLP.
#[derive(Clone, Copy, Debug)]
pub enum MlpInputRow {
    /// Gate and up.
    Gated(&'static str, &'static str),
    /// One matrix, the gate first.
    GatedStacked(&'static str),
    /// Up alone.
    Plain(&'static str),
}

/// The MLP of a family.
#[derive(Clone, Copy, Debug)]
pub struct MlpRow {
    /// The first half.
    pub input: MlpInputRow,
    /// The second half.
    pub down: &'static str,
    /// Whether the projections have a bias.
    pub bias: Switch,
}

/// The branch with the layer's own embedding of a token, and a factor of its sum with the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct PerLayerRow {
    /// The factor; its whole name.
    pub scalar: &'static str,
    /// The field with its width; 0 where there is no such branch.
    pub width: &'static str,
    /// The field with the rows of the table.
    pub vocab: &'static str,
    /// The table of all layers, and the matrix of all layers from the model's embedding, and the norm behind that.
    pub tables: [&'static str; 3],
    /// The layer's matrix to the branch, the one back from it, and the norm behind that.
    pub branch: [&'static str; 3],
}

/// Which layers have an MLP and no experts.
#[derive(Clone, Copy, Debug)]
pub enum DenseLayers {
    /// None.
    Never,
    /// The first ones, as many as the field says, or as given where it is absent.
    First(&'static str, usize),
    /// Those that the first field lists, and those whose number, from 1 on, the second field's value does not divide.
    ListAndStep(&'static str, &'static str),
}

/// An MLP that every token goes through besides its experts.
#[derive(Clone, Copy, Debug)]
pub struct SharedRow {
    /// The first half.
    pub input: MlpInputRow,
    /// The second half.
    pub down: &'static str,
    /// Its width.
    pub width: SharedWidth,
    /// The matrix of the gate on its output.
    pub gate: Option<&'static str>,
}

/// The width of a shared MLP.
#[derive(Clone, Copy, Debug)]
pub enum SharedWidth {
    /// The field's value.
    Field(&'static str),
    /// So many times that of an expert as the field says.
    Experts(&'static str),
}

/// How the matrices of experts are stored.
#[derive(Clone, Copy, Debug)]
pub enum ExpertsRow {
    /// Gate, up and down, a tensor for each expert: `{e}` stands for it.
    Each([&'static str; 3]),
    /// One tensor for all gates and ups, and one for all downs.
    Joined(JoinedRow),
}

/// The matrices of all experts in two tensors.
#[derive(Clone, Copy, Debug)]
pub struct JoinedRow {
    /// Gates and ups, downs; whole names.
    pub names: [&'static str; 2],
    /// Whether outputs or inputs come first.
    pub layout: MatrixLayout,
    /// Whether gates and ups take turns along the outputs, instead of all gates before all ups.
    pub turns: bool,
    /// Whether each has a bias, of that name and `_bias`.
    pub bias: bool,
}

/// Limits on the halves of an expert: the factor in the sigmoid, and the limit.
#[derive(Clone, Copy, Debug)]
pub struct ClampRow {
    /// The factor in the sigmoid.
    pub alpha: Factor,
    /// The limit.
    pub limit: Factor,
}

/// The experts of a family.
#[derive(Clone, Copy, Debug)]
pub struct MoeRow {
    /// The names that the field with the number of experts may have.
    pub count: &'static [&'static str],
    /// The field with the number that each token goes through.
    pub chosen: &'static str,
    /// The field with the width inside an expert.
    pub inner: &'static str,
    /// The router's matrix.
    pub router: &'static str,
    /// Whether it has a bias.
    pub router_bias: bool,
    /// From its logits to scores.
    pub scoring: Scoring,
    /// The vector that is added to scores for the choice alone; its whole name.
    pub correction: Option<&'static str>,
    /// The fields with the number of groups and of groups to choose from, and how many of a group's scores count.
    pub groups: Option<(&'static str, &'static str, usize)>,
    /// Whether the scores of the chosen are divided by their sum.
    pub normalise: Switch,
    /// What the weights are multiplied by.
    pub scale: Factor,
    /// The matrices.
    pub experts: ExpertsRow,
    /// Limits on both halves of an expert.
    pub clamp: Option<ClampRow>,
    /// The MLP beside the experts.
    pub shared: Option<SharedRow>,
    /// Norms of their own.
    pub norms: Option<MoeNormsRow>,
    /// Which layers have none of this.
    pub dense: DenseLayers,
}

/// The norms of experts that read the residual stream itself. Their router has a norm whose factor is a vector.
#[derive(Clone, Copy, Debug)]
pub struct MoeNormsRow {
    /// The factor of the router's norm, and one more for each expert's weight; whole names.
    pub router: [&'static str; 2],
    /// Of what experts read, of what they give, of what the MLP beside them gives.
    pub parts: [&'static str; 3],
}

/// The head of an encoder that scores sequences. Its names stand without prefix.
#[derive(Clone, Copy, Debug)]
pub struct ClassifierRow {
    /// The first matrix, and whether the family's prefix stands before it.
    pub dense: (&'static str, bool),
    /// Whether it has a bias.
    pub dense_bias: Switch,
    /// What it goes through.
    pub activation: ActivationRow,
    /// The norm behind that.
    pub norm: Option<&'static str>,
    /// The second matrix, with a bias: where the checkpoint has it, the model scores sequences.
    pub linear: &'static str,
    /// The field that says whether the first token or the mean of all is read; without one, it is the first.
    pub pooling: Option<&'static str>,
}

/// The head of a family. Its name stands without prefix.
#[derive(Clone, Copy, Debug)]
pub struct HeadRow {
    /// The matrix where it is not the token embedding.
    pub name: &'static str,
    /// Whether it has a bias.
    pub bias: Switch,
    /// Whether it is the token embedding where `tie_word_embeddings` is absent.
    pub tied: bool,
    /// What logits are multiplied by.
    pub scale: Factor,
    /// The field with the cap on logits.
    pub softcap: Option<&'static str>,
}

/// The names of activations.
pub const ACTIVATIONS: &[(&str, Activation)] = &[
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::GeluErf),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_python", Activation::GeluErf),
    ("relu", Activation::Relu),
    ("relu2", Activation::Relu2),
    ("tanh", Activation::Tanh),
];
