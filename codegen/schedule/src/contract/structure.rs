//! Which programs are contractions, and what a skeleton has to know of one.

use super::coded;
use crate::access::{Lanes, dim_strides, guarded, load_lanes};
use sinter_ir::{Atom, AxisId, Codes, DType, Dim, Expr, Index, Layout, Load, Stage, StageId, TileProgram};

/// The arithmetic of a product. It follows from the element types alone, so that every schedule gives the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unit {
    /// bf16 operands: steps of 16 along the summed axis in the tensor cores.
    Bf16,
    /// f16 operands: likewise.
    F16,
    /// Anything else: a chain of fused multiply-adds in f32.
    Fma,
}

/// One product of a contraction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Product {
    /// Its stage.
    pub stage: StageId,
    /// The summed axis.
    pub axis: AxisId,
    /// The extent of the summed axis.
    pub k: u64,
    /// Its arithmetic.
    pub unit: Unit,
    /// The operand that changes with the rows: activations.
    pub a: Load,
    /// The operand that changes with the columns: weights.
    pub b: Load,
    /// How the weights lie, if they are codes that go to the tensor cores as they lie.
    pub codes: Option<Codes>,
}

/// A program that multiplies matrices: rows times columns, one or several products, and an epilogue at each point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contraction {
    /// The axes of the grid that together number the rows.
    pub rows: Vec<AxisId>,
    /// The number of rows.
    pub n_rows: Dim,
    /// The last axis of the grid: the columns.
    pub column: AxisId,
    /// The number of columns.
    pub n_columns: Dim,
    /// The products, those that share their left operand side by side.
    pub products: Vec<Product>,
    /// Which of a stack of weights a row is multiplied with, and how many there are, where that is all in which the right
    /// operands change with the row: then rows of one weight are brought together, and each weight is read once.
    pub group: Option<(Index, u64)>,
    /// Whether a tile may have several rows: no right operand changes with the row, or the rows of one weight meet.
    pub rows_share: bool,
    /// Whether a tile may have several columns: no left operand changes with the column.
    pub columns_share: bool,
    /// Whether tensor copies can take all results to memory: matrices whose rows and columns are those of the whole.
    pub boxed: bool,
}

impl Contraction {
    /// The positions of the products in runs that share their left operand, their summed extent and the form of their
    /// weights, so that one loop does a run.
    pub fn runs(&self) -> Vec<Vec<usize>> {
        let mut runs: Vec<Vec<usize>> = Vec::new();
        for (at, product) in self.products.iter().enumerate() {
            match runs.iter_mut().find(|run| share_loop(&self.products[run[0]], product)) {
                Some(run) => run.push(at),
                None => runs.push(vec![at]),
            }
        }
        runs
    }

