//! Weights that stay quantised in memory: how codes lie in panels, and how a dequantise expression is recognised.
//!
//! A weight `[N, K]` is codes without sign with a scale for each row and group of the depth: `w = (code − offset) · scale`, or
//! `w = code · scale − low` ([`Offset`]). [`dequantised`] finds that form in whatever expression a checkpoint's scheme was
//! written as; it looks at structure and at the range of whole numbers, never at names.

use crate::{DType, Graph, Op, ScalarOp, ValueId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Output columns of a panel.
const PANEL: usize = 32;

/// What is taken off codes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Offset {
    /// 128 or 8: the middle of the codes.
    Middle,
    /// A whole number for each group, a byte without sign.
    Zeros,
    /// Nothing; a number for each group is taken off the product of code and scale.
    Lows,
}

/// How a quantised weight lies in panels of 32 output columns.
///
/// A panel is its groups of the depth one after the other. A group is its codes, 32 scales in f32 and, by its [`Offset`],
/// nothing, 32 bytes of zeros in 64, or in f32 the negatives of 32 lows, which are added. Codes of eight bits are
/// `[group / 4][32][4]`. Codes of four bits are `[group / 8][2][16][4]` bytes for the halves of the panel, where a byte holds
/// the codes of a column at depths d (low) and d + 4 (high). Columns of padding have the scale 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Codes {
    /// Bits of a code: 8 or 4.
    pub bits: u32,
    /// Depth of a group: a multiple of 8 that divides the depth.
    pub group: u32,
    /// What is taken off.
    pub offset: Offset,
}

impl Codes {
    /// Bytes of a group's codes in a panel.
    pub fn code_bytes(&self) -> usize {
        self.group as usize * PANEL * self.bits as usize / 8
    }
    /// Bytes of a group of a panel.
    pub fn group_bytes(&self) -> usize {
        let offsets = match self.offset {
            Offset::Middle => 0,
            Offset::Zeros => 64,
            Offset::Lows => 4 * PANEL,
        };
        self.code_bytes() + 4 * PANEL + offsets
    }
    /// Bytes of a panel of depth `k`.
    pub fn panel_bytes(&self, k: usize) -> usize {
        k / (self.group as usize).max(1) * self.group_bytes()
    }
    /// Bytes of a weight `[n, k]`.
    pub fn bytes(&self, n: usize, k: usize) -> usize {
        n.div_ceil(PANEL).saturating_mul(self.panel_bytes(k))
    }
    /// Whether a weight of depth `k` can lie so.
    pub fn fits(&self, k: usize) -> bool {
        let group = self.group as usize;
        matches!(self.bits, 4 | 8)
            && group > 0
            && group <= 1 << 16
            && group.is_multiple_of(8)
            && k.is_multiple_of(group)
    }
    /// The middle of the codes.
    pub fn middle(&self) -> u8 {
        1 << (self.bits - 1)
    }

    /// The layout of that name, as it is displayed.
    pub fn parse(text: &str) -> Option<Self> {
        let (bits, rest) = text.strip_prefix("codes")?.split_once('x')?;
        let (group, offset) = match (rest.strip_suffix('z'), rest.strip_suffix('m')) {
            (Some(group), _) => (group, Offset::Zeros),
            (_, Some(group)) => (group, Offset::Lows),
            _ => (rest, Offset::Middle),
        };
        let codes = Codes { bits: bits.parse().ok()?, group: group.parse().ok()?, offset };
        codes.fits(codes.group as usize).then_some(codes)
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = match self.offset {
            Offset::Middle => "",
            Offset::Zeros => "z",
            Offset::Lows => "m",
        };
        write!(f, "codes{}x{}{offset}", self.bits, self.group)
    }
}

/// Values of a graph of which some rows of a weight are made. Each has its elements in the order of the weight's rows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CodePart {
    /// Rows of the part.
    pub rows: usize,
    /// Whole numbers, an element of the weight each.
    pub codes: ValueId,
    /// The number that code 0 stands for.
    pub first: i64,
    /// Factors, each for a run of elements.
    pub scales: ValueId,
    /// Whole numbers that are subtracted from `codes`, or numbers that are subtracted from products; each for a run.
    pub offsets: Option<ValueId>,
    /// Whether `offsets` is added to products in place of being subtracted.
    pub added: bool,
}

