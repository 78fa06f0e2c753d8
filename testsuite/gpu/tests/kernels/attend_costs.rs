//! What attention costs, as the virtual GPU counts it, and what NVIDIA's assembler says of it.

use sinter_codegen_nvptx::attend::{Job, kernel};
use sinter_codegen_nvptx::emit::Assembler;
use sinter_codegen_schedule::attend::{Attend, AttendSchedule};
use sinter_codegen_schedule::codes::Format;
use sinter_gpu_tests::attention::{Form, Mask, Token, World, launch};
use sinter_gpu_tests::ptxas;
use sinter_ir::{GpuKernel, Target};
use sinter_vgpu::{Counters, VirtualGpu};

fn form((heads, group): (u32, u32), width: u32) -> Form {
    Form {
        dtype: "bf16",
        codes: None,
        heads,
        group,
        widths: (width, width),
        mask: Mask::Causal,
        capped: false,
    }
}

fn compiled(form: Form, target: Target, schedule: AttendSchedule) -> GpuKernel {
    let program = form.program();
    let attend = Attend::of(&program).expect("it is attention");
    let assembler = Assembler::new(target).expect("the target is known");
    let constant = &vec![false; program.params.len()];
    let job = Job { name: "attend", tile: &program, attend: &attend, schedule, constant };
    kernel(&assembler, job).expect("the kernel compiles")
}

fn schedules(form: Form, target: Target, most: Option<u64>) -> Vec<AttendSchedule> {
    Attend::of(&form.program()).expect("it is attention").schedules(target, most)
}

fn counted(form: Form, schedule: AttendSchedule, lengths: &[usize], tokens: &[Token]) -> Counters {
    // Of a schedule for Hopper the target follows.
    let hopper = matches!(schedule, AttendSchedule::Warpgroups { .. });
    counted_on(if hopper { Target::Sm90a } else { Target::Sm80 }, form, schedule, (lengths, tokens))
}

fn counted_on(
    target: Target,
    form: Form,
    schedule: AttendSchedule,
    (lengths, tokens): (&[usize], &[Token]),
) -> Counters {
    let kernel = compiled(form, target, schedule);
    let step = World::new(form, lengths, 1).step(tokens, 2);
    let mut device = VirtualGpu::new(target);
    launch(&mut device, (&kernel, &form.program()), &step).expect("the kernel runs");
    device.take_counters().pop().expect("a launch").counters
}

#[test]
fn attend_reads_keys_and_values_once() {
    let (form, lengths) = (form((2, 4), 128), [900, 130]);
    let schedule = schedules(form, Target::Sm80, Some(16))[0];
    let counters = counted(form, schedule, &lengths, &[(0, 899), (1, 129)]);
    let row = 2 * 128 * 2;
    let context: u64 = 2 * (900 + 130) * row;
    let queries = 2 * 4 * row;
    // Two splits of the first sequence leave the sums of four rows of two groups: 32 + 128 · 4 lanes · 4 bytes and more.
    let left = 2 * 2 * 4 * (128 + 2 + 6) * 4;
    let (read, written) = (counters.dram_bytes_read(), counters.dram_bytes_written());
    eprintln!("{schedule}: {read} bytes read of {}, {written} written, {counters:?}", context + queries);
    assert!(read as f64 <= 1.02 * (context + queries) as f64, "{read} bytes for {context}");
    assert!(written <= queries + left + 256, "{written} bytes");
    assert_eq!(counters.bank_conflicts, 0, "{counters:?}");
}

/// Of codes, their bytes and a scale for each row.
#[test]
fn attend_reads_codes_and_scales_once() {
    for (codes, bytes) in [(Format::Int8, 128), (Format::E4m3, 128), (Format::Int4, 64)] {
        let (form, lengths) = (Form { codes: Some(codes), ..form((2, 4), 128) }, [900, 130]);
        for target in [Target::Sm80, Target::Sm90a] {
            let schedule = schedules(form, target, Some(16))[0];
            let counters = counted_on(target, form, schedule, (&lengths, &[(0, 899), (1, 129)]));
            let context: u64 = 2 * (900 + 130) * 2 * (bytes + 4);
            let queries = 2 * 4 * 2 * 128 * 2;
            let read = counters.dram_bytes_read();
            let share = read as f64 / (context + queries) as f64;
            eprintln!(
                "{target} {codes:?} {schedule}: {read} bytes read, {share:.4} of the least, {counters:?}"
            );
            assert!((1.0..1.02).contains(&share), "{read} bytes for {context}");
            assert_eq!(counters.bank_conflicts, 0, "{counters:?}");
        }
    }
}

