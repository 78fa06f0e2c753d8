//! Planted faults: each is found, and said where it is.

use sinter_ir::{DevicePtr, GpuDevice, GpuError, LaunchArg, LaunchShape, Target};
use sinter_vgpu::VirtualGpu;

const TOTAL: &str = include_str!("ptx/total.ptx");

fn shape(blocks: u32, threads: u32) -> LaunchShape {
    LaunchShape { blocks, threads, shared_bytes: 0, cluster: 1, dependent: false }
}

fn zeros(gpu: &mut VirtualGpu, bytes: u64) -> DevicePtr {
    let at = gpu.alloc(bytes).expect("memory");
    gpu.clear(at, bytes).expect("cleared");
    at
}

/// What is said of an error.
fn reason(result: Result<(), GpuError>) -> String {
    match result {
        Err(GpuError::Kernel { kernel, reason }) => format!("{kernel}: {reason}"),
        Err(other) => other.to_string(),
        Ok(()) => panic!("nothing was found"),
    }
}

/// The text with a piece replaced; it must be there.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in the kernel");
    text.replace(from, to)
}

/// Runs `total` over `n` values a block, of which `held` are there.
fn total(ptx: &str, (n, held): (u32, u64), launch: LaunchShape) -> Result<(), GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm80);
    let x = zeros(&mut gpu, 4 * held);
    let (sums, count, out) = (gpu.alloc(4 * u64::from(launch.blocks))?, zeros(&mut gpu, 4), gpu.alloc(4)?);
    let kernel = gpu.load(ptx, "total", 0)?;
    let pointers = [x, sums, count, out].map(LaunchArg::Address);
    gpu.launch(kernel, launch, &[&pointers[..], &[LaunchArg::U32(n)]].concat())
}

/// A kernel of one block of 64 threads with a body; `x` has 64 words of zero, `y` 64 words that were never written.
fn run(body: &str) -> Result<(), GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm90a);
    let (x, y) = (zeros(&mut gpu, 256), gpu.alloc(256)?);
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 x, .param .u64 y)\n.reqntid 64\n{{\n\
         .reg .pred %p<9>;\n.reg .b32 %r<9>;\n.reg .b64 %rd<9>;\n.shared .align 16 .b8 sm[256];\nmov.u32 %r1, %tid.x;\n\
         mul.wide.u32 %rd1, %r1, 4;\nld.param.b64 %rd2, [x];\nld.param.b64 %rd3, [y];\nadd.s64 %rd4, %rd2, %rd1;\n\
         add.s64 %rd5, %rd3, %rd1;\nmov.b64 %rd6, sm;\nadd.s64 %rd6, %rd6, %rd1;\n{body}\nret;\n}}\n"
    );
    let kernel = gpu.load(&text, "k", 0)?;
    gpu.launch(kernel, shape(1, 64), &[x, y].map(LaunchArg::Address))
}

/// What is said of a body that goes wrong.
fn found(body: &str) -> String {
    reason(run(body))
}

#[test]
fn what_is_right_passes() -> Result<(), GpuError> {
    total(TOTAL, (100, 300), shape(3, 128))?;
    run("ld.global.b32 %r2, [%rd4]; st.global.b32 [%rd5], %r2;")?;
    run(
        "st.shared.b32 [%rd6], %r1; bar.sync 0; xor.b32 %r2, %r1, 63; mul.wide.u32 %rd7, %r2, 4; mov.b64 %rd8, sm; \
         add.s64 %rd7, %rd7, %rd8; ld.shared.b32 %r3, [%rd7]; bar.sync 0; st.shared.b32 [%rd6], %r3;",
    )
}

#[test]
fn a_dropped_barrier_is_a_race() {
    let first = TOTAL.find("bar.sync").expect("a barrier");
    let second = TOTAL[first + 8..].find("bar.sync").expect("another") + first + 8;
    for at in [first, second] {
        let text = [&TOTAL[..at], "//", &TOTAL[at + 2..]].concat();
        let said = reason(total(&text, (100, 300), shape(3, 128)));
        assert!(said.starts_with("total: race") || said.contains("never written"), "{said}");
    }
    let said = found(
        "st.shared.b32 [%rd6], %r1; xor.b32 %r2, %r1, 63; mul.wide.u32 %rd7, %r2, 4; mov.b64 %rd8, sm; add.s64 %rd7, %rd7, \
         %rd8; bar.sync 0; ld.shared.b32 %r3, [%rd7]; st.shared.b32 [%rd6], %r3;",
    );
    assert!(said.contains("race: shared address") && said.contains("no barrier stands between"), "{said}");
}

#[test]
fn lanes_that_do_not_wait_for_one_another_race() {
    let exchange = "st.shared.b32 [%rd6], %r1; SYNC xor.b32 %r2, %r1, 1; mul.wide.u32 %rd7, %r2, 4; mov.b64 %rd8, sm; \
                    add.s64 %rd7, %rd7, %rd8; ld.shared.b32 %r3, [%rd7];";
    let said = found(&exchange.replace("SYNC", ""));
    assert!(said.contains("of the same warp wrote it") && said.contains("bar.warp.sync"), "{said}");
    run(&exchange.replace("SYNC", "bar.warp.sync -1;")).expect("lanes that met");
}

