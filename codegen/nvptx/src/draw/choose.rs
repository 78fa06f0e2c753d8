//! The token of a row, from what all its blocks have left.

use super::item::{self, IDS, MASS_BITS, NO_KEY, NOTHING};
use super::select::{FIRST_OF_IDS, FIRST_OF_KEYS, Query};
use super::{Job, THREADS};
use crate::emit::{Bit, Cache, Double, F64, I64, Int, Long};
use sinter_ir::draw::{MASS, NO_TOKEN, OCTAVES};

/// The filters in their order, top-p between the others, and last the draw.
const TOP_K: i32 = 0;
const MIN_P: i32 = 2;
const DRAW: i32 = 3;

pub(super) fn write<'k>(job: &Job<'k>) -> Int<'k> {
    let k = job.k;
    let record = job.record(k.thread().least(job.pieces as i32 - 1));
    let best = k.load::<I64>(record.at(OCTAVES as i32 * 8 + 8), Cache::Any);
    let [best] = job.of_block([best], |x, y| x.greatest(y));
    let good = best.lt(NO_KEY) & k.long(NOTHING).lt(best);
    let sampled = good & k.double(0.0).lt(job.draw.scale);
    k.choose(sampled, || sample(job, best), || good.select(item::id(best), k.int(NO_TOKEN as i32)))
}

/// 2ⁿ.
fn power_of_two(n: Int<'_>) -> Double<'_> {
    ((n + 1023).unsigned_long() << 52_i64).bits()
}

/// One of the filters, or the draw: whether it does anything, in which octave it cuts, and what is to be reached there.
type Cut<'k> = (Bit<'k>, Int<'k>, Long<'k>);

fn sample<'k>(job: &Job<'k>, best: Long<'k>) -> Int<'k> {
    let k = job.k;
    let (top, likeliest) = job.row.weight(item::logit(best));
    sum_octaves(job, top);
    let bound = job.draw.min_p * likeliest.unsigned_long().double();
    let (_, token) = k.rolled_range((TOP_K, DRAW + 1, 1), (k.long(0), k.int(0)), |phase, (least, token)| {
        let (does, octave, need) = k.choose(
            phase.equals(TOP_K),
            || at_count(job),
            || k.choose(phase.equals(MIN_P), || at_mass(job, bound), || at_part(job, phase)),
        );
        let (by_count, by_id) = (phase.equals(TOP_K), phase.equals(DRAW));
        let least_mass = phase.lt(MIN_P).select(k.double(0.0), bound * power_of_two(octave));
        let query = Query {
            octave,
            top,
            least: (least, least_mass),
            // All that equal the last of top-k stay; the draw compares ids.
            bits: (by_count.select(k.long(IDS), k.long(0)), by_id.select(k.long(IDS), k.long(-1))),
            need: (need, by_count),
            first: by_id
                .select(k.int(FIRST_OF_IDS), phase.equals(MIN_P).select(k.int(-1), k.int(FIRST_OF_KEYS))),
            exact: by_id,
        };
        let run = || {
            let (key, sum) = query.run(job);
            keep_octaves(job, octave, sum);
            let key_from = by_count.select(key & !IDS, key);
            let least = phase.lt(MIN_P).select(key_from.greatest(least), least);
            (least, (key & IDS).int() ^ IDS as i32)
        };
        k.choose(does, run, || (least, token))
    });
    token
}

/// Adds up what the pieces have left of each octave, counted from that of the row's largest logit.
fn sum_octaves<'k>(job: &Job<'k>, top: Double<'k>) {
    let k = job.k;
    let (octave, quarter) = (k.thread() >> 2, k.thread() & 3);
    let mut sum = k.long(0);
    for first in (0..job.pieces as i32).step_by(4) {
        let piece = quarter + first;
        let here = job.octave_of(piece.least(job.pieces as i32 - 1), top, octave);
        sum = sum + piece.lt(job.pieces as i32).select(here, k.long(0));
    }
    let sum = sum + sum.of_lane_xor(1);
    let sum = sum + sum.of_lane_xor(2);
    k.when(quarter.equals(0), || k.store(job.octaves.at(octave << 3), sum));
    k.barrier();
}

