//! Which part of a tensor indices reach: along each dimension the numbers between the least and the greatest, or so many
//! as memory chooses.

use super::{SECTOR, StepSize, context, seen};
use crate::access::step;
use sinter_ir::{Atom, Binding, Index, Layout, PAGE, TileParam, TileProgram, weight_pitch};

/// What is reached along a dimension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Span {
    /// From one number to another.
    Range(i64, i64),
    /// So many numbers that lie in memory themselves, in runs of so many neighbours: the positions of a page.
    Chosen(u64, u64),
}

/// A part of a tensor.
pub(super) struct Region(Vec<Span>);

impl Region {
    /// What some accesses reach together.
    pub(super) fn of(tile: &TileProgram, accesses: &[&[Index]], size: &StepSize) -> Region {
        let binding = size.binding();
        let spans = |index: &&[Index]| -> Vec<Span> {
            index.iter().map(|index| span(tile, index, size, &binding)).collect()
        };
        let all = accesses.iter().map(spans);
        Region(all.reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| hull(a, b)).collect()).unwrap_or_default())
    }

    /// The bytes of the elements, and of the sectors in which they lie.
    pub(super) fn bytes(&self, param: &TileParam, binding: &Binding) -> (u64, u64) {
        let each = param.ty.dtype.bytes() as u64;
        // What follows one another: whole dimensions from the innermost out, and a part of the next. What is chosen lies
        // anywhere.
        let (mut elements, mut run, mut runs, mut follows) = (each, each, 1u64, true);
        for (at, (span, extent)) in self.0.iter().zip(&param.ty.shape).enumerate().rev() {
            let extent = extent.eval(binding);
            let count = match span {
                Span::Range(from, to) => (to.saturating_add(1)).saturating_sub((*from).max(0)).max(0) as u64,
                Span::Chosen(count, _) => *count,
            };
            let innermost = at + 1 == param.ty.shape.len();
            // Two numbers share a byte.
            let shared = if innermost && param.layout == Layout::Halves { 2 } else { 1 };
            let (count, extent) = (count.min(extent).div_ceil(shared), extent.div_ceil(shared));
            elements = elements.saturating_mul(count);
            if let (Span::Chosen(_, side), true) = (span, follows) {
                let neighbours = |rows: u64| run.saturating_mul(rows).next_multiple_of(SECTOR);
                let rest = neighbours(count % side);
                (run, follows) =
                    ((count / side).saturating_mul(neighbours(*side)).saturating_add(rest), false);
                continue;
            }
            if !follows {
                runs = runs.saturating_mul(count);
                continue;
            }
            run = match param.layout {
                Layout::Panels if innermost && count == extent => weight_pitch(param.ty.dtype, count),
                Layout::Panels | Layout::Rows | Layout::Codes(_) | Layout::Halves => {
                    run.saturating_mul(count)
                }
            };
            follows = count == extent;
        }
        (elements, runs.saturating_mul(run.next_multiple_of(SECTOR)))
    }
}

fn hull(a: Span, b: Span) -> Span {
    match (a, b) {
        (Span::Range(a, b), Span::Range(c, d)) => Span::Range(a.min(c), b.max(d)),
        (Span::Chosen(a, side), Span::Chosen(b, other)) => Span::Chosen(a.max(b), side.min(other)),
        (Span::Chosen(a, side), Span::Range(from, to)) | (Span::Range(from, to), Span::Chosen(a, side)) => {
            Span::Chosen(a.max((to - from + 1).max(0) as u64), side)
        }
    }
}

fn span(tile: &TileProgram, index: &Index, size: &StepSize, binding: &Binding) -> Span {
    match range(tile, index, binding) {
        Some((from, to)) => Span::Range(from, to),
        None => {
            let paged = context(tile).is_some_and(|(along, ..)| step(index, along, PAGE) == Some(1));
            Span::Chosen(choices(tile, index, size, binding), if paged { PAGE } else { 1 })
        }
    }
}

/// The least and the greatest number of an index; none if memory is part of it.
fn range(tile: &TileProgram, index: &Index, binding: &Binding) -> Option<(i64, i64)> {
    index.terms.iter().try_fold((index.offset, index.offset), |(from, to), (atom, factor)| {
        let (least, most) = match atom {
            Atom::Axis(axis) => {
                let extent = i64::try_from(tile.axes[*axis].extent.eval(binding)).ok()?;
                (0, (extent - 1).max(0))
            }
            Atom::Div(inner, by) => {
                let (from, to) = range(tile, inner, binding)?;
                let by = i64::try_from(*by).ok()?;
                (from.div_euclid(by), to.div_euclid(by))
            }
            Atom::Mod(inner, by) => {
                let (from, to) = range(tile, inner, binding)?;
                let by = i64::try_from(*by).ok()?;
                if from >= 0 && to < by { (from, to) } else { (0, by - 1) }
            }
            Atom::Load(_) => return None,
        };
        let ends = [least.saturating_mul(*factor), most.saturating_mul(*factor)];
        Some((from.saturating_add(ends[0].min(ends[1])), to.saturating_add(ends[0].max(ends[1]))))
    })
}

/// The most numbers that an index with a choice in it can be: one for each iteration of its axes. Tokens of one sequence
/// share what they see of its context.
fn choices(tile: &TileProgram, index: &Index, size: &StepSize, binding: &Binding) -> u64 {
    let mut axes = index.axes();
    let mut count = 1u64;
    if let Some((along, ..)) = context(tile).filter(|(along, ..)| axes.contains(along)) {
        let tokens = tile.grid.first().copied();
        axes.retain(|axis| *axis != along && Some(*axis) != tokens);
        count = size.sequences * seen(tile, size);
    }
    axes.iter().map(|axis| tile.axes[*axis].extent.eval(binding)).fold(count, u64::saturating_mul)
}
