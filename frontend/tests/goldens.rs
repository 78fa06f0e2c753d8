//! Every golden model, from its directory to logits on the naive evaluator, against transformers.

mod support;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sinter_frontend::build::BuildOptions;
use sinter_frontend::model::Model;
use sinter_frontend::source::ModelDir;
use sinter_frontend::spec::{HeadNormScope, ModelKind, QkvSpec, Residual};
use sinter_ir::{Binding, DType, Dim, Graph, Op, PAGE, Tensor, evaluate, verify};

/// Max abs error against the standard deviation of what is expected.
const BOUND: f64 = 1e-3;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/goldens")
}

/// The folders with a config, each with the folder of its weights and expected values.
fn cases() -> Vec<(String, PathBuf)> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(goldens()).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("config.json").exists() {
            continue;
        }
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let weights = match std::fs::read_to_string(folder.join("same_weights_as")) {
            Ok(sibling) => goldens().join(sibling.trim()),
            Err(_) => folder,
        };
        cases.push((name, weights));
    }
    cases.sort();
    assert!(cases.len() >= 17, "found only {} goldens", cases.len());
    cases
}

/// A golden model; one that borrows its sibling's weights is put together in a directory of its own.
fn open(name: &str, weights: &Path) -> Model {
    let folder = goldens().join(name);
    if folder == weights {
        return Model::open(ModelDir::open(&folder).unwrap()).unwrap();
    }
    let whole = support::Model::new()
        .file("config.json", std::fs::read(folder.join("config.json")).unwrap())
        .file("model.safetensors", std::fs::read(weights.join("model.safetensors")).unwrap());
    Model::open(whole.open()).unwrap()
}

struct Expected {
    bytes: Vec<u8>,
}

impl Expected {
    fn load(folder: &Path) -> Self {
        Expected { bytes: std::fs::read(folder.join("expected.safetensors")).unwrap() }
    }

    fn view<T>(&self, name: &str, read: impl Fn(&[u8], usize) -> Vec<T>) -> Vec<T> {
        let file = safetensors::SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap();
        read(tensor.data(), tensor.shape().iter().product())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.view(name, |data, _| data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    }

    fn integers(&self, name: &str) -> Vec<u32> {
        self.view(name, |data, _| {
            data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
        })
    }
}

/// One step of one sequence, and what lives between steps.
struct Run<'a> {
    model: &'a Model,
    graph: &'a Graph,
    /// The pages of the sequence in the pool, which has two more than it needs.
    table: Vec<u32>,
    states: RefCell<HashMap<String, Tensor<f32>>>,
    /// Whether a weight may be larger than the graph wants it: then its first rows and columns are taken.
    cut: bool,
}

impl<'a> Run<'a> {
    fn new(model: &'a Model, graph: &'a Graph, table: Vec<u32>) -> Self {
        Run { model, graph, table, states: RefCell::default(), cut: false }
    }

    fn binding(&self, tokens: usize) -> Binding {
        let pages = self.table.len() as u64;
        Binding::new(tokens as u64, 1, pages, (pages + 2) * PAGE).with_rows(tokens as u64)
    }

    /// The last output for tokens at the positions from `start` on; `seq` is the sequence of each.
    fn step(&self, tokens: &[u32], start: usize, seq: &[u32]) -> Tensor<f32> {
        let binding = self.binding(tokens.len());
        let of = |values: Vec<u32>| values.into_iter().map(|x| x as f32).collect::<Vec<_>>();
        let positions: Vec<u32> = (start..start + tokens.len()).map(|x| x as u32).collect();
        let slot = |p: &u32| self.table[*p as usize / PAGE as usize] * PAGE as u32 + p % PAGE as u32;
        let leaf = |name: &str| {
            let values = match name {
                "tokens" => of(tokens.to_vec()),
                "positions" => of(positions.clone()),
                "slots" => of(positions.iter().map(slot).collect()),
                "seq" => of(seq.to_vec()),
                "types" => of(vec![0; tokens.len()]),
                "rows" => of((0..tokens.len() as u32).collect()),
                "table" => return Some(Tensor::new(vec![1, self.table.len()], of(self.table.clone()))),
                _ => return self.stored(name, &binding),
            };
            Some(Tensor::new(vec![values.len()], values))
        };
        let outputs = evaluate::<f32>(self.graph, &binding, &leaf).unwrap();
        let mut states = self.states.borrow_mut();
        let (_, result) = outputs.last().unwrap().clone();
        states.extend(outputs);
        result
    }

