//! How an index moves: the offset of an element in memory as one sum, and what four neighbouring iterations of an axis
//! do to it. Pure arithmetic on [`Index`]; the emitter asks here before it chooses a vector load.

use sinter_ir::{Atom, AxisId, DType, Index, Layout, Load, Sym, TileParam, TileProgram};
use std::collections::BTreeMap;

/// Lanes of a vector.
pub(crate) const LANES: i64 = 4;

/// What four iterations of an axis, the first a multiple of four, do to a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lanes {
    /// Nothing.
    Same,
    /// Each adds this much.
    Step(i64),
    /// Anything.
    Any,
}

/// An offset in elements: each index times the product of the symbols before it.
pub(crate) type Flat = BTreeMap<Vec<Sym>, Index>;

/// The offset of an element of `param`.
pub(crate) fn flatten(param: &TileParam, index: &[Index]) -> Flat {
    match param.layout {
        Layout::Panels => BTreeMap::from([(Vec::new(), panels(param, index))]),
        // The number of the element; the emitter knows where its code lies.
        Layout::Rows | Layout::Codes(_) | Layout::Halves => {
            let (mut flat, mut stride, mut syms) = (Flat::new(), 1, Vec::new());
            for (index, dim) in index.iter().zip(&param.ty.shape).rev() {
                let part = flat.entry(syms.clone()).or_default();
                *part = part.plus(&index.times(stride));
                stride *= dim.coeff as i64;
                syms.extend(dim.sym);
                syms.sort_unstable();
            }
            flat.values_mut().for_each(|part| *part = simplify(part));
            flat.retain(|_, part| *part != Index::default());
            flat
        }
    }
}

/// The elements of one matrix in panels, padding included.
pub(crate) fn panel_elements(param: &TileParam) -> i64 {
    let extent = |from_last: usize| param.ty.shape[param.ty.rank() - from_last].coeff as i64;
    let k = if param.ty.dtype == DType::Bf16 { (extent(1) + 1) / 2 * 2 } else { extent(1) };
    (extent(2) + 31) / 32 * 32 * k
}

/// The offset of an element of a packed weight: (row, depth), of a stack (matrix, row, depth).
fn panels(param: &TileParam, index: &[Index]) -> Index {
    let [stack @ .., row, depth] = index else { return Index::default() };
    let k = param.ty.shape[index.len() - 1].coeff as i64;
    let part = |atom: fn(Box<Index>, u64) -> Atom, index: &Index, by: u64, factor: i64| {
        Index::atom(atom(Box::new(index.clone()), by)).times(factor)
    };
    let within = if param.ty.dtype == DType::Bf16 {
        let panel = part(Atom::Div, row, 32, (k + 1) / 2 * 64).plus(&part(Atom::Mod, row, 32, 2));
        panel.plus(&part(Atom::Div, depth, 2, 64)).plus(&part(Atom::Mod, depth, 2, 1))
    } else {
        part(Atom::Div, row, 32, k * 32).plus(&part(Atom::Mod, row, 32, 1)).plus(&depth.times(32))
    };
    let stride = panel_elements(param);
    stack.iter().fold(within, |sum, matrix| sum.plus(&matrix.times(stride)))
}

/// The same sum with `d ⌊x / d⌋ + x mod d` written as x: how a flattened axis that was split comes back together.
pub(crate) fn simplify(index: &Index) -> Index {
    let mut sum = index.clone();
    while let Some((inner, by, factor)) = split(&sum) {
        let rest = Index::atom(Atom::Mod(Box::new(inner.clone()), by)).times(-factor);
        let quotient = Index::atom(Atom::Div(Box::new(inner.clone()), by)).times(-factor * by as i64);
        sum = sum.plus(&rest).plus(&quotient).plus(&inner.times(factor));
    }
    sum
}

/// A number of which the sum has both the quotient and the rest, their divisor and the factor.
fn split(sum: &Index) -> Option<(Index, u64, i64)> {
    sum.terms.iter().find_map(|(atom, factor)| {
        let Atom::Mod(inner, by) = atom else { return None };
        let quotient = (Atom::Div(inner.clone(), *by), factor * *by as i64);
        sum.terms.contains(&quotient).then(|| ((**inner).clone(), *by, *factor))
    })
}

