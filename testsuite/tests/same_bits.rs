//! Same request, same bits: tokens and log probabilities do not depend on who shares the step, on chunks, on what is in
//! the cache, on being put back, or on speculation.

use sinter_codegen_host::micro::Isa;
use sinter_frontend::build::{BuildOptions, KvCache, KvCodes};
use sinter_frontend::model::Model;
use sinter_frontend::source::ModelDir;
use sinter_ir::DType;
use sinter_runtime::engine::{
    DraftModel, Engine, EngineConfig, EngineHandle, Event, NGram, Request, Speculation, Token, Usage,
};
use sinter_runtime::{Limits, SamplingParams, uniform};
use sinter_testsuite::golden::{names, open};
use sinter_testsuite::host::{load_built, load_with};
use std::path::Path;

/// How a run differs from a run alone.
struct Setting {
    name: &'static str,
    max_tokens: usize,
    max_sequences: usize,
    pages: usize,
    prefix_cache: bool,
    speculation: fn(&Model) -> Speculation,
}

const NONE: fn(&Model) -> Speculation = |_| Speculation::None;
const NGRAM: fn(&Model) -> Speculation = |_| Speculation::NGram(NGram { longest: 3, shortest: 1, drafts: 4 });
/// The model itself in other numbers: right most of the time, not always.
const DRAFT: fn(&Model) -> Speculation = |model| {
    let limits = limits(model, 16, 4, 40);
    let draft = load_with(model, DType::Bf16, Isa::detect(), limits);
    Speculation::Draft(DraftModel::new(Box::new(draft), 3).expect("a decoder"))
};

fn limits(model: &Model, max_tokens: usize, max_sequences: usize, pages: usize) -> Limits {
    assert!(model.spec.max_position >= 64, "positions beyond the table");
    Limits { vocab: model.spec.vocab, max_positions: 64, max_tokens, max_sequences, pages }
}

fn start(model: &Model, options: BuildOptions, setting: &Setting) -> EngineHandle {
    let limits = limits(model, setting.max_tokens, setting.max_sequences, setting.pages);
    let loaded = Box::new(load_built(model, options, Isa::detect(), limits));
    let config = EngineConfig { prefix_cache: setting.prefix_cache, ..EngineConfig::default() };
    Engine::spawn_with(loaded, (setting.speculation)(model), config).expect("the engine starts").0
}

/// Requests that share beginnings, greedy and sampled, with all that a request can ask for.
fn requests(vocab: usize) -> Vec<Request> {
    let token = |seed: u64, at: u64| (uniform(seed, at) * vocab as f64) as u32;
    let stem: Vec<u32> = (0..40).map(|at| token(1, at)).collect();
    let request = |at: usize| {
        let own = (0..at as u64 % 5).map(|place| token(at as u64 + 2, place));
        let prompt: Vec<u32> = stem[..1 + at * 17 % 28].iter().copied().chain(own).collect();
        let sampling = match at % 3 {
            0 => SamplingParams::greedy(),
            1 => SamplingParams { temperature: 0.8, top_p: 0.9, seed: at as u64, ..SamplingParams::greedy() },
            _ => SamplingParams {
                temperature: 1.2,
                top_k: 20,
                repetition_penalty: 1.1,
                presence_penalty: 0.2,
                frequency_penalty: 0.1,
                logit_bias: vec![(token(9, at as u64), 1.5)],
                seed: 7,
                ..SamplingParams::greedy()
            },
        };
        Request {
            sampling,
            n: 1 + at % 2,
            logprobs: Some(3),
            prompt_logprobs: at.is_multiple_of(4).then_some(1),
            priority: at as i32 % 3 - 1,
            ..Request::new(prompt, 36)
        }
    };
    (0..9).map(request).collect()
}

/// What a client sees of an answer, bit by bit.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    choices: Vec<Vec<Token>>,
    prompt: Vec<Option<(u32, u32)>>,
}

fn follow(events: impl Iterator<Item = Event>, n: usize) -> (Seen, Usage) {
    let mut seen = Seen { choices: vec![Vec::new(); n], ..Seen::default() };
    let mut usage = None;
    for event in events {
        match event {
            Event::Tokens { choice, tokens } => seen.choices[choice].extend(tokens),
            Event::Prompt(rows) => {
                let bits = |row: sinter_runtime::engine::Logprob| (row.logprob.to_bits(), row.rank);
                seen.prompt.extend(rows.into_iter().map(|row| row.map(bits)));
            }
            Event::Finished { .. } => {}
            Event::Done(done) => usage = Some(done),
            Event::Failed(error) => panic!("{error}"),
        }
    }
    (seen, usage.expect("a last event"))
}

/// One request after the other, or all at once.
fn run(engine: &EngineHandle, requests: &[Request], together: bool) -> Vec<(Seen, Usage)> {
    let submit = |request: &Request| engine.submit(request.clone()).expect("it is accepted");
    if together {
        let events: Vec<_> = requests.iter().map(submit).collect();
        return events.into_iter().zip(requests).map(|(events, request)| follow(events, request.n)).collect();
    }
    requests.iter().map(|request| follow(submit(request), request.n)).collect()
}

