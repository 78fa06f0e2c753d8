//! Cutting the graph at the residual stream.
//!
//! A value is *hidden* if it depends on rows gathered from a weight: the embeddings and all that follows. Where exactly
//! one hidden value is live, the graph is cut; between two cuts lies a block. Everything else (positions, rotation
//! tables, masks, slots) is cheap or shared, and each block takes its own copy. Blocks that differ only in the names
//! of their weights and states are one distinct block: work grows with the distinct blocks, not with the layers. A
//! segment is copied only if it is no block yet; a repeated one is recognised in place.
//!
//! A state that one block updates and a later one reads crosses the cut without being the residual stream: it lies in memory
//! anyway, and the later block reads it as a state of its own.

use crate::merge::weights_only;
use sinter_ir::{Graph, GraphError, IdVec, Node, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The name of a block's hidden input and of its hidden output.
pub const RESIDUAL: &str = "residual";

/// A block in canonical names, used once or many times.
#[derive(Debug, Clone)]
pub struct Block {
    /// The block's graph; weights are `w0`, `w1`, …, states `s0`, …; the hidden input and output are [`RESIDUAL`].
    pub graph: Graph,
}

/// One use of a block: what its canonical names stand for.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The position in [`Cut::blocks`].
    pub block: usize,
    /// Canonical name to the graph's name, of weights, states and outputs.
    pub names: BTreeMap<String, String>,
}

/// The graph as distinct blocks and their uses in order.
#[derive(Debug, Clone, Default)]
pub struct Cut {
    /// The distinct blocks.
    pub blocks: Vec<Block>,
    /// The uses, in order.
    pub instances: Vec<Instance>,
}

/// Cuts a graph at its residual stream.
pub fn cut(graph: &Graph) -> Result<Cut, GraphError> {
    let hidden = hidden_values(graph);
    let mut cut = Cut::default();
    let mut entry = None;
    let mut marks = Marks::new(graph);
    for segment in segments(graph, &hidden) {
        let again = cut.blocks.iter().enumerate().find_map(|(index, block)| {
            let names = Matcher::new(graph, entry, &block.graph, &mut marks).names(&segment)?;
            Some(Instance { block: index, names })
        });
        let instance = match again {
            Some(instance) => instance,
            None => {
                let mut builder = BlockBuilder::new(graph, entry, &mut marks);
                builder.outputs(&segment)?;
                let (graph, names) = (builder.block, builder.names);
                // There are few distinct blocks, and different ones differ early: comparing is cheaper than hashing.
                let known = cut.blocks.iter().position(|block| block.graph == graph);
                let block = known.unwrap_or(cut.blocks.len());
                if known.is_none() {
                    cut.blocks.push(Block { graph });
                }
                Instance { block, names }
            }
        };
        cut.instances.push(instance);
        entry = segment.exit;
    }
    Ok(cut)
}

/// Which values depend on rows gathered from a weight.
pub fn hidden_values(graph: &Graph) -> IdVec<ValueId, bool> {
    let mut hidden: IdVec<ValueId, bool> = IdVec::default();
    let weights = weights_only(graph);
    for (_, node) in graph.nodes.iter() {
        let gathers = matches!(node.op, Op::Gather {}) && weights[node.args[0]] && !weights[node.args[1]];
        let inherits = node.args.iter().any(|arg| hidden[*arg]);
        let entry = matches!(&node.op, Op::Input { name, .. } if name == RESIDUAL);
        hidden.push(gathers || inherits || entry);
    }
    hidden
}

/// A stretch of hidden nodes: where it ends, and the graph outputs computed in it.
struct Segment {
    exit: Option<ValueId>,
    outputs: Vec<(String, ValueId)>,
}

fn segments(graph: &Graph, hidden: &IdVec<ValueId, bool>) -> Vec<Segment> {
    let mut last_use: IdVec<ValueId, Option<ValueId>> = graph.nodes.ids().map(|_| None).collect();
    for (value, node) in graph.nodes.iter().filter(|(value, _)| hidden[*value]) {
        node.args.iter().filter(|arg| hidden[**arg]).for_each(|arg| last_use[*arg] = Some(value));
    }
    let mut finals: BTreeMap<ValueId, Vec<&String>> = BTreeMap::new();
    for (name, value) in &graph.outputs {
        finals.entry(*value).or_default().push(name);
    }
    let mut live = BTreeSet::new();
    let (mut found, mut outputs) = (Vec::new(), Vec::new());
    for value in graph.nodes.ids().filter(|value| hidden[*value]) {
        for arg in graph.node(value).args.iter().filter(|arg| last_use[**arg] == Some(value)) {
            live.remove(arg);
        }
        if last_use[value].is_some() {
            live.insert(value);
        }
        if let Some(names) = finals.get(&value) {
            outputs.extend(names.iter().map(|name| (name.to_string(), value)));
        }
        // What an earlier block left in a state crosses the cut in that state.
        let in_memory = |value: &ValueId| is_update(graph, *value) && finals.contains_key(value);
        let others = live.iter().filter(|other| **other != value).all(in_memory);
        let is_cut = live.contains(&value) && others && is_residual_add(graph, value);
        if is_cut {
            found.push(Segment { exit: Some(value), outputs: std::mem::take(&mut outputs) });
        }
    }
    let rest = graph.outputs.iter().filter(|(_, value)| !hidden[*value]).cloned();
    outputs.extend(rest);
    found.push(Segment { exit: None, outputs });
    found.retain(|segment| segment.exit.is_some() || !segment.outputs.is_empty());
    found
}

