//! Products with weights in codes, against the numbers that the codes stand for.

mod launch;

use launch::*;
use sinter_codegen_host::emit_text;
use sinter_codegen_host::micro::Isa;
use sinter_ir::*;

/// y[t, n] = s[t] x[t, k] w[n, k] + w[17, n mod k], the weight of `dtype` in codes and x of its own type.
fn program(x: DType, (dtype, codes): (DType, Codes), (n, k): (usize, usize)) -> TileProgram {
    let mut b = Build::new("product");
    let (t, c, d) = (b.axis("t", Sym::T), b.axis("n", n), b.axis("k", k));
    let x = b.input("x", x, &[Sym::T.into(), k.into()]);
    let s = b.input("s", DType::F32, &[Sym::T.into(), 1.into()]);
    let w = b.panels("w", dtype, n, k);
    b.tile.params[w].layout = Layout::Codes(codes);
    let y = b.output("y", DType::F32, &[Sym::T.into(), n.into()]);
    b.tile.grid = vec![t, c];
    let sum = b.mma(d, at(x, &[ax(t), ax(d)]), at(w, &[ax(c), ax(d)]));
    let scale = b.load(s, &[ax(t), Index::constant(0)]);
    let product = b.apply(ScalarOp::Mul, &[sum, scale]);
    let one = b.load(w, &[Index::constant(17), rem(ax(c), k as u64)]);
    let value = b.apply(ScalarOp::Add, &[product, one]);
    b.store(&[], y, &[ax(t), ax(c)], value);
    b.tile
}

fn params(tile: &TileProgram, binding: &Binding) -> Vec<Tensor<f32>> {
    let mut stream = Stream(3);
    let one = |param: &TileParam| match (param.layout, param.ty.dtype) {
        (Layout::Codes(_), _) => numbers_of_codes(param),
        (_, DType::I8) => {
            let shape: Vec<usize> = param.ty.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
            Tensor::from_fn(&shape, |_| stream.below(255) as f32 - 127.0)
        }
        _ => numbers(&mut stream, param, binding),
    };
    tile.params.values().map(one).collect()
}

fn layouts() -> impl Iterator<Item = Codes> {
    let offsets = [Offset::Middle, Offset::Zeros, Offset::Lows];
    let all = [4, 8].into_iter().flat_map(|bits| [16, 32, 96].map(|group| (bits, group)));
    all.flat_map(move |(bits, group)| offsets.map(|offset| Codes { bits, group, offset }))
}

#[test]
fn rows_of_numbers_and_of_codes_are_multiplied() {
    for codes in layouts() {
        for (x, dtype) in [(DType::F32, DType::F32), (DType::Bf16, DType::Bf16), (DType::I8, DType::F32)] {
            for n in [33, 200] {
                let tile = program(x, (dtype, codes), (n, 96));
                let text = emit_text(&tile, Isa::detect());
                assert!(text.contains("contract 48 rows") && text.contains(&codes.to_string()), "{text}");
                for tokens in [1, 50] {
                    let binding = Binding::new(tokens, 1, 1, 16);
                    let params = params(&tile, &binding);
                    // Sums of 96 products of numbers up to 127 and a few.
                    let tolerance = if x == DType::Bf16 { 2e-3 } else { 2e-4 };
                    check(&tile, &binding, &params, tolerance);
                }
            }
        }
    }
}

#[test]
fn a_row_gets_the_same_bits_alone() {
    for codes in layouts() {
        for (x, dtype) in [(DType::Bf16, DType::Bf16), (DType::I8, DType::F32)] {
            let tile = program(x, (dtype, codes), (70, 96));
            let many = Binding::new(53, 1, 1, 16);
            let params = params(&tile, &many);
            let kernel = sinter_codegen_host::compile(&tile, Isa::detect()).unwrap();
            let whole = launch(&kernel, &tile, &many, &params, Split::Whole);
            for row in [0, 17, 48, 52] {
                let mut alone = params.clone();
                alone[0] = Tensor::new(vec![1, 96], params[0].data[row * 96..(row + 1) * 96].to_vec());
                alone[1] = Tensor::new(vec![1, 1], params[1].data[row..row + 1].to_vec());
                alone[3] = Tensor::new(vec![1, 70], vec![0.0; 70]);
                let one = launch(&kernel, &tile, &Binding::new(1, 1, 1, 16), &alone, Split::Whole);
                let same = same_bits(&one[3].data, &whole[3].data[row * 70..(row + 1) * 70]);
                assert!(same, "row {row} of {codes}");
            }
        }
    }
}

#[test]
fn codes_that_fit_no_weight_are_refused() {
    let codes = Codes { bits: 4, group: 32, offset: Offset::Middle };
    let tile = program(DType::F32, (DType::F32, codes), (64, 72));
    let error = sinter_codegen_host::compile(&tile, Isa::detect()).unwrap_err().to_string();
    assert!(error.contains("codes4x32 are of matrices whose depth is whole groups"), "{error}");
}
