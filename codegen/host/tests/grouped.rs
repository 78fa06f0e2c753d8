//! Products in which each row has one of several packed weights.

mod launch;

use launch::*;
use sinter_codegen_host::{emit_text, micro::Isa};
use sinter_ir::ScalarOp::*;
use sinter_ir::*;

/// The extents of a case: weights, choices of a token, columns, depth.
#[derive(Clone, Copy, Debug)]
struct Size {
    e: usize,
    j: usize,
    n: usize,
    k: usize,
}

/// `y[t, j, n] = tanh(x[t] W[i[t, j]]) (x[t] V[i[t, j]]) / (1 + |x[t]|)`.
fn grouped(dtype: DType, size: Size) -> TileProgram {
    let Size { e, j, n, k } = size;
    let mut b = Build::new("grouped");
    let (t, c, i) = (b.axis("t", Sym::T), b.axis("n", n), b.axis("j", j));
    let (d, f, r) = (b.axis("k", k), b.axis("k", k), b.axis("r", k));
    let x = b.input("x", dtype, &[Sym::T.into(), k.into()]);
    let which = b.input("which", DType::U32, &[Sym::T.into(), j.into()]);
    let (w, v) = (b.stack("w", dtype, e, n, k), b.stack("v", dtype, e, n, k));
    let y = b.output("y", dtype, &[Sym::T.into(), j.into(), n.into()]);
    b.tile.grid = vec![t, i, c];
    let matrix = read(which, &[ax(t), ax(i)]);
    let gate = b.mma(d, at(x, &[ax(t), ax(d)]), at(w, &[matrix.clone(), ax(c), ax(d)]));
    let up = b.mma(f, at(x, &[ax(t), ax(f)]), at(v, &[matrix, ax(c), ax(f)]));
    let gate = b.apply(Tanh, &[gate]);
    let product = b.apply(Mul, &[gate, up]);
    let part = b.load(x, &[ax(t), ax(r)]);
    let size = b.apply(Abs, &[part]);
    let sum = b.reduce(r, Monoid::Sum, size);
    let one = b.number(1.0);
    let sum = b.apply(Add, &[sum, one]);
    let value = b.apply(Div, &[product, sum]);
    b.store(&[], y, &[ax(t), ax(i), ax(c)], value);
    b.tile
}

fn filled(tile: &TileProgram, binding: &Binding, weights: usize) -> Vec<Tensor<f32>> {
    let mut stream = Stream(weights as u64);
    let mut params: Vec<_> = tile.params.values().map(|p| numbers(&mut stream, p, binding)).collect();
    params[1] = wholes(&mut stream, &params[1].shape.clone(), weights);
    params
}

#[test]
fn awkward_sizes() {
    for dtype in [DType::F32, DType::Bf16] {
        for (e, j, n, k) in [(1, 1, 1, 1), (3, 2, 31, 7), (5, 2, 65, 33), (9, 4, 100, 18), (2, 2, 128, 40)] {
            let tile = grouped(dtype, Size { e, j, n, k });
            let text = emit_text(&tile, Isa::detect());
            assert!(text.contains("grouped 48 rows"), "not a grouped product: {}", &text[..80]);
            for tokens in [1, 5, 60] {
                let binding = Binding::new(tokens, 1, 1, 16);
                let params = filled(&tile, &binding, e);
                check(&tile, &binding, &params, if dtype == DType::F32 { 2e-5 } else { 1e-4 });
            }
        }
    }
}

/// More rows than are sorted at a time, and a row alone.
#[test]
fn neighbours_change_no_bit() {
    for dtype in [DType::F32, DType::Bf16] {
        let size = Size { e: 7, j: 3, n: 70, k: 12 };
        let tile = grouped(dtype, size);
        let many = Binding::new(700, 1, 1, 16);
        let params = filled(&tile, &many, size.e);
        let kernel = sinter_codegen_host::compile(&tile, Isa::detect()).unwrap();
        let whole = launch(&kernel, &tile, &many, &params, Split::Whole);
        for row in [0, 341, 342, 699] {
            let cut = |tensor: &Tensor<f32>, width| {
                Tensor::new(vec![1, width], tensor.data[row * width..(row + 1) * width].to_vec())
            };
            let mut alone = params.clone();
            (alone[0], alone[1]) = (cut(&params[0], size.k), cut(&params[1], size.j));
            alone[4] = Tensor::new(vec![1, size.j, size.n], vec![0.0; size.j * size.n]);
            let one = launch(&kernel, &tile, &Binding::new(1, 1, 1, 16), &alone, Split::Whole);
            let width = size.j * size.n;
            let wanted = &whole[4].data[row * width..(row + 1) * width];
            assert!(same_bits(&one[4].data, wanted), "row {row} of {dtype}");
        }
    }
}

/// Rows of a choice of their own, as after the first half of an expert; weights that lie in the middle of a stack's
/// columns, and stacks that nothing reads in panels, run all the same.
#[test]
fn products_of_nearly_that_structure() {
    for case in 0..3 {
        let mut b = Build::new("down");
        let (t, i, c, d) = (b.axis("t", Sym::T), b.axis("j", 2), b.axis("n", 40), b.axis("k", 9));
        let x = b.input("x", DType::F32, &[Sym::T.into(), 2.into(), 9.into()]);
        let which = b.input("which", DType::U32, &[Sym::T.into(), 2.into()]);
        let w = b.stack("w", DType::F32, 4, 45, 9);
        if case == 2 {
            b.tile.params[w].layout = Layout::Rows;
        }
        let y = b.output("y", DType::F32, &[Sym::T.into(), 2.into(), 40.into()]);
        b.tile.grid = vec![t, i, c];
        let row = ax(c).plus(&Index::constant(if case == 1 { 5 } else { 0 }));
        let matrix = read(which, &[ax(t), ax(i)]);
        let sum = b.mma(d, at(x, &[ax(t), ax(i), ax(d)]), at(w, &[matrix, row, ax(d)]));
        b.store(&[], y, &[ax(t), ax(i), ax(c)], sum);
        let grouped = emit_text(&b.tile, Isa::detect()).contains("grouped");
        assert_eq!(grouped, case == 0);
        let binding = Binding::new(11, 1, 1, 16);
        let params = filled(&b.tile, &binding, 4);
        check(&b.tile, &binding, &params, 1e-5);
    }
}
