//! Scores and the online softmax: against f64, alone against together, masked against shorter.

use super::{Guarded, Random, bits, tables, wide};
use crate::micro::{Kernels, POSITIONS};
use sinter_ir::Float8;

/// How vectors are stored.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Format {
    F32,
    Bf16,
    I8,
    I4,
    E4m3,
}

/// Whether vectors of so many elements can have a format.
fn fits(format: &Format, d: usize) -> bool {
    *format != Format::I4 || d.is_multiple_of(2)
}

const FORMATS: [Format; 5] = [Format::F32, Format::Bf16, Format::I8, Format::I4, Format::E4m3];

impl Format {
    /// A vector's bytes before a guard, and its numbers.
    fn vector(self, d: usize, random: &mut Random) -> (Guarded<u8>, Vec<f64>) {
        let (bytes, numbers): (Vec<u8>, Vec<f64>) = match self {
            Format::F32 => {
                let x = random.floats(d);
                (x.iter().flat_map(|x| x.to_le_bytes()).collect(), x.into_iter().map(f64::from).collect())
            }
            Format::Bf16 => {
                let x = random.bf16(d);
                (x.iter().flat_map(|x| x.to_le_bytes()).collect(), x.into_iter().map(wide).collect())
            }
            Format::I8 => {
                let x: Vec<u8> = (0..d).map(|_| random.range(0, 255) as u8).collect();
                let numbers = x.iter().map(|x| f64::from(*x as i8)).collect();
                (x, numbers)
            }
            Format::I4 => {
                // The upper half of the last byte of an odd vector is nobody's; a vector has an even number.
                let x: Vec<u8> = (0..d / 2).map(|_| random.range(0, 255) as u8).collect();
                let numbers = x.iter().flat_map(|x| [x & 15, x >> 4]).map(|x| f64::from(x) - 8.0).collect();
                (x, numbers)
            }
            Format::E4m3 => {
                let code = |_| [random.range(0, 126), random.range(128, 254)][random.range(0, 1)] as u8;
                let x: Vec<u8> = (0..d).map(code).collect();
                let numbers = x.iter().map(|x| f64::from(Float8::E4m3.decode(*x))).collect();
                (x, numbers)
            }
        };
        (Guarded::new(&bytes), numbers)
    }

    /// The greatest magnitude.
    fn most(self) -> f64 {
        match self {
            Format::F32 | Format::Bf16 => 1.0,
            Format::I8 => 128.0,
            Format::I4 => 8.0,
            Format::E4m3 => 448.0,
        }
    }

    /// A vector that no kernel should look at: of numbers that are none, where the format has such.
    fn garbage(self, d: usize) -> Guarded<u8> {
        Guarded::new(&match self {
            Format::F32 => f32::NAN.to_le_bytes().repeat(d),
            Format::Bf16 => 0x7fc0_u16.to_le_bytes().repeat(d),
            Format::I8 | Format::E4m3 => vec![0x7f; d],
            Format::I4 => vec![0; d / 2],
        })
    }
}

/// Vectors of a format, each before a guard of its own.
struct Vectors {
    format: Format,
    bytes: Vec<Guarded<u8>>,
    numbers: Vec<Vec<f64>>,
}

impl Vectors {
    fn new(format: Format, n: usize, d: usize, random: &mut Random) -> Self {
        let (bytes, numbers) = (0..n).map(|_| format.vector(d, random)).unzip();
        Vectors { format, bytes, numbers }
    }

    fn rows(&self) -> Guarded<*const u8> {
        Guarded::new(&self.bytes.iter().map(Guarded::bytes).collect::<Vec<_>>())
    }

    fn get(&self, j: usize, i: usize) -> f64 {
        self.numbers[j][i]
    }
}

/// Rows of scores: the last ends with its last position.
fn score_rows(rows: usize, n: usize) -> Guarded<f32> {
    Guarded::new(&vec![f32::NAN; (rows - 1) * POSITIONS + n])
}