    /// A weight or a state.
    fn stored(&self, name: &str, binding: &Binding) -> Option<Tensor<f32>> {
        if name.contains("_cache.") {
            let shape = leaf_shape(self.graph, name)?;
            let shape: Vec<usize> = shape.iter().map(|dim| dim.eval(binding) as usize).collect();
            let fresh = || Tensor::from_fn(&shape, |_| 0.0);
            return Some(self.states.borrow().get(name).cloned().unwrap_or_else(fresh));
        }
        let (dtype, shape, bytes) = self.model.tensor(name)?;
        let data = match dtype {
            DType::F32 => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            DType::Bf16 => {
                let pair = |b: &[u8]| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32();
                bytes.chunks(2).map(pair).collect()
            }
            other => panic!("{name}: {other}"),
        };
        let wanted = leaf_shape(self.graph, name).filter(|_| self.cut);
        let Some(wanted) = wanted else { return Some(Tensor::new(shape, data)) };
        let wanted: Vec<usize> = wanted.iter().map(|dim| dim.eval(binding) as usize).collect();
        let at = |p: &[usize]| data[p.iter().zip(&shape).fold(0, |at, (p, extent)| at * extent + p)];
        Some(Tensor::from_fn(&wanted, at))
    }
}

fn leaf_shape(graph: &Graph, name: &str) -> Option<Vec<Dim>> {
    graph.nodes.values().find(|node| node.op.leaf_name() == Some(name)).map(|node| node.ty.shape.clone())
}

fn pages(tokens: usize) -> usize {
    tokens.div_ceil(PAGE as usize)
}

