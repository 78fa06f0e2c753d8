//! Embeddings, projections, norms and MLPs.

use sinter_ir::{DType, Dim, GraphError, Monoid, ScalarOp, Sym, ValueId};

use super::KvCodes;
use super::emit::{Emit, Emitted};
use crate::spec::{
    Activation, ClassifierSpec, EmbeddingSpec, LinearSpec, MatrixLayout, MlpInput, MlpSpec, ModelSpec,
    NormKind, NormSpec, PerLayerSpec,
};

/// The least magnitude by which a row is scaled.
const LEAST: f64 = 1e-30;

impl Emit {
    /// The rows of tokens in the table, scaled.
    fn token_rows(&mut self, spec: &ModelSpec, tokens: ValueId) -> Emitted {
        // As the head has it, if it is the same matrix: then it lies in memory once.
        let table = match self.codes_of(&spec.embedding.tokens)? {
            Some(table) => table,
            None => self.matrix(&spec.embedding.tokens, spec.vocab, spec.embedding.width)?,
        };
        let rows = self.rows(table, tokens)?;
        self.scaled(rows, spec.embedding.scale)
    }

    /// The branch behind the MLP with a layer's own embedding of each token. The model's embedding is looked up again in each
    /// layer: a row that lives through all of them would be a second residual stream.
    pub(super) fn per_layer(
        &mut self,
        own: &PerLayerSpec,
        (spec, tokens): (&ModelSpec, ValueId),
        x: ValueId,
    ) -> Emitted {
        let width = own.gate.n_out;
        let embedded = self.token_rows(spec, tokens)?;
        let projected = self.linear(embedded, &own.project)?;
        let projected = self.scaled(projected, own.project_scale)?;
        let projected = self.norm(projected, &own.norm)?;
        let table = self.matrix(&own.tokens, own.rows, width)?;
        let rows = self.rows(table, tokens)?;
        let rows = self.scaled(rows, own.tokens_scale)?;
        let mixed = self.map2(ScalarOp::Add, projected, rows)?;
        let mixed = self.scaled(mixed, own.scale)?;
        let gate = self.linear(x, &own.gate)?;
        let gate = self.activation(own.activation, gate)?;
        let inner = self.map2(ScalarOp::Mul, gate, mixed)?;
        let out = self.linear(inner, &own.up)?;
        self.norm(out, &own.after)
    }

    /// Rows of the residual stream, `f32[T, H]`.
    pub(super) fn embedding(&mut self, spec: &ModelSpec, tokens: ValueId, positions: ValueId) -> Emitted {
        let EmbeddingSpec { token_types, positions: learned, norm, .. } = &spec.embedding;
        let mut x = self.token_rows(spec, tokens)?;
        if let Some(project) = &spec.embedding.project {
            x = self.linear(x, project)?;
        }
        if let Some(types) = token_types {
            let table = self.matrix(&types.name, types.rows, spec.hidden)?;
            let row = match spec.classifier.is_some() && types.rows > 1 {
                // A head that scores sequences scores pairs of texts too.
                true => {
                    let types = self.input("types", &[Sym::T.into()])?;
                    self.rows(table, types)?
                }
                false => {
                    let row = self.graph.slice(table, 0, types.offset, 1)?;
                    self.graph.cast(row, DType::F32)?
                }
            };
            x = self.map2(ScalarOp::Add, x, row)?;
        }
        if let Some(learned) = learned {
            let table = self.matrix(&learned.name, learned.rows, spec.hidden)?;
            let mut at = positions;
            if learned.offset > 0 {
                let offset = self.graph.constant(learned.offset as f64, DType::U32)?;
                at = self.map2(ScalarOp::Add, at, offset)?;
            }
            let rows = self.rows(table, at)?;
            x = self.map2(ScalarOp::Add, x, rows)?;
        }
        self.norm_opt(x, norm.as_ref())
    }

    fn rows(&mut self, table: ValueId, indices: ValueId) -> Emitted {
        let rows = self.graph.gather(table, indices)?;
        self.graph.cast(rows, DType::F32)
    }

    /// x · Wᵀ + b, `f32[T, N]`.
    pub(super) fn linear(&mut self, x: ValueId, spec: &LinearSpec) -> Emitted {
        let product = self.product(x, spec)?;
        let Some(bias) = &spec.bias else { return Ok(product) };
        let bias = self.vector(bias, spec.n_out, 2)?;
        self.map2(ScalarOp::Add, product, bias)
    }

