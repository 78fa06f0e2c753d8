//! Asynchronous copies and the mbarriers that count them (PTX ISA, "Data movement and conversion instructions:
//! Asynchronous copy", "Parallel synchronization and communication instructions: mbarrier").

use super::{Class, Form, form};
use crate::exec::Op;

/// An instruction of the asynchronous copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Async {
    /// `cp.async`: to, from, size, and maybe how many bytes are really there.
    Small,
    /// `cp.async.commit_group`
    SmallCommit,
    /// `cp.async.wait_group`, `cp.async.wait_all`
    SmallWait,
    /// `cp.async.mbarrier.arrive`; without `.noinc` the barrier first expects one more.
    SmallArrive {
        /// `.noinc`
        counted: bool,
    },
    /// `cp.async.bulk` from global to shared memory: to, from, size, mbarrier.
    BulkLoad,
    /// `cp.async.bulk` from shared to global memory: to, from, size.
    BulkStore,
    /// `cp.async.bulk.tensor` from global to shared memory: to, map with so many coordinates, mbarrier.
    TensorLoad(u8),
    /// `cp.async.bulk.tensor` from shared to global memory: map with so many coordinates, from.
    TensorStore(u8),
    /// `cp.async.bulk.commit_group`
    BulkCommit,
    /// `cp.async.bulk.wait_group`; with `.read` or without: what is written is not asked for in the same kernel.
    BulkWait,
    /// `fence.mbarrier_init`: copies may use the mbarriers that were made.
    ShowBarriers,
    /// An instruction on an mbarrier.
    Barrier(Barrier),
}

/// An instruction on an mbarrier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    /// `mbarrier.init`
    Init,
    /// `mbarrier.inval`
    Invalidate,
    /// `mbarrier.arrive`: the state, the barrier and maybe the count.
    Arrive,
    /// `mbarrier.arrive.noComplete`
    ArriveNoComplete,
    /// `mbarrier.arrive_drop`
    ArriveDrop,
    /// `mbarrier.arrive.expect_tx`
    ArriveExpect,
    /// `mbarrier.expect_tx`
    Expect,
    /// `mbarrier.complete_tx`
    Complete,
    /// `mbarrier.test_wait`, and `mbarrier.try_wait`, which may wait a while: for a phase by its state.
    Test {
        /// Whether it may wait.
        waits: bool,
    },
    /// The same by its parity.
    TestParity {
        /// Whether it may wait.
        waits: bool,
    },
}

pub(super) fn rows() -> Vec<Form> {
    let mut rows = small_copies();
    rows.extend(bulk_copies());
    rows.extend(tensor_copies());
    rows.extend(barriers());
    rows
}

fn row(pattern: &'static str, signature: &'static str, copy: Async) -> Form {
    form(Class::Copy, pattern, signature, Op::Async(copy))
}

fn small_copies() -> Vec<Form> {
    vec![
        row(
            "cp.async.{ca,cg}.{shared,shared::cta}.global{,.L2::64B,.L2::128B,.L2::256B}",
            ">aaw >aaww",
            Async::Small,
        ),
        row("cp.async.commit_group", ">", Async::SmallCommit),
        row("cp.async.wait_group", ">w", Async::SmallWait),
        row("cp.async.wait_all", ">", Async::SmallWait),
        row("cp.async.mbarrier.arrive.{shared,shared::cta}.b64", ">a", Async::SmallArrive { counted: false }),
        row(
            "cp.async.mbarrier.arrive.noinc.{shared,shared::cta}.b64",
            ">a",
            Async::SmallArrive { counted: true },
        ),
    ]
}

fn bulk_copies() -> Vec<Form> {
    vec![
        row(
            "cp.async.bulk.{shared::cluster,shared::cta}.global.mbarrier::complete_tx::bytes{,.L2::cache_hint}",
            ">aawa >aawad",
            Async::BulkLoad,
        ),
        row("cp.async.bulk.global.shared::cta.bulk_group{,.L2::cache_hint}", ">aaw >aawd", Async::BulkStore),
        row("cp.async.bulk.commit_group", ">", Async::BulkCommit),
        row("cp.async.bulk.wait_group{,.read}", ">w", Async::BulkWait),
    ]
}

