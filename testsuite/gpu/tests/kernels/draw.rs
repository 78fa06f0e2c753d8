//! The kernel that draws tokens, on the virtual GPU: the same tokens as the sampler of the host, whatever the row.

use sinter_codegen_nvptx::draw::kernel;
use sinter_codegen_nvptx::emit::Assembler;
use sinter_codegen_schedule::work::Work;
use sinter_gpu_tests::drawn::{self, params, row};
use sinter_gpu_tests::launch::Stream;
use sinter_gpu_tests::ptxas::{assemble, assembler};
use sinter_ir::draw::{Draw, NO_TOKEN};
use sinter_ir::{Binding, GpuKernel, Target};
use sinter_runtime::{SampleContext, Sampler, SamplingParams};
use sinter_vgpu::{LaunchCounters, VirtualGpu};

const TARGETS: [Target; 2] = [Target::Sm80, Target::Sm90a];

/// The tokens of rows of equal width, and what the launch counted.
fn drawn(
    kernel: &GpuKernel,
    target: Target,
    rows: &[Vec<f32>],
    draws: &[Option<Draw>],
) -> (Vec<u32>, LaunchCounters) {
    let mut device = VirtualGpu::new(target);
    let found = drawn::twice(&mut device, kernel, rows, draws);
    let [first, second] = found.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(first, second);
    (second, device.take_counters().remove(1))
}

fn agree(width: usize, count: usize) {
    let mut stream = Stream(width as u64);
    let rows: Vec<Vec<f32>> = (0..count).map(|at| row(at, width, &mut stream)).collect();
    TARGETS.into_iter().for_each(|target| same_as_host(target, &rows, &params));
}

/// Draws on the device and on the host, each row by its parameters.
fn same_as_host(target: Target, rows: &[Vec<f32>], params: &dyn Fn(usize) -> SamplingParams) {
    let mut draws = Vec::new();
    let mut host = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let mut sampler = Sampler::new(params(at)).expect("good parameters");
        draws.push(sampler.on_device(at as u64));
        let context = SampleContext { position: at as u64, ..SampleContext::default() };
        host.push(sampler.sample(row, &context).unwrap_or(NO_TOKEN));
    }
    let width = rows[0].len();
    let (tokens, _) = drawn(&compiled(target, width), target, rows, &draws);
    for (at, token) in tokens.iter().enumerate() {
        assert_eq!(*token, host[at], "{target}: row {at} of width {width}, {:?}", params(at));
    }
}

fn compiled(target: Target, width: usize) -> GpuKernel {
    let assembler = Assembler::new(target).expect("the target is known");
    kernel(&assembler, "draw".into(), width as u32).expect("the kernel compiles")
}

#[test]
fn small_rows_give_the_tokens_of_the_host() {
    agree(1, 12);
    agree(7, 105);
    agree(200, 210);
}

#[test]
fn rows_of_several_pieces_give_the_tokens_of_the_host() {
    agree(4096 * 2 + 3, 70);
}

#[test]
fn rows_of_a_large_vocabulary_give_the_tokens_of_the_host() {
    agree(128_256, 12);
}

/// Several times as many equal logits in one octave as the list of candidates holds.
#[test]
fn octaves_longer_than_the_list_give_the_tokens_of_the_host() {
    let mut stream = Stream(5);
    let rows: Vec<Vec<f32>> = (0..3)
        .map(|at| (0..10_000).map(|_| if at == 0 { 0.5 } else { 1.0 + stream.number() * 0.3 }).collect())
        .collect();
    let params = |at: usize| SamplingParams {
        temperature: 1.0,
        top_k: [9000, 8000, 0][at],
        top_p: [0.7, 0.9, 0.8][at],
        min_p: [0.0, 0.6, 0.7][at],
        ..SamplingParams::greedy()
    };
    for target in TARGETS {
        same_as_host(target, &rows, &params);
    }
}

