//! Index arithmetic: reshapes as division and remainder, simplified by what is known about the axes.

use sinter_ir::{Atom, Dim, Index, ParamId, TileProgram};
use std::collections::BTreeMap;

/// What is known about the atoms of indices.
#[derive(Clone, Copy)]
pub struct Space<'a> {
    /// The program, which knows the extents of its axes.
    pub tile: &'a TileProgram,
    /// The parameters of which every element is below a limit: the indices that a choice gives.
    pub below: &'a BTreeMap<ParamId, u64>,
}

/// ⌊index / divisor⌋, without a division where the ranges of the axes allow.
pub fn div(space: Space<'_>, index: &Index, divisor: u64) -> Index {
    if divisor == 1 {
        return index.clone();
    }
    let (whole, rest) = split(index, divisor);
    if below(space, &rest, divisor) {
        return whole;
    }
    match rest.as_constant() {
        Some(offset) => whole.plus(&Index::constant(offset.div_euclid(divisor as i64))),
        None => whole.plus(&Index::atom(Atom::Div(Box::new(rest), divisor))),
    }
}

/// index mod divisor, without a remainder where the ranges of the axes allow.
pub fn rem(space: Space<'_>, index: &Index, divisor: u64) -> Index {
    if divisor == 1 {
        return Index::constant(0);
    }
    let (_, rest) = split(index, divisor);
    if below(space, &rest, divisor) {
        return rest;
    }
    match rest.as_constant() {
        Some(offset) => Index::constant(offset.rem_euclid(divisor as i64)),
        None => Index::atom(Atom::Mod(Box::new(rest), divisor)),
    }
}

/// The index as `divisor · whole + rest`, whole terms moved out.
fn split(index: &Index, divisor: u64) -> (Index, Index) {
    let divisor = divisor as i64;
    let (mut whole, mut rest) = (Index::default(), Index::default());
    for (atom, factor) in &index.terms {
        let to = if factor % divisor == 0 { &mut whole } else { &mut rest };
        let factor = if factor % divisor == 0 { factor / divisor } else { *factor };
        to.terms.push((atom.clone(), factor));
    }
    whole.offset = index.offset.div_euclid(divisor);
    rest.offset = index.offset.rem_euclid(divisor);
    (whole, rest)
}

/// Whether an index is proved to lie in `0..limit`.
pub fn below(space: Space<'_>, index: &Index, limit: u64) -> bool {
    range(space, index).is_some_and(|(low, high)| low >= 0 && high < limit as i64)
}

/// The least and the greatest value, if they are known.
pub fn range(space: Space<'_>, index: &Index) -> Option<(i64, i64)> {
    let (mut low, mut high) = (index.offset, index.offset);
    for (atom, factor) in &index.terms {
        let top = match atom {
            Atom::Axis(axis) => space.tile.axes[*axis].extent.as_const()? as i64 - 1,
            Atom::Mod(_, divisor) => *divisor as i64 - 1,
            Atom::Div(inner, divisor) => range(space, inner)?.1 / *divisor as i64,
            Atom::Load(load) => *space.below.get(&load.param)? as i64 - 1,
        };
        let reach = factor.checked_mul(top)?;
        low = low.checked_add(reach.min(0))?;
        high = high.checked_add(reach.max(0))?;
    }
    Some((low, high))
}

/// `(i / d)·d + i mod d` put together again.
fn recombine(index: Index) -> Index {
    for (atom, factor) in &index.terms {
        let Atom::Mod(inner, divisor) = atom else { continue };
        let quotient = Atom::Div(inner.clone(), *divisor);
        let matching = factor.checked_mul(*divisor as i64);
        if index.terms.iter().any(|(other, f)| *other == quotient && Some(*f) == matching) {
            let drop = Index::atom(quotient).times(-factor * *divisor as i64);
            let lone = Index::atom(atom.clone()).times(-factor);
            return recombine(index.plus(&drop).plus(&lone).plus(&inner.times(*factor)));
        }
    }
    index
}

/// The indices of a reshape's operand (of shape `from`) at the indices of its result (of shape `to`). Both shapes are
/// cut into stretches of equal volume; in a stretch, only the outermost extent may be symbolic. None otherwise.
pub fn reshape(space: Space<'_>, index: &[Index], to: &[Dim], from: &[Dim]) -> Option<Vec<Index>> {
    let (mut out, mut i, mut j) = (Vec::with_capacity(from.len()), 0, 0);
    while i < to.len() || j < from.len() {
        let (start_i, start_j) = (i, j);
        let (mut wanted, mut found) = (Dim::ONE, Dim::ONE);
        loop {
            if i > start_i && j > start_j && wanted == found {
                break;
            }
            let grow_to = j >= from.len() || (i < to.len() && wanted.typical() <= found.typical());
            match if grow_to { to.get(i) } else { from.get(j) } {
                Some(dim) if grow_to => (wanted, i) = (wanted.product(*dim)?, i + 1),
                Some(dim) => (found, j) = (found.product(*dim)?, j + 1),
                None if wanted == found => break,
                None => return None,
            }
        }
        out.extend(stretch(space, &index[start_i..i], &to[start_i..i], &from[start_j..j])?);
    }
    Some(out)
}