/// The names of tensor copies by rank: one row each, as a pattern is a constant.
macro_rules! ranks {
    ($($rank:literal)*) => {
        [$((
            $rank,
            concat!(
                "cp.async.bulk.tensor.", $rank,
                "d.{shared::cluster,shared::cta}.global{,.tile}.mbarrier::complete_tx::bytes{,.L2::cache_hint}"
            ),
            concat!("cp.async.bulk.tensor.", $rank, "d.global.shared::cta{,.tile}.bulk_group{,.L2::cache_hint}"),
        )),*]
    };
}

fn tensor_copies() -> Vec<Form> {
    let both = ranks!(1 2 3 4 5).into_iter().flat_map(|(rank, load, store)| {
        [row(load, ">aAa >aAad", Async::TensorLoad(rank)), row(store, ">Aa >Aad", Async::TensorStore(rank))]
    });
    both.collect()
}

fn barriers() -> Vec<Form> {
    let row = |pattern, signature, barrier| {
        form(Class::Synchronise, pattern, signature, Op::Async(Async::Barrier(barrier)))
    };
    let proxy = "fence.proxy.async{,.shared::cta,.shared::cluster}";
    vec![
        form(Class::Synchronise, proxy, ">", Op::ProxyFence { shared: true }),
        form(Class::Synchronise, "fence.proxy.async.global", ">", Op::ProxyFence { shared: false }),
        form(Class::Synchronise, "fence.mbarrier_init.release.cluster", ">", Op::Async(Async::ShowBarriers)),
        row("mbarrier.init.{shared,shared::cta}.b64", ">aw", Barrier::Init),
        row("mbarrier.inval.{shared,shared::cta}.b64", ">a", Barrier::Invalidate),
        row(
            "mbarrier.arrive{,.release.cta,.release.cluster}.{shared,shared::cta,shared::cluster}.b64",
            "da daw",
            Barrier::Arrive,
        ),
        row(
            "mbarrier.arrive.noComplete{,.release.cta}.{shared,shared::cta}.b64",
            "daw",
            Barrier::ArriveNoComplete,
        ),
        row(
            "mbarrier.arrive_drop{,.release.cta,.release.cluster}.{shared,shared::cta,shared::cluster}.b64",
            "da daw",
            Barrier::ArriveDrop,
        ),
        row(
            "mbarrier.arrive.expect_tx{,.release.cta,.release.cluster}.{shared,shared::cta,shared::cluster}.b64",
            "daw",
            Barrier::ArriveExpect,
        ),
        row(
            "mbarrier.expect_tx{,.relaxed.cta,.relaxed.cluster}.{shared,shared::cta,shared::cluster}.b64",
            ">aw",
            Barrier::Expect,
        ),
        row(
            "mbarrier.complete_tx{,.relaxed.cta,.relaxed.cluster}.{shared,shared::cta,shared::cluster}.b64",
            ">aw",
            Barrier::Complete,
        ),
        row(
            "mbarrier.test_wait{,.acquire.cta,.acquire.cluster}.{shared,shared::cta}.b64",
            "pad padw",
            Barrier::Test { waits: false },
        ),
        row(
            "mbarrier.test_wait.parity{,.acquire.cta,.acquire.cluster}.{shared,shared::cta}.b64",
            "paw paww",
            Barrier::TestParity { waits: false },
        ),
        row(
            "mbarrier.try_wait{,.acquire.cta,.acquire.cluster}.{shared,shared::cta}.b64",
            "pad padw",
            Barrier::Test { waits: true },
        ),
        row(
            "mbarrier.try_wait.parity{,.acquire.cta,.acquire.cluster}.{shared,shared::cta}.b64",
            "paw paww",
            Barrier::TestParity { waits: true },
        ),
    ]
}
