//! Attention on the virtual GPU: against the evaluator of tile programs, and the same bits whatever the schedule, the
//! batch, the chunking and the pages.

use sinter_codegen_nvptx::attend::{Job, kernel};
use sinter_codegen_nvptx::emit::Assembler;
use sinter_codegen_schedule::attend::{Attend, AttendSchedule};
use sinter_codegen_schedule::codes::Format;
use sinter_gpu_tests::attention::{Form, Mask, Token, World, launch};
use sinter_gpu_tests::launch::{Stream, same_bits};
use sinter_ir::{Binding, GpuKernel, Target, Tensor, TileProgram, evaluate_tile};
use sinter_vgpu::VirtualGpu;
use std::collections::BTreeMap;

/// A form with its kernels, one for each schedule.
struct Subject {
    program: TileProgram,
    kernels: Vec<(AttendSchedule, GpuKernel)>,
    device: VirtualGpu,
}

impl Subject {
    fn new(form: Form, target: Target) -> Subject {
        Subject::with(form, target, |_| true)
    }

    /// The same with some schedules only.
    fn with(form: Form, target: Target, wanted: impl Fn(&AttendSchedule) -> bool) -> Subject {
        let program = form.program();
        let attend = Attend::of(&program).expect("it is attention");
        let assembler = Assembler::new(target).expect("the target is known");
        let schedules = attend.schedules(target, Some(16)).into_iter().filter(wanted);
        let kernels = schedules.map(|schedule| {
            let constant = &vec![false; program.params.len()];
            let job = Job { name: "attend", tile: &program, attend: &attend, schedule, constant };
            (schedule, kernel(&assembler, job).expect("the kernel compiles"))
        });
        let kernels = kernels.collect();
        Subject { program, kernels, device: VirtualGpu::new(target) }
    }

    fn out(&mut self, which: usize, step: &(Binding, Vec<Tensor<f32>>)) -> Vec<f32> {
        let (schedule, kernel) = &self.kernels[which];
        let out = launch(&mut self.device, (kernel, &self.program), step);
        out.unwrap_or_else(|error| panic!("{schedule}: {error}"))
    }
}

fn expected(program: &TileProgram, (binding, params): &(Binding, Vec<Tensor<f32>>)) -> Vec<f64> {
    let wide = |tensor: &Tensor<f32>| {
        Tensor::new(tensor.shape.clone(), tensor.data.iter().map(|x| f64::from(*x)).collect())
    };
    let mut params: Vec<Tensor<f64>> = params.iter().map(wide).collect();
    evaluate_tile(program, binding, &mut params);
    params.swap_remove(6).data
}

/// Every schedule against the evaluator. Weights and results in bf16 are off by 2⁻⁹ of at most 1 each.
fn check(form: Form, target: Target, step: (&[usize], &[Token])) {
    check_some(form, (target, &|_| true), step);
}

/// The same of some schedules.
fn check_some(
    form: Form,
    (target, wanted): (Target, &dyn Fn(&AttendSchedule) -> bool),
    (lengths, tokens): (&[usize], &[Token]),
) {
    let mut subject = Subject::with(form, target, wanted);
    assert!(!subject.kernels.is_empty(), "no schedule for {form:?}");
    let step = World::new(form, lengths, 11).step(tokens, 5);
    let expected = expected(&subject.program, &step);
    let most = if form.dtype == "bf16" { 8e-3 } else { 2e-6 };
    for which in 0..subject.kernels.len() {
        let found = subject.out(which, &step);
        for (at, (found, wanted)) in found.iter().zip(&expected).enumerate() {
            let error = (f64::from(*found) - wanted).abs();
            assert!(
                error <= most,
                "{}: element {at} of {form:?}: {found} for {wanted}",
                subject.kernels[which].0
            );
        }
    }
}

fn form(dtype: &'static str, (heads, group): (u32, u32), widths: (u32, u32), mask: Mask) -> Form {
    Form { dtype, codes: None, heads, group, widths, mask, capped: false }
}

/// Ends of two sequences and a whole short one, in no order.
const RAGGED: (&[usize], &[Token]) =
    (&[70, 9, 131], &[(0, 68), (0, 69), (2, 130), (1, 0), (1, 1), (1, 2), (1, 7), (2, 64), (2, 63)]);

