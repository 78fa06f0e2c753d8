//! Clusters, and what only hints at caches (PTX ISA, "barrier.cluster", "mapa", "createpolicy").

use super::{Class, Form, form, lanes2};
use crate::exec::Op;
use crate::memory::in_block;

pub(super) fn rows() -> Vec<Form> {
    let row = |pattern, signature, op| form(Class::Synchronise, pattern, signature, op);
    vec![
        row("barrier.cluster.arrive{,.release}{,.aligned}", ">", Op::ClusterArrive { releases: true }),
        row("barrier.cluster.arrive.relaxed{,.aligned}", ">", Op::ClusterArrive { releases: false }),
        row("barrier.cluster.wait{,.acquire}{,.aligned}", ">", Op::ClusterWait),
        row(
            "mapa{,.shared::cluster}.u64",
            "ddw",
            Op::LongShift(|a, b, out| lanes2(a, b, out, |a: u64, b: u32| in_block(a, b))),
        ),
        row(
            "mapa.shared::cluster.u32",
            "www",
            Op::Word2(|a, b, out| lanes2(a, b, out, |a: u32, b: u32| in_block(u64::from(a), b) as u32)),
        ),
        row("cp.async.bulk.prefetch.L2.global{,.L2::cache_hint}", ">aw >awd", Op::Nothing),
        row(
            "cp.async.bulk.prefetch.tensor.{1d,2d,3d,4d,5d}.L2.global{,.tile}{,.L2::cache_hint}",
            ">A >Ad",
            Op::Nothing,
        ),
        row(
            "createpolicy.fractional.L2::{evict_last,evict_normal,evict_first,evict_unchanged}.b64",
            "d dw",
            Op::Policy,
        ),
    ]
}
