//! Tensor cores: `mma.sync`, the matrix loads and stores that feed it, and `wgmma` (PTX ISA, "Warp level matrix
//! instructions", "Asynchronous warpgroup level matrix instructions").

use super::{Class, Form, form};
use crate::exec::Op;
use crate::tensor::Format;
use crate::tensor::fragments::MmaForm;

/// An instruction of the tensor cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tensor {
    /// `mma.sync` with f32 accumulators: D, A, B, C.
    Mma(MmaForm),
    /// `mma.sync.m16n8k32` of 8-bit integers; with `.satfinite` or without.
    MmaInteger(bool),
    /// `ldmatrix`: how many matrices, and whether they are transposed.
    LoadMatrix(u8, bool),
    /// `stmatrix`
    StoreMatrix(u8, bool),
    /// `wgmma.fence`
    Fence,
    /// `wgmma.commit_group`
    Commit,
    /// `wgmma.wait_group`
    Wait,
    /// `wgmma.mma_async` with 16-bit operands and f32 accumulators: the columns.
    Multiply(Format, u16),
}

pub(super) fn rows() -> Vec<Form> {
    let mut rows = mma();
    rows.extend(matrices());
    rows.extend(wgmma());
    rows
}

/// `mma.sync` for every shape of [`MmaForm`].
fn mma() -> Vec<Form> {
    let shapes = [
        (8, Format::Bf16, Format::Bf16, "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32"),
        (16, Format::Bf16, Format::Bf16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"),
        (8, Format::F16, Format::F16, "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32"),
        (16, Format::F16, Format::F16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"),
        (4, Format::Tf32, Format::Tf32, "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32"),
        (8, Format::Tf32, Format::Tf32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"),
        (32, Format::E4m3, Format::E4m3, "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32"),
        (32, Format::E4m3, Format::E5m2, "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e5m2.f32"),
        (32, Format::E5m2, Format::E4m3, "mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e4m3.f32"),
        (32, Format::E5m2, Format::E5m2, "mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e5m2.f32"),
    ];
    let row = |pattern, tensor| form(Class::Tensor, pattern, "vvvv", Op::Tensor(tensor));
    let floats = shapes
        .into_iter()
        .filter_map(|(k, a, b, pattern)| MmaForm::new(k, a, b).map(|shape| row(pattern, Tensor::Mma(shape))));
    let mut rows: Vec<Form> = floats.collect();
    let integers = "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32";
    let saturated = "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32";
    rows.push(row(integers, Tensor::MmaInteger(false)));
    rows.push(row(saturated, Tensor::MmaInteger(true)));
    rows
}

fn matrices() -> Vec<Form> {
    let row = |pattern, signature, tensor| form(Class::Shared, pattern, signature, Op::Tensor(tensor));
    let (load, store) = ("va", ">av");
    vec![
        row("ldmatrix.sync.aligned.m8n8.x1.{shared,shared::cta}.b16", load, Tensor::LoadMatrix(1, false)),
        row("ldmatrix.sync.aligned.m8n8.x2.{shared,shared::cta}.b16", load, Tensor::LoadMatrix(2, false)),
        row("ldmatrix.sync.aligned.m8n8.x4.{shared,shared::cta}.b16", load, Tensor::LoadMatrix(4, false)),
        row(
            "ldmatrix.sync.aligned.m8n8.x1.trans.{shared,shared::cta}.b16",
            load,
            Tensor::LoadMatrix(1, true),
        ),
        row(
            "ldmatrix.sync.aligned.m8n8.x2.trans.{shared,shared::cta}.b16",
            load,
            Tensor::LoadMatrix(2, true),
        ),
        row(
            "ldmatrix.sync.aligned.m8n8.x4.trans.{shared,shared::cta}.b16",
            load,
            Tensor::LoadMatrix(4, true),
        ),
        row("stmatrix.sync.aligned.m8n8.x1.{shared,shared::cta}.b16", store, Tensor::StoreMatrix(1, false)),
        row("stmatrix.sync.aligned.m8n8.x2.{shared,shared::cta}.b16", store, Tensor::StoreMatrix(2, false)),
        row("stmatrix.sync.aligned.m8n8.x4.{shared,shared::cta}.b16", store, Tensor::StoreMatrix(4, false)),
        row(
            "stmatrix.sync.aligned.m8n8.x1.trans.{shared,shared::cta}.b16",
            store,
            Tensor::StoreMatrix(1, true),
        ),
        row(
            "stmatrix.sync.aligned.m8n8.x2.trans.{shared,shared::cta}.b16",
            store,
            Tensor::StoreMatrix(2, true),
        ),
        row(
            "stmatrix.sync.aligned.m8n8.x4.trans.{shared,shared::cta}.b16",
            store,
            Tensor::StoreMatrix(4, true),
        ),
    ]
}

/// The names of wgmma's shapes with their columns: one row each, as a pattern is a constant.
macro_rules! widths {
    ($kind:literal, $format:expr, $($n:literal)*) => {
        [$((
            concat!("wgmma.mma_async.sync.aligned.m64n", $n, "k16.f32.", $kind, ".", $kind),
            Tensor::Multiply($format, $n),
        )),*]
    };
}

/// wgmma: the accumulators, `A` as a descriptor or as four registers, the descriptor of `B`, scale-d, scale-a, scale-b,
/// and whether `A` (if in shared memory) and `B` are M/N-major.
fn wgmma() -> Vec<Form> {
    let bf16 = widths!("bf16", Format::Bf16, 8 16 24 32 40 48 56 64 72 80 88 96 104 112 120 128 136 144 152 160 168 176 184
        192 200 208 216 224 232 240 248 256);
    let f16 = widths!("f16", Format::F16, 8 16 24 32 40 48 56 64 72 80 88 96 104 112 120 128 136 144 152 160 168 176 184 192
        200 208 216 224 232 240 248 256);
    let multiply = |(pattern, tensor)| form(Class::Tensor, pattern, "vddpwwww vvdpwww", Op::Tensor(tensor));
    let mut rows: Vec<Form> = bf16.into_iter().chain(f16).map(multiply).collect();
    let row = |pattern, signature, tensor| form(Class::Synchronise, pattern, signature, Op::Tensor(tensor));
    rows.push(row("wgmma.fence.sync.aligned", ">", Tensor::Fence));
    rows.push(row("wgmma.commit_group.sync.aligned", ">", Tensor::Commit));
    rows.push(row("wgmma.wait_group.sync.aligned", ">w", Tensor::Wait));
    rows
}
