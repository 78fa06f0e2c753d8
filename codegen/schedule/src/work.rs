//! What a launch moves and computes, counted from its tile programs, their indices and their schedules, before anything
//! runs.
//!
//! DRAM is taken to give each byte once: what several blocks read is kept by the caches between. That holds for the steps
//! of few tokens whose time DRAM decides; the virtual GPU counts by the same rule, and a test holds both together
//! (`testsuite/gpu/tests/kernels/work.rs`). What larger steps ask of the caches is the concern of [`crate::contract::cycles`].

mod region;

use crate::attend::{Attend, AttendSchedule, SPLIT};
use crate::codes::Format;
use crate::group::Group;
use crate::{Schedule, attend};
use region::Region;
use sinter_ir::draw::DRAW_BYTES;
use sinter_ir::{
    Access, Arg, Atom, AxisId, Binding, CODE_ROWS, Codes, DType, Expr, ExprId, Index, Layout, Load, PAGE,
    ParamId, Plan, ScalarOp, Stage, TileParam, TileProgram, gpu_weight_bytes,
};
use std::collections::BTreeSet;
use std::ops::AddAssign;

/// Bytes that DRAM moves at a time.
pub const SECTOR: u64 = 32;

/// A step whose work is counted: its sequences are alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepSize {
    /// Sequences.
    pub sequences: u64,
    /// Tokens of each in the step.
    pub tokens_each: u64,
    /// Positions of each when the step is done.
    pub context: u64,
}

impl StepSize {
    /// One token of each of some sequences that have `context` positions with it.
    pub fn decode(sequences: u64, context: u64) -> Self {
        Self { sequences, tokens_each: 1, context: context.max(1) }
    }
    /// A prompt of so many tokens.
    pub fn prompt(tokens: u64) -> Self {
        Self { sequences: 1, tokens_each: tokens, context: tokens }
    }
    /// Tokens of all sequences.
    pub fn tokens(&self) -> u64 {
        self.sequences * self.tokens_each
    }
    /// The values of the symbols; logits are wanted of one row a sequence.
    pub fn binding(&self) -> Binding {
        let pages = self.context.div_ceil(PAGE);
        Binding::new(self.tokens(), self.sequences, pages, self.sequences * pages * PAGE)
    }
    /// The positions of a sequence's tokens.
    fn positions(&self) -> std::ops::Range<u64> {
        self.context.saturating_sub(self.tokens_each)..self.context
    }
}

/// What a launch, or several, does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// The least bytes that it can move: each tensor once, read or written, without padding; of tables and of the cache of
    /// keys and values only the rows that are wanted.
    pub minimum: u64,
    /// Those of the least that are activations on their way from one launch to another.
    pub between: u64,
    /// Bytes that DRAM gives, in whole sectors and with the padding of weights.
    pub read: u64,
    /// Bytes that DRAM takes, with those that blocks leave for one another.
    pub written: u64,
    /// Multiplications and additions of products.
    pub operations: u64,
    /// Whether tensor cores do all of those.
    pub matrix: bool,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.matrix = (self.matrix || self.operations == 0) && (other.matrix || other.operations == 0);
        self.minimum += other.minimum;
        self.between += other.between;
        self.read += other.read;
        self.written += other.written;
        self.operations += other.operations;
    }
}

impl Work {
    /// Bytes that DRAM moves.
    pub fn moved(&self) -> u64 {
        self.read + self.written
    }

