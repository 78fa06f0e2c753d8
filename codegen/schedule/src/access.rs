//! Where elements lie: strides, what depends on which axis, and which accesses are side by side and aligned.

use sinter_ir::{
    Atom, AxisId, Dim, Expr, ExprId, Id, Index, Layout, Load, ParamId, ScalarOp, Stage, StageId, TileParam,
    TileProgram, weight_pitch,
};

/// The alignment of every argument's address, in bytes.
pub const ADDRESS_ALIGNMENT: u64 = 16;

/// How the elements of neighbouring iterations of an axis lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lanes {
    /// All are one element.
    Same,
    /// Side by side, and the first at a multiple of the access's size, at most 16 bytes.
    Aligned,
    /// Nothing is known.
    Any,
}

/// The bytes from one iteration of each dimension to the next; none if one is the product of two symbols. Of numbers of
/// half a byte, those of the last dimension are two iterations apart.
pub fn dim_strides(param: &TileParam) -> Option<Vec<Dim>> {
    let stored = param.stored();
    let mut strides = vec![Dim { coeff: stored.dtype.bytes() as u64, sym: None }];
    for (at, extent) in stored.shape.iter().skip(1).rev().enumerate() {
        let last = *strides.last()?;
        strides.push(match (param.layout, at) {
            (Layout::Panels, 0) => Dim { coeff: weight_pitch(param.ty.dtype, extent.as_const()?), sym: None },
            _ => last.product(*extent)?,
        });
    }
    strides.truncate(param.ty.shape.len());
    strides.reverse();
    Some(strides)
}