    fn product(&mut self, x: ValueId, spec: &LinearSpec) -> Emitted {
        if let Some(weight) = self.codes_of(&spec.weight)? {
            let (codes, scale) = self.rounded_rows(x)?;
            let product = self.graph.contract("tk,nk->tn", codes, weight)?;
            return self.map2(ScalarOp::Mul, product, scale);
        }
        let x = self.narrow(x)?;
        match spec.layout {
            MatrixLayout::OutIn => {
                let weight = self.matrix(&spec.weight, spec.n_out, spec.n_in)?;
                self.graph.contract("tk,nk->tn", x, weight)
            }
            // Quantised matrices lie outputs first whatever the original does.
            MatrixLayout::InOut if self.is_stored(&spec.weight) => {
                let weight = self.matrix(&spec.weight, spec.n_out, spec.n_in)?;
                self.graph.contract("tk,nk->tn", x, weight)
            }
            MatrixLayout::InOut => {
                let weight = self.matrix(&spec.weight, spec.n_in, spec.n_out)?;
                self.graph.contract("tk,kn->tn", x, weight)
            }
        }
    }

    /// Rows as whole numbers from −127 to 127, in f32, and the scale of each row, `f32[T, 1]`: its greatest magnitude over 127.
    fn rounded_rows(&mut self, x: ValueId) -> Result<(ValueId, ValueId), GraphError> {
        if let Some(known) = self.rounded.get(&x) {
            return Ok(*known);
        }
        let (codes, scale) = self.row_codes(x, KvCodes::Int8)?;
        let codes = self.graph.cast(codes, DType::F32)?;
        self.rounded.insert(x, (codes, scale));
        Ok((codes, scale))
    }

    /// The codes of rows along the last axis, and the scale of each row, `f32[…, 1]`: its greatest magnitude over the greatest
    /// code.
    pub(super) fn row_codes(&mut self, x: ValueId, codes: KvCodes) -> Result<(ValueId, ValueId), GraphError> {
        let (dtype, greatest) = codes.format();
        let axis = self.graph.ty(x).rank().saturating_sub(1);
        let wide = self.graph.cast(x, DType::F32)?;
        let size = self.map1(ScalarOp::Abs, wide)?;
        let most = self.graph.reduce(Monoid::Max, axis, size)?;
        // A row of zeros has codes of zero whatever its scale.
        let most = self.with(ScalarOp::Max, most, LEAST)?;
        let limit = self.number(greatest)?;
        let factor = self.map2(ScalarOp::Div, limit, most)?;
        let mut codes = self.map2(ScalarOp::Mul, wide, factor)?;
        if !dtype.is_float() {
            codes = self.with(ScalarOp::Add, codes, 0.5)?;
            codes = self.map1(ScalarOp::Floor, codes)?;
        }
        let codes = self.graph.cast(codes, dtype)?;
        let scale = self.with(ScalarOp::Mul, most, 1.0 / greatest)?;
        Ok((codes, scale))
    }

    /// The norm where there is one.
    pub(super) fn norm_opt(&mut self, x: ValueId, spec: Option<&NormSpec>) -> Emitted {
        match spec {
            Some(spec) => self.norm(x, spec),
            None => Ok(x),
        }
    }

    /// A norm over the last axis.
    pub(super) fn norm(&mut self, x: ValueId, spec: &NormSpec) -> Emitted {
        let y = self.standardised(x, spec)?;
        let rank = self.graph.ty(x).rank();
        self.affine(y, spec, |emit, name| emit.vector(name, spec.width, rank))
    }

    /// A norm over the last axis of `[T, count, width]`, with a factor for every element of the other two.
    pub(super) fn norm_by_head(&mut self, x: ValueId, spec: &NormSpec, count: usize) -> Emitted {
        let y = self.standardised(x, spec)?;
        self.affine(y, spec, |emit, name| emit.vectors(name, count, spec.width))
    }

    /// x less its mean, if the norm says so, over the root of its mean square.
    fn standardised(&mut self, x: ValueId, spec: &NormSpec) -> Emitted {
        let x = match spec.kind {
            NormKind::Rms => x,
            NormKind::Layer => {
                let mean = self.mean(x, spec.width)?;
                self.map2(ScalarOp::Sub, x, mean)?
            }
        };
        let square = self.map2(ScalarOp::Mul, x, x)?;
        let variance = self.mean(square, spec.width)?;
        let variance = self.with(ScalarOp::Add, variance, spec.eps)?;
        let scale = self.map1(ScalarOp::Rsqrt, variance)?;
        self.map2(ScalarOp::Mul, x, scale)
    }

    /// γ · y + β, as far as the norm has them.
    fn affine(
        &mut self,
        mut y: ValueId,
        spec: &NormSpec,
        mut vector: impl FnMut(&mut Self, &str) -> Emitted,
    ) -> Emitted {
        if let Some(weight) = &spec.weight {
            let mut gamma = vector(self, weight)?;
            if spec.one_plus {
                gamma = self.with(ScalarOp::Add, gamma, 1.0)?;
            }
            y = self.map2(ScalarOp::Mul, y, gamma)?;
        }
        if let Some(bias) = &spec.bias {
            let beta = vector(self, bias)?;
            y = self.map2(ScalarOp::Add, y, beta)?;
        }
        Ok(y)
    }

