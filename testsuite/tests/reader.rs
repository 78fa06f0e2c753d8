//! Same text, same bits: what a text gets does not depend on who shares the step, nor on the sizes of steps.

use sinter_codegen_host::micro::Isa;
use sinter_frontend::model::Model;
use sinter_frontend::source::ModelDir;
use sinter_ir::DType;
use sinter_runtime::reader::{Grid, Part, Reader, ReaderConfig, Text};
use sinter_runtime::{DeviceModel, Limits, Rows, Session, encode_typed, uniform};
use sinter_testsuite::golden::{folder, names, open};
use sinter_testsuite::host::{instruction_sets, load_with};
use std::ops::ControlFlow;
use std::sync::mpsc::channel;

/// Texts of all lengths up to `most`, many of them short.
fn texts(vocab: usize, most: usize, count: u64) -> Vec<Text> {
    let one = |at: u64| {
        let draw = |place: u64| uniform(at + 1, place);
        let len = 1 + (draw(0) * draw(1) * most as f64) as usize;
        let ids: Vec<u32> = (0..len as u64).map(|place| (draw(place + 2) * vocab as f64) as u32).collect();
        // The second of two texts begins somewhere.
        let second = (draw(2) * len as f64) as usize;
        Text { types: (0..len).map(|place| u32::from(place > second)).collect(), ids, rows: Rows::All }
    };
    (0..count).map(one).collect()
}

/// The rows of all texts as bits, from a reader that gets them in requests of three.
fn together(model: Box<dyn DeviceModel>, config: ReaderConfig, texts: &[Text]) -> (Vec<Vec<u32>>, u64) {
    let (handle, thread) = Reader::spawn(model, config).expect("the reader starts");
    let mut answers = Vec::new();
    for own in texts.chunks(3) {
        let (sender, receiver) = channel();
        let mut rows = vec![Vec::new(); own.len()];
        let sink = move |part: Part<'_>| {
            match part {
                Part::Rows { text, rows: more } => rows[text].extend(more.iter().map(|x| x.to_bits())),
                Part::Done => sender.send(std::mem::take(&mut rows)).expect("the test waits"),
                Part::Failed(error) => panic!("{error}"),
            }
            ControlFlow::Continue(())
        };
        answers.push((handle.submit(own.to_vec(), Box::new(sink)).expect("it is accepted"), receiver));
    }
    let found = answers.into_iter().flat_map(|(_ticket, rows)| rows.recv().expect("an answer")).collect();
    let steps = handle.stats().steps;
    drop(handle);
    thread.join().expect("the reader ends");
    (found, steps)
}

fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|x| x.to_bits()).collect()
}

fn check_encoder(name: &str, model: &Model, most: usize, (dtype, isa): (DType, Isa)) {
    let vocab = model.spec.vocab;
    let limits = |max_tokens: usize, max_sequences: usize| Limits {
        vocab,
        max_positions: most,
        max_tokens,
        max_sequences,
        pages: 0,
    };
    let scores = model.spec.classifier.is_some();
    let mut texts = texts(vocab, most, 20);
    texts.iter_mut().filter(|_| scores).for_each(|text| text.rows = Rows::First);
    let mut one = load_with(model, dtype, isa, limits(most, 1));
    let alone: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| bits(encode_typed(&mut one, &text.ids, &text.types).expect("the step runs")))
        .collect();
    for (step_tokens, grid) in [(4 * most, Grid::LANES), (2 * most, Grid::BLOCKS)] {
        let loaded = Box::new(load_with(model, dtype, isa, limits(step_tokens, 17)));
        // The mean of all tokens is summed over the step: such texts take steps of their own.
        let mean = model.spec.classifier.as_ref().is_some_and(|classifier| classifier.mean);
        let at_once = if mean { 1 } else { 16 };
        let config = ReaderConfig {
            step_tokens,
            texts: at_once,
            grid,
            max_requests: 100,
            max_waiting_tokens: 1 << 20,
        };
        let (found, steps) = together(loaded, config, &texts);
        for (at, (found, wanted)) in found.iter().zip(&alone).enumerate() {
            assert!(
                found == wanted,
                "{name} in {dtype} on {isa}, {grid:?}: text {at} of {}",
                texts[at].ids.len()
            );
        }
        assert!(mean || steps < 20, "{name}: texts share steps");
    }
}

#[test]
fn texts_of_encoders_get_the_bits_that_they_get_alone() {
    let encoders: Vec<_> =
        names().iter().map(|name| open(name)).filter(|golden| !golden.is_decoder()).collect();
    assert!(encoders.len() > 8);
    for golden in encoders {
        let most = golden.model.spec.max_position;
        for isa in instruction_sets() {
            check_encoder(&golden.name, &golden.model, most, (DType::F32, isa));
        }
        check_encoder(&golden.name, &golden.model, most, (DType::Bf16, Isa::detect()));
    }
}

/// Texts of several blocks: golden models whose positions are no table, with more of them.
#[test]
fn long_texts_of_encoders_get_the_bits_that_they_get_alone() {
    for name in ["modernbert", "nomic_bert"] {
        let folder_of = folder().join(name);
        let copy = tempfile::tempdir().expect("a temporary folder");
        let config = std::fs::read_to_string(folder_of.join("config.json")).expect("the config");
        let longer = config.replace("\"max_position_embeddings\": 64", "\"max_position_embeddings\": 700");
        assert_ne!(config, longer);
        std::fs::write(copy.path().join("config.json"), longer).expect("a copy");
        std::fs::copy(folder_of.join("model.safetensors"), copy.path().join("model.safetensors"))
            .expect("a copy");
        let model = Model::open(ModelDir::open(copy.path()).expect("the folder opens")).expect("the model");
        for dtype in [DType::F32, DType::Bf16] {
            check_encoder(name, &model, 700, (dtype, Isa::detect()));
        }
    }
}

#[test]
fn texts_of_decoders_get_the_bits_that_they_get_alone() {
    for (name, dtype) in [("qwen3", DType::F32), ("llama", DType::Bf16), ("mistral_window", DType::F32)] {
        let mut model = open(name).model;
        model.spec.head = None;
        let (vocab, most) = (model.spec.vocab, model.spec.max_position);
        let mut texts = texts(vocab, most, 40);
        texts.iter_mut().for_each(|text| text.types.fill(0));
        let limits =
            Limits { vocab, max_positions: most, max_tokens: most, max_sequences: 1, pages: most / 16 };
        let mut one = load_with(&model, dtype, Isa::detect(), limits);
        let all: Vec<Vec<u32>> = texts
            .iter()
            .map(|text| bits(Session::new(&mut one).feed(&text.ids, Rows::All).expect("the step runs")))
            .collect();
        for rows in [Rows::All, Rows::Last] {
            texts.iter_mut().for_each(|text| text.rows = rows);
            let limits = Limits { max_tokens: 20, max_sequences: 5, pages: 7, ..limits };
            let loaded = Box::new(load_with(&model, dtype, Isa::detect(), limits));
            let config = ReaderConfig {
                step_tokens: 20,
                texts: 5,
                grid: Grid::LANES,
                max_requests: 100,
                max_waiting_tokens: 1 << 20,
            };
            let (found, _) = together(loaded, config, &texts);
            for (found, all) in found.iter().zip(&all) {
                let wanted = if rows == Rows::All { &all[..] } else { &all[all.len() - model.spec.hidden..] };
                assert!(found == wanted, "{name} in {dtype}, {rows:?}");
            }
        }
    }
}
