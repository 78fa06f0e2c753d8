//! Lowering: each materialised value becomes the root of one tile program.
//!
//! The cone of a root, down to other materialised values, is turned into expressions at a point of an iteration space.
//! Views disappear into indices. A contraction or an attention in the cone gives the space its shape, and what lies
//! between it and the root becomes its epilogue; reductions become stages of a row program. Whatever does not fit is
//! refused with the value that must be materialised first, and lowering is tried again with that value as a root of
//! its own, and a missed fusion has a name. What has no program even as a root is an error with its name.

mod anchor;
mod bounds;
mod choice;
mod index;
mod rows;
mod value;

use crate::merge::weights_only;
use sinter_ir::{
    Access, Axis, AxisId, Dim, Graph, IdVec, Index, Layout, Op, ParamId, Stage, TileParam, TileProgram,
    ValueId,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a parameter of a lowered program stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// A materialised value, an input or a state.
    Value(ValueId),
    /// A value that depends on weights only, computed once and stored in this layout.
    Weight(ValueId, Layout),
}

/// One fused group: a root value, its program and what the parameters are.
#[derive(Clone, Debug)]
pub struct Group {
    /// The value that the group computes.
    pub root: ValueId,
    /// The program.
    pub tile: TileProgram,
    /// The source of each parameter; the root's is the value itself.
    pub sources: Vec<Source>,
    /// The values that the group computes on the way, root included.
    pub members: BTreeSet<ValueId>,
    /// What it stores besides the root: the scales of rows whose codes are the root.
    pub besides: Vec<ValueId>,
}

/// Why a value could not stay inside a group.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Split {
    /// What was materialised.
    pub value: String,
    /// Why.
    pub reason: String,
}

/// Lowering met a value that it cannot take in.
pub(crate) struct Refusal {
    value: ValueId,
    reason: &'static str,
}

/// Why a graph cannot be lowered at all.
#[derive(Debug, thiserror::Error)]
#[error("{value} = {op} cannot be lowered: {reason}")]
pub struct LowerError {
    value: ValueId,
    op: String,
    reason: String,
}

/// Lowers a graph to groups in topological order, and reports what had to be split off.
pub fn lower(graph: &Graph) -> Result<(Vec<Group>, Vec<Split>), LowerError> {
    let weights = weights_only(graph);
    let mut materialised = initial_roots(graph, &weights);
    let mut splits = Vec::new();
    'again: loop {
        let mut groups = Vec::new();
        let besides = besides(graph, &weights, &materialised);
        let stored_besides: BTreeSet<ValueId> = besides.values().flatten().copied().collect();
        for root in materialised.iter().copied().filter(|root| !stored_besides.contains(root)) {
            let besides = besides.get(&root).cloned().unwrap_or_default();
            match lower_root(graph, &weights, &materialised, (root, besides)) {
                Ok(group) => groups.push(group),
                Err(refusal) => {
                    let op = graph.node(refusal.value).op.to_string();
                    if !materialised.insert(refusal.value) {
                        return Err(LowerError { value: refusal.value, op, reason: refusal.reason.into() });
                    }
                    if refusal.reason != MEMORY {
                        splits.push(Split { value: op, reason: refusal.reason.into() });
                    }
                    continue 'again;
                }
            }
        }
        if let Some(shared) = shared_anchor(graph, &groups) {
            materialised.insert(shared);
            let op = graph.node(shared).op.to_string();
            splits.push(Split {
                value: op,
                reason: "several groups use it, and it is too costly to compute twice".into(),
            });
            continue;
        }
        return Ok((groups, splits));
    }
}

/// The outputs: what must be in memory whatever is fused.
fn initial_roots(graph: &Graph, weights: &IdVec<ValueId, bool>) -> BTreeSet<ValueId> {
    let scatters =
        graph.nodes.iter().filter(|(_, node)| matches!(node.op, Op::Scatter {})).map(|(value, _)| value);
    let outputs = graph.outputs.iter().map(|(_, value)| *value);
    outputs
        .chain(scatters)
        .filter(|value| !weights[*value] && graph.node(*value).op.leaf_name().is_none())
        .collect()
}

