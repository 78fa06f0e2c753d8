//! Attention over a paged cache, and without one.

mod launch;

use launch::*;
use sinter_codegen_host::{emit_text, micro::Isa};
use sinter_ir::ScalarOp::*;
use sinter_ir::*;

/// What varies.
#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    /// Heads of keys, and queries for each.
    heads: usize,
    group: usize,
    depth: usize,
    lanes: usize,
    window: Option<usize>,
    cap: bool,
    /// Heads are one grid axis, or two.
    flat: bool,
    /// The bounds of the context are given.
    bounds: bool,
    /// Each query head has one score more, whose weight goes to nothing.
    sinks: bool,
    /// Keys and values are codes of this type in this layout, with a scale for each position and head.
    codes: Option<(DType, Layout)>,
}

const I8: (DType, Layout) = (DType::I8, Layout::Rows);
const I4: (DType, Layout) = (DType::I8, Layout::Halves);
const F8: (DType, Layout) = (DType::F8e4m3, Layout::Rows);

const PLAIN: Case = Case {
    dtype: DType::Bf16,
    heads: 2,
    group: 3,
    depth: 16,
    lanes: 16,
    window: None,
    cap: false,
    flat: false,
    bounds: true,
    sinks: false,
    codes: None,
};

/// Attention of token t, which is at `pos[t]` of sequence `seq[t]`, over the pages of that sequence.
fn attention(case: Case) -> TileProgram {
    let Case { dtype, heads, group, depth, lanes, .. } = case;
    let mut b = Build::new("attend");
    let t = b.axis("t", Sym::T);
    let (c, d, e) = (b.axis("c", Dim::times(Sym::P, PAGE)), b.axis("d", depth), b.axis("e", lanes));
    let (head, query) = if case.flat {
        let h = b.axis("h", heads * group);
        b.tile.grid = vec![t, h];
        (div(ax(h), group as u64), ax(h))
    } else {
        let (h, g) = (b.axis("h", heads), b.axis("g", group));
        b.tile.grid = vec![t, h, g];
        (ax(h), ax(h).times(group as i64).plus(&ax(g)))
    };
    let q = b.input("q", dtype, &[Sym::T.into(), (heads * group).into(), depth.into()]);
    let pos = b.input("pos", DType::U32, &[Sym::T.into()]);
    let seq = b.input("seq", DType::U32, &[Sym::T.into()]);
    let table = b.input("table", DType::U32, &[Sym::S.into(), Sym::P.into()]);
    let (kept, layout) = case.codes.unwrap_or((dtype, Layout::Rows));
    let k = b.input("k", kept, &[Sym::N.into(), heads.into(), depth.into()]);
    let v = b.input("v", kept, &[Sym::N.into(), heads.into(), lanes.into()]);
    [k, v].into_iter().for_each(|param| b.tile.params[param].layout = layout);
    let y = b.output("y", dtype, &[Sym::T.into(), (heads * group).into(), lanes.into()]);
    let page = read(table, &[read(seq, &[ax(t)]), div(ax(c), PAGE)]);
    let slot = page.times(PAGE as i64).plus(&rem(ax(c), PAGE));
    let dot = b.mma(d, at(q, &[ax(t), query.clone(), ax(d)]), at(k, &[slot.clone(), head.clone(), ax(d)]));
    let scale = b.number(0.25);
    let mut score = b.apply(Mul, &[dot, scale]);
    let scale_of = |b: &mut Build, name: &str| {
        let scales = b.input(name, DType::F32, &[Sym::N.into(), heads.into(), 1.into()]);
        b.load(scales, &[slot.clone(), head.clone(), Index::constant(0)])
    };
    let scales = case.codes.map(|_| ["k_scale", "v_scale"].map(|name| scale_of(&mut b, name)));
    if let Some([keys, _]) = scales {
        score = b.apply(Mul, &[score, keys]);
    }
    if case.cap {
        let cap = b.number(2.0);
        score = b.apply(Div, &[score, cap]);
        score = b.apply(Tanh, &[score]);
        score = b.apply(Mul, &[score, cap]);
    }
    let (here, at_t) = (b.index(ax(c)), b.load(pos, &[ax(t)]));
    let mut seen = b.apply(Le, &[here, at_t]);
    let mut from = None;
    if let Some(window) = case.window {
        let window = b.number(window as f64);
        let distance = b.apply(Sub, &[at_t, here]);
        let near = b.apply(Lt, &[distance, window]);
        seen = b.apply(And, &[seen, near]);
        let (first, one, zero) = (b.apply(Sub, &[at_t, window]), b.number(1.0), b.number(0.0));
        let first = b.apply(Add, &[first, one]);
        from = Some(b.apply(Max, &[first, zero]));
    }
    let (one, lowest) = (b.number(1.0), b.number(f64::NEG_INFINITY));
    let to = Some(b.apply(Add, &[at_t, one]));
    let (from, to) = if case.bounds { (from, to) } else { (None, None) };
    let score = b.apply(Select, &[seen, score, lowest]);
    let value = at(v, &[slot, head, ax(e)]);
    let start = case.sinks.then(|| {
        let sinks = b.input("sinks", DType::F32, &[(heads * group).into()]);
        b.load(sinks, std::slice::from_ref(&query))
    });
    let factor = scales.map(|[_, values]| values);
    let out = b.stage(Stage::Online { axis: c, from, to, start, score, lanes: e, value, factor });
    b.store(&[e], y, &[ax(t), query, ax(e)], out);
    b.tile
}

