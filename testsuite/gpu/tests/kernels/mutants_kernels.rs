//! Planted miscompiles of kernels that small graphs do not reach: Hopper's products with their ring of tensor copies, splits
//! of a long context, and the kernel that draws. Each must be found by the sanitizer, or leave other bits than the kernel
//! does without it, which every schedule gives alike.

use sinter_codegen_nvptx::attend::{self, Job};
use sinter_codegen_nvptx::draw;
use sinter_codegen_nvptx::emit::Assembler;
use sinter_codegen_schedule::attend::Attend;
use sinter_codegen_schedule::codes::Format;
use sinter_codegen_schedule::contract::{Kind, candidates};
use sinter_gpu_tests::attention::{Form, Mask, Token, World};
use sinter_gpu_tests::launch::{Stream, arguments, encode, plan_of, run};
use sinter_gpu_tests::mutate::{Edit, Edit::*, Which, Which::*};
use sinter_gpu_tests::{contraction, drawn};
use sinter_ir::{
    Access, Arg, Binding, DevicePtr, GpuBucket, GpuDevice, GpuError, GpuKernel, GpuLaunch, GpuParam,
    GpuProgram, Swizzle, Target, Tensor, TileProgram,
};
use sinter_vgpu::VirtualGpu;

/// What is changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Two products by tensor copies and `wgmma`, of which each block does several tiles.
    Warpgroups,
    /// Attention of few tokens, one of which has three splits of context.
    Splits,
    /// The same of one split of each token, on codes.
    Codes,
    /// Tokens from rows of three pieces.
    Draw,
}