/// The scores of `rows` queries `[rows][ldq]`.
fn scores(t: &Kernels, q: &[f32], (ldq, rows): (usize, usize), keys: &Vectors, d: usize) -> Vec<Vec<f32>> {
    let (n, pointers) = (keys.bytes.len(), keys.rows());
    let mut s = score_rows(rows, n);
    let f = match keys.format {
        Format::F32 => t.scores_f32,
        Format::Bf16 => t.scores_bf16,
        Format::I8 => t.scores_i8,
        Format::I4 => t.scores_i4,
        Format::E4m3 => t.scores_e4m3,
    };
    // SAFETY: the queries, keys and scores are as many as said.
    unsafe { f(q.as_ptr(), ldq, rows, pointers.as_ptr(), n, d, s.as_mut_ptr()) };
    for (i, x) in s.iter().enumerate().filter(|(i, _)| i % POSITIONS >= n) {
        assert!(x.is_nan(), "score {i} past the block was written");
    }
    s.chunks(POSITIONS).map(|row| row[..n].to_vec()).collect()
}

#[test]
fn scores_are_close_to_f64_and_the_same_everywhere() {
    let mut random = Random::new(6);
    for (rows, n, d) in
        [(1, 1, 1), (1, 64, 64), (2, 7, 16), (3, 33, 80), (8, 64, 128), (5, 16, 5), (4, 63, 257), (9, 8, 100)]
    {
        let ldq = d + random.range(0, 3);
        let q = Guarded::new(&random.floats(rows * ldq)[..rows * ldq - (ldq - d)]);
        for format in FORMATS.into_iter().filter(|format| fits(format, d)) {
            let keys = Vectors::new(format, n, d, &mut random);
            let all: Vec<_> = tables().into_iter().map(|t| scores(t, &q, (ldq, rows), &keys, d)).collect();
            for g in 0..rows {
                for j in 0..n {
                    let want: f64 = (0..d).map(|i| f64::from(q[g * ldq + i]) * keys.get(j, i)).sum();
                    let got = f64::from(all[0][g][j]);
                    assert!(
                        (got - want).abs() < format.most() * (2e-6 * (d as f64).sqrt() + 1e-6),
                        "{rows} {n} {d}: {got} is not {want}"
                    );
                }
            }
            for (t, of) in tables().into_iter().zip(&all) {
                for g in 0..rows {
                    assert_eq!(bits(&of[g]), bits(&all[0][g]), "{} row {g}", t.isa);
                    let alone = scores(t, &q[g * ldq..], (ldq, 1), &keys, d);
                    assert_eq!(bits(&of[g]), bits(&alone[0]), "{} row {g} alone", t.isa);
                }
            }
        }
    }
}

/// The running sums of some rows.
#[derive(Clone, PartialEq, Debug)]
struct State {
    m: Vec<f32>,
    l: Vec<f32>,
    acc: Vec<f32>,
}

impl State {
    fn new(rows: usize, dv: usize) -> Self {
        State { m: vec![f32::NEG_INFINITY; rows], l: vec![0.0; rows], acc: vec![0.0; rows * dv] }
    }

    fn row(&self, g: usize, dv: usize) -> Self {
        State { m: vec![self.m[g]], l: vec![self.l[g]], acc: self.acc[g * dv..(g + 1) * dv].to_vec() }
    }

    fn bits(&self) -> [Vec<u32>; 3] {
        [bits(&self.m), bits(&self.l), bits(&self.acc)]
    }
}

/// The values of a block as a kernel gets them.
struct Values<'a> {
    format: Format,
    rows: Guarded<*const u8>,
    factors: Option<&'a Guarded<f32>>,
}

impl<'a> Values<'a> {
    fn of(vectors: &'a Vectors, factors: Option<&'a Guarded<f32>>) -> Self {
        Values { format: vectors.format, rows: vectors.rows(), factors }
    }
}

/// A block of scores, `[rows]` of `n` each, taken into `state`; returns the weights of the values.
fn online(t: &Kernels, s: &[Vec<f32>], values: &Values<'_>, dv: usize, state: &mut State) -> Vec<Vec<f32>> {
    let (rows, n) = (s.len(), s[0].len());
    let mut p = score_rows(rows, n);
    for (g, row) in s.iter().enumerate() {
        p[g * POSITIONS..][..n].copy_from_slice(row);
    }
    let (mut m, mut l, mut acc) = (Guarded::new(&state.m), Guarded::new(&state.l), Guarded::new(&state.acc));
    let f = match values.format {
        Format::F32 => t.online_f32,
        Format::Bf16 => t.online_bf16,
        Format::I8 => t.online_i8,
        Format::I4 => t.online_i4,
        Format::E4m3 => t.online_e4m3,
    };
    let factors = values.factors.map_or(std::ptr::null(), |factors| factors.as_ptr());
    let (values, m_to, l_to) = (values.rows.as_ptr(), m.as_mut_ptr(), l.as_mut_ptr());
    // SAFETY: the scores, values, sums and factors are as many as said.
    unsafe { f(p.as_mut_ptr(), rows, n, values, dv, m_to, l_to, acc.as_mut_ptr(), factors) };
    *state = State { m: m.to_vec(), l: l.to_vec(), acc: acc.to_vec() };
    p.chunks(POSITIONS).map(|row| row[..n].to_vec()).collect()
}