/// Tensors for tokens at `positions` of sequences, whose pages lie in any order.
fn filled(tile: &TileProgram, binding: &Binding, tokens: &[(usize, usize)]) -> Vec<Tensor<f32>> {
    let mut stream = Stream(11);
    let mut params: Vec<_> = tile.params.values().map(|p| numbers(&mut stream, p, binding)).collect();
    for (param, tensor) in tile.params.values().zip(&mut params) {
        match param.stored().dtype {
            DType::U8 => tensor.data.iter_mut().for_each(|code| *code = stream.below(256) as f32),
            DType::I8 => tensor.data.iter_mut().for_each(|code| *code = stream.below(255) as f32 - 127.0),
            DType::F8e4m3 => tensor.data.iter_mut().for_each(|code| *code *= 64.0),
            _ if param.name.ends_with("_scale") => tensor.data.iter_mut().for_each(|x| *x *= 1.0 / 64.0),
            _ => {}
        }
    }
    let count = tokens.len();
    params[1] = Tensor::new(vec![count], tokens.iter().map(|(_, pos)| *pos as f32).collect());
    params[2] = Tensor::new(vec![count], tokens.iter().map(|(seq, _)| *seq as f32).collect());
    let pages = (binding.get(Sym::N) / PAGE) as usize;
    params[3].data.iter_mut().enumerate().for_each(|(at, page)| *page = ((at * 7 + 3) % pages) as f32);
    params
}

const TOKENS: [(usize, usize); 6] = [(0, 0), (0, 1), (1, 63), (1, 64), (0, 70), (1, 143)];

#[test]
fn attention_of_every_kind() {
    let cases = [
        PLAIN,
        Case { dtype: DType::F32, ..PLAIN },
        Case { window: Some(20), ..PLAIN },
        Case { window: Some(70), cap: true, dtype: DType::F32, flat: true, ..PLAIN },
        Case { depth: 10, lanes: 7, cap: true, ..PLAIN },
        Case { bounds: false, window: Some(9), ..PLAIN },
        Case { flat: true, ..PLAIN },
        Case { group: 1, heads: 3, flat: true, ..PLAIN },
        Case { sinks: true, ..PLAIN },
        Case { sinks: true, flat: true, window: Some(9), dtype: DType::F32, ..PLAIN },
        Case { codes: Some(I8), ..PLAIN },
        Case { codes: Some(F8), window: Some(20), dtype: DType::F32, ..PLAIN },
        Case { codes: Some(I8), flat: true, depth: 10, lanes: 7, cap: true, ..PLAIN },
        Case { codes: Some(F8), bounds: false, window: Some(9), sinks: true, ..PLAIN },
        Case { codes: Some(I4), window: Some(70), ..PLAIN },
        Case { codes: Some(I4), flat: true, depth: 10, lanes: 6, dtype: DType::F32, ..PLAIN },
    ];
    for case in cases {
        let tile = attention(case);
        let rows = format!("attend {} rows", case.group);
        assert!(
            emit_text(&tile, Isa::detect()).contains(&rows),
            "{case:?}: {}",
            &emit_text(&tile, Isa::detect())[..90]
        );
        let binding = Binding::new(TOKENS.len() as u64, 2, 9, 18 * PAGE);
        let params = filled(&tile, &binding, &TOKENS);
        // The exponential and its argument are good to some 2⁻²², weights sum to 1.
        check(&tile, &binding, &params, 4e-6);
    }
}

