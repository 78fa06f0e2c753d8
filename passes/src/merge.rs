//! Merging siblings: products of one operand with several weights become one product with the weights joined, in one
//! n-ary step. Q, K and V are found this way. Siblings that meet again element by element (gate and up) are left: they
//! become the accumulators of one kernel, and their results never reach memory.

use sinter_ir::{Einsum, Graph, GraphError, IdVec, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Which values depend on weights and constants only.
pub fn weights_only(graph: &Graph) -> IdVec<ValueId, bool> {
    let mut known: IdVec<ValueId, bool> = IdVec::default();
    for node in graph.nodes.values() {
        known.push(match node.op {
            Op::Param { .. } | Op::Const { .. } => true,
            Op::Input { .. } | Op::State { .. } | Op::Iota { .. } => false,
            _ => node.args.iter().all(|arg| known[*arg]),
        });
    }
    known
}

/// Whether a value is the product of activations with a weight that is stored by output column.
pub fn is_linear(graph: &Graph, weights: &IdVec<ValueId, bool>, value: ValueId) -> bool {
    let node = graph.node(value);
    matches!(&node.op, Op::Contract { spec } if Einsum::parse("tk,nk->tn").as_ref() == Some(spec))
        && weights[node.args[1]]
        && !weights[node.args[0]]
}

/// The stack of weights `[E, N, K]` of which a product reads one matrix for each row, and the value that says which: the
/// grouped contraction. None for any other product.
pub fn stack_of(graph: &Graph, weights: &IdVec<ValueId, bool>, value: ValueId) -> Option<(ValueId, ValueId)> {
    let node = graph.node(value);
    let Op::Contract { spec } = &node.op else { return None };
    let gather = graph.node(node.args[1]);
    let [stack, choice] = gather.args[..] else { return None };
    let grouped = matches!(gather.op, Op::Gather {})
        && weights[stack]
        && !weights[choice]
        && !weights[node.args[0]]
        && graph.ty(stack).rank() == 3
        && graph.ty(stack).shape.iter().all(|dim| dim.as_const().is_some())
        && spec.b.ends_with(&spec.summed())
        && spec.summed().len() == 1
        // The labels of the choice are kept, so that a row of the result belongs to one matrix.
        && spec.b.chars().take(graph.ty(choice).rank() + 1).all(|label| spec.out.contains(label));
    grouped.then_some((stack, choice))
}

/// Whether a value is a product in which each head has a weight of its own, stored by output column: `thk,hnk->thn`.
pub fn is_by_head(graph: &Graph, weights: &IdVec<ValueId, bool>, value: ValueId) -> bool {
    let node = graph.node(value);
    let Op::Contract { spec } = &node.op else { return false };
    let [head, row, depth] = spec.b.as_bytes() else { return false };
    let has = |labels: &str, label: &u8| labels.as_bytes().contains(label);
    weights[node.args[1]]
        && !weights[node.args[0]]
        && (has(&spec.a, head) && has(&spec.out, head))
        && (!has(&spec.a, row) && has(&spec.out, row))
        && (has(&spec.a, depth) && !has(&spec.out, depth))
}

/// The graph with siblings merged, and how many sets were.
pub fn merge_siblings(graph: &Graph) -> Result<(Graph, usize), GraphError> {
    let weights = weights_only(graph);
    let sets = sibling_sets(graph, &weights);
    let count = sets.iter().collect::<BTreeSet<_>>().len();
    let set_of: BTreeMap<ValueId, &Vec<ValueId>> =
        sets.iter().flat_map(|set| set.iter().map(move |value| (*value, set))).collect();
    let mut merged = Graph::new(&graph.name);
    let mut map: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    // Weights come first, so that a joined weight can stand before its first use.
    for (value, node) in graph.nodes.iter().filter(|(value, _)| weights[*value]) {
        let args: Vec<ValueId> = node.args.iter().map(|arg| map[arg]).collect();
        map.insert(value, merged.push(node.op.clone(), &args)?);
    }
    let mut joined: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for (value, node) in graph.nodes.iter().filter(|(value, _)| !weights[*value]) {
        let args: Vec<ValueId> = node.args.iter().map(|arg| map[arg]).collect();
        let copy = match set_of.get(&value) {
            None => merged.push(node.op.clone(), &args)?,
            Some(set) => {
                let product = match joined.get(&set[0]) {
                    Some(product) => *product,
                    None => join(&mut merged, graph, set, &map)?,
                };
                joined.insert(set[0], product);
                part(&mut merged, graph, set, value, product)?
            }
        };
        map.insert(value, copy);
    }
    for (name, value) in &graph.outputs {
        merged.output(name, map[value]);
    }
    Ok((merged, count))
}

/// The product with the joined weights.
fn join(
    merged: &mut Graph,
    graph: &Graph,
    set: &[ValueId],
    map: &BTreeMap<ValueId, ValueId>,
) -> Result<ValueId, GraphError> {
    let parts: Vec<ValueId> = set.iter().map(|value| map[&graph.node(*value).args[1]]).collect();
    let weight = merged.concat(0, &parts)?;
    merged.contract("tk,nk->tn", map[&graph.node(set[0]).args[0]], weight)
}

/// The columns of one sibling.
fn part(
    merged: &mut Graph,
    graph: &Graph,
    set: &[ValueId],
    value: ValueId,
    product: ValueId,
) -> Result<ValueId, GraphError> {
    let columns = |value: ValueId| graph.ty(value).shape[1].as_const().unwrap_or(0) as usize;
    let start = set.iter().take_while(|sibling| **sibling != value).map(|sibling| columns(*sibling)).sum();
    merged.slice(product, 1, start, columns(value))
}

fn sibling_sets(graph: &Graph, weights: &IdVec<ValueId, bool>) -> Vec<Vec<ValueId>> {
    let mut by_operand: BTreeMap<(ValueId, sinter_ir::DType), Vec<ValueId>> = BTreeMap::new();
    for (value, node) in graph.nodes.iter().filter(|(value, _)| is_linear(graph, weights, *value)) {
        by_operand.entry((node.args[0], graph.ty(node.args[1]).dtype)).or_default().push(value);
    }
    let mut sets = Vec::new();
    for siblings in by_operand.into_values() {
        let reach: Vec<BTreeSet<ValueId>> =
            siblings.iter().map(|value| elementwise_reach(graph, *value)).collect();
        let alone = |at: &usize| {
            (0..siblings.len()).all(|other| other == *at || reach[*at].is_disjoint(&reach[other]))
        };
        let set: Vec<ValueId> = (0..siblings.len()).filter(alone).map(|at| siblings[at]).collect();
        if set.len() > 1 {
            sets.push(set);
        }
    }
    sets
}

/// Everything that follows from a value through maps of its own shape.
fn elementwise_reach(graph: &Graph, value: ValueId) -> BTreeSet<ValueId> {
    let mut reach = BTreeSet::from([value]);
    for (user, node) in graph.nodes.iter() {
        let follows = matches!(node.op, Op::Map(_) | Op::Cast { .. })
            && node.ty.shape == graph.ty(value).shape
            && node.args.iter().any(|arg| reach.contains(arg));
        if follows {
            reach.insert(user);
        }
    }
    reach
}
