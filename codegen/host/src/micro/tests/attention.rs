//! Scores and the online softmax: against f64, alone against together, masked against shorter.

use super::{Guarded, Random, bits, tables, wide};
use crate::micro::{Kernels, POSITIONS};

/// Vectors in both formats, each before a guard of its own.
struct Vectors {
    f32: Vec<Guarded<f32>>,
    bf16: Vec<Guarded<u16>>,
}

impl Vectors {
    fn new(n: usize, d: usize, random: &mut Random) -> Self {
        Vectors {
            f32: (0..n).map(|_| Guarded::new(&random.floats(d))).collect(),
            bf16: (0..n).map(|_| Guarded::new(&random.bf16(d))).collect(),
        }
    }

    fn rows(&self, bf16: bool) -> Guarded<*const u8> {
        let rows: Vec<_> = match bf16 {
            true => self.bf16.iter().map(Guarded::bytes).collect(),
            false => self.f32.iter().map(Guarded::bytes).collect(),
        };
        Guarded::new(&rows)
    }

    fn get(&self, bf16: bool, j: usize, i: usize) -> f64 {
        if bf16 { wide(self.bf16[j][i]) } else { f64::from(self.f32[j][i]) }
    }
}

/// Rows of scores: the last ends with its last position.
fn score_rows(rows: usize, n: usize) -> Guarded<f32> {
    Guarded::new(&vec![f32::NAN; (rows - 1) * POSITIONS + n])
}