    /// The mean of all hidden states of the sequence that each wanted row is in, `f32[R, H]`.
    pub(super) fn means(&mut self, x: ValueId, (seq, rows): (ValueId, ValueId), width: usize) -> Emitted {
        let (tokens, rows_of) = (Dim::from(Sym::T), Dim::from(Sym::R));
        let own = self.graph.gather(seq, rows)?;
        let own = self.graph.reshape(own, &[rows_of, Dim::ONE, Dim::ONE])?;
        let other = self.graph.reshape(seq, &[Dim::ONE, Dim::ONE, tokens])?;
        let same = self.map2(ScalarOp::Eq, own, other)?;
        let columns = self.graph.transpose(x, &[1, 0])?;
        let columns = self.graph.reshape(columns, &[Dim::ONE, Dim::of(width), tokens])?;
        let nothing = self.number(0.0)?;
        let kept = self.graph.map(ScalarOp::Select, &[same, columns, nothing])?;
        let sum = self.graph.reduce(Monoid::Sum, 2, kept)?;
        let ones = self.graph.cast(same, DType::F32)?;
        let count = self.graph.reduce(Monoid::Sum, 2, ones)?;
        let mean = self.map2(ScalarOp::Div, sum, count)?;
        self.graph.reshape(mean, &[rows_of, Dim::of(width)])
    }

    /// The scores of sequences from one hidden state of each, `f32[R, labels]`.
    pub(super) fn classifier(&mut self, spec: &ClassifierSpec, x: ValueId) -> Emitted {
        let x = self.linear(x, &spec.dense)?;
        let x = self.activation(spec.activation, x)?;
        let x = self.norm_opt(x, spec.norm.as_ref())?;
        self.linear(x, &spec.linear)
    }

    /// A feed-forward block, `f32[T, H]`.
    pub(super) fn mlp(&mut self, spec: &MlpSpec, x: ValueId) -> Emitted {
        let inner = match &spec.input {
            MlpInput::Plain(up) => {
                let up = self.linear(x, up)?;
                self.activation(spec.activation, up)?
            }
            MlpInput::Gated { gate, up } => {
                let gate = self.linear(x, gate)?;
                let gate = self.activation(spec.activation, gate)?;
                let up = self.linear(x, up)?;
                self.map2(ScalarOp::Mul, gate, up)?
            }
            MlpInput::GatedStacked(both) => {
                let both = self.linear(x, both)?;
                let gate = self.graph.slice(both, 1, 0, spec.inner)?;
                let gate = self.activation(spec.activation, gate)?;
                let up = self.graph.slice(both, 1, spec.inner, spec.inner)?;
                self.map2(ScalarOp::Mul, gate, up)?
            }
        };
        self.linear(inner, &spec.down)
    }

    pub(super) fn activation(&mut self, activation: Activation, x: ValueId) -> Emitted {
        use ScalarOp::{Add, Div, Erf, Exp, Max, Mul, Neg, Tanh};
        match activation {
            Activation::Silu => {
                let e = self.map1(Neg, x)?;
                let e = self.map1(Exp, e)?;
                let e = self.with(Add, e, 1.0)?;
                self.map2(Div, x, e)
            }
            Activation::GeluErf => {
                let half = self.with(Mul, x, 0.5)?;
                let phi = self.with(Mul, x, std::f64::consts::FRAC_1_SQRT_2)?;
                let phi = self.map1(Erf, phi)?;
                let phi = self.with(Add, phi, 1.0)?;
                self.map2(Mul, half, phi)
            }
            Activation::GeluTanh => {
                // 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), Hendrycks and Gimpel 2016.
                let half = self.with(Mul, x, 0.5)?;
                let square = self.map2(Mul, x, x)?;
                let cube = self.map2(Mul, square, x)?;
                let cube = self.with(Mul, cube, 0.044715)?;
                let inner = self.map2(Add, x, cube)?;
                let inner = self.with(Mul, inner, 0.797_884_560_802_865_4)?;
                let inner = self.map1(Tanh, inner)?;
                let inner = self.with(Add, inner, 1.0)?;
                self.map2(Mul, half, inner)
            }
            Activation::Relu => self.with(Max, x, 0.0),
            Activation::Relu2 => {
                let x = self.with(Max, x, 0.0)?;
                self.map2(Mul, x, x)
            }
            Activation::Tanh => self.map1(Tanh, x),
        }
    }
}
