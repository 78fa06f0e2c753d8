//! Launches that come while a model runs: steps are done without them as with them, and nobody waits for them.

use sinter_codegen_weights::pack_rows;
use sinter_ir::{DType, GpuProgram, Plan};
use sinter_runtime::{GpuConfig, GpuModel, KernelSource, RuntimeError, WeightBytes};
use sinter_testsuite::compiled::{limits, logits, plan, weights, whole};
use sinter_testsuite::golden::{Golden, open};
use sinter_testsuite::reference_device::{ReferenceDevice, program};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// What a source was asked for, what it has, and what it was told.
#[derive(Default)]
struct Shelf {
    wanted: Vec<Option<u64>>,
    ready: Vec<GpuProgram>,
    refused: Vec<String>,
}

struct Source(Arc<Mutex<Shelf>>);

impl KernelSource for Source {
    fn sizes(&self) -> &[Option<u64>] {
        &[Some(4), None]
    }
    fn want(&mut self, size: Option<u64>) {
        self.0.lock().unwrap().wanted.push(size);
    }
    fn ready(&mut self) -> Option<GpuProgram> {
        self.0.lock().unwrap().ready.pop()
    }
    fn refused(&mut self, reason: &RuntimeError) {
        self.0.lock().unwrap().refused.push(reason.to_string());
    }
}

struct Ready {
    golden: Golden,
    plan: Arc<Plan>,
    weights: Vec<WeightBytes>,
    whole: Vec<f32>,
}

impl Ready {
    fn new() -> Self {
        let golden = open("llama");
        let plan = plan(&golden.model, DType::F32);
        let weights = weights(&golden.model, &plan, |def, source| pack_rows(def, source));
        let mut ready = Self { golden, plan: Arc::new(plan), weights, whole: Vec::new() };
        let (mut model, _) = ready.load(program(&ready.plan));
        ready.whole = whole(&mut model, &ready.golden.tokens);
        drop(model);
        ready
    }

    fn load(&self, program: GpuProgram) -> (GpuModel, Arc<AtomicUsize>) {
        let config =
            GpuConfig { limits: limits(&self.golden.model, self.golden.tokens.len()), profile: false };
        let weight = |at: usize| Ok(self.weights[at].clone());
        let device = ReferenceDevice::default();
        let replays = device.replays.clone();
        let model = GpuModel::new(self.plan.clone(), Arc::new(program), &weight, Box::new(device), config);
        (model.unwrap(), replays)
    }

    /// The program of one size alone, with no kernel that it does not need.
    fn part(&self, bucket: usize) -> GpuProgram {
        let mut program = program(&self.plan);
        program.buckets = vec![program.buckets.swap_remove(bucket)];
        let mut used: Vec<usize> = program.buckets[0].launches.iter().map(|launch| launch.kernel).collect();
        used.sort_unstable();
        used.dedup();
        for launch in &mut program.buckets[0].launches {
            launch.kernel = used.iter().position(|kernel| *kernel == launch.kernel).unwrap();
        }
        program.kernels = used.iter().map(|kernel| program.kernels[*kernel].clone()).collect();
        program
    }

    /// A model that has launches for any number of tokens alone, and what it may ask for.
    fn begun(&self) -> (GpuModel, Arc<Mutex<Shelf>>, Arc<AtomicUsize>) {
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let (model, replays) = self.load(self.part(1));
        (model.with_source(Box::new(Source(shelf.clone()))), shelf, replays)
    }

    /// Whether the model gives the same bits token by token.
    fn same(&self, model: &mut GpuModel) -> bool {
        let count = self.golden.tokens.len();
        logits(model, &self.golden.tokens, std::iter::repeat_n(1, count)) == self.whole
    }
}

#[test]
fn steps_are_the_same_before_and_after_their_launches_come() {
    let ready = Ready::new();
    let (mut model, shelf, replays) = ready.begun();
    assert!(whole(&mut model, &ready.golden.tokens) == ready.whole);
    assert!(shelf.lock().unwrap().wanted.is_empty(), "nothing is better for a step of many tokens");
    for _ in 0..2 {
        assert!(ready.same(&mut model));
    }
    // Only steps of a size that has a limit are recorded.
    assert_eq!((replays.load(Relaxed), shelf.lock().unwrap().wanted.as_slice()), (0, &[Some(4)][..]));

    let part = ready.part(0);
    let (kernels, steps) = (part.kernels.len(), ready.golden.tokens.len());
    shelf.lock().unwrap().ready.push(part);
    // One kernel a step.
    let mut rounds = 0;
    while replays.load(Relaxed) == 0 {
        assert!(ready.same(&mut model));
        rounds += 1;
        assert!(rounds < kernels / steps + 3, "the launches that came are not used");
    }
    assert!(rounds * steps >= kernels, "{kernels} kernels came within {rounds} rounds of {steps} steps");
    assert!(ready.same(&mut model) && whole(&mut model, &ready.golden.tokens) == ready.whole);
    let shelf = shelf.lock().unwrap();
    assert_eq!((shelf.wanted.len(), shelf.refused.len()), (1, 0));
}

#[test]
fn launches_that_cannot_be_used_change_nothing() {
    let ready = Ready::new();
    let refused = |change: &dyn Fn(&mut GpuProgram), words: &str| {
        let (mut model, shelf, replays) = ready.begun();
        assert!(ready.same(&mut model));
        let mut part = ready.part(0);
        change(&mut part);
        // One kernel a step.
        let rounds = part.kernels.len() / ready.golden.tokens.len() + 2;
        shelf.lock().unwrap().ready.push(part);
        for _ in 0..rounds {
            assert!(ready.same(&mut model));
            if !shelf.lock().unwrap().refused.is_empty() {
                break;
            }
        }
        assert!(ready.same(&mut model));
        let shelf = shelf.lock().unwrap();
        assert!(shelf.refused.len() == 1 && shelf.refused[0].contains(words), "{:?}", shelf.refused);
        assert_eq!((shelf.wanted.len(), replays.load(Relaxed)), (1, 0));
    };
    refused(&|part| drop(part.buckets[0].launches.pop()), "is not done");
    refused(&|part| part.buckets.extend(part.buckets.clone()), "2 sizes of steps, wanted one");
    refused(&|part| part.target = sinter_ir::Target::Sm90a, "compute capability 8.0");
    refused(&|part| part.kernels[1].ptx = "tile nonsense".into(), "was not accepted");
    refused(&|part| part.kernels[1].scratch = vec![(1usize << 62).into(), 8.into()], "bytes left");
}

#[test]
fn launches_must_take_the_largest_step() {
    let ready = Ready::new();
    let load = |size: u64| {
        let mut program = ready.part(1);
        program.buckets[0].max_tokens = Some(size);
        let config =
            GpuConfig { limits: limits(&ready.golden.model, ready.golden.tokens.len()), profile: false };
        let weight = |at: usize| Ok(ready.weights[at].clone());
        let device = Box::new(ReferenceDevice::default());
        GpuModel::new(ready.plan.clone(), Arc::new(program), &weight, device, config)
    };
    let most = ready.golden.tokens.len() as u64;
    assert!(whole(&mut load(most).unwrap(), &ready.golden.tokens) == ready.whole);
    let reason = load(most - 1).unwrap_err().to_string();
    assert!(reason.contains(&format!("steps have up to {most}")), "{reason}");
}