/// Scores in [-8, 8), some of them -inf: the tail of each row as under a causal mask, and a few holes.
fn masked_scores(rows: usize, n: usize, random: &mut Random) -> Vec<Vec<f32>> {
    let mut row = |_| {
        let end = random.range(0, n + 2);
        let hole = random.range(0, 3 * n);
        (0..n).map(|j| if j >= end || j == hole { f32::NEG_INFINITY } else { 8.0 * random.unit() }).collect()
    };
    (0..rows).map(&mut row).collect()
}

#[test]
fn the_online_softmax_is_the_softmax() {
    let mut random = Random::new(7);
    for (rows, n, dv) in
        [(1, 64, 64), (2, 9, 16), (3, 17, 100), (8, 64, 128), (5, 3, 7), (4, 64, 80), (7, 31, 256)]
    {
        let formats = FORMATS.into_iter().filter(|format| fits(format, dv));
        for (format, factors) in formats.flat_map(|format| [(format, false), (format, true)]) {
            let mut block = |_| Block {
                scores: masked_scores(rows, n, &mut random),
                values: Vectors::new(format, n, dv, &mut random),
                factors: factors.then(|| Guarded::new(&random.floats(n))),
            };
            let blocks: Vec<_> = (0..3).map(&mut block).collect();
            let mut first = None;
            for t in tables() {
                let mut state = State::new(rows, dv);
                for Block { scores, values, factors } in &blocks {
                    online(t, scores, &Values::of(values, factors.as_ref()), dv, &mut state);
                }
                let want = first.get_or_insert_with(|| state.bits());
                assert_eq!(*want, state.bits(), "{} {rows} {n} {dv}", t.isa);
                for g in 0..rows {
                    check_row(&blocks, g, &state.row(g, dv));
                }
            }
        }
    }
}

/// What an online softmax takes at a time.
struct Block {
    scores: Vec<Vec<f32>>,
    values: Vectors,
    factors: Option<Guarded<f32>>,
}

/// Row `g` against f64.
fn check_row(blocks: &[Block], g: usize, got: &State) {
    let scores = || blocks.iter().flat_map(|block| block.scores[g].iter().map(|&x| f64::from(x)));
    let m = scores().fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(f64::from(got.m[0]), m, "maximum of row {g}");
    if m == f64::NEG_INFINITY {
        assert_eq!(bits(&got.acc), vec![0; got.acc.len()]);
        return;
    }
    let l: f64 = scores().map(|x| (x - m).exp()).sum();
    assert!((f64::from(got.l[0]) - l).abs() < 1e-5 * l, "sum of row {g}: {} is not {l}", got.l[0]);
    for (i, &x) in got.acc.iter().enumerate() {
        let of = |Block { scores, values, factors }: &Block| -> f64 {
            let factor = |j: usize| factors.as_ref().map_or(1.0, |factors| f64::from(factors[j]));
            let weights = scores[g].iter().map(|&x| (f64::from(x) - m).exp()).enumerate();
            weights.map(|(j, weight)| weight * factor(j) * values.get(j, i)).sum()
        };
        let (want, most) = (blocks.iter().map(of).sum::<f64>(), blocks[0].values.format.most());
        assert!((f64::from(x) - want).abs() < 1e-5 * l * most, "element {i} of row {g}: {x} is not {want}");
    }
}

#[test]
fn a_row_alone_gets_what_it_gets_together() {
    let mut random = Random::new(8);
    for (rows, n, dv) in [(8, 64, 64), (7, 40, 50), (13, 64, 32), (2, 5, 128)] {
        let s = masked_scores(rows, n, &mut random);
        let factors = Guarded::new(&random.floats(n));
        for format in FORMATS {
            let vectors = Vectors::new(format, n, dv, &mut random);
            let values = Values::of(&vectors, (format != Format::Bf16).then_some(&factors));
            for t in tables() {
                let mut all = State::new(rows, dv);
                let p = online(t, &s, &values, dv, &mut all);
                for g in 0..rows {
                    let mut one = State::new(1, dv);
                    let alone = online(t, &s[g..=g], &values, dv, &mut one);
                    assert_eq!(one.bits(), all.row(g, dv).bits(), "{} row {g}", t.isa);
                    assert_eq!(bits(&alone[0]), bits(&p[g]), "{} row {g}", t.isa);
                }
            }
        }
    }
}

