//! The skeleton of products with packed weights.

use super::{Emitter, Row, Units, loops::Range};
use crate::access::LANES;
use crate::calls::Callee;
use crate::facts::AxisSet;
use crate::micro::{PANEL, quant};
use crate::schedule::{Contract, FEW_ROWS, Product, Rows, Strip, WIDTH, Weights};
use cranelift_codegen::ir::{self, InstBuilder, condcodes::IntCC, types};
use sinter_ir::{AxisId, Codes, DType, Index, Load, ScalarOp, Stage};

/// Where a block stands.
#[derive(Clone, Copy)]
struct Block {
    /// The first row, and how many.
    row: ir::Value,
    rows: ir::Value,
    columns: Columns,
}

/// The columns of a unit: the first, their end, and the panels between them.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) first: ir::Value,
    end: ir::Value,
    panels: ir::Value,
}

/// Rows that a product multiplies: where they lie, how many elements apart, and how many.
#[derive(Clone, Copy)]
pub(super) struct Multiplied {
    pub(super) start: ir::Value,
    pub(super) apart: usize,
    pub(super) count: ir::Value,
}

impl<'a> Emitter<'a> {
    pub(super) fn contract(&mut self, plan: &Contract, units: Units) {
        let rows = self.extent(plan.rows);
        let zero = self.int(0);
        // The sums of one block are those of all units; those of several are made block by block.
        let block = self.int(plan.blocking.block as i64);
        let (first, blocks) =
            (self.b.ins().smin(rows, block), self.b.ins().icmp(IntCC::SignedGreaterThan, rows, block));
        let blocks = self.b.ins().uextend(types::I64, blocks);
        plan.products.iter().for_each(|product| self.sums(plan, product, (zero, first)));
        let step = self.together(plan, rows);
        self.repeat_by((units.begin, units.end), step, &[], &mut |emitter, unit, _| {
            let next = emitter.b.ins().iadd(unit, step);
            let next = emitter.b.ins().smin(next, units.end);
            let columns = emitter.columns(plan.columns, plan.blocking.columns(), (unit, next));
            plan.products.iter().for_each(|product| emitter.unpack(product, columns));
            emitter.repeat((zero, rows), plan.blocking.block as i64, &[], &mut |emitter, row, _| {
                let left = emitter.b.ins().isub(rows, row);
                let most = emitter.int(plan.blocking.block as i64);
                let rows = emitter.b.ins().smin(left, most);
                let block = Block { row, rows, columns };
                emitter.repeat((zero, blocks), 1, &[], &mut |emitter, _, _| {
                    plan.products.iter().for_each(|product| emitter.sums(plan, product, (row, rows)));
                    Vec::new()
                });
                plan.products.iter().for_each(|product| emitter.product(plan, product, block));
                emitter.epilogue(plan, block);
                Vec::new()
            });
            Vec::new()
        });
    }

    /// The units that are run together.
    fn together(&mut self, plan: &Contract, rows: ir::Value) -> ir::Value {
        let [few, many] = plan.blocking.together;
        if few == many {
            return self.int(many as i64);
        }
        let (few, many, most) = (self.int(few as i64), self.int(many as i64), self.int(FEW_ROWS as i64));
        let more = self.b.ins().icmp(IntCC::SignedGreaterThan, rows, most);
        self.b.ins().select(more, many, few)
    }

    /// The columns of some units, each so many.
    pub(super) fn columns(
        &mut self,
        axis: AxisId,
        each: usize,
        (unit, next): (ir::Value, ir::Value),
    ) -> Columns {
        let all = self.extent(axis);
        let first = self.times(unit, each as i64);
        let end = self.times(next, each as i64);
        let end = self.b.ins().smin(end, all);
        let width = self.b.ins().isub(end, first);
        let panels = self.plus(width, PANEL as i64 - 1);
        let panels = self.b.ins().ushr_imm_u(panels, i64::from(PANEL.trailing_zeros()));
        Columns { first, end, panels }
    }

    /// Multiplies a block of rows by the unit's panels.
    fn product(&mut self, plan: &Contract, product: &Product, block: Block) {
        let (start, apart) = match product.rows {
            Rows::Apart(apart) => {
                let start = self.load_start(plan, product, block.row);
                (start, apart)
            }
            Rows::Copied(offset) => {
                let to = self.scratch(offset);
                self.copy_rows(plan, product, block, to);
                if let Weights::Codes(codes, sums) = product.weights {
                    let rows = Multiplied { start: to, apart: product.depth, count: block.rows };
                    self.sum_codes(product, rows, (&codes, sums));
                }
                (to, product.depth)
            }
        };
        let weight = self.bases[product.weight.param.0 as usize];
        self.multiply(product, Multiplied { start, apart, count: block.rows }, weight, block.columns);
    }

