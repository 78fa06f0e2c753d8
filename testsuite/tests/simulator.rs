//! The scheduler under ten thousand seeds.

use sinter_runtime::engine::SchedulerConfig;
use sinter_testsuite::simulator::{Client, Drafts, Moment, Trace, World, run, run_world};
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

/// Clients that all come at once.
fn crowd(count: usize, prompt: &[u32], answer: usize) -> Vec<Client> {
    let client = Client {
        arrives: 0,
        prompt: prompt.to_vec(),
        answer,
        priority: 0,
        salt: Vec::new(),
        all_rows: false,
        leaves: None,
        fails_at: None,
        drafts: Drafts::None,
    };
    vec![client; count]
}

fn config(pages: usize, max_sequences: usize, max_tokens: usize) -> SchedulerConfig {
    SchedulerConfig {
        max_tokens,
        max_sequences,
        max_rows: max_sequences,
        pages,
        max_positions: 160,
        patience: 8,
        prefix_cache: true,
    }
}

fn settled(world: World) -> Trace {
    run_world(world).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn a_thousand_equal_prefixes_are_computed_once() {
    let prompt: Vec<u32> = (0..50).map(|at| at % 4).collect();
    let clients = crowd(1000, &prompt, 3);
    let trace = settled(World { config: config(1100, 1000, 4096), vocab: 4, clients });
    // The first computes 50 tokens; the others the two after the last full page; and each two of its answer.
    assert_eq!((trace.computed, trace.hits), (50 + 999 * 2 + 1000 * 2, 999 * 48));
    assert_eq!(trace.preemptions, 0);
}

#[test]
fn two_pages_serve_everyone_in_turn() {
    for max_sequences in [1, 2, 5] {
        let clients = crowd(12, &[1, 2, 3], 29);
        let trace = settled(World { config: config(2, max_sequences, 16), vocab: 3, clients });
        assert_eq!(trace.left, 0);
    }
}

#[test]
fn a_storm_of_clients_on_few_pages_ends() {
    let mut clients = crowd(40, &[1, 2, 3], 60);
    clients.iter_mut().enumerate().for_each(|(at, client)| client.prompt.push(at as u32 % 4));
    let trace = settled(World { config: config(8, 6, 24), vocab: 4, clients });
    assert!(trace.preemptions > 20, "{} were put back", trace.preemptions);
    // Being put back costs less than computing everything twice.
    assert!(trace.computed < 2 * 40 * 64, "{} tokens were computed", trace.computed);
}

#[test]
fn a_client_may_leave_at_any_moment() {
    let prompt: Vec<u32> = (0..60).map(|at| at % 3).collect();
    for step in 0..50 {
        for moment in [Moment::BeforePlan, Moment::BeforeCommit] {
            for who in 0..3 {
                let mut clients = crowd(3, &prompt, 20);
                clients[who].leaves = Some((step, moment));
                clients[(who + 1) % 3].drafts = Drafts::Mixed(4);
                let trace = settled(World { config: config(11, 2, 13), vocab: 3, clients });
                assert!(trace.left <= 1);
            }
        }
    }
}
