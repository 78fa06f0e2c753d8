//! Races on global memory between the blocks of a launch, and between the warps of a block.

use sinter_ir::{GpuDevice, GpuError, LaunchArg, LaunchShape, Target};
use sinter_vgpu::VirtualGpu;

/// Blocks of so many threads run a body. `%rd1` is `x`, 64 words of zero; `%r1` is the thread, `%r2` the block, and `%rd2`
/// the place of the thread's word of its block's half of `x`.
fn run(body: &str, (blocks, threads): (u32, u32), workers: u32) -> Result<(), GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm90a).with_workers(workers);
    let x = gpu.alloc(256)?;
    gpu.clear(x, 256)?;
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 x)\n{{\n.reg .pred %p<9>;\n\
         .reg .b16 %h<9>;\n.reg .b32 %r<9>;\n.reg .b64 %rd<9>;\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, %ctaid.x;\n\
         ld.param.b64 %rd1, [x];\nmad.lo.s32 %r3, %r2, 32, %r1;\nmul.wide.u32 %rd2, %r3, 4;\nadd.s64 %rd2, %rd1, %rd2;\n\
         mov.b32 %r4, 7;\nsetp.eq.u32 %p1, %r1, 0;\nsetp.eq.u32 %p2, %r2, 0;\n{body}\nret;\n}}\n"
    );
    let kernel = gpu.load(&text, "k", 0)?;
    let shape = LaunchShape { blocks, threads, shared_bytes: 0, cluster: 1, dependent: false };
    // The second launch must not be disturbed by what the first one did.
    (0..2).try_for_each(|_| gpu.launch(kernel, shape, &[LaunchArg::Address(x)]))
}

fn race(body: &str, shape: (u32, u32), wanted: &str) {
    for workers in [1, 2] {
        let error = run(body, shape, workers).expect_err(body).to_string();
        assert!(error.contains("race: global address") && error.contains(wanted), "{body}: {error}");
    }
}

fn fine(body: &str, shape: (u32, u32)) {
    for workers in [1, 2] {
        run(body, shape, workers).unwrap_or_else(|error| panic!("{body}: {error}"));
    }
}

/// What a block tells another: the word before the flag, then the flag, at which block 1 looks until it is there.
fn handshake(tell: &str, look: &str) -> String {
    format!(
        "@!%p1 bra $end;\n@!%p2 bra $other;\nst.global.b32 [%rd1+128], %r4;\n{tell}\nbra $end;\n$other:\n{look}\n\
         ld.global.b32 %r6, [%rd1+128];\n$end:"
    )
}

#[test]
fn blocks_that_touch_their_own_words_do_not_race() {
    fine("ld.global.b32 %r5, [%rd2];\nst.global.b32 [%rd2], %r4;\nld.global.b32 %r5, [%rd2];", (2, 32));
    fine("ld.global.b32 %r5, [%rd1];", (2, 32));
    // Two halves of a word by two blocks.
    fine(
        "mul.wide.u32 %rd3, %r2, 2;\nadd.s64 %rd3, %rd1, %rd3;\ncvt.u16.u32 %h1, %r4;\n@%p1 st.global.b16 [%rd3], %h1;",
        (2, 32),
    );
}

#[test]
fn blocks_that_touch_one_word_race() {
    race("st.global.b32 [%rd1], %r4;", (2, 1), "is written while block");
    race("@%p2 st.global.b32 [%rd1], %r4;\n@!%p2 ld.global.b32 %r5, [%rd1];", (2, 1), "block");
    race("@%p2 ld.global.b32 %r5, [%rd1];\n@!%p2 st.global.b32 [%rd1], %r4;", (2, 1), "block");
    race(
        "ld.global.b32 %r5, [%rd1];\nsetp.eq.u32 %p3, %r2, 3;\n@%p3 st.global.b32 [%rd1], %r4;",
        (4, 1),
        "block",
    );
    // A copy reads what another block writes.
    let copy = ".shared .align 16 .b8 sm[16];\nmov.b64 %rd3, sm;\n@%p2 st.global.b32 [%rd1], %r4;\n\
                @!%p2 cp.async.ca.shared.global [%rd3], [%rd1], 16;\ncp.async.wait_all;";
    race(copy, (2, 1), "block");
}

