//! The structure of attention is recognised by what a program does, and the default schedule by what a target has.

use sinter_codegen_schedule::attend::{Attend, AttendSchedule};
use sinter_ir::{Target, TileProgram};

/// Causal attention over pages, eight query heads for each of two key heads.
fn text(width: u32) -> String {
    format!(
        "tile @attend {{
  p0: u32[T] read rows \"seq\"
  p1: u32[S, P] read rows \"table\"
  p2: bf16[N, 2, {width}] read rows \"values\"
  p3: u32[T] read rows \"positions\"
  p4: bf16[T, 16, {width}] read rows \"queries\"
  p5: bf16[N, 2, {width}] read rows \"keys\"
  p6: bf16[T, 16, {width}] write rows \"out\"
  a0 = 0..T \"t\"
  a1 = 0..2 \"h\"
  a2 = 0..16P \"c\"
  a3 = 0..{width} \"d\"
  a4 = 0..8 \"g\"
  a5 = 0..{width} \"k\"
  grid a0, a1, a4
  s0 = mma a5 : p4[a0, 8*a1 + a4, a5] * p5[a2%16 + 16*p1[p0[a0], a2/16], a1, a5]
  e0 = index a2
  e1 = index p3[a0]
  e2 = le e0, e1
  e3 = s0
  e4 = const -inf
  e5 = select e2, e3, e4
  e6 = index p3[a0] + 1
  s1 = online a2 to e6 lanes a3 : e5 * p2[a2%16 + 16*p1[p0[a0], a2/16], a1, a3]
  e7 = s1
  e8 = cast bf16 e7
  s2 = store [a3] p6[a0, 8*a1 + a4, a3] = e8
}}
"
    )
}

fn parsed(text: &str) -> TileProgram {
    TileProgram::parse(text).unwrap_or_else(|error| panic!("{error:?} in\n{text}"))
}

#[test]
fn what_is_recognised() {
    let attend = Attend::of(&parsed(&text(64))).expect("it is attention");
    assert_eq!(attend.to_string(), "attend a0 group 8, s0 depth 64, s1 lanes 64, tensor cores");
    // Two tokens have one context if they are of one sequence.
    assert_eq!(attend.contexts.len(), 1);
    let other = parsed(&text(64).replace("p4: bf16", "p4: f32"));
    let attend = Attend::of(&other).expect("it is attention");
    assert_eq!(attend.to_string(), "attend a0 group 8, s0 depth 64, s1 lanes 64, chains");
    assert_eq!(attend.schedules(Target::Sm80, None), [AttendSchedule::Rows { warps: 4 }]);
}

#[test]
fn what_is_refused() {
    let refused = |text: &str| Attend::of(&parsed(text)).expect_err("it is something else");
    let queries_move = text(64).replace("p4[a0, 8*a1 + a4, a5] *", "p4[a2%16, 8*a1 + a4, a5] *");
    assert!(refused(&queries_move).contains("along the context"), "{}", refused(&queries_move));
    let two_axes = text(64).replace("store [a3] p6[a0, 8*a1 + a4, a3]", "store [a5, a3] p6[a0, a5%16, a3]");
    assert!(refused(&two_axes).contains("stores over the lanes"), "{}", refused(&two_axes));
}

#[test]
fn the_default_keeps_the_tensor_cores_busy() {
    let first = |width: u32, target: Target, most: Option<u64>| {
        let attend = Attend::of(&parsed(&text(width))).expect("it is attention");
        attend.schedules(target, most)[0].to_string()
    };
    // On an A100 two blocks of 64 rows have room, with one block of keys and values each. Hopper's warpgroups share what
    // they multiply with.
    assert_eq!(first(128, Target::Sm80, None), "tiles of 64 rows, 1 stages");
    assert_eq!(first(128, Target::Sm90a, None), "warpgroups of 128 rows, 2 stages");
    assert_eq!(first(64, Target::Sm80, None), "tiles of 64 rows, 2 stages");
    assert_eq!(first(128, Target::Sm90a, Some(16)), "splits of 512, 3 stages");
    for target in Target::ALL {
        for width in [8, 10, 64, 80, 128, 256] {
            let attend = Attend::of(&parsed(&text(width))).expect("it is attention");
            for most in [Some(16), None] {
                let schedules = attend.schedules(target, most);
                assert!(!schedules.is_empty(), "{width} on {target}");
                assert!(schedules.iter().all(|s| s.shared_bytes(&attend) <= target.max_shared_bytes()));
            }
        }
    }
}
