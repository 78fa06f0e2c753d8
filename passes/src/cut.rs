//! Cutting the graph at the residual stream.
//!
//! A value is *hidden* if it depends on rows gathered from a weight: the embeddings and all that follows. Where exactly
//! one hidden value is live, the graph is cut; between two cuts lies a block. Everything else (positions, rotation
//! tables, masks, slots) is cheap or shared, and each block takes its own copy. Blocks that differ only in the names
//! of their weights and states are one distinct block: work grows with the distinct blocks, not with the layers.

use sinter_ir::{Graph, GraphError, IdVec, Op, ValueId};
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
    let mut copied = vec![(ValueId(0), usize::MAX); graph.nodes.len()];
    for (number, segment) in segments(graph, &hidden).into_iter().enumerate() {
        let mut builder = BlockBuilder::new(graph, entry, &mut copied, number);
        builder.outputs(&segment)?;
        let (graph, names) = (builder.block, builder.names);
        // There are few distinct blocks, and different ones differ early: comparing is cheaper than hashing.
        let index = cut.blocks.iter().position(|block| block.graph == graph).unwrap_or(cut.blocks.len());
        if index == cut.blocks.len() {
            cut.blocks.push(Block { graph });
        }
        cut.instances.push(Instance { block: index, names });
        entry = segment.exit;
    }
    Ok(cut)
}

/// Which values depend on rows gathered from a weight.
pub fn hidden_values(graph: &Graph) -> IdVec<ValueId, bool> {
    let mut hidden: IdVec<ValueId, bool> = IdVec::default();
    for (_, node) in graph.nodes.iter() {
        let gathers =
            matches!(node.op, Op::Gather {}) && matches!(graph.node(node.args[0]).op, Op::Param { .. });
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
    let mut last_use: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for (value, node) in graph.nodes.iter().filter(|(value, _)| hidden[*value]) {
        last_use.extend(node.args.iter().filter(|arg| hidden[**arg]).map(|arg| (*arg, value)));
    }
    let finals: BTreeSet<ValueId> = graph.outputs.iter().map(|(_, value)| *value).collect();
    let mut live = BTreeSet::new();
    let (mut found, mut outputs) = (Vec::new(), Vec::new());
    for value in graph.nodes.ids().filter(|value| hidden[*value]) {
        live.retain(|arg| last_use.get(arg) != Some(&value));
        if last_use.contains_key(&value) {
            live.insert(value);
        }
        if finals.contains(&value) {
            outputs.extend(graph.outputs.iter().filter(|(_, output)| *output == value).cloned());
        }
        let is_cut = live.len() == 1 && live.contains(&value) && is_residual_add(graph, value);
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

struct BlockBuilder<'a> {
    source: &'a Graph,
    entry: Option<ValueId>,
    block: Graph,
    /// The copy of each value of the source, and the number of the block that made it.
    copied: &'a mut Vec<(ValueId, usize)>,
    number: usize,
    /// Canonical name to real name, and back.
    names: BTreeMap<String, String>,
    canonical: HashMap<String, String>,
    weights: usize,
    states: usize,
}

impl<'a> BlockBuilder<'a> {
    fn new(
        source: &'a Graph,
        entry: Option<ValueId>,
        copied: &'a mut Vec<(ValueId, usize)>,
        number: usize,
    ) -> Self {
        Self {
            source,
            entry,
            block: Graph::new("block"),
            copied,
            number,
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
            let node = self.source.node(value);
            let is_entry = self.entry == Some(value);
            let waiting = node.args.iter().find(|arg| !self.is_copied(**arg));
            if let (false, Some(arg)) = (is_entry || self.is_copied(value), waiting) {
                stack.push(*arg);
                continue;
            }
            stack.pop();
            if !self.is_copied(value) {
                let copy = self.copy_node(value, is_entry)?;
                self.copied[value.0 as usize] = (copy, self.number);
            }
        }
        Ok(self.copied[root.0 as usize].0)
    }

    fn is_copied(&self, value: ValueId) -> bool {
        self.copied[value.0 as usize].1 == self.number
    }

    fn copy_node(&mut self, value: ValueId, is_entry: bool) -> Result<ValueId, GraphError> {
        let node = self.source.node(value);
        if is_entry {
            return self.block.input(RESIDUAL, node.ty.dtype, &node.ty.shape);
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
        let args: Vec<ValueId> = node.args.iter().map(|arg| self.copied[arg.0 as usize].0).collect();
        // The types are those of the source, so they need not be inferred again.
        Ok(self.block.nodes.push(sinter_ir::Node { op, args, ty: node.ty.clone() }))
    }
}
