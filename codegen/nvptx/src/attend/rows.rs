//! The rows of a block: neighbouring tokens and the heads of a group. Their tokens may belong to several sequences.

use super::Job;
use super::point::{Point, ceil};
use crate::emit::{Bit, Int, K};
use crate::lower::{Scope, Val};
use sinter_codegen_schedule::access;
use sinter_codegen_schedule::attend::POSITIONS;
use sinter_ir::{Expr, ExprId, Id};

/// A row of a fragment as one thread sees it.
pub(super) struct Row<'a, 'k> {
    /// Token, heads and what of the score depends on them alone are known.
    pub(super) scope: Scope<'a, 'k>,
    /// The token, counted in the block.
    pub(super) token: Int<'k>,
    /// Whether there is such a row.
    pub(super) exists: Bit<'k>,
}

/// Positions from the first up to the last: a range of the context.
#[derive(Clone, Copy)]
pub(super) struct Range<'k> {
    pub(super) from: Int<'k>,
    pub(super) to: Int<'k>,
}

impl<'k> Range<'k> {
    /// The first block of positions with any of them, and one past the last.
    pub(super) fn blocks(self) -> (Int<'k>, Int<'k>) {
        (self.from.divided(POSITIONS as i32), ceil(self.to, POSITIONS))
    }
}

impl<'a, 'k> Row<'a, 'k> {
    /// Row `row` of a block of which `heads` rows share a token.
    pub(super) fn new(job: &Job<'a>, point: &Point<'a, 'k>, row: Int<'k>, heads: u32) -> Self {
        let (token, head) = (row.divided(heads as i32), point.head + row.modulo(heads as i32));
        let (first, last) = point.tokens;
        let at = (first + token).least(last - 1);
        let mut scope = point.scope.with_axis(job.attend.tokens, at);
        let mut exists = (first + token).lt(last);
        if let Some(group) = job.attend.group {
            let extent = job.attend.sizes.group as i32;
            scope = scope.with_axis(group, head.least(extent - 1));
            exists = exists & head.lt(extent);
        }
        let scope = with_fixed_parts(job, scope);
        Row { scope, token, exists }
    }
}

/// The scope in which the parts of the score that depend neither on the position nor on the product are known.
fn with_fixed_parts<'a, 'k>(job: &Job<'a>, mut scope: Scope<'a, 'k>) -> Scope<'a, 'k> {
    let (tile, context) = (job.tile, job.attend.context);
    let mut moving = vec![false; tile.exprs.len()];
    let cone = tile.cone(job.attend.score);
    for id in &cone {
        moving[id.index()] = match &tile.exprs[*id] {
            Expr::Const(_) => false,
            Expr::Index(index) => index.axes().contains(&context),
            Expr::Load(load) => load.index.iter().any(|index| index.axes().contains(&context)),
            Expr::Stage(_) => true,
            Expr::Apply(_, args) => args.iter().any(|arg| moving[arg.index()]),
            Expr::Cast(_, arg) => moving[arg.index()],
        };
    }
    // Arms of selections may load outside when they are not chosen; they are left where they are.
    let guarded = access::guarded(tile, job.attend.score);
    let mut fixed: Vec<ExprId> = Vec::new();
    for id in cone.iter().filter(|id| moving[id.index()]) {
        let args: &[ExprId] = match &tile.exprs[*id] {
            Expr::Apply(_, args) => args,
            Expr::Cast(_, arg) => std::slice::from_ref(arg),
            Expr::Const(_) | Expr::Index(_) | Expr::Load(_) | Expr::Stage(_) => &[],
        };
        fixed.extend(args.iter().filter(|arg| !moving[arg.index()] && !guarded[arg.index()]));
    }
    fixed.sort_unstable();
    fixed.dedup();
    for id in fixed {
        if !matches!(tile.exprs[id], Expr::Const(_)) {
            let value: Val<'k> = scope.value(id);
            scope = scope.with_value(id, value);
        }
    }
    scope
}

/// The tokens of a block as its warps see them: each warp looks at all of them.
pub(super) struct Tokens<'p, 'a, 'k> {
    pub(super) k: K<'k>,
    pub(super) job: &'p Job<'a>,
    pub(super) point: &'p Point<'a, 'k>,
    /// The most tokens of a block.
    pub(super) room: u32,
}

impl<'a, 'k> Tokens<'_, 'a, 'k> {
    /// The number of tokens.
    pub(super) fn count(&self) -> Int<'k> {
        self.point.tokens.1 - self.point.tokens.0
    }

    /// The scope of a token, counted in the block.
    pub(super) fn scope(&self, token: Int<'k>) -> Scope<'a, 'k> {
        self.point.scope.with_axis(self.job.attend.tokens, self.point.tokens.0 + token)
    }

    /// Whether tokens of a block can have different contexts.
    pub(super) fn may_differ(&self) -> bool {
        self.room > 1 && !self.job.attend.contexts.is_empty()
    }

    /// One past the last token from `first` on whose context is that of `first`.
    pub(super) fn same_context(&self, first: Int<'k>) -> Int<'k> {
        let count = self.count();
        let known: Vec<_> =
            self.job.attend.contexts.iter().map(|index| self.scope(first).index(index)).collect();
        let mut end = count;
        for chunk in (0..self.room).step_by(32) {
            let at = self.k.lane() + chunk as i32;
            let scope = self.scope(at.least(count - 1));
            let mut same = at.le(first) | at.ge(count);
            let mut equal = self.k.bit(true);
            for (index, known) in self.job.attend.contexts.iter().zip(&known) {
                equal = equal & scope.index(index).equals(*known);
            }
            same = same | equal;
            end = end.least(same.select(count, at));
        }
        warp_fold(end, Int::least)
    }

    /// The range that is not masked for all of the tokens from `first` to before `end`.
    pub(super) fn range(&self, first: Int<'k>, end: Int<'k>) -> Range<'k> {
        let mut range: Option<Range<'k>> = None;
        for chunk in (0..self.room).step_by(32) {
            let at = if self.room == 1 { first } else { (self.k.lane() + chunk as i32).greatest(first) };
            let own = bounds(self.job, &self.scope(at.least(end - 1)));
            range = Some(range.map_or(own, |range| Range {
                from: range.from.least(own.from),
                to: range.to.greatest(own.to),
            }));
        }
        let range = range.unwrap_or_else(|| bounds(self.job, &self.scope(first)));
        if self.room == 1 {
            return range;
        }
        Range { from: warp_fold(range.from, Int::least), to: warp_fold(range.to, Int::greatest) }
    }
}

/// The range of a token's context.
pub(super) fn bounds<'k>(job: &Job<'_>, scope: &Scope<'_, 'k>) -> Range<'k> {
    let k = scope.k;
    let whole = |id: ExprId| scope.value(id).whole(k);
    let extent = scope.extent(job.attend.context);
    Range {
        from: job.attend.from.map_or(k.int(0), |from| whole(from).greatest(0)),
        to: job.attend.to.map_or(extent, |to| whole(to).least(extent)),
    }
}

fn warp_fold<'k>(value: Int<'k>, fold: impl Fn(Int<'k>, Int<'k>) -> Int<'k>) -> Int<'k> {
    [16, 8, 4, 2, 1].into_iter().fold(value, |value, bits| fold(value, value.of_lane_xor(bits)))
}
