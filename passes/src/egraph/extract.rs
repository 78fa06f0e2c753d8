//! Extraction: which node of each e-class to keep. Costs are of the *set* of chosen nodes, so sharing is free; a tree
//! cost would count the residual stream twice a block and drown every fusion.

use super::{EGraph, Facts, Head, Node};
use egg::{Id, Language};
use sinter_ir::Op;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The chosen node of each class.
pub type Choice = BTreeMap<Id, Node>;

/// What a kernel launch costs, in elements moved.
const LAUNCH: f64 = 512.0;

/// The cost of one node: elements that it moves or computes at typical symbol values. Views are index arithmetic and
/// almost free. What depends on weights alone is computed once, but a changed weight must be stored again.
pub fn node_cost(egraph: &EGraph, node: &Node) -> f64 {
    let Some((op, operands)) = Facts::op_of(egraph, node) else { return 0.0 };
    let elements = |id: Id| egraph[id].data.ty.as_ref().map_or(0.0, |ty| ty.typical());
    let types: Vec<_> = operands.iter().filter_map(|id| egraph[*id].data.ty.as_ref()).collect();
    let out = sinter_ir::infer(&op, &types).map_or(f64::INFINITY, |ty| ty.typical());
    let weights_only = !operands.is_empty() && operands.iter().all(|id| egraph[*id].data.weights_only);
    match op {
        Op::Input { .. } | Op::Param { .. } | Op::State { .. } | Op::Const { .. } | Op::Iota { .. } => 0.0,
        _ if (op.is_view() || matches!(op, Op::Concat { .. })) && weights_only => 0.01,
        _ if op.is_view() || matches!(op, Op::Concat { .. }) => 0.02,
        _ if weights_only && out > 1.0 => 4.0 * out,
        // What is read twice is read once.
        Op::Gather {} => 0.1 * out.min(elements(operands[0])),
        // A product with a weight reads the weight once, in panels if it is stored by output column; one of two
        // activations also writes what it multiplies.
        Op::Contract { ref spec } if egraph[operands[1]].data.weights_only => {
            let by_column = sinter_ir::Einsum::parse("tk,nk->tn").as_ref() == Some(spec);
            out + elements(operands[1]) * if by_column { 1.0 } else { 4.0 }
        }
        Op::Contract { .. } => LAUNCH + out + elements(operands[0]) + elements(operands[1]),
        Op::Attend { .. } => LAUNCH + out,
        Op::TopK { .. } => LAUNCH + elements(operands[0]),
        Op::Reduce { .. } => elements(operands[0]),
        Op::Map(_) | Op::Cast { .. } => out,
        Op::Scatter {} => elements(operands[2]),
        _ => out,
    }
}

/// The greedy choice: each class keeps the node whose set of chosen nodes below it is cheapest, until nothing changes.
/// A node whose set would contain its own class is never taken, so the result has no cycle.
pub fn extract_greedy(egraph: &EGraph, root: Id) -> (Choice, f64) {
    let mut best: BTreeMap<Id, (f64, BTreeMap<Id, f64>, Node)> = BTreeMap::new();
    let mut parents: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
    let mut classes: Vec<Id> = egraph.classes().map(|class| class.id).collect();
    classes.sort_unstable();
    for class in &classes {
        for child in egraph[*class].nodes.iter().flat_map(|node| node.children()) {
            parents.entry(egraph.find(*child)).or_default().insert(*class);
        }
    }
    let mut queue: VecDeque<Id> = classes.iter().copied().collect();
    let mut queued: BTreeSet<Id> = classes.iter().copied().collect();
    while let Some(class) = queue.pop_front() {
        queued.remove(&class);
        let mut changed = false;
        for node in &egraph[class].nodes {
            let Some(set) = cost_set(egraph, &best, class, node) else { continue };
            let total: f64 = set.values().sum();
            if best.get(&class).is_none_or(|(known, ..)| total + 1e-9 < *known) {
                best.insert(class, (total, set, node.clone()));
                changed = true;
            }
        }
        if changed {
            let above = parents.get(&class).into_iter().flatten();
            above.filter(|parent| queued.insert(**parent)).for_each(|parent| queue.push_back(*parent));
        }
    }
    let total = best.get(&egraph.find(root)).map_or(f64::INFINITY, |(total, ..)| *total);
    (best.into_iter().map(|(class, (_, _, node))| (class, node)).collect(), total)
}

