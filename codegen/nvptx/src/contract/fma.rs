//! f32 and mixed operands: chains of fused multiply-adds, each thread a small tile of outputs.

use super::{Job, epilogue};
use crate::emit::{Cache, F32, Float, Int, Shared};
use crate::lower::Scope;
use sinter_codegen_schedule::contract::Product;
use sinter_ir::{AxisId, Load};

/// The columns of a thread's tile.
const COLUMNS: usize = 4;
/// So many floats lie between the chunks of neighbouring elements of the summed axis beside the tile's own, so that
/// writes along it meet in fewer banks.
const PADDING: u32 = 4;

/// The sums of a product: for each row of a thread's tile its columns.
type Sums<'k> = Vec<[Float<'k>; COLUMNS]>;

pub(super) fn body(job: &Job<'_, '_>) {
    let products = &job.found.products;
    let mut sums: Vec<Option<Sums<'_>>> = vec![None; products.len()];
    let memory = job.k.shared(job.schedule.shared_bytes(job.found) as u32, 16);
    job.wait_for_inputs();
    for run in job.found.runs() {
        let members: Vec<&Product> = run.iter().map(|at| &products[*at]).collect();
        for (at, done) in run.iter().zip(multiplied(job, &members, memory)) {
            sums[*at] = Some(done);
        }
    }
    let sums: Vec<Sums<'_>> = sums.into_iter().flatten().collect();
    let (row, column) = place(job);
    for at in 0..thread_rows(job) {
        let values: Vec<[Float<'_>; COLUMNS]> = sums.iter().map(|sums| sums[at]).collect();
        epilogue::side_by_side(job, (row + at as i32, column), &values);
    }
}

fn thread_rows(job: &Job<'_, '_>) -> usize {
    (job.schedule.tile_rows * job.schedule.tile_columns / job.schedule.threads()) as usize / COLUMNS
}

/// The first row and column of a thread's tile.
fn place<'k>(job: &Job<'_, 'k>) -> (Int<'k>, Int<'k>) {
    let across = (job.schedule.tile_columns / COLUMNS as u32) as i32;
    let (row, column) = (job.k.thread().divided(across), job.k.thread().modulo(across));
    (row * thread_rows(job) as i32, column * COLUMNS as i32)
}

/// The sums of products that share their left operand.
fn multiplied<'k>(job: &Job<'_, 'k>, products: &[&Product], memory: Shared<'k>) -> Vec<Sums<'k>> {
    let (k, schedule) = (job.k, job.schedule);
    let (chunk, depth) = (schedule.tile_k, products[0].k as u32);
    let zero = vec![[k.float(0.0); COLUMNS]; thread_rows(job)];
    let whole = (depth / chunk * chunk) as i32;
    let step = |from: Int<'k>, present: u32, sums: Vec<Sums<'k>>| {
        k.barrier();
        stage(job, products, memory, (from, present));
        k.barrier();
        add(job, memory, present, sums)
    };
    let sums = k.rolled_range((0, whole, chunk as i32), vec![zero; products.len()], |from, sums| {
        step(from, chunk, sums)
    });
    match depth % chunk {
        0 => sums,
        rest => step(k.int(whole), rest, sums),
    }
}

/// Floats from one element of the summed axis to the next, on the left and on the right side.
fn pitches(job: &Job<'_, '_>) -> (u32, u32) {
    (job.schedule.tile_rows + PADDING, job.schedule.tile_columns + PADDING)
}

/// Where the chunk of a product's right operand begins, in bytes.
fn right_offset(job: &Job<'_, '_>, product: usize) -> i32 {
    let (left, right) = pitches(job);
    ((left + product as u32 * right) * job.schedule.tile_k * 4) as i32
}

fn stage<'k>(job: &Job<'_, 'k>, products: &[&Product], memory: Shared<'k>, (from, present): (Int<'k>, u32)) {
    let (left, right) = pitches(job);
    let zero = job.k.int(0);
    let first = products[0];
    let at_row = |row| job.at(job.row(row), job.column(zero));
    let at_column = |column| job.at(job.row(zero), job.column(column));
    operand(job, (&first.a, first.axis), (memory, job.schedule.tile_rows, left), (from, present), at_row);
    for (at, product) in products.iter().enumerate() {
        let to = (memory.at(right_offset(job, at)), job.schedule.tile_columns, right);
        operand(job, (&product.b, product.axis), to, (from, present), at_column);
    }
}

/// Brings `present` elements from `from` on of each of so many rows to shared memory, the summed axis outermost.
fn operand<'a, 'k>(
    job: &Job<'a, 'k>,
    (load, axis): (&Load, AxisId),
    (to, rows, pitch): (Shared<'k>, u32, u32),
    (from, present): (Int<'k>, u32),
    scope: impl Fn(Int<'k>) -> Scope<'a, 'k>,
) {
    let (k, threads, chunk) = (job.k, job.schedule.threads(), job.schedule.tile_k);
    for first in (0..rows * chunk).step_by(threads as usize) {
        let at = k.thread() + first as i32;
        let (row, element) = (at.divided(chunk as i32), at.modulo(chunk as i32));
        let exists = element.lt(present as i32) & row.lt(rows as i32);
        let copy = || {
            let value = scope(row).with_axis(axis, from + element).load(load).number(k);
            k.store(to.at(element * (pitch * 4) as i32 + row * 4), value);
        };
        if present == chunk && first + threads <= rows * chunk { copy() } else { k.when(exists, copy) }
    }
}

/// Elements of a chunk whose loads may be on their way together: more would take all registers.
const TOGETHER: u32 = 4;

/// Adds `present` elements of the chunk in shared memory.
fn add<'k>(job: &Job<'_, 'k>, memory: Shared<'k>, present: u32, sums: Vec<Sums<'k>>) -> Vec<Sums<'k>> {
    let (k, (left, right)) = (job.k, pitches(job));
    let whole = present / TOGETHER * TOGETHER;
    let add = |from: Int<'k>, count: u32, sums: Vec<Sums<'k>>| {
        (0..count).fold(sums, |sums, at| {
            let at = from + at as i32;
            add_one(job, memory, (at * (left * 4) as i32, at * (right * 4) as i32), sums)
        })
    };
    let sums = k.rolled_range((0, whole as i32, TOGETHER as i32), sums, |at, sums| add(at, TOGETHER, sums));
    add(k.int(whole as i32), present - whole, sums)
}

/// Adds the element of the chunk at these offsets on the left and on the right side.
fn add_one<'k>(
    job: &Job<'_, 'k>,
    memory: Shared<'k>,
    (left, right): (Int<'k>, Int<'k>),
    mut sums: Vec<Sums<'k>>,
) -> Vec<Sums<'k>> {
    let (k, (row, column)) = (job.k, place(job));
    let rows = memory.at(row * 4).at(left);
    let rows: Vec<Float<'k>> =
        (0..thread_rows(job)).map(|at| k.load::<F32>(rows.at(at as i32 * 4), Cache::Any)).collect();
    for (product, sums) in sums.iter_mut().enumerate() {
        let columns = memory.at(right_offset(job, product)).at(column * 4).at(right);
        let columns: [Float<'k>; COLUMNS] = k.load_vector::<F32, COLUMNS>(columns, Cache::Any);
        for (row, sums) in rows.iter().zip(sums.iter_mut()) {
            for (column, sum) in columns.iter().zip(sums.iter_mut()) {
                *sum = row.fma(*column, *sum);
            }
        }
    }
    sums
}