    /// The most products of a run.
    pub fn widest(&self) -> usize {
        self.runs().iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether all products use one arithmetic, and which.
    pub fn unit(&self) -> Option<Unit> {
        let first = self.products.first()?.unit;
        self.products.iter().all(|product| product.unit == first).then_some(first)
    }
}

/// The contraction that a program is, if it is one: the rows and columns are its grid, its stages are products of constant
/// depth, folds and stores, and no product depends on an axis beyond the grid and its own.
pub fn find(tile: &TileProgram) -> Option<Contraction> {
    let (column, rows) = tile.grid.split_last()?;
    let extent = |axis: &AxisId| tile.axes[*axis].extent;
    let n_rows = rows.iter().try_fold(Dim::ONE, |product, axis| product.product(extent(axis)))?;
    let mut products = Vec::new();
    for (at, stage) in tile.stages.iter().enumerate() {
        match stage {
            Stage::Mma { axis, a, b } => {
                products.push(product(tile, StageId(at as u32), *axis, (a, b))?);
            }
            Stage::Reduce { .. } | Stage::Store { .. } => {}
            Stage::Online { .. } => return None,
        }
    }
    // A product that is only the arm of a selection may read outside where it is not selected.
    if !products.iter().all(|product| is_used_plainly(tile, product.stage)) {
        return None;
    }
    let any_row = |load: &Load| rows.iter().any(|axis| mentions(load, *axis));
    let group = group(tile, rows, &products);
    let rows_share = group.is_some() || !products.iter().any(|product| any_row(&product.b));
    let columns_share = !products.iter().any(|product| mentions(&product.a, *column));
    if !columns_share {
        products.iter_mut().for_each(|product| product.codes = None);
    }
    let boxed =
        matches!(rows, [row] if tile.stages.iter().all(|stage| is_boxed(tile, (*row, *column), stage)));
    let found = Contraction {
        rows: rows.to_vec(),
        n_rows,
        column: *column,
        n_columns: extent(column),
        products,
        group,
        rows_share,
        columns_share,
        boxed,
    };
    (found.unit().is_some()).then_some(found)
}

/// The most weights in a stack.
const STACK: u64 = 1 << 14;

/// The index by which each row picks its weights, if that is the only way in which these depend on the row.
fn group(tile: &TileProgram, rows: &[AxisId], products: &[Product]) -> Option<(Index, u64)> {
    let which = products.first()?.b.index.first()?;
    let of_row = |index: &Index| index.axes().iter().any(|axis| rows.contains(axis));
    let only_rows = of_row(which) && which.axes().iter().all(|axis| rows.contains(axis));
    let alike = |product: &Product| {
        product.b.index.split_first().is_some_and(|(first, rest)| first == which && !rest.iter().any(of_row))
    };
    let stack = |product: &Product| tile.params[product.b.param].ty.shape.first()?.as_const();
    let least = products.iter().map(stack).collect::<Option<Vec<u64>>>()?.into_iter().min()?;
    (only_rows && products.iter().all(alike) && (1..=STACK).contains(&least)).then(|| (which.clone(), least))
}

fn product(tile: &TileProgram, stage: StageId, axis: AxisId, (a, b): (&Load, &Load)) -> Option<Product> {
    let k = tile.axes[axis].extent.as_const().filter(|k| *k > 0)?;
    let known = |other: AxisId| other == axis || tile.grid.contains(&other);
    if !axes(a).chain(axes(b)).all(known) {
        return None;
    }
    let dtypes = [a, b].map(|load| tile.params[load.param].ty.dtype);
    let unit = match dtypes {
        [DType::Bf16, DType::Bf16] => Unit::Bf16,
        [DType::F16, DType::F16] => Unit::F16,
        _ => Unit::Fma,
    };
    // Products commute, and either operand may be the one that changes with the columns.
    let column = *tile.grid.last()?;
    let turned = mentions(a, column) && !mentions(b, column);
    let (a, b) = if turned { (b, a) } else { (a, b) };
    let codes = coded::of(tile, b, axis, column).filter(|_| unit == Unit::Bf16);
    Some(Product { stage, axis, k, unit, a: a.clone(), b: b.clone(), codes })
}

fn is_used_plainly(tile: &TileProgram, stage: StageId) -> bool {
    tile.stages.iter().flat_map(Stage::roots).any(|root| {
        let guarded = guarded(tile, root);
        tile.cone(root).iter().any(|id| tile.exprs[*id] == Expr::Stage(stage) && !guarded[id.0 as usize])
    })
}

fn axes(load: &Load) -> impl Iterator<Item = AxisId> + '_ {
    load.index.iter().flat_map(Index::axes)
}

fn mentions(load: &Load, axis: AxisId) -> bool {
    axes(load).any(|other| other == axis)
}

fn share_loop(one: &Product, other: &Product) -> bool {
    one.k == other.k && one.codes == other.codes && renamed(&one.a, one.axis, other.axis) == other.a
}

/// A load with one axis in place of another.
fn renamed(load: &Load, from: AxisId, to: AxisId) -> Load {
    Load { param: load.param, index: load.index.iter().map(|index| index_renamed(index, from, to)).collect() }
}

