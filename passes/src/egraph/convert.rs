//! From a graph to an e-graph term, and from a choice of nodes back to a graph.

use super::language::op_name;
use super::{Choice, EGraph, Facts, Head, Node};
use egg::{Id, RecExpr};
use petgraph::algo::toposort;
use petgraph::graph::DiGraph;
use sinter_ir::{Graph, GraphError, ValueId};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Why a choice of nodes is no graph.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The extractor chose nodes that depend on each other.
    #[error("the extractor chose a cycle")]
    Cycle,
    /// A rule built an ill-typed node.
    #[error("a rule built an ill-typed node: {0}")]
    Type(#[from] GraphError),
}

/// The graph as one term whose root joins the outputs, and the term's id of each value.
pub fn to_expr(graph: &Graph) -> (RecExpr<Node>, Vec<Id>) {
    let mut expr = RecExpr::default();
    let mut ids: Vec<Id> = Vec::with_capacity(graph.nodes.len());
    for node in graph.nodes.values() {
        let attrs = node.op.attrs();
        let mut children: Vec<Id> = attrs
            .into_iter()
            .map(|attr| expr.add(Node { head: Head::Attr(attr), children: vec![] }))
            .collect();
        children.extend(node.args.iter().map(|arg| ids[arg.0 as usize]));
        let name = op_name(node.op.name()).unwrap_or("op");
        ids.push(expr.add(Node { head: Head::Op(name), children }));
    }
    let roots = graph.outputs.iter().map(|(_, value)| ids[value.0 as usize]).collect();
    expr.add(Node { head: Head::Roots, children: roots });
    (expr, ids)
}

/// The graph of the chosen nodes below `root`, with the outputs named as in `like`. Nodes come in topological order,
/// ties by class number; a choice with a cycle is a bug of the extractor and is refused.
pub fn to_graph(egraph: &EGraph, root: Id, choice: &Choice, like: &Graph) -> Result<Graph, ConvertError> {
    let mut order: DiGraph<Id, ()> = DiGraph::new();
    let mut index = BTreeMap::new();
    let mut stack = vec![egraph.find(root)];
    while let Some(class) = stack.pop() {
        if let Entry::Vacant(entry) = index.entry(class) {
            entry.insert(order.add_node(class));
            stack.extend(choice[&class].children.iter().map(|child| egraph.find(*child)));
        }
    }
    for (class, at) in &index {
        for child in &choice[class].children {
            order.add_edge(index[&egraph.find(*child)], *at, ());
        }
    }
    let sorted = toposort(&order, None).map_err(|_| ConvertError::Cycle)?;
    let mut graph = Graph::new(&like.name);
    let mut values: BTreeMap<Id, ValueId> = BTreeMap::new();
    for class in sorted.into_iter().map(|at| order[at]) {
        let Some((op, operands)) = Facts::op_of(egraph, &choice[&class]) else { continue };
        let args: Vec<ValueId> = operands.iter().map(|operand| values[&egraph.find(*operand)]).collect();
        values.insert(class, graph.push(op, &args)?);
    }
    let roots = &choice[&egraph.find(root)].children;
    for ((name, _), child) in like.outputs.iter().zip(roots) {
        graph.output(name, values[&egraph.find(*child)]);
    }
    Ok(graph)
}