/// Scatters of one number a row that are stored beside another scatter to the same slots, whose rows need the same
/// reductions: the codes of a KV cache and their scales.
fn besides(
    graph: &Graph,
    weights: &IdVec<ValueId, bool>,
    materialised: &BTreeSet<ValueId>,
) -> BTreeMap<ValueId, Vec<ValueId>> {
    let rows = |scatter: ValueId| match graph.node(scatter) {
        node if matches!(node.op, Op::Scatter {}) => Some((node.args[1], node.args[2])),
        _ => None,
    };
    let reductions = |of: ValueId, cone: &mut BTreeSet<ValueId>| {
        let mut stack = vec![of];
        while let Some(value) = stack.pop() {
            let stored = materialised.contains(&value) || weights[value];
            if !stored && cone.insert(value) {
                stack.extend(&graph.node(value).args);
            }
        }
        cone.retain(|value| matches!(graph.node(*value).op, Op::Reduce { .. }));
    };
    let mut found: BTreeMap<ValueId, Vec<ValueId>> = BTreeMap::new();
    for single in materialised.iter().copied() {
        let Some((slots, numbers)) = rows(single) else { continue };
        let shape = &graph.ty(numbers).shape;
        let Some((&Dim::ONE, outer)) = shape.split_last() else { continue };
        let mut wanted = BTreeSet::new();
        reductions(numbers, &mut wanted);
        let wide = materialised.iter().copied().find(|wide| {
            let Some((other, codes)) = rows(*wide).filter(|_| *wide != single) else { return false };
            let (last, others) = graph.ty(codes).shape.split_last().unwrap_or((&Dim::ONE, &[]));
            let mut has = BTreeSet::new();
            reductions(codes, &mut has);
            other == slots && *last != Dim::ONE && others == outer && !has.is_disjoint(&wanted)
        });
        // What the numbers are made of must be there when the codes are.
        if let Some(wide) = wide.filter(|wide| wanted.iter().all(|value| value < wide)) {
            found.entry(wide).or_default().push(single);
        }
    }
    found
}

/// A costly value that more than one group computes.
fn shared_anchor(graph: &Graph, groups: &[Group]) -> Option<ValueId> {
    let hidden = crate::cut::hidden_values(graph);
    let mut owners: BTreeMap<ValueId, usize> = BTreeMap::new();
    for member in groups.iter().flat_map(|group| &group.members) {
        *owners.entry(*member).or_default() += 1;
    }
    let costly = |value: ValueId| {
        let node = graph.node(value);
        match node.op {
            Op::Contract { .. } | Op::Attend { .. } | Op::Reduce { .. } | Op::TopK { .. } => true,
            Op::Map(scalar) => {
                hidden[value] || matches!(scalar, sinter_ir::ScalarOp::Sin | sinter_ir::ScalarOp::Cos)
            }
            _ => false,
        }
    };
    // The last one first: what lies below it may then have one owner only.
    owners.iter().rev().find(|(value, count)| **count > 1 && costly(**value)).map(|(value, _)| *value)
}

/// The state of lowering one root.
pub(crate) struct Lowering<'g> {
    graph: &'g Graph,
    weights: &'g IdVec<ValueId, bool>,
    materialised: &'g BTreeSet<ValueId>,
    root: ValueId,
    tile: TileProgram,
    sources: Vec<Source>,
    members: BTreeSet<ValueId>,
    memo: BTreeMap<(ValueId, Vec<Index>), sinter_ir::ExprId>,
    picks: choice::Picks,
    /// The limits of parameters whose elements are indices.
    below: BTreeMap<ParamId, u64>,
    mode: Mode,
}

/// What may become a stage at this moment.
#[derive(Clone, PartialEq)]
pub(crate) enum Mode {
    /// A row program: reductions over whole rows.
    Rows,
    /// The epilogue of the contraction or attention whose result has these indices.
    Epilogue(Vec<Index>),
    /// The score of an attention: one contraction over the head dimension.
    Score,
}

fn lower_root(
    graph: &Graph,
    weights: &IdVec<ValueId, bool>,
    materialised: &BTreeSet<ValueId>,
    (root, besides): (ValueId, Vec<ValueId>),
) -> Result<Group, Refusal> {
    let mut lowering = Lowering {
        graph,
        weights,
        materialised,
        root,
        tile: TileProgram::default(),
        sources: Vec::new(),
        members: BTreeSet::from([root]),
        memo: BTreeMap::new(),
        picks: choice::Picks::new(),
        below: BTreeMap::new(),
        mode: Mode::Rows,
    };
    match lowering.find_anchor()? {
        None => {
            lowering.rows()?;
            for single in &besides {
                lowering.store_beside(*single)?;
            }
        }
        Some(anchor) if !besides.is_empty() => {
            return Err(lowering.refuse(anchor, "a reduction follows a product"));
        }
        Some(anchor) if matches!(graph.node(anchor).op, Op::Attend { .. }) => lowering.attention(anchor)?,
        Some(anchor) => lowering.contraction(anchor)?,
    }
    let Lowering { mut tile, sources, members, .. } = lowering;
    tile.name = structure(&tile).into();
    Ok(Group { root, tile, sources, members, besides })
}

