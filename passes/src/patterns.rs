//! The names that people give to fused expressions. Nothing depends on them: they are found after the fact, for reports
//! and for the tests that watch whether a fusion still happens.

use crate::egraph::{EGraph, Facts, Node, to_expr};
use crate::lower::Group;
use egg::{Pattern, Searcher};
use sinter_ir::{Atom, Graph, Index, Layout, Load, Op, Stage, ValueId};
use std::collections::BTreeSet;

/// A name and the expressions that it stands for.
const PATTERNS: &[(&str, &[&str])] = &[
    ("SwiGLU", &["(mul (div ?x (add (exp (neg ?x)) (const 1.0 f32))) ?y)"]),
    ("SiLU", &["(div ?x (add (exp (neg ?x)) (const 1.0 f32)))"]),
    (
        "clamped SwiGLU",
        &["(mul (add (max (min ?y (const ?c f32)) (const ?d f32)) (const 1.0 f32))
            (mul (min ?x (const ?c f32)) (recip (add (exp (neg ?z)) (const 1.0 f32)))))"],
    ),
    ("GeGLU", &["(mul (mul (mul ?x (const 0.5 f32)) (add (tanh ?t) (const 1.0 f32))) ?y)"]),
    ("GELU (tanh)", &["(mul (mul ?x (const 0.5 f32)) (add (tanh ?t) (const 1.0 f32)))"]),
    ("GELU (erf)", &["(mul (mul ?x (const 0.5 f32)) (add (erf ?t) (const 1.0 f32)))"]),
    (
        "layer norm",
        &["(mul (sub ?x ?m) (rsqrt (add (mul (reduce sum ?a (mul (sub ?x ?m) (sub ?x ?m))) ?n) ?e)))"],
    ),
    ("RMS norm", &["(mul ?x (rsqrt (add (mul (reduce sum ?a (mul ?x ?x)) ?n) ?e)))"]),
    (
        "soft-cap",
        &[
            "(mul (tanh (mul ?x (const ?c f32))) (const ?d f32))",
            "(mul (tanh (div ?x (const ?c f32))) (const ?d f32))",
        ],
    ),
    (
        "softmax",
        &["(div (exp (sub ?x (reduce max ?a ?x))) (reduce sum ?a (exp (sub ?x (reduce max ?a ?x)))))"],
    ),
    ("RoPE", &["(add (mul ?x (reshape ?s ?c)) (mul ?y (reshape ?t ?d)))"]),
    ("mask", &["(select ?c ?x (const -inf f32))"]),
    ("choice of experts", &["(topk ?k ?x)"]),
    ("weighted sum of experts", &["(contract tj,tjn->tn ?w (contract tjk,tjnk->tjn ?x (gather ?s ?i)))"]),
];

/// The names that apply to a group.
pub fn patterns(graph: &Graph, groups: &[Group]) -> Vec<Vec<String>> {
    let (expr, ids) = to_expr(graph);
    let mut egraph = EGraph::new(Facts::default());
    let mut classes = Vec::new();
    for node in expr.as_ref() {
        let node: Node = egg::Language::map_children(node.clone(), |child| classes[usize::from(child)]);
        classes.push(egraph.add(node));
    }
    egraph.rebuild();
    let class_of = |value: ValueId| egraph.find(classes[usize::from(ids[value.0 as usize])]);
    let mut names = vec![Vec::new(); groups.len()];
    for (name, texts) in PATTERNS {
        let found: BTreeSet<egg::Id> = texts
            .iter()
            .filter_map(|text| text.parse::<Pattern<Node>>().ok())
            .flat_map(|pattern| {
                pattern.search(&egraph).into_iter().map(|found| found.eclass).collect::<Vec<_>>()
            })
            .map(|class| egraph.find(class))
            .collect();
        for (group, names) in groups.iter().zip(&mut names) {
            if group.members.iter().any(|member| found.contains(&class_of(*member))) {
                names.push(name.to_string());
            }
        }
    }
    for (group, names) in groups.iter().zip(&mut names) {
        names.extend(structural(graph, group));
        drop_implied(names);
    }
    names
}

/// Whether a load reads the one of several packed weights that an index in memory names.
fn is_stack(group: &Group, load: &Load) -> bool {
    let names = |index: &Index| index.terms.iter().any(|(atom, _)| matches!(atom, Atom::Load(_)));
    group.tile.params[load.param].layout == Layout::Panels && load.index.len() == 3 && names(&load.index[0])
}

/// What the structure itself says.
fn structural(graph: &Graph, group: &Group) -> Vec<String> {
    let stages = &group.tile.stages;
    let products = stages.iter().filter(|stage| matches!(stage, Stage::Mma { .. })).count();
    let grouped = stages.iter().any(|stage| matches!(stage, Stage::Mma { b, .. } if is_stack(group, b)));
    let mut names = Vec::new();
    if stages.iter().any(|stage| matches!(stage, Stage::Online { .. })) {
        names.push("attention".into());
    } else if products > 0 {
        let product = if grouped { "grouped product" } else { "product" };
        names.push(if products == 1 { product.into() } else { format!("{products} {product}s") });
    }
    match &graph.node(group.root).op {
        Op::Scatter {} => names.push("KV write".into()),
        Op::Map(sinter_ir::ScalarOp::Add) if products > 0 => names.push("add".into()),
        _ => {}
    }
    if group.members.iter().any(|value| matches!(graph.node(*value).op, Op::Gather {})) && products == 0 {
        names.push("gather".into());
    }
    names
}

/// SwiGLU says SiLU, GeGLU says GELU.
fn drop_implied(names: &mut Vec<String>) {
    for (whole, part) in [("SwiGLU", "SiLU"), ("GeGLU", "GELU (tanh)")] {
        if names.iter().any(|name| name == whole) {
            names.retain(|name| name != part);
        }
    }
}
