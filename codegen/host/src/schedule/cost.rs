//! What each way of running a program takes on the host, before anything runs.
//!
//! A launch waits for the slower of memory and the processor; what is divided into few units waits for the thread that gets
//! the most of them, whose share of the bandwidth has a limit too; each call of a micro-kernel copies its rows and costs some
//! nanoseconds of its own; and other threads have to be woken. The figures of a [`Machine`] are rounded from measurements; only
//! their ratios matter for a choice.

use super::{Attend, Choice, Product, Rows, Schedule, Skeleton, Way, Weights};
use crate::micro::{Isa, PANEL};
use sinter_ir::{AxisId, Binding, DType, Dim, PAGE, Stage, TileProgram};
use std::fmt;

/// Costs whose ratio is nearer to 1 than this are the same.
const CLEARLY: f64 = 0.98;

/// A launch whose cost is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Tokens of the step.
    pub tokens: u64,
    /// Positions that each of them sees.
    pub context: u64,
}

impl Size {
    /// What stands for launches of few rows: a token of a sequence.
    pub const FEW: Size = Size { tokens: 1, context: 512 };
    /// What stands for launches of many: a prompt, whose tokens see half of it.
    pub const MANY: Size = Size { tokens: 512, context: 256 };

    /// The extents of such a launch.
    pub(crate) fn binding(&self) -> Binding {
        let pages = self.context.div_ceil(PAGE);
        Binding::new(self.tokens, 1, pages, pages * PAGE).with_rows(self.tokens)
    }
}

/// What the estimate knows of a machine. Rates are in bytes per nanosecond, times in nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Machine {
    /// Threads that work together.
    pub threads: usize,
    /// Memory, by all threads together and by one.
    pub memory: f64,
    /// The same by one thread.
    pub memory_alone: f64,
    /// Copies of rows, from a cache to another place in it.
    pub copy: f64,
    /// A multiplication and addition of sixteen lanes: in f32, in pairs of bf16, and of codes.
    pub multiply: [f64; 3],
    /// An operation of generated code, on one lane or four.
    pub operation: f64,
    /// A call of a micro-kernel with the generated code around it.
    pub call: f64,
    /// A row's begin in generated code.
    pub row: f64,
    /// From waking the other threads until all are done.
    pub wake: f64,
    /// Bytes of a core's second cache.
    pub second_cache: f64,
    /// The cache behind it, by one thread.
    pub third: f64,
}

impl Machine {
    /// A machine of some years around 2024 at about four gigahertz.
    pub fn typical(isa: Isa, threads: usize) -> Self {
        let multiply = match isa {
            Isa::Scalar => [2.5, 4.0, 6.0],
            Isa::Avx2 => [0.3, 0.9, 0.6],
            Isa::Avx512 => [0.27, 0.8, 0.3],
            Isa::Avx512Bf16 => [0.27, 0.27, 0.3],
        };
        let threads = threads.max(1);
        Self {
            threads,
            memory: (20.0 * threads as f64).min(400.0),
            memory_alone: 22.0,
            copy: 20.0,
            multiply,
            operation: 0.3,
            call: 60.0,
            row: 6.0,
            wake: 900.0,
            second_cache: f64::from(1 << 20),
            third: 14.0,
        }
    }
}

/// What a launch waits for most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// Memory.
    Memory,
    /// Arithmetic, and what stands around it.
    Arithmetic,
}

/// What a launch takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cost {
    /// Bytes of weights, or of keys and values, that it reads.
    pub bytes: f64,
    /// Multiplications and additions.
    pub operations: f64,
    /// Work units, and those of the thread that has most.
    pub units: u64,
    /// The units of the thread that has most.
    pub busiest: u64,
    /// Nanoseconds until memory has given all bytes.
    pub memory: f64,
    /// Nanoseconds of arithmetic of the busiest thread.
    pub arithmetic: f64,
    /// Nanoseconds of copies, calls and rows of the busiest thread.
    pub overhead: f64,
    /// Nanoseconds of waking others.
    pub wake: f64,
}