type Mutant = (&'static str, Which, Edit);

const WARPGROUPS: &[Mutant] = &[
    ("the copies wait for the other phase", First, Becomes("", "mbarrier.try_wait.parity", "0")),
    ("the products wait for the first phase alone", Last, Becomes("", "mbarrier.try_wait.parity", "0")),
    ("the products do not wait for the first phase", Last, Becomes("", "mbarrier.try_wait.parity", "1")),
    ("16 bytes too few are expected", All, Becomes("", "mbarrier.arrive.expect_tx", "32752")),
    ("16 bytes too many are expected", All, Becomes("", "mbarrier.arrive.expect_tx", "32784")),
    ("no bytes are expected", All, Drop("", "mbarrier.arrive.expect_tx")),
    ("stages are not given back", All, Drop("", "mbarrier.arrive.shared")),
    ("half the warps give a stage back", Last, Becomes("", "mbarrier.init", "4")),
    ("a stage waits for two copies", First, Becomes("", "mbarrier.init", "2")),
    ("nobody waits until mbarriers are made", All, Drop("", "bar.sync")),
    ("mbarriers are not shown to copies", All, Whole(no_fences)),
    ("a copy is missing", First, Drop("", "cp.async.bulk.tensor")),
    ("the last copy is missing", Last, Drop("", "cp.async.bulk.tensor")),
    ("a copy is done twice", First, Whole(copy_twice)),
    ("products are not fenced", All, Drop("", "wgmma.fence")),
    ("products are not committed", All, Drop("", "wgmma.commit_group")),
    ("products are not waited for", All, Drop("", "wgmma.wait_group")),
    ("one group too few is waited for", All, Becomes("", "wgmma.wait_group", "1")),
    ("a product is missing", First, Drop("", "wgmma.mma_async")),
    ("the last product is missing", Last, Drop("", "wgmma.mma_async")),
    ("the operands of a product change places", First, Whole(operands_swapped)),
    ("groups of eight rows are 512 bytes apart", All, Whole(descriptor_stride)),
    ("matrices are not turned", All, Whole(descriptor_plain)),
    ("a step of a product is done twice", All, Whole(step_twice)),
    ("a stage too few", First, Number("", "and.b32", -2)),
    ("another number of blocks", All, Text("", "%nctaid.x", "%ntid.x")),
    (
        "tensor maps turn within 64 bytes",
        All,
        Whole(|program| maps(program, |map| map.swizzle = Swizzle::B64)),
    ),
    ("boxes have half the rows", All, Whole(|program| maps(program, |map| map.box_dims[1] /= 2))),
    ("tensors end eight elements early", All, Whole(|program| maps(program, |map| map.dims[0].coeff -= 8))),
    ("rows are 16 bytes further apart", All, Whole(|program| maps(program, |map| map.strides[0] += 16))),
    ("too little shared memory", All, Whole(less_shared)),
];

const SPLITS: &[Mutant] = &[
    ("the counter does not go back to 0", All, Becomes("", "atom.acq_rel.gpu.global.inc", "1000000")),
    ("counting orders nothing", All, Text("", "atom.acq_rel.gpu.global.inc", "atom.relaxed.gpu.global.inc")),
    (
        "counting publishes nothing",
        All,
        Text("", "atom.acq_rel.gpu.global.inc", "atom.acquire.gpu.global.inc"),
    ),
    ("counting sees nothing", All, Text("", "atom.acq_rel.gpu.global.inc", "atom.release.gpu.global.inc")),
    ("the counter goes back too early", All, Becomes("", "atom.acq_rel.gpu.global.inc", "1")),
    ("blocks are not waited for before they are counted", Last, Drop("", "bar.sync")),
    ("the last factor of a merge is a logarithm", Last, Text("", "ex2.approx.ftz", "lg2.approx.ftz")),
    ("the lesser maximum of two splits", Last, Text("", "max.f32", "min.f32")),
    ("sums of two splits are not added", Last, Operands("", "fma.rn.f32", (1, 3), false)),
    ("a split takes another's place", All, Whole(split_place)),
    ("fewer splits of the grid", All, Whole(split_grid)),
    ("too little scratch memory", All, Whole(less_scratch)),
];

/// Barriers of a block of positions: it has come, its keys are numbers, all scores are known, its values are numbers.
const CODES: &[Mutant] = &[
    ("a block is not waited for", All, Whole(|program| no_barrier(program, 0))),
    ("keys are read before they are numbers", All, Whole(|program| no_barrier(program, 1))),
    ("values come while keys are read", All, Whole(|program| no_barrier(program, 2))),
    ("values are read before they are numbers", All, Whole(|program| no_barrier(program, 3))),
    ("copies are not waited for", All, Drop("", "cp.async.wait_group")),
    ("a scale is not copied", First, Drop("", "cp.async.ca.shared.global")),
    ("the last scale is not copied", Last, Drop("", "cp.async.ca.shared.global")),
    ("a pair of a key takes another code", First, Becomes("", "prmt.b32", "16960")),
    ("a pair of a value takes another code", Last, Becomes("", "prmt.b32", "16960")),
    ("a difference of a key is turned", First, Operands("", "fma.rn.bf16x2", (1, 3), true)),
    ("a difference of a value is turned", Last, Operands("", "fma.rn.bf16x2", (1, 3), true)),
    ("too little shared memory", All, Whole(less_shared)),
];

const DRAW: &[Mutant] = &[
    ("the counter does not go back to 0", All, Becomes("", "atom.acq_rel.gpu.global.inc", "1000000")),
    ("counting orders nothing", All, Text("", "atom.acq_rel.gpu.global.inc", "atom.relaxed.gpu.global.inc")),
    ("the counter goes back too early", All, Becomes("", "atom.acq_rel.gpu.global.inc", "1")),
    ("no block waits before it counts", First, Drop("", "bar.sync")),
    ("the last barrier is missing", Last, Drop("", "bar.sync")),
    ("a step of a fold is missing", First, Text("", ", 16, 31, -1", ", 0, 31, -1")),
    ("the last step of a fold is missing", Last, Text("", ", 1, 31, -1", ", 0, 31, -1")),
    ("beyond the row are large logits", All, Text("", "0fFF800000, %p", "0f7F000000, %p")),
    ("the bound of the row is one too high", All, Text("", ", 8194;", ", 8195;")),
    (
        "places in the list are not taken",
        All,
        Text("", "atom.relaxed.cta.shared::cta.add", "atom.relaxed.cta.shared::cta.max"),
    ),
    ("the last piece is left out", All, Whole(no_last_piece)),
    ("too little scratch memory", All, Whole(less_scratch)),
];

/// The text of all kernels changed; false if it is the same.
fn text(program: &mut GpuProgram, change: impl Fn(&str) -> String) -> bool {
    let mut found = false;
    for kernel in &mut program.kernels {
        let changed = change(&kernel.ptx);
        found |= changed != kernel.ptx;
        kernel.ptx = changed;
    }
    found
}

fn no_fences(program: &mut GpuProgram) -> bool {
    text(program, |ptx| {
        let kept = ptx.lines().filter(|line| {
            !line.contains("fence.mbarrier_init") && !line.contains("fence.proxy.async.shared")
        });
        kept.collect::<Vec<_>>().join("\n")
    })
}

/// Without the barrier of that number.
fn no_barrier(program: &mut GpuProgram, number: usize) -> bool {
    text(program, |ptx| {
        let at = ptx.lines().enumerate().filter(|(_, line)| line.contains("bar.sync")).nth(number);
        let other = |(n, _): &(usize, &str)| at.is_none_or(|(at, _)| *n != at);
        ptx.lines().enumerate().filter(other).map(|(_, line)| line).collect::<Vec<_>>().join("\n")
    })
}

/// The first line that contains a text, changed.
fn first_line(ptx: &str, part: &str, change: impl Fn(&str) -> String) -> String {
    let at = ptx.lines().position(|line| line.contains(part));
    let line = |(number, line): (usize, &str)| if Some(number) == at { change(line) } else { line.into() };
    ptx.lines().enumerate().map(line).collect::<Vec<String>>().join("\n")
}

fn copy_twice(program: &mut GpuProgram) -> bool {
    text(program, |ptx| first_line(ptx, "cp.async.bulk.tensor", |line| format!("{line}\n{line}")))
}

/// `..., a, b, 1, 1, 1, 0, 0;` becomes `..., b, a, ...`.
fn operands_swapped(program: &mut GpuProgram) -> bool {
    let swap = |line: &str| {
        let Some((sums, rest)) = line.split_once("}, ") else { return line.into() };
        let mut parts: Vec<&str> = rest.split(", ").collect();
        parts.swap(0, 1);
        format!("{sums}}}, {}", parts.join(", "))
    };
    text(program, |ptx| first_line(ptx, "wgmma.mma_async", swap))
}

/// Every whole number from the descriptor's constant up to a chunk further, changed.
fn descriptors(program: &mut GpuProgram, change: impl Fn(i64) -> i64) -> bool {
    const TURNED: i64 = 1 << 62 | (1024 >> 4) << 32 | 1 << 16;
    text(program, |ptx| {
        (0..8).fold(ptx.to_string(), |ptx, step| {
            ptx.replace(&(TURNED + step).to_string(), &change(TURNED + step).to_string())
        })
    })
}

fn descriptor_stride(program: &mut GpuProgram) -> bool {
    descriptors(program, |word| word - (32 << 32))
}

fn descriptor_plain(program: &mut GpuProgram) -> bool {
    descriptors(program, |word| word & !(1 << 62))
}

fn step_twice(program: &mut GpuProgram) -> bool {
    descriptors(program, |word| word & !2)
}

fn maps(program: &mut GpuProgram, change: impl Fn(&mut sinter_ir::TensorMapDef)) -> bool {
    let mut found = false;
    for param in program.kernels.iter_mut().flat_map(|kernel| &mut kernel.params) {
        if let GpuParam::TensorMap(map) = param {
            change(map);
            found = true;
        }
    }
    found
}

fn less_shared(program: &mut GpuProgram) -> bool {
    program.kernels.iter_mut().for_each(|kernel| kernel.shared_bytes -= 64);
    true
}

fn split_place(program: &mut GpuProgram) -> bool {
    text(program, |ptx| ptx.replace(LEFT, ", 16, %"))
}

/// What is multiplied with a split's number for its place: the bytes that it leaves.
const LEFT: &str = ", 2304, %";

fn split_grid(program: &mut GpuProgram) -> bool {
    let factor = program.kernels[0].grid.last_mut();
    factor.is_some_and(|factor| std::mem::replace(&mut factor.per_block, 1024) != 1024)
}

fn no_last_piece(program: &mut GpuProgram) -> bool {
    let factor = program.kernels[0].grid.last_mut();
    factor.is_some_and(|factor| std::mem::replace(&mut factor.extent.coeff, 8192) != 8192)
}

fn less_scratch(program: &mut GpuProgram) -> bool {
    let last = program.kernels[0].scratch.last_mut();
    last.is_some_and(|last| {
        last.coeff /= 8;
        true
    })
}

/// The result lies turned, so each thread stores its part; what goes wrong where tensor copies do is in `contract_boxes`.
const PRODUCTS: &str = "tile @contract {
  p0: bf16[T, 328] read rows \"x\"
  p1: bf16[136, 328] read panels \"w\"
  p2: bf16[136, 328] read panels \"v\"
  p3: f32[136, T] write rows \"y\"
  a0 = 0..T \"t\"
  a1 = 0..136 \"n\"
  a2 = 0..328 \"k\"
  a3 = 0..328 \"k\"
  grid a0, a1
  s0 = mma a2 : p0[a0, a2] * p1[a1, a2]
  s1 = mma a3 : p0[a0, a3] * p2[a1, a3]
  e0 = s0
  e1 = s1
  e2 = sub e0, e1
  s2 = store [] p3[a1, a0] = e2
}";

