//! The skeleton of products with packed weights.

use super::{Emitter, Row, Units, loops::Range};
use crate::access::LANES;
use crate::calls::Callee;
use crate::micro::PANEL;
use crate::schedule::{COLUMNS, Contract, Product, Rows};
use cranelift_codegen::ir::{self, InstBuilder};
use sinter_ir::{DType, Index, Load, Stage};

/// Where a block stands.
#[derive(Clone, Copy)]
struct Block {
    /// The first row, and how many.
    row: ir::Value,
    rows: ir::Value,
    /// The first column, the end of the columns, and the panels between them.
    column: ir::Value,
    end: ir::Value,
    panels: ir::Value,
}

impl<'a> Emitter<'a> {
    pub(super) fn contract(&mut self, plan: &Contract, units: Units) {
        let columns = self.extent(plan.columns);
        let rows = self.extent(plan.rows);
        let zero = self.int(0);
        self.repeat((units.begin, units.end), 1, &[], &mut |emitter, unit, _| {
            let column = emitter.times(unit, COLUMNS as i64);
            let end = emitter.plus(column, COLUMNS as i64);
            let end = emitter.b.ins().smin(end, columns);
            let width = emitter.b.ins().isub(end, column);
            let panels = emitter.plus(width, PANEL as i64 - 1);
            let panels = emitter.b.ins().ushr_imm_u(panels, i64::from(PANEL.trailing_zeros()));
            emitter.repeat((zero, rows), plan.block as i64, &[], &mut |emitter, row, _| {
                let left = emitter.b.ins().isub(rows, row);
                let most = emitter.int(plan.block as i64);
                let rows = emitter.b.ins().smin(left, most);
                let block = Block { row, rows, column, end, panels };
                plan.products.iter().for_each(|product| emitter.product(plan, product, block));
                emitter.epilogue(plan, block);
                Vec::new()
            });
            Vec::new()
        });
    }

    /// Multiplies a block of rows by the unit's panels.
    fn product(&mut self, plan: &Contract, product: &Product, block: Block) {
        let size = product.dtype.bytes();
        let (a, apart) = match product.rows {
            Rows::Apart(apart) => {
                let start = self.load_start(plan, product, block.row);
                (start, apart)
            }
            Rows::Copied(offset) => {
                let to = self.scratch(offset);
                self.copy_rows(plan, product, block, to);
                (to, product.depth)
            }
        };
        let depth = product.depth.next_multiple_of(if product.dtype == DType::Bf16 { 2 } else { 1 });
        let panel_bytes = (depth * PANEL * size) as i64;
        let base = self.bases[product.weight.param.0 as usize];
        let first = self.b.ins().ushr_imm_u(block.column, i64::from(PANEL.trailing_zeros()));
        let first = self.plus(first, product.panel as i64);
        let offset = self.times(first, panel_bytes);
        let weight = self.b.ins().iadd(base, offset);
        let callee = if product.dtype == DType::Bf16 { Callee::GemmBf16 } else { Callee::GemmF32 };
        let (apart, depth) = (self.int(apart as i64), self.int(product.depth as i64));
        let (result, columns) = (self.scratch(product.result), self.int(COLUMNS as i64));
        self.call_for(callee, &[a, apart, block.rows, weight, block.panels, depth, result, columns]);
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
        let Load { param, index } = &product.a;
        let row_bytes = (product.depth * product.dtype.bytes()) as i64;
        self.repeat((zero, block.rows), 1, &[], &mut |emitter, r, _| {
            let row = emitter.b.ins().iadd(block.row, r);
            let offset = emitter.times(r, row_bytes);
            let to = emitter.b.ins().iadd(to, offset);
            emitter.at(plan.rows, row, |emitter| {
                let inner = crate::facts::AxisSet::of(&[product.axis]);
                index.iter().for_each(|index: &Index| emitter.hoist_index(index, inner, false));
                let range = emitter.whole_axis(product.axis);
                let load = Load { param: *param, index: index.clone() };
                emitter.copy(product.axis, range, &load, (product.dtype, to));
            });
            Vec::new()
        });
    }

    /// Copies the run of a load along an axis to memory, in vectors where its elements lie side by side.
    pub(super) fn copy(
        &mut self,
        axis: sinter_ir::AxisId,
        range: Range,
        load: &Load,
        to: (DType, ir::Value),
    ) {
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
        let tile = self.tile;
        let zero = self.int(0);
        let whole = tile.axes[plan.columns].extent.as_const().is_some_and(|n| n % LANES as u64 == 0);
        self.repeat((zero, block.rows), 1, &[], &mut |emitter, r, _| {
            let row = emitter.b.ins().iadd(block.row, r);
            let offset = emitter.times(r, 4 * COLUMNS as i64);
            for product in &plan.products {
                let result = emitter.scratch(product.result);
                let address = emitter.b.ins().iadd(result, offset);
                let results = Row { address, axis: plan.columns, origin: block.column };
                emitter.rows.insert(product.stage.0, results);
            }
            // Not known beforehand, but a multiple of four where the number of columns is.
            let length = whole.then_some(COLUMNS as u64);
            let range = Range { from: block.column, to: block.end, length };
            emitter.at(plan.rows, row, |emitter| {
                for stage in tile.stages.iter().filter(|stage| matches!(stage, Stage::Store { .. })) {
                    emitter.store(stage, &[(plan.columns, range)]);
                }
            });
            emitter.rows.clear();
            Vec::new()
        });
    }
}