/// A cut in the middle of a chain of maps would only break fusions: cut after sums of two hidden values, the residual
/// additions, and after nothing else.
fn is_residual_add(graph: &Graph, value: ValueId) -> bool {
    let node = graph.node(value);
    matches!(node.op, Op::Map(sinter_ir::ScalarOp::Add))
        && node.ty.rank() == 2
        && node.args.iter().all(|arg| graph.ty(*arg).shape == node.ty.shape)
}

fn is_update(graph: &Graph, value: ValueId) -> bool {
    matches!(graph.node(value).op, Op::Scatter {})
}

/// The name of the state that an earlier block updated, if `value` is that update seen from behind the cut at `entry`.
fn updated_before(graph: &Graph, entry: Option<ValueId>, value: ValueId) -> Option<&str> {
    let before = entry.is_some_and(|entry| value < entry) && is_update(graph, value);
    let mut state = value;
    while before && is_update(graph, state) {
        state = graph.node(state).args[0];
    }
    graph.node(state).op.leaf_name().filter(|_| before)
}

/// For each value of a graph its counterpart in a block. One table serves all blocks: an entry counts only if it is of
/// the latest round.
struct Marks {
    entries: IdVec<ValueId, (ValueId, usize)>,
    round: usize,
}

impl Marks {
    fn new(graph: &Graph) -> Self {
        Self { entries: graph.nodes.ids().map(|_| (ValueId(0), 0)).collect(), round: 0 }
    }

    /// Forgets all counterparts.
    fn clear(&mut self) {
        self.round += 1;
    }

    fn get(&self, value: ValueId) -> Option<ValueId> {
        let (counterpart, round) = self.entries[value];
        (round == self.round).then_some(counterpart)
    }

    fn set(&mut self, value: ValueId, counterpart: ValueId) {
        self.entries[value] = (counterpart, self.round);
    }
}

/// Recognises a segment as a block that is known, without copying it: walks both from the outputs to the leaves and
/// compares node with node.
struct Matcher<'a> {
    source: &'a Graph,
    entry: Option<ValueId>,
    block: &'a Graph,
    marks: &'a mut Marks,
    /// The source's counterpart of each value of the block.
    pairs: IdVec<ValueId, Option<ValueId>>,
}

impl<'a> Matcher<'a> {
    fn new(source: &'a Graph, entry: Option<ValueId>, block: &'a Graph, marks: &'a mut Marks) -> Self {
        marks.clear();
        Self { source, entry, block, marks, pairs: IdVec::default() }
    }

    /// What the block's names stand for in the segment; none if the segment is another block.
    fn names(mut self, segment: &Segment) -> Option<BTreeMap<String, String>> {
        let roots = segment.outputs.iter().map(|(_, value)| *value).chain(segment.exit);
        let named = self.block.outputs.last().is_some_and(|(name, _)| name == RESIDUAL);
        if named != segment.exit.is_some() || self.block.outputs.len() != roots.clone().count() {
            return None;
        }
        self.pairs = self.block.nodes.ids().map(|_| None).collect();
        for ((_, twin), value) in self.block.outputs.iter().zip(roots) {
            self.pair(*twin, value)?;
        }
        let mut names = BTreeMap::new();
        for (twin, node) in self.block.nodes.iter().rev() {
            // Each node of a block is below an output, so its users have paired it.
            let value = self.pairs[twin]?;
            if !self.same(node, value) {
                return None;
            }
            let original = self.source.node(value);
            // Of the entry the block has an input, which has no operands.
            for (twin, value) in node.args.iter().zip(&original.args) {
                self.pair(*twin, *value)?;
            }
            if let Op::Param { name, .. } | Op::State { name, .. } = &node.op {
                let real = updated_before(self.source, self.entry, value).or(original.op.leaf_name())?;
                names.insert(name.clone(), real.to_string());
            }
        }
        self.output_names(segment, &mut names).then_some(names)
    }

