//! Random graphs: what the host and the virtual GPU compute is what the graph says, within bounds that follow from the
//! operations alone. `SINTER_FUZZ_CASES` says how many, `SINTER_FUZZ_SEED` where to begin. An ordinary run compiles each graph
//! for one of three targets; a run of a number that was asked for, each for all.

use sinter_gpu_tests::agree::{Case, Distance};
use sinter_gpu_tests::graphs::Recipe;
use sinter_gpu_tests::pieces;
use sinter_ir::{DType, Target};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Graphs in an ordinary run: 300 are checked even if as many as are allowed say nothing.
const CASES: u64 = 380;
const TARGETS: [Target; 3] = [Target::Sm80, Target::Sm89, Target::Sm90a];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// The targets for a graph.
fn targets(seed: u64) -> &'static [Target] {
    match setting("SINTER_FUZZ_CASES") {
        Some(_) => &TARGETS,
        None => &TARGETS[seed as usize % TARGETS.len()..][..1],
    }
}

/// What is wrong with a recipe; none if its choices are too close or its bounds too loose to say anything.
fn check(recipe: &Recipe) -> Result<Option<Distance>, String> {
    let all = || {
        let Some(case) = Case::new(recipe)? else { return Ok(None) };
        let mut most = case.on_host()?;
        for target in targets(recipe.seed) {
            let found = case.on_gpu(*target)?;
            most.share = most.share.max(found.share);
            most.loosest = most.loosest.max(found.loosest);
        }
        Ok(Some(most))
    };
    catch_unwind(AssertUnwindSafe(all)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default())
    })
}

/// The smallest recipe on the way down that still goes wrong, and how.
fn shrunk(mut recipe: Recipe, mut error: String) -> (Recipe, String) {
    while let Some(next) =
        recipe.smaller().into_iter().find_map(|smaller| check(&smaller).err().map(|error| (smaller, error)))
    {
        (recipe, error) = next;
    }
    (recipe, error)
}

#[test]
fn random_graphs_mean_the_same_everywhere() {
    let cases = setting("SINTER_FUZZ_CASES").unwrap_or(CASES);
    let first = setting("SINTER_FUZZ_SEED").unwrap_or(0);
    let next = AtomicU64::new(first);
    let work = || {
        let (mut worst, mut failed, mut unclear) = ([Distance::default(); 2], Vec::new(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + cases {
                return (worst, failed, unclear);
            }
            let recipe = Recipe::random(seed);
            match check(&recipe) {
                Ok(None) => unclear.push(seed),
                Ok(Some(found)) => {
                    let worst = &mut worst[usize::from(recipe.dtype == DType::Bf16)];
                    worst.share = worst.share.max(found.share);
                    worst.loosest = worst.loosest.max(found.loosest);
                }
                Err(error) => failed.push((recipe, error)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(8));
    let found: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    });
    for (worst, ..) in &found {
        println!("f32: {:?}, bf16: {:?}", worst[0], worst[1]);
    }
    let unclear: Vec<u64> = found.iter().flat_map(|(.., unclear)| unclear.clone()).collect();
    println!("{} graphs checked, {} say nothing", cases - unclear.len() as u64, unclear.len());
    assert!(unclear.len() as u64 <= cases / 5, "{unclear:?} say nothing");
    let mut failed: Vec<_> = found.into_iter().flat_map(|(_, failed, _)| failed).collect();
    failed.sort_by_key(|(recipe, _)| recipe.seed);
    let seeds: Vec<u64> = failed.iter().map(|(recipe, _)| recipe.seed).collect();
    for (recipe, error) in &failed {
        println!("seed {}: {}", recipe.seed, error.lines().next().unwrap_or_default());
    }
    if let Some((recipe, error)) = failed.into_iter().next() {
        let seed = recipe.seed;
        let (recipe, error) = shrunk(recipe, error);
        let graph = pieces::graph(&recipe).map_or_else(|error| error.to_string(), |graph| graph.to_string());
        panic!("seeds {seeds:?} went wrong; {seed}, shrunk to {recipe:?}: {error}\n{graph}");
    }
}
