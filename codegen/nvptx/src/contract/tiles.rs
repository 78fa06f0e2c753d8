//! Tiles in shared memory and `mma.sync`, rows as the 16-row operand.
//!
//! Chunks of both operands go round a ring of stages: while one is multiplied, the next ones are copied. The loads of
//! fragments are `ldmatrix`, as both operands lie along the summed axis.

use super::coded::{Reader, Right};
use super::stage::{Operand, Side, Team, piece_offset};
use super::{Job, epilogue};
use crate::emit::{Float, Int, Shared};
use sinter_codegen_schedule::contract::{Product, STEP, Unit};

/// The accumulators of one product: for each 16 rows and 8 columns of a warp's tile four numbers, rows `g` and `g + 8`,
/// columns `2q` and `2q + 1` where the lane is `4g + q` (PTX ISA, matrix fragments for mma.m16n8k16).
pub(super) type Sums<'k> = Vec<Vec<[Float<'k>; 4]>>;

pub(super) fn body(job: &Job<'_, '_>) {
    let products = &job.found.products;
    let mut sums: Vec<Option<Sums<'_>>> = vec![None; products.len()];
    let runs = job.found.runs();
    let memory = job.k.shared(shared_bytes(job), 1024);
    for (at, run) in runs.iter().enumerate() {
        let members: Vec<&Product> = run.iter().map(|at| &products[*at]).collect();
        if at > 0 {
            // All warps are done with the memory of the run before.
            job.k.barrier();
        }
        for (at, done) in run.iter().zip(Run::new(job, &members, memory).sums(job, at == 0)) {
            sums[*at] = Some(done);
        }
    }
    let (k, schedule, warps) = (job.k, job.schedule, job.schedule.warps.1 as i32);
    let row = k.warp().divided(warps) * schedule.warp_rows() as i32 + (k.lane() >> 2);
    let column = k.warp().modulo(warps) * schedule.warp_columns() as i32 + (k.lane() & 3) * 2;
    epilogue::store(job, &sums.into_iter().flatten().collect::<Vec<_>>(), (row, column));
}

fn shared_bytes(job: &Job<'_, '_>) -> u32 {
    job.schedule.shared_bytes(job.found) as u32
}

/// All threads of the block copy together.
fn team<'k>(job: &Job<'_, 'k>) -> Team<'k> {
    Team { thread: job.k.thread(), threads: job.schedule.threads(), first: job.k.int(0) }
}

/// One loop along the summed axis: products that share their left operand.
struct Run<'a, 'k> {
    left: Operand<'a>,
    right: Vec<Right<'a>>,
    memory: Shared<'k>,
    k: u32,
    unit: Unit,
}

