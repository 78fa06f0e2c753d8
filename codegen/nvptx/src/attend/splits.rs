//! Attention of few tokens: a block for each token, group of heads and split of the context, so that reading keys and
//! values keeps the whole GPU busy (T. Dao and others, Flash-Decoding, 2023). The heads of the group are the rows.
//!
//! Of each block of positions a warp computes the scores of its share of the positions. All warps then weigh all
//! positions, and each adds up its share of the lanes, so every number comes about as in `tiles`. A token with one split
//! stores its result. Of several, each block leaves its sums in scratch memory, and the last one to finish merges them
//! in ascending order.

use super::Job;
use super::fragment::{self, FRAGMENTS, Products, Scores, State};
use super::point::{Point, ceil};
use super::query::Query;
use super::rows::{Range, Row, bounds};
use super::stage::Stages;
use crate::emit::{Cache, F32, Global, I32, Int, K, Shared};
use sinter_codegen_schedule::attend::{DECODE_WARPS, FRAGMENT, POSITIONS, SCORE_PITCH, SPLIT, SPLIT_TOKENS};
use sinter_ir::Dim;

const WARPS: u32 = DECODE_WARPS;

/// Bytes of scratch memory that a block leaves: maxima and sums of a warp's lanes, and all weighted sums.
fn left_bytes(job: &Job<'_>) -> u64 {
    let pairs = u64::from(pairs_of_a_warp(job));
    (u64::from(WARPS * 32) * pairs * 16 + 32 * 8) * halves(job) as u64
}

/// Of the two rows of a lane, those that can exist.
fn halves(job: &Job<'_>) -> usize {
    if super::room(job).0 <= 8 { 1 } else { 2 }
}

/// Pairs of fragments of the lanes that a warp has: the same number for each, some of them twice if they do not divide.
fn pairs_of_a_warp(job: &Job<'_>) -> u32 {
    (job.attend.sizes.padded_lanes() / 16).div_ceil(WARPS)
}

/// Counters of finished blocks, and what blocks leave. The product of the extents is at least what is needed: the most
/// tokens times splits times (heads times what a block leaves, and the counters).
pub(super) fn scratch(job: &Job<'_>) -> Vec<Dim> {
    let heads = super::heads(job);
    let each = heads * left_bytes(job) + counters(job);
    let context = job.tile.axes[job.attend.context].extent;
    // From two splits on, twice the context in splits is at least the number of splits.
    vec![Dim::of(SPLIT_TOKENS as usize), context, Dim::of(each.div_ceil(u64::from(SPLIT) / 2) as usize)]
}

fn counters(job: &Job<'_>) -> u64 {
    (SPLIT_TOKENS * super::heads(job) * 4).next_multiple_of(128)
}

struct Split<'p, 'a, 'k> {
    k: K<'k>,
    job: &'p Job<'a>,
    rows: [Row<'a, 'k>; 2],
    query: Query<'k>,
    stages: Stages<'a, 'k>,
    count: u32,
    scores: Shared<'k>,
    /// The first pair of fragments of the warp's lanes, and so on.
    pairs: Vec<Int<'k>>,
}

pub(super) fn write<'k>(k: K<'k>, job: &Job<'_>, count: u32) {
    let point = Point::new(k, job);
    let (heads, _) = super::room(job);
    let range = bounds(job, &point.scope.with_axis(job.attend.tokens, point.tokens.0));
    let first = range.from.divided(SPLIT as i32);
    let last = ceil(range.to, SPLIT).greatest(first + 1);
    let here = point.split.ge(first) & point.split.lt(last);
    k.when(here, || {
        let row = k.lane() >> 2;
        let rows = [row, row + 8].map(|row| {
            // Rows beyond the heads are computed and never stored.
            let mut row_of = Row::new(job, &point, row.least(heads as i32 - 1), heads);
            row_of.exists = row_of.exists & row.lt(heads as i32);
            row_of
        });
        let stages = Stages::new(k, job, count);
        let query = Query::load(k, job, &rows, None);
        let scores = k.shared(FRAGMENT * SCORE_PITCH, 16);
        let all = (job.attend.sizes.padded_lanes() / 16) as i32;
        let pairs = (0..pairs_of_a_warp(job) as i32).map(|n| (k.warp() + n * WARPS as i32).least(all - 1));
        let split = Split { k, job, rows, query, stages, count, scores, pairs: pairs.collect() };
        let state = split.run(&point, range);
        let splits = last - first;
        k.choose(
            splits.equals(1),
            || split.store(&fragment::merged(&split.beginning(), &state)),
            || split.leave(&point, (first, splits), &state),
        );
    });
}

