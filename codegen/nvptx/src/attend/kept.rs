//! What a thread keeps of the splits that are merged so far, in shared memory: registers do not hold it beside the sums of
//! the split that is under way.

use super::Job;
use super::fragment::{self, Merger, State};
use super::rows::Row;
use crate::emit::{Cache, F32, Float, Int, K, Shared};
use sinter_codegen_schedule::attend::merged_bytes;

/// The places of a thread.
pub(super) struct Kept<'k> {
    k: K<'k>,
    /// Where maxima and sums lie, and where weighted sums.
    rows: Shared<'k>,
    lanes: Shared<'k>,
    threads: u32,
    fragments: usize,
}

impl<'k> Kept<'k> {
    /// Memory for so many threads, of which this is number `thread`.
    pub(super) fn new(job: &Job<'_>, thread: Int<'k>, threads: u32) -> Self {
        let k = thread.kernel();
        let memory = k.shared(threads * merged_bytes(job.attend.sizes), 16);
        let lanes = memory.at((threads * 16) as i32).at(thread << 4);
        let fragments = (job.attend.sizes.padded_lanes() / 8) as usize;
        Kept { k, rows: memory.at(thread << 3), lanes, threads, fragments }
    }

    /// Where a fragment of the weighted sums lies.
    fn place(&self, n: usize) -> Shared<'k> {
        self.lanes.at((n as u32 * self.threads * 16) as i32)
    }

    /// The sums lie behind the maxima of all threads.
    fn sums_place(&self) -> Shared<'k> {
        self.rows.at((self.threads * 8) as i32)
    }

    /// Keeps a state as it is.
    pub(super) fn keep(&self, (max, sum, acc): &State<'k>) {
        self.keep_rows(*max, *sum);
        for (n, acc) in acc.iter().enumerate() {
            self.k.store_vector(self.place(n), *acc);
        }
    }

    fn keep_rows(&self, max: [Float<'k>; 2], sum: [Float<'k>; 2]) {
        self.k.store_vector(self.rows, max);
        self.k.store_vector(self.sums_place(), sum);
    }

    /// The maxima and sums.
    fn rows(&self) -> [[Float<'k>; 2]; 2] {
        [self.rows, self.sums_place()].map(|from| self.k.load_vector::<F32, 2>(from, Cache::Any))
    }

    /// A fragment of the weighted sums.
    fn lanes(&self, n: usize) -> [Float<'k>; 4] {
        self.k.load_vector::<F32, 4>(self.place(n), Cache::Any)
    }

    /// Merges the next split with what is kept, a fragment at a time.
    pub(super) fn merge(&self, (max, sum, acc): &State<'k>) {
        let merger = Merger::new(self.rows(), [*max, *sum]);
        self.keep_rows(merger.max, merger.sum);
        for (n, acc) in acc.iter().enumerate() {
            self.k.store_vector(self.place(n), merger.fragment(self.lanes(n), *acc));
        }
    }

    /// Stores the result of those rows whose tokens are from `first` to before `end`.
    pub(super) fn store(&self, job: &Job<'_>, rows: &[Row<'_, 'k>; 2], (first, end): (Int<'k>, Int<'k>)) {
        let stored = [0, 1].map(|half| {
            let row: &Row<'_, 'k> = &rows[half];
            row.exists & row.token.ge(first) & row.token.lt(end)
        });
        let share = self.rows()[1].map(fragment::share);
        for n in 0..self.fragments {
            let [a, b, c, d] = self.lanes(n);
            let values = [a * share[0], b * share[0], c * share[1], d * share[1]];
            fragment::store(job, rows, stored, (self.k.int(8 * n as i32), values));
        }
    }
}
