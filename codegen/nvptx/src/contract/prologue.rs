//! A norm that the product computes for itself, with the bits of the norm's own kernel.

use super::Job;
use crate::emit::{Cache, F32, Float, Int, Shared};
use crate::lower::{Scope, combine};
use crate::rows::fold_of_warp;
use sinter_codegen_schedule::contract::Unit;
use sinter_codegen_schedule::fold::Prologue;
use sinter_codegen_schedule::rows::Rows;
use sinter_ir::{Id, Monoid, Stage, StageId};

/// The norm in a block: what its warps folded lies in shared memory.
pub(super) struct Normed<'j, 'a, 'k> {
    job: &'j Job<'a, 'k>,
    scope: Scope<'a, 'k>,
    rows: &'a Rows,
    prologue: Prologue,
    /// For each fold, for each row of the tile, one number for each warp of the norm's own kernel.
    table: Shared<'k>,
}

impl<'j, 'a, 'k> Normed<'j, 'a, 'k> {
    /// The norm of a job, if it has one.
    pub(super) fn new(job: &'j Job<'a, 'k>) -> Option<Self> {
        let (piece, rows) = job.prologue?;
        let prologue = Prologue::of(piece.tile)?;
        let scope = Scope::new(job.k, piece.tile, &piece.constant, 0);
        let bytes = prologue.folds.len() as u32 * job.schedule.tile_rows * warps(rows) * 4;
        Some(Self { job, scope, rows, prologue, table: job.k.shared(bytes.max(4), 16) })
    }

    /// The row of the tile, or the last one that exists.
    fn existing(&self, local: Int<'k>) -> Int<'k> {
        self.job.row(local) - self.job.first.0
    }

    fn part(&self, fold: usize, local: Int<'k>) -> Shared<'k> {
        let warps = warps(self.rows) as i32;
        self.table.at((local + (fold as u32 * self.job.schedule.tile_rows) as i32) * (warps * 4))
    }

    fn fold(&self, stage: StageId) -> Option<(sinter_ir::AxisId, Monoid, sinter_ir::ExprId)> {
        match &self.scope.tile.stages[stage.index()] {
            Stage::Reduce { axis, monoid, value } => Some((*axis, *monoid, *value)),
            _ => None,
        }
    }

    /// All folds of all rows, by all warps of the block.
    pub(super) fn compute(&self) {
        let (k, own) = (self.job.k, warps(self.rows) as i32);
        let threads = self.job.schedule.threads() as i32;
        let rows = (self.job.extent.0 - self.job.first.0).least(self.job.schedule.tile_rows as i32);
        for (number, stage) in self.prologue.folds.iter().enumerate() {
            let (Some(fold), width) = (self.fold(*stage), self.rows.widths[stage.index()]) else { continue };
            k.range((k.uniform(k.warp()), rows * own, threads / 32), (), |task, ()| {
                let (local, warp) = (task.divided(own), task.modulo(own));
                let scope = self.with_results(local, number);
                let folded = fold_of_warp(&scope, (self.rows.group, width), warp, fold);
                k.when(k.lane().equals(0), || k.store(self.part(number, local).at(warp * 4), folded));
            });
            k.barrier();
        }
    }

    /// The scope at an existing row of the tile with the results of the first folds.
    fn with_results(&self, local: Int<'k>, folds: usize) -> Scope<'a, 'k> {
        let mut scope = self.scope.with_axis(self.prologue.row, self.job.first.0 + local);
        for (number, stage) in self.prologue.folds.iter().enumerate().take(folds) {
            let Some((_, monoid, _)) = self.fold(*stage) else { continue };
            let part = |warp: u32| -> Float<'k> {
                self.job.k.load::<F32>(self.part(number, local).at((warp * 4) as i32), Cache::Any)
            };
            let result = (1..warps(self.rows)).fold(part(0), |all, warp| combine(monoid, all, part(warp)));
            scope = scope.with_result(*stage, result);
        }
        scope
    }

    /// The scope at a row of the tile with all results.
    pub(super) fn at(&self, local: Int<'k>) -> Scope<'a, 'k> {
        self.with_results(self.existing(local), self.prologue.folds.len())
    }

    /// Two neighbouring elements of a row as the product takes them, the first at an even place.
    pub(super) fn pair(&self, row: &Scope<'a, 'k>, at: Int<'k>, unit: Unit) -> Int<'k> {
        let (k, lane) = (self.job.k, self.prologue.lane);
        let values = row.with_axis(lane, at).values(self.prologue.value, lane, 2);
        let (low, high) = (values[0].number(k), values[1].number(k));
        match unit {
            Unit::F16 => low.to_f16().int() | (high.to_f16().int() << 16),
            Unit::Bf16 | Unit::Fma => low.to_bf16_pair(high),
        }
    }
}

/// The warps of a group of the norm's own kernel.
fn warps(rows: &Rows) -> u32 {
    rows.group.div_ceil(32)
}