    /// Of a launch of a plan.
    pub fn of(plan: &Plan, group: &Group, size: &StepSize) -> Work {
        let mut work = Work { matrix: true, ..Work::default() };
        let inside = handed_over(plan, group);
        let mut pieces: Vec<(Arg, Piece)> = Vec::new();
        for (number, schedule) in group.steps.iter().zip(&group.schedules) {
            let Some(step) = plan.steps.get(*number) else { continue };
            let tile = &plan.kernels[step.kernel];
            for ((id, _), arg) in tile.params.iter().zip(&step.args).filter(|(_, arg)| !inside.contains(arg))
            {
                let piece = Piece::of(plan, (tile, id, *arg), size);
                match pieces.iter_mut().find(|(known, _)| known == arg) {
                    Some((_, known)) => known.join(&piece),
                    None => pieces.push((*arg, piece)),
                }
            }
            for stage in &tile.stages {
                let (operations, matrix) = products(tile, stage, size);
                work.operations += operations;
                work.matrix &= matrix || operations == 0;
            }
            let (read, written) = left_between_blocks(tile, schedule, size);
            (work.read, work.written) = (work.read + read, work.written + written);
        }
        work.matrix &= work.operations > 0;
        for (arg, piece) in &pieces {
            let times = u64::from(piece.reads) + u64::from(piece.writes);
            work.minimum += times * piece.exact;
            work.between += if matches!(arg, Arg::Buffer(_)) { times * piece.exact } else { 0 };
            work.read += if piece.reads { piece.stored } else { 0 };
            work.written += if piece.writes { piece.stored } else { 0 };
        }
        work
    }

    /// Of the launch that draws tokens from `rows` rows of `width` logits, with so many bytes of scratch memory: it reads
    /// the logits once and leaves what each block found.
    pub fn of_draw(rows: u64, width: u64, scratch: u64) -> Work {
        let (logits, draws, tokens) = (rows * width * 4, rows * DRAW_BYTES as u64, rows * 4);
        let sectors = |bytes: u64| bytes.next_multiple_of(SECTOR);
        Work {
            minimum: logits + draws + tokens,
            read: sectors(logits) + sectors(draws),
            written: sectors(tokens) + sectors(scratch),
            ..Work::default()
        }
    }
}

/// What a launch touches of an argument.
struct Piece {
    reads: bool,
    writes: bool,
    /// Bytes of the elements.
    exact: u64,
    /// Bytes of the sectors in which they lie.
    stored: u64,
    /// Bytes of the whole argument, as elements and as it is stored.
    whole: (u64, u64),
}

impl Piece {
    fn of(plan: &Plan, (tile, id, arg): (&TileProgram, ParamId, Arg), size: &StepSize) -> Piece {
        let param = &tile.params[id];
        let whole = param.stored().bytes(&size.binding());
        let stored = match arg {
            Arg::Weight(weight) => {
                plan.weights.get(weight).and_then(|def| gpu_weight_bytes(&def.ty, def.layout))
            }
            _ => None,
        };
        let loads = loads(tile);
        let stores = tile.stages.iter().filter_map(|stage| match stage {
            Stage::Store { param, index, .. } if *param == id => Some(&index[..]),
            _ => None,
        });
        let read = loads.iter().filter(|load| load.param == id).map(|load| &load.index[..]);
        let all: Vec<&[Index]> = read.clone().chain(stores.clone()).collect();
        let region = Region::of(tile, &all, size);
        let (exact, sectors) = region.bytes(param, &size.binding());
        let (whole, exact, sectors) = match param.layout {
            Layout::Codes(codes) => of_codes(&codes, param, (whole, exact, sectors)),
            Layout::Rows | Layout::Halves | Layout::Panels => (whole, exact, sectors),
        };
        Piece {
            reads: read.count() > 0,
            writes: param.access != Access::Read && stores.count() > 0,
            exact,
            stored: sectors,
            whole: (whole, stored.unwrap_or(whole).next_multiple_of(SECTOR)),
        }
    }

    /// The same argument in another step of the launch. Parts of it are apart, or it is the whole.
    fn join(&mut self, other: &Piece) {
        self.reads |= other.reads;
        self.writes |= other.writes;
        self.exact = (self.exact + other.exact).min(self.whole.0);
        self.stored = (self.stored + other.stored).min(self.whole.1);
    }
}

/// The bytes of a weight's codes, scales and offsets in place of those of its numbers: as few as can be, and as they lie.
fn of_codes(codes: &Codes, param: &TileParam, bytes: (u64, u64, u64)) -> (u64, u64, u64) {
    let [n, k] = param.ty.shape[..] else { return bytes };
    let (n, k) = (n.coeff, k.coeff);
    let groups = n * k / u64::from(codes.group).max(1);
    let least = n * k * u64::from(codes.bits) / 8 + groups * codes.record_bytes() as u64 / CODE_ROWS as u64;
    let stored = codes.gpu_bytes(n as usize, k as usize) as u64;
    let whole = bytes.0.max(1);
    let part = |numbers: u64, of: u64| (u128::from(numbers) * u128::from(of) / u128::from(whole)) as u64;
    (least, part(bytes.1, least), part(bytes.2, stored))
}