/// The scores of `rows` queries `[rows][ldq]`.
fn scores(
    t: &Kernels,
    bf16: bool,
    q: &[f32],
    (ldq, rows): (usize, usize),
    keys: &Vectors,
    d: usize,
) -> Vec<Vec<f32>> {
    let (n, pointers) = (keys.f32.len(), keys.rows(bf16));
    let mut s = score_rows(rows, n);
    let f = if bf16 { t.scores_bf16 } else { t.scores_f32 };
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
        let keys = Vectors::new(n, d, &mut random);
        for bf16 in [false, true] {
            let all: Vec<_> =
                tables().into_iter().map(|t| scores(t, bf16, &q, (ldq, rows), &keys, d)).collect();
            for g in 0..rows {
                for j in 0..n {
                    let want: f64 = (0..d).map(|i| f64::from(q[g * ldq + i]) * keys.get(bf16, j, i)).sum();
                    let got = f64::from(all[0][g][j]);
                    assert!(
                        (got - want).abs() < 2e-6 * (d as f64).sqrt() + 1e-6,
                        "{rows} {n} {d}: {got} is not {want}"
                    );
                }
            }
            for (t, of) in tables().into_iter().zip(&all) {
                for g in 0..rows {
                    assert_eq!(bits(&of[g]), bits(&all[0][g]), "{} row {g}", t.isa);
                    let alone = scores(t, bf16, &q[g * ldq..], (ldq, 1), &keys, d);
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

/// A block of scores, `[rows]` of `n` each, taken into `state`; returns the probabilities.
fn online(
    t: &Kernels,
    bf16: bool,
    s: &[Vec<f32>],
    values: &Guarded<*const u8>,
    dv: usize,
    state: &mut State,
) -> Vec<Vec<f32>> {
    let (rows, n) = (s.len(), s[0].len());
    let mut p = score_rows(rows, n);
    for (g, row) in s.iter().enumerate() {
        p[g * POSITIONS..][..n].copy_from_slice(row);
    }
    let (mut m, mut l, mut acc) = (Guarded::new(&state.m), Guarded::new(&state.l), Guarded::new(&state.acc));
    let f = if bf16 { t.online_bf16 } else { t.online_f32 };
    // SAFETY: the scores, values and sums are as many as said.
    unsafe {
        f(p.as_mut_ptr(), rows, n, values.as_ptr(), dv, m.as_mut_ptr(), l.as_mut_ptr(), acc.as_mut_ptr())
    };
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
        let blocks: Vec<_> =
            (0..3).map(|_| (masked_scores(rows, n, &mut random), Vectors::new(n, dv, &mut random))).collect();
        for bf16 in [false, true] {
            let mut first = None;
            for t in tables() {
                let mut state = State::new(rows, dv);
                for (s, values) in &blocks {
                    online(t, bf16, s, &values.rows(bf16), dv, &mut state);
                }
                let want = first.get_or_insert_with(|| state.bits());
                assert_eq!(*want, state.bits(), "{} {rows} {n} {dv}", t.isa);
                for g in 0..rows {
                    check_row(&blocks, bf16, g, &state.row(g, dv));
                }
            }
        }
    }
}

/// Row `g` against f64.
fn check_row(blocks: &[(Vec<Vec<f32>>, Vectors)], bf16: bool, g: usize, got: &State) {
    let scores = || blocks.iter().flat_map(|(s, _)| s[g].iter().map(|&x| f64::from(x)));
    let m = scores().fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(f64::from(got.m[0]), m, "maximum of row {g}");
    if m == f64::NEG_INFINITY {
        assert_eq!(bits(&got.acc), vec![0; got.acc.len()]);
        return;
    }
    let l: f64 = scores().map(|x| (x - m).exp()).sum();
    assert!((f64::from(got.l[0]) - l).abs() < 1e-5 * l, "sum of row {g}: {} is not {l}", got.l[0]);
    for (i, &x) in got.acc.iter().enumerate() {
        let of = |(s, v): &(Vec<Vec<f32>>, Vectors)| -> f64 {
            s[g].iter().enumerate().map(|(j, &x)| (f64::from(x) - m).exp() * v.get(bf16, j, i)).sum()
        };
        let want: f64 = blocks.iter().map(of).sum();
        assert!((f64::from(x) - want).abs() < 1e-5 * l, "element {i} of row {g}: {x} is not {want}");
    }
}

#[test]
fn a_row_alone_gets_what_it_gets_together() {
    let mut random = Random::new(8);
    for (rows, n, dv) in [(8, 64, 64), (7, 40, 50), (13, 64, 32), (2, 5, 128)] {
        let s = masked_scores(rows, n, &mut random);
        let values = Vectors::new(n, dv, &mut random);
        for bf16 in [false, true] {
            let pointers = values.rows(bf16);
            for t in tables() {
                let mut all = State::new(rows, dv);
                let p = online(t, bf16, &s, &pointers, dv, &mut all);
                for g in 0..rows {
                    let mut one = State::new(1, dv);
                    let alone = online(t, bf16, &s[g..=g], &pointers, dv, &mut one);
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
        let values = Vectors::new(n, dv, &mut random);
        let s: Vec<Vec<f32>> = (0..rows).map(|_| random.floats(n)).collect();
        let nan = (Guarded::new(&vec![f32::NAN; dv]), Guarded::new(&vec![0x7fc0_u16; dv]));
        for bf16 in [false, true] {
            let short = values.rows(bf16);
            let filler = if bf16 { nan.1.bytes() } else { nan.0.bytes() };
            let long: Vec<_> =
                short.iter().copied().chain(std::iter::repeat(filler)).take(POSITIONS).collect();
            let full = |row: &Vec<f32>| {
                row.iter().copied().chain(std::iter::repeat(f32::NEG_INFINITY)).take(POSITIONS).collect()
            };
            let long_s: Vec<Vec<f32>> = s.iter().map(full).collect();
            for t in tables() {
                let (mut a, mut b) = (State::new(rows, dv), State::new(rows, dv));
                let p = online(t, bf16, &s, &short, dv, &mut a);
                let q = online(t, bf16, &long_s, &Guarded::new(&long), dv, &mut b);
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
    let values = Vectors::new(n, dv, &mut random).rows(false);
    let s: Vec<Vec<f32>> = (0..rows).map(|_| random.floats(n)).collect();
    let none = vec![vec![f32::NEG_INFINITY; n]; rows];
    for t in tables() {
        let mut state = State::new(rows, dv);
        for s in [&none, &s, &none] {
            let before = state.clone();
            let p = online(t, false, s, &values, dv, &mut state);
            if *s == none {
                assert_eq!(state.bits(), before.bits(), "{}", t.isa);
                assert!(p.iter().flatten().all(|x| x.to_bits() == 0));
            }
        }
        // A row of -0 must stay -0.
        let mut state = State { m: vec![0.0; rows], l: vec![-0.0; rows], acc: vec![-0.0; rows * dv] };
        let before = state.clone();
        online(t, false, &none, &values, dv, &mut state);
        assert_eq!(state.bits(), before.bits(), "{}", t.isa);
    }
}