/// A kernel with what it needs to run: a tile program, or rows to draw from.
struct Case {
    kernel: GpuKernel,
    target: Target,
    step: Option<(TileProgram, Binding, Vec<Tensor<f32>>)>,
}

impl Case {
    fn new(subject: Subject) -> Case {
        match subject {
            Subject::Warpgroups => Case::products(),
            Subject::Splits => Case::attention(None, &[(0, 1099), (1, 39), (0, 600)]),
            Subject::Codes => Case::attention(Some(Format::Int8), &[(0, 129), (1, 39), (0, 60)]),
            Subject::Draw => {
                let assembler = Assembler::new(Target::Sm80).expect("the target is known");
                let kernel = draw::kernel(&assembler, "draw".into(), 8195).expect("the kernel compiles");
                Case { kernel, target: Target::Sm80, step: None }
            }
        }
    }

    fn products() -> Case {
        let tile = TileProgram::parse(PRODUCTS).expect("the program parses");
        let wanted = |kind, columns, warps| (kind, columns, warps) == (Kind::Warpgroups, 64, (2, 1));
        let mut all = candidates(&tile, Target::Sm90a, None).into_iter();
        let schedule = all.find(|schedule| wanted(schedule.kind, schedule.tile_columns, schedule.warps));
        let schedule = schedule.expect("two warpgroups of 64 columns");
        let kernel = contraction::kernel(&tile, Target::Sm90a, &schedule);
        let binding = Binding::new(150, 1, 1, 16);
        let params = arguments(&mut Stream(5), &tile, &binding);
        Case { kernel, target: Target::Sm90a, step: Some((tile, binding, params)) }
    }

