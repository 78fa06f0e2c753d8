//! Rows that have one of a stack of weights each, as tokens have experts: a block does one weight's columns for all its
//! rows, tile by tile, so that a weight is read once and no row is multiplied for nothing.
//!
//! The block finds its rows itself, in ascending order. Which block does a row changes nothing: an output is one chain
//! along the summed axis in any tile. Where there are fewer rows than weights, a block stands for a row instead, and does
//! the weight of that row if no row before it has the same.

use super::Job;
use crate::emit::{Bit, Cache, I32, Int, K, Shared};
use sinter_ir::Index;

/// Rows that a lane looks at before its warp tells the others what it found.
const EACH: i32 = 8;

/// The rows of a tile.
#[derive(Clone)]
pub(super) struct List<'k> {
    /// Their numbers in shared memory.
    rows: Shared<'k>,
    /// How many there are, at least one.
    pub(super) count: Int<'k>,
}

impl<'k> List<'k> {
    /// The row of the whole for a row of the tile; the last one for a row that does not exist.
    pub(super) fn row(&self, k: K<'k>, local: Int<'k>) -> Int<'k> {
        k.load(self.rows.at(local.least(self.count - 1) << 2), Cache::Any)
    }
}

/// The search for the rows of one weight.
struct Search<'j, 'a, 'k> {
    job: &'j Job<'a, 'k>,
    which: &'j Index,
    /// The weight.
    weight: Int<'k>,
    /// The rows that were found, how many each warp found, and the row after the last of a full list.
    list: Shared<'k>,
    counts: Shared<'k>,
    after: Shared<'k>,
}

/// Calls `body` once, in a loop over the tiles of the block's weight.
pub(super) fn each_tile<'a, 'k>(
    job: &Job<'a, 'k>,
    (which, weights): &(Index, u64),
    body: impl FnOnce(&Job<'a, 'k>),
) {
    let k = job.k;
    // Rows and weights are in the making until the launch before has ended.
    job.wait_for_inputs();
    let tile_rows = job.schedule.tile_rows;
    let (list, counts, after) = (k.shared(tile_rows * 4, 16), k.shared(32 * 4, 16), k.shared(16, 16));
    let (number, rows) = (job.first.0, job.extent.0);
    let few = rows.lt(*weights as i32);
    k.when(number.lt(rows) | !few, || {
        let of_row = |row: Int<'k>| job.at(row, job.column(k.int(0))).index(which);
        let weight = k.choose(few, || of_row(number), || number);
        let search = Search { job, which, weight, list, counts, after };
        k.repeat(
            k.int(0),
            |from| from.lt(rows),
            |from| {
                let (count, next) = search.run(from);
                // The list is there after the search; a block that stands for a row leaves it to the first of its weight.
                let first: Int<'k> = k.load(list, Cache::Any);
                let mine: Bit<'k> = k.int(0).lt(count) & (!few | k.int(0).lt(from) | first.equals(number));
                k.when(mine, || {
                    let scope = job.scope.with_index(which, weight);
                    let list = Some(List { rows: list, count });
                    body(&Job { scope, list, ..job.clone() });
                });
                mine.select(next, rows)
            },
        );
    });
}

impl<'k> Search<'_, '_, 'k> {
    /// Fills the list with the weight's rows from `from` on; gives their number and where to go on.
    fn run(&self, from: Int<'k>) -> (Int<'k>, Int<'k>) {
        let (k, rows) = (self.job.k, self.job.extent.0);
        let (threads, most) = (self.job.schedule.threads() as i32, self.job.schedule.tile_rows as i32);
        // All are done with the tile before. Without a row in the list, its first is none.
        k.barrier();
        k.when(k.thread().equals(0), || k.store(self.list, k.int(-1)));
        k.barrier();
        let (_, count) = k.repeat(
            (from, k.int(0)),
            |(from, count)| from.lt(rows) & count.lt(most),
            |(from, count)| {
                let first = from + k.warp() * (32 * EACH) + k.lane();
                let found = self.of_warp(first);
                let ones: Vec<Int<'k>> = found.iter().map(|lanes| lanes.ones()).collect();
                let sum = ones.iter().fold(k.int(0), |sum, ones| sum + *ones);
                k.when(k.lane().equals(0), || k.store(self.counts.at(k.warp() << 2), sum));
                k.barrier();
                let (mut place, mut all) = (count, count);
                for warp in 0..threads / 32 {
                    let of_warp = k.load::<I32>(self.counts.at(warp * 4), Cache::Any);
                    place = place + k.int(warp).lt(k.warp()).select(of_warp, k.int(0));
                    all = all + of_warp;
                }
                for (at, (lanes, ones)) in found.iter().zip(ones).enumerate() {
                    self.put(first + at as i32 * 32, *lanes, place);
                    place = place + ones;
                }
                k.barrier();
                (from + threads * EACH, all.least(most))
            },
        );
        let full = count.equals(most);
        (count, k.choose(full, || k.load::<I32>(self.after, Cache::Any), || rows))
    }

    /// For each 32 rows of a warp, which of them have the weight. `first` is the lane's.
    fn of_warp(&self, first: Int<'k>) -> Vec<Int<'k>> {
        let (k, job) = (self.job.k, self.job);
        let which = |at: i32| {
            let row = first + at * 32;
            let own = job.at(row.least(job.extent.0 - 1), job.column(k.int(0))).index(self.which);
            (row.lt(job.extent.0), own)
        };
        // All loads before the first exchange, so that they are on their way together.
        let all: Vec<_> = (0..EACH).map(which).collect();
        all.into_iter().map(|(exists, own)| k.lanes_where(exists & own.equals(self.weight))).collect()
    }

    /// Puts the lane's row into the list if it is one of `lanes`, the first of which goes to `place`.
    fn put(&self, row: Int<'k>, lanes: Int<'k>, place: Int<'k>) {
        let (k, most) = (self.job.k, self.job.schedule.tile_rows as i32);
        let own = k.int(1) << k.lane();
        let place = place + (lanes & below(k)).ones();
        let found = (lanes & own).differs(0);
        k.when(found & place.lt(most), || {
            k.store(self.list.at(place << 2), row);
            k.when(place.equals(most - 1), || k.store(self.after, row + 1));
        });
    }
}

/// The bits of the lanes before this one.
fn below(k: K<'_>) -> Int<'_> {
    ((k.int(-1) << k.lane()) ^ -1) & i32::MAX
}
