//! Few rows: the columns' weights are the 16-row operand of `mma.sync` and the rows its 8 columns, so that weights are
//! read once and nothing is multiplied for rows that do not exist.
//!
//! Each warp streams the weights of its own columns through a ring in shared memory and waits for nobody else. Enough
//! copies are on their way to hide the latency of DRAM, and the first of them before the launch before has ended. The
//! rows' elements are so few that they come from the caches straight into registers, a chunk ahead.

use super::coded::{Reader, Right};
use super::prologue::Normed;
use super::stage::{Team, piece_offset};
use super::{Job, epilogue};
use crate::emit::{Cache, Float, I32, Int, Shared};
use crate::lower::Scope;
use sinter_codegen_schedule::contract::{Product, STEP, Unit};

/// The accumulators of one product: for each 8 rows four numbers, columns `g` and `g + 8`, rows `2q` and `2q + 1` where
/// the lane is `4g + q`.
type Sums<'k> = Vec<[Float<'k>; 4]>;

/// The rows' elements of a chunk: for each step and each 8 rows one fragment.
type Rows<'k> = Vec<Vec<[Int<'k>; 2]>>;

pub(super) fn body(job: &Job<'_, '_>) {
    let products = &job.found.products;
    let mut sums: Vec<Option<Sums<'_>>> = vec![None; products.len()];
    let normed = Normed::new(job);
    let memory = job.k.shared(job.schedule.shared_bytes(job.found) as u32, 128);
    for (at, run) in job.found.runs().iter().enumerate() {
        let members: Vec<&Product> = run.iter().map(|at| &products[*at]).collect();
        if at > 0 {
            job.k.warp_barrier();
        }
        for (at, done) in run.iter().zip(Run::new(job, &members, memory, normed.as_ref()).sums(at == 0)) {
            sums[*at] = Some(done);
        }
    }
    store(job, &sums.into_iter().flatten().collect::<Vec<_>>());
}

/// One loop along the summed axis: products that share their left operand.
struct Run<'j, 'a, 'k> {
    job: &'j Job<'a, 'k>,
    left: &'a Product,
    right: Vec<Right<'a>>,
    /// The warp's own.
    memory: Shared<'k>,
    team: Team<'k>,
    /// The norm that gives the rows' elements.
    normed: Option<&'j Normed<'j, 'a, 'k>>,
}

