//! The structure of a grouped product: grid (rows…, n), products over k with the one of a stack of packed weights that an
//! index of the row names, stores at (rows…, n).

use super::contract::{Product, Rows, Strip, WIDTH, Weights, strips};
use super::{Pieces, Schedule, Skeleton};
use crate::access::panel_elements;
use crate::facts::{AxisSet, Facts};
use crate::micro::PANEL;
use sinter_ir::{AxisId, Dim, Index, Layout, Load, Stage, StageId, TileProgram};
use std::fmt;

/// Rows that are sorted at a time.
pub(crate) const SORTED: usize = 1024;
/// The most weights in a stack: their counts lie in scratch memory.
const WEIGHTS: usize = 1 << 14;

/// How a grouped contraction is run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Grouped {
    /// The axes of rows, and their extents.
    pub(crate) rows: Vec<AxisId>,
    pub(crate) extents: Vec<Dim>,
    /// The axis of columns.
    pub(crate) columns: AxisId,
    /// Which weight a row is multiplied with.
    pub(crate) which: Index,
    /// The number of weights.
    pub(crate) weights: usize,
    /// Panels of a unit.
    pub(crate) panels: usize,
    /// Rows that are computed at a time.
    pub(crate) block: usize,
    pub(crate) products: Vec<Product>,
    pub(crate) strips: Vec<Strip>,
    /// Bytes of one weight, for each product.
    pub(crate) strides: Vec<usize>,
    /// Scratch offsets: the weight of each row, the rows in the order of their weights, where each weight's rows begin.
    pub(crate) list: usize,
    pub(crate) order: usize,
    pub(crate) starts: usize,
}

pub(super) fn plan(tile: &TileProgram, facts: &Facts, (panels, block): (usize, usize)) -> Option<Schedule> {
    let (columns, rows) = tile.grid.split_last()?;
    let n = tile.axes[*columns].extent.as_const()? as usize;
    let (mut products, mut pieces) = (Vec::new(), Pieces::default());
    if rows.is_empty() || rows.contains(columns) || n == 0 {
        return None;
    }
    let mut which = None;
    for (number, stage) in tile.stages.iter().enumerate() {
        let id = StageId(number as u32);
        match stage {
            Stage::Mma { axis, a, b } if !facts.stages[id].mutable => {
                let known = which.get_or_insert(b.index.first()?);
                if *known != b.index.first()? {
                    return None;
                }
                let product = product(tile, (rows, *columns), (id, *axis), (a, b), (block, &mut pieces))?;
                products.push(share_copy(product, &products));
            }
            Stage::Reduce { .. } if facts.stages[id].axes.within(AxisSet::of(rows)) => {}
            Stage::Store { axes, .. } if axes.is_empty() && !facts.overlaps(tile, stage) => {}
            _ => return None,
        }
    }
    let stacks = || products.iter().map(|product| &tile.params[product.weight.param]);
    let weights = stacks().map(|param| param.ty.shape[0].coeff as usize).min()?;
    let plan = Grouped {
        rows: rows.into(),
        extents: rows.iter().map(|axis| tile.axes[*axis].extent).collect(),
        columns: *columns,
        which: which?.clone(),
        weights,
        panels,
        block,
        strides: stacks().map(|param| panel_elements(param) as usize * param.ty.dtype.bytes()).collect(),
        list: pieces.take(SORTED * 4),
        order: pieces.take(SORTED * 4),
        starts: pieces.take((weights + 1) * 4),
        strips: strips(tile, facts, *columns, &mut pieces),
        products,
    };
    let units = vec![Dim::of(n.div_ceil(panels * PANEL))];
    (1..=WEIGHTS).contains(&weights).then_some(Schedule {
        skeleton: Skeleton::Grouped(plan),
        units,
        scratch: pieces.bytes,
    })
}

fn product(
    tile: &TileProgram,
    (rows, columns): (&[AxisId], AxisId),
    (stage, axis): (StageId, AxisId),
    (a, weight): (&Load, &Load),
    (block, pieces): (usize, &mut Pieces),
) -> Option<Product> {
    let (activations, weights) = (&tile.params[a.param], &tile.params[weight.param]);
    let depth = tile.axes[axis].extent.as_const()? as usize;
    let [which, row, place] = &weight.index[..] else { return None };
    let fits = weights.layout == Layout::Panels
        && activations.layout == Layout::Rows
        && activations.ty.dtype == weights.ty.dtype
        && axis != columns
        && !rows.contains(&axis)
        && *place == Index::axis(axis)
        && weights.ty.shape[2] == Dim::of(depth)
        && which.axes().iter().all(|axis| rows.contains(axis))
        && !a.axes().contains(&columns);
    let first = row.plus(&Index::axis(columns).times(-1)).as_constant()?;
    if !fits || depth == 0 || first < 0 || !(first as usize).is_multiple_of(PANEL) {
        return None;
    }
    let dtype = activations.ty.dtype;
    let rows = Rows::Copied(pieces.take(block * depth * dtype.bytes()));
    let result = pieces.take(block * WIDTH * 4);
    let (a, weight, panel) = (a.clone(), weight.clone(), first as usize / PANEL);
    let weights = Weights::Numbers;
    Some(Product { stage, axis, depth, dtype, a, rows, weight, weights, panel, result })
}

/// A product whose rows an earlier one has copied uses the copy.
fn share_copy(product: Product, earlier: &[Product]) -> Product {
    let rows = earlier.iter().find(|other| same_rows(&product, other)).map(|other| other.rows);
    Product { rows: rows.unwrap_or(product.rows), ..product }
}

/// Whether two products have the same activations, each along its own axis.
fn same_rows(x: &Product, y: &Product) -> bool {
    let without = |product: &Product, index: &Index| {
        let stride = index.stride(product.axis);
        (stride, index.plus(&Index::axis(product.axis).times(-stride)))
    };
    let same = |(a, b): (&Index, &Index)| {
        let ((p, a), (q, b)) = (without(x, a), without(y, b));
        p == q && a == b && !a.axes().contains(&x.axis) && !b.axes().contains(&y.axis)
    };
    x.a.param == y.a.param && x.depth == y.depth && x.a.index.iter().zip(&y.a.index).all(same)
}

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (block, weights, columns) = (self.block, self.weights, self.columns);
        let width = self.panels * PANEL;
        write!(f, "grouped {block} rows by {width} columns of {columns}, {weights} weights:")?;
        for Product { stage, dtype, depth, panel, .. } in &self.products {
            write!(f, " {stage} {dtype} depth {depth} from panel {panel};")?;
        }
        Ok(())
    }
}