impl<'a, 'k> Run<'a, 'k> {
    fn new(job: &Job<'a, 'k>, products: &[&'a Product], memory: Shared<'k>) -> Self {
        let left = Operand::new(job, products[0], Side::Left, job.schedule.tile_rows);
        let right = |product: &&'a Product| Right::new(job, product, job.schedule.tile_columns);
        let right = products.iter().map(right).collect();
        Self { left, right, memory, k: products[0].k as u32, unit: products[0].unit }
    }

    fn stage_bytes(&self) -> u32 {
        self.left.bytes() + self.right.iter().map(Right::bytes).sum::<u32>()
    }

    /// Where a stage's chunk of an operand lies: the left one first.
    fn slot(&self, stage: Int<'k>, right: Option<usize>) -> Shared<'k> {
        let offset = right.map_or(0, |at| self.left.bytes() + at as u32 * self.right[0].bytes());
        self.memory.at(stage * self.stage_bytes() as i32).at(offset as i32)
    }

    fn stage_left(&self, job: &Job<'_, 'k>, stage: Int<'k>, from: Int<'k>) {
        self.left.stage(job, team(job), self.slot(stage, None), from);
    }

    fn stage_right(&self, job: &Job<'_, 'k>, stage: Int<'k>, from: Int<'k>) {
        for (at, operand) in self.right.iter().enumerate() {
            operand.stage(job, team(job), self.slot(stage, Some(at)), from);
        }
    }

    /// Brings the first chunks on their way, weights before the launch before has ended if this is the kernel's beginning.
    fn fill(&self, job: &Job<'_, 'k>, beginning: bool) {
        let (k, chunk, stages) = (job.k, job.schedule.tile_k, job.schedule.stages);
        let early = beginning && self.right.iter().all(Right::constant);
        let first = |stage: u32| (k.int(stage as i32), k.int((stage * chunk) as i32));
        let present = (stages - 1).min(self.k.div_ceil(chunk));
        if early {
            (0..present).map(first).for_each(|(stage, from)| self.stage_right(job, stage, from));
        }
        if beginning {
            job.wait_for_inputs();
        }
        for at in 0..stages - 1 {
            if at < present {
                let (stage, from) = first(at);
                self.stage_left(job, stage, from);
                if !early {
                    self.stage_right(job, stage, from);
                }
            }
            k.copy_commit();
        }
    }

    fn sums(&self, job: &Job<'_, 'k>, beginning: bool) -> Vec<Sums<'k>> {
        let (k, chunk, stages) = (job.k, job.schedule.tile_k, job.schedule.stages as i32);
        let (warp_rows, warp_columns) = (job.schedule.warp_rows(), job.schedule.warp_columns());
        let zero = vec![vec![[k.float(0.0); 4]; warp_columns as usize / 8]; warp_rows as usize / 16];
        self.fill(job, beginning);
        let (whole, all) = ((self.k / chunk) as i32, self.k.div_ceil(chunk) as i32);
        let start = (k.int(0), vec![zero; self.right.len()]);
        let (stage, mut sums) = k.rolled_range((0, whole, 1), start, |at, (stage, sums)| {
            k.copy_wait(stages - 2);
            k.barrier();
            let next = at + (stages - 1);
            let free = stage.equals(0).select(k.int(stages - 1), stage - 1);
            k.when(next.lt(all), || {
                let from = next * chunk as i32;
                self.stage_left(job, free, from);
                self.stage_right(job, free, from);
            });
            k.copy_commit();
            let sums = self.multiply(job, stage, chunk / STEP, sums);
            let stage = stage.equals(stages - 1).select(k.int(0), stage + 1);
            (stage, sums)
        });
        if all > whole {
            k.copy_wait(0);
            k.barrier();
            sums = self.multiply(job, stage, (self.k % chunk).div_ceil(STEP), sums);
        }
        sums
    }

    /// Adds `steps` steps of 16 of the chunk in a stage.
    fn multiply(
        &self,
        job: &Job<'_, 'k>,
        stage: Int<'k>,
        steps: u32,
        mut sums: Vec<Sums<'k>>,
    ) -> Vec<Sums<'k>> {
        let (k, schedule) = (job.k, job.schedule);
        let pieces = (schedule.tile_k / 8) as i32;
        let (lane, warp) = (k.lane(), k.warp());
        let (matrix, within) = (lane >> 3, lane & 7);
        let warps = schedule.warps.1 as i32;
        let row = warp.divided(warps) * schedule.warp_rows() as i32 + (matrix & 1) * 8 + within;
        let first = warp.modulo(warps) * schedule.warp_columns() as i32;
        let column = first + (matrix >> 1) * 8 + within;
        let pairs = schedule.warp_columns() as i32 / 16;
        let mut readers: Vec<Vec<Reader<'k>>> = (self.right.iter().enumerate())
            .map(|(product, right)| match right {
                Right::Numbers(_) => Vec::new(),
                Right::Codes(coded) => {
                    let (slot, tile) = (self.slot(stage, Some(product)), first >> 4);
                    (0..pairs).map(|pair| Reader::new(coded, slot, tile + pair)).collect()
                }
            })
            .collect();
        for step in 0..steps as i32 {
            let left: Vec<[Int<'k>; 4]> = (0..schedule.warp_rows() as i32 / 16)
                .map(|tile| {
                    let at = piece_offset(row + tile * 16, (matrix >> 1) + step * 2, pieces);
                    k.load_matrices(self.slot(stage, None).at(at))
                })
                .collect();
            for (product, sums) in sums.iter_mut().enumerate() {
                for pair in 0..pairs {
                    let [a, b, c, d] = match readers[product].get_mut(pair as usize) {
                        // The fragment as the 16-row operand has the columns of each half in every second register.
                        Some(reader) => {
                            let [a, c, b, d] = reader.step(step as u32);
                            [a, b, c, d]
                        }
                        None => {
                            let at = piece_offset(column + pair * 16, (matrix & 1) + step * 2, pieces);
                            k.load_matrices(self.slot(stage, Some(product)).at(at))
                        }
                    };
                    for (left, sums) in left.iter().zip(sums.iter_mut()) {
                        for (half, right) in [[a, b], [c, d]].into_iter().enumerate() {
                            let sum = &mut sums[pair as usize * 2 + half];
                            *sum = if self.unit == Unit::F16 {
                                k.mma_f16(*left, right, *sum)
                            } else {
                                k.mma_bf16(*left, right, *sum)
                            };
                        }
                    }
                }
            }
        }
        sums
    }
}
