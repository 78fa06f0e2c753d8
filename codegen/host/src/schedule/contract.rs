//! The structure of a product with packed weights: grid (t, n), products over k, stores at (t, n).

use super::choice::MOST_PANELS;
use super::{Pieces, Schedule, Skeleton};
use crate::access::{Lanes, access, flatten, lanes};
use crate::facts::{AxisSet, Facts};
use crate::micro::{PANEL, quant};
use sinter_ir::{
    Atom, AxisId, Codes, DType, Dim, Expr, ExprId, Index, Layout, Load, ScalarOp, Stage, StageId, TileParam,
    TileProgram,
};
use std::collections::BTreeSet;
use std::fmt;

/// Columns that there is room for in a row of results.
pub(crate) const WIDTH: usize = MOST_PANELS * PANEL;

/// What a unit of products is, and how much of it is done at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Blocking {
    /// Panels of a unit.
    pub(crate) panels: usize,
    /// Units that are run together in launches of few rows, and of many: the rows that the micro-kernel copies serve the
    /// columns of all.
    pub(crate) together: [usize; 2],
    /// Rows of a block: its results are at hand when the stores read them.
    pub(crate) block: usize,
}

impl Blocking {
    /// Columns of a unit.
    pub(crate) fn columns(&self) -> usize {
        self.panels * PANEL
    }
}

/// How a contraction is run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Contract {
    /// The axis of rows.
    pub(crate) rows: AxisId,
    /// The axis of columns.
    pub(crate) columns: AxisId,
    pub(crate) blocking: Blocking,
    pub(crate) products: Vec<Product>,
    pub(crate) strips: Vec<Strip>,
}

/// An elementary function of the stores' expressions that is computed for a whole row of columns at once, because the
/// micro-kernels take sixteen elements at a time and generated code only four.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Strip {
    pub(crate) expr: ExprId,
    pub(crate) op: ScalarOp,
    pub(crate) arg: ExprId,
    /// Scratch offset of the row, in f32.
    pub(crate) offset: usize,
}

/// One product.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Product {
    pub(crate) stage: StageId,
    /// The summed axis.
    pub(crate) axis: AxisId,
    pub(crate) depth: usize,
    /// The type of the rows that are multiplied.
    pub(crate) dtype: DType,
    pub(crate) a: Load,
    pub(crate) rows: Rows,
    pub(crate) weight: Load,
    pub(crate) weights: Weights,
    /// The first panel.
    pub(crate) panel: usize,
    /// Scratch offset of the result, `[block][128]` in f32.
    pub(crate) result: usize,
}

/// Where the rows of activations come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rows {
    /// They lie this many elements apart.
    Apart(usize),
    /// They lie anywhere, and are copied to this scratch offset.
    Copied(usize),
}

/// How the micro-kernels read a weight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weights {
    /// Its panels hold numbers.
    Numbers,
    /// Its panels hold codes, which are written as numbers to this scratch offset before rows are multiplied.
    Unpacked(Codes, usize),
    /// Its panels hold codes, and so do the rows; this scratch offset has room for the rows' sums.
    Codes(Codes, usize),
}

pub(super) fn plan(tile: &TileProgram, facts: &Facts, blocking: Blocking) -> Option<Schedule> {
    let [rows, columns] = tile.grid[..] else { return None };
    let n = tile.axes[columns].extent.as_const()? as usize;
    let (mut products, mut pieces) = (Vec::new(), Pieces::default());
    if rows == columns || n == 0 {
        return None;
    }
    for (number, stage) in tile.stages.iter().enumerate() {
        let id = StageId(number as u32);
        match stage {
            Stage::Mma { axis, a, b } if !facts.stages[id].mutable => {
                products.push(product(
                    tile,
                    (rows, columns),
                    (id, *axis),
                    (a, b),
                    (blocking.block, &mut pieces),
                )?);
            }
            Stage::Reduce { .. } if facts.stages[id].axes.within(AxisSet::of(&[rows])) => {}
            Stage::Store { axes, .. } if axes.is_empty() && !facts.overlaps(tile, stage) => {}
            _ => return None,
        }
    }
    if products.is_empty() {
        return None;
    }
    let strips = strips(tile, facts, columns, &mut pieces);
    let plan = Contract { rows, columns, blocking, products, strips };
    let units = vec![Dim::of(n.div_ceil(blocking.columns()))];
    Some(Schedule { skeleton: Skeleton::Contract(plan), units, scratch: pieces.bytes })
}

/// The elementary functions of what is stored that differ from column to column, arguments before functions of them.
pub(super) fn strips(tile: &TileProgram, facts: &Facts, columns: AxisId, pieces: &mut Pieces) -> Vec<Strip> {
    let stored = tile.stages.iter().filter_map(|stage| match stage {
        Stage::Store { value, .. } => Some(tile.cone(*value)),
        _ => None,
    });
    let ids: BTreeSet<ExprId> = stored.flatten().collect();
    let mut strip = |expr: ExprId| match &tile.exprs[expr] {
        Expr::Apply(op @ (ScalarOp::Exp | ScalarOp::Log | ScalarOp::Tanh | ScalarOp::Erf), args) => {
            let fact = facts.exprs[expr];
            let good = fact.axes.has(columns) && !fact.mutable;
            good.then(|| Strip { expr, op: *op, arg: args[0], offset: pieces.take(WIDTH * 4) })
        }
        _ => None,
    };
    ids.into_iter().filter_map(&mut strip).collect()
}

