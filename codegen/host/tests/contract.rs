//! Products with packed weights.

mod launch;

use launch::*;
use sinter_codegen_host::{emit_text, micro::Isa};
use sinter_ir::ScalarOp::*;
use sinter_ir::*;

/// `y[t, n] = gelu-like(x W + bias) + residual`, with as many products as `products`, the others gating the first.
fn contract(dtype: DType, n: usize, k: usize, products: usize) -> TileProgram {
    let mut b = Build::new("contract");
    let (t, c, d) = (b.axis("t", Sym::T), b.axis("n", n), b.axis("k", k));
    let x = b.input("x", dtype, &[Sym::T.into(), k.into()]);
    let w = b.panels("w", dtype, (products - 1) * n.next_multiple_of(32) + n, k);
    let bias = b.input("bias", DType::F32, &[n.into()]);
    let residual = b.input("residual", dtype, &[Sym::T.into(), n.into()]);
    let y = b.output("y", dtype, &[Sym::T.into(), n.into()]);
    let z = b.output("z", DType::F32, &[n.into(), Sym::T.into()]);
    b.tile.grid = vec![t, c];
    let mut value = None;
    for product in 0..products {
        let row = ax(c).plus(&Index::constant((product * n.next_multiple_of(32)) as i64));
        let sum = b.mma(d, at(x, &[ax(t), ax(d)]), at(w, &[row, ax(d)]));
        value = Some(match value {
            None => sum,
            Some(gate) => {
                let gate = b.apply(Tanh, &[gate]);
                b.apply(Mul, &[gate, sum])
            }
        });
    }
    let bias = b.load(bias, &[ax(c)]);
    let value = b.apply(Add, &[value.unwrap(), bias]);
    let residual = b.load(residual, &[ax(t), ax(c)]);
    let value = b.apply(Add, &[value, residual]);
    b.store(&[], y, &[ax(t), ax(c)], value);
    // A transposed store cannot be a vector.
    b.store(&[], z, &[ax(c), ax(t)], value);
    b.tile
}

/// Sums of at most 64 products below 1 are off by 64 × 2⁻²⁴ in f32. The bf16 instruction rounds pairs and drops
/// subnormals besides, and a product of two sums adds their errors.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F32 { 2e-5 } else { 1e-4 }
}

fn filled(tile: &TileProgram, binding: &Binding, seed: u64) -> Vec<Tensor<f32>> {
    let mut stream = Stream(seed);
    tile.params.values().map(|p| numbers(&mut stream, p, binding)).collect()
}

#[test]
fn awkward_sizes() {
    for dtype in [DType::F32, DType::Bf16] {
        for (n, k, products) in [(1, 1, 1), (31, 7, 1), (64, 64, 2), (65, 33, 2), (100, 50, 3), (200, 18, 1)]
        {
            let tile = contract(dtype, n, k, products);
            assert!(emit_text(&tile, Isa::detect()).contains("contract 48 rows"), "not a contraction");
            for tokens in [1, 5, 48, 50] {
                let binding = Binding::new(tokens, 1, 1, 16);
                let params = filled(&tile, &binding, n as u64);
                check(&tile, &binding, &params, tolerance(dtype));
            }
        }
    }
}

#[test]
fn a_row_gets_the_same_bits_alone() {
    for dtype in [DType::F32, DType::Bf16] {
        let tile = contract(dtype, 70, 40, 2);
        let many = Binding::new(53, 1, 1, 16);
        let params = filled(&tile, &many, 4);
        let kernel = sinter_codegen_host::compile(&tile, Isa::detect()).unwrap();
        let whole = launch(&kernel, &tile, &many, &params, Split::Whole);
        for row in [0, 17, 48, 52] {
            let cut = |tensor: &Tensor<f32>, width| {
                Tensor::new(vec![1, width], tensor.data[row * width..(row + 1) * width].to_vec())
            };
            let mut alone = params.clone();
            (alone[0], alone[3], alone[4]) = (cut(&params[0], 40), cut(&params[3], 70), cut(&params[4], 70));
            alone[5] = Tensor::new(vec![70, 1], vec![0.0; 70]);
            let one = launch(&kernel, &tile, &Binding::new(1, 1, 1, 16), &alone, Split::Whole);
            assert!(
                same_bits(&one[4].data, &whole[4].data[row * 70..(row + 1) * 70]),
                "row {row} of {dtype}"
            );
        }
    }
}

/// Rows by an index, a norm of the row in the epilogue, and a split depth axis.
#[test]
fn gathered_rows_and_a_reduction_in_the_epilogue() {
    for dtype in [DType::F32, DType::Bf16] {
        let mut b = Build::new("head");
        let (r, c, d, i) = (b.axis("r", Sym::R), b.axis("n", 45), b.axis("k", 24), b.axis("i", 24));
        let x = b.input("x", dtype, &[Sym::T.into(), 3.into(), 8.into()]);
        let rows = b.input("rows", DType::U32, &[Sym::R.into()]);
        let w = b.panels("w", dtype, 45, 24);
        let y = b.output("y", DType::F32, &[Sym::R.into(), 45.into()]);
        b.tile.grid = vec![r, c];
        let index = |axis: AxisId| [read(rows, &[ax(r)]), div(ax(axis), 8), rem(ax(axis), 8)];
        let sum = b.mma(d, at(x, &index(d)), at(w, &[ax(c), ax(d)]));
        let v = b.load(x, &index(i));
        let square = b.apply(Mul, &[v, v]);
        let squares = b.reduce(i, Monoid::Sum, square);
        let norm = b.apply(Rsqrt, &[squares]);
        let value = b.apply(Mul, &[sum, norm]);
        b.store(&[], y, &[ax(r), ax(c)], value);
        let binding = Binding::new(60, 1, 1, 16).with_rows(51);
        let mut params = filled(&b.tile, &binding, 2);
        params[1] = wholes(&mut Stream(5), &[51], 60);
        assert!(emit_text(&b.tile, Isa::detect()).contains("rows copied"));
        check(&b.tile, &binding, &params, tolerance(dtype));
    }
}

