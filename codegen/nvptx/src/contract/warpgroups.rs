//! Hopper: tensor copies, mbarriers and `wgmma`.
//!
//! One thread brings chunks of both operands to a ring in shared memory by tensor copies; the other warpgroups multiply 64
//! rows each. A stage of the ring is full when its bytes have arrived, and empty when every warp is done with it. Blocks
//! are persistent: while the sums of a tile are stored, the chunks of the next one arrive. Results leave by tensor copies
//! too where their layout allows it, and by stores of each thread elsewhere.

use super::boxes::{self, Boxes};
use super::{Job, epilogue};
use crate::emit::{Float, Int, Left, REGISTERS, Right, Shared};
use sinter_codegen_schedule::contract::{Contraction, Product, STEP, Unit, row_offset};
use sinter_ir::{GpuParam, Id, Swizzle, TensorMapDef, TileProgram};

/// Bytes of a row of a chunk: what a tensor copy turns.
const ROW_BYTES: u32 = 128;
/// The parameters besides the addresses and symbols: a tensor map for each operand, and for each result that leaves in boxes.
pub(super) fn tensor_maps(
    tile: &TileProgram,
    found: &Contraction,
    (rows, columns): (u32, u32),
) -> Vec<GpuParam> {
    let mut maps: Vec<TensorMapDef> = Vec::new();
    for product in &found.products {
        for (load, rows) in [(&product.a, rows), (&product.b, columns)] {
            let param = &tile.params[load.param];
            let strides = sinter_codegen_schedule::access::dim_strides(param).unwrap_or_default();
            let map = TensorMapDef {
                arg: load.param.index(),
                dtype: param.ty.dtype,
                dims: param.ty.shape.iter().rev().copied().collect(),
                strides: strides.first().map(|stride| vec![stride.coeff]).unwrap_or_default(),
                box_dims: vec![ROW_BYTES / 2, rows],
                swizzle: Swizzle::B128,
            };
            if !maps.contains(&map) {
                maps.push(map);
            }
        }
    }
    if found.boxed {
        maps.extend(boxes::tensor_maps(tile));
    }
    maps.into_iter().map(GpuParam::TensorMap).collect()
}

pub(super) fn body(job: &Job<'_, '_>) {
    let k = job.k;
    let ring = Ring::new(job);
    k.when(k.thread().equals(0), || ring.init(job));
    k.barrier();
    job.wait_for_inputs();
    let group = k.uniform(k.thread() >> 7);
    k.when(group.equals(0), || {
        k.fewer_registers(REGISTERS.0 as i32);
        k.when(k.thread().equals(0), || {
            k.show_global_to_copies();
            each_tile(job, |job, count| ring.produce(job, count));
        });
    });
    k.when(group.differs(0), || {
        k.more_registers(REGISTERS.1 as i32);
        let boxes = job.found.boxed.then(|| Boxes::new(job));
        each_tile(job, |job, count| {
            let (sums, count) = ring.consume(job, group - 1, count);
            store(job, boxes.as_ref(), group - 1, &sums);
            count
        });
        if let Some(boxes) = &boxes {
            boxes.finish(k);
        }
    });
}

