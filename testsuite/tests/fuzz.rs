//! Mutated inputs: none panics, none takes a second, and what is accepted keeps its promises. `SINTER_FUZZ_CASES` says how
//! many, `SINTER_FUZZ_SEED` where to begin, so one reported case can be run alone.

use sinter_testsuite::fuzz::{Case, Corpus};
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

const CASES: u64 = 60_000;
const SLOWEST: Duration = Duration::from_secs(1);
/// Failures that are shown.
const SHOWN: usize = 5;

fn setting(name: &str, absent: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(absent, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, found {text:?}")))
}

fn shown(seed: u64, case: &Case, reason: &str) -> String {
    let mut text: String = String::from_utf8_lossy(&case.bytes).escape_debug().take(2000).collect();
    if case.bytes.len() > 2000 {
        text.push('…');
    }
    format!("seed {seed}: {reason}\n{:?}\n{text}", case.door)
}

#[test]
fn strangers_break_nothing() {
    let (cases, first) = (setting("SINTER_FUZZ_CASES", CASES), setting("SINTER_FUZZ_SEED", 0));
    let corpus = Corpus::goldens().expect("the goldens are there");
    let (mut accepted, mut slowest, mut slowest_seed) = (0u64, Duration::ZERO, first);
    let mut failures = Vec::new();
    for seed in first..first.saturating_add(cases) {
        let case = corpus.case(seed);
        let start = Instant::now();
        let verdict = catch_unwind(|| case.run()).unwrap_or_else(|_| Err("it panics".into()));
        let time = start.elapsed();
        accepted += u64::from(verdict == Ok(true));
        if time > slowest {
            (slowest, slowest_seed) = (time, seed);
        }
        if let Err(reason) = verdict {
            failures.push(shown(seed, &case, &reason));
        } else if time >= SLOWEST {
            failures.push(shown(seed, &case, &format!("it takes {time:?}")));
        }
        if failures.len() >= SHOWN {
            break;
        }
    }
    println!(
        "{cases} cases, {accepted} accepted, {} refused, slowest {:.2} ms (seed {slowest_seed})",
        cases - accepted,
        slowest.as_secs_f64() * 1e3
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    // Mutations that are all refused at the first byte would test nothing.
    assert!(cases < 1000 || accepted * 50 > cases, "only {accepted} of {cases} cases are accepted");
}

#[test]
fn a_seed_gives_one_case() {
    let corpus = Corpus::goldens().expect("the goldens are there");
    for seed in 0..200 {
        let (once, again) = (corpus.case(seed), corpus.case(seed));
        assert_eq!((once.door, once.bytes), (again.door, again.bytes), "seed {seed}");
    }
}