/// The greatest difference as a share of the standard deviation of `wanted`.
fn error(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let n = wanted.len() as f64;
    let mean = wanted.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let spread = (wanted.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let worst = found.iter().zip(wanted).map(|(x, y)| f64::from((x - y).abs()));
    // A NaN is a failure, which max would hide.
    worst.fold(0.0, |worst, x| if x.is_nan() { f64::INFINITY } else { f64::max(worst, x) }) / spread
}

/// The error of a decoder's logits over all its tokens in one step.
fn decoder_error(name: &str, weights: &Path) -> f64 {
    let model = open(name, weights);
    let expected = Expected::load(weights);
    let graph = model.build(BuildOptions::new(DType::F32)).unwrap();
    let tokens = expected.integers("tokens");
    let run = Run::new(&model, &graph, (0..pages(tokens.len()) as u32).collect());
    let rows = run.step(&tokens, 0, &vec![0; tokens.len()]);
    let wanted = if model.spec.head.is_some() { "logits" } else { "hidden" };
    error(&rows.data, &expected.floats(wanted))
}

/// The greater error of an encoder without and with masked tokens, which are another sequence here.
fn encoder_errors(name: &str, weights: &Path) -> f64 {
    let model = open(name, weights);
    let expected = Expected::load(weights);
    let graph = model.build(BuildOptions::new(DType::F32)).unwrap();
    let tokens = expected.integers("tokens");
    let run = Run::new(&model, &graph, vec![0]);
    let plain = run.step(&tokens, 0, &vec![0; tokens.len()]);
    if let Some(classifier) = &model.spec.classifier {
        return error(&plain.data[..classifier.linear.n_out], &expected.floats("scores"));
    }
    let mask = expected.integers("mask");
    let seq: Vec<u32> = mask.iter().map(|on| 1 - on).collect();
    let masked = run.step(&tokens, 0, &seq);
    let kept = mask.iter().filter(|on| **on == 1).count() * model.spec.hidden;
    let masked = error(&masked.data[..kept], &expected.floats("hidden_masked")[..kept]);
    masked.max(error(&plain.data, &expected.floats("hidden")))
}

#[test]
fn every_golden_agrees_with_transformers() {
    let mut failed = Vec::new();
    for (name, weights) in cases() {
        let start = std::time::Instant::now();
        let error = match open(&name, &weights).spec.kind {
            ModelKind::Decoder => decoder_error(&name, &weights),
            ModelKind::Encoder => encoder_errors(&name, &weights),
        };
        println!("{name}: {error:.2e} of the standard deviation, {:.1?}", start.elapsed());
        if error > BOUND {
            failed.push(format!("{name}: {error:.2e}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_graph_is_sound_and_survives_its_text_form() {
    for (name, weights) in cases() {
        let model = open(&name, &weights);
        let expected = ["pooler", "texts up to 64 tokens", "text model alone is used", "visual."];
        let known = |note: &String| expected.iter().any(|words| note.contains(words));
        assert!(model.notes.iter().all(known), "{name}: {:?}", model.notes);
        for dtype in [DType::F32, DType::Bf16] {
            let graph = model.build(BuildOptions::new(dtype)).unwrap();
            assert!(verify(&graph).is_empty(), "{name} {dtype}: {:?}", verify(&graph));
            let dead = graph.uses().iter().find(|(_, uses)| **uses == 0).map(|(value, _)| value);
            assert_eq!(dead, None, "{name} {dtype}: a value that nothing uses");
            assert_eq!(Graph::parse(&graph.to_string()).unwrap(), graph, "{name} {dtype}");
        }
    }
}

#[test]
fn steps_of_any_length_over_scattered_pages_agree_too() {
    for name in ["llama", "mistral_window", "gemma2"] {
        let weights = goldens().join(name);
        let (model, expected) = (open(name, &weights), Expected::load(&weights));
        let graph = model.build(BuildOptions::new(DType::F32)).unwrap();
        let tokens = expected.integers("tokens");
        let run = Run::new(&model, &graph, vec![3, 1]);
        let mut logits = Vec::new();
        for range in [0..6, 6..7, 7..18, 18..20, 20..21] {
            let step = run.step(&tokens[range.clone()], range.start, &vec![0; range.len()]);
            logits.extend(step.data);
        }
        assert!(error(&logits, &expected.floats("logits")) < BOUND, "{name}");
    }
}

#[test]
fn bf16_narrows_products_and_caches_only() {
    let weights = goldens().join("llama_sharded");
    let (model, expected) = (open("llama_sharded", &weights), Expected::load(&weights));
    let graph = model.build(BuildOptions::new(DType::Bf16)).unwrap();
    for (value, node) in graph.nodes.iter() {
        match &node.op {
            Op::Contract { spec } if spec.to_string() == "tk,nk->tn" => {
                assert!(node.args.iter().all(|arg| graph.ty(*arg).dtype == DType::Bf16), "{value}");
            }
            Op::State { dtype, .. } => assert_eq!(*dtype, DType::Bf16),
            Op::Param { shape, dtype, .. } => assert_eq!(*dtype == DType::Bf16, shape.len() == 2),
            _ => {}
        }
    }
    let tokens = expected.integers("tokens");
    let run = Run::new(&model, &graph, vec![0, 1]);
    let logits = run.step(&tokens, 0, &vec![0; tokens.len()]);
    let error = error(&logits.data, &expected.floats("logits"));
    assert!((1e-4..0.1).contains(&error), "bf16 rounding moved the logits by {error:.2e}");
}

#[test]
fn rarer_forms_agree_with_what_they_generalise() {
    let weights = goldens().join("gpt_neox");
    let (mut model, expected) = (open("gpt_neox", &weights), Expected::load(&weights));
    let tokens = expected.integers("tokens")[..5].to_vec();
    let logits = |model: &Model| {
        let graph = model.build(BuildOptions::new(DType::F32)).unwrap();
        Run::new(model, &graph, vec![0]).step(&tokens, 0, &[0; 5]).data
    };
    // Two norms of the same weights are one norm.
    for layer in &mut model.spec.layers {
        layer.mlp_norms.before = layer.attention_norms.before.clone();
    }
    let two = logits(&model);
    model.spec.layers.iter_mut().for_each(|layer| layer.residual = Residual::ParallelOneNorm);
    assert_eq!(logits(&model), two);
    // A factor on the branches changes what they add, and only that.
    model.spec.layers.iter_mut().for_each(|layer| layer.residual_scale = 0.0);
    let (none, n_layers) = (logits(&model), model.spec.layers.len());
    model.spec.layers.truncate(n_layers - 1);
    assert_eq!(logits(&model), none);

    // Norms over all heads are norms of the head where there is one.
    let weights = goldens().join("qwen3");
    let mut model = open("qwen3", &weights);
    model.spec.layers.truncate(1);
    let attention = &mut model.spec.layers[0].attention;
    let QkvSpec::Separate { q, k, v } = &mut attention.qkv else { panic!("qwen3 has three matrices") };
    (q.n_out, k.n_out, v.n_out, attention.out.n_in) = (10, 10, 10, 10);
    (attention.heads, attention.kv_heads) = (1, 1);
    let narrow = |model: &Model| {
        let graph = model.build(BuildOptions::new(DType::F32)).unwrap();
        assert!(verify(&graph).is_empty());
        let mut run = Run::new(model, &graph, vec![0]);
        run.cut = true;
        run.step(&tokens, 0, &[0; 5]).data
    };
    let by_head = narrow(&model);
    let norms = model.spec.layers[0].attention.head_norms.as_mut().unwrap();
    norms.scope = HeadNormScope::All;
    assert_eq!(narrow(&model), by_head);
}
