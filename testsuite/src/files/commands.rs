//! What the commands of file tests do. Whatever changes a graph is also evaluated, before and after, on the same values:
//! so every case of a pass is a test of meaning as well.

use super::{Case, leaves};
use crate::golden;
use crate::reference::{Leaves, run_plan};
use sinter_frontend::build::BuildOptions;
use sinter_ir::{DType, Graph, TileProgram, evaluate, verify, verify_tile};
use sinter_passes::{Compiled, Group, Limits, Options, Rule, Split};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};

pub(super) fn run(case: &Case) -> Result<String, String> {
    if case.command == "verify" {
        return Ok(violations(&case.input));
    }
    if case.command == "tile" {
        return tile(&case.input);
    }
    if case.command == "fusions" {
        return fusions(case.input.trim());
    }
    let graph = Graph::parse(&case.input).map_err(text)?;
    match case.command.as_str() {
        "roundtrip" => roundtrip(&graph),
        "eval" => eval(case, &graph),
        "cut" => cut(&graph),
        "rewrite" => rewrite(case, &graph),
        "merge" => merge(case, &graph),
        "lower" => lower(&graph),
        "fuse" => compile(case, &graph, summary),
        "tiles" => compile(case, &graph, |compiled| lines(compiled.plan.kernels.values())),
        "plan" => compile(case, &graph, plan),
        "explain" => compile(case, &graph, without_times),
        other => Err(format!("there is no command {other:?}")),
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// The launches of a step of a golden model that have each pattern, and the rules that were kept.
fn fusions(name: &str) -> Result<String, String> {
    if golden::names().iter().all(|known| known != name) {
        return Err(format!("there is no golden model {name:?}"));
    }
    let graph = golden::open(name).model.build(BuildOptions::new(DType::F32)).map_err(text)?;
    let report = sinter_passes::compile(&graph, &Options::default()).map_err(text)?.report;
    let (mut counts, mut rules) = (BTreeMap::<&str, usize>::new(), BTreeSet::new());
    for block in &report.blocks {
        for pattern in block.groups.iter().flat_map(|group| &group.patterns) {
            *counts.entry(pattern).or_default() += block.uses;
        }
        let firings = block.rewriting.firings.iter();
        rules.extend(firings.filter(|firing| firing.added > 0 && firing.kept).map(|firing| &*firing.rule));
    }
    let mut out = format!("launches {}\n", report.launches);
    for (pattern, count) in counts {
        let _ = writeln!(out, "{pattern} {count}");
    }
    let _ = writeln!(out, "rules {}", rules.into_iter().collect::<Vec<_>>().join(", "));
    Ok(out)
}

/// Each item on a line of its own.
fn lines<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("{}\n", item.to_string().trim_end())).collect()
}

fn violations(input: &str) -> String {
    match Graph::parse(input) {
        Err(error) => error.to_string(),
        Ok(graph) => match verify(&graph) {
            found if found.is_empty() => "ok".into(),
            found => lines(found),
        },
    }
}