/// Calls `body` for every tile of this block with the number of chunks that went through the ring before, and takes that
/// number from it.
fn each_tile<'a, 'k>(job: &Job<'a, 'k>, body: impl FnOnce(&Job<'a, 'k>, Int<'k>) -> Int<'k>) {
    let k = job.k;
    let all = job.tiles();
    let start = (k.block(), k.int(0));
    k.repeat(
        start,
        |(tile, _)| tile.lt(all),
        |(tile, count)| {
            let count = body(&job.at_tile(tile), count);
            (tile + k.blocks(), count)
        },
    );
}

/// Stores the sums of a warpgroup's 64 rows, by product.
fn store<'k>(job: &Job<'_, 'k>, boxes: Option<&Boxes<'k>>, group: Int<'k>, sums: &[Vec<Float<'k>>]) {
    let k = job.k;
    let first = group * 64 + (k.warp() & 3) * 16;
    let sums: Vec<Vec<[Float<'k>; 4]>> = sums.iter().map(|sums| sums.as_chunks().0.to_vec()).collect();
    match boxes {
        Some(boxes) => boxes.store(job, &sums, first),
        None => {
            let sums: Vec<_> = sums.into_iter().map(|sums| vec![sums]).collect();
            epilogue::store(job, &sums, (first + (k.lane() >> 2), (k.lane() & 3) * 2));
        }
    }
}

/// The stages in shared memory and their barriers.
struct Ring<'a, 'k> {
    memory: Shared<'k>,
    /// One for each stage that is full, then one for each that is empty.
    barriers: Shared<'k>,
    /// The runs of products that share their left operand.
    runs: Vec<Vec<&'a Product>>,
    /// Where each run's products are among all.
    positions: Vec<Vec<usize>>,
    stage_bytes: i32,
    left_bytes: i32,
    right_bytes: i32,
    stages: i32,
}

impl<'a, 'k> Ring<'a, 'k> {
    fn new(job: &Job<'a, 'k>) -> Self {
        let schedule = job.schedule;
        let positions = job.found.runs();
        let widest = positions.iter().map(Vec::len).max().unwrap_or(1) as i32;
        let left_bytes = (schedule.tile_rows * ROW_BYTES) as i32;
        let right_bytes = (schedule.tile_columns * ROW_BYTES) as i32;
        let (stage_bytes, stages) = (left_bytes + widest * right_bytes, schedule.stages as i32);
        let members = |run: &Vec<usize>| run.iter().map(|at| &job.found.products[*at]).collect();
        Self {
            memory: job.k.shared((stage_bytes * stages) as u32, 1024),
            barriers: job.k.shared((stages * 16) as u32, 8),
            runs: positions.iter().map(members).collect(),
            positions,
            stage_bytes,
            left_bytes,
            right_bytes,
            stages,
        }
    }

    fn init(&self, job: &Job<'_, 'k>) {
        let consumers = job.schedule.warps.0 as i32 * 4;
        for stage in 0..self.stages {
            job.k.init_barrier(self.barriers.at(stage * 8), 1);
            job.k.init_barrier(self.barriers.at((self.stages + stage) * 8), consumers);
        }
        job.k.show_barriers();
    }

    /// The stage of a chunk and the parity of its phase.
    fn place(&self, count: Int<'k>) -> (Int<'k>, Int<'k>) {
        let shift = self.stages.trailing_zeros() as i32;
        (count & (self.stages - 1), (count >> shift) & 1)
    }

    fn full(&self, stage: Int<'k>) -> Shared<'k> {
        self.barriers.at(stage * 8)
    }

    fn empty(&self, stage: Int<'k>) -> Shared<'k> {
        self.full(stage).at(self.stages * 8)
    }

    fn left(&self, stage: Int<'k>) -> Shared<'k> {
        self.memory.at(stage * self.stage_bytes)
    }

    fn right(&self, stage: Int<'k>, product: usize) -> Shared<'k> {
        self.left(stage).at(self.left_bytes + product as i32 * self.right_bytes)
    }

    /// Brings all chunks of a tile to the ring.
    fn produce(&self, job: &Job<'_, 'k>, count: Int<'k>) -> Int<'k> {
        let (k, chunk) = (job.k, job.schedule.tile_k);
        self.runs.iter().fold(count, |count, run| {
            let chunks = (run[0].k as u32).div_ceil(chunk) as i32;
            k.rolled_range((0, chunks, 1), (), |at, ()| {
                let (stage, parity) = self.place(count + at);
                // The first time round, every stage is empty.
                k.wait_for_phase(self.empty(stage), parity ^ 1);
                let full = self.full(stage);
                k.arrive_expecting(full, self.left_bytes + run.len() as i32 * self.right_bytes);
                let from = at * chunk as i32;
                let map = k.tensor_map(run[0].a.param.index());
                k.copy_box(self.left(stage), map, (from, job.first.0), full);
                for (at, product) in run.iter().enumerate() {
                    let column = job.first.1 + row_offset(&product.b) as i32;
                    let map = k.tensor_map(product.b.param.index());
                    k.copy_box(self.right(stage, at), map, (from, column), full);
                }
            });
            count + chunks
        })
    }

    /// Multiplies all chunks of a tile: the sums of this warpgroup's 64 rows, and the number of chunks so far.
    fn consume(
        &self,
        job: &Job<'_, 'k>,
        group: Int<'k>,
        mut count: Int<'k>,
    ) -> (Vec<Vec<Float<'k>>>, Int<'k>) {
        let (k, chunk) = (job.k, job.schedule.tile_k);
        let columns = job.schedule.tile_columns as usize;
        let mut sums: Vec<Vec<Float<'k>>> = vec![Vec::new(); job.found.products.len()];
        for (run, positions) in self.runs.iter().zip(&self.positions) {
            let depth = run[0].k as u32;
            let (whole, rest) = ((depth / chunk) as i32, depth % chunk);
            let zero = (0..run.len()).map(|_| k.zeros_in_place(columns / 2)).collect::<Vec<_>>();
            let mut done = k.rolled_range((0, whole, 1), zero, |at, sums| {
                self.multiply(job, run, (group, count + at, chunk / STEP), sums)
            });
            count = count + whole;
            if rest > 0 {
                done = self.multiply(job, run, (group, count, rest.div_ceil(STEP)), done);
                count = count + 1;
            }
            for (at, done) in positions.iter().zip(done) {
                sums[*at] = done;
            }
        }
        (sums, count)
    }

    /// Adds `steps` steps of 16 of a chunk.
    fn multiply(
        &self,
        job: &Job<'_, 'k>,
        run: &[&Product],
        (group, count, steps): (Int<'k>, Int<'k>, u32),
        mut sums: Vec<Vec<Float<'k>>>,
    ) -> Vec<Vec<Float<'k>>> {
        let k = job.k;
        let (stage, parity) = self.place(count);
        k.wait_for_phase(self.full(stage), parity);
        let matrix = |at| k.matrix(at, (ROW_BYTES, 16));
        let left = matrix(self.left(stage).at(group * (64 * ROW_BYTES) as i32));
        let right: Vec<_> = (0..run.len()).map(|at| matrix(self.right(stage, at))).collect();
        k.begin_products();
        for step in 0..steps {
            // A step is 32 bytes further; addresses count 16.
            let further = i64::from(step * 2);
            for (right, sums) in right.iter().zip(&mut sums) {
                let half = run[0].unit == Unit::F16;
                let operands = (Left::Matrix(left + further), Right::AlongSum(*right + further));
                *sums = k.warpgroup_product(half, sums, operands);
            }
        }
        k.end_products(0);
        k.when(k.lane().equals(0), || k.arrive(self.empty(stage)));
        sums
    }
}
