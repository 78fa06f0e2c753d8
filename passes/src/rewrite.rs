//! Running the rules on one block: normalise, then fold, then fuse, in one e-graph; then the cheapest graph is taken out.

use crate::egraph::ConvertError;
use crate::egraph::{EGraph, Facts, extract_exact, extract_greedy, extract_random, to_expr, to_graph};
use crate::rules::{Class, Phase, Rule};
use egg::{Id, Rewrite, Runner};
use sinter_ir::Graph;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bounds on the work, so that no graph can make the compiler run away.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nodes in the e-graph.
    pub nodes: usize,
    /// Rounds of one phase.
    pub iterations: usize,
    /// Time of one phase.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nodes: 20_000, iterations: 24, time: Duration::from_secs(2) }
    }
}

/// What one rule did in one block.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Firing {
    /// The rule.
    pub rule: String,
    /// Its class.
    pub class: Class,
    /// When it runs.
    pub phase: Phase,
    /// How many equalities it added.
    pub added: usize,
    /// Whether its left-hand side is gone from the result: if not, the other form was cheaper.
    pub kept: bool,
    /// Why its guard refused matches.
    pub refused: Vec<String>,
}

/// What rewriting one block did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct RewriteReport {
    /// The rules that matched something.
    pub firings: Vec<Firing>,
    /// Nodes in the e-graph at the end.
    pub nodes: usize,
    /// Why each phase stopped.
    pub stops: Vec<String>,
    /// The cost of the block as it came.
    pub cost_before: f64,
    /// The cost of the chosen graph.
    pub cost_after: f64,
}

/// Rewrites a block. The result computes the same over the reals.
pub fn rewrite(
    graph: &Graph,
    rules: &[Rule],
    limits: &Limits,
) -> Result<(Graph, RewriteReport), ConvertError> {
    let (expr, _) = to_expr(graph);
    let (egraph, root, mut report, counts) = saturate(EGraph::new(Facts::default()), &expr, rules, limits);
    let (choice, cost) = extract_greedy(&egraph, root);
    let result = to_graph(&egraph, root, &choice, graph)?;
    report.cost_before = tree(graph).map_or(0.0, |(before, root)| extract_greedy(&before, root).1);
    report.cost_after = cost;
    report.firings = firings(rules, &counts, &egraph, &result);
    Ok((result, report))
}

/// The proof that two graphs compute the same, step by step, as egg finds it; none if the rules do not show it.
pub fn prove(before: &Graph, after: &Graph, rules: &[Rule], limits: &Limits) -> Option<String> {
    let (from, _) = to_expr(before);
    let (to, _) = to_expr(after);
    let fresh = EGraph::new(Facts::default()).with_explanations_enabled();
    let (mut egraph, ..) = saturate(fresh, &from, rules, limits);
    let joined = egraph.lookup_expr(&from)? == egraph.lookup_expr(&to)?;
    joined.then(|| egraph.explain_equivalence(&from, &to).get_flat_string())
}

/// A random graph that the rules prove equal, and how many equalities they added. All of them compute the same.
pub fn random_equivalent(graph: &Graph, rules: &[Rule], seed: u64) -> Result<(Graph, usize), ConvertError> {
    let (expr, _) = to_expr(graph);
    let (egraph, root, _, counts) = saturate(EGraph::new(Facts::default()), &expr, rules, &Limits::default());
    let result = to_graph(&egraph, root, &extract_random(&egraph, seed), graph)?;
    Ok((result, counts.values().sum()))
}

/// The costs of a block's greedy and exact extraction; none if the exact one takes more than `budget` steps.
pub fn extraction_costs(graph: &Graph, rules: &[Rule], budget: usize) -> Option<(f64, f64)> {
    let (expr, _) = to_expr(graph);
    let (egraph, root, ..) = saturate(EGraph::new(Facts::default()), &expr, rules, &Limits::default());
    let exact = extract_exact(&egraph, root, budget)?;
    Some((extract_greedy(&egraph, root).1, exact))
}

type Saturated = (EGraph, Id, RewriteReport, BTreeMap<String, usize>);

fn saturate(
    mut egraph: EGraph,
    expr: &egg::RecExpr<crate::egraph::Node>,
    rules: &[Rule],
    limits: &Limits,
) -> Saturated {
    let root = egraph.add_expr(expr);
    egraph.rebuild();
    let mut report = RewriteReport::default();
    let mut counts = BTreeMap::new();
    for phase in [Phase::Normalise, Phase::Fold, Phase::Fuse] {
        let active: Vec<&Rewrite<_, _>> =
            rules.iter().filter(|rule| rule.phase <= phase).map(|rule| &rule.rewrite).collect();
        let runner = Runner::<_, _, ()>::new(Facts::default())
            .with_egraph(egraph)
            .with_node_limit(limits.nodes)
            .with_iter_limit(limits.iterations)
            .with_time_limit(limits.time)
            .run(active);
        for (rule, count) in runner.iterations.iter().flat_map(|iteration| &iteration.applied) {
            *counts.entry(rule.to_string()).or_default() += count;
        }
        report.stops.push(format!("{phase:?}: {:?}", runner.stop_reason));
        egraph = runner.egraph;
    }
    report.nodes = egraph.total_number_of_nodes();
    let root = egraph.find(root);
    (egraph, root, report, counts)
}

fn tree(graph: &Graph) -> Option<(EGraph, Id)> {
    let mut egraph = EGraph::new(Facts::default());
    let root = egraph.add_expr(&to_expr(graph).0);
    egraph.rebuild();
    Some((egraph, root))
}

fn firings(rules: &[Rule], counts: &BTreeMap<String, usize>, egraph: &EGraph, result: &Graph) -> Vec<Firing> {
    let Some((after, _)) = tree(result) else { return Vec::new() };
    let refused = |rule: &str| -> Vec<String> {
        egraph
            .analysis
            .refusals
            .iter()
            .filter(|(name, _)| name == rule)
            .map(|(_, reason)| reason.clone())
            .collect()
    };
    let firing = |rule: &Rule| Firing {
        rule: rule.name.into(),
        class: rule.class,
        phase: rule.phase,
        added: counts.get(rule.name).copied().unwrap_or(0),
        kept: rule.rewrite.search(&after).is_empty(),
        refused: refused(rule.name),
    };
    rules.iter().map(firing).filter(|firing| firing.added > 0 || !firing.refused.is_empty()).collect()
}