#[test]
fn accesses_out_of_bounds_are_found() {
    let said = reason(total(TOTAL, (101, 302), shape(3, 128)));
    assert!(said.contains("out of bounds") && said.contains("allocation of 1208 bytes"), "{said}");
    assert!(said.contains("block 2, thread 100") && said.contains("ld.global.b32"), "{said}");
    let said = found("st.global.b32 [%rd4+4], %r1;");
    assert!(said.contains("out of bounds: 4 bytes") && said.contains("thread 63"), "{said}");
    let said = found("ld.global.b32 %r2, [%rd4+-4];");
    assert!(said.contains("4 bytes before an allocation") && said.contains("thread 0"), "{said}");
    let said = found("mov.b64 %rd7, 0; ld.global.b32 %r2, [%rd7];");
    assert!(said.contains("out of bounds"), "{said}");
    let said = found("st.shared.b32 [%rd6+4], %r1;");
    assert!(said.contains("are outside of") && said.contains("thread 63"), "{said}");
}

#[test]
fn memory_that_was_freed_is_found() {
    let mut gpu = VirtualGpu::new(Target::Sm80);
    let x = zeros(&mut gpu, 4 * 300);
    let (sums, count, out) = (zeros(&mut gpu, 12), zeros(&mut gpu, 4), zeros(&mut gpu, 4));
    gpu.free(x).expect("freed");
    let kernel = gpu.load(TOTAL, "total", 0).expect("loaded");
    let pointers = [x, sums, count, out].map(LaunchArg::Address);
    let said = reason(gpu.launch(kernel, shape(3, 128), &[&pointers[..], &[LaunchArg::U32(100)]].concat()));
    assert!(said.contains("that were freed"), "{said}");
    assert!(gpu.free(x).is_err());
    assert!(gpu.read(x, &mut [0]).is_err());
}

#[test]
fn uninitialised_reads_are_found() {
    let said = found("ld.global.b32 %r2, [%rd5];");
    assert!(said.contains("never written: an uninitialised read") && said.contains("thread 0"), "{said}");
    let said = found("st.global.b8 [%rd5], %r1; ld.global.b32 %r2, [%rd5];");
    assert!(said.contains("(1 bytes into an allocation"), "{said}");
    let said = found("ld.shared.b32 %r2, [%rd6];");
    assert!(said.contains("uninitialised read"), "{said}");
    let said = found("add.s32 %r2, %r3, 1;");
    assert!(said.contains("a register is read that was never set"), "{said}");
    let said = found("setp.eq.b32 %p1, %r1, 5; @%p1 mov.b32 %r3, 1; add.s32 %r2, %r3, 1;");
    assert!(said.contains("never set") && said.contains("thread 0"), "{said}");
    let said = found("@%p2 mov.b32 %r3, 1;");
    assert!(said.contains("never set"), "{said}");
    // A value that was never set may be moved about as long as nobody uses it.
    run("mov.b32 %r2, %r3; setp.eq.b32 %p1, %r1, 5; selp.b32 %r4, %r1, %r2, %p1; @%p1 add.s32 %r5, %r4, 1;")
        .expect("nobody used it");
}

#[test]
fn misaligned_accesses_are_found() {
    let said = found("ld.global.v2.b32 {%r2, %r3}, [%rd4];");
    assert!(said.contains("misaligned: 8 bytes") && said.contains("thread 1"), "{said}");
    let said = found("ld.global.b64 %rd7, [%rd4];");
    assert!(said.contains("misaligned"), "{said}");
    let said = found("st.shared.b32 [%rd6+2], %r1;");
    assert!(said.contains("misaligned: 4 bytes"), "{said}");
}

#[test]
fn deadlocks_are_found() {
    // The second warp waits for 96 threads that do not exist.
    let said = found("setp.lt.u32 %p1, %r1, 32; @%p1 bra end; bar.sync 1, 64; end:");
    assert!(said.contains("deadlock: 1 warps wait") && said.contains("at barrier 1"), "{said}");
    let said = found(
        "setp.lt.u32 %p1, %r1, 32; @%p1 bra one; bar.sync 1, 64; bra.uni end; one: bar.sync 2, 64; end:",
    );
    assert!(said.contains("deadlock: 2 warps wait"), "{said}");
    let spin =
        "loop: nanosleep.u32 20; ld.volatile.global.b32 %r2, [%rd2]; setp.eq.b32 %p1, %r2, 0; @%p1 bra loop;";
    let said = found("loop: ld.volatile.global.b32 %r2, [%rd2]; setp.eq.b32 %p1, %r2, 0; @%p1 bra loop;");
    assert!(said.contains("an endless loop"), "{said}");
    let said = found(spin);
    assert!(said.contains("deadlock") && said.contains("spinning"), "{said}");
}

