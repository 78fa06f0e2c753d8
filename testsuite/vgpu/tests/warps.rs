//! Instructions by which the lanes of a warp tell one another something, against a reference lane by lane; and the other
//! instructions that no table of values can try: memory, parts of registers, atomics, clusters.

use sinter_ir::{GpuDevice, GpuError, LaunchArg, LaunchShape, Target};
use sinter_vgpu::VirtualGpu;

/// Runs a body that leaves a word for each thread in `%r2`, with `%r1` its number in the launch, and 4096 bytes of shared
/// memory at `sm`; `%rd2` is the address of 256 words that count up from 1000.
fn run(body: &str, (blocks, threads, cluster): (u32, u32, u32)) -> Result<Vec<u32>, GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm90a);
    let total = u64::from(blocks * threads);
    let (out, input) = (gpu.alloc(4 * total)?, gpu.alloc(1024)?);
    gpu.write(input, &(1000u32..1256).flat_map(u32::to_le_bytes).collect::<Vec<u8>>())?;
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 out, .param .u64 input)\n{{\n.reg \
         .pred %p<9>;\n.reg .b16 %h<9>;\n.reg .b32 %r<20>;\n.reg .b64 %rd<20>;\n.shared .align 16 .b8 sm[4096];\nmov.u32 \
         %r1, %tid.x;\nmov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %ntid.x;\nmad.lo.s32 %r1, %r3, %r4, %r1;\nld.param.b64 %rd1, \
         [out];\nld.param.b64 %rd2, [input];\nmul.wide.u32 %rd3, %r1, 4;\nadd.s64 %rd1, %rd1, %rd3;\nadd.s64 %rd4, %rd2, \
         %rd3;\n{body}\nst.global.b32 [%rd1], %r2;\nret;\n}}\n"
    );
    let kernel = gpu.load(&text, "k", 0)?;
    let shape = LaunchShape { blocks, threads, shared_bytes: 0, cluster, dependent: false };
    gpu.launch(kernel, shape, &[out, input].map(LaunchArg::Address))?;
    let mut bytes = vec![0; 4 * total as usize];
    gpu.read(out, &mut bytes)?;
    Ok(bytes.chunks(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
}

fn warp(body: &str) -> Vec<u32> {
    run(body, (1, 32, 1)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn shuffles_follow_the_isa() {
    // Mode, the control word, and the source of a lane by the text of the ISA.
    for width in [32u32, 16, 8] {
        let segment = 32 - width;
        for by in [0u32, 1, 3, 7, 16, 31] {
            for (mode, clamp) in [("up", 0), ("down", 31), ("bfly", 31), ("idx", 31)] {
                let control = segment << 8 | clamp;
                let text = format!(
                    "mul.lo.s32 %r5, %r1, 10; shfl.sync.{mode}.b32 %r2|%p1, %r5, {by}, {control}, -1; @%p1 add.s32 %r2, %r2, 1000;"
                );
                for (lane, found) in warp(&text).into_iter().enumerate() {
                    let lane = lane as i64;
                    let (first, last) =
                        (lane / i64::from(width) * i64::from(width), lane | i64::from(width - 1));
                    let by = i64::from(by);
                    let from = match mode {
                        "up" => lane - by,
                        "down" => lane + by,
                        "bfly" => lane ^ by,
                        _ => first + by % i64::from(width),
                    };
                    let inside = if mode == "up" { from >= first } else { from <= last };
                    let wanted = if inside { 10 * from + 1000 } else { 10 * lane };
                    assert_eq!(i64::from(found), wanted, "{mode} by {by} in {width}: lane {lane}");
                }
            }
        }
    }
}

#[test]
fn votes_and_reductions() {
    let odd = "and.b32 %r5, %r1, 1; setp.eq.b32 %p1, %r5, 1; setp.lt.u32 %p3, %r1, 99;";
    let set = |vote: &str, from: &str| {
        warp(&format!("{odd} vote.sync.{vote}.pred %p2, {from}, -1; selp.b32 %r2, 1, 0, %p2;"))[0]
    };
    assert_eq!(warp(&format!("{odd} vote.sync.ballot.b32 %r2, %p1, -1;")), [0xaaaa_aaaa; 32]);
    assert_eq!([set("any", "%p1"), set("all", "%p1"), set("uni", "%p1")], [1, 0, 0]);
    assert_eq!([set("all", "%p3"), set("uni", "!%p3"), set("any", "!%p3")], [1, 1, 0]);
    let reduce = |kind: &str| warp(&format!("sub.s32 %r5, %r1, 7; redux.sync.{kind} %r2, %r5, -1;"))[5];
    let values: Vec<i32> = (0..32).map(|lane| lane - 7).collect();
    assert_eq!(reduce("add.s32") as i32, values.iter().sum::<i32>());
    assert_eq!([reduce("min.s32") as i32, reduce("max.s32") as i32], [-7, 24]);
    assert_eq!([reduce("min.u32"), reduce("max.u32")], [0, u32::MAX]);
    assert_eq!(reduce("and.b32"), values.iter().fold(u32::MAX, |all, value| all & *value as u32));
    assert_eq!(reduce("or.b32"), values.iter().fold(0, |all, value| all | *value as u32));
    assert_eq!(reduce("xor.b32"), values.iter().fold(0, |all, value| all ^ *value as u32));
    assert_eq!(warp("elect.sync %r2|%p1, -1; @%p1 add.s32 %r2, %r2, 50;")[..2], [50, 0]);
    let half = "mov.b32 %r2, 0; setp.lt.u32 %p1, %r1, 16; @!%p1 bra end; activemask.b32 %r2; end:";
    assert_eq!(warp(half), [[0xffff; 16], [0; 16]].concat());
}

#[test]
fn special_registers_say_where_a_thread_is() {
    let text = "mov.u32 %r5, %laneid; mov.u32 %r6, %warpid; mov.u32 %r7, %nctaid.x; mov.u32 %r8, %lanemask_lt; popc.b32 %r8, \
                %r8; mad.lo.s32 %r2, %r6, 32, %r5; mad.lo.s32 %r2, %r7, 1000, %r2; sub.s32 %r8, %r8, %r5; add.s32 %r2, %r2, %r8; \
                mov.u32 %r9, %tid.y; add.s32 %r2, %r2, %r9;";
    let found = run(text, (3, 64, 1)).expect("a run");
    assert_eq!(found, (0..3).flat_map(|_| 3000..3064).collect::<Vec<u32>>());
}

#[test]
fn registers_are_taken_apart_and_put_together() {
    let text = "mov.b64 %rd5, {%r1, 7}; mov.b64 {%r5, %r6}, %rd5; mov.b64 {%h1, %h2, %h3, %h4}, %rd5; mov.b32 %r7, {%h3, %h1}; \
                mov.b64 {_, %r8}, %rd5; mov.b32 {%h5, _}, %r7; cvt.u32.u16 %r9, %h5; add.s32 %r2, %r5, %r6; xor.b32 %r7, %r7, \
                7; add.s32 %r2, %r2, %r7; add.s32 %r2, %r2, %r8; add.s32 %r2, %r2, %r9;";
    assert_eq!(warp(text), (0..32).map(|lane| lane + 7 + (lane << 16) + 7 + 7).collect::<Vec<u32>>());
}

#[test]
fn loads_extend_and_stores_cut() {
    let store =
        "mov.b64 %rd6, sm; add.s64 %rd6, %rd6, %rd3; mov.b32 %r5, 0x8899aabb; st.shared.b32 [%rd6], %r5;";
    for (load, wanted) in [
        ("ld.shared.u8 %r2, [%rd6+3];", 0x88u32),
        ("ld.shared.s8 %r2, [%rd6+3];", 0xffff_ff88),
        ("ld.shared.b16 %h1, [%rd6+2]; cvt.u32.u16 %r2, %h1;", 0x8899),
        ("ld.shared.s16 %r2, [%rd6+2];", 0xffff_8899),
        ("ld.shared.s32 %rd7, [%rd6]; cvt.u32.u64 %r2, %rd7;", 0x8899_aabb),
        ("st.shared.b8 [%rd6+1], 0x11; ld.shared.b32 %r2, [%rd6];", 0x8899_11bb),
        ("st.shared.b16 [%rd6+2], 0x1122; ld.shared.b32 %r2, [%rd6];", 0x1122_aabb),
        ("cvta.shared.u64 %rd7, %rd6; ld.b32 %r2, [%rd7];", 0x8899_aabb),
        ("cvta.shared.u64 %rd7, %rd6; st.b32 [%rd7], 5; ld.shared.b32 %r2, [%rd6];", 5),
    ] {
        assert_eq!(warp(&format!("{store} {load}")), [wanted; 32], "{load}");
    }
    let wide = "mul.wide.u32 %rd5, %r1, 16; add.s64 %rd5, %rd2, %rd5; ld.global.nc.L1::no_allocate.v4.b32 {%r5, %r6, %r7, %r8}, \
                [%rd5]; sub.s32 %r2, %r8, %r5; add.s32 %r2, %r2, %r6;";
    assert_eq!(warp(wide), (0..32).map(|lane| 1001 + 4 * lane + 3).collect::<Vec<u32>>());
    let long = "mul.wide.u32 %rd5, %r1, 8; add.s64 %rd5, %rd2, %rd5; ld.global.b64 %rd6, [%rd5]; shr.u64 %rd6, %rd6, 32; \
                cvt.u32.u64 %r2, %rd6;";
    assert_eq!(warp(long), (0..32).map(|lane| 1001 + 2 * lane).collect::<Vec<u32>>());
}

#[test]
fn atomics_follow_one_another() {
    for space in ["shared", "global"] {
        let base = if space == "shared" {
            "mov.b64 %rd5, sm; st.shared.b32 [%rd5], %r5; bar.sync 0;"
        } else {
            "mov.b64 %rd5, %rd2;"
        };
        let run_one = |instruction: &str| {
            let text =
                format!("mov.b32 %r5, 1000; {base} {instruction} bar.sync 0; ld.{space}.b32 %r2, [%rd5];");
            // One warp: the store of all lanes to one word is one store.
            warp(&text.replace(
                "st.shared.b32 [%rd5], %r5;",
                "setp.eq.b32 %p5, %r1, 0; @%p5 st.shared.b32 [%rd5], %r5;",
            ))[31]
        };
        for (operation, wanted) in [
            ("atom.SPACE.add.u32 %r6, [%rd5], %r1;", 1000 + 31 * 16),
            ("red.SPACE.add.u32 [%rd5], 2;", 1064),
            ("atom.SPACE.max.s32 %r6, [%rd5], -5;", 1000),
            ("atom.SPACE.min.s32 %r6, [%rd5], -5;", -5i32 as u32),
            ("atom.SPACE.max.u32 %r6, [%rd5], -5;", -5i32 as u32),
            ("atom.SPACE.exch.b32 %r6, [%rd5], %r1;", 31),
            ("atom.SPACE.cas.b32 %r6, [%rd5], 1000, 4;", 4),
            ("atom.SPACE.inc.u32 %r6, [%rd5], 1010;", 1000 + 32 - 11 - 11 - 990 + 1),
            ("atom.SPACE.and.b32 %r6, [%rd5], 8;", 1000 & 8),
            ("atom.SPACE.or.b32 %r6, [%rd5], 7;", 1007),
            ("atom.acq_rel.gpu.SPACE.xor.b32 %r6, [%rd5], 1;", 1000),
            (
                "mov.b32 %r7, 0f3F000000; atom.SPACE.exch.b32 %r6, [%rd5], %r7; red.SPACE.add.f32 [%rd5], %r7;",
                16.5f32.to_bits(),
            ),
        ] {
            let wanted = if operation.contains("inc") { wrapped_increments() } else { wanted };
            assert_eq!(run_one(&operation.replace("SPACE", space)), wanted, "{operation} in {space}");
        }
    }
}

/// 1000, counted up 32 times, with 0 after 1010.
fn wrapped_increments() -> u32 {
    (0..32).fold(1000, |value, _| if value >= 1010 { 0 } else { value + 1 })
}

#[test]
fn blocks_of_a_cluster_read_one_another() {
    let text = "mov.u32 %r5, %cluster_ctarank; mov.b64 %rd5, sm; and.b32 %r6, %r1, 31; mul.wide.u32 %rd6, %r6, 4; add.s64 %rd5, \
                %rd5, %rd6; st.shared.b32 [%rd5], %r1; barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; xor.b32 \
                %r7, %r5, 1; mapa.shared::cluster.u64 %rd7, %rd5, %r7; ld.shared::cluster.b32 %r2, [%rd7]; \
                barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
    let found = run(text, (4, 32, 2)).expect("a run");
    assert_eq!(found, (0..128u32).map(|thread| thread ^ 32).collect::<Vec<u32>>());
    let racing = text.replacen("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;", "", 1);
    let error = run(&racing, (4, 32, 2)).expect_err("a race").to_string();
    assert!(error.contains("race") || error.contains("never written"), "{error}");
}

#[test]
fn inline_assembly_has_registers_and_labels_of_its_own() {
    let text = "mov.b32 %r2, 0; { .reg .pred p; .reg .b32 r; mov.b32 r, 0; again: add.s32 r, r, 1; setp.lt.s32 p, r, 5; @p bra \
                again; add.s32 %r2, %r2, r; } { .reg .b32 r; mov.b32 r, 0; again: add.s32 r, r, 2; setp.lt.s32 %p1, r, 5; @%p1 \
                bra again; add.s32 %r2, %r2, r; }";
    assert_eq!(warp(text), [11; 32]);
}

#[test]
fn counters_say_what_memory_moved() -> Result<(), GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm80);
    let x = gpu.alloc(32 * 128)?;
    gpu.clear(x, 32 * 128)?;
    let text = |stride: u32| {
        format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 x)\n{{\n.reg .b32 %r<4>;\n.reg .b64 \
             %rd<5>;\n.shared .align 16 .b8 sm[4096];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd1, %r1, {stride};\nld.param.b64 \
             %rd2, [x];\nadd.s64 %rd3, %rd2, %rd1;\nld.global.b32 %r2, [%rd3];\nld.global.b32 %r2, [%rd3];\nmov.b64 %rd4, sm;\n\
             add.s64 %rd4, %rd4, %rd1;\nst.shared.b32 [%rd4], %r2;\nst.global.b32 [%rd3], %r2;\nret;\n}}\n"
        )
    };
    let shape = LaunchShape { blocks: 1, threads: 32, shared_bytes: 0, cluster: 1, dependent: false };
    // Side by side, every second word, a word of each bank's row.
    for (stride, sectors, conflicts) in [(4, 4, 0), (8, 8, 1), (128, 32, 31)] {
        let kernel = gpu.load(&text(stride), "k", 0)?;
        gpu.launch(kernel, shape, &[LaunchArg::Address(x)])?;
        let counters = gpu.take_counters().remove(0).counters;
        assert_eq!(counters.dram_bytes_read(), 32 * sectors, "stride {stride}");
        assert_eq!(counters.dram_bytes_written(), 32 * sectors);
        assert_eq!((counters.global_requests, counters.global_sectors), (3, 3 * sectors));
        assert_eq!((counters.shared_requests, counters.bank_conflicts), (1, conflicts));
        assert_eq!(counters.warp_instructions(), 11);
    }
    Ok(())
}
