//! Attention of many tokens: a block has a tile of rows, each of its warps 16 of them, and goes through all of their
//! context (T. Dao, FlashAttention-2, 2023). Scores and weights stay in registers; while a block of positions is worked
//! on, what comes next is copied.
//!
//! Tokens of several sequences in one tile are done one sequence after another.

use super::Job;
use super::fragment::{self, FRAGMENTS, Products, State};
use super::kept::Kept;
use super::point::Point;
use super::query::Query;
use super::rows::{Range, Row, Tokens};
use super::stage::Stages;
use crate::emit::{Int, K, Shared};
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
            if self.count > 1 || self.stages.are_codes() {
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
                    let next = || self.turn(&scope, range, (at, to));
                    self.block((range, at), state, next)
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
        } else if !self.stages.are_codes() {
            self.stages.fill_values(self.job, scope, range, at);
        }
    }

    /// What comes between the two products of a block: its values. Where there is room for one block only, waits for them
    /// and begins to copy the next keys over those that all warps have read; or, of codes, which are done with when they are
    /// numbers, the next block.
    fn turn(&self, scope: &Scope<'_, 'k>, range: Range<'k>, (at, to): (Int<'k>, Int<'k>)) -> Shared<'k> {
        let (k, codes) = (self.k, self.stages.are_codes());
        if self.count == 1 && !codes {
            k.copy_wait(0);
        }
        if self.count == 1 || codes {
            k.barrier();
        }
        let values = self.stages.values(self.job, at);
        if self.count == 1 {
            k.when((at + 1).lt(to), || {
                if codes {
                    self.stages.fill(self.job, scope, range, at + 1);
                } else {
                    self.stages.fill_keys(self.job, scope, range, at + 1);
                }
            });
        }
        values
    }

    /// A block of positions; `values` is called between its two products and gives the values.
    fn block(
        &self,
        (range, at): (Range<'k>, Int<'k>),
        state: State<'k>,
        values: impl FnOnce() -> Shared<'k>,
    ) -> State<'k> {
        let k = self.k;
        let keys = self.stages.key_lane(self.stages.keys(self.job, at), k.int(0));
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
        let scales = self.stages.scales(self.job, at);
        let products = Products { sums: scores, scales: scales.map(|scales| scales[0]) };
        let scores = fragment::score(self.job, &self.rows, range, at * POSITIONS as i32, products);
        let (weights, (max, sum, mut acc)) = fragment::step(&scores, state, scales.map(|scales| scales[1]));
        let values = self.stages.value_lane(values(), k.int(0));
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
