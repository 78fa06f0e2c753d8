//! Attention: the structure of programs with an online softmax, and how they may be run.
//!
//! [`Attend::of`] recognises the structure: one product inside the score of one online softmax along the context, and
//! stores of its result. The rows of a block are query heads of a group and neighbouring tokens; they share keys and
//! values as far as the indices say so. Nothing is assumed of masks: the range of context is the program's own.
//!
//! Every schedule computes the same numbers. The context is cut in blocks of [`POSITIONS`] and in splits of [`SPLIT`]
//! positions at absolute multiples. Along the blocks of a split goes the online softmax (M. Milakov and N. Gimelshein,
//! Online normalizer calculation for softmax, 2018); splits are merged in ascending order. What is no number's neighbour
//! in that order changes nothing: a block without a visible position is neutral, and may be skipped.

mod boxes;
mod codes;

pub use boxes::{BOX_POSITIONS, BoxedRows, matrix};
pub use codes::Coded;

use sinter_ir::{
    Atom, AxisId, DType, Dim, Expr, ExprId, Id, Index, Load, Stage, StageId, Target, TileProgram,
};
use std::fmt;

/// Positions of a block of context, which begins at a multiple of it.
pub const POSITIONS: u32 = 64;
/// Positions of a split of the context, which begins at a multiple of it.
pub const SPLIT: u32 = 512;
/// Rows of a matrix fragment of the tensor cores.
pub const FRAGMENT: u32 = 16;
/// Warps of a multiprocessor that keep its tensor cores busy: two for each of the four.
pub const ENOUGH_WARPS: u32 = 8;
/// The most tokens of a step whose context is read in splits.
pub const SPLIT_TOKENS: u64 = 16;
/// Warps of a block that reads a split of the context for few rows.
pub const DECODE_WARPS: u32 = 4;

/// The structure of attention in a tile program.
#[derive(Clone, PartialEq, Debug)]
pub struct Attend {
    /// The online softmax.
    pub online: StageId,
    /// The product in its score.
    pub dot: StageId,
    /// The axis of the context.
    pub context: AxisId,
    /// The axis along which queries and keys are multiplied.
    pub depth: AxisId,
    /// The axis of the result.
    pub lanes: AxisId,
    /// The first position whose score can be finite.
    pub from: Option<ExprId>,
    /// One past the last such position.
    pub to: Option<ExprId>,
    /// One score more, with which the softmax starts: it depends on the grid alone.
    pub start: Option<ExprId>,
    /// The score.
    pub score: ExprId,
    /// The queries.
    pub query: Load,
    /// The keys.
    pub key: Load,
    /// The values.
    pub value: Load,
    /// What the values of a position are multiplied by.
    pub factor: Option<ExprId>,
    /// The stores of the result, in order.
    pub stores: Vec<StageId>,
    /// The first grid axis: tokens.
    pub tokens: AxisId,
    /// The grid axes between tokens and group: heads with keys and values of their own.
    pub heads: Vec<AxisId>,
    /// The last grid axis, if its iterations share keys, values and bounds.
    pub group: Option<AxisId>,
    /// What tells apart the contexts of two tokens: where all these are equal, keys and values are the same.
    pub contexts: Vec<Index>,
    /// The extents of the depth, the lanes and the group.
    pub sizes: Sizes,
    /// Whether queries are bf16, and keys and values are bf16 or codes, so that tensor cores multiply them.
    pub tensor: bool,
    /// Keys and values as the codes that tensor cores multiply.
    pub coded: Option<Coded>,
    /// Whether tensor copies can bring keys and values to shared memory.
    pub boxed: bool,
}

/// Constant extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Of the depth.
    pub depth: u32,
    /// Of the lanes.
    pub lanes: u32,
    /// Of the group.
    pub group: u32,
}

impl Sizes {
    /// The depth in whole steps of the tensor cores.
    pub fn padded_depth(self) -> u32 {
        self.depth.next_multiple_of(FRAGMENT)
    }
    /// The lanes in whole fragments of the tensor cores.
    pub fn padded_lanes(self) -> u32 {
        self.lanes.next_multiple_of(FRAGMENT)
    }
}