#[test]
fn attend_in_tiles_is_all_products() {
    let form = form((1, 2), 64);
    let tokens: Vec<Token> = (0..128).map(|at| (0, at)).collect();
    let schedule = schedules(form, Target::Sm80, None)[0];
    let counters = counted(form, schedule, &[128], &tokens);
    eprintln!("{schedule}: {counters:?}");
    // 32 tokens a tile: blocks of context 1, 1, 2 and 2, each two products of 64 × 64 × 64, and the sums of weights as eight
    // lanes more.
    assert_eq!(counters.matrix_flops, 6 * 2 * (2 * 64 + 8) * 64 * 64);
    assert_eq!(counters.bank_conflicts, 0, "{counters:?}");
}

#[test]
fn attend_in_warpgroups_is_all_products() {
    for width in [64, 80, 96, 128] {
        let form = form((1, 2), width);
        let tokens: Vec<Token> = (0..128).map(|at| (0, at)).collect();
        let schedule = schedules(form, Target::Sm90a, None)[0];
        assert_eq!(schedule, AttendSchedule::Warpgroups { groups: 2, stages: 2 });
        let counters = counted(form, schedule, &[128], &tokens);
        eprintln!("{width}, {schedule}: {counters:?}");
        // 64 tokens a tile of 128 rows: one block of context, then two.
        assert_eq!(counters.matrix_flops, 3 * 2 * (2 * u64::from(width) + 8) * 64 * 128);
        assert_eq!(counters.bank_conflicts, 0, "{counters:?}");
        // Queries, and keys and values, of which the second tile reads the first block again; results.
        let row = 2 * u64::from(width) / 32;
        assert_eq!(counters.dram_sectors_written, 2 * 128 * row);
        assert!(counters.dram_sectors_read <= 4 * 128 * row + 64, "{counters:?}");
    }
}

#[test]
fn attend_assembles_at_the_sizes_of_models() {
    let assembler = ptxas::assembler();
    for target in Target::ALL {
        for (shape, width) in
            [((4, 8), 64), ((2, 1), 80), ((3, 1), 96), ((8, 4), 128), ((1, 71), 64), ((4, 2), 256)]
        {
            let form = form(shape, width);
            for most in [Some(16), None] {
                // On Hopper the first two of many tokens are warpgroups.
                let some = if target == Target::Sm90a && most.is_none() { 3 } else { 2 };
                for schedule in schedules(form, target, most).into_iter().take(some) {
                    let kernel = compiled(form, target, schedule);
                    if matches!(schedule, AttendSchedule::Warpgroups { .. }) {
                        let steps = width.div_ceil(16) as usize + 4;
                        assert_eq!(kernel.ptx.matches("wgmma.mma_async").count(), steps, "{schedule}");
                    }
                    let used = ptxas::assemble(&assembler, &kernel, target)
                        .unwrap_or_else(|error| panic!("{schedule} of {form:?}: {error}"));
                    eprintln!(
                        "{target} {shape:?} {width} {schedule}: {} registers, {} bytes",
                        used.registers, kernel.shared_bytes
                    );
                }
            }
        }
    }
}

/// Heads of the widths of models, of one width in each format.
#[test]
fn attend_on_codes_assembles_at_the_sizes_of_models() {
    let assembler = ptxas::assembler();
    let shapes = [((4, 8), 64), ((8, 4), 128), ((4, 2), 256)];
    for (at, target) in Target::ALL.into_iter().enumerate() {
        for (n, (shape, width)) in shapes.into_iter().enumerate() {
            let codes = [Format::Int8, Format::E4m3, Format::Int4][(at + n) % 3];
            let form = Form { codes: Some(codes), ..form(shape, width) };
            for most in [Some(16), None] {
                let schedule = schedules(form, target, most)[0];
                let kernel = compiled(form, target, schedule);
                let used = ptxas::assemble(&assembler, &kernel, target)
                    .unwrap_or_else(|error| panic!("{schedule} of {form:?}: {error}"));
                eprintln!(
                    "{target} {codes:?} {shape:?} {width} {schedule}: {} registers, {} bytes",
                    used.registers, kernel.shared_bytes
                );
            }
        }
    }
}