/// The arguments that one step of a launch gives to another: they never reach memory.
fn handed_over(plan: &Plan, group: &Group) -> Vec<Arg> {
    let of = |wanted: fn(Access) -> bool| -> Vec<(usize, Arg)> {
        let steps = group.steps.iter().filter_map(|at| Some((*at, plan.steps.get(*at)?)));
        let args = |(at, step): (usize, &sinter_ir::Step)| {
            let params = plan.kernels[step.kernel].params.values().zip(&step.args);
            params.filter(|(param, _)| wanted(param.access)).map(|(_, arg)| (at, *arg)).collect::<Vec<_>>()
        };
        steps.flat_map(args).collect()
    };
    let (written, read) = (of(|access| access == Access::Write), of(|access| access == Access::Read));
    let given = |(at, arg): &(usize, Arg)| read.iter().any(|(to, other)| to > at && other == arg);
    written.into_iter().filter(given).map(|(_, arg)| arg).collect()
}

/// All loads of a program, those inside of indices with them.
fn loads(tile: &TileProgram) -> Vec<&Load> {
    let mut found = Vec::new();
    for expr in tile.exprs.values() {
        match expr {
            Expr::Load(load) => with_inner(load, &mut found),
            Expr::Index(index) => inner(index, &mut found),
            Expr::Const(_) | Expr::Stage(_) | Expr::Apply(..) | Expr::Cast(..) => {}
        }
    }
    for stage in &tile.stages {
        match stage {
            Stage::Mma { a, b, .. } => [a, b].into_iter().for_each(|load| with_inner(load, &mut found)),
            Stage::Online { value, .. } => with_inner(value, &mut found),
            Stage::Store { index, .. } => index.iter().for_each(|index| inner(index, &mut found)),
            Stage::Reduce { .. } => {}
        }
    }
    found
}

fn with_inner<'t>(load: &'t Load, found: &mut Vec<&'t Load>) {
    found.push(load);
    load.index.iter().for_each(|index| inner(index, found));
}

fn inner<'t>(index: &'t Index, found: &mut Vec<&'t Load>) {
    for (atom, _) in &index.terms {
        match atom {
            Atom::Axis(_) => {}
            Atom::Div(index, _) | Atom::Mod(index, _) => inner(index, found),
            Atom::Load(load) => with_inner(load, found),
        }
    }
}

/// The context axis of a program with an online softmax, and the bounds of what a token sees.
fn context(tile: &TileProgram) -> Option<(AxisId, Option<ExprId>, Option<ExprId>)> {
    tile.stages.iter().find_map(|stage| match stage {
        Stage::Online { axis, from, to, .. } => Some((*axis, *from, *to)),
        Stage::Mma { .. } | Stage::Reduce { .. } | Stage::Store { .. } => None,
    })
}

/// The positions that a token at a position sees. Where a bound is not proved, or not understood, it is that of the axis.
fn visible(tile: &TileProgram, position: u64, size: &StepSize) -> (u64, u64) {
    let Some((axis, from, to)) = context(tile) else { return (0, 0) };
    let extent = tile.axes[axis].extent.eval(&size.binding());
    let bound = |id: Option<ExprId>| {
        let value = number(tile, id?, position as i64)?;
        u64::try_from(value).ok().map(|value| value.min(extent))
    };
    let to = bound(to).unwrap_or(extent);
    (bound(from).unwrap_or(0).min(to), to)
}