    /// Makes two values counterparts; none if one of them has another already.
    fn pair(&mut self, twin: ValueId, value: ValueId) -> Option<()> {
        match (self.pairs[twin], self.marks.get(value)) {
            (None, None) => {
                self.pairs[twin] = Some(value);
                self.marks.set(value, twin);
                Some(())
            }
            (known, back) => (known == Some(value) && back == Some(twin)).then_some(()),
        }
    }

    /// Whether a node of the block is what copying the value would give, up to the names of weights and states.
    fn same(&self, twin: &Node, value: ValueId) -> bool {
        let node = self.source.node(value);
        if self.entry == Some(value) {
            return matches!(&twin.op, Op::Input { name, .. } if name == RESIDUAL) && twin.ty == node.ty;
        }
        if updated_before(self.source, self.entry, value).is_some() {
            return matches!(twin.op, Op::State { .. }) && twin.ty == node.ty;
        }
        let op = match (&twin.op, &node.op) {
            (Op::Param { .. }, Op::Param { .. }) | (Op::State { .. }, Op::State { .. }) => true,
            (a, b) => a == b,
        };
        op && twin.args.len() == node.args.len() && twin.ty == node.ty
    }

    /// Adds the outputs to the names. An output is called after its state where it has one; a block where that differs
    /// is another one.
    fn output_names(&self, segment: &Segment, names: &mut BTreeMap<String, String>) -> bool {
        for ((canonical, _), (name, _)) in self.block.outputs.iter().zip(&segment.outputs) {
            let fits = match names.get(canonical) {
                Some(real) => real == name,
                None => names.values().all(|real| real != name),
            };
            if !fits {
                return false;
            }
            names.insert(canonical.clone(), name.clone());
        }
        true
    }
}

struct BlockBuilder<'a> {
    source: &'a Graph,
    entry: Option<ValueId>,
    block: Graph,
    /// The copy of each value.
    marks: &'a mut Marks,
    /// Canonical name to real name, and back.
    names: BTreeMap<String, String>,
    canonical: HashMap<String, String>,
    weights: usize,
    states: usize,
}

impl<'a> BlockBuilder<'a> {
    fn new(source: &'a Graph, entry: Option<ValueId>, marks: &'a mut Marks) -> Self {
        marks.clear();
        Self {
            source,
            entry,
            block: Graph::new("block"),
            marks,
            names: BTreeMap::new(),
            canonical: HashMap::new(),
            weights: 0,
            states: 0,
        }
    }

    fn outputs(&mut self, segment: &Segment) -> Result<(), GraphError> {
        for (number, (name, value)) in segment.outputs.iter().enumerate() {
            let copy = self.copy(*value)?;
            let canonical = self.canonical.get(name).cloned().unwrap_or_else(|| format!("out{number}"));
            self.names.insert(canonical.clone(), name.clone());
            self.block.output(&canonical, copy);
        }
        if let Some(exit) = segment.exit {
            let copy = self.copy(exit)?;
            self.block.output(RESIDUAL, copy);
        }
        Ok(())
    }

    /// The canonical name of a weight or state; a new one is `prefix` and the next number.
    fn rename(&mut self, prefix: &str, name: &str) -> String {
        if let Some(known) = self.canonical.get(name) {
            return known.clone();
        }
        let count = if prefix == "w" { &mut self.weights } else { &mut self.states };
        let canonical = format!("{prefix}{count}");
        *count += 1;
        self.names.insert(canonical.clone(), name.into());
        self.canonical.insert(name.into(), canonical.clone());
        canonical
    }

    /// Copies a value and all below it, without recursion: cones can be deep.
    fn copy(&mut self, root: ValueId) -> Result<ValueId, GraphError> {
        let mut stack = vec![root];
        while let Some(value) = stack.last().copied() {
            let is_entry = self.entry == Some(value);
            let is_leaf = is_entry || updated_before(self.source, self.entry, value).is_some();
            let done = is_leaf || self.marks.get(value).is_some();
            let waiting = self.source.node(value).args.iter().find(|arg| self.marks.get(**arg).is_none());
            if let (false, Some(arg)) = (done, waiting) {
                stack.push(*arg);
                continue;
            }
            stack.pop();
            if self.marks.get(value).is_none() {
                let copy = self.copy_node(value, is_entry)?;
                self.marks.set(value, copy);
            }
        }
        Ok(self.copied(root))
    }

    /// The copy of a value that has one.
    fn copied(&self, value: ValueId) -> ValueId {
        self.marks.entries[value].0
    }

