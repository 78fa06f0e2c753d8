//! Whole golden models through the model for GPUs, on the reference device.

use sinter_codegen_weights::pack_rows;
use sinter_ir::{
    Arg, DType, GpuDevice, GpuLaunch, GpuParam, GpuProgram, Plan, Swizzle, Target, TensorMapDef, gpu_twins,
};
use sinter_runtime::{DeviceModel, GpuConfig, GpuModel, Limits, RuntimeError, WeightBytes};
use sinter_testsuite::compiled::{greedy, limits, logits, plan, weights, whole};
use sinter_testsuite::golden::{Golden, error_in_deviations, open};
use sinter_testsuite::reference_device::{ReferenceDevice, program};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Models of different structure; the arithmetic of all families is tested elsewhere.
const MODELS: [&str; 9] =
    ["bert", "gemma2", "gpt2", "gpt_neox", "llama", "llama_tied_bias", "mistral_window", "phi3", "qwen3"];

struct Ready {
    plan: Arc<Plan>,
    weights: Vec<WeightBytes>,
    limits: Limits,
    golden: Golden,
}

fn ready(name: &str) -> Ready {
    let golden = open(name);
    let plan = plan(&golden.model, DType::F32);
    let weights = weights(&golden.model, &plan, |def, source| pack_rows(def, source));
    let context = golden.tokens.len() + golden.greedy.as_ref().map_or(0, Vec::len);
    let limits = limits(&golden.model, context);
    Ready { plan: Arc::new(plan), weights, limits, golden }
}

impl Ready {
    fn load(&self, program: GpuProgram, device: Box<dyn GpuDevice>) -> Result<GpuModel, RuntimeError> {
        let config = GpuConfig { limits: self.limits, profile: false };
        let weight = |at: usize| Ok(self.weights[at].clone());
        GpuModel::new(self.plan.clone(), Arc::new(program), &weight, device, config)
    }
    fn model(&self) -> (GpuModel, Arc<AtomicUsize>) {
        let device = ReferenceDevice::default();
        let replays = device.replays.clone();
        (self.load(program(&self.plan), Box::new(device)).unwrap(), replays)
    }
    /// Why the program is refused after a change.
    fn refusal(&self, change: impl Fn(&mut GpuProgram)) -> String {
        let mut program = program(&self.plan);
        change(&mut program);
        self.load(program, Box::new(ReferenceDevice::default())).unwrap_err().to_string()
    }
}

#[test]
fn golden_models_agree_with_transformers() {
    for name in MODELS {
        let ready = ready(name);
        let (mut model, _) = ready.model();
        let found = whole(&mut model, &ready.golden.tokens);
        let error = error_in_deviations(&found, &ready.golden.expected);
        assert!(error < 1e-4, "{name}: off by {error:.1e} deviations");
        if let Some(expected) = &ready.golden.greedy {
            assert_eq!(greedy(&mut model, &ready.golden.tokens, expected.len()), *expected, "{name}");
        }
    }
}

#[test]
fn any_chunking_gives_the_same_bits_and_small_steps_are_replayed() {
    let ready = ready("llama");
    let (mut model, replays) = ready.model();
    let tokens = &ready.golden.tokens;
    let whole = logits(&mut model, tokens, [tokens.len()]);
    assert_eq!(replays.load(Ordering::Relaxed), 0);
    for chunk in [1, 3, 5] {
        assert_eq!(logits(&mut model, tokens, std::iter::repeat_n(chunk, tokens.len())), whole);
    }
    assert!(replays.load(Ordering::Relaxed) > 0);
}

