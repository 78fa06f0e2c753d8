//! What a block finds out of its piece of a row.

use super::item::{self, MASS_BITS, NO_KEY};
use super::{EACH, Job, THREADS};
use crate::emit::{Cache, Float, Global, I32, I64, Int, Long};
use sinter_ir::draw::{MOST_MASS, OCTAVES};

/// In a thread's sum of an octave the count stands above the masses.
const COUNT_AT: i32 = 26;
const _: () =
    assert!((EACH as u64 * MOST_MASS as u64) >> COUNT_AT == 0, "the masses of a thread fit below the count");

pub(super) fn write<'k>(job: &Job<'k>, piece: Int<'k>) {
    let k = job.k;
    let items = job.row.of_thread(piece);
    // Anything that is less than infinity is a number.
    let bad = items.iter().fold(k.bit(false), |bad, (x, _)| bad | !x.lt(f32::INFINITY));
    let (value, at) = items[1..].iter().fold(items[0], |(most, at), (x, id)| {
        let greater = most.lt(*x);
        (greater.select(*x, most), greater.select(*id, at))
    });
    let best = bad.select(k.long(NO_KEY), item::key(value, at));
    let [best] = job.of_block([best], |x, y| x.greatest(y));
    let record = job.record(piece);
    k.when(k.thread().equals(0), || k.store(record.at(OCTAVES as i32 * 8 + 8), best));
    k.when(!job.draw.scale.le(0.0), || {
        let values: Vec<_> = items.iter().map(|(x, _)| *x).collect();
        masses(job, record, item::logit(best), &values);
    });
}

/// Leaves the counts and masses of the piece's octaves, counted from that of its largest logit.
fn masses<'k>(job: &Job<'k>, record: Global<'k>, most: Float<'k>, values: &[Float<'k>]) {
    let k = job.k;
    let (top, _) = job.row.weight(most);
    k.when(k.thread().equals(0), || k.store(record.at(OCTAVES as i32 * 8), top));
    // Each thread has a column of its own.
    let column = job.table.at(k.thread() << 2);
    let place = |octave: Int<'k>| column.at(octave * (THREADS * 4) as i32);
    (0..OCTAVES as i32).for_each(|octave| k.store(place(k.int(octave)), k.int(0)));
    for value in values {
        let (exponent, mass) = job.row.weight(*value);
        let below = (top - exponent).long().greatest(0).least(OCTAVES as i64);
        let counts = k.float(f32::NEG_INFINITY).lt(*value) & below.lt(OCTAVES as i64);
        let to = place(below.least(OCTAVES as i64 - 1).int());
        let more = counts.select(mass + (1 << COUNT_AT), k.int(0));
        k.store(to, k.load::<I32>(to, Cache::Any) + more);
    }
    k.barrier();
    let (octave, quarter) = (k.thread() >> 2, k.thread() & 3);
    let columns = job.table.at(octave * (THREADS * 4) as i32 + quarter * THREADS as i32);
    let sum = k.range((0, THREADS as i32 / 4, 1), k.long(0), |at, sum| {
        // Lanes begin at different columns, so that they read different banks.
        let column = (at + k.lane()) & (THREADS as i32 / 4 - 1);
        let both = k.load::<I32>(columns.at(column << 2), Cache::Any);
        sum + ((both >> COUNT_AT).unsigned_long() << MASS_BITS)
            + (both & ((1 << COUNT_AT) - 1)).unsigned_long()
    });
    let sum: Long<'k> = sum + sum.of_lane_xor(1);
    let sum = sum + sum.of_lane_xor(2);
    k.when(quarter.equals(0), || k.store::<I64>(record.at(octave << 3), sum));
}
