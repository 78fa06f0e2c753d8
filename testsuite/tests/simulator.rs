//! The scheduler under ten thousand seeds.

use sinter_testsuite::simulator::{Trace, run};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number from the environment, for longer runs and replays.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// `SINTER_SIM_SEEDS` seeds from `SINTER_SIM_FIRST` on.
#[test]
fn nothing_breaks_under_ten_thousand_seeds() {
    let (first, count) = (number("SINTER_SIM_FIRST", 0), number("SINTER_SIM_SEEDS", 10_000));
    let next = AtomicU64::new(0);
    let work = || {
        let mut sum = Trace::default();
        while let seed = next.fetch_add(1, Relaxed)
            && seed < count
        {
            let trace = run(first + seed).unwrap_or_else(|failure| panic!("{failure}"));
            sum.steps += trace.steps;
            sum.computed += trace.computed;
            sum.preemptions += trace.preemptions;
            sum.hits += trace.hits;
            sum.accepted += trace.accepted;
            sum.left += trace.left;
        }
        sum
    };
    let sums = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("no failure")).collect::<Vec<_>>()
    });
    println!("{sums:?}");
    // Worlds in which nothing happens would prove nothing.
    let total = |what: fn(&Trace) -> u64| sums.iter().map(what).sum::<u64>();
    for happened in [total(|t| t.preemptions), total(|t| t.hits), total(|t| t.accepted), total(|t| t.left)] {
        assert!(count < 100 || happened >= count / 10, "{happened} in {count} seeds");
    }
}

#[test]
fn a_seed_replays_to_the_last_decision() {
    let hashes: Vec<u64> = (0..50).map(|seed| run(seed).expect("no failure").hash).collect();
    assert_eq!(hashes, (0..50).map(|seed| run(seed).expect("no failure").hash).collect::<Vec<_>>());
    let mut distinct = hashes.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > 45);
}