#[test]
fn attend_in_f32() {
    check(form("f32", (2, 3), (10, 10), Mask::Causal), Target::Sm80, RAGGED);
    check(form("f32", (3, 1), (16, 40), Mask::Window(7)), Target::Sm90a, RAGGED);
    check(Form { capped: true, ..form("f32", (1, 6), (12, 8), Mask::Table) }, Target::Sm80, RAGGED);
    check(form("f32", (3, 1), (10, 10), Mask::Sequence), Target::Sm80, RAGGED);
}

#[test]
fn attend_in_bf16() {
    check(form("bf16", (2, 3), (10, 10), Mask::Causal), Target::Sm80, RAGGED);
    check(form("bf16", (1, 4), (64, 64), Mask::Causal), Target::Sm90a, RAGGED);
    check(form("bf16", (2, 1), (32, 80), Mask::Window(67)), Target::Sm80, RAGGED);
    check(Form { capped: true, ..form("bf16", (1, 20), (16, 24), Mask::Table) }, Target::Sm89, RAGGED);
    check(form("bf16", (3, 1), (10, 10), Mask::Sequence), Target::Sm80, RAGGED);
}

fn coded(codes: Format, form: Form) -> Form {
    Form { codes: Some(codes), ..form }
}

/// Rows of whole pieces of 16 bytes and others, masks that say where a context ends and others, in f32 and in bf16.
#[test]
fn attend_on_codes() {
    let narrow = form("bf16", (2, 3), (10, 10), Mask::Causal);
    check(coded(Format::Int8, form("bf16", (1, 4), (64, 64), Mask::Causal)), Target::Sm80, RAGGED);
    check(coded(Format::E4m3, narrow), Target::Sm80, RAGGED);
    check(coded(Format::Int4, form("bf16", (2, 1), (32, 80), Mask::Window(67))), Target::Sm90a, RAGGED);
    let capped = Form { capped: true, ..form("bf16", (1, 20), (16, 24), Mask::Table) };
    check(coded(Format::Int8, capped), Target::Sm89, RAGGED);
    check(coded(Format::E4m3, form("bf16", (1, 2), (48, 64), Mask::Window(7))), Target::Sm90a, RAGGED);
    check(coded(Format::Int8, form("f32", (2, 3), (10, 10), Mask::Causal)), Target::Sm80, RAGGED);
    check(coded(Format::E4m3, form("f32", (3, 1), (16, 40), Mask::Window(7))), Target::Sm90a, RAGGED);
    let capped = Form { capped: true, ..form("f32", (1, 6), (12, 8), Mask::Table) };
    check(coded(Format::Int4, capped), Target::Sm80, RAGGED);
}

#[test]
fn attend_over_several_splits() {
    let long: (&[usize], &[Token]) = (&[1030, 600], &[(0, 1029), (1, 599), (0, 511), (0, 512), (1, 3)]);
    check(form("bf16", (1, 3), (16, 16), Mask::Causal), Target::Sm80, long);
    check(form("bf16", (1, 1), (16, 16), Mask::Window(530)), Target::Sm80, long);
    check(form("f32", (1, 2), (8, 8), Mask::Causal), Target::Sm80, long);
    check(coded(Format::Int8, form("bf16", (1, 3), (16, 16), Mask::Causal)), Target::Sm80, long);
}

/// What every token of some sequences gets, in steps of the tokens that `cut` gives.
fn outcome(
    subject: &mut Subject,
    world: &World,
    which: usize,
    steps: &[Vec<Token>],
) -> BTreeMap<Token, Vec<u32>> {
    let mut all = BTreeMap::new();
    for (number, tokens) in steps.iter().enumerate() {
        let out = subject.out(which, &world.step(tokens, 100 * which as u64 + number as u64));
        let width = out.len() / tokens.len();
        for (token, row) in tokens.iter().zip(out.chunks(width)) {
            all.insert(*token, row.iter().map(|x| x.to_bits()).collect());
        }
    }
    all
}

/// The same tokens in steps of random company and length, each sequence in order.
fn shuffled(lengths: &[usize], first: usize, stream: &mut Stream) -> Vec<Vec<Token>> {
    let mut next: Vec<usize> = lengths.iter().map(|length| length.saturating_sub(first)).collect();
    let mut steps = Vec::new();
    while next.iter().zip(lengths).any(|(next, length)| next < length) {
        let mut tokens = Vec::new();
        for (sequence, length) in lengths.iter().enumerate() {
            let count = stream.below(7).min(length - next[sequence]).min(16 - tokens.len());
            tokens.extend((next[sequence]..next[sequence] + count).map(|at| (sequence, at)));
            next[sequence] += count;
        }
        if !tokens.is_empty() {
            steps.push(tokens);
        }
    }
    steps
}

