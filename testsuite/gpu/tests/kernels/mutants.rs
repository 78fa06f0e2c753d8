//! Planted miscompiles: pure changes of a compiled program, in its PTX, its kernels or its launches. The checks that the
//! random graphs go through must find each of them, and each must still find the place that it changes.

use sinter_gpu_tests::agree::Case;
use sinter_gpu_tests::graphs::{Activation, Attention, Piece, Recipe};
use sinter_gpu_tests::mutate::{Edit, Edit::*, Which, Which::*};
use sinter_ir::{DType, GpuParam, GpuProgram, Sym, Target};
use std::collections::BTreeMap;

/// What is compiled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Program {
    /// Norms, softmax, a choice.
    Rows,
    /// Products with everything around them.
    Products,
    /// A windowed attention with capped scores over the paged cache.
    Attention,
}

type Mutant = (&'static str, Program, DType, Target, Which, Edit);

#[rustfmt::skip]
const MUTANTS: &[Mutant] = &[
    ("a shuffle takes the wrong lane", Program::Rows, DType::F32, Target::Sm80, First, Text("rows", ", 1, 31, -1", ", 2, 31, -1")),
    ("a step of a reduction is missing", Program::Rows, DType::F32, Target::Sm90a, First, Text("rows", ", 4, 31, -1", ", 0, 31, -1")),
    ("the greater instead of the sum", Program::Rows, DType::F32, Target::Sm80, First, Text("rows", "add.rn.f32", "max.f32")),
    ("the last sum is a maximum", Program::Rows, DType::F32, Target::Sm80, Last, Text("rows", "add.rn.f32", "max.f32")),
    ("a sum instead of a product", Program::Rows, DType::F32, Target::Sm80, First, Text("rows", "mul.rn.f32", "add.rn.f32")),
    ("the operands of differences change places", Program::Rows, DType::F32, Target::Sm80, All, Operands("rows", "sub.rn.f32", (1, 2), true)),
    ("a root instead of a reciprocal", Program::Rows, DType::F32, Target::Sm80, All, Text("rows", "rcp.rn.f32", "sqrt.rn.f32")),
    ("another epsilon", Program::Rows, DType::F32, Target::Sm80, All, Text("rows", "0f3C23D70A", "0f3D23D70A")),
    ("another logarithm of 2", Program::Rows, DType::F32, Target::Sm80, All, Text("rows", "0f3FB8AA3B", "0f3FB80000")),
    ("bf16 is cut off, not rounded", Program::Rows, DType::Bf16, Target::Sm80, All, Text("rows", "cvt.rn.bf16.f32", "cvt.rz.bf16.f32")),
    ("two halves of a word change places", Program::Products, DType::Bf16, Target::Sm80, First, Operands("", "cvt.rn.bf16x2.f32", (1, 2), true)),
    ("the wrong half of a word", Program::Rows, DType::Bf16, Target::Sm80, All, Text("rows", ", -65536", ", 65535")),
    ("a half of a word is a bit off", Program::Rows, DType::Bf16, Target::Sm80, First, Number("rows", "shl.b32", 1)),
    ("no tail predicate", Program::Rows, DType::F32, Target::Sm80, All, Drop("rows", "@%p1 bra")),
    ("rows are not kept within the tensor", Program::Products, DType::F32, Target::Sm80, All, Text("contract", "min.s32", "max.s32")),
    ("the pitch of a row is off by four bytes", Program::Rows, DType::F32, Target::Sm80, First, Number("rows", "mul.wide.s32", 4)),
    ("another symbol", Program::Rows, DType::F32, Target::Sm80, First, Whole(other_symbol)),
    ("no barrier between tiles of bf16", Program::Products, DType::Bf16, Target::Sm80, All, Drop("contract", "bar.sync")),
    ("no barrier before tiles of f32 are used", Program::Products, DType::F32, Target::Sm80, Last, Drop("contract", "bar.sync")),
    ("no barrier before tiles of f32 are filled again", Program::Products, DType::F32, Target::Sm80, First, Drop("contract", "bar.sync")),
    ("copies are not waited for", Program::Products, DType::Bf16, Target::Sm80, All, Drop("contract", "cp.async.wait_group")),
    ("one copy too few is waited for", Program::Products, DType::Bf16, Target::Sm80, All, Number("contract", "cp.async.wait_group", 1)),
    ("copies are not committed", Program::Products, DType::Bf16, Target::Sm80, All, Drop("contract", "cp.async.commit_group")),
    ("a copy is missing", Program::Products, DType::Bf16, Target::Sm90a, First, Drop("contract", "cp.async.cg")),
    ("matrices are transposed", Program::Products, DType::Bf16, Target::Sm80, First, Text("contract", "ldmatrix.sync.aligned.m8n8.x4.shared", "ldmatrix.sync.aligned.m8n8.x4.trans.shared")),
    ("another addend", Program::Products, DType::F32, Target::Sm80, First, Operands("contract", "fma.rn.f32", (1, 3), false)),
    ("another factor", Program::Products, DType::F32, Target::Sm90a, First, Operands("contract", "fma.rn.f32", (1, 2), false)),
    ("a product without its sum", Program::Products, DType::F32, Target::Sm80, Last, Text("contract", "add.rn.f32", "sub.rn.f32")),
    ("an exchange with the wrong lane", Program::Products, DType::Bf16, Target::Sm80, First, Text("contract", ", 1, 31, -1", ", 2, 31, -1")),
    ("an opposite predicate", Program::Products, DType::Bf16, Target::Sm90a, All, Text("contract", "not.pred", "mov.pred")),
    ("a column too few is stored", Program::Products, DType::F32, Target::Sm80, All, Number("contract", "setp.gt.u32", -1)),
    ("the bound of the rows is off by one", Program::Products, DType::F32, Target::Sm80, All, Text("contract", "setp.ge.s32", "setp.gt.s32")),
    ("half the blocks", Program::Rows, DType::F32, Target::Sm80, First, Whole(half_the_blocks)),
    ("the last block of columns is left out", Program::Products, DType::Bf16, Target::Sm80, First, Whole(no_last_block)),
    ("two arguments change places", Program::Products, DType::Bf16, Target::Sm90a, First, Whole(arguments_swapped)),
    ("another kernel is launched", Program::Products, DType::F32, Target::Sm80, First, Whole(other_kernel)),
    ("a launch is left out", Program::Products, DType::F32, Target::Sm80, First, Whole(no_launch)),
    ("too little shared memory", Program::Products, DType::Bf16, Target::Sm80, First, Whole(less_shared)),
    ("half the threads", Program::Rows, DType::F32, Target::Sm80, First, Whole(half_the_threads)),
    ("another page", Program::Attention, DType::F32, Target::Sm80, All, Text("attend", ", 1073741820", ", 1073741816")),
    ("another place in a page", Program::Attention, DType::F32, Target::Sm80, All, Text("attend", ", 15;", ", 7;")),
    ("a token does not see itself", Program::Attention, DType::F32, Target::Sm80, All, Text("attend", "setp.le.s32", "setp.lt.s32")),
    ("a window is one too wide", Program::Attention, DType::F32, Target::Sm90a, All, Text("attend", "setp.lt.s32", "setp.le.s32")),
    ("the lesser instead of the greater score", Program::Attention, DType::F32, Target::Sm80, All, Text("attend", "max.f32", "min.f32")),
    ("differences of scores change sign", Program::Attention, DType::F32, Target::Sm80, All, Operands("attend", "sub.rn.f32", (1, 2), true)),
    ("masked scores are 0", Program::Attention, DType::F32, Target::Sm80, All, Text("attend", "0fFF800000", "0f00000000")),
    ("lanes do not wait for one another", Program::Attention, DType::F32, Target::Sm80, All, Drop("attend", "bar.warp.sync")),
    ("blocks of the cache are not waited for", Program::Attention, DType::Bf16, Target::Sm80, All, Drop("attend", "cp.async.wait_group")),
    ("warps do not wait for one another", Program::Attention, DType::Bf16, Target::Sm90a, All, Drop("attend", "bar.sync")),
    ("another coefficient of tanh", Program::Attention, DType::F32, Target::Sm80, All, Text("attend", "0fBEAAAA99", "0fBEA00000")),
    ("a score of another row", Program::Attention, DType::F32, Target::Sm80, First, Text("attend", "16, 31, -1", "0, 31, -1")),
    ("values are not transposed", Program::Attention, DType::Bf16, Target::Sm80, All, Text("attend", "x4.trans.shared", "x4.shared")),
    ("keys are transposed", Program::Attention, DType::Bf16, Target::Sm90a, All, Text("attend", "m8n8.x4.shared", "m8n8.x4.trans.shared")),
];

/// T is taken for S.
fn other_symbol(program: &mut GpuProgram) -> bool {
    let Some(kernel) = program.kernels.first_mut() else { return false };
    let before = kernel.params.iter().take_while(|param| **param != GpuParam::Symbols).count();
    let name = |at: usize| format!("[{}_param_{at}]", kernel.name);
    let changed = kernel.ptx.replace(&name(before), &name(before + 1));
    std::mem::replace(&mut kernel.ptx, changed.clone()) != changed
}

fn half_the_blocks(program: &mut GpuProgram) -> bool {
    let mut found = false;
    for kernel in &mut program.kernels {
        for factor in kernel.grid.iter_mut().filter(|factor| factor.extent.sym == Some(Sym::T)) {
            factor.per_block *= 2;
            found = true;
        }
    }
    found
}

fn no_last_block(program: &mut GpuProgram) -> bool {
    let mut found = false;
    for kernel in program.kernels.iter_mut().filter(|kernel| kernel.name.starts_with("contract")) {
        let large = |factor: &&mut sinter_ir::Blocks| {
            factor.extent.as_const().is_some_and(|extent| extent > factor.per_block)
        };
        for factor in kernel.grid.iter_mut().filter(large) {
            factor.extent.coeff -= factor.per_block;
            found = true;
        }
    }
    found
}

fn arguments_swapped(program: &mut GpuProgram) -> bool {
    let of = |kernel: &&mut sinter_ir::GpuKernel| kernel.name.starts_with("contract");
    let Some(kernel) = program.kernels.iter_mut().find(of) else { return false };
    kernel.params.swap(0, 1);
    true
}

/// Two kernels that take as many parameters are taken for one another.
fn other_kernel(program: &mut GpuProgram) -> bool {
    let kernels = &program.kernels;
    let pairs = (0..kernels.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let alike = |(a, b): &(usize, usize)| kernels[*a].params.len() == kernels[*b].params.len();
    let Some((a, b)) = pairs.into_iter().find(alike) else { return false };
    for launch in program.buckets.iter_mut().flat_map(|bucket| &mut bucket.launches) {
        launch.kernel = if launch.kernel == a { b } else { launch.kernel };
    }
    true
}

fn no_launch(program: &mut GpuProgram) -> bool {
    program.buckets.iter_mut().all(|bucket| bucket.launches.pop().is_some())
}

fn less_shared(program: &mut GpuProgram) -> bool {
    let mut found = false;
    for kernel in program.kernels.iter_mut().filter(|kernel| kernel.shared_bytes > 0) {
        kernel.shared_bytes /= 2;
        found = true;
    }
    found
}

fn half_the_threads(program: &mut GpuProgram) -> bool {
    let Some(kernel) = program.kernels.first_mut() else { return false };
    kernel.threads /= 2;
    true
}

fn recipe(program: Program, dtype: DType) -> Recipe {
    let product = |normed, activation| Piece::Product { normed, bias: true, activation, residual: true };
    let pieces = match program {
        Program::Rows => vec![
            Piece::Norm { centred: true, bias: true },
            Piece::Softmax { scale: 4.0 },
            Piece::Choice { k: 2 },
            Piece::Transposed { op: sinter_ir::ScalarOp::Tanh },
        ],
        Program::Products => vec![
            product(true, Activation::None),
            Piece::Gated { normed: false, inner: 200, activation: Activation::None },
        ],
        Program::Attention => vec![Piece::Attention(Attention {
            normed: false,
            kv_heads: 2,
            group: 2,
            dim: 16,
            window: Some(5),
            cap: Some(2.0),
            rotated: true,
            cached: true,
            slopes: false,
            bias: false,
        })],
    };
    Recipe { seed: 11, dtype, width: 64, vocab: 37, pieces, prompts: vec![20, 3], further: 1 }
}

#[test]
fn planted_miscompiles_are_found() {
    let mut compiled = BTreeMap::new();
    let mut missed = Vec::new();
    for (name, what, dtype, target, which, edit) in MUTANTS {
        let (case, program) = compiled.entry((*what, *dtype, *target)).or_insert_with(|| {
            let case = Case::new(&recipe(*what, *dtype))
                .expect("the graph compiles")
                .expect("its bounds say something");
            let program = case.compiled(*target).expect("it compiles");
            case.program(program.clone()).expect("the program is right before it is changed");
            (case, program)
        });
        let mut changed = program.clone();
        if !edit.apply(*which, &mut changed) {
            missed.push(format!("{name}: there is nothing to change"));
            continue;
        }
        match case.program(changed) {
            Err(error) if error.contains("was not accepted") => missed.push(format!("{name}: {error}")),
            Err(error) => println!("{name}: {}", error.lines().next().unwrap_or_default()),
            Ok(distance) => missed.push(format!("{name}: not found, {distance:?}")),
        }
    }
    assert!(missed.is_empty(), "{} of {} mutants\n{}", missed.len(), MUTANTS.len(), missed.join("\n"));
    assert!(MUTANTS.len() >= 30, "{} mutants are too few", MUTANTS.len());
}
