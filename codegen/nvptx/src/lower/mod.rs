//! A tile program's expressions as code, shared by all skeletons.
//!
//! A [`Scope`] says what is known at a place in a kernel: the iteration of each axis and the results of the stages that
//! were computed. In it, an index becomes an integer, a load an address, and an expression a value; a stage whose result
//! is not known is computed in place, in order and by each thread alone. Scopes are cheap to copy: a loop body gets one
//! with its axis set.
//!
//! ```text
//! let scope = Scope::new(k, tile, &constant, 0);
//! let row = scope.with_axis(t, k.block());
//! let sum = row.with_axis(n, column).with_result(dot, accumulator);
//! sum.store(param, index, sum.value(epilogue));
//! ```

pub mod codes;
mod index;
mod memory;
mod stage;
mod value;
mod weights;

pub use stage::{combine, neutral};
pub use value::Val;
pub use weights::{Numbers, fragment};

use crate::emit::{Float, Global, Int, K};
use sinter_ir::{AxisId, Dim, ExprId, Id, Index, StageId, Sym, TileProgram};

/// What is known at a place in a kernel.
#[derive(Clone)]
pub struct Scope<'a, 'k> {
    /// The kernel.
    pub k: K<'k>,
    /// The program.
    pub tile: &'a TileProgram,
    /// Which parameters nothing writes while the model runs: weights.
    constant: &'a [bool],
    bases: Vec<Global<'k>>,
    axes: Vec<Option<Int<'k>>>,
    /// One value, or one for each lane.
    results: Vec<Option<Vec<Float<'k>>>>,
    /// Expressions whose values are known.
    values: Vec<(ExprId, Val<'k>)>,
    /// Indices whose values are known.
    indices: Vec<(Index, Int<'k>)>,
    /// Whether indices may lie outside, because the value will not be used: they are moved inside.
    careful: bool,
}

impl<'a, 'k> Scope<'a, 'k> {
    /// A scope in which nothing is known. The program's parameters are the launch's arguments from `first` on, and
    /// `constant` says of each whether it is a weight.
    pub fn new(k: K<'k>, tile: &'a TileProgram, constant: &'a [bool], first: usize) -> Self {
        let bases = (0..tile.params.len()).map(|at| k.address(first + at)).collect();
        let axes = vec![None; tile.axes.len()];
        let results = vec![None; tile.stages.len()];
        Self {
            k,
            tile,
            constant,
            bases,
            axes,
            results,
            values: Vec::new(),
            indices: Vec::new(),
            careful: false,
        }
    }

    /// The same with the iteration of an axis.
    pub fn with_axis(&self, axis: AxisId, at: Int<'k>) -> Self {
        let mut scope = self.clone();
        scope.axes[axis.index()] = Some(at);
        scope
    }

    /// The same with the result of a stage.
    pub fn with_result(&self, stage: StageId, result: Float<'k>) -> Self {
        self.with_results(stage, vec![result])
    }

    /// The same with the results of a stage at the lanes for which [`Scope::values`] will be asked.
    pub fn with_results(&self, stage: StageId, results: Vec<Float<'k>>) -> Self {
        let mut scope = self.clone();
        scope.results[stage.index()] = Some(results);
        scope
    }

    /// The same with the value of an expression, which must not depend on an axis that is set later.
    pub fn with_value(&self, id: ExprId, value: Val<'k>) -> Self {
        let mut scope = self.clone();
        scope.values.push((id, value));
        scope
    }

    /// The same with the value of an index.
    pub fn with_index(&self, index: &Index, value: Int<'k>) -> Self {
        let mut scope = self.clone();
        scope.indices.push((index.clone(), value));
        scope
    }

    /// The same where values may be computed that will not be used.
    pub fn careful(&self) -> Self {
        Self { careful: true, ..self.clone() }
    }

    /// The iteration of an axis, which the skeleton must have set.
    pub fn at(&self, axis: AxisId) -> Int<'k> {
        let unknown = || {
            self.k.fail(format!("the axis {axis} of {} is used outside its loop", self.tile.name));
            self.k.int(0)
        };
        self.axes[axis.index()].unwrap_or_else(unknown)
    }

    /// The value of an extent.
    pub fn dim(&self, dim: Dim) -> Int<'k> {
        match dim.sym {
            None => self.k.int(dim.coeff as i32),
            Some(sym) => self.symbol(sym, dim.coeff),
        }
    }

    fn symbol(&self, sym: Sym, coeff: u64) -> Int<'k> {
        let value = self.k.symbol(sym);
        if coeff == 1 { value } else { value * coeff as i32 }
    }

    /// The number of iterations of an axis.
    pub fn extent(&self, axis: AxisId) -> Int<'k> {
        self.dim(self.tile.axes[axis].extent)
    }
}