/// Whether an index can be below zero as far as its own form tells. Axes and loaded numbers cannot.
pub fn may_be_negative(index: &Index) -> bool {
    let below = |(atom, factor): &(Atom, i64)| {
        *factor < 0 || matches!(atom, Atom::Div(inner, _) if may_be_negative(inner))
    };
    index.offset < 0 || index.terms.iter().any(below)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A number that divides the index whenever `lane` is at a multiple of `width`; 0 if the index is 0.
fn divisor(index: &Index, lane: AxisId, width: u64) -> u64 {
    index.terms.iter().fold(index.offset.unsigned_abs(), |known, (atom, factor)| {
        let atom = match atom {
            Atom::Axis(axis) if *axis == lane => width,
            Atom::Mod(inner, by) => gcd(divisor(inner, lane, width), *by),
            Atom::Axis(_) | Atom::Div(..) | Atom::Load(_) => 1,
        };
        gcd(known, atom.saturating_mul(factor.unsigned_abs()))
    })
}

/// By how much the index grows with each of `width` iterations of `lane` from a multiple of `width` on, if that is the
/// same for each.
pub fn step(index: &Index, lane: AxisId, width: u64) -> Option<i64> {
    index.terms.iter().try_fold(0, |sum, (atom, factor)| {
        let within = |inner: &Index, by: u64| {
            let step = step(inner, lane, width)?;
            let whole =
                step == 1 && by.is_multiple_of(width) && divisor(inner, lane, width).is_multiple_of(width);
            (step == 0 || whole).then_some(step)
        };
        let step = match atom {
            Atom::Axis(axis) => i64::from(*axis == lane),
            Atom::Mod(inner, by) => within(inner, *by)?,
            Atom::Div(inner, by) => within(inner, *by).map(|_| 0)?,
            Atom::Load(load) => {
                let still = load.index.iter().all(|index| step(index, lane, width) == Some(0));
                still.then_some(0)?
            }
        };
        Some(sum + factor * step)
    })
}

/// How the elements of `width` iterations of `lane` from a multiple of `width` on lie.
pub fn index_lanes(tile: &TileProgram, param: ParamId, index: &[Index], lane: AxisId, width: u32) -> Lanes {
    let (param, width) = (&tile.params[param], u64::from(width));
    let Some(strides) = dim_strides(param) else { return Lanes::Any };
    let steps: Option<Vec<i64>> = index.iter().map(|index| step(index, lane, width)).collect();
    let Some(steps) = steps else { return Lanes::Any };
    if steps.iter().all(|step| *step == 0) {
        return Lanes::Same;
    }
    let (last, outer) = steps.split_last().map_or((0, &[][..]), |(last, outer)| (*last, outer));
    if last != 1 || outer.iter().any(|step| *step != 0) {
        return Lanes::Any;
    }
    // In half bytes.
    let halves = param.layout == Layout::Halves;
    let unit = |at: usize, stride: &Dim| if halves && at + 1 == strides.len() { 1 } else { 2 * stride.coeff };
    let known = index.iter().zip(&strides).enumerate().fold(0, |known, (at, (index, stride))| {
        gcd(known, divisor(index, lane, width).saturating_mul(unit(at, stride)))
    });
    let each = if halves { 1 } else { 2 * param.ty.dtype.bytes() as u64 };
    let wanted = (width * each).min(2 * ADDRESS_ALIGNMENT);
    if known.is_multiple_of(wanted) { Lanes::Aligned } else { Lanes::Any }
}

/// The same for a load. Of codes, where the parts of an element lie is the business of whoever loads it.
pub fn load_lanes(tile: &TileProgram, load: &Load, lane: AxisId, width: u32) -> Lanes {
    let codes = matches!(tile.params[load.param].layout, Layout::Codes(_));
    match index_lanes(tile, load.param, &load.index, lane, width) {
        Lanes::Aligned if codes => Lanes::Any,
        lanes => lanes,
    }
}

fn mentions(load: &Load, axis: AxisId) -> bool {
    load.index.iter().any(|index| index.axes().contains(&axis))
}

/// Of each expression, whether its value depends on the iteration of an axis.
pub fn depending(tile: &TileProgram, axis: AxisId) -> Vec<bool> {
    let mut known: Vec<bool> = Vec::with_capacity(tile.exprs.len());
    for expr in tile.exprs.values() {
        let depends = match expr {
            Expr::Const(_) => false,
            Expr::Index(index) => index.axes().contains(&axis),
            Expr::Load(load) => mentions(load, axis),
            Expr::Stage(stage) => stage_depends(tile, *stage, axis, &known),
            Expr::Apply(_, args) => args.iter().any(|arg| known.get(arg.index()) == Some(&true)),
            Expr::Cast(_, arg) => known.get(arg.index()) == Some(&true),
        };
        known.push(depends);
    }
    known
}

/// Whether the result of a stage depends on an axis that is not its own loop. `known` holds what is known of
/// expressions; one that comes later, as stages may name, is walked.
fn stage_depends(tile: &TileProgram, stage: StageId, axis: AxisId, known: &[bool]) -> bool {
    let of = |id: ExprId| match known.get(id.index()) {
        Some(known) => *known,
        None => tile.cone(id).iter().any(|id| match &tile.exprs[*id] {
            Expr::Index(index) => index.axes().contains(&axis),
            Expr::Load(load) => mentions(load, axis),
            Expr::Stage(inner) => inner.index() < stage.index() && stage_depends(tile, *inner, axis, known),
            Expr::Const(_) | Expr::Apply(..) | Expr::Cast(..) => false,
        }),
    };
    match &tile.stages[stage.index()] {
        Stage::Reduce { axis: own, value, .. } => *own != axis && of(*value),
        Stage::Mma { axis: own, a, b } => *own != axis && (mentions(a, axis) || mentions(b, axis)),
        Stage::Online { axis: own, from, to, start, score, value, factor, .. } => {
            let bounds = [*from, *to, *start].into_iter().flatten().any(of);
            bounds || *own != axis && (of(*score) || factor.is_some_and(of) || mentions(value, axis))
        }
        Stage::Store { .. } => false,
    }
}

/// All axes beside the grid that the result of a stage depends on.
pub fn inner_axes(tile: &TileProgram, stage: StageId) -> Vec<AxisId> {
    let outside = |axis: &AxisId| !tile.grid.contains(axis);
    tile.axes.ids().filter(outside).filter(|axis| stage_depends(tile, stage, *axis, &[])).collect()
}

/// Of each expression up to `root`, whether all its uses are arms of a selection, so that it may be evaluated where the
/// program would not: its loads may lie outside and have to be moved inside.
pub fn guarded(tile: &TileProgram, root: ExprId) -> Vec<bool> {
    let mut guarded = vec![true; root.index() + 1];
    guarded[root.index()] = false;
    for id in tile.cone(root).into_iter().rev() {
        let here = guarded[id.index()];
        match &tile.exprs[id] {
            Expr::Apply(ScalarOp::Select, args) => guarded[args[0].index()] &= here,
            Expr::Apply(_, args) => args.iter().for_each(|arg| guarded[arg.index()] &= here),
            Expr::Cast(_, arg) => guarded[arg.index()] &= here,
            Expr::Const(_) | Expr::Index(_) | Expr::Load(_) | Expr::Stage(_) => {}
        }
    }
    guarded
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinter_ir::{Access, DType, Sym, Type};

    fn param(dtype: DType, shape: &[Dim], layout: Layout) -> TileParam {
        TileParam { name: "p".into(), ty: Type::new(dtype, shape), access: Access::Read, layout }
    }

    #[test]
    fn strides_in_bytes() {
        let rows = param(DType::Bf16, &[Sym::T.into(), 6.into(), 10.into()], Layout::Rows);
        assert_eq!(dim_strides(&rows).map(|s| s.iter().map(|d| d.coeff).collect()), Some(vec![120, 20, 2]));
        let table = param(DType::U32, &[Sym::S.into(), Sym::P.into()], Layout::Rows);
        assert_eq!(dim_strides(&table), Some(vec![Dim::times(Sym::P, 4), Dim::of(4)]));
        let weight = param(DType::Bf16, &[100.into(), 37.into()], Layout::Panels);
        assert_eq!(dim_strides(&weight), Some(vec![Dim::of(80), Dim::of(2)]));
        let stack = param(DType::Bf16, &[4.into(), 100.into(), 37.into()], Layout::Panels);
        assert_eq!(dim_strides(&stack), Some(vec![Dim::of(8000), Dim::of(80), Dim::of(2)]));
        let both = param(DType::F32, &[4.into(), Sym::S.into(), Sym::P.into()], Layout::Rows);
        assert_eq!(dim_strides(&both), None);
    }

    #[test]
    fn aligned_accesses_are_proved() {
        let (t, d) = (AxisId(0), AxisId(1));
        let mut tile = TileProgram::default();
        let even = tile.params.push(param(DType::F32, &[Sym::T.into(), 64.into()], Layout::Rows));
        let odd = tile.params.push(param(DType::F32, &[Sym::T.into(), 37.into()], Layout::Rows));
        let weight = tile.params.push(param(DType::F32, &[9.into(), 37.into()], Layout::Panels));
        let at = |param, index: &Index| index_lanes(&tile, param, &[Index::axis(t), index.clone()], d, 4);
        assert_eq!(at(even, &Index::axis(d)), Lanes::Aligned);
        assert_eq!(at(even, &Index::axis(d).plus(&Index::constant(2))), Lanes::Any);
        assert_eq!(at(even, &Index::axis(d).plus(&Index::constant(8))), Lanes::Aligned);
        assert_eq!(at(even, &Index::axis(t)), Lanes::Same);
        assert_eq!(at(even, &Index::axis(d).times(2)), Lanes::Any);
        assert_eq!(at(odd, &Index::axis(d)), Lanes::Any);
        assert_eq!(at(weight, &Index::axis(d)), Lanes::Aligned);
        let part = Index::atom(Atom::Mod(Box::new(Index::axis(d)), 16));
        assert_eq!(at(even, &part), Lanes::Aligned);
        let part = Index::atom(Atom::Mod(Box::new(Index::axis(d)), 6));
        assert_eq!(at(even, &part), Lanes::Any);
        let whole = Index::atom(Atom::Div(Box::new(Index::axis(d)), 16));
        assert_eq!(at(even, &whole), Lanes::Same);
    }

    #[test]
    fn numbers_of_half_a_byte() {
        let (n, d) = (AxisId(0), AxisId(1));
        let mut tile = TileProgram::default();
        let [wide, odd] = [64, 10].map(|width: usize| {
            let shape = [Sym::N.into(), 3.into(), Dim::of(width)];
            tile.params.push(param(DType::I8, &shape, Layout::Halves))
        });
        let strides = dim_strides(&tile.params[wide]).map(|s| s.iter().map(|d| d.coeff).collect());
        assert_eq!(strides, Some(vec![96, 32, 1]));
        let at = |param, lane: Index, width| {
            index_lanes(&tile, param, &[Index::axis(n), Index::constant(1), lane], d, width)
        };
        assert_eq!(at(wide, Index::axis(d), 32), Lanes::Aligned);
        assert_eq!(at(wide, Index::axis(d).plus(&Index::constant(8)), 8), Lanes::Aligned);
        assert_eq!(at(wide, Index::axis(d).plus(&Index::constant(1)), 2), Lanes::Any);
        assert_eq!((at(odd, Index::axis(d), 2), at(odd, Index::axis(d), 4)), (Lanes::Aligned, Lanes::Any));
    }
}
