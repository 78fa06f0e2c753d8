//! Rows: norms, softmax, gathers, scatters, element-wise chains.

mod launch;

use launch::*;
use sinter_ir::ScalarOp::*;
use sinter_ir::*;

fn rms_norm(dtype: DType, width: usize) -> TileProgram {
    let mut b = Build::new("rms_norm");
    let (t, k, d) = (b.axis("t", Sym::T), b.axis("k", width), b.axis("d", width));
    let x = b.input("x", dtype, &[Sym::T.into(), width.into()]);
    let w = b.input("w", dtype, &[width.into()]);
    let y = b.output("y", dtype, &[Sym::T.into(), width.into()]);
    b.tile.grid = vec![t];
    let v = b.load(x, &[ax(t), ax(k)]);
    let square = b.apply(Mul, &[v, v]);
    let sum = b.reduce(k, Monoid::Sum, square);
    let (scale, eps) = (b.number(1.0 / width as f64), b.number(1e-5));
    let mean = b.apply(Mul, &[sum, scale]);
    let mean = b.apply(Add, &[mean, eps]);
    let r = b.apply(Rsqrt, &[mean]);
    let (v, g) = (b.load(x, &[ax(t), ax(d)]), b.load(w, &[ax(d)]));
    let v = b.apply(Mul, &[v, r]);
    let v = b.apply(Mul, &[v, g]);
    b.store(&[d], y, &[ax(t), ax(d)], v);
    b.tile
}

#[test]
fn norms_of_awkward_widths() {
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        for width in [1, 3, 4, 7, 16, 33, 64, 100] {
            let tile = rms_norm(dtype, width);
            let (mut stream, binding) = (Stream(width as u64), Binding::new(5, 2, 1, 16));
            let params: Vec<_> = tile.params.values().map(|p| numbers(&mut stream, p, &binding)).collect();
            // A sum of at most 100 squares below 1, in f32: 100 × 2⁻²⁴ relative.
            let out = check(&tile, &binding, &params, 1e-5);
            let alone: Vec<_> = [0, 2]
                .map(|at| Tensor::new(vec![1, width], params[at].data[..width].to_vec()))
                .into_iter()
                .collect();
            let params = [alone[0].clone(), params[1].clone(), alone[1].clone()];
            let one = check(&tile, &Binding::new(1, 1, 1, 16), &params, 1e-5);
            assert!(same_bits(&one[2].data, &out[2].data[..width]), "a row depends on the others");
        }
    }
}

#[test]
fn softmax_in_three_stages() {
    let mut b = Build::new("softmax");
    let (t, i, j, d) = (b.axis("t", Sym::T), b.axis("i", 37), b.axis("j", 37), b.axis("d", 37));
    let x = b.input("x", DType::F32, &[Sym::T.into(), 37.into()]);
    let y = b.output("y", DType::F32, &[Sym::T.into(), 37.into()]);
    b.tile.grid = vec![t];
    let at_i = b.load(x, &[ax(t), ax(i)]);
    let max = b.reduce(i, Monoid::Max, at_i);
    let weight = |b: &mut Build, axis| {
        let v = b.load(x, &[ax(t), ax(axis)]);
        let v = b.apply(Sub, &[v, max]);
        b.apply(Exp, &[v])
    };
    let at_j = weight(&mut b, j);
    let sum = b.reduce(j, Monoid::Sum, at_j);
    let at_d = weight(&mut b, d);
    let v = b.apply(Div, &[at_d, sum]);
    b.store(&[d], y, &[ax(t), ax(d)], v);
    let (mut stream, binding) = (Stream(3), Binding::new(4, 2, 1, 16));
    let params: Vec<_> = b.tile.params.values().map(|p| numbers(&mut stream, p, &binding)).collect();
    check(&b.tile, &binding, &params, 2e-6);
}

