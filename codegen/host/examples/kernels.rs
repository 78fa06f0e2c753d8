//! Times kernels of a small decoder: how long each takes to compile, and how fast it runs on one core.
#![allow(unsafe_code, reason = "kernels are called with addresses")]

use sinter_codegen_host::micro::{Isa, panel_bytes_bf16};
use sinter_codegen_host::{AlignedBytes, compile, compile_all};
use sinter_ir::ScalarOp::*;
use sinter_ir::*;
use std::time::Instant;

fn axis(tile: &mut TileProgram, extent: impl Into<Dim>) -> AxisId {
    tile.axes.push(Axis { name: "a".into(), extent: extent.into() })
}

fn param(tile: &mut TileProgram, dtype: DType, shape: &[Dim], access: Access, layout: Layout) -> ParamId {
    tile.params.push(TileParam { name: "p".into(), ty: Type::new(dtype, shape), access, layout })
}

fn load(tile: &mut TileProgram, param: ParamId, index: &[Index]) -> ExprId {
    tile.expr(Expr::Load(Load { param, index: index.into() }))
}

fn apply(tile: &mut TileProgram, op: ScalarOp, args: &[ExprId]) -> ExprId {
    tile.expr(Expr::Apply(op, args.into()))
}

fn stage(tile: &mut TileProgram, stage: Stage) -> ExprId {
    tile.stages.push(stage);
    tile.expr(Expr::Stage(StageId(tile.stages.len() as u32 - 1)))
}

/// `y = x · rsqrt(mean x² + ε) · w` in bf16.
fn norm(width: usize) -> TileProgram {
    let mut tile = TileProgram { name: "norm".into(), ..TileProgram::default() };
    let b = &mut tile;
    let (t, k, d) = (axis(b, Sym::T), axis(b, width), axis(b, width));
    let x = param(b, DType::Bf16, &[Sym::T.into(), width.into()], Access::Read, Layout::Rows);
    let w = param(b, DType::Bf16, &[width.into()], Access::Read, Layout::Rows);
    let y = param(b, DType::Bf16, &[Sym::T.into(), width.into()], Access::Write, Layout::Rows);
    b.grid = vec![t];
    let v = load(b, x, &[Index::axis(t), Index::axis(k)]);
    let v = apply(b, Mul, &[v, v]);
    let sum = stage(b, Stage::Reduce { axis: k, monoid: Monoid::Sum, value: v });
    let scale = b.expr(Expr::Const(Float::new(1.0 / width as f64)));
    let sum = apply(b, Mul, &[sum, scale]);
    let r = apply(b, Rsqrt, &[sum]);
    let (v, g) = (load(b, x, &[Index::axis(t), Index::axis(d)]), load(b, w, &[Index::axis(d)]));
    let v = apply(b, Mul, &[v, r]);
    let v = apply(b, Mul, &[v, g]);
    b.stages.push(Stage::Store {
        axes: vec![d],
        param: y,
        index: vec![Index::axis(t), Index::axis(d)],
        value: v,
    });
    tile
}

