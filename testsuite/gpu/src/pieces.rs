//! From a recipe to a graph: each piece written out in primitive operations.

use crate::graphs::{Activation, Attention, Piece, Recipe};
use sinter_ir::ScalarOp::*;
use sinter_ir::{DType, Dim, Graph, GraphError, Monoid, Op, PAGE, ScalarOp, Sym, ValueId};

type Made = Result<ValueId, GraphError>;

/// The graph of a recipe. Its result is `logits`, f32[R, vocab].
///
/// # Errors
/// If a recipe has a piece that cannot be typed.
pub fn graph(recipe: &Recipe) -> Result<Graph, GraphError> {
    let mut maker = Maker { g: Graph::new("random"), recipe, names: 0, caches: Vec::new() };
    let tokens = maker.input("tokens", Sym::T)?;
    let table = maker.weight("table", recipe.dtype, &[recipe.vocab, recipe.width])?;
    let x = maker.g.gather(table, tokens)?;
    let mut x = maker.g.cast(x, DType::F32)?;
    for piece in &recipe.pieces {
        x = maker.piece(piece, x, tokens)?;
    }
    let rows = maker.input("rows", Sym::R)?;
    let x = maker.g.gather(x, rows)?;
    let logits = maker.product(x, recipe.vocab, false)?;
    for (name, cache) in std::mem::take(&mut maker.caches) {
        maker.g.output(&name, cache);
    }
    maker.g.output("logits", logits);
    Ok(maker.g)
}

struct Maker<'r> {
    g: Graph,
    recipe: &'r Recipe,
    names: usize,
    caches: Vec<(String, ValueId)>,
}

fn dims(outer: impl Into<Dim>, rest: &[usize]) -> Vec<Dim> {
    std::iter::once(outer.into()).chain(rest.iter().copied().map(Dim::of)).collect()
}

