//! Passes: from a graph of primitives to a plan of fused kernels.
//!
//! [`compile`] is the whole way, one line a pass:
//!
//! 1. **cut** at the residual stream into blocks; blocks that differ only in names are one.
//! 2. **rewrite** each distinct block in an e-graph: normalise, fold, fuse; take out the cheapest graph.
//! 3. **merge** products of one operand into one product.
//! 4. **lower** each materialised value and its cone to one tile program.
//! 5. **plan** the launches of all blocks, with shared buffers.
//!
//! What is fused is found, not declared: nothing here knows a model, and a new activation or mask needs no change.
//!
//! Invariant: only this crate knows egg. Everything it hands on is in the terms of `sinter-ir`.

mod cut;
mod egraph;
mod lower;
mod merge;
mod patterns;
mod plan;
mod report;
mod rewrite;
mod rules;

pub use cut::{Cut, Instance, cut};
pub use egraph::{Facts, Node, to_expr};
pub use lower::{Group, LowerError, Source, Split, lower};
pub use merge::merge_siblings;
pub use report::{BlockReport, GroupReport, Report};
pub use rewrite::{Firing, Limits, RewriteReport, extraction_costs, prove, random_equivalent, rewrite};
pub use rules::{Class, Phase, Rule, all as rules};

use plan::LoweredBlock;
use sinter_ir::{Graph, GraphError, Op, Plan, PlanError, Violation};
use std::time::Instant;

/// What the passes are asked to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Bounds on rewriting.
    pub limits: Limits,
    /// Whether the report shall hold egg's proof of each block.
    pub proofs: bool,
    /// Whether products read weights that are dequantised as codes; else they are numbers in memory.
    pub codes: bool,
}

/// The result: the plan, the rewritten blocks for dumps, and the report.
#[derive(Debug)]
pub struct Compiled {
    /// What the runtime executes.
    pub plan: Plan,
    /// The distinct blocks after rewriting, in order of first use.
    pub fused: Vec<Graph>,
    /// What was done.
    pub report: Report,
}

/// Why a graph cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The graph is malformed.
    #[error("the graph breaks the rules of the IR: {0}")]
    Malformed(#[from] Violation),
    /// An input or output has the name that blocks use for the residual stream.
    #[error("the name {0:?} is reserved for the residual stream between blocks; rename the input or output")]
    Reserved(&'static str),
    /// A pass built an ill-typed node.
    #[error(transparent)]
    Type(#[from] GraphError),
    /// A rewritten block could not be taken out of the e-graph.
    #[error(transparent)]
    Extract(#[from] egraph::ConvertError),
    /// A value has no tile program.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The plan is inconsistent.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Compiles a graph to a plan.
pub fn compile(graph: &Graph, options: &Options) -> Result<Compiled, PassError> {
    let mut clock = Clock::default();
    clock.time("verify", || sinter_ir::verify(graph)).into_iter().next().map_or(Ok(()), Err)?;
    reserved_name(graph)?;
    let cut = clock.time("cut", || cut::cut(graph))?;
    let rules = clock.time("rules", rules::all);
    let mut report = Report::default();
    let mut blocks = Vec::with_capacity(cut.blocks.len());
    for (number, block) in cut.blocks.iter().enumerate() {
        let (rewritten, rewriting) =
            clock.time("rewrite", || rewrite(&block.graph, &rules, &options.limits))?;
        let proof =
            options.proofs.then(|| prove(&block.graph, &rewritten, &rules, &options.limits)).flatten();
        let (merged, sets) = clock.time("merge", || merge_siblings(&rewritten))?;
        let (groups, splits) = clock.time("lower", || lower(&merged))?;
        for group in &groups {
            sinter_ir::verify_tile(&group.tile).into_iter().next().map_or(Ok(()), Err)?;
        }
        report.blocks.push(BlockReport {
            uses: cut.instances.iter().filter(|instance| instance.block == number).count(),
            operations: (operations(&block.graph), operations(&merged)),
            rewriting,
            merged: sets,
            groups: group_reports(&merged, &groups),
            splits,
            proof,
        });
        let hidden = cut::hidden_values(&merged);
        blocks.push(LoweredBlock { graph: merged, groups, hidden });
    }
    let plan = clock.time("plan", || plan::plan(&graph.name, &cut, &blocks, options.codes))?;
    clock.time("check", || plan.verify())?;
    report.launches = plan.steps.len();
    report.kernels = plan.kernels.len();
    report.passes = clock.passes;
    Ok(Compiled { plan, fused: blocks.into_iter().map(|block| block.graph).collect(), report })
}

/// Between blocks the residual stream is an input and an output of this name, so the graph must not use it.
fn reserved_name(graph: &Graph) -> Result<(), PassError> {
    let input = |op: &Op| matches!(op, Op::Input { name, .. } if name == cut::RESIDUAL);
    let taken = graph.nodes.values().any(|node| input(&node.op))
        || graph.outputs.iter().any(|(name, _)| name == cut::RESIDUAL);
    if taken { Err(PassError::Reserved(cut::RESIDUAL)) } else { Ok(()) }
}

/// Operations that do work: leaves and constants left out.
fn operations(graph: &Graph) -> usize {
    graph
        .nodes
        .values()
        .filter(|node| node.op.leaf_name().is_none() && !matches!(node.op, Op::Const { .. }))
        .count()
}

fn group_reports(graph: &Graph, groups: &[Group]) -> Vec<GroupReport> {
    let patterns = patterns::patterns(graph, groups);
    let report = |(group, patterns): (&Group, Vec<String>)| GroupReport {
        kernel: group.tile.name.clone(),
        patterns,
        operations: group.members.len(),
        result: graph.ty(group.root).to_string(),
    };
    groups.iter().zip(patterns).map(report).collect()
}

/// Milliseconds by pass, in order of first use.
#[derive(Default)]
struct Clock {
    passes: Vec<(String, f64)>,
}

impl Clock {
    fn time<T>(&mut self, name: &str, run: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = run();
        let ms = start.elapsed().as_secs_f64() * 1e3;
        match self.passes.iter_mut().find(|(known, _)| known == name) {
            Some((_, total)) => *total += ms,
            None => self.passes.push((name.into(), ms)),
        }
        result
    }
}
