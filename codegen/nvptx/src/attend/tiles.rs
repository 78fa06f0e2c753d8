//! Attention of many tokens: a block has a tile of rows, each of its warps 16 of them, and goes through all of their
//! context (T. Dao, FlashAttention-2, 2023). Scores and weights stay in registers; while a block of positions is worked
//! on, what comes next is copied.
//!
//! Tokens of several sequences in one tile are done one sequence after another.

use super::Job;
use super::fragment::{self, FRAGMENTS, State};
use super::kept::Kept;
use super::point::Point;
use super::query::Query;
use super::rows::{Range, Row, Tokens};
use super::stage::Stages;
use crate::emit::{Int, K};
use crate::lower::Scope;
use sinter_codegen_schedule::attend::{FRAGMENT, POSITIONS, SPLIT};

/// What all of a block's work has.
struct Tile<'p, 'a, 'k> {
    k: K<'k>,
    job: &'p Job<'a>,
    tokens: Tokens<'p, 'a, 'k>,
    rows: [Row<'a, 'k>; 2],
    query: Query<'k>,
    stages: Stages<'a, 'k>,
    count: u32,
    kept: Kept<'k>,
}

pub(super) fn write<'k>(k: K<'k>, job: &Job<'_>, (warps, count): (u32, u32)) {
    let point = Point::new(k, job);
    let (heads, room) = super::room(job);
    let first = k.warp() * FRAGMENT as i32 + (k.lane() >> 2);
    let rows = [first, first + 8].map(|row| Row::new(job, &point, row, heads));
    let stages = Stages::new(k, job, count);
    let query = Query::load(k, job, &rows, Query::room(k, job));
    let kept = Kept::new(job, k.thread(), warps * 32);
    let tokens = Tokens { k, job, point: &point, room };
    let tile = Tile { k, job, tokens, rows, query, stages, count, kept };
    let all = tile.tokens.count();
    if !tile.tokens.may_differ() {
        return tile.sequence(k.int(0), all);
    }
    k.repeat(
        (k.int(0),),
        |(first,)| first.lt(all),
        |(first,)| {
            let end = tile.tokens.same_context(first);
            tile.sequence(first, end);
            // The next sequence's copies wait until all warps have read this one's.
            k.barrier();
            (end,)
        },
    );
}

impl<'k> Tile<'_, '_, 'k> {
    /// The tokens from `first` to before `end`, which have one context.
    fn sequence(&self, first: Int<'k>, end: Int<'k>) {
        let k = self.k;
        let range = self.tokens.range(first, end);
        let scope = self.tokens.scope(first);
        let fragments = (self.job.attend.sizes.padded_lanes() / 8) as usize;
        self.kept.keep(&fragment::beginning(self.job, &self.rows, fragments));
        let (from, to) = range.blocks();
        k.when(from.lt(to), || {
            if self.count > 1 {
                self.stages.fill(self.job, &scope, range, from);
            } else {
                self.stages.fill_keys(self.job, &scope, range, from);
            }
        });
        let in_split = (SPLIT / POSITIONS) as i32;
        k.repeat(
            (from,),
            |(at,)| at.lt(to),
            |(at,)| {
                let last = ((at.divided(in_split) + 1) * in_split).least(to);
                let state = fragment::nothing(k, fragments);
                let state = k.rolled_range((at, last, 1), state, |at, state| {
                    self.arrive(&scope, range, (at, to));
                    let keys_are_read = || self.turn(&scope, range, (at, to));
                    self.block((range, at), state, keys_are_read)
                });
                self.kept.merge(&state);
                (last,)
            },
        );
        self.kept.store(self.job, &self.rows, (first, end));
    }

    /// Waits for a block of positions and begins to copy what comes next: the next block, or, where there is room for one
    /// only, its values, which are wanted later than its keys.
    fn arrive(&self, scope: &Scope<'_, 'k>, range: Range<'k>, (at, to): (Int<'k>, Int<'k>)) {
        let k = self.k;
        k.copy_wait(0);
        k.barrier();
        if self.count > 1 {
            k.when((at + 1).lt(to), || self.stages.fill(self.job, scope, range, at + 1));
        } else {
            self.stages.fill_values(self.job, scope, range, at);
        }
    }

    /// Where there is room for one block only: waits for its values and begins to copy the next keys over those that all
    /// warps have read.
    fn turn(&self, scope: &Scope<'_, 'k>, range: Range<'k>, (at, to): (Int<'k>, Int<'k>)) {
        let k = self.k;
        if self.count == 1 {
            k.copy_wait(0);
            k.barrier();
            k.when((at + 1).lt(to), || self.stages.fill_keys(self.job, scope, range, at + 1));
        }
    }

    /// A block of positions; `keys_are_read` is called between its two products.
    fn block(
        &self,
        (range, at): (Range<'k>, Int<'k>),
        state: State<'k>,
        keys_are_read: impl FnOnce(),
    ) -> State<'k> {
        let k = self.k;
        let (keys, values) = self.stages.of(at);
        let (keys, values) = (self.stages.key_lane(keys, k.int(0)), self.stages.value_lane(values, k.int(0)));
        let mut scores = vec![[k.float(0.0); 4]; FRAGMENTS];
        for step in 0..self.job.attend.sizes.padded_depth() / 16 {
            let query = self.query.operand(k, step);
            for two in 0..FRAGMENTS / 2 {
                let operands = self.stages.key_operands(keys, 16 * two as u32, step * 16);
                for (n, operand) in operands.into_iter().enumerate() {
                    let score = &mut scores[2 * two + n];
                    *score = k.mma_bf16(query, operand, *score);
                }
            }
        }
        let scores = fragment::score(self.job, &self.rows, range, at * POSITIONS as i32, scores);
        let (weights, (max, sum, mut acc)) = fragment::step(&scores, state);
        keys_are_read();
        for (step, weights) in weights.into_iter().enumerate() {
            for two in 0..acc.len() / 2 {
                let operands = self.stages.value_operands(values, 16 * step as u32, 16 * two as u32);
                for (n, operand) in operands.into_iter().enumerate() {
                    let acc = &mut acc[2 * two + n];
                    *acc = k.mma_bf16(weights, operand, *acc);
                }
            }
        }
        (max, sum, acc)
    }
}