/// The structure that decides a program's kernel skeleton.
pub fn structure(tile: &TileProgram) -> &'static str {
    let has = |test: fn(&Stage) -> bool| tile.stages.iter().any(test);
    if has(|stage| matches!(stage, Stage::Online { .. })) {
        "attend"
    } else if has(|stage| matches!(stage, Stage::Mma { .. })) {
        "contract"
    } else if has(|stage| matches!(stage, Stage::Reduce { .. })) {
        "rows"
    } else {
        "map"
    }
}

impl Lowering<'_> {
    pub(crate) fn axis(&mut self, name: &str, extent: Dim) -> AxisId {
        self.tile.axes.push(Axis { name: name.into(), extent })
    }

    /// The parameter through which a source is seen under a shape.
    pub(crate) fn param(&mut self, source: Source, shape: &[Dim], access: Access) -> ParamId {
        let value = match source {
            Source::Value(value) | Source::Weight(value, _) => value,
        };
        let layout = if let Source::Weight(_, layout) = source { layout } else { Layout::Rows };
        let ty = sinter_ir::Type::new(self.graph.ty(value).dtype, shape);
        for (id, param) in self.tile.params.iter() {
            if self.sources[id.0 as usize] == source && param.ty == ty && param.access == access {
                return id;
            }
        }
        let name = match self.graph.node(value).op.leaf_name() {
            Some(name) => name.to_string(),
            None => format!("v{}", value.0),
        };
        self.sources.push(source);
        let id = self.tile.params.push(TileParam { name, ty, access, layout });
        self.below.extend(self.limit(value).map(|limit| (id, limit)));
        id
    }

    /// What is known about the indices that the program builds.
    pub(crate) fn space(&self) -> index::Space<'_> {
        index::Space { tile: &self.tile, below: &self.below }
    }

    /// Where the root is stored: a state for a scatter, else a buffer of its own, seen under the given shape.
    pub(crate) fn store(&mut self, axes: Vec<AxisId>, at: &[Index], shape: &[Dim]) -> Result<(), Refusal> {
        let node = self.graph.node(self.root);
        let source = Source::Value(self.root);
        if let Op::Scatter {} = node.op {
            let rows_shape = &self.graph.ty(node.args[2]).shape;
            let index =
                index::reshape(self.space(), at, shape, rows_shape).ok_or(self.refuse(self.root, RESHAPE))?;
            return self.store_rows(self.root, axes, &index);
        }
        let index =
            index::reshape(self.space(), at, shape, &node.ty.shape).ok_or(self.refuse(self.root, RESHAPE))?;
        let value = self.value(self.root, &index)?;
        let param = self.param(source, shape, Access::Write);
        self.tile.stages.push(Stage::Store { axes, param, index: at.to_vec(), value });
        Ok(())
    }

    /// Stores rows of a scatter at these indices into its state.
    fn store_rows(&mut self, scatter: ValueId, axes: Vec<AxisId>, index: &[Index]) -> Result<(), Refusal> {
        let node = self.graph.node(scatter);
        let (slots, rows) = (node.args[1], node.args[2]);
        let value = self.value(rows, index)?;
        let rank = self.graph.ty(slots).rank();
        let mut target = vec![self.index_of(slots, &index[..rank])?];
        target.extend_from_slice(&index[rank..]);
        let param = self.param(Source::Value(scatter), &node.ty.shape, Access::Write);
        self.tile.stages.push(Stage::Store { axes, param, index: target, value });
        Ok(())
    }

    /// Stores the one number of each row that a scatter has, at the grid's points.
    fn store_beside(&mut self, scatter: ValueId) -> Result<(), Refusal> {
        self.members.insert(scatter);
        let grid = self.tile.grid.iter().copied().map(Index::axis);
        let index: Vec<Index> = grid.chain([Index::constant(0)]).collect();
        self.store_rows(scatter, Vec::new(), &index)
    }

    pub(crate) fn refuse(&self, value: ValueId, reason: &'static str) -> Refusal {
        Refusal { value, reason }
    }
}

/// The reason that is no missed fusion: products and gathers read their operands from memory.
pub(crate) const MEMORY: &str = "a product or a gather reads it from memory";
/// The reason for a refused reshape.
pub(crate) const RESHAPE: &str = "its shape does not follow the iteration space";