    fn copy_node(&mut self, value: ValueId, is_entry: bool) -> Result<ValueId, GraphError> {
        let node = self.source.node(value);
        if is_entry {
            return self.block.input(RESIDUAL, node.ty.dtype, &node.ty.shape);
        }
        if let Some(name) = updated_before(self.source, self.entry, value) {
            let name = self.rename("s", name);
            return self.block.state(&name, node.ty.dtype, &node.ty.shape);
        }
        let op = match &node.op {
            Op::Param { name, shape, dtype } => {
                Op::Param { name: self.rename("w", name), shape: shape.clone(), dtype: *dtype }
            }
            Op::State { name, shape, dtype } => {
                Op::State { name: self.rename("s", name), shape: shape.clone(), dtype: *dtype }
            }
            op => op.clone(),
        };
        let args: Vec<ValueId> = node.args.iter().map(|arg| self.copied(*arg)).collect();
        // The types are those of the source, so they need not be inferred again.
        Ok(self.block.nodes.push(Node { op, args, ty: node.ty.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinter_ir::{DType, Dim, ScalarOp, Sym};

    /// The embeddings, then for each pair of weights a residual layer that scales by both.
    fn layers(weights: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::new("layers");
        let ids = graph.input("ids", DType::U32, &[Sym::T.into()]).unwrap();
        let table = graph.param("table", DType::F32, &[Dim::of(8), Dim::of(4)]).unwrap();
        let mut hidden = graph.gather(table, ids).unwrap();
        let mut params: BTreeMap<&str, ValueId> = BTreeMap::new();
        for (a, b) in weights {
            let mut branch = hidden;
            for name in [a, b] {
                let param = *params
                    .entry(name)
                    .or_insert_with(|| graph.param(name, DType::F32, &[Dim::ONE, Dim::of(4)]).unwrap());
                branch = graph.push(Op::Map(ScalarOp::Mul), &[branch, param]).unwrap();
            }
            hidden = graph.push(Op::Map(ScalarOp::Add), &[hidden, branch]).unwrap();
        }
        let last = graph.push(Op::Map(ScalarOp::Exp), &[hidden]).unwrap();
        graph.output("last", last);
        graph
    }

    #[test]
    fn a_repeated_segment_is_recognised_whatever_its_weights_are_called() {
        let cut = cut(&layers(&[("a", "b"), ("c", "d"), ("e", "f"), ("d", "c")])).unwrap();
        let blocks: Vec<usize> = cut.instances.iter().map(|instance| instance.block).collect();
        assert_eq!(blocks, [0, 1, 1, 1, 2]);
        let names: Vec<_> =
            cut.instances[3].names.iter().map(|(name, real)| (&name[..], &real[..])).collect();
        assert_eq!(names, [("w0", "d"), ("w1", "c")]);
    }

    #[test]
    fn a_weight_used_twice_is_not_two_weights() {
        let blocks = |weights| -> Vec<usize> {
            cut(&layers(weights)).unwrap().instances.iter().map(|instance| instance.block).collect()
        };
        assert_eq!(blocks(&[("a", "b"), ("c", "d"), ("e", "e"), ("f", "f")]), [0, 1, 2, 2, 3]);
        assert_eq!(blocks(&[("a", "b"), ("e", "e"), ("c", "d"), ("f", "f")]), [0, 1, 2, 1, 3]);
    }

    #[test]
    fn a_state_that_later_layers_read_crosses_the_cut() {
        let mut graph = Graph::new("shared");
        let ids = graph.input("ids", DType::U32, &[Sym::T.into()]).unwrap();
        let slots = graph.input("slots", DType::U32, &[Sym::T.into()]).unwrap();
        let table = graph.param("table", DType::F32, &[Dim::of(8), Dim::of(4)]).unwrap();
        let cache = graph.state("cache.3", DType::F32, &[Sym::N.into(), Dim::of(4)]).unwrap();
        let mut hidden = graph.gather(table, ids).unwrap();
        let written = graph.scatter(cache, slots, hidden).unwrap();
        for _ in 0..3 {
            let read = graph.gather(written, slots).unwrap();
            hidden = graph.map(ScalarOp::Add, &[hidden, read]).unwrap();
        }
        let last = graph.map(ScalarOp::Exp, &[hidden]).unwrap();
        graph.output("cache.3", written);
        graph.output("last", last);
        let cut = cut(&graph).unwrap();
        let blocks: Vec<usize> = cut.instances.iter().map(|instance| instance.block).collect();
        assert_eq!(blocks, [0, 1, 1, 2]);
        for reader in &cut.instances[1..3] {
            assert_eq!(reader.names.get("s0").map(String::as_str), Some("cache.3"));
            let outputs: Vec<&str> = cut.blocks[1].graph.outputs.iter().map(|(name, _)| &name[..]).collect();
            assert_eq!(outputs, [RESIDUAL]);
        }
    }
}
