//! KV caches of codes: what they keep is what the definition says, whatever the chunks and whoever shares the step, and the
//! example model answers as with an exact cache.

use sinter_codegen_host::micro::Isa;
use sinter_frontend::build::{BuildOptions, KvCache, KvCodes};
use sinter_frontend::chat::{ChatInput, ChatTemplate};
use sinter_frontend::model::Model;
use sinter_frontend::source::ModelDir;
use sinter_frontend::tokenizer::Tokenizer;
use sinter_ir::{Binding, DType, Float8, Graph, Op, PAGE, Tensor, evaluate_op};
use sinter_testsuite::compiled;
use sinter_testsuite::golden::{Golden, distance_in_deviations, error_in_deviations, names, open};
use sinter_testsuite::host::{instruction_sets, load_built, logits};
use std::path::{Path, PathBuf};

const CODES: [KvCodes; 3] = [KvCodes::Int8, KvCodes::Int4, KvCodes::Fp8];

fn options(dtype: DType, codes: KvCodes) -> BuildOptions {
    BuildOptions { kv_cache: KvCache::Codes(codes), ..BuildOptions::new(dtype) }
}

/// A row as its codes stand for it: the definition, written once more.
fn kept(row: &mut [f32], codes: KvCodes) {
    let most = row.iter().fold(1e-30f32, |most, x| most.max(x.abs()));
    let (greatest, code): (f32, fn(f32) -> f32) = match codes {
        KvCodes::Int8 => (127.0, |x| (x + 0.5).floor()),
        KvCodes::Int4 => (7.0, |x| (x + 0.5).floor()),
        KvCodes::Fp8 => (448.0, |x| Float8::E4m3.decode(Float8::E4m3.encode(x))),
    };
    row.iter_mut().for_each(|x| *x = code(*x * (greatest / most)) * (most * (1.0 / greatest)));
}

/// The logits of all tokens by the naive evaluator, on the graph of an exact cache whose rows are changed as they are
/// written.
fn naive(golden: &Golden, change: &dyn Fn(&mut [f32])) -> Vec<f32> {
    let graph = golden.model.build(BuildOptions::new(DType::F32)).unwrap();
    let tokens = golden.tokens.len() as u64;
    let pages = tokens.div_ceil(PAGE);
    let binding = Binding::new(tokens, 1, pages, pages * PAGE).with_rows(tokens);
    let mut values: Vec<Tensor<f32>> = Vec::new();
    for (value, node) in graph.nodes.iter() {
        let shape: Vec<usize> = node.ty.shape.iter().map(|dim| dim.eval(&binding) as usize).collect();
        let tensor = match node.op.leaf_name() {
            Some(name) => Tensor::new(shape.clone(), leaf(golden, name, shape.iter().product())),
            None => {
                let mut args: Vec<Tensor<f32>> =
                    node.args.iter().map(|arg| values[arg.0 as usize].clone()).collect();
                if let Op::Scatter {} = node.op {
                    let width = *args[2].shape.last().unwrap();
                    args[2].data.chunks_exact_mut(width).for_each(change);
                }
                evaluate_op(&node.op, &args.iter().collect::<Vec<_>>(), &shape, value).unwrap()
            }
        };
        values.push(tensor);
    }
    let result = graph.outputs.iter().find(|(name, _)| name == "logits").expect("a decoder");
    values[result.1.0 as usize].data.clone()
}

fn leaf(golden: &Golden, name: &str, count: usize) -> Vec<f32> {
    match name {
        "tokens" => golden.tokens.iter().map(|token| *token as f32).collect(),
        "positions" | "rows" | "slots" | "table" => (0..count).map(|at| at as f32).collect(),
        "seq" => vec![0.0; count],
        _ if name.contains("_cache.") => vec![0.0; count],
        _ => {
            let (dtype, _, bytes) = golden.model.tensor(name).expect("the weight is there");
            bytes.chunks_exact(dtype.bytes()).map(|bytes| dtype.read(bytes) as f32).collect()
        }
    }
}

/// One of each form of attention: heads that share keys, windows, caps, sinks, ALiBi, one key head, layers that read
/// another's cache, norms of heads, rotation of a part.
const FORMS: [&str; 10] = [
    "llama",
    "mistral_window",
    "gemma2",
    "gpt_oss",
    "bloom",
    "falcon_multi_query",
    "gemma4",
    "qwen3",
    "phi3",
    "gpt_neox",
];

#[test]
fn logits_are_those_of_rounded_keys_and_values() {
    for golden in FORMS.map(open) {
        let limits = compiled::limits(&golden.model, golden.tokens.len());
        for codes in CODES {
            let wanted = naive(&golden, &|row| kept(row, codes));
            let moved = distance_in_deviations(&wanted, &golden.expected);
            for isa in instruction_sets() {
                let load = || load_built(&golden.model, options(DType::F32, codes), isa, limits);
                let whole = logits(&mut load(), &golden.tokens, [golden.tokens.len()]);
                let error = error_in_deviations(&whole, &wanted);
                println!("{} {codes} {isa}: {error:.1e} deviations of {moved:.1e}", golden.name);
                assert!(error <= 1e-3 && error < moved / 4.0, "{} {codes}: {error} of {moved}", golden.name);
                let chunked = logits(&mut load(), &golden.tokens, [1, 3, golden.tokens.len()]);
                let same = whole.iter().zip(&chunked).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{} {codes} {isa}: other bits in other chunks", golden.name);
            }
        }
    }
}