    /// Multiplies rows by the unit's panels of the matrix at `weight`.
    pub(super) fn multiply(
        &mut self,
        product: &Product,
        rows: Multiplied,
        weight: ir::Value,
        columns: Columns,
    ) {
        let panels = self.first_panel(product, weight, columns);
        let (apart, depth) = (self.int(rows.apart as i64), self.int(product.depth as i64));
        let result = self.scratch(product.result);
        let numbers = match product.weights {
            Weights::Numbers => panels,
            Weights::Unpacked(_, offset) => self.scratch(offset),
            Weights::Codes(codes, offset) => {
                let (form, sums) = (self.int(quant::word(&codes) as i64), self.scratch(offset));
                let args = [rows.start, apart, rows.count, panels, columns.panels, depth, form, result, sums];
                self.call_for(Callee::GemmCodes, &args);
                return;
            }
        };
        let callee = if product.dtype == DType::Bf16 { Callee::GemmBf16 } else { Callee::GemmF32 };
        let width = self.int(WIDTH as i64);
        let args = [rows.start, apart, rows.count, numbers, columns.panels, depth, result, width];
        self.call_for(callee, &args);
    }

    /// The address of the unit's first panel of the matrix at `weight`.
    fn first_panel(&mut self, product: &Product, weight: ir::Value, columns: Columns) -> ir::Value {
        let depth = product.depth.next_multiple_of(if product.dtype == DType::Bf16 { 2 } else { 1 });
        let panel_bytes = match product.weights {
            Weights::Numbers => depth * PANEL * product.dtype.bytes(),
            Weights::Unpacked(codes, _) | Weights::Codes(codes, _) => codes.panel_bytes(product.depth),
        };
        let first = self.b.ins().ushr_imm_u(columns.first, i64::from(PANEL.trailing_zeros()));
        let first = self.plus(first, product.panel as i64);
        let offset = self.times(first, panel_bytes as i64);
        self.b.ins().iadd(weight, offset)
    }

    /// Sums the codes of rows that are multiplied where they lie.
    fn sums(&mut self, plan: &Contract, product: &Product, (row, count): (ir::Value, ir::Value)) {
        if let (Weights::Codes(codes, sums), Rows::Apart(apart)) = (product.weights, product.rows) {
            let start = self.load_start(plan, product, row);
            self.sum_codes(product, Multiplied { start, apart, count }, (&codes, sums));
        }
    }

    fn sum_codes(&mut self, product: &Product, rows: Multiplied, (codes, sums): (&Codes, usize)) {
        let (apart, depth) = (self.int(rows.apart as i64), self.int(product.depth as i64));
        let (form, sums) = (self.int(quant::word(codes) as i64), self.scratch(sums));
        self.call_for(Callee::SumCodes, &[rows.start, apart, rows.count, depth, form, sums]);
    }

    /// Writes the unit's panels of codes as numbers, once for all rows, where rows are numbers.
    fn unpack(&mut self, product: &Product, columns: Columns) {
        let Weights::Unpacked(codes, offset) = product.weights else { return };
        let weight = self.bases[product.weight.param.0 as usize];
        let panels = self.first_panel(product, weight, columns);
        let callee = if product.dtype == DType::Bf16 { Callee::UnpackBf16 } else { Callee::UnpackF32 };
        let (depth, form) = (self.int(product.depth as i64), self.int(quant::word(&codes) as i64));
        let to = self.scratch(offset);
        self.call_for(callee, &[panels, columns.panels, depth, form, to]);
    }

    /// The address of the first element of a row.
    fn load_start(&mut self, plan: &Contract, product: &Product, row: ir::Value) -> ir::Value {
        let zero = self.int(0);
        self.at(plan.rows, row, |emitter| {
            emitter.at(product.axis, zero, |emitter| emitter.address(product.a.param, &product.a.index, None))
        })
    }

    fn copy_rows(&mut self, plan: &Contract, product: &Product, block: Block, to: ir::Value) {
        let zero = self.int(0);
        self.repeat((zero, block.rows), 1, &[], &mut |emitter, r, _| {
            let row = emitter.b.ins().iadd(block.row, r);
            emitter.at(plan.rows, row, |emitter| emitter.copy_row(product, r, to));
            Vec::new()
        });
    }