/// Of the octaves after this one nothing stays, of this one so much.
fn keep_octaves<'k>(job: &Job<'k>, octave: Int<'k>, sum: Long<'k>) {
    let k = job.k;
    const _: () = assert!(OCTAVES <= THREADS as usize);
    let own = k.thread();
    k.when(own.lt(OCTAVES as i32) & own.ge(octave), || {
        k.store(job.octaves.at(own << 3), own.equals(octave).select(sum, k.long(0)));
    });
    k.barrier();
}

impl<'k> Job<'k> {
    /// The count and the mass of an octave of the row in a piece.
    pub(super) fn octave_of(&self, piece: Int<'k>, top: Double<'k>, octave: Int<'k>) -> Long<'k> {
        let k = self.k;
        let record = self.record(piece);
        let first = k.load::<F64>(record.at(OCTAVES as i32 * 8), Cache::Any);
        let own = octave.unsigned_long() - (top - first).long().least(OCTAVES as i64);
        let sum = k.load::<I64>(record.at(own.greatest(0) << 3_i64), Cache::Any);
        own.ge(0).select(sum, k.long(0))
    }

    fn kept(&self, octave: Int<'k>) -> Long<'k> {
        self.k.load(self.octaves.at(octave << 3), Cache::Any)
    }
}

fn mass(sum: Long<'_>) -> Long<'_> {
    sum & ((1_i64 << MASS_BITS) - 1)
}

/// Where the count of the largest logits reaches top-k.
fn at_count<'k>(job: &Job<'k>) -> Cut<'k> {
    let (k, wanted) = (job.k, job.draw.top_k.unsigned_long());
    let start = (k.long(0), k.bit(false), k.int(0), k.long(1));
    let (_, found, octave, need) =
        k.range((0, OCTAVES as i32, 1), start, |at, (before, found, octave, need)| {
            let after = before + (job.kept(at) >> MASS_BITS);
            let here = after.ge(wanted) & !found;
            (after, found | here, here.select(at, octave), here.select(wanted - before, need))
        });
    (found & job.draw.top_k.differs(0), octave, need)
}

/// The octave in which some masses are below the bound of min-p and some are not.
fn at_mass<'k>(job: &Job<'k>, bound: Double<'k>) -> Cut<'k> {
    let k = job.k;
    let (found, octave) = k.range((0, OCTAVES as i32, 1), (k.bit(false), k.int(0)), |at, (found, octave)| {
        let here = k.double(f64::from(MASS)).lt(bound * power_of_two(at)) & !found;
        (found | here, here.select(at, octave))
    });
    (found & k.double(0.0).lt(job.draw.min_p), octave, k.long(0))
}

/// Where the sum of the largest logits' weights reaches a part of all: `sinter_ir::draw::reach`.
fn at_part<'k>(job: &Job<'k>, phase: Int<'k>) -> Cut<'k> {
    let k = job.k;
    let draws = phase.equals(DRAW);
    let total = k.range((0, OCTAVES as i32, 1), k.double(0.0), |at, sum| {
        sum + mass(job.kept(at)).double() * power_of_two(k.int(0) - at)
    });
    let wanted = draws.select(job.draw.uniform, job.draw.top_p) * total;
    let start = (k.double(0.0), k.bit(false), k.int(0), k.long(1));
    let (_, _, octave, need) = k.range((0, OCTAVES as i32, 1), start, |at, (before, found, octave, need)| {
        let own = mass(job.kept(at));
        let after = before + own.double() * power_of_two(k.int(0) - at);
        let some = own.differs(0) & !found;
        let reached = some & wanted.le(after);
        let part = (wanted - before) * power_of_two(at);
        let whole = part.long();
        let up = whole + whole.double().lt(part).int().unsigned_long();
        // Until it is reached, all of the last octave that has a mass.
        let taken = reached.select(up.greatest(1).least(own), own);
        (after, found | reached, some.select(at, octave), some.select(taken, need))
    });
    (draws | job.draw.top_p.lt(1.0), octave, need)
}
