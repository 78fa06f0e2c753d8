//! Random graphs: recipes of pieces that models are made of, in any order and of any size, each from its seed alone.

use crate::launch::Stream;
use sinter_ir::{DType, ScalarOp};

/// What a graph is made of: an embedding, pieces on the stream of activations, and a product to logits.
#[derive(Clone, PartialEq, Debug)]
pub struct Recipe {
    /// What the weights' values follow from.
    pub seed: u64,
    /// The type of weights, caches and operands of products.
    pub dtype: DType,
    /// Numbers in a row of activations.
    pub width: usize,
    /// Tokens that there are.
    pub vocab: usize,
    /// The pieces in order.
    pub pieces: Vec<Piece>,
    /// Tokens of each sequence in the first step.
    pub prompts: Vec<usize>,
    /// Further steps of one token a sequence.
    pub further: usize,
}

/// A function of a row.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Activation {
    /// x
    None,
    /// x σ(x)
    Silu,
    /// x Φ(x)
    Gelu,
    /// The tanh form.
    GeluTanh,
    /// max(x, 0)
    Relu,
    /// tanh x
    Tanh,
}

/// A piece of a graph. `normed` says that its input goes through a norm first.
#[allow(missing_docs, reason = "the fields are named in the row's text")]
#[derive(Clone, PartialEq, Debug)]
pub enum Piece {
    /// A norm over the row, about its mean or not.
    Norm { centred: bool, bias: bool },
    /// A product with what follows it; added to the stream or in its place.
    Product { normed: bool, bias: bool, activation: Activation, residual: bool },
    /// Two products, one through an activation and times the other, and a third.
    Gated { normed: bool, inner: usize, activation: Activation },
    /// A softmax over the row times the row.
    Softmax { scale: f64 },
    /// Attention over the paged cache, or over the step's own tokens.
    Attention(Attention),
    /// A choice of experts by a table or by a product, and their gated products.
    Experts { count: usize, chosen: usize, inner: usize, by_token: bool },
    /// The row turned by some places: slices and a concatenation.
    Turn { by: usize },
    /// The row through another element type.
    Through { dtype: DType },
    /// Groups of the row, transposed and back, with a function between.
    Transposed { op: ScalarOp },
    /// A row of a table, by position, added.
    Table { rows: usize },
    /// The sum or greatest of a row's groups, spread over them again.
    Pooled { max: bool },
    /// Each group's k greatest, summed up and added.
    Choice { k: usize },
}

/// An attention.
#[derive(Clone, PartialEq, Debug)]
pub struct Attention {
    /// Whether its input goes through a norm.
    pub normed: bool,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Heads of queries that share one of them.
    pub group: usize,
    /// Numbers in a head.
    pub dim: usize,
    /// Positions that a token sees, its own among them.
    pub window: Option<usize>,
    /// The bound that scores go to by tanh.
    pub cap: Option<f64>,
    /// Whether queries and keys turn with the position.
    pub rotated: bool,
    /// Over the paged cache, or over the step's own tokens.
    pub cached: bool,
    /// Whether each head adds a multiple of the position to its scores.
    pub slopes: bool,
    /// Whether its products have a bias.
    pub bias: bool,
}

impl Recipe {
    /// The recipe of a seed.
    pub fn random(seed: u64) -> Recipe {
        let mut stream = Stream(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(7));
        stream.next_bits();
        let s = &mut stream;
        let dtype = [DType::F32, DType::Bf16][s.below(2)];
        let width = pick(s, &[12, 16, 20, 24, 32, 36, 48, 64]);
        let vocab = pick(s, &[11, 16, 32, 37]);
        let count = 1 + s.below(3);
        let pieces = (0..count).map(|_| piece(s, width)).collect();
        let prompts = match s.below(4) {
            0 => vec![1 + s.below(5)],
            1 => vec![17 + s.below(8)],
            2 => vec![1 + s.below(4), 1 + s.below(9)],
            _ => vec![2 + s.below(16), 1, 3 + s.below(8)],
        };
        Recipe { seed, dtype, width, vocab, pieces, prompts, further: s.below(2) }
    }