fn index_renamed(index: &Index, from: AxisId, to: AxisId) -> Index {
    let atom = |atom: &Atom| match atom {
        Atom::Axis(axis) => Atom::Axis(if *axis == from { to } else { *axis }),
        Atom::Div(inner, by) => Atom::Div(Box::new(index_renamed(inner, from, to)), *by),
        Atom::Mod(inner, by) => Atom::Mod(Box::new(index_renamed(inner, from, to)), *by),
        Atom::Load(load) => Atom::Load(Box::new(renamed(load, from, to))),
    };
    index.terms.iter().fold(Index::constant(index.offset), |sum, (term, factor)| {
        sum.plus(&Index::atom(atom(term)).times(*factor))
    })
}

/// The bytes of one piece in which an operand can be copied along the summed axis: 16, 8 or 4 where pieces lie aligned and
/// none reaches beyond what is allocated, else one element.
pub fn piece_bytes(tile: &TileProgram, load: &Load, axis: AxisId) -> u32 {
    let (param, extent) = (&tile.params[load.param], tile.axes[axis].extent);
    let bytes = param.ty.dtype.bytes() as u32;
    let fits = |piece: &u32| {
        let width = piece / bytes;
        // The rows of weights are padded with zeros.
        let whole = param.layout == Layout::Panels || extent.coeff.is_multiple_of(u64::from(width));
        width > 1 && whole && load_lanes(tile, load, axis, width) == Lanes::Aligned
    };
    [16, 8, 4].into_iter().find(fits).unwrap_or(bytes)
}

/// Whether tensor copies can bring both operands of a product: matrices whose rows lie at multiples of 16 bytes, indexed
/// by their row and the whole summed axis alone.
pub fn is_plain(tile: &TileProgram, found: &Contraction, product: &Product) -> bool {
    let &[row] = &found.rows[..] else { return false };
    let plain = |load: &Load, row: AxisId| {
        let param = &tile.params[load.param];
        if !matches!(param.layout, Layout::Rows | Layout::Panels) {
            return false;
        }
        let [outer, inner] = &load.index[..] else { return false };
        let offset = u64::try_from(outer.offset).is_ok_and(|offset| offset <= u64::from(u32::MAX / 2));
        let pitch = dim_strides(param).and_then(|strides| strides.first().copied());
        offset
            && outer.terms == [(Atom::Axis(row), 1)]
            && *inner == Index::axis(product.axis)
            && param.ty.shape[1].as_const() == Some(product.k)
            && pitch.is_some_and(|pitch| pitch.sym.is_none() && pitch.coeff.is_multiple_of(16))
    };
    product.unit != Unit::Fma
        && product.a.param != product.b.param
        && product.a.index[0].offset == 0
        && plain(&product.a, row)
        && plain(&product.b, found.column)
}

/// Whether tensor copies can do a stage, if it is a store: to a matrix of 16-bit floats or of f32 whose rows are whole pieces
/// of 16 bytes, at its row and column.
fn is_boxed(tile: &TileProgram, (row, column): (AxisId, AxisId), stage: &Stage) -> bool {
    let Stage::Store { axes, param, index, .. } = stage else { return true };
    let param = &tile.params[*param];
    let float = matches!(param.ty.dtype, DType::Bf16 | DType::F16 | DType::F32);
    let pitch = dim_strides(param).and_then(|strides| strides.first().copied());
    float
        && axes.is_empty()
        && *index == [Index::axis(row), Index::axis(column)]
        && param.ty.shape[..] == [tile.axes[row].extent, tile.axes[column].extent]
        && pitch.is_some_and(|pitch| pitch.sym.is_none() && pitch.coeff.is_multiple_of(16))
}

/// The first row of a matrix that a plain operand reads.
pub fn row_offset(load: &Load) -> u64 {
    load.index.first().map_or(0, |index| index.offset.unsigned_abs())
}