/// A weight as codes: how it can lie, and what its rows are made of, in order.
#[derive(Clone, PartialEq, Debug)]
pub struct Dequantised {
    /// The layout.
    pub codes: Codes,
    /// The parts.
    pub parts: Vec<CodePart>,
}

/// The codes, scales and offsets of a matrix that a graph dequantises; none where a value has another form. Matrices that are
/// joined along their rows are one, if all have the same form.
pub fn dequantised(graph: &Graph, value: ValueId) -> Option<Dequantised> {
    let [_, k] = extents(graph, value)?[..] else { return None };
    let mut roots = Vec::new();
    joined(graph, value, &mut roots);
    let mut found: Option<Dequantised> = None;
    for root in roots {
        let (codes, part) = part(graph, root, k)?;
        let whole = found.get_or_insert(Dequantised { codes, parts: Vec::new() });
        if whole.codes != codes {
            return None;
        }
        whole.parts.push(part);
    }
    found
}

fn extents(graph: &Graph, value: ValueId) -> Option<Vec<usize>> {
    graph.ty(value).shape.iter().map(|dim| dim.as_const().map(|extent| extent as usize)).collect()
}

fn elements(graph: &Graph, value: ValueId) -> Option<usize> {
    Some(extents(graph, value)?.iter().product())
}

/// What is joined along the rows.
fn joined(graph: &Graph, value: ValueId, roots: &mut Vec<ValueId>) {
    let node = graph.node(value);
    match node.op {
        Op::Concat { axis: 0 } => node.args.iter().for_each(|arg| joined(graph, *arg, roots)),
        _ => roots.push(value),
    }
}

/// What is below changes of shape, which keep the order of elements, and conversions to f32, which lose nothing.
fn peeled(graph: &Graph, mut value: ValueId) -> ValueId {
    loop {
        let node = graph.node(value);
        let keeps = match node.op {
            Op::Reshape { .. } => true,
            Op::Cast { dtype: DType::F32 } => graph.ty(node.args[0]).dtype != DType::Bool,
            _ => false,
        };
        if !keeps {
            return value;
        }
        value = node.args[0];
    }
}

fn binary(graph: &Graph, value: ValueId, wanted: ScalarOp) -> Option<[ValueId; 2]> {
    match (&graph.node(value).op, &graph.node(value).args[..]) {
        (Op::Map(op), [x, y]) if *op == wanted => Some([*x, *y]),
        _ => None,
    }
}

/// The form of the rows that one value stands for.
fn part(graph: &Graph, root: ValueId, k: usize) -> Option<(Codes, CodePart)> {
    let (count, dtype) = (elements(graph, root)?, graph.ty(root).dtype);
    if count == 0 || !matches!(dtype, DType::F32 | DType::Bf16) {
        return None;
    }
    // One rounding at the end is what the type of the weight says; a second one before it would be another number.
    let mut value = root;
    if let Op::Cast { dtype } = graph.node(value).op
        && dtype != DType::F32
    {
        value = graph.node(value).args[0];
    }
    let mut product = peeled(graph, value);
    let (mut lows, mut added) = (None, false);
    for op in [ScalarOp::Sub, ScalarOp::Add] {
        let Some([x, y]) = binary(graph, product, op).filter(|_| lows.is_none()) else { continue };
        let (x, y) =
            if op == ScalarOp::Add && elements(graph, y)? > elements(graph, x)? { (y, x) } else { (x, y) };
        (lows, added) = (Some((y, run(graph, (product, y), count)?)), op == ScalarOp::Add);
        product = peeled(graph, x);
    }
    let factors = binary(graph, product, ScalarOp::Mul)?;
    let whole = |value: &ValueId| {
        let inner = peeled(graph, *value);
        elements(graph, inner) == Some(count) && differences(graph, inner).is_some()
    };
    let at = factors.iter().position(whole)?;
    let (codes, zeros, (first, last)) = differences(graph, peeled(graph, factors[at]))?;
    let scales = factors[1 - at];
    let scale_run = run(graph, (product, scales), count)?;
    let group = scale_run.min(k);
    let zero_run = match zeros {
        Some((at, zeros)) => Some(run(graph, (at, zeros), count)?),
        None => None,
    };
    let runs = zero_run.into_iter().chain(lows.map(|(_, run)| run)).chain([scale_run]);
    let bits = if last - first < 16 { 4 } else { 8 };
    let middle = first == -(1i64 << (bits - 1));
    let offset = match (lows, zeros) {
        (Some(_), None) if first == 0 => Offset::Lows,
        (Some(_), _) => return None,
        (None, None) if middle => Offset::Middle,
        // The zero is the same everywhere, but not in the middle.
        (None, _) if first <= 0 && -first < 256 => Offset::Zeros,
        _ => return None,
    };
    let codes_layout = Codes { bits, group: u32::try_from(group).ok()?, offset };
    let mut fits =
        runs.map(|run| run.is_multiple_of(group)).chain([codes_layout.fits(k), last - first < 256]);
    if !fits.all(|fits| fits) {
        return None;
    }
    let offsets = lows.map(|(lows, _)| lows).or(zeros.map(|(_, zeros)| zeros));
    Some((codes_layout, CodePart { rows: count / k, codes, first, scales, offsets, added }))
}