/// `silu(x G) · (x U)`, or `x W + residual`, in bf16.
fn contract(n: usize, k: usize, gated: bool) -> TileProgram {
    let mut tile =
        TileProgram { name: if gated { "gated" } else { "residual" }.into(), ..TileProgram::default() };
    let b = &mut tile;
    let (t, c, d) = (axis(b, Sym::T), axis(b, n), axis(b, k));
    let x = param(b, DType::Bf16, &[Sym::T.into(), k.into()], Access::Read, Layout::Rows);
    let rows = if gated { 2 * n } else { n };
    let w = param(b, DType::Bf16, &[rows.into(), k.into()], Access::Read, Layout::Panels);
    let dims: [Dim; 2] = [Sym::T.into(), n.into()];
    let y = param(b, DType::Bf16, &dims, Access::Write, Layout::Rows);
    b.grid = vec![t, c];
    let a = Load { param: x, index: vec![Index::axis(t), Index::axis(d)] };
    let product = |b: &mut TileProgram, first: usize| {
        let row = Index::axis(c).plus(&Index::constant(first as i64));
        stage(b, Stage::Mma { axis: d, a: a.clone(), b: Load { param: w, index: vec![row, Index::axis(d)] } })
    };
    let at = vec![Index::axis(t), Index::axis(c)];
    let first = product(b, 0);
    let value = if gated {
        let second = product(b, n);
        let minus = apply(b, Neg, &[first]);
        let e = apply(b, Exp, &[minus]);
        let one = b.expr(Expr::Const(Float::new(1.0)));
        let e = apply(b, Add, &[e, one]);
        let silu = apply(b, Div, &[first, e]);
        apply(b, Mul, &[silu, second])
    } else {
        let residual = param(b, DType::Bf16, &dims, Access::Read, Layout::Rows);
        let residual = load(b, residual, &at);
        apply(b, Add, &[first, residual])
    };
    b.stages.push(Stage::Store { axes: vec![], param: y, index: at, value });
    tile
}

/// Causal attention over a paged cache: `heads` of keys, `group` queries each, 128 deep.
fn attention(heads: usize, group: usize) -> TileProgram {
    let mut tile = TileProgram { name: "attend".into(), ..TileProgram::default() };
    let b = &mut tile;
    let (t, h, g) = (axis(b, Sym::T), axis(b, heads), axis(b, group));
    let (c, d, e) = (axis(b, Dim::times(Sym::P, PAGE)), axis(b, 128), axis(b, 128));
    let dims: [Dim; 3] = [Sym::T.into(), (heads * group).into(), 128.into()];
    let q = param(b, DType::Bf16, &dims, Access::Read, Layout::Rows);
    let pos = param(b, DType::U32, &[Sym::T.into()], Access::Read, Layout::Rows);
    let table = param(b, DType::U32, &[Sym::S.into(), Sym::P.into()], Access::Read, Layout::Rows);
    let cache: [Dim; 3] = [Sym::N.into(), heads.into(), 128.into()];
    let k = param(b, DType::Bf16, &cache, Access::Read, Layout::Rows);
    let v = param(b, DType::Bf16, &cache, Access::Read, Layout::Rows);
    let y = param(b, DType::Bf16, &dims, Access::Write, Layout::Rows);
    b.grid = vec![t, h, g];
    let by_page = |atom: fn(Box<Index>, u64) -> Atom| Index::atom(atom(Box::new(Index::axis(c)), PAGE));
    let page = Load { param: table, index: vec![Index::constant(0), by_page(Atom::Div)] };
    let slot = Index::atom(Atom::Load(Box::new(page))).times(PAGE as i64).plus(&by_page(Atom::Mod));
    let query = Index::axis(h).times(group as i64).plus(&Index::axis(g));
    let a = Load { param: q, index: vec![Index::axis(t), query.clone(), Index::axis(d)] };
    let key = Load { param: k, index: vec![slot.clone(), Index::axis(h), Index::axis(d)] };
    let dot = stage(b, Stage::Mma { axis: d, a, b: key });
    let number = |b: &mut TileProgram, x: f64| b.expr(Expr::Const(Float::new(x)));
    let scale = number(b, 0.088);
    let score = apply(b, Mul, &[dot, scale]);
    let (here, at_t) = (b.expr(Expr::Index(Index::axis(c))), load(b, pos, &[Index::axis(t)]));
    let seen = apply(b, Le, &[here, at_t]);
    let (one, lowest) = (number(b, 1.0), number(b, f64::NEG_INFINITY));
    let to = Some(apply(b, Add, &[at_t, one]));
    let score = apply(b, Select, &[seen, score, lowest]);
    let value = Load { param: v, index: vec![slot, Index::axis(h), Index::axis(e)] };
    let out = stage(
        b,
        Stage::Online { axis: c, from: None, to, start: None, score, lanes: e, value, factor: None },
    );
    let index = vec![Index::axis(t), query, Index::axis(e)];
    b.stages.push(Stage::Store { axes: vec![e], param: y, index, value: out });
    tile
}

