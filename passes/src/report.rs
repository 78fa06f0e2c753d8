//! What the passes did, for `sinter explain`: rules, groups, what was split off and why, and how long it took.

use crate::lower::Split;
use crate::rewrite::RewriteReport;
use crate::rules::Phase;
use serde::Serialize;
use std::fmt;

/// The report of one compilation.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// One entry for each distinct block.
    pub blocks: Vec<BlockReport>,
    /// Kernel launches in a step.
    pub launches: usize,
    /// Distinct kernels.
    pub kernels: usize,
    /// Milliseconds of each pass, in order.
    pub passes: Vec<(String, f64)>,
}

/// What happened to one distinct block.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BlockReport {
    /// How many times the block occurs.
    pub uses: usize,
    /// Primitive operations, weights left out, before and after rewriting.
    pub operations: (usize, usize),
    /// The rewriting.
    pub rewriting: RewriteReport,
    /// Sets of products that were merged.
    pub merged: usize,
    /// The fused groups.
    pub groups: Vec<GroupReport>,
    /// What was materialised although a larger group was tried.
    pub splits: Vec<Split>,
    /// The proof that the rewritten block computes the same; only when asked for.
    pub proof: Option<String>,
}

/// One fused group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// The structure of its kernel.
    pub kernel: String,
    /// What people call it: attention, RMS norm, SwiGLU, …
    pub patterns: Vec<String>,
    /// Primitive operations in it.
    pub operations: usize,
    /// The type of its result.
    pub result: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} launches a step, {} distinct kernels", self.launches, self.kernels)?;
        for (number, block) in self.blocks.iter().enumerate() {
            writeln!(f, "\nblock {number}, used {} times", block.uses)?;
            block.fmt(f)?;
        }
        let passes: Vec<String> = self.passes.iter().map(|(name, ms)| format!("{name} {ms:.1} ms")).collect();
        writeln!(f, "\npasses: {}", passes.join(", "))
    }
}

impl fmt::Display for BlockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.operations;
        writeln!(f, "  {before} operations became {after}, then {} kernels:", self.groups.len())?;
        for group in &self.groups {
            let patterns = if group.patterns.is_empty() { "map".into() } else { group.patterns.join(" + ") };
            writeln!(
                f,
                "    {:<9} {:<3} ops  {:<24} {patterns}",
                group.kernel, group.operations, group.result
            )?;
        }
        writeln!(f, "  rules (E exact, R rounding changes):")?;
        for firing in self.rewriting.firings.iter().filter(|firing| firing.added > 0) {
            let kept = if firing.kept { "" } else { "  (found, but the other form costs less somewhere)" };
            writeln!(f, "    {:?} {:<24} {}×{kept}", firing.class, firing.rule, firing.added)?;
        }
        if self.merged > 0 {
            writeln!(f, "    E {:<24} {}×", "merge-siblings", self.merged)?;
        }
        // A spelling that needs no change is no missed fusion: refusals of the normalising rules are left out.
        let telling = self.rewriting.firings.iter().filter(|firing| firing.phase != Phase::Normalise);
        let refused =
            telling.flat_map(|firing| firing.refused.iter().map(move |reason| (&firing.rule, reason)));
        for (rule, reason) in refused {
            writeln!(f, "    not {rule}: {reason}")?;
        }
        for split in &self.splits {
            writeln!(f, "    not fused: {} — {}", split.value, split.reason)?;
        }
        let RewriteReport { nodes, cost_before, cost_after, stops, .. } = &self.rewriting;
        writeln!(
            f,
            "  e-graph: {nodes} nodes, cost {cost_before:.0} → {cost_after:.0}, {}",
            stops.join(", ")
        )?;
        match &self.proof {
            Some(proof) => writeln!(f, "  proof:\n{}", indent(proof)),
            None => Ok(()),
        }
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