#[test]
fn embedding_gather_from_rows_and_panels() {
    for dtype in [DType::F32, DType::Bf16] {
        for (layout, width) in [(Layout::Rows, 20), (Layout::Panels, 20), (Layout::Panels, 13)] {
            let mut b = Build::new("embed");
            let (t, d) = (b.axis("t", Sym::T), b.axis("d", width));
            let tokens = b.input("tokens", DType::U32, &[Sym::T.into()]);
            let table = b.panels("table", dtype, 70, width);
            b.tile.params[table].layout = layout;
            let y = b.output("y", DType::F32, &[Sym::T.into(), width.into()]);
            b.tile.grid = vec![t];
            let v = b.load(table, &[read(tokens, &[ax(t)]), ax(d)]);
            b.store(&[d], y, &[ax(t), ax(d)], v);
            let (mut stream, binding) = (Stream(5), Binding::new(9, 2, 1, 16));
            let mut params: Vec<_> =
                b.tile.params.values().map(|p| numbers(&mut stream, p, &binding)).collect();
            params[0] = wholes(&mut stream, &[9], 70);
            check(&b.tile, &binding, &params, 0.0);
        }
    }
}

/// One activation row scattered to a query tensor and, in place, to a cache: several stores with their own lanes.
#[test]
fn segments_scattered_to_a_cache() {
    let mut b = Build::new("segments");
    let (t, h, d, e) = (b.axis("t", Sym::T), b.axis("h", 3), b.axis("d", 8), b.axis("e", 6));
    let x = b.input("x", DType::F32, &[Sym::T.into(), 30.into()]);
    let slots = b.input("slots", DType::U32, &[Sym::T.into()]);
    let q = b.output("q", DType::Bf16, &[Sym::T.into(), 3.into(), 8.into()]);
    let cache = b.param("cache", DType::Bf16, &[Sym::N.into(), 6.into()], Access::ReadWrite);
    b.tile.grid = vec![t];
    let v = b.load(x, &[ax(t), ax(h).times(8).plus(&ax(d))]);
    b.store(&[h, d], q, &[ax(t), ax(h), ax(d)], v);
    let v = b.load(x, &[ax(t), ax(e).plus(&Index::constant(24))]);
    b.store(&[e], cache, &[read(slots, &[ax(t)]), ax(e)], v);
    let (mut stream, binding) = (Stream(6), Binding::new(5, 2, 1, 16));
    let mut params: Vec<_> = b.tile.params.values().map(|p| numbers(&mut stream, p, &binding)).collect();
    params[1] = Tensor::new(vec![5], vec![11.0, 3.0, 0.0, 15.0, 7.0]);
    check(&b.tile, &binding, &params, 0.0);
}

/// Rotary embedding, once with a select whose arms would read outside, once with a remainder.
#[test]
fn rotations() {
    for width in [8usize, 6] {
        for by_select in [true, false] {
            let half = width / 2;
            let mut b = Build::new("rotate");
            let (t, h, d) = (b.axis("t", Sym::T), b.axis("h", 2), b.axis("d", width));
            let dims: [Dim; 3] = [Sym::T.into(), 2.into(), width.into()];
            let x = b.input("x", DType::Bf16, &dims);
            let angle = b.input("angle", DType::F32, &[Sym::T.into(), half.into()]);
            let y = b.output("y", DType::F32, &dims);
            b.tile.grid = vec![t, h];
            let angle = b.load(angle, &[ax(t), rem(ax(d), half as u64)]);
            let (sin, cos) = (b.apply(Sin, &[angle]), b.apply(Cos, &[angle]));
            let (here, middle) = (b.index(ax(d)), b.number(half as f64));
            let first = b.apply(Lt, &[here, middle]);
            let other = if by_select {
                let above = b.load(x, &[ax(t), ax(h), ax(d).plus(&Index::constant(half as i64))]);
                let below = b.load(x, &[ax(t), ax(h), ax(d).plus(&Index::constant(-(half as i64)))]);
                let above = b.apply(Neg, &[above]);
                b.apply(Select, &[first, above, below])
            } else {
                let other =
                    b.load(x, &[ax(t), ax(h), rem(ax(d).plus(&Index::constant(half as i64)), width as u64)]);
                let minus = b.apply(Neg, &[other]);
                b.apply(Select, &[first, minus, other])
            };
            let v = b.load(x, &[ax(t), ax(h), ax(d)]);
            let (a, c) = (b.apply(Mul, &[v, cos]), b.apply(Mul, &[other, sin]));
            let v = b.apply(Add, &[a, c]);
            b.store(&[d], y, &[ax(t), ax(h), ax(d)], v);
            let (mut stream, binding) = (Stream(8), Binding::new(3, 2, 1, 16));
            let params: Vec<_> = b.tile.params.values().map(|p| numbers(&mut stream, p, &binding)).collect();
            check(&b.tile, &binding, &params, 1e-6);
        }
    }
}