/// A bound as a number. What it reads from memory is taken for the token's position, for nothing else bounds a context.
fn number(tile: &TileProgram, id: ExprId, position: i64) -> Option<i64> {
    match &tile.exprs[id] {
        Expr::Const(value) => Some(value.get() as i64),
        Expr::Index(index) => whole(index, position),
        Expr::Apply(op, args) => {
            let args = args.iter().map(|arg| number(tile, *arg, position)).collect::<Option<Vec<i64>>>()?;
            match (op, &args[..]) {
                (ScalarOp::Min, [a, b]) => Some(*a.min(b)),
                (ScalarOp::Max, [a, b]) => Some(*a.max(b)),
                (ScalarOp::Add, [a, b]) => Some(a + b),
                (ScalarOp::Sub, [a, b]) => Some(a - b),
                _ => None,
            }
        }
        Expr::Load(_) | Expr::Stage(_) | Expr::Cast(..) => None,
    }
}

fn whole(index: &Index, position: i64) -> Option<i64> {
    index.terms.iter().try_fold(index.offset, |sum, (atom, factor)| {
        let value = match atom {
            Atom::Axis(_) => return None,
            Atom::Load(_) => position,
            Atom::Div(inner, by) => whole(inner, position)?.div_euclid(i64::try_from(*by).ok()?),
            Atom::Mod(inner, by) => whole(inner, position)?.rem_euclid(i64::try_from(*by).ok()?),
        };
        Some(sum + factor * value)
    })
}

/// The positions of one sequence that its tokens see together.
fn seen(tile: &TileProgram, size: &StepSize) -> u64 {
    let positions = size.positions();
    let (from, _) = visible(tile, positions.start, size);
    let (_, to) = visible(tile, positions.end.saturating_sub(1), size);
    to.saturating_sub(from)
}

/// The operations of a stage's products, and whether tensor cores take them.
fn products(tile: &TileProgram, stage: &Stage, size: &StepSize) -> (u64, bool) {
    let operands = match stage {
        Stage::Mma { a, b, .. } => vec![a, b],
        Stage::Online { value, .. } => vec![value],
        Stage::Reduce { .. } | Stage::Store { .. } => return (0, false),
    };
    let mut axes: BTreeSet<AxisId> = operands.iter().flat_map(|load| load.axes()).collect();
    axes.extend(&tile.grid);
    let binding = size.binding();
    let mut points = 1u64;
    if let Some((along, ..)) = context(tile).filter(|(along, ..)| axes.contains(along)) {
        // Each token sees a part of the context.
        let tokens = tile.grid.first().copied();
        axes.retain(|axis| *axis != along && Some(*axis) != tokens);
        let pairs = size.positions().map(|position| visible(tile, position, size));
        points = size.sequences * pairs.map(|(from, to)| to - from).sum::<u64>();
    }
    let extents = axes.iter().map(|axis| tile.axes[*axis].extent.eval(&binding));
    let points = extents.fold(points, u64::saturating_mul);
    // Codes become numbers of 16 bits.
    let half = |load: &&Load| {
        let param = &tile.params[load.param];
        matches!(param.ty.dtype, DType::Bf16 | DType::F16) || Format::of(param).is_some()
    };
    (points.saturating_mul(2), operands.iter().all(half))
}

/// Bytes that blocks of a launch leave in memory for one another: read before they were written, and written. Splits of
/// the context leave their sums, and count who is done; both are read in the same launch, while the caches have them.
fn left_between_blocks(tile: &TileProgram, schedule: &Schedule, size: &StepSize) -> (u64, u64) {
    let Schedule::Attend(schedule @ AttendSchedule::Splits { .. }) = schedule else { return (0, 0) };
    let Ok(attend) = Attend::of(tile) else { return (0, 0) };
    let units = attend.heads.iter().map(|axis| tile.axes[*axis].extent.coeff).product::<u64>();
    let split = u64::from(SPLIT);
    let (mut splits, mut counted) = (0, 0);
    for position in size.positions() {
        let (from, to) = visible(tile, position, size);
        let here = to.div_ceil(split).saturating_sub(from / split);
        if here > 1 {
            (splits, counted) = (splits + here, counted + 1);
        }
    }
    let parts = u64::from(attend.sizes.group.div_ceil(attend.group_part(attend::FRAGMENT)));
    let counters = (counted * size.sequences * units * parts * 4).next_multiple_of(SECTOR);
    (counters, splits * size.sequences * units * schedule.left_bytes(&attend) + counters)
}

#[cfg(test)]
mod tests;