    fn attention(codes: Option<Format>, tokens: &[Token]) -> Case {
        let (dtype, heads, group, widths) = ("bf16", 2, 3, (16, 16));
        let form = Form { dtype, codes, heads, group, widths, mask: Mask::Causal, capped: false };
        let tile = form.program();
        let attend = Attend::of(&tile).expect("it is attention");
        let schedule = attend.schedules(Target::Sm80, Some(4))[0];
        let assembler = Assembler::new(Target::Sm80).expect("the target is known");
        let constant = &vec![false; tile.params.len()];
        let job = Job { name: "attend", tile: &tile, attend: &attend, schedule, constant };
        let kernel = attend::kernel(&assembler, job).expect("the kernel compiles");
        let (binding, params) = World::new(form, &[1100, 40], 3).step(tokens, 9);
        Case { kernel, target: Target::Sm80, step: Some((tile, binding, params)) }
    }

    /// As a program with two launches: the second finds scratch memory as the first has left it.
    fn program(&self) -> GpuProgram {
        let args =
            self.step.as_ref().map(|(tile, ..)| plan_of(tile).steps[0].args.clone()).unwrap_or_default();
        let other = |arg: &Arg| if *arg == Arg::Output(0) { Arg::Output(1) } else { *arg };
        let again = args.iter().map(other).collect();
        let launches = [args, again].map(|args| GpuLaunch { kernel: 0, args, steps: vec![0] });
        let buckets = vec![GpuBucket { max_tokens: None, launches: launches.into() }];
        GpuProgram { target: self.target, kernels: vec![self.kernel.clone()], buckets, draw: None }
    }