#[test]
fn the_memory_is_planned_before_it_is_taken() {
    let ready = ready("llama");
    let program = program(&ready.plan);
    let memory = GpuModel::memory(&ready.plan, &program, &ready.limits);
    let all: usize = ready.weights.iter().map(|weight| weight.bytes().len()).sum();
    let twins = gpu_twins(&ready.plan);
    assert!(
        twins.iter().enumerate().all(|(at, first)| at == *first),
        "no weight of this model is there twice"
    );
    assert_eq!(memory.weights, all as u64);
    assert!(memory.total() > memory.weights + memory.states && memory.states > 0);
    assert!(memory.to_string().contains("of KV cache"));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let ready = ready("llama");
    let has = |change: &dyn Fn(&mut GpuProgram), words: &str| {
        let reason = ready.refusal(change);
        assert!(reason.contains(words), "{reason}");
    };
    has(&|p| p.target = Target::Sm90a, "compute capability 8.0");
    has(&|p| p.buckets.clear(), "no launches");
    has(&|p| drop(p.buckets.pop()), "the last bucket takes 4 tokens, steps have up to");
    has(&|p| p.buckets[0].max_tokens = None, "not sorted");
    has(&|p| p.buckets[1].launches[0].kernel = 999, "no kernel 999");
    has(&|p| p.buckets[1].launches[0].steps[0] = 999, "no step 999");
    has(&|p| p.buckets[1].launches[0].args.truncate(1), "other arguments than its steps");
    has(&|p| p.buckets[1].launches.reverse(), "comes before one that it needs");
    has(&|p| drop(p.buckets[1].launches.pop()), "is not done");
    let twice = program(&ready.plan).buckets[1].launches[0].clone();
    has(&|p| p.buckets[1].launches.push(twice.clone()), "is done twice");
    has(&|p| p.kernels[0].params.push(GpuParam::Address(99)), "wants argument 99");
    has(&|p| p.kernels[0].threads = 0, "0 threads");
    has(&|p| p.kernels[0].cluster = 9, "9 blocks in a cluster");
    has(&|p| p.kernels[0].shared_bytes = 1 << 20, "bytes of shared memory");
    has(&|p| p.kernels[0].ptx = "tile nonsense".into(), "was not accepted");
    let dims = vec![4.into()];
    let map = TensorMapDef {
        arg: 0,
        dtype: DType::F32,
        dims,
        strides: vec![],
        box_dims: vec![],
        swizzle: Swizzle::None,
    };
    has(&|p| p.kernels[0].params.push(GpuParam::TensorMap(map.clone())), "a tensor map of 1 dimensions");
    let mut weights = ready.weights.clone();
    weights.swap(0, 1);
    let other = Ready { weights, ..ready };
    assert!(other.refusal(|_| ()).contains("on a GPU, has"));
}

/// A write to a state must not move behind the read of it.
#[test]
fn the_order_of_writes_and_reads_of_the_cache_is_kept() {
    let ready = ready("llama");
    let touches = |launch: &GpuLaunch| launch.args.iter().any(|arg| matches!(arg, Arg::State(_)));
    let reason = ready.refusal(|program| {
        let launches = &mut program.buckets[1].launches;
        let (first, last) = {
            let mut at = (0..launches.len()).filter(|at| touches(&launches[*at]));
            (at.next().unwrap(), at.next_back().unwrap())
        };
        let moved = launches.remove(first);
        launches.insert(last, moved);
    });
    assert!(reason.contains("comes before one that it needs"), "{reason}");
}

/// Memory that a device does not have, and a kernel that fails, are errors with a name.
#[test]
fn a_failing_device_is_an_error() {
    let ready = ready("llama");
    let mut program = program(&ready.plan);
    let scratch = &mut program.kernels[0].scratch;
    *scratch = vec![(1usize << 62).into(), 8.into()];
    let reason = ready.load(program, Box::new(ReferenceDevice::default())).unwrap_err().to_string();
    assert!(reason.contains("the GPU has no") && reason.contains("bytes left"), "{reason}");
    let tokens = vec![u32::MAX];
    let (mut model, _) = ready.model();
    let mut builder = sinter_runtime::BatchBuilder::new();
    builder.push(sinter_runtime::Chunk {
        tokens: &tokens,
        start: 0,
        pages: &[0],
        rows: sinter_runtime::Rows::Last,
    });
    assert!(matches!(model.step(&builder.finish()), Err(RuntimeError::Batch(_))));
}