/// In place: the residual is the result.
#[test]
fn a_residual_in_place() {
    let mut b = Build::new("in_place");
    let (t, c, d) = (b.axis("t", Sym::T), b.axis("n", 40), b.axis("k", 16));
    let x = b.input("x", DType::F32, &[Sym::T.into(), 16.into()]);
    let w = b.panels("w", DType::F32, 40, 16);
    let y = b.param("y", DType::F32, &[Sym::T.into(), 40.into()], Access::ReadWrite);
    b.tile.grid = vec![t, c];
    let sum = b.mma(d, at(x, &[ax(t), ax(d)]), at(w, &[ax(c), ax(d)]));
    let old = b.load(y, &[ax(t), ax(c)]);
    let new = b.apply(Add, &[sum, old]);
    b.store(&[], y, &[ax(t), ax(c)], new);
    let binding = Binding::new(7, 1, 1, 16);
    let params = filled(&b.tile, &binding, 2);
    check(&b.tile, &binding, &params, 1e-5);
}

/// What is nearly a contraction runs all the same: mixed formats, a weight in rows, panels that begin in the middle.
#[test]
fn products_of_no_known_structure() {
    for case in 0..4 {
        let mut b = Build::new("general");
        let (t, c, d) = (b.axis("t", Sym::T), b.axis("n", 9), b.axis("k", 21));
        let x = b.input("x", DType::F32, &[Sym::T.into(), 21.into()]);
        let w = b.panels("w", if case == 0 { DType::Bf16 } else { DType::F32 }, 40, 21);
        if case == 1 {
            b.tile.params[w].layout = Layout::Rows;
        }
        let y = b.output("y", DType::F32, &[Sym::T.into(), 9.into()]);
        b.tile.grid = vec![t, c];
        let first = if case == 2 { 5 } else { 0 };
        let row = ax(c).plus(&Index::constant(first));
        let depth = if case == 3 { ax(d).times(-1).plus(&Index::constant(20)) } else { ax(d) };
        let sum = b.mma(d, at(x, &[ax(t), ax(d)]), at(w, &[row, depth]));
        b.store(&[], y, &[ax(t), ax(c)], sum);
        let binding = Binding::new(7, 1, 1, 16);
        let params = filled(&b.tile, &binding, 2);
        check(&b.tile, &binding, &params, 1e-5);
    }
}

/// In f32 every instruction set gives the same bits, whichever the machine has.
#[test]
fn instruction_sets_agree() {
    let tile = contract(DType::F32, 70, 40, 2);
    let binding = Binding::new(13, 1, 1, 16);
    let params = filled(&tile, &binding, 4);
    let run = |isa| {
        let kernel = sinter_codegen_host::compile(&tile, isa).unwrap();
        launch(&kernel, &tile, &binding, &params, Split::Whole)
    };
    let wanted = run(Isa::detect());
    for isa in Isa::available() {
        assert!(same_bits(&run(isa)[4].data, &wanted[4].data), "{isa}");
    }
}

#[test]
fn the_same_program_gives_the_same_form() {
    let tile = contract(DType::Bf16, 70, 40, 2);
    assert_eq!(emit_text(&tile, Isa::detect()), emit_text(&tile, Isa::detect()));
}

#[test]
fn malformed_programs_are_refused() {
    use sinter_codegen_host::{CodegenError, compile};
    let good = contract(DType::F32, 8, 8, 1);
    let broken: [fn(&mut TileProgram); 6] = [
        |tile| tile.grid.push(AxisId(99)),
        |tile| tile.params[ParamId(1)].ty.dtype = DType::F16,
        |tile| {
            tile.stages.push(Stage::Store {
                axes: vec![],
                param: ParamId(4),
                index: vec![],
                value: ExprId(0),
            })
        },
        |tile| tile.stages.push(Stage::Reduce { axis: AxisId(0), monoid: Monoid::Sum, value: ExprId(99) }),
        |tile| tile.exprs[ExprId(1)] = Expr::Cast(DType::F32, ExprId(99)),
        |tile| {
            let last = StageId(tile.stages.len() as u32 - 1);
            tile.expr(Expr::Stage(last));
        },
    ];
    for (case, damage) in broken.into_iter().enumerate() {
        let mut tile = good.clone();
        damage(&mut tile);
        assert!(matches!(compile(&tile, Isa::detect()), Err(CodegenError::Malformed { .. })), "case {case}");
    }
}
