//! The elementary functions: error against f64, edges, and agreement of every form.

use std::arch::x86_64::__m128;

use super::{Guarded, Random, bits, tables};
use crate::micro::{Kernels, Map4Fn, MapFn};

/// A function: its name, its two forms in a table, and f64.
type Function = (&'static str, fn(&Kernels) -> (MapFn, Map4Fn), fn(f64) -> f64);

const FUNCTIONS: [Function; 6] = [
    ("exp", |t| (t.exp, t.exp4), f64::exp),
    ("log", |t| (t.log, t.log4), f64::ln),
    ("tanh", |t| (t.tanh, t.tanh4), f64::tanh),
    ("erf", |t| (t.erf, t.erf4), erf),
    ("sin", |t| (t.sin, t.sin4), f64::sin),
    ("cos", |t| (t.cos, t.cos4), f64::cos),
];

/// `2/sqrt(pi) e^(-x^2) sum of 2^n x^(2n+1) / (1 3 ... (2n+1))`: all terms of one sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
}

/// The strip of a function, in place where `in_place`.
fn strip(f: MapFn, x: &[f32], in_place: bool) -> Vec<f32> {
    let mut y = Guarded::new(x);
    let x = Guarded::new(x);
    // SAFETY: both have the same length.
    unsafe { f(if in_place { y.as_ptr() } else { x.as_ptr() }, y.as_mut_ptr(), x.len()) };
    y.to_vec()
}

/// The four-lane form over a strip that is a multiple of four long.
fn fours(f: Map4Fn, x: &[f32]) -> Vec<f32> {
    let four = |x: &[f32]| {
        let x = [x[0], x[1], x[2], x[3]];
        // SAFETY: a register is four f32, and the table is of this machine.
        unsafe {
            let x = std::mem::transmute::<[f32; 4], __m128>(x);
            std::mem::transmute::<__m128, [f32; 4]>(f(x))
        }
    };
    x.chunks(4).flat_map(four).collect()
}

/// Arguments: edges, every exponent, and dense where the results are interesting.
fn arguments() -> Vec<f32> {
    let mut x = vec![
        0.0,
        f32::INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        0.625,
        0.927_734_4,
    ];
    x.extend([
        1.0, 88.722_8, 88.722_9, 88.73, 89.5, 103.97, 103.98, 104.0, 1e10, 87.336_5, 87.34, 0.5, 10.0, 4.0,
    ]);
    let mut random = Random::new(3);
    for exponent in 0..255_u32 {
        x.extend((0..8).map(|_| f32::from_bits(exponent << 23 | (random.next() >> 41) as u32)));
    }
    x.extend((0..12_000).map(|i| i as f32 * (110.0 / 12_000.0)));
    x.extend((0..8_000).map(|i| i as f32 * (5.0 / 8_000.0)));
    let negative: Vec<f32> = x.iter().map(|x| -x).collect();
    x.extend(negative);
    x.resize(x.len().next_multiple_of(16) + 4, 0.25);
    x
}

/// The distance of `got` from `want` in units of the last place of `want`, subnormals included.
fn ulps(got: f32, want: f64) -> f64 {
    let exponent = want.abs().log2().floor().max(-126.0) as i32;
    (f64::from(got) - want).abs() / 2f64.powi(exponent - 23)
}

#[test]
fn errors_are_within_the_promise() {
    let x = arguments();
    let t = tables()[0];
    for (name, of, exact) in FUNCTIONS {
        let y = strip(of(t).0, &x, false);
        let (mut worst, mut at) = (0.0, 0.0);
        for (&x, &y) in x.iter().zip(&y) {
            let want = exact(f64::from(x));
            if want.is_nan() {
                assert!(y.is_nan(), "{name}({x}) is {y} and not NaN");
                continue;
            }
            let rounded = want as f32;
            if rounded.is_infinite() || rounded == 0.0 {
                assert_eq!(y, rounded, "{name}({x})");
                continue;
            }
            let error = match name {
                "tanh" | "erf" => (f64::from(y) - want).abs(),
                _ => ulps(y, want),
            };
            if error > worst {
                (worst, at) = (error, x);
            }
        }
        println!("{name}: {worst:.3e} at {at:e}");
        let bound = if name == "tanh" || name == "erf" { 4e-7 } else { 2.0 };
        assert!(worst <= bound, "{name}({at:e}) is off by {worst}");
    }
}

#[test]
fn edges_are_exact() {
    let inf = f32::INFINITY;
    let cases: [(&str, &[(f32, f32)]); 4] = [
        (
            "exp",
            &[(0.0, 1.0), (-0.0, 1.0), (-inf, 0.0), (inf, inf), (-200.0, 0.0), (200.0, inf), (f32::MIN, 0.0)],
        ),
        ("log", &[(1.0, 0.0), (0.0, -inf), (-0.0, -inf), (inf, inf), (-1.0, f32::NAN), (-inf, f32::NAN)]),
        ("tanh", &[(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (20.0, 1.0), (f32::MIN, -1.0)]),
        ("erf", &[(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (5.0, 1.0), (f32::MIN, -1.0)]),
    ];
    for t in tables() {
        for (name, pairs) in cases {
            let f = FUNCTIONS.iter().find(|f| f.0 == name).expect("a known function").1(t).0;
            for &(x, want) in pairs.iter().chain(&[(f32::NAN, f32::NAN)]) {
                assert_eq!(bits(&strip(f, &[x], false)), bits(&[want]), "{} {name}({x})", t.isa);
            }
        }
    }
}

#[test]
fn every_form_gives_the_same_bits() {
    let x = arguments();
    for (name, of, _) in FUNCTIONS {
        let want = bits(&strip(of(tables()[0]).0, &x, false));
        for t in tables() {
            let (whole, four) = of(t);
            assert!(bits(&strip(whole, &x, false)) == want, "{} {name}", t.isa);
            assert!(bits(&strip(whole, &x, true)) == want, "{} {name} in place", t.isa);
            assert!(bits(&fours(four, &x)) == want, "{} {name}4", t.isa);
            for n in 0..40 {
                assert!(bits(&strip(whole, &x[..n], false)) == want[..n], "{} {name} of {n}", t.isa);
            }
        }
    }
}
