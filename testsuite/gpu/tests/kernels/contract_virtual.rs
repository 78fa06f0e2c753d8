//! Contractions on the virtual GPU: against the evaluator of tile programs, and every schedule bit for bit the same.

use sinter_codegen_schedule::contract::{Contract, Kind, candidates, choose, find};
use sinter_gpu_tests::contraction::{Case, parsed};
use sinter_gpu_tests::launch::{compare, same_bits};
use sinter_ir::{Sym, Target, Tensor};

/// Two products that share their left operand, a gate, a bias, a residual and a rounded and a transposed store.
const GATED: &str = "tile @contract {
  p0: DTYPE[T, K] read rows \"x\"
  p1: DTYPE[N, K] read panels \"w\"
  p2: DTYPE[N, K] read panels \"v\"
  p3: f32[N] read rows \"bias\"
  p4: f32[T, N] read rows \"residual\"
  p5: DTYPE[T, N] write rows \"y\"
  p6: f32[N, T] write rows \"z\"
  a0 = 0..T \"t\"
  a1 = 0..N \"n\"
  a2 = 0..K \"k\"
  a3 = 0..K \"k\"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
  s1 = mma a3 : p0[a0, a3] * p2[a1, a3]
  e0 = s0
  e1 = load p3[a1]
  e2 = add e0, e1
  e3 = tanh e2
  e4 = s1
  e5 = mul e3, e4
  e6 = load p4[a0, a1]
  e7 = add e5, e6
  e8 = cast DTYPE e7
  s2 = store [] p5[a0, a1] = e8
  s3 = store [] p6[a1, a0] = e7
}";

/// Two products of different depth, added to a row that an id picks.
const SUMMED: &str = "tile @contract {
  p0: u32[T] read rows \"ids\"
  p1: DTYPE[9, N] read rows \"table\"
  p2: DTYPE[T, K] read rows \"x\"
  p3: DTYPE[N, K] read panels \"w\"
  p4: DTYPE[T, 21] read rows \"y\"
  p5: DTYPE[N, 21] read panels \"v\"
  p6: f32[T, N] write rows \"z\"
  a0 = 0..T \"t\"
  a1 = 0..N \"n\"
  a2 = 0..K \"k\"
  a3 = 0..21 \"k\"
  grid a0, a1
  s0 = mma a2 : p2[a0, a2] * p3[a1, a2]
  s1 = mma a3 : p4[a0, a3] * p5[a1, a3]
  e0 = load p1[p0[a0], a1]
  e1 = s0
  e2 = add e0, e1
  e3 = s1
  e4 = add e2, e3
  s2 = store [] p6[a0, a1] = e4
}";

/// Each row with the weights of its own expert.
const EXPERTS: &str = "tile @contract {
  p0: u32[T] read rows \"expert\"
  p1: DTYPE[T, K] read rows \"x\"
  p2: DTYPE[9, N, K] read rows \"w\"
  p3: f32[T, N] write rows \"z\"
  a0 = 0..T \"t\"
  a1 = 0..N \"n\"
  a2 = 0..K \"k\"
  grid a0, a1
  s0 = mma a2 : p1[a0, a2] * p2[p0[a0], a1, a2]
  e0 = s0
  s1 = store [] p3[a0, a1] = e0
}";

fn case(text: &str, facts: &[(&str, &str)], tokens: u64) -> Case {
    Case::new(parsed(text, facts), tokens)
}

fn on(case: &Case, target: Target, schedule: &Contract) -> Vec<Tensor<f32>> {
    let program = case.program(target, schedule);
    let found = case.run(&program);
    found.unwrap_or_else(|error| panic!("{schedule}: {error}\n{}\n{}", case.tile, program.kernels[0].ptx)).0
}

/// All schedules for a target, or some of them if `every` is more than 1: other ones for other numbers of tokens.
fn check_all(case: &Case, target: Target, every: usize) {
    let mut all: Vec<Contract> = Vec::new();
    for schedule in
        [None, Some(16), Some(4)].into_iter().flat_map(|most| candidates(&case.tile, target, most))
    {
        let fits = schedule.takes(&find(&case.tile).unwrap(), &case.binding);
        all.extend((fits && !all.contains(&schedule)).then_some(schedule));
    }
    let mut first: Option<Vec<Tensor<f32>>> = None;
    let begin = case.binding.get(Sym::T) as usize % every.min(all.len());
    for schedule in all.iter().skip(begin).step_by(every) {
        let results = on(case, target, schedule);
        match &first {
            None => {
                // The tensor cores truncate each sum to 24 bits.
                compare(&case.tile, &case.binding, (&case.params, &results), 1e-4);
                first = Some(results);
            }
            Some(first) => assert!(same(first, &results), "{schedule} differs\n{}", case.tile),
        }
    }
    assert!(first.is_some(), "no schedule for\n{}", case.tile);
}