fn stretch(space: Space<'_>, index: &[Index], to: &[Dim], from: &[Dim]) -> Option<Vec<Index>> {
    if to == from {
        return Some(index.to_vec());
    }
    let mut linear = Index::constant(0);
    for (at, (index, dim)) in index.iter().zip(to).filter(|(_, dim)| **dim != Dim::ONE).enumerate() {
        let extent = if at == 0 { 1 } else { dim.as_const()? };
        linear = linear.times(extent as i64).plus(index);
    }
    let mut linear = recombine(linear);
    let mut out = vec![Index::constant(0); from.len()];
    let wide: Vec<usize> = (0..from.len()).filter(|at| from[*at] != Dim::ONE).collect();
    for (order, at) in wide.iter().enumerate().rev() {
        if order == 0 {
            out[*at] = linear.clone();
        } else {
            let extent = from[*at].as_const()?;
            out[*at] = rem(space, &linear, extent);
            linear = div(space, &linear, extent);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinter_ir::{Axis, AxisId, Load, Sym};

    const NOTHING: &BTreeMap<ParamId, u64> = &BTreeMap::new();

    fn tile(extents: &[Dim]) -> TileProgram {
        let mut tile = TileProgram::default();
        for extent in extents {
            tile.axes.push(Axis { name: "x".into(), extent: *extent });
        }
        tile
    }

    #[test]
    fn splitting_and_joining_heads_is_free() {
        let tile = tile(&[Sym::T.into(), Dim::of(6), Dim::of(4)]);
        let space = Space { tile: &tile, below: NOTHING };
        let axes: Vec<Index> = (0..3).map(|axis| Index::axis(AxisId(axis))).collect();
        let flat = [Sym::T.into(), Dim::of(24)];
        let heads = [Sym::T.into(), Dim::of(6), Dim::of(4)];
        let joined = reshape(space, &axes, &heads, &flat).unwrap();
        assert_eq!(joined[1], Index::axis(AxisId(1)).times(4).plus(&Index::axis(AxisId(2))));
        assert_eq!(reshape(space, &joined, &flat, &heads).unwrap(), axes);
    }

    #[test]
    fn a_flat_axis_splits_and_comes_back() {
        let tile = tile(&[Sym::T.into(), Dim::of(24)]);
        let space = Space { tile: &tile, below: NOTHING };
        let axes: Vec<Index> = (0..2).map(|axis| Index::axis(AxisId(axis))).collect();
        let flat = [Sym::T.into(), Dim::of(24)];
        let heads = [Sym::T.into(), Dim::of(6), Dim::of(4)];
        let split = reshape(space, &axes, &flat, &heads).unwrap();
        assert_eq!(reshape(space, &split, &heads, &flat).unwrap(), axes);
    }

    #[test]
    fn extents_of_one_come_and_go() {
        let tile = tile(&[Sym::T.into(), Dim::of(5)]);
        let space = Space { tile: &tile, below: NOTHING };
        let t = Index::axis(AxisId(0));
        let zero = Index::constant(0);
        let wide = [Dim::ONE, Dim::ONE, Sym::T.into(), Dim::ONE];
        let at = [zero.clone(), zero.clone(), t.clone(), zero.clone()];
        assert_eq!(reshape(space, &at, &wide, &[Sym::T.into()]).unwrap(), std::slice::from_ref(&t));
        assert_eq!(reshape(space, &[t], &[Sym::T.into()], &wide).unwrap(), at);
    }

    #[test]
    fn pages_split_a_symbolic_context() {
        let tile = tile(&[Dim::times(Sym::P, 16)]);
        let space = Space { tile: &tile, below: NOTHING };
        let c = [Index::axis(AxisId(0))];
        let split = reshape(space, &c, &[Dim::times(Sym::P, 16)], &[Sym::P.into(), Dim::of(16)]).unwrap();
        assert_eq!(split[0], Index::atom(Atom::Div(Box::new(c[0].clone()), 16)));
        assert_eq!(split[1], Index::atom(Atom::Mod(Box::new(c[0].clone()), 16)));
    }

    #[test]
    fn a_chosen_place_stays_in_its_row() {
        let tile = tile(&[Sym::T.into()]);
        let below = BTreeMap::from([(ParamId(3), 8)]);
        let t = Index::axis(AxisId(0));
        let choice = Load { param: ParamId(3), index: vec![t.clone()] };
        let place = Index::atom(Atom::Load(Box::new(choice)));
        let flat = [t.times(8).plus(&place)];
        let (from, to) = ([Sym::T.into(), Dim::of(8)], [Dim::times(Sym::T, 8)]);
        let unknown = Space { tile: &tile, below: NOTHING };
        assert_ne!(reshape(unknown, &flat, &to, &from).unwrap(), [t.clone(), place.clone()]);
        let known = Space { tile: &tile, below: &below };
        assert_eq!(reshape(known, &flat, &to, &from).unwrap(), [t, place]);
    }
}
