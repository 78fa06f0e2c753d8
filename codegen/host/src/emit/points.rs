//! The skeleton of programs that run from grid point to grid point: rows, element-wise chains, norms, gathers and
//! scatters, and whatever has no other structure.

use super::{Emitter, Units, loops::Range};
use cranelift_codegen::ir;
use sinter_ir::{AxisId, Stage};

impl<'a> Emitter<'a> {
    pub(super) fn points(&mut self, units: Units) {
        let tile = self.tile;
        let extents: Vec<_> = tile.grid.iter().map(|axis| tile.axes[*axis].extent).collect();
        self.each_unit(units, &extents, &mut |emitter, parts| {
            let point: Vec<(AxisId, ir::Value)> =
                tile.grid.iter().copied().zip(parts.iter().copied()).collect();
            emitter.at_point(&point, &mut |emitter| emitter.stores());
        });
    }

    /// What `body` emits at a grid point.
    pub(super) fn at_point(&mut self, point: &[(AxisId, ir::Value)], body: &mut dyn FnMut(&mut Self)) {
        match point.split_first() {
            None => body(self),
            Some(((axis, value), rest)) => self.at(*axis, *value, |emitter| emitter.at_point(rest, body)),
        }
    }

    /// All stores, in order.
    pub(super) fn stores(&mut self) {
        let tile = self.tile;
        for stage in &tile.stages {
            if let Stage::Store { axes, .. } = stage {
                let ranges: Vec<(AxisId, Range)> =
                    axes.iter().map(|axis| (*axis, self.whole_axis(*axis))).collect();
                self.store(stage, &ranges);
            }
        }
    }
}