fn cost_set(
    egraph: &EGraph,
    best: &BTreeMap<Id, (f64, BTreeMap<Id, f64>, Node)>,
    class: Id,
    node: &Node,
) -> Option<BTreeMap<Id, f64>> {
    let mut set = BTreeMap::new();
    for child in node.children() {
        let (_, below, _) = best.get(&egraph.find(*child))?;
        set.extend(below.iter().map(|(id, cost)| (*id, *cost)));
    }
    let cost = if matches!(node.head, Head::Op(_)) { node_cost(egraph, node) } else { 0.0 };
    (set.insert(class, cost).is_none()).then_some(set)
}

/// A random legal choice: every class takes the node that is cheapest under random node costs, so it has no cycle.
/// All such choices compute the same; the tests evaluate them.
pub fn extract_random(egraph: &EGraph, mut seed: u64) -> Choice {
    let mut random = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as f64 / (1u64 << 31) as f64
    };
    let mut classes: Vec<Id> = egraph.classes().map(|class| class.id).collect();
    classes.sort_unstable();
    let weights: BTreeMap<(Id, usize), f64> = classes
        .iter()
        .flat_map(|class| (0..egraph[*class].nodes.len()).map(move |at| (*class, at)))
        .map(|key| (key, 1.0 + 50.0 * random()))
        .collect();
    let mut best: BTreeMap<Id, (f64, usize)> = BTreeMap::new();
    loop {
        let mut changed = false;
        for class in &classes {
            for (at, node) in egraph[*class].nodes.iter().enumerate() {
                let below: Option<Vec<f64>> = node
                    .children()
                    .iter()
                    .map(|child| best.get(&egraph.find(*child)).map(|(cost, _)| *cost))
                    .collect();
                let Some(below) = below else { continue };
                let cost = weights[&(*class, at)] + below.into_iter().fold(0.0, f64::max);
                if best.get(class).is_none_or(|(known, _)| cost < *known) {
                    best.insert(*class, (cost, at));
                    changed = true;
                }
            }
        }
        if !changed {
            return best.iter().map(|(class, (_, at))| (*class, egraph[*class].nodes[*at].clone())).collect();
        }
    }
}

/// The exact choice by branch and bound, for small e-graphs: the oracle of the greedy one.
/// Returns none when it would take more than `budget` steps.
pub fn extract_exact(egraph: &EGraph, root: Id, budget: usize) -> Option<f64> {
    let mut search = Exact { egraph, budget, best: extract_greedy(egraph, root).1 + 1e-6 };
    let mut chosen = BTreeMap::new();
    let complete = search.run(&mut vec![egraph.find(root)], &mut chosen, 0.0);
    complete.then_some(search.best)
}

struct Exact<'a> {
    egraph: &'a EGraph,
    budget: usize,
    best: f64,
}

impl Exact<'_> {
    /// Chooses a node for each class that is needed; false when the budget is spent.
    fn run(&mut self, open: &mut Vec<Id>, chosen: &mut BTreeMap<Id, Node>, cost: f64) -> bool {
        if self.budget == 0 {
            return false;
        }
        self.budget -= 1;
        while open.last().is_some_and(|class| chosen.contains_key(class)) {
            open.pop();
        }
        let Some(class) = open.last().copied() else {
            if cost < self.best && acyclic(self.egraph, chosen) {
                self.best = cost;
            }
            return true;
        };
        for node in &self.egraph[class].nodes {
            let total =
                cost + if matches!(node.head, Head::Op(_)) { node_cost(self.egraph, node) } else { 0.0 };
            if total >= self.best {
                continue;
            }
            let mut below = open.clone();
            below.pop();
            below.extend(node.children().iter().map(|child| self.egraph.find(*child)));
            chosen.insert(class, node.clone());
            let complete = self.run(&mut below, chosen, total);
            chosen.remove(&class);
            if !complete {
                return false;
            }
        }
        true
    }
}

fn acyclic(egraph: &EGraph, chosen: &BTreeMap<Id, Node>) -> bool {
    let mut order = petgraph::graphmap::DiGraphMap::<usize, ()>::new();
    for (class, node) in chosen {
        for child in node.children() {
            order.add_edge(usize::from(egraph.find(*child)), usize::from(*class), ());
        }
    }
    !petgraph::algo::is_cyclic_directed(&order)
}
