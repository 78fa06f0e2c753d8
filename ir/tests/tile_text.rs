//! The text form of tile programs: what is printed is read back, and what is wrong is named with its line.

use sinter_ir::{
    Access, Atom, Axis, AxisId, Codes, DType, Dim, Expr, ExprId, Float, Index, Layout, Load, Monoid, ParamId,
    ScalarOp, Stage, StageId, Sym, TileParam, TileProgram, Type, verify_tile,
};

/// A small deterministic generator.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % limit
    }
    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const PARAMS: usize = 4;
const AXES: usize = 5;

fn index(random: &mut Random, depth: usize) -> Index {
    let mut sum = Index::constant(random.pick(&[0, 0, 1, -1, 17, i64::MAX, i64::MIN]));
    for _ in 0..random.below(3) {
        let atom = match random.below(if depth == 0 { 1 } else { 4 }) {
            0 => Atom::Axis(AxisId(random.below(AXES) as u32)),
            1 => Atom::Div(Box::new(index(random, depth - 1)), random.pick(&[1, 16, u64::MAX])),
            2 => Atom::Mod(Box::new(index(random, depth - 1)), random.pick(&[1, 16])),
            _ => Atom::Load(Box::new(load(random, depth - 1))),
        };
        let factor = random.pick(&[1, 1, -1, 4, -7, i64::MAX, i64::MIN]);
        if sum.terms.iter().all(|(known, _)| *known != atom) {
            sum = sum.plus(&Index { terms: vec![(atom, factor)], offset: 0 });
        }
    }
    sum
}

fn load(random: &mut Random, depth: usize) -> Load {
    Load {
        param: ParamId(random.below(PARAMS) as u32),
        index: (0..random.below(3)).map(|_| index(random, depth)).collect(),
    }
}

fn expr(random: &mut Random, known: usize) -> Expr {
    let numbers = [
        0.0,
        -0.0,
        1.5,
        -1e-300,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        f64::from_bits(0x7ff8_0000_0000_0123),
    ];
    match random.below(if known == 0 { 3 } else { 6 }) {
        0 => Expr::Const(Float::new(random.pick(&numbers))),
        1 => Expr::Index(index(random, 3)),
        2 => Expr::Load(load(random, 3)),
        3 => Expr::Stage(StageId(random.below(3) as u32)),
        4 => Expr::Cast(random.pick(&DType::ALL), ExprId(random.below(known) as u32)),
        _ => {
            let op = random.pick(ScalarOp::ALL);
            Expr::Apply(op, (0..op.arity()).map(|_| ExprId(random.below(known) as u32)).collect())
        }
    }
}

fn stage(random: &mut Random, exprs: usize) -> Stage {
    let axis = AxisId(random.below(AXES) as u32);
    let value = ExprId(random.below(exprs) as u32);
    let maybe = |random: &mut Random| (random.below(2) == 0).then(|| ExprId(random.below(exprs) as u32));
    match random.below(4) {
        0 => Stage::Reduce { axis, monoid: random.pick(&[Monoid::Sum, Monoid::Max]), value },
        1 => Stage::Mma { axis, a: load(random, 2), b: load(random, 2) },
        2 => {
            let (from, to, start) = (maybe(random), maybe(random), maybe(random));
            let lanes = AxisId(random.below(AXES) as u32);
            let factor = maybe(random);
            Stage::Online { axis, from, to, start, score: value, lanes, value: load(random, 2), factor }
        }
        _ => {
            let axes = (0..random.below(3)).map(|_| AxisId(random.below(AXES) as u32)).collect();
            let Load { param, index } = load(random, 2);
            Stage::Store { axes, param, index, value }
        }
    }
}

