//! Requests through the engine on the virtual GPU: where the device draws the tokens, they are those that the host chooses
//! from the logits, whoever shares the step and whatever is guessed.

use sinter_codegen_nvptx::compile;
use sinter_codegen_weights::pack_rows;
use sinter_ir::draw::Draw;
use sinter_ir::{DType, Target};
use sinter_runtime::engine::{Engine, EngineConfig, Event, NGram, Request, Speculation};
use sinter_runtime::{
    Batch, DeviceModel, GpuConfig, GpuModel, KernelTime, Limits, Row, RuntimeError, SamplingParams,
};
use sinter_testsuite::compiled::{plan, weights};
use sinter_testsuite::golden::{Golden, open};
use sinter_vgpu::VirtualGpu;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A model that draws on its device, or never; it counts the tokens that the device gave.
struct Watched {
    model: GpuModel,
    draws: bool,
    drawn: Arc<AtomicUsize>,
}

impl DeviceModel for Watched {
    fn device(&self) -> String {
        self.model.device()
    }
    fn limits(&self) -> Limits {
        self.model.limits()
    }
    fn result_name(&self) -> &str {
        self.model.result_name()
    }
    fn width(&self) -> usize {
        self.model.width()
    }
    fn step(&mut self, batch: &Batch) -> Result<&[f32], RuntimeError> {
        self.model.step(batch)
    }
    fn step_drawing(&mut self, batch: &Batch, draws: &[Option<Draw>]) -> Result<Vec<Row<'_>>, RuntimeError> {
        if !self.draws {
            let width = self.width();
            return Ok(self.step(batch)?.chunks_exact(width).map(Row::Logits).collect());
        }
        let rows = self.model.step_drawing(batch, draws)?;
        for (row, draw) in rows.iter().zip(draws) {
            let token = matches!(row, Row::Token(_));
            assert_eq!(token, draw.is_some(), "a row that is to be drawn from is, and no other");
            self.drawn.fetch_add(usize::from(token), Ordering::Relaxed);
        }
        Ok(rows)
    }
    fn times(&self) -> Vec<KernelTime> {
        self.model.times()
    }
}

fn load(golden: &Golden, target: Target) -> GpuModel {
    let plan = plan(&golden.model, DType::Bf16);
    let program = compile(&plan, target).expect("the plan compiles");
    let weights = weights(&golden.model, &plan, |def, source| pack_rows(def, source));
    let vocab = golden.model.spec.vocab;
    let limits = Limits { vocab, max_positions: 64, max_tokens: 16, max_sequences: 4, pages: 16 };
    let device = Box::new(VirtualGpu::new(target));
    let weight = |at: usize| Ok(weights[at].clone());
    let config = GpuConfig { limits, profile: false };
    GpuModel::new(Arc::new(plan), Arc::new(program), &weight, device, config).expect("the model loads")
}

/// Greedy and sampled requests; some want what the logits alone can tell.
fn requests(vocab: u32) -> Vec<Request> {
    let request = |at: u32| {
        let sampling = SamplingParams {
            temperature: [0.0, 0.9, 1.5][at as usize % 3],
            top_k: [0, 12][at as usize / 2 % 2],
            top_p: [1.0, 0.8][at as usize % 2],
            min_p: [0.0, 0.02][at as usize / 3 % 2],
            repetition_penalty: if at == 4 { 1.2 } else { 1.0 },
            seed: u64::from(at),
            ..SamplingParams::greedy()
        };
        let prompt = (0..3 + at * 2).map(|token| (token * 7 + at) % vocab).collect();
        let logprobs = (at == 2).then_some(2);
        let prompt_logprobs = (at == 5).then_some(0);
        Request { sampling, logprobs, prompt_logprobs, n: 1 + at as usize % 2, ..Request::new(prompt, 12) }
    };
    (0..7).map(request).collect()
}

/// The answers, and how many tokens the device gave.
fn answers(
    golden: &Golden,
    target: Target,
    draws: bool,
    speculation: Speculation,
) -> (Vec<Vec<Vec<u32>>>, usize) {
    let drawn = Arc::new(AtomicUsize::new(0));
    let model = Watched { model: load(golden, target), draws, drawn: drawn.clone() };
    let started = Engine::spawn_with(Box::new(model), speculation, EngineConfig::default());
    let (engine, _) = started.expect("the engine starts");
    let requests = requests(golden.model.spec.vocab as u32);
    let streams: Vec<_> =
        requests.iter().map(|request| engine.submit(request.clone()).expect("it is accepted")).collect();
    let follow = |(events, n): (_, usize)| {
        let mut choices = vec![Vec::new(); n];
        let events: sinter_runtime::engine::Events = events;
        for event in events {
            match event {
                Event::Tokens { choice, tokens } => {
                    choices[choice].extend(tokens.iter().map(|token| token.id))
                }
                Event::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        choices
    };
    let all = streams.into_iter().zip(requests.iter().map(|request| request.n)).map(follow).collect();
    (all, drawn.load(Ordering::Relaxed))
}

#[test]
fn tokens_of_the_device_are_those_of_the_host() {
    let golden = open("llama");
    let ngram = || Speculation::NGram(NGram { longest: 3, shortest: 1, drafts: 3 });
    let (plain, none) = answers(&golden, Target::Sm80, false, Speculation::None);
    assert_eq!(none, 0);
    assert!(plain.iter().flatten().all(|tokens| tokens.len() == 12));
    let (found, drawn) = answers(&golden, Target::Sm80, true, Speculation::None);
    assert_eq!(found, plain);
    // Ten answers of twelve tokens, less one that wants log probabilities and one with a penalty.
    assert_eq!(drawn, 12 * 8);
    let (guessed, _) = answers(&golden, Target::Sm80, true, ngram());
    assert_eq!(guessed, plain);
    let (hopper, _) = answers(&golden, Target::Sm90a, false, Speculation::None);
    assert_eq!(answers(&golden, Target::Sm90a, true, ngram()).0, hopper);
}