#[test]
fn masked_positions_are_not_there() {
    // Sixty-four positions whose tail and holes are -inf, with values of NaN behind them, against the rest alone.
    let mut random = Random::new(9);
    let (dv, rows) = (70, 5);
    for n in [1, 15, 16, 17, 63] {
        let s: Vec<Vec<f32>> = (0..rows).map(|_| random.floats(n)).collect();
        for format in FORMATS {
            let vectors = Vectors::new(format, n, dv, &mut random);
            let (short, filler) = (Values::of(&vectors, None), format.garbage(dv));
            let long = short.rows.iter().copied().chain(std::iter::repeat(filler.bytes())).take(POSITIONS);
            let long = Values { rows: Guarded::new(&long.collect::<Vec<_>>()), ..Values::of(&vectors, None) };
            let full = |row: &Vec<f32>| {
                row.iter().copied().chain(std::iter::repeat(f32::NEG_INFINITY)).take(POSITIONS).collect()
            };
            let long_s: Vec<Vec<f32>> = s.iter().map(full).collect();
            for t in tables() {
                let (mut a, mut b) = (State::new(rows, dv), State::new(rows, dv));
                let p = online(t, &s, &short, dv, &mut a);
                let q = online(t, &long_s, &long, dv, &mut b);
                assert_eq!(a.bits(), b.bits(), "{} {n}", t.isa);
                for g in 0..rows {
                    assert_eq!(bits(&p[g]), bits(&q[g][..n]));
                    assert_eq!(bits(&q[g][n..]), vec![0; POSITIONS - n], "masked probabilities are +0");
                }
                assert!(b.acc.iter().all(|x| x.is_finite()));
            }
        }
    }
}

#[test]
fn a_block_of_nothing_but_masked_positions_changes_nothing() {
    let mut random = Random::new(10);
    let (rows, n, dv) = (6, 20, 33);
    let vectors = Vectors::new(Format::F32, n, dv, &mut random);
    let values = Values::of(&vectors, None);
    let s: Vec<Vec<f32>> = (0..rows).map(|_| random.floats(n)).collect();
    let none = vec![vec![f32::NEG_INFINITY; n]; rows];
    for t in tables() {
        let mut state = State::new(rows, dv);
        for s in [&none, &s, &none] {
            let before = state.clone();
            let p = online(t, s, &values, dv, &mut state);
            if *s == none {
                assert_eq!(state.bits(), before.bits(), "{}", t.isa);
                assert!(p.iter().flatten().all(|x| x.to_bits() == 0));
            }
        }
        // A row of -0 must stay -0.
        let mut state = State { m: vec![0.0; rows], l: vec![-0.0; rows], acc: vec![-0.0; rows * dv] };
        let before = state.clone();
        online(t, &none, &values, dv, &mut state);
        assert_eq!(state.bits(), before.bits(), "{}", t.isa);
    }
}

#[test]
fn every_byte_is_the_number_that_it_stands_for() {
    let bytes: Vec<u8> = (0..=255).collect();
    let keys: Vec<Guarded<u8>> = bytes.chunks(1).map(Guarded::new).collect();
    let unit = Guarded::new(&[1.0f32]);
    for t in tables() {
        for (f, number) in [
            (t.scores_i8, (|byte| f32::from(byte as i8)) as fn(u8) -> f32),
            (t.scores_e4m3, |byte| Float8::E4m3.decode(byte)),
        ] {
            for group in keys.chunks(POSITIONS) {
                let rows = Guarded::new(&group.iter().map(Guarded::bytes).collect::<Vec<_>>());
                let mut s = score_rows(1, group.len());
                // SAFETY: a query and keys of one element each.
                unsafe { f(unit.as_ptr(), 1, 1, rows.as_ptr(), group.len(), 1, s.as_mut_ptr()) };
                let wanted: Vec<f32> = group.iter().map(|byte| number(byte[0]) + 0.0).collect();
                assert_eq!(bits(&s), bits(&wanted), "{}", t.isa);
            }
        }
    }
}