/// Every scalar function, in vectors and in the tail, with every axis in the grid.
#[test]
fn every_function_of_numbers() {
    for op in ScalarOp::ALL {
        let mut b = Build::new(op.name());
        let (t, d) = (b.axis("t", Sym::T), b.axis("d", 11));
        let dims: [Dim; 2] = [Sym::T.into(), 11.into()];
        let (x, z) = (b.input("x", DType::F32, &dims), b.input("z", DType::F32, &dims));
        let y = b.output("y", DType::F32, &dims);
        b.tile.grid = vec![t, d];
        let (v, w) = (b.load(x, &[ax(t), ax(d)]), b.load(z, &[ax(t), ax(d)]));
        let zero = b.number(0.0);
        let truth = b.apply(Lt, &[v, zero]);
        let args: Vec<ExprId> = match op.arity() {
            1 => vec![v],
            2 => vec![v, w],
            _ => vec![truth, v, w],
        };
        let v = b.apply(*op, &args);
        let v = b.tile.expr(Expr::Cast(DType::F32, v));
        b.store(&[], y, &[ax(t), ax(d)], v);
        let (mut stream, binding) = (Stream(9), Binding::new(6, 2, 1, 16));
        let mut params: Vec<_> = b.tile.params.values().map(|p| numbers(&mut stream, p, &binding)).collect();
        let positive = matches!(op, Log | Sqrt | Rsqrt);
        params[0].data.iter_mut().for_each(|x| *x = if positive { x.abs() * 9.0 + 0.01 } else { *x * 9.0 });
        params[0].data[5] = 0.25;
        params[1].data[5] = 0.25;
        params[0].data[7] = if positive { 1.0 } else { 0.0 };
        check(&b.tile, &binding, &params, 1e-6);
    }
}

#[test]
fn functions_of_whole_numbers() {
    for op in [Add, Sub, Mul, Idiv, Mod, Max, Min, Lt, Le, Eq, Neg, Abs] {
        for by_constant in [None, Some(1.0), Some(4.0), Some(5.0)] {
            let mut b = Build::new(op.name());
            let (t, d) = (b.axis("t", Sym::T), b.axis("d", 10));
            let dims: [Dim; 2] = [Sym::T.into(), 10.into()];
            let (x, z) = (b.input("x", DType::U32, &dims), b.input("z", DType::U32, &dims));
            let (y, w) = (b.output("y", DType::F32, &dims), b.output("w", DType::U32, &dims));
            b.tile.grid = vec![t];
            let v = b.load(x, &[ax(t), ax(d)]);
            let here = b.index(ax(d).plus(&Index::constant(-3)).plus(&rem(ax(d).times(2), 3)));
            let v = b.apply(Sub, &[v, here]);
            let other = match by_constant {
                None => b.load(z, &[ax(t), ax(d)]),
                Some(number) => b.number(number),
            };
            let v = if op.arity() == 1 { b.apply(op, &[v]) } else { b.apply(op, &[v, other]) };
            let f = b.tile.expr(Expr::Cast(DType::F32, v));
            b.store(&[d], y, &[ax(t), ax(d)], f);
            let u = b.tile.expr(Expr::Cast(DType::U32, v));
            b.store(&[d], w, &[ax(t), ax(d)], u);
            let (mut stream, binding) = (Stream(10), Binding::new(6, 2, 1, 16));
            let mut params: Vec<_> =
                b.tile.params.values().map(|p| numbers(&mut stream, p, &binding)).collect();
            params[0] = wholes(&mut stream, &[6, 10], 20);
            params[1] = wholes(&mut stream, &[6, 10], 7);
            params[1].data.iter_mut().for_each(|x| *x += 1.0);
            check(&b.tile, &binding, &params, 0.0);
        }
    }
}

