//! Contractions on the virtual GPU: against the evaluator of tile programs, and every schedule bit for bit the same.

use sinter_codegen_nvptx::emit::Assembler;
use sinter_codegen_nvptx::{Piece, contract};
use sinter_codegen_schedule::contract::{Contract, Kind, candidates, choose, find};
use sinter_gpu_tests::launch::{Stream, arguments, compare, plan_of, program_on, same_bits};
use sinter_ir::{
    Binding, GpuBucket, GpuLaunch, GpuProgram, Layout, Target, Tensor, TileProgram, verify_tile,
};
use sinter_vgpu::VirtualGpu;

/// A program of the text form, with element types and extents filled in.
fn program(text: &str, facts: &[(&str, &str)]) -> TileProgram {
    let text = facts.iter().fold(text.to_string(), |text, (name, value)| text.replace(name, value));
    TileProgram::parse(&text).unwrap_or_else(|error| panic!("{error:?} in\n{text}"))
}

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

struct Case {
    tile: TileProgram,
    binding: Binding,
    params: Vec<Tensor<f32>>,
}

fn case(text: &str, facts: &[(&str, &str)], tokens: u64) -> Case {
    let tile = program(text, facts);
    assert_eq!(verify_tile(&tile), vec![], "{tile}");
    let binding = Binding::new(tokens, 1, 1, 16);
    let params = arguments(&mut Stream(tokens), &tile, &binding);
    Case { tile, binding, params }
}

impl Case {
    fn on(&self, target: Target, schedule: &Contract) -> Vec<Tensor<f32>> {
        let constant = self.tile.params.values().map(|param| param.layout == Layout::Panels).collect();
        let piece = Piece { tile: &self.tile, constant };
        let assembler = Assembler::new(target).expect("the target is known");
        let kernel = contract::kernel(
            &assembler,
            schedule.to_string().replace(|c: char| !c.is_alphanumeric(), "_"),
            &piece,
            schedule,
            None,
        );
        let kernel = kernel.unwrap_or_else(|error| panic!("{schedule}: {error}"));
        let step = &plan_of(&self.tile).steps[0];
        let launch = GpuLaunch { kernel: 0, args: step.args.clone(), steps: vec![0] };
        let bucket = GpuBucket { max_tokens: None, launches: vec![launch] };
        let program = GpuProgram { target, kernels: vec![kernel], buckets: vec![bucket], draw: None };
        // Few multiprocessors make persistent blocks do several tiles.
        let mut device = VirtualGpu::new(target).with_multiprocessors(2);
        program_on(&mut device, &self.tile, &program, (&self.binding, &self.params))
    }

    /// All schedules for a target, or some of them if `every` is more than 1.
    fn check_all(&self, target: Target, every: usize) {
        let mut first: Option<Vec<Tensor<f32>>> = None;
        let all = [None, Some(16), Some(4)].map(|tokens| candidates(&self.tile, target, tokens));
        let fits = |schedule: &&Contract| schedule.takes(&find(&self.tile).unwrap(), &self.binding);
        for schedule in all.iter().flatten().filter(fits).step_by(every) {
            let results = self.on(target, schedule);
            match &first {
                None => {
                    // The tensor cores truncate each sum to 24 bits.
                    compare(&self.tile, &self.binding, (&self.params, &results), 1e-4);
                    first = Some(results);
                }
                Some(first) => assert!(same(first, &results), "{schedule} differs\n{}", self.tile),
            }
        }
        assert!(first.is_some(), "no schedule for\n{}", self.tile);
    }
}

fn same(one: &[Tensor<f32>], other: &[Tensor<f32>]) -> bool {
    one.iter().zip(other).all(|(one, other)| same_bits(&one.data, &other.data))
}

#[test]
fn contract_f32_shapes() {
    for (n, k, tokens) in [("1", "1", 1), ("37", "24", 5), ("70", "18", 33)] {
        let facts = [("DTYPE", "f32"), ("N", n), ("K", k)];
        case(GATED, &facts, tokens).check_all(Target::Sm80, 1);
        case(SUMMED, &facts, tokens).check_all(Target::Sm80, 1);
    }
}

#[test]
fn contract_mixed_operands() {
    let mixed = GATED.replace("p1: DTYPE", "p1: f32").replace("p2: DTYPE", "p2: f32");
    case(&mixed, &[("DTYPE", "bf16"), ("N", "37"), ("K", "24")], 5).check_all(Target::Sm89, 1);
}

#[test]
fn contract_half_shapes() {
    for (n, k, tokens) in
        [("1", "1", 1), ("37", "24", 5), ("64", "96", 70), ("70", "50", 18), ("48", "152", 16)]
    {
        for dtype in ["bf16", "f16"] {
            let facts = [("DTYPE", dtype), ("N", n), ("K", k)];
            case(GATED, &facts, tokens).check_all(Target::Sm80, if dtype == "f16" { 5 } else { 1 });
            case(SUMMED, &facts, tokens).check_all(Target::Sm90a, 3);
        }
    }
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
            let results = case.on(Target::Sm90a, schedule);
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
        case(EXPERTS, &[("DTYPE", dtype), ("N", "20"), ("K", "40")], 6).check_all(Target::Sm80, 4);
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
            case.check_all(target, every);
        }
    }
}

#[test]
fn contract_choices_are_printed() {
    let tile = program(GATED, &[("DTYPE", "bf16"), ("N", "2048"), ("K", "2048")]);
    for target in Target::ALL {
        let chosen =
            [Some(16), None].map(|tokens| choose(&tile, target, tokens).expect("a schedule").to_string());
        assert_ne!(chosen[0], chosen[1], "few tokens want other tiles than many");
    }
}