impl<'k> Split<'_, '_, 'k> {
    fn nothing(&self) -> State<'k> {
        fragment::nothing(self.k, 2 * self.pairs.len())
    }

    fn beginning(&self) -> State<'k> {
        fragment::beginning(self.job, &self.rows, 2 * self.pairs.len())
    }

    /// The split's sums.
    fn run(&self, point: &Point<'_, 'k>, range: Range<'k>) -> State<'k> {
        let k = self.k;
        let scope = point.scope.with_axis(self.job.attend.tokens, point.tokens.0);
        let begin = point.split * (SPLIT / POSITIONS) as i32;
        let from = range.from.divided(POSITIONS as i32).greatest(begin);
        let to = ceil(range.to, POSITIONS).least(begin + (SPLIT / POSITIONS) as i32);
        let fill = |at: Int<'k>| {
            k.choose(
                at.lt(to),
                || self.stages.fill(self.job, &scope, range, at),
                // Every iteration ends a group, so that waiting counts blocks.
                || k.copy_commit(),
            );
        };
        let ahead = self.count - 1;
        (0..ahead).for_each(|n| fill(from + n as i32));
        k.rolled_range((from, to, 1), self.nothing(), |at, state| {
            if ahead > 0 {
                k.copy_wait(ahead as i32 - 1);
                k.barrier();
                fill(at + ahead as i32);
            } else {
                k.barrier();
                fill(at);
                k.copy_wait(0);
                k.barrier();
            }
            self.block(range, at, state)
        })
    }

    /// A block of positions.
    fn block(&self, range: Range<'k>, at: Int<'k>, state: State<'k>) -> State<'k> {
        let k = self.k;
        let first = k.warp() << 4;
        let keys = self.stages.key_lane(self.stages.keys(self.job, at), first);
        let mut own = vec![[k.float(0.0); 4]; 2];
        for step in 0..self.job.attend.sizes.padded_depth() / 16 {
            let query = self.query.operand(k, step);
            for (score, operand) in own.iter_mut().zip(self.stages.key_operands(keys, 0, step * 16)) {
                *score = k.mma_bf16(query, operand, *score);
            }
        }
        let scales = self.stages.scales(self.job, at);
        let products = Products { sums: own, scales: scales.map(|scales| scales[0].at(first << 2)) };
        let own = fragment::score(self.job, &self.rows, range, at * POSITIONS as i32 + first, products);
        for (n, [a, b, c, d]) in own.into_iter().enumerate() {
            let to = self.place((first >> 3) + n as i32);
            k.store_vector(to, [a, b]);
            k.store_vector(to.at((8 * SCORE_PITCH) as i32), [c, d]);
        }
        k.barrier();
        let read = |n: usize| {
            let from = self.place(k.int(n as i32));
            let [a, b] = k.load_vector::<F32, 2>(from, Cache::Any);
            let [c, d] = k.load_vector::<F32, 2>(from.at((8 * SCORE_PITCH) as i32), Cache::Any);
            [a, b, c, d]
        };
        let scores: Scores<'k> = (0..FRAGMENTS).map(read).collect();
        let (weights, (max, sum, mut acc)) = fragment::step(&scores, state, scales.map(|scales| scales[1]));
        // All warps have read the keys, for all have left their scores.
        let values = self.stages.values(self.job, at);
        let values: Vec<_> =
            self.pairs.iter().map(|pair| self.stages.value_lane(values, *pair << 4)).collect();
        for (step, weights) in weights.into_iter().enumerate().take(FRAGMENTS / 2) {
            for (two, values) in values.iter().enumerate() {
                let operands = self.stages.value_operands(*values, 16 * step as u32, 0);
                for (n, operand) in operands.into_iter().enumerate() {
                    let acc = &mut acc[2 * two + n];
                    *acc = k.mma_bf16(weights, operand, *acc);
                }
            }
        }
        (max, sum, acc)
    }

    /// Where the lane's two scores of its first row lie in a fragment.
    fn place(&self, fragment: Int<'k>) -> Shared<'k> {
        let lane = self.k.lane();
        self.scores.at((lane >> 2) * SCORE_PITCH as i32 + ((lane & 3) << 3) + (fragment << 5))
    }

    fn store(&self, (_, sum, acc): &State<'k>) {
        let stored = [0, 1].map(|half: usize| self.rows[half].exists);
        let share = sum.map(fragment::share);
        let all = (self.job.attend.sizes.padded_lanes() / 16) as i32;
        for (n, [a, b, c, d]) in acc.iter().enumerate() {
            // A pair that two warps have is stored by one of them.
            let own = (self.k.warp() + (n / 2) as i32 * WARPS as i32).lt(all);
            let stored = stored.map(|stored| stored & own);
            let values = [*a * share[0], *b * share[0], *c * share[1], *d * share[1]];
            let first = (self.pairs[n / 2] << 4) + 8 * (n % 2) as i32;
            fragment::store(self.job, &self.rows, stored, (first, values));
        }
    }

    /// Leaves the split's sums for the last block to finish, which merges and stores them.
    fn leave(&self, point: &Point<'_, 'k>, (first, splits): (Int<'k>, Int<'k>), state: &State<'k>) {
        let k = self.k;
        let base = k.scratch().at(counters(self.job) as i32);
        let all = ceil(point.scope.extent(self.job.attend.context), SPLIT);
        let place = |split: Int<'k>| {
            let number = (point.unit.long() * all.long()) + split.long();
            base.at(number * left_bytes(self.job) as i64)
        };
        self.put(place(point.split), state);
        k.barrier();
        let last = k.shared(16, 16);
        k.when(k.thread().equals(0), || {
            let before = k.count_up(k.scratch().at(point.unit << 2), splits - 1);
            k.store(last, before);
        });
        k.barrier();
        let finished = k.load::<I32>(last, Cache::Any);
        k.when(finished.equals(splits - 1), || {
            let state = k.rolled_range((first, first + splits, 1), self.beginning(), |at, state| {
                fragment::merged(&state, &self.get(place(at)))
            });
            self.store(&state);
        });
    }

    /// The places of the thread's weighted sums of a row, and of the maxima and sums.
    fn places(&self, left: Global<'k>, half: usize) -> (Vec<Global<'k>>, Global<'k>) {
        let k = self.k;
        let (threads, fragments, halves) = (WARPS * 32, 2 * self.pairs.len() as u32, halves(self.job) as u32);
        let sums = left.at(k.thread() << 3);
        let place = |n: u32| sums.at(((halves * n + half as u32) * threads * 8) as i32);
        let rows = left.at(((threads * fragments * halves + 32 * half as u32) * 8) as i32);
        ((0..fragments).map(place).collect(), rows.at(k.lane() << 3))
    }

    /// Writes what the block leaves of the rows that exist.
    fn put(&self, left: Global<'k>, (max, sum, acc): &State<'k>) {
        let k = self.k;
        for half in 0..halves(self.job) {
            k.when(self.rows[half].exists, || {
                let (places, rows) = self.places(left, half);
                for (place, acc) in places.into_iter().zip(acc) {
                    k.store_vector(place, [acc[2 * half], acc[2 * half + 1]]);
                }
                k.when(k.warp().equals(0), || k.store_vector(rows, [max[half], sum[half]]));
            });
        }
    }

    /// Reads it back.
    fn get(&self, left: Global<'k>) -> State<'k> {
        let k = self.k;
        let (mut max, mut sum, mut acc) = self.nothing();
        for half in 0..halves(self.job) {
            let row = k.choose(
                self.rows[half].exists,
                || {
                    let (places, rows) = self.places(left, half);
                    let pair = |place| k.load_vector::<F32, 2>(place, Cache::Any);
                    (pair(rows), places.into_iter().map(pair).collect::<Vec<_>>())
                },
                || ([k.float(f32::NEG_INFINITY), k.float(0.0)], vec![[k.float(0.0); 2]; acc.len()]),
            );
            [max[half], sum[half]] = row.0;
            for (acc, [a, b]) in acc.iter_mut().zip(row.1) {
                [acc[2 * half], acc[2 * half + 1]] = [a, b];
            }
        }
        (max, sum, acc)
    }
}