/// Neighbouring elements of a map's result that see one element of an operand; none if they do not follow one another.
fn run(graph: &Graph, (result, operand): (ValueId, ValueId), count: usize) -> Option<usize> {
    let (whole, shape) = (extents(graph, result)?, extents(graph, operand)?);
    if elements(graph, result)? != count {
        return None;
    }
    if shape.is_empty() {
        return Some(count);
    }
    let shared = whole.iter().zip(&shape).rev().take_while(|(_, extent)| **extent == 1);
    let run = shared.map(|(extent, _)| *extent).product::<usize>();
    let varying = shape.iter().product::<usize>();
    (run * varying == count).then_some(run)
}

/// Codes, the subtraction and its operand where groups have zeros, and the range of the codes.
type Differences = (ValueId, Option<(ValueId, ValueId)>, (i64, i64));

/// A whole number as codes less zeros of groups; of constants the range knows.
fn differences(graph: &Graph, value: ValueId) -> Option<Differences> {
    if let Some([codes, zeros]) = binary(graph, value, ScalarOp::Sub)
        && graph.ty(value).dtype == DType::F32
        && elements(graph, zeros)? > 1
        && elements(graph, zeros)? < elements(graph, codes)?
    {
        let range = range(graph, codes)?;
        let (low, high) = self::range(graph, zeros)?;
        return (low >= range.0 && high < range.0 + 256).then_some((codes, Some((value, zeros)), range));
    }
    Some((value, None, range(graph, value)?))
}

/// The least and the greatest whole number that a value's elements can be; none where they need not be whole.
fn range(graph: &Graph, value: ValueId) -> Option<(i64, i64)> {
    let node = graph.node(value);
    let of = |at: usize| range(graph, *node.args.get(at)?);
    match &node.op {
        Op::Param { dtype: DType::U8, .. } => Some((0, 255)),
        Op::Param { dtype: DType::I8, .. } => Some((-128, 127)),
        Op::Const { value, .. } => {
            let number = value.get();
            (number.fract() == 0.0 && number.abs() < 1e6).then_some((number as i64, number as i64))
        }
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Broadcast { .. } => of(0),
        Op::Bitcast { dtype: DType::I8 } => Some((-128, 127)),
        Op::Concat { .. } => {
            let parts: Option<Vec<_>> = node.args.iter().map(|arg| range(graph, *arg)).collect();
            parts?.into_iter().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        }
        Op::Cast { dtype } => match (of(0), dtype) {
            (Some(range), DType::F32 | DType::I32) => Some(range),
            (Some(range), DType::U32) if range.0 >= 0 => Some(range),
            (Some(range), DType::U8) if range.0 >= 0 && range.1 < 256 => Some(range),
            (Some(range), DType::I8) if range.0 >= -128 && range.1 < 128 => Some(range),
            _ => None,
        },
        Op::Map(ScalarOp::Bitand) => match (of(0), of(1)) {
            (_, Some((low, high))) | (Some((low, high)), _) if low >= 0 => Some((0, high)),
            _ => None,
        },
        Op::Map(ScalarOp::Shr) => of(0).filter(|(low, _)| *low >= 0).map(|(_, high)| (0, high)),
        Op::Map(ScalarOp::Add) => of(0).zip(of(1)).map(|(x, y)| (x.0 + y.0, x.1 + y.1)),
        // A difference below 0 wraps around where numbers have no sign.
        Op::Map(ScalarOp::Sub) => {
            let range = of(0).zip(of(1)).map(|(x, y)| (x.0 - y.1, x.1 - y.0));
            range.filter(|range| range.0 >= 0 || node.ty.dtype == DType::F32)
        }
        _ => None,
    }
}