const ALONE: Setting = Setting {
    name: "alone",
    max_tokens: 64,
    max_sequences: 1,
    pages: 4,
    prefix_cache: false,
    speculation: NONE,
};

fn settings() -> Vec<Setting> {
    vec![
        Setting { name: "in a crowd", max_tokens: 64, max_sequences: 8, pages: 64, ..ALONE },
        Setting { name: "in small chunks", max_tokens: 5, max_sequences: 3, pages: 64, ..ALONE },
        Setting { name: "put back", max_tokens: 32, max_sequences: 6, pages: 6, ..ALONE },
        Setting { name: "after a hit", max_sequences: 4, pages: 64, prefix_cache: true, ..ALONE },
        Setting { name: "guessed from the text", max_sequences: 4, pages: 64, speculation: NGRAM, ..ALONE },
        Setting {
            name: "all of it",
            max_tokens: 24,
            max_sequences: 6,
            pages: 7,
            prefix_cache: true,
            speculation: NGRAM,
        },
    ]
}

fn check(name: &str, model: &Model, dtype: DType, settings: &[Setting]) {
    check_requests(name, (model, BuildOptions::new(dtype)), settings, &requests(model.spec.vocab));
}

fn check_requests(
    name: &str,
    (model, options): (&Model, BuildOptions),
    settings: &[Setting],
    requests: &[Request],
) {
    let dtype = options.weight_dtype;
    let alone = run(&start(model, options, &ALONE), requests, false);
    for (request, (seen, _)) in requests.iter().zip(&alone) {
        assert!(seen.choices.iter().all(|tokens| tokens.len() == request.max_tokens), "{name}");
        assert_eq!(seen.prompt.len(), request.prompt_logprobs.map_or(0, |_| request.prompt.len()));
    }
    for setting in settings {
        let engine = start(model, options, setting);
        // The second time all prompts are known.
        for round in 0..1 + usize::from(setting.prefix_cache) {
            let found = run(&engine, requests, true);
            for (at, ((seen, _), (wanted, _))) in found.iter().zip(&alone).enumerate() {
                assert_eq!(seen, wanted, "{name} in {dtype}, {}, request {at}, round {round}", setting.name);
            }
            let cached: usize = found.iter().map(|(_, usage)| usage.cached).sum();
            assert_eq!(setting.prefix_cache && round == 1, cached > 0 && round == 1, "{name}: hits");
        }
        let stats = engine.stats();
        println!(
            "{name} in {dtype}, {}: {} put back, {} guessed",
            setting.name, stats.preemptions, stats.accepted
        );
        assert!(!["put back", "all of it"].contains(&setting.name) || stats.preemptions > 0);
        assert!(!setting.name.contains("guessed") || stats.drafted > 0, "{name}: nothing was guessed");
        assert_eq!((stats.blocks_used, stats.running, stats.waiting), (0, 0, 0));
    }
}

#[test]
fn golden_models_answer_with_the_same_bits() {
    for (name, dtype) in [
        ("llama", DType::F32),
        ("gemma2", DType::Bf16),
        ("mistral_window", DType::F32),
        ("qwen3", DType::Bf16),
        ("gpt2", DType::F32),
    ] {
        check(name, &open(name).model, dtype, &settings());
    }
}

/// What is kept of a token depends on the token's own row, so caches of codes keep the promise too.
#[test]
fn caches_of_codes_answer_with_the_same_bits() {
    for (name, dtype, codes) in [("llama", DType::F32, KvCodes::Int8), ("gemma2", DType::Bf16, KvCodes::Fp8)]
    {
        let model = open(name).model;
        let options = BuildOptions { kv_cache: KvCache::Codes(codes), ..BuildOptions::new(dtype) };
        check_requests(name, (&model, options), &settings(), &requests(model.spec.vocab));
    }
}

/// Every family, in one setting that has all of it but takes few steps.
#[test]
fn every_decoder_answers_with_the_same_bits() {
    let setting = Setting {
        name: "guessed, cached and in small chunks",
        max_tokens: 12,
        max_sequences: 3,
        pages: 24,
        prefix_cache: true,
        speculation: NGRAM,
    };
    for golden in names().iter().map(|name| open(name)).filter(|golden| golden.greedy.is_some()) {
        let short = |request: Request| Request { max_tokens: 14, n: 1, ..request };
        let few: Vec<Request> =
            requests(golden.model.spec.vocab).into_iter().skip(1).take(4).map(short).collect();
        let options = BuildOptions::new(DType::F32);
        check_requests(&golden.name, (&golden.model, options), std::slice::from_ref(&setting), &few);
    }
}

#[test]
fn the_example_answers_with_the_same_bits() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_chat/model");
    let model = Model::open(ModelDir::open(&path).expect("the example")).expect("the example opens");
    for dtype in [DType::F32, DType::Bf16] {
        check("tiny_chat", &model, dtype, &settings());
    }
}

#[test]
fn a_draft_model_changes_no_bit() {
    let model = open("llama").model;
    let draft =
        Setting { name: "drafted", max_tokens: 32, max_sequences: 4, pages: 40, speculation: DRAFT, ..ALONE };
    check("llama", &model, DType::F32, &[draft]);
}