impl Cost {
    /// Nanoseconds of the launch.
    pub fn nanos(&self) -> f64 {
        self.memory.max(self.arithmetic + self.overhead) + self.wake
    }
    /// What it waits for.
    pub fn bound(&self) -> Bound {
        if self.memory > self.arithmetic + self.overhead { Bound::Memory } else { Bound::Arithmetic }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micro = |nanos: f64| nanos / 1e3;
        write!(
            f,
            "{:.1} µs: memory {:.1}, arithmetic {:.1}, overhead {:.1}, waking {:.1}; {} of {} units on one thread",
            micro(self.nanos()),
            micro(self.memory),
            micro(self.arithmetic),
            micro(self.overhead),
            micro(self.wake),
            self.busiest,
            self.units,
        )
    }
}

/// The position of the least cost; one that is less by no more than the estimate can tell does not displace an earlier one.
pub(crate) fn least(costs: &[Cost]) -> usize {
    let better = |best: usize, at: usize| costs[at].nanos() < CLEARLY * costs[best].nanos();
    (1..costs.len()).fold(0, |best, at| if better(best, at) { at } else { best })
}

/// What of a program its cost depends on.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Shape {
    Points(Points),
    Products(Products),
    Attend(Attention),
}

/// Grid points.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Points {
    grid: Vec<Dim>,
    /// The extents of the stores' and reductions' own axes times the operations at each of their points.
    inner: Vec<(Vec<Dim>, usize)>,
    /// The extent of the grid axis that is now inside.
    sunk: Option<Dim>,
}

/// Products with weights.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Products {
    rows: Vec<Dim>,
    columns: usize,
    /// The weights in a stack; none where all rows have one.
    stack: Option<usize>,
    products: Vec<OneProduct>,
    /// Operations of the stores for an element.
    stores: usize,
}

/// One product.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct OneProduct {
    depth: usize,
    dtype: DType,
    /// Bytes of a panel.
    panel: usize,
    /// Whether generated code copies the rows.
    copied: bool,
    /// Whether panels are unpacked to numbers.
    unpacked: bool,
}

/// Attention.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Attention {
    grid: Vec<Dim>,
    context: Dim,
    depth: usize,
    lanes: usize,
    /// Bytes of a key and a value.
    bytes: usize,
    /// All rows that share keys and values.
    group: usize,
    /// Operations of a score.
    score: usize,
}

impl Shape {
    /// Of a program in the form in which it is emitted, any schedule of it, and the program as it came.
    pub(crate) fn of(tile: &TileProgram, schedule: &Schedule, came: &TileProgram) -> Self {
        let dim = |axis: &AxisId| tile.axes[*axis].extent;
        let stores = || {
            tile.stages.iter().filter_map(|stage| match stage {
                Stage::Store { value, axes, .. } => Some((axes, tile.cone(*value).len())),
                Stage::Mma { .. } | Stage::Reduce { .. } | Stage::Online { .. } => None,
            })
        };
        let products = |rows: Vec<Dim>, columns: AxisId, stack: Option<usize>, all: &[Product]| {
            Self::Products(Products {
                rows,
                columns: dim(&columns).coeff as usize,
                stack,
                products: all.iter().map(|product| OneProduct::of(tile, product)).collect(),
                stores: stores().map(|(_, operations)| operations).sum(),
            })
        };
        match &schedule.skeleton {
            Skeleton::Contract(plan) => products(vec![dim(&plan.rows)], plan.columns, None, &plan.products),
            Skeleton::Grouped(plan) => {
                products(plan.extents.clone(), plan.columns, Some(plan.weights), &plan.products)
            }
            Skeleton::Attend(plan) => Self::Attend(Attention::of(tile, plan)),
            Skeleton::Points => Self::Points(Points {
                grid: tile.grid.iter().map(dim).collect(),
                inner: tile.stages.iter().filter_map(|stage| inner(tile, stage)).collect(),
                sunk: came.grid.last().filter(|_| came.grid.len() > tile.grid.len()).map(dim),
            }),
        }
    }