/// Every decoder takes a cache of codes, or says why it does not.
#[test]
fn every_decoder_keeps_codes_or_says_why_not() {
    let decoders = names().into_iter().map(|name| open(&name)).filter(|golden| golden.greedy.is_some());
    let mut latent = 0;
    for (golden, codes) in decoders.zip(CODES.into_iter().cycle()) {
        let options = options(DType::F32, codes);
        let graph = match golden.model.build(options) {
            Ok(graph) => graph,
            Err(error) => {
                assert!(error.to_string().contains("latent attention"), "{}: {error}", golden.name);
                latent += 1;
                continue;
            }
        };
        assert_eq!(Graph::parse(&graph.to_string()).unwrap(), graph);
        let limits = compiled::limits(&golden.model, golden.tokens.len());
        let mut model = load_built(&golden.model, options, Isa::detect(), limits);
        let found = logits(&mut model, &golden.tokens, [golden.tokens.len()]);
        let moved = distance_in_deviations(&found, &golden.expected);
        // What is right of it the test above knows; two models that are strangers are √2 apart.
        assert!((1e-4..1.0).contains(&moved), "{} {codes}: {moved} deviations", golden.name);
    }
    assert_eq!(latent, 4, "the goldens with latent attention");
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_chat")
}

/// The questions of the example's evaluation as tokens with their answers, and where the answers begin.
fn conversations(dir: &ModelDir, vocab: usize) -> Vec<(Vec<u32>, usize)> {
    let (tokenizer, template) = (Tokenizer::load(dir, vocab).unwrap(), ChatTemplate::load(dir).unwrap());
    let mut found = Vec::new();
    for name in ["facts", "arithmetic"] {
        let lines = std::fs::read_to_string(example().join(format!("eval/{name}.jsonl"))).unwrap();
        for line in lines.lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let message = serde_json::json!({ "role": "user", "content": case["prompt"] });
            let input =
                ChatInput { messages: vec![message], add_generation_prompt: true, ..ChatInput::default() };
            let prompt = tokenizer.encode(&template.render(&input).unwrap(), false).unwrap();
            let answer = tokenizer.encode(case["answer"].as_str().unwrap(), false).unwrap();
            let end = tokenizer.id("<|end|>").unwrap();
            found.push(([&prompt[..], &answer, &[end]].concat(), prompt.len()));
        }
    }
    found
}

/// The likeliest token after each token of an answer.
fn likeliest(rows: &[f32], vocab: usize, from: usize) -> Vec<usize> {
    let best = |row: &[f32]| (0..vocab).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    rows.chunks_exact(vocab).skip(from - 1).map(best).collect()
}

/// What the model answers of its own, as long as the answer that was wanted.
fn greedy(model: &Model, options: BuildOptions, cases: &[&(Vec<u32>, usize)]) -> Vec<Vec<u32>> {
    let mut loaded = load_built(model, options, Isa::detect(), compiled::limits(model, 128));
    let answer = |(tokens, from): &(Vec<u32>, usize)| {
        compiled::greedy(&mut loaded, &tokens[..*from], tokens.len() - from)
    };
    cases.iter().copied().map(answer).collect()
}

/// An answer is given if every token of it is the likeliest one after those before it.
#[test]
fn codes_change_no_answer_of_the_example() {
    let dir = ModelDir::open(&example().join("model")).unwrap();
    let model = Model::open(ModelDir::open(&example().join("model")).unwrap()).unwrap();
    let vocab = model.spec.vocab;
    let cases = conversations(&dir, vocab);
    assert_eq!(cases.len(), 500);
    let answers = |options: BuildOptions, every: usize| -> Vec<Vec<usize>> {
        let limits = compiled::limits(&model, 128);
        let mut loaded = load_built(&model, options, Isa::detect(), limits);
        let rows = |(tokens, from): &(Vec<u32>, usize)| {
            likeliest(&logits(&mut loaded, tokens, [tokens.len()]), vocab, *from)
        };
        cases.iter().step_by(every).map(rows).collect()
    };
    let given = |answers: &[Vec<usize>], every: usize| -> Vec<bool> {
        let wanted = cases.iter().step_by(every).map(|(tokens, from)| &tokens[*from..]);
        let same = |(answer, wanted): (&Vec<usize>, &[u32])| {
            answer.iter().zip(wanted).all(|(x, y)| *x == *y as usize)
        };
        answers.iter().zip(wanted).map(same).collect()
    };
    let before = given(&answers(BuildOptions::new(DType::F32), 1), 1);
    let after = given(&answers(options(DType::F32, KvCodes::Int8), 1), 1);
    assert!(after == before, "int8 changes an answer");
    // Where another answer was wanted, the model's own stays the same.
    let wrong: Vec<_> =
        cases.iter().zip(&before).filter(|(_, right)| !**right).map(|(case, _)| case).collect();
    assert!((1..50).contains(&wrong.len()), "{} wrong answers", wrong.len());
    let own = |options| greedy(&model, options, &wrong);
    assert_eq!(own(options(DType::F32, KvCodes::Int8)), own(BuildOptions::new(DType::F32)));
    // As of weights in as many bits; every fifth answer.
    for (codes, percent) in [(KvCodes::Int4, 97), (KvCodes::Fp8, 99)] {
        let right =
            given(&answers(options(DType::F32, codes), 5), 5).into_iter().filter(|right| *right).count();
        let wanted = before.iter().step_by(5).filter(|right| **right).count();
        println!("{codes}: {right} of {wanted} right answers");
        assert!(right * 100 >= wanted * percent, "{codes}: {right} of {wanted}");
    }
}
