//! Where a block stands in the grid.

use super::{Job, room};
use crate::emit::{Int, K};
use crate::lower::Scope;
use sinter_codegen_schedule::attend::{AttendSchedule, SPLIT};

/// What a block is to do.
pub(super) struct Point<'a, 'k> {
    /// The heads' axes are known in it.
    pub(super) scope: Scope<'a, 'k>,
    /// The first token, and one past the last.
    pub(super) tokens: (Int<'k>, Int<'k>),
    /// The first head of the group.
    pub(super) head: Int<'k>,
    /// The split of the context.
    pub(super) split: Int<'k>,
    /// Which tokens and heads these are, counted through.
    pub(super) unit: Int<'k>,
}

impl<'a, 'k> Point<'a, 'k> {
    pub(super) fn new(k: K<'k>, job: &Job<'a>) -> Self {
        let mut scope = Scope::new(k, job.tile, job.constant, 0);
        let (heads, tokens) = room(job);
        let (mut rest, mut split) = (k.block(), k.int(0));
        if matches!(job.schedule, AttendSchedule::Splits { .. }) {
            let splits = ceil(scope.extent(job.attend.context), SPLIT);
            (rest, split) = (rest.divided(splits), rest.modulo(splits));
        }
        let unit = rest;
        let mut head = k.int(0);
        if job.attend.group.is_some() {
            let parts = job.attend.sizes.group.div_ceil(heads) as i32;
            head = rest.modulo(parts) * heads as i32;
            rest = rest.divided(parts);
        }
        for axis in job.attend.heads.iter().rev() {
            let extent = scope.extent(*axis);
            scope = scope.with_axis(*axis, rest.modulo(extent));
            rest = rest.divided(extent);
        }
        let all = scope.extent(job.attend.tokens);
        if tokens > 1 {
            // Late tokens have long contexts: they begin first.
            rest = ceil(all, tokens) - 1 - rest;
        }
        let first = rest * tokens as i32;
        let last = (first + tokens as i32).least(all);
        Point { scope, tokens: (first, last), head, split, unit }
    }
}

/// ⌈value / by⌉
pub(super) fn ceil(value: Int<'_>, by: u32) -> Int<'_> {
    (value + (by as i32 - 1)).divided(by as i32)
}