/// A program that is well formed as far as the text form asks: what it mentions exists.
fn program(random: &mut Random) -> TileProgram {
    let names = ["x", "", "a \"quoted\" one\\", "ünïcode\n\u{1}", "p1[a0] ; = "];
    let dims = [Dim::ONE, Dim::of(64), Dim::times(Sym::P, 16), Sym::T.into(), Dim::of(0)];
    let mut tile = TileProgram { name: random.pick(&names).into(), ..TileProgram::default() };
    for _ in 0..PARAMS {
        let shape: Vec<Dim> = (0..random.below(4)).map(|_| random.pick(&dims)).collect();
        let ty = Type::new(random.pick(&DType::ALL), shape);
        let access = random.pick(&[Access::Read, Access::Write, Access::ReadWrite]);
        let codes = |text| Layout::Codes(Codes::parse(text).unwrap());
        let layout = random.pick(&[
            Layout::Rows,
            Layout::Panels,
            Layout::Halves,
            codes("codes8x64"),
            codes("codes4x32z"),
            codes("codes4x32m"),
        ]);
        tile.params.push(TileParam { name: random.pick(&names).into(), ty, access, layout });
    }
    for _ in 0..AXES {
        tile.axes.push(Axis { name: random.pick(&names).into(), extent: random.pick(&dims) });
    }
    tile.grid = (0..random.below(4)).map(|_| AxisId(random.below(AXES) as u32)).collect();
    let exprs = 1 + random.below(8);
    for known in 0..exprs {
        let expr = expr(random, known);
        tile.exprs.push(expr);
    }
    tile.stages = (0..3 + random.below(2)).map(|_| stage(random, exprs)).collect();
    tile
}

#[test]
fn random_programs_are_read_back() {
    for seed in 0..3000 {
        let tile = program(&mut Random(seed));
        let text = tile.to_string();
        let read = TileProgram::parse(&text).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        assert_eq!(read, tile, "seed {seed}\n{text}");
    }
}

#[test]
fn random_changes_of_a_text_are_read_or_refused() {
    let pieces = [
        "a0",
        "p0[",
        "(",
        ")",
        "/0",
        "*",
        "9223372036854775807",
        "-",
        "e1",
        "s0",
        "\"",
        "\\u{110000}",
        ";",
        "%",
    ];
    let mut accepted = 0;
    for seed in 0..3000 {
        let random = &mut Random(seed);
        let mut text = program(random).to_string();
        let mut at = random.below(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.insert_str(at, random.pick(&pieces));
        if let Ok(tile) = TileProgram::parse(&text) {
            accepted += 1;
            assert_eq!(TileProgram::parse(&tile.to_string()).as_ref(), Ok(&tile), "seed {seed}\n{text}");
        }
    }
    assert!((10..2900).contains(&accepted), "{accepted} of 3000");
}

const PROGRAM: &str = r#"tile @contract0 {
  p0: f32[T, 64] read rows "x"
  p1: f32[32, 64] read panels "w"
  p2: f32[T, 32] write rows "v3"
  a0 = 0..T "t"
  a1 = 0..32 "n"
  a2 = 0..64 "k"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
  e0 = s0
  e1 = const 2.0
  e2 = max e0, e1
  s1 = store [] p2[a0, a1] = e2
}
"#;

#[test]
fn the_documented_program_is_printed_as_it_stands() {
    let tile = TileProgram::parse(PROGRAM).expect("the program parses");
    assert_eq!(tile.to_string(), PROGRAM);
    assert_eq!(verify_tile(&tile), []);
    let commented = PROGRAM.replace("  grid", "  ; the grid\n  grid").replace("e2\n", "e2 ; stored\n");
    assert_eq!(TileProgram::parse(&commented), Ok(tile));
}

#[test]
fn indices_are_sums() {
    let of = |text: &str| {
        let line = format!("s1 = store [] p2[{text}, a1] = e2");
        TileProgram::parse(&PROGRAM.replace("s1 = store [] p2[a0, a1] = e2", &line)).map(|tile| {
            let Stage::Store { index, .. } = &tile.stages[1] else { panic!("a store") };
            index[0].to_string()
        })
    };
    assert_eq!(of("a1 + 4*a0 - a1 + 3"), Ok("4*a0 + 3".into()));
    assert_eq!(of("2*(a0 + 1)"), Ok("2*a0 + 2".into()));
    assert_eq!(of("(a0+1)/16%4"), Ok("(a0 + 1)/16%4".into()));
    assert_eq!(of("-3*(a0/16) - 5"), Ok("-3*(a0/16) - 5".into()));
    assert_eq!(of("16*p0[a0, a1/16] + a1%16"), Ok("a1%16 + 16*p0[a0, a1/16]".into()));
    assert!(of("9223372036854775807 + a0 + 1").unwrap_err().reason.contains("64 bits"));
    assert!(of(&"(".repeat(100_000)).unwrap_err().reason.contains("deeply"));
    assert!(of(&format!("a0{}", "/2".repeat(100_000))).unwrap_err().reason.contains("deeply"));
}