/// A copy from one format to another, in vectors and alone.
fn convert(from: DType, to: DType, data: &[f32]) -> Vec<f32> {
    let n = data.len();
    let mut b = Build::new("convert");
    let (t, d) = (b.axis("t", Sym::T), b.axis("d", n));
    let (x, y) = (b.input("x", from, &[n.into()]), b.output("y", to, &[n.into()]));
    b.tile.grid = vec![t];
    let v = b.load(x, &[ax(d)]);
    b.store(&[d], y, &[ax(d)], v);
    let params = [Tensor::new(vec![n], data.to_vec()), Tensor::new(vec![n], vec![0.0; n])];
    let kernel = sinter_codegen_host::compile(&b.tile, sinter_codegen_host::micro::Isa::detect()).unwrap();
    launch(&kernel, &b.tile, &Binding::new(1, 1, 1, 16), &params, Split::Whole)[1].data.clone()
}

#[test]
fn formats_are_converted_exactly() {
    let all_f16: Vec<f32> = (0..=u16::MAX).map(|bits| half::f16::from_bits(bits).to_f32()).collect();
    let mut some: Vec<f32> =
        (0..70_001u32).map(|i| f32::from_bits(i.wrapping_mul(61_681).wrapping_mul(977))).collect();
    some.extend([
        65504.0,
        65519.9,
        65520.0,
        65536.0,
        f32::INFINITY,
        f32::NAN,
        -0.0,
        1e-8,
        2.98e-8,
        6e-8,
        6.1e-5,
    ]);
    let agree = |found: &[f32], wanted: &mut dyn Iterator<Item = f32>| {
        for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            let good = found.to_bits() == wanted.to_bits() || (found.is_nan() && wanted.is_nan());
            assert!(good, "element {at}: {found}, wanted {wanted}");
        }
    };
    agree(&convert(DType::F16, DType::F32, &all_f16), &mut all_f16.iter().copied());
    agree(
        &convert(DType::F32, DType::F16, &some),
        &mut some.iter().map(|x| half::f16::from_f32(*x).to_f32()),
    );
    agree(
        &convert(DType::F32, DType::Bf16, &some),
        &mut some.iter().map(|x| half::bf16::from_f32(*x).to_f32()),
    );
    agree(
        &convert(DType::F32, DType::F16, &some[..3]),
        &mut some[..3].iter().map(|x| half::f16::from_f32(*x).to_f32()),
    );
}

/// Stores that read what the program itself changes, at the same element, at another one, and again and again.
#[test]
fn stores_in_place() {
    for case in 0..3 {
        let mut b = Build::new("in_place");
        let (t, d) = (b.axis("t", Sym::T), b.axis("d", 12));
        let dims: [Dim; 2] = [Sym::T.into(), 13.into()];
        let x = b.input("x", DType::F32, &dims);
        let y = b.param("y", DType::F32, &dims, Access::ReadWrite);
        b.tile.grid = vec![t];
        let to = match case {
            0 => ax(d),
            1 => ax(d).plus(&Index::constant(1)),
            _ => Index::constant(4),
        };
        let from = if case == 2 { Index::constant(4) } else { ax(d) };
        let v = b.load(x, &[ax(t), ax(d)]);
        for _ in 0..2 {
            let old = b.load(y, &[ax(t), from.clone()]);
            let sum = b.apply(Add, &[v, old]);
            b.store(&[d], y, &[ax(t), to.clone()], sum);
        }
        let (mut stream, binding) = (Stream(12), Binding::new(3, 2, 1, 16));
        let params: Vec<_> = b.tile.params.values().map(|p| numbers(&mut stream, p, &binding)).collect();
        check(&b.tile, &binding, &params, 1e-5);
    }
}
