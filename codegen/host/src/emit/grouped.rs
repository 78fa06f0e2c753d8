//! The skeleton of grouped products: rows are sorted by their weights, and go through the micro-kernel block by block.

use super::contract::{Columns, Multiplied};
use super::{Emitter, Units, plain};
use crate::calls::Callee;
use crate::micro::PANEL;
use crate::schedule::{Grouped, Rows, SORTED};
use cranelift_codegen::ir::{self, InstBuilder};
use sinter_ir::AxisId;

/// Rows of one weight.
#[derive(Clone, Copy)]
struct Block {
    weight: ir::Value,
    /// What the places in the sorted order count from.
    first: ir::Value,
    /// The first place, and how many.
    place: ir::Value,
    rows: ir::Value,
    columns: Columns,
}

impl<'a> Emitter<'a> {
    pub(super) fn grouped(&mut self, plan: &Grouped, units: Units) {
        let mut rows = self.int(1);
        for extent in &plan.extents {
            let extent = self.dim(*extent);
            rows = self.b.ins().imul(rows, extent);
        }
        let zero = self.int(0);
        let weights = self.int(plan.weights as i64);
        self.repeat((units.begin, units.end), 1, &[], &mut |emitter, unit, _| {
            let next = emitter.plus(unit, 1);
            let columns = emitter.columns(plan.columns, plan.panels * PANEL, (unit, next));
            emitter.repeat((zero, rows), SORTED as i64, &[], &mut |emitter, first, _| {
                emitter.sort(plan, first, rows);
                emitter.repeat((zero, weights), 1, &[], &mut |emitter, weight, _| {
                    emitter.of_one_weight(plan, (weight, first), columns);
                    Vec::new()
                });
                Vec::new()
            });
            Vec::new()
        });
    }

    /// Sorts the rows from `first` on, as many as are sorted at a time, by their weights.
    fn sort(&mut self, plan: &Grouped, first: ir::Value, rows: ir::Value) {
        let left = self.b.ins().isub(rows, first);
        let most = self.int(SORTED as i64);
        let count = self.b.ins().smin(left, most);
        let zero = self.int(0);
        let list = self.scratch(plan.list);
        self.repeat((zero, count), 1, &[], &mut |emitter, i, _| {
            let row = emitter.b.ins().iadd(first, i);
            emitter.at_row(plan, row, &mut |emitter| {
                let which = emitter.index(&plan.which, false);
                let offset = emitter.times(i, 4);
                let address = emitter.b.ins().iadd(list, offset);
                emitter.b.ins().istore32(plain(), which, address, 0);
            });
            Vec::new()
        });
        let weights = self.int(plan.weights as i64);
        let (order, starts) = (self.scratch(plan.order), self.scratch(plan.starts));
        self.call_for(Callee::SortByGroup, &[list, count, weights, order, starts]);
    }

    /// What `body` emits at a row.
    fn at_row(&mut self, plan: &Grouped, row: ir::Value, body: &mut dyn FnMut(&mut Self)) {
        let parts = self.split(row, &plan.extents);
        let point: Vec<(AxisId, ir::Value)> = plan.rows.iter().copied().zip(parts).collect();
        self.at_point(&point, body);
    }

    /// Element `at` of a list of u32 in scratch memory.
    fn listed(&mut self, list: usize, at: ir::Value) -> ir::Value {
        let offset = self.times(at, 4);
        let list = self.scratch(list);
        let address = self.b.ins().iadd(list, offset);
        self.b.ins().uload32(plain(), address, 0)
    }

    fn of_one_weight(&mut self, plan: &Grouped, (weight, first): (ir::Value, ir::Value), columns: Columns) {
        let next = self.plus(weight, 1);
        let (begin, end) = (self.listed(plan.starts, weight), self.listed(plan.starts, next));
        self.repeat((begin, end), plan.block as i64, &[], &mut |emitter, place, _| {
            let left = emitter.b.ins().isub(end, place);
            let most = emitter.int(plan.block as i64);
            let rows = emitter.b.ins().smin(left, most);
            let block = Block { weight, first, place, rows, columns };
            emitter.products(plan, block);
            emitter.each_sorted(plan, block, &mut |emitter, r| {
                emitter.store_row((&plan.products, &plan.strips), (r, plan.columns, columns));
            });
            Vec::new()
        });
    }

    fn products(&mut self, plan: &Grouped, block: Block) {
        let mut copied = Vec::new();
        for (product, stride) in plan.products.iter().zip(&plan.strides) {
            let Rows::Copied(offset) = product.rows else { continue };
            let start = self.scratch(offset);
            if !copied.contains(&offset) {
                copied.push(offset);
                self.each_sorted(plan, block, &mut |emitter, r| emitter.copy_row(product, r, start));
            }
            let base = self.bases[product.weight.param.0 as usize];
            let matrix = self.times(block.weight, *stride as i64);
            let matrix = self.b.ins().iadd(base, matrix);
            let rows = Multiplied { start, apart: product.depth, count: block.rows };
            self.multiply(product, rows, matrix, block.columns);
        }
    }

    /// What `body` emits at each row of a block, given its place in the block.
    fn each_sorted(&mut self, plan: &Grouped, block: Block, body: &mut dyn FnMut(&mut Self, ir::Value)) {
        let zero = self.int(0);
        self.repeat((zero, block.rows), 1, &[], &mut |emitter, r, _| {
            let place = emitter.b.ins().iadd(block.place, r);
            let row = emitter.listed(plan.order, place);
            let row = emitter.b.ins().iadd(block.first, row);
            emitter.at_row(plan, row, &mut |emitter| body(emitter, r));
            Vec::new()
        });
    }
}