    /// What both launches leave.
    fn outcome(&self, program: &GpuProgram) -> Result<Vec<u8>, GpuError> {
        match &self.step {
            Some((tile, binding, params)) => self.results(program, tile, (binding, params)),
            None => self.tokens(&program.kernels[0]),
        }
    }

    fn results(
        &self,
        program: &GpuProgram,
        tile: &TileProgram,
        (binding, params): (&Binding, &[Tensor<f32>]),
    ) -> Result<Vec<u8>, GpuError> {
        // Few multiprocessors make persistent blocks do several tiles.
        let mut device = VirtualGpu::new(self.target).with_multiprocessors(2).with_limit(LIMIT);
        let (mut places, mut results): (Vec<(Arg, DevicePtr)>, Vec<_>) = (Vec::new(), Vec::new());
        for ((param, tensor), arg) in tile.params.values().zip(params).zip(&plan_of(tile).steps[0].args) {
            let bytes = encode(param, tensor);
            let at = device.alloc(bytes.len() as u64)?;
            places.push((*arg, at));
            if param.access == Access::Read {
                device.write(at, &bytes)?;
                continue;
            }
            let again = device.alloc(bytes.len() as u64)?;
            places.push((Arg::Output(1), again));
            results.extend([(at, bytes.len()), (again, bytes.len())]);
        }
        let place =
            |arg: Arg| places.iter().find(|known| known.0 == arg).map_or(DevicePtr(0), |known| known.1);
        run(&mut device, program, binding, &place)?;
        let mut all = Vec::new();
        for (at, count) in results {
            let mut bytes = vec![0; count];
            device.read(at, &mut bytes)?;
            all.extend(bytes);
        }
        Ok(all)
    }

    fn tokens(&self, kernel: &GpuKernel) -> Result<Vec<u8>, GpuError> {
        let (rows, draws) = drawn::rows_with_draws(8195, 24);
        let mut device = VirtualGpu::new(self.target).with_limit(LIMIT);
        let found = drawn::twice(&mut device, kernel, &rows, &draws)?;
        Ok(found.iter().flatten().flat_map(|token| token.to_le_bytes()).collect())
    }
}

/// Instructions of a warp, far beyond what a block needs: what is planted may never end.
const LIMIT: u64 = 20_000_000;

fn all_are_found(subject: Subject, mutants: &[Mutant]) {
    let case = Case::new(subject);
    let program = case.program();
    let right = case.outcome(&program).expect("the kernel is right before it is changed");
    let half = right.len() / 2;
    assert_eq!(right[..half], right[half..], "both launches give the same");
    let mut missed = Vec::new();
    for (name, which, edit) in mutants {
        let mut changed = program.clone();
        if !edit.apply(*which, &mut changed) {
            missed.push(format!("{name}: there is nothing to change"));
            continue;
        }
        match case.outcome(&changed) {
            Err(error) if error.to_string().contains("was not accepted") => {
                missed.push(format!("{name}: {error}"));
            }
            Err(error) => println!("{name}: {}", error.to_string().lines().next().unwrap_or_default()),
            Ok(found) if found != right => println!("{name}: other bits"),
            Ok(_) => missed.push(format!("{name}: not found")),
        }
    }
    if !missed.is_empty() {
        println!("{}", program.kernels[0].ptx);
    }
    assert!(missed.is_empty(), "{} of {} mutants\n{}", missed.len(), mutants.len(), missed.join("\n"));
}

#[test]
fn planted_miscompiles_of_warpgroups_are_found() {
    all_are_found(Subject::Warpgroups, WARPGROUPS);
}

#[test]
fn planted_miscompiles_of_splits_are_found() {
    all_are_found(Subject::Splits, SPLITS);
}

#[test]
fn planted_miscompiles_of_attention_on_codes_are_found() {
    all_are_found(Subject::Codes, CODES);
}

#[test]
fn planted_miscompiles_of_the_draw_are_found() {
    all_are_found(Subject::Draw, DRAW);
}