#[test]
fn attend_gives_the_same_bits() {
    let forms = [
        form("f32", (1, 2), (8, 8), Mask::Causal),
        form("bf16", (2, 3), (10, 10), Mask::Causal),
        form("bf16", (1, 4), (64, 64), Mask::Window(300)),
        Form { capped: true, ..form("bf16", (1, 1), (32, 16), Mask::Causal) },
        coded(Format::Int8, form("bf16", (1, 2), (16, 32), Mask::Causal)),
        coded(Format::Int4, form("f32", (1, 2), (8, 8), Mask::Causal)),
    ];
    let lengths = [620, 66, 530, 12];
    for form in forms {
        let mut subject = Subject::new(form, Target::Sm80);
        let world = World::new(form, &lengths, 3);
        let mut stream = Stream(17);
        let one_by_one: Vec<Vec<Token>> =
            shuffled(&lengths, 10, &mut stream).concat().into_iter().map(|token| vec![token]).collect();
        let wanted = outcome(&mut subject, &world, 0, &one_by_one);
        for which in 0..subject.kernels.len() {
            let steps = shuffled(&lengths, 10, &mut stream);
            let found = outcome(&mut subject, &world, which, &steps);
            assert!(found == wanted, "{} of {form:?}", subject.kernels[which].0);
        }
    }
}

/// What a token does not see has no part in its result, whatever lies there: infinite values of a later token in the same
/// step, and those that a window has left behind, change no bit of the others. Tiles of tensor cores are not held to it:
/// they multiply what is hidden from some of their rows by 0, so values must be finite there (docs/gpu.md).
#[test]
fn attend_leaves_out_what_is_hidden() {
    for form in [
        form("f32", (1, 2), (8, 8), Mask::Causal),
        form("bf16", (1, 2), (16, 16), Mask::Causal),
        form("bf16", (1, 2), (16, 16), Mask::Window(5)),
        coded(Format::E4m3, form("f32", (1, 2), (8, 8), Mask::Causal)),
        coded(Format::Int8, form("bf16", (1, 2), (16, 16), Mask::Window(5))),
    ] {
        let mut subject = Subject::new(form, Target::Sm80);
        let tokens: Vec<Token> = (0..16).map(|at| (0, at)).collect();
        let (mut world, hidden) = (World::new(form, &[16], 4), 9);
        let by_tiles =
            |(schedule, _): &(AttendSchedule, GpuKernel)| matches!(schedule, AttendSchedule::Tiles { .. });
        let held: Vec<usize> =
            (0..subject.kernels.len()).filter(|which| !by_tiles(&subject.kernels[*which])).collect();
        assert!(!held.is_empty(), "a schedule of {form:?}");
        for which in held {
            let wanted = subject.out(which, &world.step(&tokens, 2));
            world.set_values((0, hidden), f32::INFINITY);
            let found = subject.out(which, &world.step(&tokens, 2));
            world = World::new(form, &[16], 4);
            let sees = |at: usize| match form.mask {
                Mask::Window(window) => at >= hidden && at < hidden + window as usize,
                _ => at >= hidden,
            };
            let width = wanted.len() / tokens.len();
            for at in (0..16).filter(|at| !sees(*at)) {
                let rows = [&wanted, &found].map(|all| &all[at * width..][..width]);
                assert!(same_bits(rows[0], rows[1]), "{} of {form:?}, token {at}", subject.kernels[which].0);
            }
        }
    }
}

fn in_warpgroups(schedule: &AttendSchedule) -> bool {
    matches!(schedule, AttendSchedule::Warpgroups { .. })
}

/// The widths of models, groups, windows, caps, one score more, and sequences without pages.
fn forms_of_warpgroups() -> [Form; 7] {
    [
        form("bf16", (1, 4), (64, 64), Mask::Causal),
        form("bf16", (2, 1), (80, 80), Mask::Window(67)),
        Form { capped: true, ..form("bf16", (1, 3), (96, 96), Mask::Causal) },
        form("bf16", (1, 4), (128, 128), Mask::Causal),
        form("bf16", (1, 2), (256, 256), Mask::Window(100)),
        Form { capped: true, ..form("bf16", (1, 1), (32, 16), Mask::Causal) },
        form("bf16", (3, 1), (64, 64), Mask::Sequence),
    ]
}

#[test]
fn attend_in_warpgroups_of_narrow_heads() {
    for form in forms_of_warpgroups().into_iter().filter(|form| form.widths.0 < 96) {
        check_some(form, (Target::Sm90a, &in_warpgroups), RAGGED);
    }
}