/// How attention is run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AttendSchedule {
    /// A warp for each row; chains of fused multiply-adds.
    Rows {
        /// Warps of a block, each with a query head of the group.
        warps: u32,
    },
    /// A block for each token, group and split of the context; tensor cores. The last block to finish merges the splits.
    Splits {
        /// Blocks of context in shared memory at a time.
        stages: u32,
    },
    /// A block for a tile of rows with all of their context; tensor cores.
    Tiles {
        /// Warps of a block, each with 16 rows.
        warps: u32,
        /// Blocks of context in shared memory at a time.
        stages: u32,
    },
    /// The same on Hopper: one warp brings keys and values by tensor copies, warpgroups of 64 rows each multiply.
    Warpgroups {
        /// Multiplying warpgroups of a block.
        groups: u32,
        /// Blocks of context in shared memory at a time, a power of two.
        stages: u32,
    },
}

/// Rows of a multiplying warpgroup.
pub const GROUP_ROWS: u32 = 64;

impl Attend {
    /// The structure, or why the program has another.
    pub fn of(tile: &TileProgram) -> Result<Attend, String> {
        let onlines = tile.stages.iter().enumerate();
        let mut onlines = onlines.filter(|(_, stage)| matches!(stage, Stage::Online { .. }));
        let (Some((number, online)), None) = (onlines.next(), onlines.next()) else {
            return Err("one online softmax is wanted".into());
        };
        let Stage::Online { axis: context, from, to, start, score, lanes, value, factor } = online else {
            return Err("one online softmax is wanted".into());
        };
        let (dot, depth, query, key) = product(tile, *score, *context)?;
        let group = group(tile, [&key, value], &[*from, *to]);
        let heads = &tile.grid[..tile.grid.len() - usize::from(group.is_some())];
        let [tokens, heads @ ..] = heads else { return Err("a grid with tokens is wanted".into()) };
        let extent = |axis: AxisId, what: &str| {
            let extent = tile.axes[axis].extent.as_const().and_then(|extent| u32::try_from(extent).ok());
            extent.filter(|extent| (1..=512).contains(extent)).ok_or(format!("a constant {what} is wanted"))
        };
        let sizes = Sizes {
            depth: extent(depth, "depth up to 512")?,
            lanes: extent(*lanes, "number of lanes up to 512")?,
            group: group.map_or(Ok(1), |axis| extent(axis, "group up to 512"))?,
        };
        let mut contexts = Vec::new();
        for index in key.index.iter().chain(&value.index) {
            collect_contexts(index, *tokens, *context, &mut contexts);
        }
        let bf16 = |load: &&Load| tile.params[load.param].ty.dtype == DType::Bf16;
        let coded = Coded::of(tile, (&key, value), *score, *factor).filter(|_| bf16(&&query));
        let tensor = coded.is_some() || factor.is_none() && [&query, &key, value].iter().all(bf16);
        // Tensor copies bring rows that no query sees; without bounds, such may lie nowhere.
        let bounded = to.is_some() || contexts.is_empty();
        let boxed = |load: &Load, lane: AxisId, width: u32| {
            boxes::is_boxed(tile, load, (*context, lane, width)) && key.param != value.param
        };
        let boxed = tensor && bounded && boxed(&key, depth, sizes.depth) && boxed(value, *lanes, sizes.lanes);
        let attend = Attend {
            boxed,
            online: StageId(number as u32),
            dot,
            context: *context,
            depth,
            lanes: *lanes,
            from: *from,
            to: *to,
            start: *start,
            score: *score,
            query,
            key,
            value: value.clone(),
            factor: *factor,
            stores: stores(tile, *lanes)?,
            tokens: *tokens,
            heads: heads.to_vec(),
            group,
            contexts,
            sizes,
            tensor,
            coded,
        };
        attend.check(tile)?;
        Ok(attend)
    }

    /// Every axis is known where it is used.
    fn check(&self, tile: &TileProgram) -> Result<(), String> {
        let known = |load: &Load, own: &[AxisId]| {
            let axes = load.index.iter().flat_map(Index::axes);
            axes.into_iter().all(|axis| tile.grid.contains(&axis) || own.contains(&axis))
        };
        let loads = [
            (&self.query, vec![self.depth]),
            (&self.key, vec![self.depth, self.context]),
            (&self.value, vec![self.lanes, self.context]),
        ];
        if self.start.is_some_and(|start| !on_grid(tile, start)) {
            return Err("the score that the softmax starts with depends on more than the grid".into());
        }
        match loads.iter().find(|(load, own)| !known(load, own)) {
            Some((load, _)) => {
                Err(format!("the load of {} has a foreign axis", tile.params[load.param].name))
            }
            None => Ok(()),
        }
    }