impl Maker<'_> {
    fn piece(&mut self, piece: &Piece, x: ValueId, tokens: ValueId) -> Made {
        let width = self.recipe.width;
        match piece {
            Piece::Norm { centred, bias } => self.norm(x, *centred, *bias),
            Piece::Product { normed, bias, activation, residual } => {
                let inner = self.normed(x, *normed)?;
                let y = self.product(inner, width, *bias)?;
                let y = self.activation(*activation, y)?;
                if *residual { self.two(Add, x, y) } else { Ok(y) }
            }
            Piece::Gated { normed, inner, activation } => {
                let y = self.normed(x, *normed)?;
                let gate = self.product(y, *inner, false)?;
                let gate = self.activation(*activation, gate)?;
                let up = self.product(y, *inner, false)?;
                let y = self.two(Mul, gate, up)?;
                let y = self.product(y, width, false)?;
                self.two(Add, x, y)
            }
            Piece::Softmax { scale } => {
                let y = self.scaled(x, *scale)?;
                let y = self.softmax(y, 1)?;
                let y = self.scaled(y, width as f64 / 2.0)?;
                self.two(Mul, x, y)
            }
            Piece::Attention(attention) => self.attention(attention, x),
            Piece::Experts { count, chosen, inner, by_token } => {
                self.experts((*count, *chosen, *inner), by_token.then_some(tokens), x)
            }
            Piece::Turn { by } => {
                let (first, rest) = (self.g.slice(x, 1, 0, *by)?, self.g.slice(x, 1, *by, width - *by)?);
                let turned = self.g.concat(1, &[rest, first])?;
                let half = self.scaled(x, 0.5)?;
                self.two(Sub, turned, half)
            }
            Piece::Through { dtype } => {
                let narrow = self.g.cast(x, *dtype)?;
                let back = self.g.cast(narrow, DType::F32)?;
                self.scaled(back, 1.5)
            }
            Piece::Transposed { op } => {
                let groups = self.g.reshape(x, &dims(Sym::T, &[4, width / 4]))?;
                let other = self.g.transpose(groups, &[0, 2, 1])?;
                let flat = self.g.reshape(other, &dims(Sym::T, &[width]))?;
                let y = self.g.map(*op, &[flat])?;
                self.two(Add, x, y)
            }
            Piece::Table { rows } => {
                let table = self.weight("t", self.recipe.dtype, &[*rows, width])?;
                let positions = self.input("positions", Sym::T)?;
                let row = self.g.gather(table, positions)?;
                let row = self.g.cast(row, DType::F32)?;
                self.two(Add, x, row)
            }
            Piece::Pooled { max } => self.pooled(*max, x),
            Piece::Choice { k } => self.choice(*k, x, tokens),
        }
    }

    /// An input, the same node for the same name.
    fn input(&mut self, name: &str, extent: Sym) -> Made {
        let known = self.g.nodes.iter().find(|(_, node)| node.op.leaf_name() == Some(name)).map(|(id, _)| id);
        known.map_or_else(|| self.g.input(name, DType::U32, &[extent.into()]), Ok)
    }

    /// A new weight; the letters of its name say what its values are like.
    fn weight(&mut self, kind: &str, dtype: DType, shape: &[usize]) -> Made {
        self.names += 1;
        let shape: Vec<Dim> = shape.iter().copied().map(Dim::of).collect();
        self.g.param(&format!("{kind}.{}", self.names), dtype, &shape)
    }

    fn two(&mut self, op: ScalarOp, x: ValueId, y: ValueId) -> Made {
        self.g.map(op, &[x, y])
    }

    fn with(&mut self, op: ScalarOp, x: ValueId, number: f64) -> Made {
        let number = self.g.constant(number, self.g.ty(x).dtype)?;
        self.two(op, x, number)
    }

    fn scaled(&mut self, x: ValueId, factor: f64) -> Made {
        self.with(Mul, x, factor)
    }

    fn normed(&mut self, x: ValueId, normed: bool) -> Made {
        if normed { self.norm(x, false, false) } else { Ok(x) }
    }

    /// A norm over the last axis, with weights.
    fn norm(&mut self, x: ValueId, centred: bool, bias: bool) -> Made {
        let shape = self.g.ty(x).shape.clone();
        let (rank, width) = (shape.len(), shape.last().map_or(1, |dim| dim.coeff as usize));
        let mean = |maker: &mut Self, x| -> Made {
            let sum = maker.g.reduce(Monoid::Sum, rank - 1, x)?;
            maker.scaled(sum, 1.0 / width as f64)
        };
        let x = if centred {
            let middle = mean(self, x)?;
            self.two(Sub, x, middle)?
        } else {
            x
        };
        let square = self.two(Mul, x, x)?;
        let variance = mean(self, square)?;
        let variance = self.with(Add, variance, 1e-2)?;
        let inverse = self.g.map(Rsqrt, &[variance])?;
        let x = self.two(Mul, x, inverse)?;
        let one_row = [vec![1; rank - 1], vec![width]].concat();
        let scale = self.weight("scale", DType::F32, &one_row)?;
        let x = self.two(Mul, x, scale)?;
        if !bias {
            return Ok(x);
        }
        let bias = self.weight("bias", DType::F32, &one_row)?;
        self.two(Add, x, bias)
    }

    /// x Wᵀ + b with operands in the recipe's type.
    fn product(&mut self, x: ValueId, width: usize, bias: bool) -> Made {
        let from = self.g.ty(x).shape[1].coeff as usize;
        let x = self.g.cast(x, self.recipe.dtype)?;
        let w = self.weight("w", self.recipe.dtype, &[width, from])?;
        let y = self.g.contract("tk,nk->tn", x, w)?;
        if !bias {
            return Ok(y);
        }
        let bias = self.weight("bias", self.recipe.dtype, &[1, width])?;
        let bias = self.g.cast(bias, DType::F32)?;
        self.two(Add, y, bias)
    }

    fn activation(&mut self, activation: Activation, x: ValueId) -> Made {
        match activation {
            Activation::None => Ok(x),
            Activation::Silu => {
                let opposite = self.g.map(Neg, &[x])?;
                let e = self.g.map(Exp, &[opposite])?;
                let sum = self.with(Add, e, 1.0)?;
                self.two(Div, x, sum)
            }
            Activation::Gelu => {
                let y = self.scaled(x, std::f64::consts::FRAC_1_SQRT_2)?;
                let y = self.g.map(Erf, &[y])?;
                let y = self.with(Add, y, 1.0)?;
                let y = self.two(Mul, x, y)?;
                self.scaled(y, 0.5)
            }
            Activation::GeluTanh => {
                let cube = self.two(Mul, x, x)?;
                let cube = self.two(Mul, cube, x)?;
                let cube = self.scaled(cube, 0.044715)?;
                let y = self.two(Add, x, cube)?;
                let y = self.scaled(y, (2.0 / std::f64::consts::PI).sqrt())?;
                let y = self.g.map(Tanh, &[y])?;
                let y = self.with(Add, y, 1.0)?;
                let half = self.scaled(x, 0.5)?;
                self.two(Mul, half, y)
            }
            Activation::Relu => self.with(Max, x, 0.0),
            Activation::Tanh => self.g.map(Tanh, &[x]),
        }
    }

    fn softmax(&mut self, x: ValueId, axis: usize) -> Made {
        let max = self.g.reduce(Monoid::Max, axis, x)?;
        let x = self.two(Sub, x, max)?;
        let e = self.g.map(Exp, &[x])?;
        let sum = self.g.reduce(Monoid::Sum, axis, e)?;
        self.two(Div, e, sum)
    }

    fn pooled(&mut self, max: bool, x: ValueId) -> Made {
        let width = self.recipe.width;
        let groups = self.g.reshape(x, &dims(Sym::T, &[4, width / 4]))?;
        let monoid = if max { Monoid::Max } else { Monoid::Sum };
        let one = self.g.reduce(monoid, 2, groups)?;
        let all = self.g.broadcast(one, &dims(Sym::T, &[4, width / 4]))?;
        let all = self.g.reshape(all, &dims(Sym::T, &[width]))?;
        let half = self.scaled(all, 0.5)?;
        self.two(Sub, x, half)
    }

    /// A number for each chosen place of a row of scores, spread over the row: the places are a table's, by token, so
    /// that no rounding changes them.
    fn choice(&mut self, k: usize, x: ValueId, tokens: ValueId) -> Made {
        let width = self.recipe.width;
        let table = self.weight("scores", DType::F32, &[self.recipe.vocab, width])?;
        let scores = self.g.gather(table, tokens)?;
        let places = self.g.push(Op::TopK { k }, &[scores])?;
        let chosen = self.along(x, places, width)?;
        let sum = self.g.reduce(Monoid::Sum, 1, chosen)?;
        self.two(Add, x, sum)
    }

    /// The elements of each row `[T, n]` at the row's own places.
    fn along(&mut self, x: ValueId, places: ValueId, n: usize) -> Made {
        let row = self.g.push(Op::Iota { len: Sym::T.into() }, &[])?;
        let row = self.g.reshape(row, &dims(Sym::T, &[1]))?;
        let start = self.with(Mul, row, n as f64)?;
        let at = self.two(Add, start, places)?;
        let flat = self.g.reshape(x, &[Dim::times(Sym::T, n as u64)])?;
        self.g.gather(flat, at)
    }

    fn experts(
        &mut self,
        (count, chosen, inner): (usize, usize, usize),
        tokens: Option<ValueId>,
        x: ValueId,
    ) -> Made {
        let (width, dtype) = (self.recipe.width, self.recipe.dtype);
        let scores = match tokens {
            Some(tokens) => {
                let table = self.weight("scores", DType::F32, &[self.recipe.vocab, count])?;
                self.g.gather(table, tokens)?
            }
            None => self.product(x, count, false)?,
        };
        let places = self.g.push(Op::TopK { k: chosen }, &[scores])?;
        let scores = self.softmax(scores, 1)?;
        let weights = self.along(scores, places, count)?;
        let narrow = self.g.cast(x, dtype)?;
        let product = |maker: &mut Self, spec, x, (n, k)| -> Made {
            let stack = maker.weight("w", dtype, &[count, n, k])?;
            let own = maker.g.gather(stack, places)?;
            maker.g.contract(spec, x, own)
        };
        let gate = product(self, "tk,tjnk->tjn", narrow, (inner, width))?;
        let gate = self.activation(Activation::Silu, gate)?;
        let up = product(self, "tk,tjnk->tjn", narrow, (inner, width))?;
        let y = self.two(Mul, gate, up)?;
        let y = self.g.cast(y, dtype)?;
        let each = product(self, "tjk,tjnk->tjn", y, (width, inner))?;
        let sum = self.g.contract("tj,tjn->tn", weights, each)?;
        self.two(Add, x, sum)
    }

    fn heads(&mut self, a: &Attention, (x, heads): (ValueId, usize), rotated: bool) -> Made {
        let y = self.product(x, heads * a.dim, a.bias)?;
        let y = self.g.reshape(y, &dims(Sym::T, &[heads, a.dim]))?;
        if rotated { self.rotate(y, a.dim) } else { Ok(y) }
    }

    /// The first and second half of each head turned by angles that grow with the position.
    fn rotate(&mut self, x: ValueId, dim: usize) -> Made {
        let half = dim / 2;
        let positions = self.input("positions", Sym::T)?;
        let angle = self.g.cast(positions, DType::F32)?;
        let angle = self.g.reshape(angle, &dims(Sym::T, &[1, 1]))?;
        let frequencies = self.weight("frequencies", DType::F32, &[1, 1, half])?;
        let angle = self.two(Mul, angle, frequencies)?;
        let (cos, sin) = (self.g.map(Cos, &[angle])?, self.g.map(Sin, &[angle])?);
        let (a, b) = (self.g.slice(x, 2, 0, half)?, self.g.slice(x, 2, half, half)?);
        let (p, q) = (self.two(Mul, a, cos)?, self.two(Mul, b, sin)?);
        let first = self.two(Sub, p, q)?;
        let (p, q) = (self.two(Mul, b, cos)?, self.two(Mul, a, sin)?);
        let second = self.two(Add, p, q)?;
        self.g.concat(2, &[first, second])
    }

    /// Each key head for the query heads that share it.
    fn repeated(&mut self, x: ValueId, a: &Attention) -> Made {
        let shape = self.g.ty(x).shape.clone();
        let outer = &shape[..shape.len() - 2];
        let with = |inner: &[usize]| -> Vec<Dim> {
            outer.iter().copied().chain(inner.iter().copied().map(Dim::of)).collect()
        };
        let x = self.g.reshape(x, &with(&[a.kv_heads, 1, a.dim]))?;
        let x = self.g.broadcast(x, &with(&[a.kv_heads, a.group, a.dim]))?;
        self.g.reshape(x, &with(&[a.kv_heads * a.group, a.dim]))
    }

    fn attention(&mut self, a: &Attention, x: ValueId) -> Made {
        let (dtype, heads) = (self.recipe.dtype, a.kv_heads * a.group);
        let y = self.normed(x, a.normed)?;
        let q = self.heads(a, (y, heads), a.rotated)?;
        let k = self.heads(a, (y, a.kv_heads), a.rotated)?;
        let v = self.heads(a, (y, a.kv_heads), false)?;
        let q = self.scaled(q, 1.0 / (a.dim as f64).sqrt())?;
        let (q, k, v) = (self.g.cast(q, dtype)?, self.g.cast(k, dtype)?, self.g.cast(v, dtype)?);
        let attended = if a.cached {
            let context = self.context()?;
            let (k, v) = (self.stored(a, k)?, self.stored(a, v)?);
            let (k, v) = (self.g.gather(k, context)?, self.g.gather(v, context)?);
            let (k, v) = (self.repeated(k, a)?, self.repeated(v, a)?);
            let scores = self.g.contract("thd,tchd->thc", q, k)?;
            let p = self.weights(a, scores, Dim::times(Sym::P, PAGE))?;
            self.g.contract("thc,tchd->thd", p, v)?
        } else {
            let (k, v) = (self.repeated(k, a)?, self.repeated(v, a)?);
            let scores = self.g.contract("thd,chd->thc", q, k)?;
            let p = self.weights(a, scores, Sym::T.into())?;
            self.g.contract("thc,chd->thd", p, v)?
        };
        let joined = self.g.reshape(attended, &dims(Sym::T, &[heads * a.dim]))?;
        let y = self.product(joined, self.recipe.width, false)?;
        self.two(Add, x, y)
    }

    /// The slots of each token's context, `[T, 16 P]`.
    fn context(&mut self) -> Made {
        let known = self.g.nodes.iter().find(|(_, node)| node.op.leaf_name() == Some("table"));
        let table = match known {
            Some((id, _)) => id,
            None => self.g.input("table", DType::U32, &[Sym::S.into(), Sym::P.into()])?,
        };
        let seq = self.input("seq", Sym::T)?;
        let pages = self.g.gather(table, seq)?;
        let pages = self.g.reshape(pages, &[Sym::T.into(), Sym::P.into(), Dim::ONE])?;
        let first = self.with(Mul, pages, PAGE as f64)?;
        let within = self.g.push(Op::Iota { len: Dim::of(PAGE as usize) }, &[])?;
        let within = self.g.reshape(within, &[Dim::ONE, Dim::ONE, Dim::of(PAGE as usize)])?;
        let context = self.two(Add, first, within)?;
        self.g.reshape(context, &[Sym::T.into(), Dim::times(Sym::P, PAGE)])
    }

    fn stored(&mut self, a: &Attention, rows: ValueId) -> Made {
        let name = format!("cache.{}", self.caches.len());
        let cache = self.g.state(&name, self.recipe.dtype, &dims(Sym::N, &[a.kv_heads, a.dim]))?;
        let slots = self.input("slots", Sym::T)?;
        let cache = self.g.scatter(cache, slots, rows)?;
        self.caches.push((name, cache));
        Ok(cache)
    }

    /// Scores `[T, H, C]` to weights: a token sees no later position, none before its window, and of the step's tokens
    /// those of its own sequence.
    fn weights(&mut self, a: &Attention, mut s: ValueId, extent: Dim) -> Made {
        let positions = self.input("positions", Sym::T)?;
        let token = self.g.reshape(positions, &dims(Sym::T, &[1, 1]))?;
        let along = [Dim::ONE, Dim::ONE, extent];
        let here = if a.cached { self.g.push(Op::Iota { len: extent }, &[])? } else { positions };
        let here = self.g.reshape(here, &along)?;
        if let Some(cap) = a.cap {
            let inner = self.scaled(s, 1.0 / cap)?;
            let inner = self.g.map(Tanh, &[inner])?;
            s = self.scaled(inner, cap)?;
        }
        if a.slopes {
            let slopes = self.weight("slopes", DType::F32, &[1, a.kv_heads * a.group, 1])?;
            let far = self.g.cast(here, DType::F32)?;
            let bias = self.two(Mul, slopes, far)?;
            s = self.two(Add, s, bias)?;
        }
        let mut mask = self.two(Le, here, token)?;
        if let Some(window) = a.window {
            let end = self.with(Add, here, window as f64)?;
            let near = self.two(Lt, token, end)?;
            mask = self.two(And, mask, near)?;
        }
        if !a.cached {
            let seq = self.input("seq", Sym::T)?;
            let (one, other) = (self.g.reshape(seq, &dims(Sym::T, &[1, 1]))?, self.g.reshape(seq, &along)?);
            let same = self.two(Eq, one, other)?;
            mask = self.two(And, mask, same)?;
        }
        let never = self.g.constant(f64::NEG_INFINITY, DType::F32)?;
        let s = self.g.map(Select, &[mask, s, never])?;
        self.softmax(s, 2)
    }
}