    /// Copies the row of a product's activations at this point to place `r` of those at an address.
    pub(super) fn copy_row(&mut self, product: &Product, r: ir::Value, to: ir::Value) {
        let offset = self.times(r, (product.depth * product.dtype.bytes()) as i64);
        let to = self.b.ins().iadd(to, offset);
        let inner = AxisSet::of(&[product.axis]);
        product.a.index.iter().for_each(|index: &Index| self.hoist_index(index, inner, false));
        let range = self.whole_axis(product.axis);
        self.copy(product.axis, range, &product.a, (product.dtype, to));
    }

    /// Copies the run of a load along an axis to memory, in vectors where its elements lie side by side.
    pub(super) fn copy(&mut self, axis: AxisId, range: Range, load: &Load, to: (DType, ir::Value)) {
        let mut step = |emitter: &mut Self| {
            let val = emitter.load(load, false);
            let val = if emitter.lane.is_some() { emitter.widen(val) } else { val };
            let at = emitter.iteration(axis);
            let offset = emitter.times(at, to.0.bytes() as i64);
            let address = emitter.b.ins().iadd(to.1, offset);
            emitter.write(to.0, address, val);
        };
        match crate::access::load_access(self.tile, load, axis, false) {
            crate::access::Lanes::Step(1) => self.each_wide(axis, range, &mut step),
            _ => self.each(axis, range, &mut step),
        }
    }

    /// The stores of a block.
    fn epilogue(&mut self, plan: &Contract, block: Block) {
        let zero = self.int(0);
        self.repeat((zero, block.rows), 1, &[], &mut |emitter, r, _| {
            let row = emitter.b.ins().iadd(block.row, r);
            let place = (r, plan.columns, block.columns);
            emitter.at(plan.rows, row, |emitter| {
                emitter.store_row((&plan.products, &plan.strips), place);
            });
            Vec::new()
        });
    }

    /// The stores of this point's row of results, which stands at a place of the block, over columns of an axis.
    pub(super) fn store_row(
        &mut self,
        (products, strips): (&[Product], &[Strip]),
        (r, axis, columns): (ir::Value, AxisId, Columns),
    ) {
        let tile = self.tile;
        let offset = self.times(r, 4 * WIDTH as i64);
        for product in products {
            let result = self.scratch(product.result);
            let address = self.b.ins().iadd(result, offset);
            self.rows.insert(product.stage.0, Row { address, axis, origin: columns.first });
        }
        // Not known beforehand, but a multiple of four where the number of columns is.
        let whole = tile.axes[axis].extent.as_const().is_some_and(|n| n % LANES as u64 == 0);
        let length = whole.then_some(WIDTH as u64);
        let range = Range { from: columns.first, to: columns.end, length };
        strips.iter().for_each(|strip| self.strip(strip, (axis, range)));
        for stage in tile.stages.iter().filter(|stage| matches!(stage, Stage::Store { .. })) {
            self.store(stage, &[(axis, range)]);
        }
        self.rows.clear();
        self.strips.clear();
    }

    /// Computes an elementary function for a range of columns.
    fn strip(&mut self, strip: &Strip, (axis, range): (AxisId, Range)) {
        let address = self.scratch(strip.offset);
        let row = Row { address, axis, origin: range.from };
        self.hoist(strip.arg, AxisSet::of(&[axis]), true);
        let mut step = |emitter: &mut Self| {
            let val = emitter.eval(strip.arg);
            let val = emitter.number(val);
            let val = if emitter.lane.is_some() { emitter.widen(val) } else { val };
            let at = emitter.iteration(axis);
            let at = emitter.b.ins().isub(at, range.from);
            let offset = emitter.times(at, 4);
            let to = emitter.b.ins().iadd(address, offset);
            emitter.write(DType::F32, to, val);
        };
        match self.can_widen(strip.arg, axis) {
            true => self.each_wide(axis, range, &mut step),
            false => self.each(axis, range, &mut step),
        }
        let count = self.b.ins().isub(range.to, range.from);
        let callee = match strip.op {
            ScalarOp::Exp => Callee::Exp,
            ScalarOp::Log => Callee::Log,
            ScalarOp::Tanh => Callee::Tanh,
            _ => Callee::Erf,
        };
        self.call_for(callee, &[address, address, count]);
        self.strips.insert(strip.expr, row);
    }
}