    /// The number of heads that a block takes of a group when it has room for `rows` rows.
    pub fn group_part(&self, rows: u32) -> u32 {
        self.sizes.group.min(rows)
    }

    /// The number of tokens that a block takes when it has room for `rows` rows.
    pub fn tokens_in(&self, rows: u32) -> u32 {
        (rows / self.group_part(rows)).max(1)
    }

    /// Bytes of shared memory for the keys and values of a block of positions as they are copied; codes with their scales.
    pub fn stage_bytes(&self) -> u32 {
        let (depth, lanes) = (self.sizes.padded_depth(), self.sizes.padded_lanes());
        let row = match &self.coded {
            None => pitch(depth) + pitch(lanes),
            Some(coded) => coded.key.bytes(depth) + coded.value.bytes(lanes) + 2 * SCALE_BYTES,
        };
        POSITIONS * row
    }

    /// Bytes of shared memory for the numbers that codes stand for: those of the keys, then those of the values in their
    /// place.
    pub fn numbers_bytes(&self) -> u32 {
        let widest = self.sizes.padded_depth().max(self.sizes.padded_lanes());
        if self.coded.is_some() { POSITIONS * pitch(widest) } else { 0 }
    }

    /// The ways to run it on a target in steps of up to `most` tokens, the analytic choice first. All give the same bits.
    pub fn schedules(&self, target: Target, most: Option<u64>) -> Vec<AttendSchedule> {
        if !self.tensor {
            return vec![AttendSchedule::Rows { warps: self.sizes.group.min(4) }];
        }
        let splits = [3, 2, 1].map(|stages| AttendSchedule::Splits { stages });
        let tiles = [(4, 2), (4, 1), (2, 2), (2, 1), (1, 2), (1, 1)];
        let mut tiles = tiles.map(|(warps, stages)| AttendSchedule::Tiles { warps, stages });
        tiles.sort_by_key(|schedule| {
            std::cmp::Reverse(schedule.resident_warps(self, target).min(ENOUGH_WARPS))
        });
        // Splits have counters for so many tokens.
        let few = most.is_some_and(|most| most <= SPLIT_TOKENS);
        let (wide, tiles) = (self.wide(target, most), tiles.to_vec());
        let many = if few { [tiles, wide] } else { [wide, tiles] };
        let all = splits.into_iter().filter(|_| few).chain(many.into_iter().flatten());
        all.filter(|schedule| schedule.shared_bytes(self) <= target.max_shared_bytes()).collect()
    }

    /// The ways to run it in warpgroups: with one where a step fills no more.
    fn wide(&self, target: Target, most: Option<u64>) -> Vec<AttendSchedule> {
        if target != Target::Sm90a || !self.boxed {
            return Vec::new();
        }
        let rows = most.map(|most| most * u64::from(self.sizes.group));
        let one = rows.is_some_and(|rows| rows <= u64::from(GROUP_ROWS));
        let groups = if one { [1, 2] } else { [2, 1] };
        groups.map(|groups| AttendSchedule::Warpgroups { groups, stages: 2 }).to_vec()
    }
}

