use super::*;
use sinter_ir::{KernelId, Step, Type, ValueDef};

/// A plan of one program whose parameters are inputs and outputs, as one launch.
fn one(text: &str, schedule: Schedule) -> (Plan, Group) {
    let tile = TileProgram::parse(text).unwrap_or_else(|error| panic!("{error:?}"));
    let def = |ty: &Type| ValueDef { name: "x".into(), ty: ty.clone() };
    let mut plan = Plan::default();
    let mut args = Vec::new();
    for param in tile.params.values() {
        args.push(match param.access {
            Access::Read => Arg::Input(plan.inputs.len()),
            Access::Write | Access::ReadWrite => Arg::Output(plan.outputs.len()),
        });
        match param.access {
            Access::Read => plan.inputs.push(def(&param.ty)),
            Access::Write | Access::ReadWrite => plan.outputs.push(def(&param.ty)),
        }
    }
    plan.kernels.push(tile);
    plan.steps.push(Step { kernel: KernelId(0), args });
    (plan, Group { steps: vec![0], schedules: vec![schedule] })
}

fn rows(text: &str, size: &StepSize) -> Work {
    let tile = TileProgram::parse(text).unwrap_or_else(|error| panic!("{error:?}"));
    let (plan, group) = one(text, Schedule::Rows(crate::rows::choose(&tile)));
    Work::of(&plan, &group, size)
}

#[test]
fn a_product_moves_its_operands_and_its_result() {
    let work = rows(PRODUCT, &StepSize::decode(2, 16));
    assert_eq!(work.minimum, (2 * 8 + 3 * 8 + 2 * 3) * 4);
    assert_eq!((work.read, work.written), (64 + 96, 32));
    assert_eq!((work.operations, work.matrix, work.between), (2 * 2 * 3 * 8, false, 0));
}

const PRODUCT: &str = "tile @contract0 {
  p0: f32[T, 8] read rows \"x\"
  p1: f32[3, 8] read rows \"w\"
  p2: f32[T, 3] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..3 \"n\"
  a2 = 0..8 \"k\"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
  e0 = s0
  s1 = store [] p2[a0, a1] = e0
}
";

/// Of a table the rows of the tokens are read, and of a wide buffer the columns that are wanted: 16 of 48 in each row.
#[test]
fn only_rows_and_columns_that_are_wanted_count() {
    let text = "tile @rows {
  p0: u32[T] read rows \"ids\"
  p1: bf16[1000, 16] read rows \"table\"
  p2: f32[T, 48] read rows \"x\"
  p3: f32[T, 16] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..16 \"d\"
  grid a0
  e0 = load p1[p0[a0], a1]
  e1 = load p2[a0, a1 + 16]
  e2 = add e0, e1
  s0 = store [a1] p3[a0, a1] = e2
}
";
    let work = rows(text, &StepSize::decode(3, 16));
    assert_eq!(work.minimum, 3 * (4 + 32 + 64 + 64));
    assert_eq!((work.read, work.written), (32 + 3 * 32 + 3 * 64, 3 * 64));
}

/// Attention over a paged cache: causal, or of the last 7 positions.
fn attention(window: bool) -> String {
    let from = "  e6 = index 7\n  e7 = max e2, e6\n  e8 = sub e7, e6\n";
    let (from, bounds, last) = if window { (from, "from e8 ", "e9") } else { ("", "", "e6") };
    format!(
        "tile @attend {{
  p0: u32[T] read rows \"seq\"
  p1: u32[T] read rows \"positions\"
  p2: u32[S, P] read rows \"table\"
  p3: bf16[T, 2, 64] read rows \"queries\"
  p4: bf16[N, 2, 64] read rows \"keys\"
  p5: bf16[N, 2, 64] read rows \"values\"
  p6: bf16[T, 2, 64] write rows \"out\"
  a0 = 0..T \"t\"
  a1 = 0..2 \"h\"
  a2 = 0..16P \"c\"
  a3 = 0..64 \"d\"
  a4 = 0..64 \"k\"
  grid a0, a1
  s0 = mma a4 : p3[a0, a1, a4] * p4[a2%16 + 16*p2[p0[a0], a2/16], a1, a4]
  e0 = s0
  e1 = index a2
  e2 = index p1[a0] + 1
  e3 = lt e1, e2
  e4 = const -inf
  e5 = select e3, e0, e4
{from}  s1 = online a2 {bounds}to e2 lanes a3 : e5 * p5[a2%16 + 16*p2[p0[a0], a2/16], a1, a3]
  {last} = s1
  s2 = store [a3] p6[a0, a1, a3] = {last}
}}
"
    )
}

fn attended(window: bool, size: &StepSize) -> Work {
    let (plan, group) = one(&attention(window), Schedule::Attend(AttendSchedule::Splits { stages: 2 }));
    Work::of(&plan, &group, size)
}

#[test]
fn attention_reads_what_its_tokens_see() {
    let row = 2 * 64 * 2;
    let small = |size: &StepSize| size.tokens() * 8 + size.sequences * size.binding().values[2] * 4;
    let size = StepSize::decode(3, 100);
    let work = attended(false, &size);
    assert_eq!(work.minimum, 3 * (2 * 100 + 2) * row + small(&size));
    assert_eq!((work.operations, work.matrix), (3 * 100 * 2 * 2 * 2 * 64, true));
    assert_eq!(attended(true, &size).minimum, 3 * (2 * 7 + 2) * row + small(&size));
    // Of a prompt each token sees those before it, and all together see all.
    let size = StepSize::prompt(10);
    let work = attended(false, &size);
    assert_eq!(work.minimum, (2 * 10 + 2 * 10) * row + small(&size));
    assert_eq!(work.operations, 55 * 2 * 2 * 2 * 64);
}

/// Three splits of each of two heads leave one row of 64 sums and its maximum and sum of weights.
#[test]
fn splits_leave_their_sums() {
    let (short, long) =
        (attended(false, &StepSize::decode(1, 512)), attended(false, &StepSize::decode(1, 1025)));
    assert_eq!(short.written, 256);
    assert_eq!(long.written, 256 + 3 * 2 * 32 * (4 * 2 + 1) + 32);
}

#[test]
fn work_adds_up() {
    let mut sum = Work { matrix: true, ..Work::default() };
    sum += rows(PRODUCT, &StepSize::decode(2, 16));
    sum += Work::of_draw(2, 1000, 64);
    assert_eq!(sum.minimum, (2 * 8 + 3 * 8 + 2 * 3) * 4 + 2 * (4000 + DRAW_BYTES as u64 + 4));
    assert_eq!((sum.matrix, sum.operations), (false, 96));
}
