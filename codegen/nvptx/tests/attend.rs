//! Attention as PTX, for every target and in every schedule. What the kernels compute is tested on the virtual GPU.

use sinter_codegen_nvptx::attend::{Job, kernel};
use sinter_codegen_nvptx::emit::Assembler;
use sinter_codegen_schedule::attend::{Attend, AttendSchedule};
use sinter_ir::{Target, TileProgram};

/// Causal attention over pages, with a group of query heads for each of two key heads.
fn paged(dtype: &str, group: u32, width: u32) -> TileProgram {
    let heads = 2 * group;
    let text = format!(
        r#"tile @attend {{
  p0: u32[T] read rows "seq"
  p1: u32[S, P] read rows "table"
  p2: {dtype}[N, 2, {width}] read rows "values"
  p3: u32[T] read rows "positions"
  p4: {dtype}[T, {heads}, {width}] read rows "queries"
  p5: {dtype}[N, 2, {width}] read rows "keys"
  p6: {dtype}[T, {heads}, {width}] write rows "out"
  a0 = 0..T "t"
  a1 = 0..2 "h"
  a2 = 0..16P "c"
  a3 = 0..{width} "d"
  a4 = 0..{group} "g"
  a5 = 0..{width} "k"
  grid a0, a1, a4
  s0 = mma a5 : p4[a0, {group}*a1 + a4, a5] * p5[a2%16 + 16*p1[p0[a0], a2/16], a1, a5]
  e0 = index a2
  e1 = index p3[a0]
  e2 = le e0, e1
  e3 = s0
  e4 = const -inf
  e5 = select e2, e3, e4
  e6 = index p3[a0] + 1
  s1 = online a2 to e6 lanes a3 : e5 * p2[a2%16 + 16*p1[p0[a0], a2/16], a1, a3]
  e7 = s1
  e8 = cast {dtype} e7
  s2 = store [a3] p6[a0, {group}*a1 + a4, a3] = e8
}}
"#
    );
    TileProgram::parse(&text).expect("the program is well formed")
}

#[test]
fn every_schedule_compiles_for_every_target() {
    for target in Target::ALL {
        let assembler = Assembler::new(target).expect("the target is known");
        for (dtype, group, width) in [("f32", 3, 10), ("bf16", 4, 128), ("bf16", 3, 10), ("bf16", 2, 256)] {
            let tile = paged(dtype, group, width);
            let attend = Attend::of(&tile).expect("it is attention");
            assert_eq!(attend.tensor, dtype == "bf16");
            for schedule in attend.schedules(target, Some(16)) {
                let job =
                    Job { name: "attend", tile: &tile, attend: &attend, schedule, constant: &[false; 7] };
                let kernel = kernel(&assembler, job).expect("the kernel compiles");
                if let Some(folder) = option_env!("SINTER_DUMP") {
                    let name =
                        format!("{folder}/{target}-{dtype}-{group}-{width}-{schedule}.ptx").replace(' ', "_");
                    std::fs::write(name, &kernel.ptx).unwrap();
                }
                assert_eq!(kernel.shared_bytes, schedule.shared_bytes(&attend), "{schedule} of {attend}");
                let wanted = match schedule {
                    AttendSchedule::Rows { .. } => "fma.rn.f32",
                    AttendSchedule::Splits { .. } | AttendSchedule::Tiles { .. } => {
                        "mma.sync.aligned.m16n8k16"
                    }
                    AttendSchedule::Warpgroups { .. } => "wgmma.mma_async.sync.aligned.m64n64k16",
                };
                assert!(kernel.ptx.contains(wanted), "{wanted} in\n{}", kernel.ptx);
            }
        }
    }
}