fn bytes(param: &TileParam, binding: &Binding) -> usize {
    let shape: Vec<usize> = param.ty.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
    match param.layout {
        Layout::Panels => panel_bytes_bf16(shape[0], shape[1]),
        Layout::Codes(codes) => codes.bytes(shape[0], shape[1]),
        Layout::Rows | Layout::Halves => param.stored().bytes(binding) as usize,
    }
}

/// Seconds of the fastest of several runs, and the bytes that a run touches.
fn time(tile: &TileProgram, binding: &Binding, work: f64, unit: &str) {
    let isa = Isa::detect();
    let start = Instant::now();
    let kernel = match compile(tile, isa) {
        Ok(kernel) => kernel,
        Err(error) => return eprintln!("{error}"),
    };
    let compiling = start.elapsed();
    let mut memory: Vec<AlignedBytes> =
        tile.params.values().map(|param| AlignedBytes::zeroed(bytes(param, binding))).collect();
    for (memory, param) in memory.iter_mut().zip(tile.params.values()) {
        match param.ty.dtype {
            // Positions: all at the end of the context. Pages: in order, from 0.
            DType::U32 if param.ty.rank() == 1 => {
                let last = (binding.get(Sym::P) * PAGE - 1) as u32;
                memory.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&last.to_le_bytes()));
            }
            DType::U32 => {
                let words = memory.chunks_exact_mut(4).enumerate();
                words.for_each(|(page, word)| word.copy_from_slice(&(page as u32).to_le_bytes()));
            }
            _ => memory.chunks_exact_mut(2).enumerate().for_each(|(at, half)| {
                half.copy_from_slice(&(0x3c00u16 + (at % 251) as u16).to_le_bytes());
            }),
        }
    }
    let args: Vec<*mut u8> = memory.iter_mut().map(|memory| memory.as_mut_ptr()).collect();
    let mut scratch = AlignedBytes::zeroed(kernel.scratch_bytes);
    let form = kernel.form(binding);
    let units = form.count(binding);
    let mut best = f64::INFINITY;
    for _ in 0..9 {
        let start = Instant::now();
        // SAFETY: every parameter has the bytes that its type says, and scratch what the kernel asks for.
        unsafe { (form.entry)(args.as_ptr(), binding.values.as_ptr(), 0, units, scratch.as_mut_ptr()) };
        best = best.min(start.elapsed().as_secs_f64());
    }
    let (name, tokens, rate) = (&tile.name, binding.get(Sym::T), work / best / 1e9);
    println!("{name:9} T={tokens:<4} {:9.1} µs {rate:7.1} {unit:8} compiled in {compiling:?}", best * 1e6);
}

fn main() {
    for tokens in [1u64, 16, 256] {
        let pages = 64;
        let binding = Binding::new(tokens, 1, pages, pages * PAGE);
        let t = tokens as f64;
        time(&norm(2048), &binding, t * 2048.0 * 2.0 * 3.0, "GB/s");
        let work = if tokens == 1 { (2.0, "GB/s") } else { (2.0 * t, "GFLOP/s") };
        time(&contract(2048, 2048, false), &binding, 2048.0 * 2048.0 * work.0, work.1);
        time(&contract(5632, 2048, true), &binding, 2.0 * 5632.0 * 2048.0 * work.0, work.1);
        time(&attention(8, 4), &binding, t * 32.0 * 1024.0 * 128.0 * 4.0, "GFLOP/s");
    }
    let tiles = [norm(2048), contract(2048, 2048, false), contract(5632, 2048, true), attention(8, 4)];
    let start = Instant::now();
    let kernels = compile_all(&tiles.each_ref(), Isa::detect());
    println!(
        "all four together: {:?}, {} kernels",
        start.elapsed(),
        kernels.map_or(0, |kernels| kernels.len())
    );
}