#[test]
fn attend_in_warpgroups_of_wide_heads() {
    for form in forms_of_warpgroups().into_iter().filter(|form| form.widths.0 >= 96) {
        check_some(form, (Target::Sm90a, &in_warpgroups), RAGGED);
    }
}

#[test]
fn attend_in_warpgroups_over_several_splits() {
    let long: (&[usize], &[Token]) = (&[1030, 600], &[(0, 1029), (1, 599), (0, 511), (0, 512), (1, 3)]);
    check_some(form("bf16", (1, 3), (16, 16), Mask::Causal), (Target::Sm90a, &in_warpgroups), long);
    check_some(form("bf16", (1, 1), (16, 16), Mask::Window(530)), (Target::Sm90a, &in_warpgroups), long);
}

/// Prefill in one step of more rows than a tile has, and in pieces, against one token at a time by splits: the same bits on
/// Hopper, whose `wgmma` adds as its `mma.sync` does.
#[test]
fn attend_in_warpgroups_gives_the_bits_of_decode() {
    let lengths = [200, 12, 70];
    let wanted = |schedule: &AttendSchedule| {
        in_warpgroups(schedule) || *schedule == AttendSchedule::Splits { stages: 2 }
    };
    let forms = forms_of_warpgroups();
    for form in forms.into_iter().filter(|form| form.mask != Mask::Sequence) {
        let mut subject = Subject::with(form, Target::Sm90a, wanted);
        assert!(!in_warpgroups(&subject.kernels[0].0) && subject.kernels.len() > 1, "{form:?}");
        let world = World::new(form, &lengths, 3);
        let all: Vec<Token> = (0..3).flat_map(|of| (0..lengths[of]).map(move |at| (of, at))).collect();
        // Every seventh token alone.
        let alone: Vec<Vec<Token>> = all.iter().step_by(7).map(|token| vec![*token]).collect();
        let decoded = outcome(&mut subject, &world, 0, &alone);
        for which in 1..subject.kernels.len() {
            let cuts = [150, 60, 40, 32];
            let mut rest = &all[..];
            let pieces = cuts.map(|cut| rest.split_off(..cut).expect("so many tokens").to_vec());
            for steps in [vec![all.clone()], pieces.to_vec()] {
                let found = outcome(&mut subject, &world, which, &steps);
                let same = decoded.iter().all(|(token, bits)| found[token] == *bits);
                assert!(same, "{} of {form:?}", subject.kernels[which].0);
            }
        }
    }
}

/// What the kernel does so that its copies and products see what was written, left out: it is found.
#[test]
fn attend_in_warpgroups_without_a_fence_or_a_wait_is_found() {
    let form = form("bf16", (1, 2), (64, 64), Mask::Causal);
    let mut subject = Subject::with(form, Target::Sm90a, in_warpgroups);
    let tokens: Vec<Token> = (100..150).map(|at| (0, at)).collect();
    let step = World::new(form, &[150], 11).step(&tokens, 5);
    let (_, kernel) = &subject.kernels[0];
    let mut damaged = |text: &str, from: usize, by: &str| {
        let mut kernel = kernel.clone();
        let at = kernel.ptx.match_indices(text).nth(from).map(|(at, _)| at);
        let at = at.unwrap_or_else(|| panic!("{text} is not in\n{}", kernel.ptx));
        kernel.ptx.replace_range(at..at + text.len(), by);
        launch(&mut subject.device, (&kernel, &subject.program), &step).map(|_| ())
    };
    assert_eq!(damaged("// begin inline asm", 0, "//"), Ok(()));
    let mut found = |text, from, by| damaged(text, from, by).expect_err(text).to_string();
    // The first fence shows the mbarriers to copies, the second the zeros in place of keys beyond the range.
    let said = found("fence.proxy.async.shared::cta", 1, "//");
    assert!(said.contains("no fence.proxy.async stands after the write"), "{said}");
    let said = found("wgmma.wait_group.sync.aligned 0", 0, "wgmma.wait_group.sync.aligned 1");
    assert!(said.contains("no wgmma.wait_group stands between"), "{said}");
    let said = found("wgmma.fence.sync.aligned", 1, "//");
    assert!(said.contains("written after the last wgmma.fence"), "{said}");
    // Arrivals of a multiplying warp.
    let said = found("mbarrier.arrive.shared.b64", 2, "// ");
    assert!(said.contains("deadlock"), "{said}");
}