impl<'j, 'a, 'k> Run<'j, 'a, 'k> {
    fn new(
        job: &'j Job<'a, 'k>,
        products: &[&'a Product],
        memory: Shared<'k>,
        normed: Option<&'j Normed<'j, 'a, 'k>>,
    ) -> Self {
        let (k, columns) = (job.k, job.schedule.warp_columns());
        let warp = k.uniform(k.warp());
        let right = |product: &&'a Product| Right::new(job, product, columns);
        let bytes = job.schedule.shared_bytes(job.found) as u32 / job.schedule.warps.1;
        Self {
            job,
            left: products[0],
            right: products.iter().map(right).collect(),
            memory: memory.at(warp * bytes as i32),
            team: Team { thread: k.lane(), threads: 32, first: warp * columns as i32 },
            normed,
        }
    }

    fn slot(&self, stage: Int<'k>, product: usize) -> Shared<'k> {
        let bytes = self.right[0].bytes();
        let all = bytes * self.right.len() as u32;
        self.memory.at(stage * all as i32).at((product as u32 * bytes) as i32)
    }

    fn stage(&self, stage: Int<'k>, from: Int<'k>) {
        for (at, operand) in self.right.iter().enumerate() {
            operand.stage(self.job, self.team, self.slot(stage, at), from);
        }
    }

    fn fill(&self, beginning: bool) {
        let (k, schedule) = (self.job.k, self.job.schedule);
        let early = beginning && self.right.iter().all(Right::constant);
        if beginning && !early {
            self.job.wait_for_inputs();
        }
        for at in 0..schedule.stages - 1 {
            if at < (self.left.k as u32).div_ceil(schedule.tile_k) {
                self.stage(k.int(at as i32), k.int((at * schedule.tile_k) as i32));
            }
            k.copy_commit();
        }
        if early {
            self.job.wait_for_inputs();
        }
    }

    fn sums(&self, beginning: bool) -> Vec<Sums<'k>> {
        let (k, schedule) = (self.job.k, self.job.schedule);
        let (chunk, stages, depth) = (schedule.tile_k, schedule.stages as i32, self.left.k as u32);
        let (whole, all) = ((depth / chunk) as i32, depth.div_ceil(chunk) as i32);
        self.fill(beginning);
        let left = self.normalised(beginning);
        let zero = vec![[k.float(0.0); 4]; schedule.tile_rows as usize / 8];
        let mut sums = vec![zero; self.right.len()];
        let mut stage = k.int(0);
        if whole > 0 {
            let start = (stage, self.rows(&left, k.int(0), chunk), sums);
            let carried = k.rolled_range((0, whole, 1), start, |at, (stage, rows, sums)| {
                // The last iteration reads its own elements again.
                let ahead = self.rows(&left, (at + 1).least(whole - 1) * chunk as i32, chunk);
                k.copy_wait(stages - 2);
                k.warp_barrier();
                let (next, free) = (at + (stages - 1), stage.equals(0).select(k.int(stages - 1), stage - 1));
                k.when(next.lt(all), || self.stage(free, next * chunk as i32));
                k.copy_commit();
                let sums = self.multiply(stage, &rows, sums);
                (stage.equals(stages - 1).select(k.int(0), stage + 1), ahead, sums)
            });
            (stage, sums) = (carried.0, carried.2);
        }
        if all > whole {
            let rows = self.rows(&left, k.int(whole * chunk as i32), depth % chunk);
            k.copy_wait(0);
            k.warp_barrier();
            sums = self.multiply(stage, &rows, sums);
        }
        sums
    }

    /// For each 8 rows, the norm at the lane's row; nothing where the elements lie in memory.
    fn normalised(&self, beginning: bool) -> Vec<Scope<'a, 'k>> {
        let Some(normed) = self.normed else { return Vec::new() };
        if beginning {
            normed.compute();
        }
        let row = |eight: u32| normed.at((self.job.k.lane() >> 2) + (eight * 8) as i32);
        (0..self.job.schedule.tile_rows / 8).map(row).collect()
    }

    /// The fragments of the rows' elements from `from` on, as many steps as hold `present` elements.
    fn rows(&self, left: &[Scope<'a, 'k>], from: Int<'k>, present: u32) -> Rows<'k> {
        let job = self.job;
        let (k, lane, load) = (job.k, job.k.lane(), &self.left.a);
        let word = |step: u32, eight: u32, half: u32| {
            let first = (step * STEP + half * 8) as i32;
            let row = job.row((lane >> 2) + (eight * 8) as i32);
            let within = (lane & 3) * 2 + first;
            let exists = within.lt(present as i32);
            // Both elements of a pair exist: rows are read only where pairs lie aligned.
            let partial = first as u32 + 8 > present;
            let at = from + if partial { within.least(present as i32 - 2) } else { within };
            if let (Some(scope), Some(normed)) = (left.get(eight as usize), self.normed) {
                let value = normed.pair(scope, at, self.left.unit);
                return if partial { exists.select(value, k.int(0)) } else { value };
            }
            let scope = job.at(row, job.column(k.int(0))).with_axis(self.left.axis, at);
            let value = k.load::<I32>(scope.address(load.param, &load.index), Cache::Any);
            if partial { exists.select(value, k.int(0)) } else { value }
        };
        let eights = job.schedule.tile_rows / 8;
        (0..present.div_ceil(STEP))
            .map(|step| (0..eights).map(|eight| [word(step, eight, 0), word(step, eight, 1)]).collect())
            .collect()
    }

    /// Adds the chunk in a stage.
    fn multiply(&self, stage: Int<'k>, rows: &Rows<'k>, mut sums: Vec<Sums<'k>>) -> Vec<Sums<'k>> {
        for (product, sums) in sums.iter_mut().enumerate() {
            let columns = self.columns(&self.right[product], self.slot(stage, product), rows.len());
            for (columns, rows) in columns.iter().zip(rows) {
                for (row, sum) in rows.iter().zip(sums.iter_mut()) {
                    let half = self.left.unit == Unit::F16;
                    let k = self.job.k;
                    *sum =
                        if half { k.mma_f16(*columns, *row, *sum) } else { k.mma_bf16(*columns, *row, *sum) };
                }
            }
        }
        sums
    }

    /// The fragments of the weights of so many steps. Of 8 columns, one load has two steps, and the other 8 columns are
    /// zeros.
    fn columns(&self, right: &Right<'a>, slot: Shared<'k>, steps: usize) -> Vec<[Int<'k>; 4]> {
        if let Right::Codes(coded) = right {
            let mut reader = Reader::new(coded, slot, self.job.k.int(0));
            return (0..steps as u32).map(|step| reader.step(step)).collect();
        }
        let (k, pieces) = (self.job.k, (self.job.schedule.tile_k / 8) as i32);
        let (matrix, within) = (k.lane() >> 3, k.lane() & 7);
        if self.job.schedule.warp_columns() == 16 {
            let row = (matrix & 1) * 8 + within;
            let load = |step| k.load_matrices(slot.at(piece_offset(row, (matrix >> 1) + step * 2, pieces)));
            return (0..steps as i32).map(load).collect();
        }
        let zero = k.int(0);
        let load = |pair| {
            let [a, b, c, d] = k.load_matrices(slot.at(piece_offset(within, matrix + pair * 4, pieces)));
            [[a, zero, b, zero], [c, zero, d, zero]]
        };
        (0..steps.div_ceil(2) as i32).flat_map(load).take(steps).collect()
    }
}

fn store<'k>(job: &Job<'_, 'k>, sums: &[Sums<'k>]) {
    let (k, columns) = (job.k, job.schedule.warp_columns());
    let column = k.warp() * columns as i32 + (k.lane() >> 2);
    let row = (k.lane() & 3) * 2;
    for eight in 0..job.schedule.tile_rows as usize / 8 {
        for at in 0..columns as usize / 4 {
            let place = (row + (eight * 8 + at % 2) as i32, column + (at / 2 * 8) as i32);
            let values: Vec<[Float<'k>; 1]> = sums.iter().map(|sums| [sums[eight][at]]).collect();
            epilogue::side_by_side(job, place, &values);
        }
    }
}