impl AttendSchedule {
    /// The shared memory that a block takes, in bytes.
    pub fn shared_bytes(&self, attend: &Attend) -> u32 {
        let sizes = attend.sizes;
        let (stage, numbers) = (attend.stage_bytes(), attend.numbers_bytes());
        match *self {
            AttendSchedule::Rows { warps } => warps * row_bytes(sizes),
            AttendSchedule::Splits { stages } => stages * stage + numbers + FRAGMENT * SCORE_PITCH + 16,
            AttendSchedule::Tiles { warps, stages } => {
                let queries = if query_in_shared(sizes) { warps * 32 * sizes.padded_depth() } else { 0 };
                stages * stage + numbers + queries + warps * 32 * merged_bytes(sizes)
            }
            AttendSchedule::Warpgroups { groups, stages } => {
                let stage = POSITIONS * 2 * (sizes.depth + sizes.lanes);
                let queries = if query_in_shared(sizes) { GROUP_ROWS * 2 * sizes.depth } else { 0 };
                // Two barriers for the keys and two for the values of a stage, and one more of 8 bytes.
                stages * (stage + 32) + 16 + groups * (queries + 128 * merged_bytes(sizes))
            }
        }
    }
    /// Bytes that the block of a split leaves in memory for the block that merges: of each row the weighted sums of all
    /// warps, their lanes in whole pairs of fragments, and the maximum and the sum of the weights; a sector of each.
    pub fn left_bytes(&self, attend: &Attend) -> u64 {
        match self {
            AttendSchedule::Rows { .. }
            | AttendSchedule::Tiles { .. }
            | AttendSchedule::Warpgroups { .. } => 0,
            AttendSchedule::Splits { .. } => {
                let pairs = (attend.sizes.padded_lanes() / FRAGMENT).div_ceil(DECODE_WARPS);
                let rows = attend.sizes.group;
                u64::from(rows * 32 * (DECODE_WARPS * 2 * pairs + 1))
            }
        }
    }
    /// Warps that a multiprocessor has room for, by its shared memory and its registers: for each thread those of sums,
    /// queries and scores, and so many besides as `ptxas` was seen to use.
    pub fn resident_warps(&self, attend: &Attend, target: Target) -> u32 {
        let sizes = attend.sizes;
        let queries = if query_in_shared(sizes) { 8 } else { sizes.padded_depth() / 4 };
        let registers =
            (sizes.padded_lanes() / 2 + queries + POSITIONS / 2 + 110).min(255).next_multiple_of(8);
        // A block takes a KiB of shared memory for itself, and that much is not for one block alone.
        let shared = (target.max_shared_bytes() + 1024) / (self.shared_bytes(attend) + 1024);
        shared.min(65_536 / (registers * self.threads())) * self.threads() / 32
    }
    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        match self {
            AttendSchedule::Rows { warps } | AttendSchedule::Tiles { warps, .. } => warps * 32,
            AttendSchedule::Splits { .. } => DECODE_WARPS * 32,
            AttendSchedule::Warpgroups { groups, .. } => (groups + 1) * 128,
        }
    }
}

/// Bytes of the scale of a row of codes.
pub const SCALE_BYTES: u32 = 4;

/// Bytes from one row of bf16 to the next in shared memory: an odd number of 16-byte pieces, so that `ldmatrix` reads
/// eight rows from eight different groups of banks.
pub fn pitch(width: u32) -> u32 {
    width * 2 + 16
}

/// Bytes from one row of a block's scores to the next: eight banks on, so that a fragment is written without conflicts.
pub const SCORE_PITCH: u32 = POSITIONS * 4 + 32;

/// Bytes that a warp keeps of a row: the query, the weights of a block and the offsets of its values.
pub fn row_bytes(sizes: Sizes) -> u32 {
    sizes.depth.next_multiple_of(4) * 4 + POSITIONS * 4 + POSITIONS * 8
}

/// Whether queries stay in shared memory because registers do not hold them beside the sums.
pub fn query_in_shared(sizes: Sizes) -> bool {
    sizes.padded_depth() / 4 + sizes.padded_lanes() / 2 > 112
}

/// Bytes that a thread keeps of the merged splits: maxima and sums of two rows, and its part of the weighted sums.
pub fn merged_bytes(sizes: Sizes) -> u32 {
    16 + sizes.padded_lanes() / 2 * 4
}

/// The product in a score that depends on the context: its stage, its axis, queries and keys.
fn product(
    tile: &TileProgram,
    score: ExprId,
    context: AxisId,
) -> Result<(StageId, AxisId, Load, Load), String> {
    let stages = tile.stages_of(score);
    let [dot] = stages[..] else { return Err("one product in the score is wanted".into()) };
    let Stage::Mma { axis, a, b } = &tile.stages[dot.index()] else {
        return Err("a product in the score is wanted".into());
    };
    let moves = |load: &Load| load.index.iter().any(|index| index.axes().contains(&context));
    match (moves(a), moves(b)) {
        (false, true) => Ok((dot, *axis, a.clone(), b.clone())),
        (true, false) => Ok((dot, *axis, b.clone(), a.clone())),
        _ => Err("a product of queries and of keys along the context is wanted".into()),
    }
}

