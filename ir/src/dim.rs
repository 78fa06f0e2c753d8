//! Symbolic dimensions: a constant, or a multiple of one symbol. That is all a step of a decoder needs.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Tokens of one sequence that share a page of the KV cache.
pub const PAGE: u64 = 16;

/// The symbols a shape may mention.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Sym {
    /// Tokens in the step, of all sequences together.
    T,
    /// Sequences in the step.
    S,
    /// Pages in the longest sequence's block table.
    P,
    /// Token slots in the KV pool.
    N,
    /// Rows whose logits are wanted.
    R,
}

impl Sym {
    /// All symbols, in the order in which kernels receive their values.
    pub const ALL: [Sym; 5] = [Sym::T, Sym::S, Sym::P, Sym::N, Sym::R];
    /// The position in [`Sym::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
    /// A typical value, used where a cost needs a number: a step of 16 tokens of 4 sequences with 1,024 context.
    pub fn typical(self) -> u64 {
        [16, 4, 64, 4096, 4][self.index()]
    }
}

impl fmt::Display for Sym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["T", "S", "P", "N", "R"][self.index()])
    }
}

/// The values of the symbols in one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Binding {
    /// The values in the order of [`Sym::ALL`].
    pub values: [u64; 5],
}

impl Binding {
    /// `tokens` in the step, of `sequences`, with at most `pages` each, in a pool of `slots` token slots; logits are
    /// wanted of one row a sequence.
    pub fn new(tokens: u64, sequences: u64, pages: u64, slots: u64) -> Self {
        Self { values: [tokens, sequences, pages, slots, sequences] }
    }
    /// The same step with logits of `rows` rows.
    pub fn with_rows(mut self, rows: u64) -> Self {
        self.values[Sym::R.index()] = rows;
        self
    }
    /// The value of a symbol.
    pub fn get(&self, sym: Sym) -> u64 {
        self.values[sym.index()]
    }
}

/// An extent: `coeff`, or `coeff × sym`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Dim {
    /// The constant factor.
    pub coeff: u64,
    /// The symbol, if the extent is not constant.
    pub sym: Option<Sym>,
}

impl Dim {
    /// The extent one, which broadcasts.
    pub const ONE: Dim = Dim { coeff: 1, sym: None };

    /// A constant extent.
    pub fn of(coeff: usize) -> Self {
        Self { coeff: coeff as u64, sym: None }
    }
    /// `coeff × sym`.
    pub fn times(sym: Sym, coeff: u64) -> Self {
        Self { coeff, sym: Some(sym) }
    }
    /// The constant, if it is one.
    pub fn as_const(self) -> Option<u64> {
        self.sym.is_none().then_some(self.coeff)
    }
    /// The value under a binding.
    pub fn eval(self, binding: &Binding) -> u64 {
        self.coeff.saturating_mul(self.sym.map_or(1, |sym| binding.get(sym)))
    }
    /// A typical value, for costs.
    pub fn typical(self) -> u64 {
        self.coeff * self.sym.map_or(1, Sym::typical)
    }
    /// The product, unless it would need two symbols or overflow.
    pub fn product(self, other: Dim) -> Option<Dim> {
        let sym = match (self.sym, other.sym) {
            (Some(_), Some(_)) => return None,
            (a, b) => a.or(b),
        };
        Some(Dim { coeff: self.coeff.checked_mul(other.coeff)?, sym })
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Self {
        Dim::of(value)
    }
}

impl From<Sym> for Dim {
    fn from(sym: Sym) -> Self {
        Dim::times(sym, 1)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sym {
            None => write!(f, "{}", self.coeff),
            Some(sym) if self.coeff == 1 => write!(f, "{sym}"),
            Some(sym) => write!(f, "{}{sym}", self.coeff),
        }
    }
}