#[test]
fn atomics_meet_and_other_accesses_do_not_meet_them() {
    fine("atom.global.add.u32 %r5, [%rd1], 1;", (4, 32));
    fine("@%p2 st.relaxed.gpu.global.b32 [%rd1], %r4;\n@!%p2 ld.relaxed.gpu.global.b32 %r5, [%rd1];", (2, 1));
    race("@%p2 atom.global.add.u32 %r5, [%rd1], 1;\n@!%p2 ld.global.b32 %r5, [%rd1];", (2, 1), "block");
    // Atomic for the block alone.
    race("atom.cta.global.add.u32 %r5, [%rd1], 1;", (2, 1), "block");
}

#[test]
fn a_release_and_an_acquire_order_what_lies_before_and_after() {
    let wait = |load: &str| format!("$loop:\n{load} %r5, [%rd1];\nsetp.eq.u32 %p3, %r5, 0;\n@%p3 bra $loop;");
    let fences = "fence.acq_rel.gpu;";
    let (strong, acquires) = (wait("ld.relaxed.gpu.global.b32"), wait("ld.acquire.gpu.global.b32"));
    let (store, releases) =
        ("st.relaxed.gpu.global.b32 [%rd1], %r4;", "st.release.gpu.global.b32 [%rd1], %r4;");
    fine(&handshake(releases, &acquires), (2, 32));
    fine(&handshake(&format!("{fences}\n{store}"), &format!("{strong}\n{fences}")), (2, 32));
    fine(&handshake(&format!("membar.gl;\n{store}"), &acquires), (2, 32));
    let count = "atom.acq_rel.gpu.global.add.u32 %r5, [%rd1], 1;";
    fine(&handshake(count, &acquires), (2, 32));
    // One side does not keep its order.
    race(&handshake(store, &acquires), (2, 32), "block 0");
    race(&handshake(releases, &strong), (2, 32), "block 0");
    race(&handshake(&format!("fence.acq_rel.cta;\n{store}"), &acquires), (2, 32), "block 0");
    race(&handshake("atom.global.add.u32 %r5, [%rd1], 1;", &acquires), (2, 32), "block 0");
    // The fence stands before what is to be told.
    let late = handshake(store, &acquires).replace("st.global.b32", "fence.acq_rel.gpu;\nst.global.b32");
    race(&late, (2, 32), "block 0");
}

#[test]
fn other_warps_are_told_through_barriers() {
    // Each warp writes its words, one thread counts blocks, and the last block reads all words.
    let body = |before: &str, after: &str| {
        format!(
            ".shared .align 4 .b8 sm[4];\nmov.b64 %rd3, sm;\nst.global.b32 [%rd2+16], %r4;\n{before}\n\
             @%p1 atom.acq_rel.gpu.global.inc.u32 %r5, [%rd1], 1;\n@%p1 st.shared.b32 [%rd3], %r5;\nbar.sync 0;\n{after}\n\
             ld.shared.b32 %r6, [%rd3];\nsetp.eq.u32 %p4, %r6, 1;\n@%p4 ld.global.b32 %r6, [%rd1+16];\n\
             @%p4 ld.global.b32 %r7, [%rd1+140];"
        )
    };
    fine(&body("bar.sync 0;", ""), (1, 32));
    fine(&body("bar.sync 0;", ""), (1, 40));
    let two_warps = |before: &str| {
        format!(
            "mov.b32 %r5, 9;\nsetp.lt.u32 %p5, %r1, 32;\n@%p5 bra $skip;\n@%p2 st.global.b32 [%rd1+64], %r4;\n$skip:\n{before}\n\
             @%p1 atom.acq_rel.gpu.global.inc.u32 %r5, [%rd1], 1;\nsetp.eq.u32 %p6, %r5, 1;\n\
             @!%p1 bra $end;\n@!%p6 bra $end;\nld.global.b32 %r6, [%rd1+64];\n$end:"
        )
    };
    fine(&two_warps("bar.sync 0;"), (2, 64));
    race(&two_warps(""), (2, 64), "");
}

#[test]
fn warps_of_a_block_race_without_a_barrier() {
    let body = |between: &str| {
        format!(
            "st.global.b32 [%rd2], %r4;\n{between}\nxor.b32 %r5, %r1, 32;\nmul.wide.u32 %rd3, %r5, 4;\nadd.s64 %rd3, %rd1, %rd3;\nld.global.b32 %r6, [%rd3];"
        )
    };
    fine(&body("bar.sync 0;"), (1, 64));
    race(&body(""), (1, 64), "warp");
}