/// The frequencies of 400 tokens drawn on the device, against the softmax: the chi-square of 15 degrees of freedom is
/// below 37.7 with probability 0.999.
#[test]
fn frequencies_follow_the_softmax() {
    let row: Vec<f32> = (0..16).map(|at| (at as f32 * 0.37).sin() * 1.5).collect();
    let draws: Vec<Option<Draw>> = (0..400)
        .map(|position| {
            let params = SamplingParams { temperature: 1.0, seed: 3, ..SamplingParams::greedy() };
            Sampler::new(params).expect("good parameters").on_device(position)
        })
        .collect();
    let (tokens, _) = drawn(&compiled(Target::Sm80, 16), Target::Sm80, &vec![row.clone(); 400], &draws);
    let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
    let chi: f64 = (0..16)
        .map(|id| {
            let wanted = f64::from(row[id]).exp() / total * 400.0;
            let found = tokens.iter().filter(|token| **token == id as u32).count() as f64;
            (found - wanted).powi(2) / wanted
        })
        .sum();
    assert!(chi < 37.7, "{chi}");
}

#[test]
fn rows_that_are_not_drawn_or_hold_no_numbers_give_no_token() {
    let none = f32::NEG_INFINITY;
    let rows = vec![
        vec![1.0, 2.0],
        vec![none, none],
        vec![f32::NAN, 1.0],
        vec![1.0, f32::INFINITY],
        vec![none, 0.0],
    ];
    for temperature in [0.0, 1.0] {
        let sampler = Sampler::new(SamplingParams { temperature, ..SamplingParams::greedy() })
            .expect("good parameters");
        let mut draws = vec![sampler.on_device(0); 5];
        draws[0] = None;
        for target in TARGETS {
            let (tokens, _) = drawn(&compiled(target, 2), target, &rows, &draws);
            assert_eq!(tokens, [NO_TOKEN, NO_TOKEN, NO_TOKEN, NO_TOKEN, 1], "{target}");
        }
    }
}

/// A token does not depend on the rows beside it.
#[test]
fn company_changes_nothing() {
    let mut stream = Stream(77);
    let rows: Vec<Vec<f32>> = (0..4).map(|at| row(at, 5000, &mut stream)).collect();
    let draw = |at: usize| Sampler::new(params(at + 8)).expect("good parameters").on_device(at as u64);
    let draws: Vec<Option<Draw>> = (0..4).map(draw).collect();
    let kernel = compiled(Target::Sm90a, 5000);
    let (together, _) = drawn(&kernel, Target::Sm90a, &rows, &draws);
    for at in 0..4 {
        let (alone, _) = drawn(&kernel, Target::Sm90a, &rows[at..at + 1], &draws[at..at + 1]);
        assert_eq!(alone[0], together[at]);
    }
}

/// Whatever the filters, a launch brings the logits from memory once, and leaves little beside.
#[test]
fn logits_are_read_once() {
    let width = 128_256;
    let mut stream = Stream(9);
    let rows = vec![row(0, width, &mut stream)];
    let params =
        SamplingParams { temperature: 0.8, top_k: 50, top_p: 0.9, min_p: 0.01, ..SamplingParams::greedy() };
    let draws = [Sampler::new(params).expect("good parameters").on_device(0)];
    for target in TARGETS {
        let kernel = compiled(target, width);
        let (_, counted) = drawn(&kernel, target, &rows, &draws);
        let scratch = kernel.scratch_bytes(&Binding::new(1, 1, 1, 16));
        let (read, computed) = (counted.counters.dram_bytes_read(), Work::of_draw(1, width as u64, scratch));
        assert!(computed.read.abs_diff(read) <= read / 50, "{computed:?}, {read} bytes were read");
        assert!(
            computed.written.abs_diff(counted.counters.dram_bytes_written()) <= read / 50,
            "{computed:?}"
        );
        let moved = counted.counters.dram_bytes_read() + counted.counters.dram_bytes_written();
        let ratio = moved as f64 / (width * 4) as f64;
        println!("{target}: {moved} bytes for a row of {width} logits, {ratio:.3} times the row");
        assert!((1.0..1.1).contains(&ratio), "{target}: {ratio}");
    }
}

#[test]
fn kernels_assemble_without_spills() {
    for target in Target::ALL {
        for width in [50_257, 128_256, 262_144] {
            let usage = assemble(&assembler(), &compiled(target, width), target)
                .unwrap_or_else(|reason| panic!("{reason}"));
            assert!(usage.registers <= 255, "{target}: {} registers", usage.registers);
        }
    }
}