#[test]
fn divergence_where_none_may_be_is_found() {
    let said = found("setp.lt.u32 %p1, %r1, 16; @!%p1 bra end; bar.sync 0; end:");
    assert!(said.contains("divergent") && said.contains("thread 16"), "{said}");
    let said = found("setp.lt.u32 %p1, %r1, 16; @!%p1 bra end; shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1; end:");
    assert!(said.contains("divergent: the member mask"), "{said}");
    run("setp.lt.u32 %p1, %r1, 16; @!%p1 bra end; shfl.sync.bfly.b32 %r2, %r1, 1, 31, 0xffff; end:")
        .expect("half a warp");
    let said = found("and.b32 %r2, %r1, 31; bar.sync %r2;");
    assert!(said.contains("must be the same in all lanes"), "{said}");
}

#[test]
fn wrong_launches_are_refused() {
    let said = reason(total(TOTAL, (100, 300), shape(3, 64)));
    assert!(said.contains("launched with 64 threads, .reqntid demands 128, 1, 1"), "{said}");
    let said = reason(total(TOTAL, (100, 300), LaunchShape { shared_bytes: 1 << 20, ..shape(3, 128) }));
    assert!(said.contains("bytes of shared memory"), "{said}");
    let said = reason(total(TOTAL, (100, 300), LaunchShape { cluster: 3, ..shape(3, 128) }));
    assert!(said.contains("no clusters"), "{said}");
    let mut gpu = VirtualGpu::new(Target::Sm80);
    let kernel = gpu.load(TOTAL, "total", 0).expect("loaded");
    let said = reason(gpu.launch(kernel, shape(1, 128), &[LaunchArg::U32(1)]));
    assert!(said.contains("launched with 1 arguments, the entry has 5"), "{said}");
    let args = [1, 2, 3, 4, 5].map(LaunchArg::U32);
    let said = reason(gpu.launch(kernel, shape(1, 128), &args));
    assert!(said.contains("argument 0 has 4 bytes, total_param_0 has 8"), "{said}");
    assert!(gpu.load(TOTAL, "other", 0).is_err());
    assert!(gpu.load(TOTAL, "total", 164 << 10).is_err());
    assert!(VirtualGpu::new(Target::Sm80).load(&TOTAL.replace("sm_80", "sm_90a"), "total", 0).is_err());
}

#[test]
fn what_is_not_known_is_refused_with_its_line() {
    let said = found("frob.b32 %r1, %r2;");
    assert!(said.contains("frob.b32 with 2 operands is no form that the virtual GPU knows"), "{said}");
    assert!(said.contains("PTX line 19") && said.ends_with("frob.b32 %r1, %r2;"), "{said}");
    for body in [
        "add.f32 %r1, %r1, %r1;",
        "add.s32 %r1, %r2;",
        "add.s32 %r1, %rd1, %r2;",
        "add.s32 %r99, %r1, %r1;",
        "bra nowhere;",
        "ld.global.v3.b32 {%r1, %r2, %r3}, [%rd1];",
        "ld.global.b32.b32 %r1, [%rd1];",
        "mov.u32 %r1, %clock;",
        "setp.lt.b32 %p1, %r1, %r2;",
        "same: same: mov.b32 %r1, 0;",
    ] {
        assert!(matches!(run(body), Err(GpuError::Module { .. })), "{body}");
    }
    for text in
        ["", ".version", ".visible .entry k(", "}", ".version 8.0 .target sm_80 .entry k() { @ }", "\u{1}"]
    {
        assert!(VirtualGpu::new(Target::Sm80).load(text, "k", 0).is_err(), "{text}");
    }
}

/// Cut off anywhere, a module is refused or still right, and nothing panics.
#[test]
fn torn_modules_do_no_harm() {
    for end in (0..TOTAL.len()).step_by(7).filter(|end| TOTAL.is_char_boundary(*end)) {
        let mut gpu = VirtualGpu::new(Target::Sm80);
        let whole = TOTAL[end..].trim_start_matches(|c: char| c != '}').len() <= 1;
        assert!(whole || gpu.load(&TOTAL[..end], "total", 0).is_err(), "cut at {end}");
    }
}

#[test]
fn the_first_block_with_a_fault_is_told_on_any_number_of_threads() {
    let text = with(TOTAL, "bar.sync \t0", "barrier.sync.aligned \t0");
    let said: Vec<String> = [1, 2, 7]
        .map(|workers| {
            let mut gpu = VirtualGpu::new(Target::Sm80).with_workers(workers);
            let x = zeros(&mut gpu, 4 * 5000);
            let (sums, count, out) = (zeros(&mut gpu, 400), zeros(&mut gpu, 4), zeros(&mut gpu, 4));
            let kernel = gpu.load(&text, "total", 0).expect("loaded");
            let pointers = [x, sums, count, out].map(LaunchArg::Address);
            reason(gpu.launch(kernel, shape(100, 128), &[&pointers[..], &[LaunchArg::U32(100)]].concat()))
        })
        .to_vec();
    assert!(said[0].contains("block 50"), "{}", said[0]);
    assert!(said.iter().all(|other| *other == said[0]), "{said:?}");
}