    /// What a launch takes if it is run so; more than anything else if it cannot be.
    pub(crate) fn cost(&self, choice: Choice, size: &Size, machine: &Machine) -> Cost {
        let binding = size.binding();
        let machine = &Machine { threads: if choice.alone { 1 } else { machine.threads }, ..*machine };
        let cost = match (self, choice.way) {
            (Self::Points(shape), Way::Points { inner }) => shape.cost(inner, &binding, machine),
            (Self::Products(shape), Way::Contract { panels, together, block }) => {
                shape.cost((panels, together, block), &binding, machine)
            }
            (Self::Products(shape), Way::Grouped { panels, block }) => {
                shape.cost((panels, 1, block), &binding, machine)
            }
            (Self::Attend(shape), Way::Attend { rows }) => shape.cost(rows, &binding, machine),
            _ => return Cost { overhead: f64::INFINITY, ..Cost::none() },
        };
        let wake = if machine.threads > 1 && cost.units > 1 { machine.wake } else { 0.0 };
        let share = cost.bytes * cost.busiest as f64 / cost.units.max(1) as f64;
        let memory = (cost.bytes / machine.memory).max(share / machine.memory_alone);
        Cost { wake, memory, ..cost }
    }
}

/// The extents of a stage's own axes, and the operations at each of their points.
fn inner(tile: &TileProgram, stage: &Stage) -> Option<(Vec<Dim>, usize)> {
    let dims = |axes: &[AxisId]| axes.iter().map(|axis| tile.axes[*axis].extent).collect();
    Some(match stage {
        Stage::Store { axes, value, .. } => (dims(axes), tile.cone(*value).len() + 1),
        Stage::Reduce { axis, value, .. } => (dims(&[*axis]), tile.cone(*value).len() + 1),
        Stage::Mma { axis, .. } => (dims(&[*axis]), 4),
        Stage::Online { axis, score, .. } => (dims(&[*axis]), tile.cone(*score).len() + 8),
    })
}

fn product(dims: &[Dim], binding: &Binding) -> f64 {
    dims.iter().map(|dim| dim.eval(binding) as f64).product()
}

/// The units of the thread that has most: the runtime's pool hands out no less than a sixteenth of a thread's share at a
/// time.
fn busiest(units: u64, threads: usize) -> u64 {
    let threads = threads as u64;
    let grain = units.div_ceil(16 * threads).max(1);
    (units.div_ceil(grain).div_ceil(threads) * grain).min(units)
}

impl Cost {
    fn none() -> Self {
        Cost {
            bytes: 0.0,
            operations: 0.0,
            units: 0,
            busiest: 0,
            memory: 0.0,
            arithmetic: 0.0,
            overhead: 0.0,
            wake: 0.0,
        }
    }

    /// Of units that are alike, each with its arithmetic and what stands around it.
    fn of_units(units: f64, (arithmetic, overhead): (f64, f64), machine: &Machine) -> Self {
        let units = units as u64;
        let busiest = busiest(units, machine.threads);
        let (arithmetic, overhead) = (arithmetic * busiest as f64, overhead * busiest as f64);
        Cost { units, busiest, arithmetic, overhead, ..Self::none() }
    }
}

impl Points {
    fn cost(&self, inside: bool, binding: &Binding, machine: &Machine) -> Cost {
        // Generated code has four lanes where an axis runs inside a unit, and one where it does not.
        let singly = if inside { None } else { self.sunk };
        let units = product(&self.grid, binding);
        let of = |(dims, operations): &(Vec<Dim>, usize)| {
            let lanes = if dims.is_empty() { 1.0 } else { 4.0 };
            product(dims, binding) * *operations as f64 / lanes
        };
        let work: f64 = self.inner.iter().map(of).sum::<f64>() * machine.operation;
        let split = singly.map_or(1.0, |dim| dim.eval(binding) as f64);
        let arithmetic = if singly.is_some() { 4.0 * work / split } else { work };
        Cost::of_units(units * split, (arithmetic, machine.row), machine)
    }
}

impl OneProduct {
    fn of(tile: &TileProgram, product: &Product) -> Self {
        let dtype = tile.params[product.weight.param].ty.dtype;
        let panel = match product.weights {
            Weights::Unpacked(codes, _) | Weights::Codes(codes, _) => codes.panel_bytes(product.depth),
            Weights::Numbers if dtype == DType::Bf16 => product.depth.next_multiple_of(2) * PANEL * 2,
            Weights::Numbers => product.depth * PANEL * dtype.bytes(),
        };
        Self {
            depth: product.depth,
            dtype: product.dtype,
            panel,
            copied: matches!(product.rows, Rows::Copied(_)),
            unpacked: matches!(product.weights, Weights::Unpacked(..)),
        }
    }