/// The last grid axis, if keys, values and bounds do not depend on it.
fn group(tile: &TileProgram, loads: [&Load; 2], bounds: &[Option<ExprId>]) -> Option<AxisId> {
    let axis = *tile.grid.last().filter(|_| tile.grid.len() > 1)?;
    let moved = |index: &Index| index.axes().contains(&axis);
    let bound = |id: &ExprId| {
        tile.cone(*id).iter().any(|id| match &tile.exprs[*id] {
            Expr::Index(index) => moved(index),
            Expr::Load(load) => load.index.iter().any(moved),
            Expr::Stage(_) => true,
            Expr::Const(_) | Expr::Apply(..) | Expr::Cast(..) => false,
        })
    };
    let moves = loads.iter().any(|load| load.index.iter().any(moved)) || bounds.iter().flatten().any(bound);
    (!moves).then_some(axis)
}

/// Whether an expression depends on grid axes alone.
fn on_grid(tile: &TileProgram, root: ExprId) -> bool {
    let inside = |index: &Index| index.axes().iter().all(|axis| tile.grid.contains(axis));
    tile.cone(root).iter().all(|id| match &tile.exprs[*id] {
        Expr::Index(index) => inside(index),
        Expr::Load(load) => load.index.iter().all(inside),
        Expr::Stage(_) => false,
        Expr::Const(_) | Expr::Apply(..) | Expr::Cast(..) => true,
    })
}

fn stores(tile: &TileProgram, lanes: AxisId) -> Result<Vec<StageId>, String> {
    let mut stores = Vec::new();
    for (number, stage) in tile.stages.iter().enumerate() {
        match stage {
            Stage::Store { axes, .. } if *axes == [lanes] => stores.push(StageId(number as u32)),
            Stage::Store { axes, .. } => {
                return Err(format!("stores over the lanes {lanes} are wanted, found one over {axes:?}"));
            }
            Stage::Online { .. } | Stage::Mma { .. } => {}
            Stage::Reduce { .. } => return Err("a reduction beside attention".into()),
        }
    }
    Ok(stores)
}

/// The largest parts of an index that depend on the token but not on the position.
fn collect_contexts(index: &Index, tokens: AxisId, context: AxisId, found: &mut Vec<Index>) {
    let has = |index: &Index, axis: AxisId| index.axes().contains(&axis);
    if !has(index, tokens) {
        return;
    }
    for (atom, _) in &index.terms {
        let part = Index::atom(atom.clone());
        if !has(&part, tokens) {
            continue;
        }
        if !has(&part, context) {
            if !found.contains(&part) {
                found.push(part);
            }
            continue;
        }
        match atom {
            Atom::Axis(_) => {}
            Atom::Div(inner, _) | Atom::Mod(inner, _) => collect_contexts(inner, tokens, context, found),
            Atom::Load(load) => {
                load.index.iter().for_each(|index| collect_contexts(index, tokens, context, found));
            }
        }
    }
}

/// Splits of the longest context: how many pieces of the grid's last factor there are.
pub fn context_extent(tile: &TileProgram, attend: &Attend) -> Dim {
    tile.axes[attend.context].extent
}

impl fmt::Display for Attend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizes { depth, lanes, group } = self.sizes;
        let how = match (self.tensor, &self.coded) {
            (true, None) => "tensor cores",
            (true, Some(_)) => "tensor cores on codes",
            (false, _) => "chains",
        };
        write!(
            f,
            "attend {} group {group}, {} depth {depth}, {} lanes {lanes}, {how}",
            self.tokens, self.dot, self.online
        )
    }
}

impl fmt::Display for AttendSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttendSchedule::Rows { warps } => write!(f, "rows, {warps} warps"),
            AttendSchedule::Splits { stages } => write!(f, "splits of {SPLIT}, {stages} stages"),
            AttendSchedule::Tiles { warps, stages } => {
                write!(f, "tiles of {} rows, {stages} stages", warps * FRAGMENT)
            }
            AttendSchedule::Warpgroups { groups, stages } => {
                write!(f, "warpgroups of {} rows, {stages} stages", groups * GROUP_ROWS)
            }
        }
    }
}
