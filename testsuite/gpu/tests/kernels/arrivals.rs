//! Sizes of steps that are compiled while a model runs on the virtual GPU: the bits are those of a model that has them all
//! from the beginning, at every moment.

use sinter_codegen_nvptx::{BUCKETS, Error, compile, compile_sizes};
use sinter_codegen_weights::pack_rows;
use sinter_ir::{DType, GpuKernel, GpuProgram, Plan, Target};
use sinter_runtime::{GpuConfig, GpuModel, KernelSource, RuntimeError, WeightBytes};
use sinter_testsuite::compiled::{limits, logits, plan, weights};
use sinter_testsuite::golden::{Golden, open};
use sinter_vgpu::VirtualGpu;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Compiles what it is asked for as soon as the test says so.
struct Source {
    plan: Arc<Plan>,
    target: Target,
    wanted: Sender<Option<u64>>,
    asked: Vec<Option<u64>>,
    go: Receiver<()>,
}

impl KernelSource for Source {
    fn sizes(&self) -> &[Option<u64>] {
        &BUCKETS
    }
    fn want(&mut self, size: Option<u64>) {
        self.asked.push(size);
        self.wanted.send(size).unwrap();
    }
    fn ready(&mut self) -> Option<GpuProgram> {
        self.go.try_recv().ok()?;
        let size = self.asked.pop()?;
        let made = compile_sizes::<Error>(&self.plan, self.target, &[size], &mut |_, make| make());
        Some(made.unwrap())
    }
    fn refused(&mut self, reason: &RuntimeError) {
        panic!("{reason}");
    }
}

struct Ready {
    golden: Golden,
    plan: Arc<Plan>,
    weights: Vec<WeightBytes>,
    target: Target,
}

impl Ready {
    fn load(&self, program: GpuProgram) -> GpuModel {
        let context = self.golden.tokens.len();
        let config = GpuConfig { limits: limits(&self.golden.model, context), profile: false };
        let weight = |at: usize| Ok(self.weights[at].clone());
        let device = Box::new(VirtualGpu::new(self.target));
        GpuModel::new(self.plan.clone(), Arc::new(program), &weight, device, config).unwrap()
    }
}

#[test]
fn a_size_that_is_compiled_later_gives_the_same_bits() {
    for (dtype, target) in [(DType::Bf16, Target::Sm80), (DType::F32, Target::Sm90a)] {
        let golden = open("llama");
        let plan = plan(&golden.model, dtype);
        let weights = weights(&golden.model, &plan, |def, source| pack_rows(def, source));
        let ready = Ready { golden, plan: Arc::new(plan), weights, target };
        let tokens = &ready.golden.tokens;
        let in_fives = |model: &mut GpuModel| logits(model, tokens, std::iter::repeat_n(5, tokens.len()));
        let in_ones = |model: &mut GpuModel| logits(model, tokens, std::iter::repeat_n(1, tokens.len()));
        let expected = in_fives(&mut ready.load(compile(&ready.plan, target).unwrap()));

        let last = compile_sizes::<Error>(&ready.plan, target, &[None], &mut |_, make| make()).unwrap();
        let (wanted, asked) = channel();
        let (goes, go) = channel();
        let source = Source { plan: ready.plan.clone(), target, wanted, asked: Vec::new(), go };
        let mut model = ready.load(last).with_source(Box::new(source));
        assert!(in_fives(&mut model) == expected, "{dtype} for {target}, before anything came");
        goes.send(()).unwrap();
        assert!(in_fives(&mut model) == expected, "{dtype} for {target}, while the first comes");
        assert!(in_ones(&mut model) == expected, "{dtype} for {target}, one by one");
        goes.send(()).unwrap();
        assert!(in_ones(&mut model) == expected, "{dtype} for {target}, while the second comes");
        assert!(in_ones(&mut model) == expected, "{dtype} for {target}, with all");
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), [Some(16), Some(4)]);
    }
}

#[test]
fn kernels_depend_on_their_description_alone() {
    let golden = open("llama");
    let plan = plan(&golden.model, DType::Bf16);
    let target = Target::Sm80;
    let whole = compile(&plan, target).unwrap();
    // Size by size, each kernel kept by its description.
    let mut kept = BTreeMap::<String, GpuKernel>::new();
    for size in BUCKETS {
        let mut keeper = |description: &str, make: &dyn Fn() -> Result<GpuKernel, Error>| {
            let made = make()?;
            let known = kept.entry(description.to_owned()).or_insert_with(|| made.clone());
            assert_eq!(*known, made, "one description, two kernels");
            Ok::<_, Error>(made)
        };
        let part = compile_sizes(&plan, target, &[size], &mut keeper).unwrap();
        let of_whole = whole.buckets.iter().find(|bucket| bucket.max_tokens == size).unwrap();
        assert_eq!(part.buckets[0].launches.len(), of_whole.launches.len());
        for (a, b) in part.buckets[0].launches.iter().zip(&of_whole.launches) {
            assert_eq!(part.kernels[a.kernel], whole.kernels[b.kernel]);
            assert_eq!((&a.args, &a.steps), (&b.args, &b.steps));
        }
    }
    assert_eq!(kept.len(), whole.kernels.len());
    let again =
        compile_sizes::<Error>(&plan, target, &BUCKETS, &mut |description, _| Ok(kept[description].clone()));
    assert_eq!(again.unwrap(), whole);
}