    /// Nanoseconds to multiply a row by a panel.
    fn multiply(&self, machine: &Machine) -> f64 {
        let (steps, rate) = match self.dtype {
            DType::Bf16 => (self.depth.div_ceil(2), machine.multiply[1]),
            DType::I8 => (self.depth.div_ceil(4), machine.multiply[2]),
            _ => (self.depth, machine.multiply[0]),
        };
        2.0 * steps as f64 * rate
    }

    fn row_bytes(&self) -> f64 {
        (self.depth * self.dtype.bytes()) as f64
    }
}

impl Products {
    fn cost(
        &self,
        (panels, together, block): (usize, usize, usize),
        binding: &Binding,
        machine: &Machine,
    ) -> Cost {
        let rows = product(&self.rows, binding).max(1.0);
        // Of a stack of weights, as many are used as there are rows, and rows are spread evenly.
        let weights = self.stack.map_or(1.0, |stack| rows.min(stack as f64));
        let each = rows / weights;
        let units = self.columns.div_ceil(panels * PANEL);
        let calls_of = (each / block as f64).ceil() * weights;
        let (mut arithmetic, mut overhead) = (0.0, 0.0);
        let width = (panels * together) as f64;
        for product in &self.products {
            let panel = product.panel as f64;
            let multiply = each * product.multiply(machine);
            // A call's panels come from the second cache for each block of rows if they have room there, and from behind it
            // if they do not.
            let again = (each / block as f64).ceil() - 1.0;
            let far = if width * panel > 0.7 * machine.second_cache { again } else { 0.0 };
            arithmetic += weights * panels as f64 * multiply.max(far * panel / machine.third);
            let copies = rows * product.row_bytes() / machine.copy;
            let scalar =
                if product.copied { rows * product.depth as f64 * machine.operation / 2.0 } else { 0.0 };
            overhead += (copies + scalar + calls_of * machine.call) / together as f64;
            if product.unpacked {
                arithmetic += panels as f64 * product.depth as f64 * machine.multiply[0] * 4.0;
            }
        }
        arithmetic += rows * (panels * PANEL * self.stores) as f64 * machine.operation / 4.0;
        overhead += rows * machine.row / together as f64;
        let all = self.columns.div_ceil(PANEL) as f64;
        let bytes = weights * all * self.products.iter().map(|product| product.panel as f64).sum::<f64>();
        let depth: usize = self.products.iter().map(|product| product.depth).sum();
        let operations = 2.0 * rows * (self.columns * depth) as f64;
        // Units are taken together, so a thread's last call may have fewer; the thread with most has whole ones.
        Cost { bytes, operations, ..Cost::of_units(units as f64, (arithmetic, overhead), machine) }
    }
}

impl Attention {
    fn of(tile: &TileProgram, plan: &Attend) -> Self {
        let bytes = |load: &sinter_ir::Load| tile.params[load.param].ty.dtype.bytes();
        Self {
            grid: tile.grid.iter().map(|axis| tile.axes[*axis].extent).collect(),
            context: tile.axes[plan.context].extent,
            depth: plan.pieces.depth,
            lanes: plan.pieces.lanes,
            bytes: plan.pieces.depth * bytes(&plan.key) + plan.pieces.lanes * bytes(&plan.value),
            group: plan.rows(),
            score: tile.cone(plan.score).len(),
        }
    }