/// What four iterations of `axis` do to an index.
pub(crate) fn lanes(index: &Index, axis: AxisId) -> Lanes {
    index.terms.iter().fold(Lanes::Same, |sum, (atom, factor)| match (sum, atom_lanes(atom, axis)) {
        (sum, Lanes::Same) => sum,
        (Lanes::Same, Lanes::Step(step)) => Lanes::Step(step * factor),
        (Lanes::Step(sum), Lanes::Step(step)) => match sum + step * factor {
            0 => Lanes::Same,
            sum => Lanes::Step(sum),
        },
        (Lanes::Any, _) | (_, Lanes::Any) => Lanes::Any,
    })
}

fn atom_lanes(atom: &Atom, axis: AxisId) -> Lanes {
    match atom {
        Atom::Axis(other) if *other == axis => Lanes::Step(1),
        Atom::Axis(_) => Lanes::Same,
        Atom::Div(inner, by) => match lanes(inner, axis) {
            Lanes::Same => Lanes::Same,
            Lanes::Step(1) if by % LANES as u64 == 0 && aligned(inner, axis) => Lanes::Same,
            Lanes::Step(step) if step % *by as i64 == 0 => Lanes::Step(step / *by as i64),
            _ => Lanes::Any,
        },
        Atom::Mod(inner, by) => match lanes(inner, axis) {
            Lanes::Same => Lanes::Same,
            Lanes::Step(1) if by % LANES as u64 == 0 && aligned(inner, axis) => Lanes::Step(1),
            Lanes::Step(step) if step % *by as i64 == 0 => Lanes::Same,
            _ => Lanes::Any,
        },
        Atom::Load(load) => {
            let still = load.index.iter().all(|index| lanes(index, axis) == Lanes::Same);
            if still { Lanes::Same } else { Lanes::Any }
        }
    }
}

/// Whether the index is a multiple of four where `axis` is.
fn aligned(index: &Index, axis: AxisId) -> bool {
    let multiple = |(atom, factor): &(Atom, i64)| *atom == Atom::Axis(axis) || factor % LANES == 0;
    index.offset % LANES == 0 && index.terms.iter().all(multiple)
}

/// What four iterations of `axis` do to the offset of a load or store. A guarded access is clamped in each dimension:
/// it stays in step only where its four elements are inside together or outside together.
pub(crate) fn access(param: &TileParam, index: &[Index], axis: AxisId, guarded: bool) -> Lanes {
    if let Layout::Codes(_) | Layout::Halves = param.layout {
        // Elements are dequantised one by one.
        let still = index.iter().all(|index| lanes(index, axis) == Lanes::Same);
        return if still { Lanes::Same } else { Lanes::Any };
    }
    if guarded {
        let Some((last, rest)) = index.split_last() else { return Lanes::Same };
        if index.iter().all(|index| lanes(index, axis) == Lanes::Same) {
            return Lanes::Same;
        }
        let whole = param.ty.shape.last().is_some_and(|dim| dim.coeff as i64 % LANES == 0);
        let still = rest.iter().all(|index| lanes(index, axis) == Lanes::Same);
        let one = lanes(last, axis) == Lanes::Step(1) && aligned(last, axis);
        return if whole && still && one && param.layout == Layout::Rows {
            Lanes::Step(1)
        } else {
            Lanes::Any
        };
    }
    flatten(param, index).iter().fold(Lanes::Same, |sum, (syms, part)| match (sum, lanes(part, axis)) {
        (sum, Lanes::Same) => sum,
        (Lanes::Same, step) if syms.is_empty() => step,
        _ => Lanes::Any,
    })
}

/// As [`access`], of a load in a program.
pub(crate) fn load_access(tile: &TileProgram, load: &Load, axis: AxisId, guarded: bool) -> Lanes {
    access(&tile.params[load.param], &load.index, axis, guarded)
}

/// Whether an index is never negative.
pub(crate) fn natural(index: &Index) -> bool {
    let whole = |(atom, factor): &(Atom, i64)| {
        *factor >= 0
            && match atom {
                Atom::Div(inner, _) => natural(inner),
                Atom::Axis(_) | Atom::Mod(..) | Atom::Load(_) => true,
            }
    };
    index.offset >= 0 && index.terms.iter().all(whole)
}