#[test]
fn errors_name_the_line_and_what_was_wanted() {
    let cases = [
        (
            2,
            "p0: f32",
            "p0: f64",
            "wanted an element type, one of f32, bf16, f16, u32, bool, u8, i8, i32, f8e4m3, f8e5m2, f8e8m0, found \"f64",
        ),
        (3, "panels", "tiles", "wanted a layout, one of rows, panels, halves, found \"tiles"),
        (4, "write", "writes", "wanted an access, one of read, write, readwrite, found \"writes"),
        (4, "p2:", "p3:", "the next one is p2, found \"p3:"),
        (5, "0..T", "0..U", "wanted an extent such as 4 or 2T, found \"U"),
        (5, "\"t\"", "\"t", "wanted a closing quote, found \"t\""),
        (7, "a2 = ", "a2 : ", "wanted \"=\", found \": "),
        (9, "p1[a1, a2]", "p9[a1, a2]", "p9 is not defined here"),
        (9, "* p1", "p1", "wanted \"*\", found \"p1"),
        (9, "p0[a0, a2]", "p0[a0 a2]", "wanted \",\", found \"a2"),
        (9, "p0[a0, a2]", "p0[a0/0, a2]", "a division by zero"),
        (10, "e0 = s0", "e0 = s7", "there is no s7"),
        (10, "e0 = s0", "e0 = frob e1", "wanted an expression, found \"frob e1\""),
        (11, "const 2.0", "const two", "wanted a number, found \"two\""),
        (12, "max e0, e1", "max e0, e5", "e5 is not defined here"),
        (12, "max e0, e1", "max e0", "max takes 2 operands, found 1"),
        (13, "store", "keep", "wanted mma, reduce, online or store, found \"keep"),
        (13, "= e2", "= e2 e1", "the end of the line, found \"e1\""),
        (8, "grid", "gird", "wanted a parameter, an axis, the grid, an expression or a stage, found \"gird"),
    ];
    for (line, from, to, wanted) in cases {
        let text = PROGRAM.replacen(from, to, 1);
        assert_ne!(text, PROGRAM, "{from}");
        let error = TileProgram::parse(&text).expect_err(to);
        assert_eq!(error.line, line, "{to}: {error}");
        assert!(error.reason.starts_with(wanted), "{to}: {error}");
    }
}

#[test]
fn any_id_that_dangles_is_a_violation() {
    type Break = fn(&mut TileProgram);
    let breaks: [(&str, Break); 8] = [
        ("there is no e9", |tile| set_store(tile, ExprId(9))),
        ("uses a later expression", |tile| {
            tile.exprs[ExprId(0)] = Expr::Cast(DType::F32, ExprId(900));
        }),
        ("max has wrong operands", |tile| {
            tile.exprs[ExprId(2)] = Expr::Apply(ScalarOp::Max, vec![ExprId(2), ExprId(4_000_000_000)]);
        }),
        ("there is no s7", |tile| tile.exprs[ExprId(0)] = Expr::Stage(StageId(7))),
        ("is a store and has no result", |tile| tile.exprs[ExprId(0)] = Expr::Stage(StageId(1))),
        ("there is no axis a9", |tile| tile.grid.push(AxisId(9))),
        ("there is no axis a9", |tile| {
            let Stage::Mma { axis, .. } = &mut tile.stages[0] else { panic!("a product") };
            *axis = AxisId(9);
        }),
        ("s0 is a store and has no result", |tile| tile.stages.swap(0, 1)),
    ];
    for (wanted, change) in breaks {
        let mut tile = TileProgram::parse(PROGRAM).expect("the program parses");
        change(&mut tile);
        let found: Vec<String> = verify_tile(&tile).iter().map(ToString::to_string).collect();
        let said = found.iter().any(|rule| rule.contains(wanted));
        assert!(said, "{wanted}: {found:?}");
    }
}

fn set_store(tile: &mut TileProgram, root: ExprId) {
    let Stage::Store { value, .. } = &mut tile.stages[1] else { panic!("a store") };
    *value = root;
}