/// A token gets the same bits alone, and in a step with a longer context.
#[test]
fn a_token_does_not_depend_on_the_step() {
    for case in [
        PLAIN,
        Case { dtype: DType::F32, window: Some(20), ..PLAIN },
        Case { bounds: false, sinks: true, ..PLAIN },
        Case { codes: Some(I8), window: Some(20), ..PLAIN },
        Case { codes: Some(F8), flat: true, ..PLAIN },
        Case { codes: Some(I4), sinks: true, ..PLAIN },
    ] {
        let tile = attention(case);
        let kernel = sinter_codegen_host::compile(&tile, Isa::detect()).unwrap();
        let binding = Binding::new(TOKENS.len() as u64, 2, 9, 18 * PAGE);
        let params = filled(&tile, &binding, &TOKENS);
        let together = launch(&kernel, &tile, &binding, &params, Split::Whole);
        let (q, y) = (case.heads * case.group * case.depth, case.heads * case.group * case.lanes);
        for (row, (seq, pos)) in TOKENS.iter().enumerate() {
            let pages = pos / PAGE as usize + 1;
            let mut alone = params.clone();
            let dims = |width| vec![1, case.heads * case.group, width];
            alone[0] = Tensor::new(dims(case.depth), params[0].data[row * q..(row + 1) * q].to_vec());
            alone[1] = Tensor::new(vec![1], vec![*pos as f32]);
            alone[2] = Tensor::new(vec![1], vec![0.0]);
            alone[3] = Tensor::new(vec![1, pages], params[3].data[seq * 9..][..pages].to_vec());
            alone[6] = Tensor::new(dims(case.lanes), vec![0.0; y]);
            let binding = Binding::new(1, 1, pages as u64, 18 * PAGE);
            let one = launch(&kernel, &tile, &binding, &alone, Split::Whole);
            assert!(
                same_bits(&one[6].data, &together[6].data[row * y..(row + 1) * y]),
                "{case:?}: token {row}"
            );
        }
    }
}

/// Positions beyond the bounds are not looked at: their pages may be gone.
#[test]
fn pages_out_of_range_are_not_read() {
    for codes in [None, Some(I8)] {
        let case = Case { window: Some(20), dtype: DType::F32, codes, ..PLAIN };
        let tile = attention(case);
        let kernel = sinter_codegen_host::compile(&tile, Isa::detect()).unwrap();
        let binding = Binding::new(1, 1, 9, 18 * PAGE);
        let mut params = filled(&tile, &binding, &[(0, 100)]);
        let wanted = launch(&kernel, &tile, &binding, &params, Split::Whole);
        // The window is 81..=100: pages 5 and 6.
        for page in [0, 1, 2, 3, 4, 7, 8] {
            params[3].data[page] = 4e8;
        }
        let found = launch(&kernel, &tile, &binding, &params, Split::Whole);
        assert!(same_bits(&found[6].data, &wanted[6].data));
    }
}

/// A row whose every score is −∞ is 0.
#[test]
fn a_row_that_sees_nothing() {
    let mut tile = attention(Case { bounds: false, ..PLAIN });
    let lowest = tile.expr(Expr::Const(Float::new(f64::NEG_INFINITY)));
    for stage in &mut tile.stages {
        if let Stage::Online { score, .. } = stage {
            *score = lowest;
        }
    }
    let binding = Binding::new(TOKENS.len() as u64, 2, 9, 18 * PAGE);
    let params = filled(&tile, &binding, &TOKENS);
    let out = check(&tile, &binding, &params, 0.0);
    assert!(out[6].data.iter().all(|x| *x == 0.0));
}

/// Attention over keys of another format than the kernels take, and with a result that is used in an expression.
#[test]
fn attention_of_no_known_structure() {
    let mut tile = attention(Case { heads: 1, group: 2, depth: 4, lanes: 5, ..PLAIN });
    tile.params[ParamId(4)].ty.dtype = DType::F16;
    assert!(emit_text(&tile, Isa::detect()).contains("points"));
    let binding = Binding::new(3, 2, 2, 18 * PAGE);
    let params = filled(&tile, &binding, &TOKENS[..2].iter().chain(&[(1, 31)]).copied().collect::<Vec<_>>());
    check(&tile, &binding, &params, 4e-6);
}

/// Codes in programs of no known structure are read one by one.
#[test]
fn codes_of_no_known_structure() {
    for codes in [I8, I4, F8] {
        let plain = Case { heads: 1, group: 2, depth: 4, lanes: 6, codes: Some(codes), ..PLAIN };
        let mut tile = attention(plain);
        tile.params[ParamId(0)].ty.dtype = DType::F32;
        let swapped = tile.stages.iter_mut().find_map(|stage| match stage {
            // A factor that depends on the row keeps the program from the micro-kernels.
            Stage::Online { factor, .. } => factor.take(),
            _ => None,
        });
        let (row, factor) = (tile.expr(Expr::Index(ax(tile.grid[2]))), swapped.unwrap());
        let own = tile.expr(Expr::Apply(Add, vec![factor, row]));
        for stage in &mut tile.stages {
            if let Stage::Online { factor, .. } = stage {
                *factor = Some(own);
            }
        }
        assert!(emit_text(&tile, Isa::detect()).contains("points"), "{codes:?}");
        let binding = Binding::new(2, 2, 2, 18 * PAGE);
        let params = filled(&tile, &binding, &TOKENS[..2]);
        check(&tile, &binding, &params, 4e-5);
    }
}
