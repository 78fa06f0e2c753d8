//! `sinter explain`: what the passes did with a model.

use crate::checkpoint::Checkpoint;
use crate::cli::ExplainArgs;
use crate::device::BuildTarget;
use crate::environment::Environment;
use crate::output::Output;
use anyhow::{Result, bail};
use sinter_passes::{Options, Report};
use std::collections::BTreeSet;

pub(super) fn run(args: &ExplainArgs, env: &Environment, output: &Output) -> Result<()> {
    let checkpoint = Checkpoint::open_as(&args.model, args.build.quant, env, output)?;
    let choice = checkpoint.choice(&args.build, &[BuildTarget::Host])?;
    if args.schedule {
        return super::schedules::run(&checkpoint.plan(&choice, env, output)?, &args.build, (env, output));
    }
    let graph = checkpoint.graph(&choice)?;
    let options = Options { proofs: args.proof, ..choice.passes() };
    let mut report = sinter_passes::compile(&graph, &options)?.report;
    let Some(group) = &args.group else { return output.result(&report, || report.to_string()) };
    keep(&mut report, group)?;
    output.result(&report, || text(&report))
}

/// The groups that are left, and what the rules did in their blocks. The whole report would count the others as missing.
fn text(report: &Report) -> String {
    let mut text = String::new();
    for block in &report.blocks {
        text += &format!("a block used {} times\n", block.uses);
        for group in &block.groups {
            let (kernel, patterns) = (&group.kernel, group.patterns.join(" + "));
            text += &format!("  {kernel:<9} {:<3} ops  {:<24} {patterns}\n", group.operations, group.result);
        }
        for firing in block.rewriting.firings.iter().filter(|firing| firing.kept && firing.added > 0) {
            text += &format!("    {:?} {:<24} {}×\n", firing.class, firing.rule, firing.added);
        }
        if let Some(proof) = &block.proof {
            text += &format!("  proof:\n{proof}\n");
        }
    }
    text
}

/// Keeps the blocks that have a kernel or a pattern of this name, and in them those groups.
fn keep(report: &mut Report, group: &str) -> Result<()> {
    let wanted = group.to_lowercase();
    let mut names = BTreeSet::new();
    for block in &mut report.blocks {
        names.extend(
            block.groups.iter().flat_map(|group| group.patterns.iter().chain([&group.kernel])).cloned(),
        );
        block.groups.retain(|group| {
            let mut known = group.patterns.iter().chain([&group.kernel]);
            known.any(|name| name.to_lowercase().contains(&wanted))
        });
    }
    report.blocks.retain(|block| !block.groups.is_empty());
    if report.blocks.is_empty() {
        let names: Vec<_> = names.into_iter().collect();
        bail!("no group is called {group:?}; there are {}", names.join(", "));
    }
    Ok(())
}