fn roundtrip(graph: &Graph) -> Result<String, String> {
    let printed = graph.to_string();
    match Graph::parse(&printed) {
        Ok(read) if read == *graph => Ok(printed),
        Ok(_) => Err("another graph is read back".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn tile(input: &str) -> Result<String, String> {
    let tile = match TileProgram::parse(input) {
        Ok(tile) => tile,
        Err(error) => return Ok(error.to_string()),
    };
    let printed = tile.to_string();
    if TileProgram::parse(&printed).as_ref() != Ok(&tile) {
        return Err("another program is read back".into());
    }
    Ok(printed + &lines(verify_tile(&tile)))
}

fn eval(case: &Case, graph: &Graph) -> Result<String, String> {
    let binding = leaves::binding(case);
    let leaves = leaves::leaves(case, graph, &binding)?;
    let found = evaluate(graph, &binding, &|name| leaves.get(name).cloned()).map_err(text)?;
    let mut out = String::new();
    for (name, tensor) in found {
        let numbers: Vec<String> = tensor.data.iter().map(|value| rounded(*value)).collect();
        let _ = writeln!(out, "{name} {:?} = {}", tensor.shape, numbers.join(", "));
    }
    Ok(out)
}

/// Six decimals at most, so that a platform's last bit does not matter.
fn rounded(value: f64) -> String {
    let text = format!("{value:.6}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// Refuses a result that differs from the graph's own.
fn compare(wanted: &[(String, sinter_ir::Tensor<f64>)], found: &Leaves<f64>) -> Result<(), String> {
    for (name, x) in wanted {
        let y = found.get(name).ok_or_else(|| format!("the output {name} is gone"))?;
        for (x, y) in x.data.iter().zip(&y.data) {
            if !(x == y || (x - y).abs() <= 1e-9 * (1.0 + x.abs())) {
                return Err(format!("{name} must be {x} and is {y}"));
            }
        }
    }
    Ok(())
}

/// Refuses a graph that computes something else.
fn same_meaning(case: &Case, before: &Graph, after: &Graph) -> Result<(), String> {
    let binding = leaves::binding(case);
    let leaves = leaves::leaves(case, before, &binding)?;
    let of = |graph: &Graph| evaluate(graph, &binding, &|name| leaves.get(name).cloned()).map_err(text);
    compare(&of(before)?, &of(after)?.into_iter().collect())
}

fn cut(graph: &Graph) -> Result<String, String> {
    let cut = sinter_passes::cut(graph).map_err(text)?;
    let mut out = lines(cut.blocks.iter().map(|block| &block.graph));
    for instance in &cut.instances {
        let names: Vec<String> =
            instance.names.iter().map(|(known, name)| format!("{known} = {name}")).collect();
        let _ = writeln!(out, "block {}: {}", instance.block, names.join(", "));
    }
    Ok(out)
}

/// The rules that the header names; all if it names none.
fn rules(case: &Case) -> Result<Vec<Rule>, String> {
    let mut rules = sinter_passes::rules();
    let Some(wanted) = case.all("rules").next() else { return Ok(rules) };
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).collect();
    if let Some(unknown) = wanted.iter().find(|name| rules.iter().all(|rule| rule.name != **name)) {
        return Err(format!("there is no rule {unknown:?}"));
    }
    rules.retain(|rule| wanted.contains(&rule.name));
    Ok(rules)
}

fn rewrite(case: &Case, graph: &Graph) -> Result<String, String> {
    let (result, report) = sinter_passes::rewrite(graph, &rules(case)?, &Limits::default()).map_err(text)?;
    same_meaning(case, graph, &result)?;
    let mut out = String::new();
    for firing in &report.firings {
        if firing.added > 0 {
            let _ = writeln!(out, "fired {}, class {:?}", firing.rule, firing.class);
        }
        for reason in &firing.refused {
            let _ = writeln!(out, "refused {}: {reason}", firing.rule);
        }
    }
    Ok(out + &result.to_string())
}

fn merge(case: &Case, graph: &Graph) -> Result<String, String> {
    let (merged, sets) = sinter_passes::merge_siblings(graph).map_err(text)?;
    same_meaning(case, graph, &merged)?;
    Ok(format!("merged {sets}\n{merged}"))
}

fn lower(graph: &Graph) -> Result<String, String> {
    let (groups, splits) = sinter_passes::lower(graph).map_err(text)?;
    let mut out = String::new();
    for Group { root, tile, members, .. } in &groups {
        let _ = writeln!(out, "{root}, {} operations\n{tile}", members.len());
        verify_tile(tile).into_iter().next().map_or(Ok(()), Err).map_err(text)?;
    }
    Ok(out + &split_lines(&splits))
}

fn split_lines(splits: &[Split]) -> String {
    splits.iter().map(|split| format!("split {}: {}\n", split.value, split.reason)).collect()
}

/// The whole pipeline. Its plan is run on the evaluator of tile programs and held against the graph. A graph that cannot
/// be compiled gives the reason.
fn compile(case: &Case, graph: &Graph, show: fn(&Compiled) -> String) -> Result<String, String> {
    let compiled = match sinter_passes::compile(graph, &Options::default()) {
        Ok(compiled) => compiled,
        Err(error) => return Ok(format!("error: {error}")),
    };
    for tile in compiled.plan.kernels.values() {
        if TileProgram::parse(&tile.to_string()).as_ref() != Ok(tile) {
            return Err(format!("another program is read back of\n{tile}"));
        }
    }
    let binding = leaves::binding(case);
    let mut leaves = leaves::leaves(case, graph, &binding)?;
    let wanted = evaluate(graph, &binding, &|name| leaves.get(name).cloned()).map_err(text)?;
    let mut found = run_plan(&compiled.plan, &binding, &mut leaves);
    // A state that was written is an output of the graph and a side effect of the plan.
    found.extend(
        leaves.into_iter().filter(|(name, _)| compiled.plan.states.iter().any(|state| state.name == *name)),
    );
    compare(&wanted, &found)?;
    Ok(show(&compiled))
}

fn summary(compiled: &Compiled) -> String {
    let report = &compiled.report;
    let mut out = format!("kernels {}\nlaunches {}\n", report.kernels, report.launches);
    for (number, block) in report.blocks.iter().enumerate() {
        let _ = writeln!(out, "block {number}, used {} times, merged {}", block.uses, block.merged);
        for group in &block.groups {
            let _ = writeln!(out, "{}: {} -> {}", group.kernel, group.patterns.join(" + "), group.result);
            out += &lines(group.patterns.iter().map(|pattern| format!("  pattern {pattern}")));
        }
        let fired = block.rewriting.firings.iter().filter(|firing| firing.added > 0);
        out += &lines(fired.map(|firing| format!("fired {}", firing.rule)));
        out += &split_lines(&block.splits);
    }
    out
}

fn plan(compiled: &Compiled) -> String {
    let plan = &compiled.plan;
    let mut out = String::new();
    for (id, weight) in plan.weights.iter() {
        let _ = writeln!(out, "{id}: {} {}", weight.ty, weight.layout);
        for line in weight.source.to_string().lines().filter(|line| line.starts_with("  %")) {
            let _ = writeln!(out, "  {line}");
        }
    }
    for (id, buffer) in plan.buffers.iter() {
        let _ = writeln!(out, "{id}: {} in slot {}", buffer.ty, buffer.slot);
    }
    for step in &plan.steps {
        let args: Vec<String> = step.args.iter().map(|arg| format!("{arg:?}")).collect();
        let _ = writeln!(out, "{} {}", plan.kernels[step.kernel].name, args.join(" "));
    }
    out
}

fn without_times(compiled: &Compiled) -> String {
    let report = compiled.report.to_string();
    lines(report.lines().filter(|line| !line.starts_with("passes:")))
}
