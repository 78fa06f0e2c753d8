//! Kernels that are compiled when they are needed: who waits for whom, and what is kept.
//!
//! The compiler here is a stand-in that writes down what it was asked for; what real kernels give is tested with the
//! virtual GPU.

use anyhow::{Result, bail};
use sinter_driver::jit::{Background, Compiler, Jit, Keeper};
use sinter_driver::output::Output;
use sinter_ir::{GpuBucket, GpuKernel, GpuLaunch, GpuProgram, Plan, Target};
use sinter_runtime::{KernelSource, Limits};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SIZES: [Option<u64>; 3] = [Some(4), Some(64), None];

/// How many kernels were compiled, by the tests of this name; each test has a plan of its own name.
static COMPILED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
/// Plans whose compiler waits until this is 0.
static GATE: AtomicUsize = AtomicUsize::new(0);
/// Kernels at the gate.
static WAITING: AtomicUsize = AtomicUsize::new(0);

fn compiled(plan: &str) -> usize {
    COMPILED.lock().unwrap().get(plan).copied().unwrap_or(0)
}

fn kernel(name: &str) -> GpuKernel {
    GpuKernel {
        name: name.into(),
        ptx: format!("code of {name}"),
        params: vec![],
        grid: vec![],
        persistent: None,
        threads: 32,
        shared_bytes: 0,
        cluster: 1,
        dependent_launch: false,
        scratch: vec![],
    }
}

/// Two kernels a size: one of its own, and one that all sizes share.
fn compile(
    plan: &Plan,
    target: Target,
    sizes: &[Option<u64>],
    keeper: &mut Keeper<'_>,
) -> Result<GpuProgram> {
    let mut program = GpuProgram { target, kernels: vec![], buckets: vec![], draw: None };
    for size in sizes {
        let own = size.map_or("any".into(), |most| most.to_string());
        match plan.name.as_str() {
            "broken" if *size == Some(64) => bail!("64 is too much"),
            "panics" if *size == Some(64) => panic!("64 is too much"),
            _ => {}
        }
        for part in ["shared", &own] {
            let description = format!("{} {part}", plan.name);
            let made = keeper(&description, &|| {
                while plan.name == "slow" && *size == Some(64) && GATE.load(Relaxed) > 0 {
                    WAITING.store(1, Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
                *COMPILED.lock().unwrap().entry(plan.name.clone()).or_default() += 1;
                Ok(kernel(part))
            })?;
            program.kernels.push(made);
        }
        let launch = |kernel| GpuLaunch { kernel, args: vec![], steps: vec![] };
        let at = program.kernels.len();
        let launches = vec![launch(at - 2), launch(at - 1)];
        program.buckets.push(GpuBucket { max_tokens: *size, launches });
    }
    Ok(program)
}

fn jit(name: &str, cache: Option<&Path>) -> Jit {
    let plan = Arc::new(Plan { name: name.into(), ..Plan::default() });
    let compiler = Compiler { compile, sizes: &SIZES };
    Jit::new(plan, Target::Sm80, compiler, (cache, &Output::new(false)))
}

fn limits(max_tokens: usize) -> Limits {
    Limits { vocab: 1, max_positions: 1, max_tokens, max_sequences: 1, pages: 1 }
}

fn sizes(program: &GpuProgram) -> Vec<Option<u64>> {
    program.buckets.iter().map(|bucket| bucket.max_tokens).collect()
}

fn wait(source: &mut Background) -> GpuProgram {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(program) = source.ready() {
            return program;
        }
        assert!(Instant::now() < until, "nothing comes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_model_begins_with_one_token_and_its_largest_step() {
    let first = |most| sizes(&jit("first", None).first(&limits(most)).unwrap());
    assert_eq!(first(1), [Some(4)]);
    assert_eq!(first(4), [Some(4)]);
    assert_eq!(first(5), [Some(4), Some(64)]);
    assert_eq!(first(512), [Some(4), None]);
    assert_eq!(sizes(&jit("first", None).all().unwrap()), SIZES);
}

#[test]
fn what_is_asked_for_comes_and_what_is_shared_is_compiled_once() {
    let jit = Arc::new(jit("once", None));
    jit.first(&limits(512)).unwrap();
    assert_eq!(compiled("once"), 3);
    let mut source = Background::new(jit.clone());
    assert_eq!(source.sizes(), SIZES);
    assert_eq!(source.ready(), None);
    source.want(Some(64));
    let program = wait(&mut source);
    assert_eq!((sizes(&program), program.kernels[1].name.as_str()), (vec![Some(64)], "64"));
    assert_eq!((compiled("once"), source.ready()), (4, None));
}

#[test]
fn nobody_waits_for_a_compiler_but_the_end() {
    GATE.store(1, Relaxed);
    let mut source = Background::new(Arc::new(jit("slow", None)));
    source.want(Some(64));
    source.want(None);
    let until = Instant::now() + Duration::from_secs(60);
    while WAITING.load(Relaxed) == 0 {
        assert!(Instant::now() < until, "nothing is compiled");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(source.ready(), None);
    let opener = std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(50));
        GATE.store(0, Relaxed);
    });
    drop(source);
    assert_eq!(GATE.load(Relaxed), 0, "the thread was left behind");
    opener.join().unwrap();
    assert!(compiled("slow") <= 2, "what nobody waits for was compiled");
}

#[test]
fn a_size_that_cannot_be_compiled_stops_no_other() {
    for plan in ["broken", "panics"] {
        let mut source = Background::new(Arc::new(jit(plan, None)));
        source.want(Some(64));
        source.want(None);
        assert_eq!(sizes(&wait(&mut source)), [None], "{plan}");
    }
}

#[test]
fn kernels_are_kept_one_by_one_and_damaged_ones_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let get = || jit("kept", Some(folder.path())).all().unwrap();
    let first = get();
    assert_eq!(compiled("kept"), 4);
    assert_eq!((get(), compiled("kept")), (first.clone(), 4));
    let mut files: Vec<_> = std::fs::read_dir(folder.path().join("kernels")).unwrap().collect();
    assert_eq!(files.len(), 4);
    let file = files.pop().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    for (round, damaged) in
        [text.replace("code", "c0de"), text[..text.len() / 2].into(), String::new()].iter().enumerate()
    {
        std::fs::write(&file, damaged).unwrap();
        assert_eq!((get(), compiled("kept")), (first.clone(), 5 + round));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}
