//! How fast kernels run here; printed, and held against a floor that a slow machine in a debug build passes.

use sinter_ir::{GpuDevice, GpuError, LaunchArg, LaunchShape, Target};
use sinter_vgpu::VirtualGpu;
use std::time::Instant;

/// Runs a body a thousand times in 64 blocks of 256 threads on one core and says how many lanes' instructions it does in a
/// second.
fn speed(name: &str, body: &str) -> Result<f64, GpuError> {
    let mut gpu = VirtualGpu::new(Target::Sm90a).with_workers(1);
    let x = gpu.alloc(4 * 64 * 256)?;
    gpu.clear(x, 4 * 64 * 256)?;
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 x)\n{{\n.reg .pred %p<9>;\n.reg .b32 \
         %r<20>;\n.reg .b64 %rd<9>;\n.shared .align 16 .b8 sm[4096];\nld.param.b64 %rd2, [x];\nmov.u32 %r1, %tid.x;\nmov.u32 \
         %r2, %ctaid.x;\nmad.lo.s32 %r3, %r2, 256, %r1;\nmul.wide.u32 %rd1, %r3, 4;\nadd.s64 %rd3, %rd2, %rd1;\nmul.wide.u32 \
         %rd4, %r1, 16;\nmov.b64 %rd5, sm;\nadd.s64 %rd5, %rd5, %rd4;\nmov.b32 %r4, 0f3F800000;\nmov.b32 %r5, \
         0f3F000000;\nmov.b32 %r6, 0f00000000;\nst.shared.v4.b32 [%rd5], {{%r4, %r5, %r6, %r1}};\nmov.b32 %r7, 0;\nloop:\n\
         {body}\nadd.s32 %r7, %r7, 1;\nsetp.lt.s32 %p1, %r7, 200;\n@%p1 bra loop;\nst.global.b32 [%rd3], %r6;\nret;\n}}\n"
    );
    let kernel = gpu.load(&text, "k", 0)?;
    let shape = LaunchShape { blocks: 64, threads: 256, shared_bytes: 0, cluster: 1, dependent: false };
    let start = Instant::now();
    gpu.launch(kernel, shape, &[LaunchArg::Address(x)])?;
    let seconds = start.elapsed().as_secs_f64();
    let lanes: u64 = gpu.take_counters()[0].counters.lane_instructions.iter().sum();
    let speed = lanes as f64 / seconds;
    println!("{name}: {:.0} million instructions of a lane in a second", speed / 1e6);
    Ok(speed)
}

#[test]
fn instructions_are_fast_enough_for_whole_models() -> Result<(), GpuError> {
    let arithmetic = "fma.rn.f32 %r6, %r4, %r5, %r6; add.s32 %r8, %r7, %r1; xor.b32 %r9, %r8, 77; mul.rn.f32 %r10, %r4, %r5;";
    let kinds = [
        (
            "whole numbers",
            "add.s32 %r8, %r7, %r1; xor.b32 %r9, %r8, 77; shl.b32 %r10, %r9, 3; min.s32 %r11, %r9, %r10;",
        ),
        (
            "floating point",
            "add.rn.f32 %r8, %r4, %r5; mul.rn.f32 %r9, %r4, %r5; max.f32 %r10, %r4, %r5; sub.rn.f32 %r11, %r4, %r5;",
        ),
        (
            "fused",
            "fma.rn.f32 %r6, %r4, %r5, %r6; fma.rn.f32 %r8, %r4, %r5, %r6; fma.rn.f32 %r9, %r4, %r5, %r6;",
        ),
        ("mixed", arithmetic),
        ("addresses", "mul.wide.u32 %rd6, %r7, 4; add.s64 %rd7, %rd6, %rd2; shl.b64 %rd8, %rd7, 1;"),
        ("exponentials", "ex2.approx.ftz.f32 %r8, %r5; ex2.approx.ftz.f32 %r9, %r5;"),
        ("global loads", "ld.global.b32 %r8, [%rd3]; ld.global.b32 %r9, [%rd3]; ld.global.b32 %r10, [%rd3];"),
        ("shared loads", "ld.shared.b32 %r8, [%rd5]; ld.shared.v4.b32 {%r10, %r11, %r12, %r13}, [%rd5];"),
        ("shuffles", "shfl.sync.bfly.b32 %r8, %r4, 16, 31, -1; shfl.sync.bfly.b32 %r9, %r4, 1, 31, -1;"),
    ];
    for (name, body) in kinds {
        assert!(speed(name, body)? > 1e6, "{name}");
    }
    Ok(())
}