    /// Recipes with less in them, the smallest first.
    pub fn smaller(&self) -> Vec<Recipe> {
        let mut found = Vec::new();
        let mut with = |change: &dyn Fn(&mut Recipe)| {
            let mut other = self.clone();
            change(&mut other);
            if other != *self {
                found.push(other);
            }
        };
        for at in 0..self.pieces.len() {
            with(&|other| {
                other.pieces.remove(at);
            });
        }
        with(&|other| other.further = 0);
        for at in 0..self.prompts.len() {
            with(&|other| {
                if other.prompts.len() > 1 {
                    other.prompts.remove(at);
                }
            });
            with(&|other| other.prompts[at] = 1);
            with(&|other| other.prompts[at] = other.prompts[at].div_ceil(2));
            with(&|other| other.prompts[at] = (other.prompts[at] - 1).max(1));
        }
        for at in 0..self.pieces.len() {
            with(&|other| plainer(&mut other.pieces[at]));
        }
        found
    }
}

/// The same piece with nothing around it.
fn plainer(piece: &mut Piece) {
    match piece {
        Piece::Norm { bias, .. } => *bias = false,
        Piece::Product { normed, bias, activation, residual } => {
            (*normed, *bias, *activation, *residual) = (false, false, Activation::None, false);
        }
        Piece::Gated { normed, activation, .. } => (*normed, *activation) = (false, Activation::None),
        Piece::Attention(attention) => {
            (attention.normed, attention.window, attention.cap) = (false, None, None);
            (attention.rotated, attention.slopes, attention.bias) = (false, false, false);
        }
        Piece::Experts { by_token, .. } => *by_token = true,
        Piece::Softmax { .. }
        | Piece::Turn { .. }
        | Piece::Through { .. }
        | Piece::Transposed { .. }
        | Piece::Table { .. }
        | Piece::Pooled { .. }
        | Piece::Choice { .. } => {}
    }
}

fn pick<T: Copy>(stream: &mut Stream, of: &[T]) -> T {
    of[stream.below(of.len())]
}

fn one_in(stream: &mut Stream, chances: usize) -> bool {
    stream.below(chances) == 0
}

fn activation(stream: &mut Stream) -> Activation {
    use Activation::*;
    pick(stream, &[None, Silu, Gelu, GeluTanh, Relu, Tanh])
}

fn piece(s: &mut Stream, width: usize) -> Piece {
    match s.below(16) {
        0 => Piece::Norm { centred: one_in(s, 2), bias: one_in(s, 2) },
        1..=3 => Piece::Product {
            normed: one_in(s, 2),
            bias: one_in(s, 2),
            activation: activation(s),
            residual: one_in(s, 2),
        },
        4 | 5 => Piece::Gated {
            normed: one_in(s, 2),
            inner: pick(s, &[8, 16, 24, 37, 40, 64]),
            activation: activation(s),
        },
        6 => Piece::Softmax { scale: pick(s, &[0.5, 1.0, 4.0]) },
        7..=9 => Piece::Attention(Attention {
            normed: one_in(s, 2),
            kv_heads: 1 + s.below(2),
            group: pick(s, &[1, 1, 2, 3]),
            dim: pick(s, &[8, 12, 16, 24]),
            window: pick(s, &[None, None, Some(1), Some(4), Some(16)]),
            cap: pick(s, &[None, None, Some(2.0), Some(30.0)]),
            rotated: one_in(s, 2),
            cached: !one_in(s, 4),
            slopes: one_in(s, 4),
            bias: one_in(s, 3),
        }),
        10 => {
            let count = pick(s, &[3, 4, 8]);
            let chosen = 1 + s.below(count.min(3));
            Piece::Experts { count, chosen, inner: pick(s, &[8, 12, 16, 24]), by_token: one_in(s, 2) }
        }
        11 => Piece::Turn { by: 1 + s.below(width - 1) },
        12 => Piece::Through { dtype: pick(s, &[DType::Bf16, DType::F16]) },
        13 => Piece::Transposed {
            op: pick(
                s,
                &[ScalarOp::Neg, ScalarOp::Abs, ScalarOp::Tanh, ScalarOp::Cos, ScalarOp::Sin, ScalarOp::Erf],
            ),
        },
        14 => match s.below(2) {
            0 => Piece::Table { rows: 64 },
            _ => Piece::Pooled { max: one_in(s, 2) },
        },
        _ => Piece::Choice { k: 1 + s.below(3) },
    }
}