    fn cost(&self, rows: usize, binding: &Binding, machine: &Machine) -> Cost {
        let all = product(&self.grid, binding);
        let context = self.context.eval(binding) as f64;
        let vectors = (self.depth + self.lanes) as f64 / 16.0;
        // Keys and values are widened once for four rows, and their addresses are made once for all.
        let position = rows as f64
            * (vectors * machine.multiply[0] + self.score as f64 * machine.operation / 4.0)
            + (rows as f64 / 4.0).ceil() * vectors * 2.0 * machine.multiply[0]
            + 12.0 * machine.operation;
        let ends = rows as f64 * (machine.row * 4.0 + (self.depth + self.lanes) as f64 * machine.operation)
            + (context / 64.0).ceil() * machine.call;
        let units = all / rows as f64;
        let bytes = all / self.group as f64 * context * self.bytes as f64;
        let tokens = self.grid.first().map_or(1.0, |dim| dim.eval(binding) as f64);
        let operations = all * context * 2.0 * (self.depth + self.lanes) as f64;
        // Tokens of one sequence share what they see.
        let bytes = bytes / tokens;
        Cost { bytes, operations, ..Cost::of_units(units, (context * position, ends), machine) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: OneProduct =
        OneProduct { depth: 2048, dtype: DType::Bf16, panel: 2048 * 64, copied: false, unpacked: false };

    fn products(columns: usize, one: OneProduct) -> Shape {
        let rows = vec![sinter_ir::Sym::T.into()];
        Shape::Products(Products { rows, columns, stack: None, products: vec![one], stores: 2 })
    }

    fn contract(panels: usize, together: usize) -> Choice {
        Choice { way: Way::Contract { panels, together, block: 48 }, alone: false }
    }

    fn nanos(shape: &Shape, choice: Choice, size: &Size, threads: usize) -> f64 {
        shape.cost(choice, size, &Machine::typical(Isa::Avx512Bf16, threads)).nanos()
    }

    #[test]
    fn units_are_as_even_as_the_pool_makes_them() {
        assert_eq!([1, 2, 3, 9].map(|units| busiest(units, 2)), [1, 1, 2, 5]);
        assert_eq!((busiest(0, 2), busiest(7, 1), busiest(1000, 2)), (0, 7, 512));
    }

    #[test]
    fn few_units_want_small_ones_and_many_rows_want_wide_calls() {
        // Three units of two panels leave one of two threads idle; five of one panel hardly do.
        let narrow = products(160, WIDE);
        assert!(
            nanos(&narrow, contract(1, 1), &Size::MANY, 2) < nanos(&narrow, contract(2, 1), &Size::MANY, 2)
        );
        // Rows that are copied for four panels serve twice as many as those copied for two.
        let wide = products(8192, WIDE);
        assert!(nanos(&wide, contract(2, 2), &Size::MANY, 2) < nanos(&wide, contract(2, 1), &Size::MANY, 2));
    }

    #[test]
    fn a_token_waits_for_memory_and_a_prompt_for_arithmetic() {
        let shape = products(8192, WIDE);
        let machine = Machine::typical(Isa::Avx512Bf16, 2);
        let cost = |size| shape.cost(contract(2, 1), &size, &machine);
        assert_eq!((cost(Size::FEW).bound(), cost(Size::MANY).bound()), (Bound::Memory, Bound::Arithmetic));
        assert_eq!(cost(Size::FEW).bytes, 8192.0 * 2048.0 * 2.0);
        assert_eq!(cost(Size::MANY).operations, 2.0 * 512.0 * 8192.0 * 2048.0);
    }

    #[test]
    fn little_work_is_done_by_one_thread() {
        let alone = |choice: Choice| Choice { alone: true, ..choice };
        let small = products(64, OneProduct { depth: 64, panel: 64 * 64, ..WIDE });
        assert!(
            nanos(&small, alone(contract(1, 1)), &Size::FEW, 2)
                < nanos(&small, contract(1, 1), &Size::FEW, 2)
        );
        let large = products(8192, WIDE);
        assert!(
            nanos(&large, alone(contract(2, 1)), &Size::FEW, 2)
                > nanos(&large, contract(2, 1), &Size::FEW, 2)
        );
    }

    #[test]
    fn of_costs_that_are_nearly_the_same_the_first_counts() {
        let cost = |overhead: f64| Cost { overhead, ..Cost::none() };
        assert_eq!(least(&[cost(1.0), cost(0.99), cost(0.9), cost(0.899), cost(2.0)]), 2);
        assert_eq!((least(&[cost(1.0), cost(1.0)]), least(&[])), (0, 0));
    }

    #[test]
    fn a_way_of_another_structure_is_never_the_least() {
        let cost = products(64, WIDE).cost(
            Choice { way: Way::Attend { rows: 1 }, alone: false },
            &Size::FEW,
            &Machine::typical(Isa::Scalar, 1),
        );
        assert_eq!(cost.nanos(), f64::INFINITY);
    }
}