fn product(
    tile: &TileProgram,
    (rows, columns): (AxisId, AxisId),
    (stage, axis): (StageId, AxisId),
    (a, b): (&Load, &Load),
    (block, pieces): (usize, &mut Pieces),
) -> Option<Product> {
    // The weights are the operand in panels, whichever side they are on.
    let packed = |load: &Load| tile.params[load.param].layout != Layout::Rows;
    let (a, weight) = if packed(b) { (a, b) } else { (b, a) };
    let (activations, weights) = (&tile.params[a.param].ty, &tile.params[weight.param].ty);
    let depth = tile.axes[axis].extent.as_const()? as usize;
    let (dtype, weights_as) = kinds(tile, (a, weight), depth, pieces)?;
    let fits = packed(weight)
        && tile.params[a.param].layout == Layout::Rows
        && axis != rows
        && axis != columns
        && weight.index[1] == Index::axis(axis)
        && weights.shape[1] == Dim::of(depth)
        && !a.index.iter().any(|index| index.axes().contains(&columns));
    let first = weight.index[0].plus(&Index::axis(columns).times(-1)).as_constant()?;
    if !fits || depth == 0 || first < 0 || !(first as usize).is_multiple_of(PANEL) {
        return None;
    }
    let rows = match stride(tile, a, rows, axis) {
        Some(apart) if activations.dtype == dtype => Rows::Apart(apart),
        _ => Rows::Copied(pieces.take(block * depth * dtype.bytes())),
    };
    let result = pieces.take(block * WIDTH * 4);
    let (a, weight, panel) = (a.clone(), weight.clone(), first as usize / PANEL);
    Some(Product { stage, axis, depth, dtype, a, rows, weight, weights: weights_as, panel, result })
}

/// The type in which rows are multiplied, and how the weight is read; none where no micro-kernel takes both. Rows of whole
/// numbers are multiplied as they are by codes, and as numbers by numbers of f32.
fn kinds(
    tile: &TileProgram,
    (a, weight): (&Load, &Load),
    depth: usize,
    pieces: &mut Pieces,
) -> Option<(DType, Weights)> {
    let (found, wanted) = (tile.params[a.param].ty.dtype, tile.params[weight.param].ty.dtype);
    match tile.params[weight.param].layout {
        Layout::Codes(codes) if !codes.fits(depth) => None,
        Layout::Codes(codes) if found == DType::I8 => {
            Some((DType::I8, Weights::Codes(codes, pieces.take(quant::scratch_bytes(depth, &codes)))))
        }
        Layout::Codes(codes) if found == wanted => {
            Some((found, Weights::Unpacked(codes, pieces.take(WIDTH * depth * wanted.bytes()))))
        }
        Layout::Codes(_) | Layout::Halves => None,
        Layout::Panels | Layout::Rows if found == DType::I8 && wanted == DType::F32 => {
            Some((DType::F32, Weights::Numbers))
        }
        Layout::Panels | Layout::Rows => (found == wanted).then_some((found, Weights::Numbers)),
    }
}

/// The elements between rows, if the depth is contiguous and rows are equally far apart.
fn stride(tile: &TileProgram, a: &Load, rows: AxisId, depth: AxisId) -> Option<usize> {
    let flat = flatten(&tile.params[a.param], &a.index);
    let mut parts = flat.iter();
    let (syms, part) = parts.next()?;
    let plain = |(atom, _): &(Atom, i64)| matches!(atom, Atom::Axis(axis) if *axis == rows || *axis == depth);
    let good = syms.is_empty()
        && parts.next().is_none()
        && part.terms.iter().all(plain)
        && part.stride(depth) == 1
        && part.stride(rows) >= 0;
    good.then(|| part.stride(rows) as usize)
}

/// Whether four iterations of `axis` lie side by side wherever the load's other axes stand.
pub(super) fn contiguous(tile: &TileProgram, load: &Load, axis: AxisId) -> bool {
    let found = &tile.params[load.param];
    // Halves of bytes lie side by side where a row begins with a whole byte.
    let whole = load.index.last().is_some_and(|last| {
        let rest = last.plus(&Index::axis(axis).times(-1));
        rest.as_constant().is_some_and(|first| first % 2 == 0)
    });
    let param = &match found.layout {
        Layout::Halves if whole => TileParam { layout: Layout::Rows, ..found.clone() },
        _ => found.clone(),
    };
    let direct = |index: &Index| {
        let rest = index.plus(&Index::axis(axis).times(-index.stride(axis)));
        !rest.axes().contains(&axis)
    };
    param.layout == Layout::Rows
        && access(param, &load.index, axis, false) == Lanes::Step(1)
        && flatten(param, &load.index).values().all(|part| direct(part) || lanes(part, axis) == Lanes::Same)
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Blocking { together: [few, many], block, .. } = self.blocking;
        let columns = self.blocking.columns();
        write!(
            f,
            "contract {block} rows by {columns} columns of {}, {few} or {many} together:",
            self.columns
        )?;
        for product in &self.products {
            let Product { stage, dtype, depth, panel, rows, weights, .. } = product;
            write!(f, " {stage} {dtype} depth {depth} from panel {panel}")?;
            match weights {
                Weights::Numbers => {}
                Weights::Unpacked(codes, _) => write!(f, ", {codes} unpacked")?,
                Weights::Codes(codes, _) => write!(f, ", {codes}")?,
            }
            match rows {
                Rows::Apart(apart) => write!(f, ", rows {apart} apart;")?,
                Rows::Copied(_) => f.write_str(", rows copied;")?,
            }
        }
        Ok(())
    }
}
