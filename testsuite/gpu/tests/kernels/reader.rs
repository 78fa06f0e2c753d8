//! Texts of an encoder in one step on the virtual GPU: each gets the bits that it gets alone.

use sinter_codegen_nvptx::compile;
use sinter_codegen_weights::pack_rows;
use sinter_ir::{DType, Target};
use sinter_runtime::reader::{Grid, Part, Reader, ReaderConfig, Text};
use sinter_runtime::{GpuConfig, GpuModel, Limits, Rows, encode, uniform};
use sinter_testsuite::compiled::{plan, weights};
use sinter_testsuite::golden::{Golden, open};
use sinter_vgpu::VirtualGpu;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// Tokens in a step: three texts at most, each in a block of its own.
const STEP: usize = 192;

fn load(golden: &Golden, target: Target) -> GpuModel {
    let plan = plan(&golden.model, DType::Bf16);
    let program = compile(&plan, target).expect("the plan compiles");
    let weights = weights(&golden.model, &plan, |def, source| pack_rows(def, source));
    let vocab = golden.model.spec.vocab;
    let limits = Limits { vocab, max_positions: 64, max_tokens: STEP, max_sequences: 4, pages: 0 };
    let device = Box::new(VirtualGpu::new(target));
    let weight = |at: usize| Ok(weights[at].clone());
    let config = GpuConfig { limits, profile: false };
    GpuModel::new(Arc::new(plan), Arc::new(program), &weight, device, config).expect("the model loads")
}

#[test]
fn texts_of_an_encoder_get_the_bits_that_they_get_alone() {
    for target in [Target::Sm80, Target::Sm90a] {
        check(target);
    }
}

fn check(target: Target) {
    let golden = open("bert");
    let vocab = golden.model.spec.vocab as f64;
    let ids = |len: u64| (0..len).map(|at| (uniform(len, at) * vocab) as u32).collect();
    let texts: Vec<Text> = [9, 23, 40].into_iter().map(|len| Text::new(ids(len), Rows::All)).collect();
    let mut alone = load(&golden, target);
    let mut one = |text: &Text| -> Vec<u32> {
        let rows = encode(&mut alone, &text.ids).expect("the step runs");
        rows.iter().map(|x| x.to_bits()).collect()
    };
    let wanted: Vec<Vec<u32>> = texts.iter().map(&mut one).collect();
    let config = ReaderConfig {
        step_tokens: STEP,
        texts: 3,
        grid: Grid::BLOCKS,
        max_requests: 8,
        max_waiting_tokens: 1000,
    };
    let (handle, thread) = Reader::spawn(Box::new(load(&golden, target)), config).expect("it starts");
    let (sender, receiver) = channel();
    let mut rows = vec![Vec::new(); texts.len()];
    let sink = move |part: Part<'_>| {
        match part {
            Part::Rows { text, rows: more } => rows[text].extend(more.iter().map(|x| x.to_bits())),
            Part::Done => sender.send(std::mem::take(&mut rows)).expect("the test waits"),
            Part::Failed(error) => panic!("{error}"),
        }
        ControlFlow::Continue(())
    };
    let ticket = handle.submit(texts, Box::new(sink)).expect("it is accepted");
    assert_eq!(receiver.recv().expect("an answer"), wanted, "{target}");
    assert_eq!(handle.stats().steps, 1, "they shared a step");
    drop((ticket, handle));
    thread.join().expect("the reader ends");
}