fn same(one: &[Tensor<f32>], other: &[Tensor<f32>]) -> bool {
    one.iter().zip(other).all(|(one, other)| same_bits(&one.data, &other.data))
}

#[test]
fn contract_f32_shapes() {
    for (n, k, tokens) in [("1", "1", 1), ("37", "24", 5), ("70", "18", 33)] {
        let facts = [("DTYPE", "f32"), ("N", n), ("K", k)];
        check_all(&case(GATED, &facts, tokens), Target::Sm80, 1);
        check_all(&case(SUMMED, &facts, tokens), Target::Sm80, 1);
    }
}

#[test]
fn contract_mixed_operands() {
    let mixed = GATED.replace("p1: DTYPE", "p1: f32").replace("p2: DTYPE", "p2: f32");
    check_all(&case(&mixed, &[("DTYPE", "bf16"), ("N", "37"), ("K", "24")], 5), Target::Sm89, 1);
}

fn check_half_shapes(dtype: &str, every: usize) {
    for (n, k, tokens) in
        [("1", "1", 1), ("37", "24", 5), ("64", "96", 70), ("70", "50", 18), ("48", "152", 16)]
    {
        let facts = [("DTYPE", dtype), ("N", n), ("K", k)];
        check_all(&case(GATED, &facts, tokens), Target::Sm80, every);
        check_all(&case(SUMMED, &facts, tokens), Target::Sm90a, 3);
    }
}

#[test]
fn contract_bf16_shapes() {
    check_half_shapes("bf16", 1);
}

#[test]
fn contract_f16_shapes() {
    check_half_shapes("f16", 5);
}

/// Only these bring operands by tensor copies; one of each other kind is beside them.
#[test]
fn contract_warpgroups() {
    for (n, k, tokens) in [("72", "200", 150), ("300", "64", 20), ("24", "24", 130)] {
        let case = case(GATED, &[("DTYPE", "bf16"), ("N", n), ("K", k)], tokens);
        let all = candidates(&case.tile, Target::Sm90a, None);
        let (mut kinds, mut first) = (Vec::new(), None);
        for schedule in all.iter().rev() {
            if schedule.kind != Kind::Warpgroups && kinds.contains(&schedule.kind) {
                continue;
            }
            kinds.push(schedule.kind);
            let results = on(&case, Target::Sm90a, schedule);
            compare(&case.tile, &case.binding, (&case.params, &results), 1e-4);
            let first = first.get_or_insert_with(|| results.clone());
            assert!(same(first, &results), "{schedule} differs\n{}", case.tile);
        }
        assert!(kinds.contains(&Kind::Warpgroups) && kinds.contains(&Kind::Tiles));
    }
}

#[test]
fn contract_experts() {
    for dtype in ["bf16", "f32"] {
        check_all(&case(EXPERTS, &[("DTYPE", dtype), ("N", "20"), ("K", "40")], 6), Target::Sm80, 4);
    }
}

/// More rows of one expert than a tile has, more rows than one search of the block looks at, and fewer rows than experts:
/// the rows of an expert meet in any way, and all schedules give the same bits.
#[test]
fn contract_rows_of_one_expert_meet() {
    for (dtype, target, every) in
        [("bf16", Target::Sm80, 7), ("bf16", Target::Sm90a, 9), ("f32", Target::Sm80, 2)]
    {
        for tokens in [3, 41, 1100] {
            let facts = [("DTYPE", dtype), ("N", "20"), ("K", "40")];
            let case = case(EXPERTS, &facts, tokens);
            assert!(find(&case.tile).is_some_and(|found| found.group.is_some() && found.rows_share));
            check_all(&case, target, every);
        }
    }
}

#[test]
fn contract_choices_are_printed() {
    let tile = parsed(GATED, &[("DTYPE", "bf16"), ("N", "2048"), ("K", "2048")]);
    for target in Target::ALL {
        let chosen =
            [Some(16), None].map(|tokens| choose(&tile, target, tokens).expect("a schedule").to_string());
        assert_ne!(chosen[0], chosen[1], "few tokens want other tiles than many");
    }
}
