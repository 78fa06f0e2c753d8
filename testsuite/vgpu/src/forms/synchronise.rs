//! Barriers, fences, votes and the like, and the end of threads (PTX ISA, "Parallel synchronization and communication",
//! "Control flow"). A signature that begins with `>` has no destination.

use super::{Class, Form, form};
use crate::exec::{Op, Vote};

pub(super) fn rows() -> Vec<Form> {
    let mut rows = warps();
    rows.extend(blocks());
    rows.extend(ends());
    rows
}

fn warps() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Synchronise, pattern, signature, op);
    vec![
        row("vote.sync.all.pred", "ppw", Op::Vote(Vote::All)),
        row("vote.sync.any.pred", "ppw", Op::Vote(Vote::Any)),
        row("vote.sync.uni.pred", "ppw", Op::Vote(Vote::Uniform)),
        row("vote.sync.ballot.b32", "wpw", Op::Vote(Vote::Ballot)),
        row("activemask.b32", "w", Op::ActiveMask),
        row("redux.sync.add.{s32,u32}", "www", Op::Reduce(|a, b| a.wrapping_add(b))),
        row("redux.sync.min.u32", "www", Op::Reduce(|a, b| a.min(b))),
        row("redux.sync.max.u32", "www", Op::Reduce(|a, b| a.max(b))),
        row("redux.sync.min.s32", "www", Op::Reduce(|a, b| (a as i32).min(b as i32) as u32)),
        row("redux.sync.max.s32", "www", Op::Reduce(|a, b| (a as i32).max(b as i32) as u32)),
        row("redux.sync.and.b32", "www", Op::Reduce(|a, b| a & b)),
        row("redux.sync.or.b32", "www", Op::Reduce(|a, b| a | b)),
        row("redux.sync.xor.b32", "www", Op::Reduce(|a, b| a ^ b)),
        row("bar.warp.sync", ">w", Op::WarpSync),
        row("elect.sync", "ew", Op::Elect),
    ]
}

fn blocks() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Synchronise, pattern, signature, op);
    vec![
        row(
            "{bar.sync,barrier.sync.aligned,bar.cta.sync,barrier.cta.sync.aligned}",
            ">w >ww",
            Op::Barrier(true),
        ),
        row("{barrier.sync,barrier.cta.sync}", ">w >ww", Op::Barrier(false)),
        row("{bar.arrive,barrier.arrive.aligned,barrier.arrive}", ">ww", Op::BarrierArrive),
        row("membar.cta", ">", Op::Nothing),
        row("membar.{gl,sys}", ">", Op::Fence),
        row("fence{,.acq_rel,.sc,.acquire,.release}.{cta,cluster}", ">", Op::Nothing),
        row("fence{,.acq_rel,.sc,.acquire,.release}.{gpu,sys}", ">", Op::Fence),
        row("nanosleep.u32", ">w", Op::Sleep),
        row("griddepcontrol.{wait,launch_dependents}", ">", Op::Nothing),
        row("setmaxnreg.{inc,dec}.sync.aligned.u32", ">w", Op::Nothing),
        row("prefetch{,.global}.{L1,L2}", ">a", Op::Nothing),
        row("prefetch{,.param}.tensormap", ">a", Op::Nothing),
    ]
}

fn ends() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Control, pattern, signature, op);
    vec![row("{ret,ret.uni,exit}", ">", Op::Exit), row("trap", ">", Op::Trap)]
}
