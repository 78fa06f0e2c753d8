//! Attention in any element types: a warp for each row, chains of fused multiply-adds along ascending depth and
//! ascending positions.
//!
//! Lanes of the warp are positions while scores are computed, two each, and lanes of the result while values are added.
//! Keys and values come straight from global memory; the rows of a group read the same ones at the same time.

use super::Job;
use super::fragment::{finite, grown, share, store_one};
use super::point::Point;
use super::rows::{Range, Row, bounds};
use crate::emit::{Cache, F32, Float, Int, K, Shared};
use sinter_codegen_schedule::attend::{POSITIONS, SPLIT, row_bytes};

/// The maximum, the sum and the weighted sums of the lane's part of the result.
type Sums<'k> = (Float<'k>, Float<'k>, Vec<Float<'k>>);

/// One row's work.
struct Work<'p, 'a, 'k> {
    k: K<'k>,
    job: &'p Job<'a>,
    row: Row<'a, 'k>,
    range: Range<'k>,
    query: Shared<'k>,
    weights: Shared<'k>,
}

pub(super) fn write<'k>(k: K<'k>, job: &Job<'_>, warps: u32) {
    let point = Point::new(k, job);
    let bytes = row_bytes(job.attend.sizes);
    let own = k.shared(warps * bytes, 16).at(k.warp() * bytes as i32);
    let row = Row::new(job, &point, k.warp(), warps);
    let exists = row.exists;
    k.when(exists, || {
        let range = bounds(job, &row.scope);
        let weights = own.at((job.attend.sizes.depth.next_multiple_of(4) * 4) as i32);
        Work { k, job, row, range, query: own, weights }.run();
    });
}

impl<'k> Work<'_, '_, 'k> {
    fn run(&self) {
        let (k, sizes) = (self.k, self.job.attend.sizes);
        k.rolled_range((k.lane(), sizes.depth as i32, 32), (), |at, ()| {
            let query = self.row.scope.with_axis(self.job.attend.depth, at).load(&self.job.attend.query);
            k.store(self.query.at(at << 2), query.number(k));
        });
        k.warp_barrier();
        let parts = sizes.lanes.div_ceil(32) as usize;
        let zero = k.float(0.0);
        let nothing = (k.float(f32::NEG_INFINITY), zero, vec![zero; parts]);
        let (max, sum) = self.row.scope.softmax_start(self.job.attend.start);
        let start = (self.range.from & -(POSITIONS as i32), (max, sum, nothing.2.clone()));
        let (_, (_, sum, acc)) = k.repeat(
            start,
            |(at, _)| at.lt(self.range.to),
            |(at, all)| {
                let end = ((at & -(SPLIT as i32)) + SPLIT as i32).least(self.range.to);
                let split =
                    k.rolled_range((at, end, POSITIONS as i32), nothing, |at, sums| self.block(at, sums));
                ((at & -(SPLIT as i32)) + SPLIT as i32, merged(all, split))
            },
        );
        let share = share(sum);
        for (part, acc) in acc.into_iter().enumerate() {
            let lane = k.lane() + 32 * part as i32;
            k.when(lane.lt(sizes.lanes as i32), || store_one(self.job, &self.row, lane, acc * share));
        }
    }

    /// The score of a position; −∞ outside the range.
    fn score(&self, position: Int<'k>) -> Float<'k> {
        let (k, attend) = (self.k, self.job.attend);
        let Range { from, to } = self.range;
        let inside = position.ge(from) & position.lt(to);
        let scope = self.row.scope.with_axis(attend.context, position.least(to - 1).greatest(from));
        let depth = attend.sizes.depth;
        let width = [8, 4, 2].into_iter().find(|width| depth.is_multiple_of(*width)).unwrap_or(1);
        let dot = k.rolled_range((0, depth as i32, width as i32), k.float(0.0), |at, sum| {
            let keys = self.job.reach(&scope).with_axis(attend.depth, at).load_lanes(
                &attend.key,
                attend.depth,
                width,
            );
            let queries = (0..width as i32).map(|i| k.load::<F32>(self.query.at((at + i) << 2), Cache::Any));
            queries.zip(keys).fold(sum, |sum, (query, key)| query.fma(key.number(k), sum))
        });
        let score = scope.with_result(attend.dot, dot).value(attend.score).number(k);
        inside.select(score, k.float(f32::NEG_INFINITY))
    }

    /// What a position's value is multiplied by: its weight, times the factor that the value has.
    fn share(&self, weight: Float<'k>, position: Int<'k>) -> Float<'k> {
        let attend = self.job.attend;
        let Some(factor) = attend.factor else { return weight };
        let Range { from, to } = self.range;
        let scope = self.row.scope.with_axis(attend.context, position.least(to - 1).greatest(from));
        weight * scope.value(factor).number(self.k)
    }

    fn block(&self, start: Int<'k>, (max, sum, acc): Sums<'k>) -> Sums<'k> {
        let k = self.k;
        let scores = [0, 32].map(|first| self.score(start + k.lane() + first));
        let fold = |value: Float<'k>, of: fn(Float<'k>, Float<'k>) -> Float<'k>| {
            [16, 8, 4, 2, 1].into_iter().fold(value, |value, bits| of(value, value.of_lane_xor(bits)))
        };
        let greater = max.greatest(fold(scores[0].greatest(scores[1]), Float::greatest));
        let (repair, shift) = (grown(max, greater), finite(greater) * -std::f32::consts::LOG2_E);
        let weights = scores.map(|score| score.fma(std::f32::consts::LOG2_E, shift).exp2());
        // The weights of the block before have been read.
        k.warp_barrier();
        k.store(self.weights.at(k.lane() << 2), self.share(weights[0], start + k.lane()));
        k.store(self.weights.at((k.lane() << 2) + 128), self.share(weights[1], start + k.lane() + 32));
        k.warp_barrier();
        let sum = sum.fma(repair, fold(weights[0] + weights[1], |x, y| x + y));
        let acc = acc.into_iter().map(|acc| acc * repair).collect();
        let (from, to) = ((self.range.from - start).greatest(0), self.range.to - start);
        let acc = k.rolled_range((from, to.least(POSITIONS as i32), 1), acc, |at, acc: Vec<Float<'k>>| {
            let weight = k.load::<F32>(self.weights.at(at << 2), Cache::Any);
            acc.into_iter()
                .enumerate()
                .map(|(part, acc)| weight.fma(self.value(start + at, part), acc))
                .collect()
        });
        (greater, sum, acc)
    }

    /// The lane's element of a part of the values at a position; that of the last lane where there is none.
    fn value(&self, position: Int<'k>, part: usize) -> Float<'k> {
        let attend = self.job.attend;
        let lane = (self.k.lane() + 32 * part as i32).least(attend.sizes.lanes as i32 - 1);
        let scope = self.row.scope.with_axis(attend.context, position).with_axis(attend.lanes, lane);
        let scope = self.job.reach(&scope);
        scope.load(&attend.value).number(self.k)
    }
}

/// Two consecutive parts of the context as one.
fn merged<'k>(one: Sums<'k>, next: Sums<'k>) -> Sums<'k> {
    let greater = one.0.greatest(next.0);
    let (first, second) = (grown(one.0, greater), grown(next.0, greater));
    let acc = one.2.iter().zip(next.2).map(|(one, next)| one.fma(first, next * second)).collect();
    (greater, one.1.fma(first, next.1 * second), acc)
}
