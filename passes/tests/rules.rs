//! Twin tests: every rule evaluated on both sides, in double precision, over random shapes and values.

use sinter_ir::{Binding, DType, Graph, Op, Sym, Tensor, evaluate};
use sinter_passes::{Limits, Rule, extraction_costs, prove, random_equivalent, rewrite, rules};
use std::collections::BTreeMap;

/// A small deterministic generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
    fn below(&mut self, limit: u64) -> u64 {
        (self.next() * limit as f64) as u64
    }
}

/// Random tensors for the leaves of a graph; indices stay inside the smallest constant extent that they may address.
fn leaves(graph: &Graph, binding: &Binding, random: &mut Random) -> BTreeMap<String, Tensor<f64>> {
    let rows = graph.nodes.values().filter_map(|node| node.ty.shape.first()?.as_const()).min().unwrap_or(1);
    let mut leaves = BTreeMap::new();
    for node in graph.nodes.values() {
        let Some(name) = node.op.leaf_name() else { continue };
        let shape: Vec<usize> = node.ty.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
        let tensor = Tensor::from_fn(&shape, |_| match node.ty.dtype {
            DType::U32 => random.below(rows) as f64,
            _ => random.next() * 4.0 - 2.0,
        });
        leaves.insert(name.to_string(), tensor);
    }
    leaves
}

fn assert_same(wanted: &Graph, found: &Graph, seed: u64, context: &str) {
    let mut random = Random(seed);
    let binding = Binding::new(1 + random.below(6), 1 + random.below(3), 1 + random.below(2), 32)
        .with_rows(1 + random.below(4));
    let leaves = leaves(wanted, &binding, &mut random);
    let leaf = |name: &str| leaves.get(name).cloned();
    let wanted = evaluate::<f64>(wanted, &binding, &leaf).expect("the case evaluates");
    let found = evaluate::<f64>(found, &binding, &leaf).expect("the rewritten case evaluates");
    for ((name, x), (_, y)) in wanted.iter().zip(&found) {
        assert_eq!(x.shape, y.shape, "{context}: shape of {name}");
        for (x, y) in x.data.iter().zip(&y.data) {
            let close = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-9 * (1.0 + x.abs());
            assert!(close, "{context}: {name} is {x} and {y} at {:?}", binding.get(Sym::T));
        }
    }
}

fn only(rule: Rule) -> Vec<Rule> {
    vec![rule]
}

#[test]
fn both_sides_of_every_rule_are_equal() {
    for rule in rules() {
        let name = rule.name;
        let case = Graph::parse(rule.case).unwrap_or_else(|error| panic!("case of {name}: {error}"));
        let rule = only(rule);
        let mut differed = false;
        for seed in 0..40 {
            let (twin, fired) = random_equivalent(&case, &rule, seed).expect("the case extracts");
            assert!(fired > 0, "{name} does not fire on its case");
            differed |= twin.to_string() != case.to_string();
            assert_same(&case, &twin, seed, name);
        }
        assert!(differed, "no extraction uses the right-hand side of {name}");
    }
}

#[test]
fn guards_refuse_their_counter_cases() {
    for rule in rules() {
        let name = rule.name;
        let Some(counter) = rule.counter else { continue };
        let case = Graph::parse(counter).unwrap_or_else(|error| panic!("counter-case of {name}: {error}"));
        assert!(
            !rule.rewrite.search(&egraph_of(&case)).is_empty(),
            "the pattern of {name} misses its counter-case"
        );
        let (_, fired) = random_equivalent(&case, &only(rule), 0).expect("the counter-case extracts");
        assert_eq!(fired, 0, "{name} fires on its counter-case");
    }
}

fn egraph_of(graph: &Graph) -> egg::EGraph<sinter_passes::Node, sinter_passes::Facts> {
    let mut egraph = egg::EGraph::new(sinter_passes::Facts::default());
    egraph.add_expr(&sinter_passes::to_expr(graph).0);
    egraph.rebuild();
    egraph
}

#[test]
fn every_rule_is_named_once_and_says_why() {
    let rules = rules();
    let mut names: Vec<&str> = rules.iter().map(|rule| rule.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rules.len());
    assert!(rules.iter().all(|rule| rule.why.ends_with('.')));
}

#[test]
fn random_extractions_of_a_layer_compute_the_same() {
    let layer = Graph::parse(include_str!("layer.graph")).expect("the layer parses");
    assert!(layer.nodes.values().any(|node| matches!(node.op, Op::Contract { .. })));
    let rules = rules();
    let mut distinct = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let (twin, _) = random_equivalent(&layer, &rules, seed).expect("the layer extracts");
        assert_same(&layer, &twin, seed, "layer");
        distinct.insert(twin.to_string());
    }
    assert!(distinct.len() > 10, "only {} distinct extractions", distinct.len());
}

#[test]
fn greedy_extraction_is_as_cheap_as_the_exact_one() {
    let rules = rules();
    let mut compared = 0;
    for rule in &rules {
        let case = Graph::parse(rule.case).expect("the case parses");
        let Some((greedy, exact)) = extraction_costs(&case, &rules, 200_000) else { continue };
        compared += 1;
        assert!(greedy <= exact * 1.001 + 1e-6, "{}: greedy {greedy}, exact {exact}", rule.name);
    }
    assert!(compared * 10 >= rules.len() * 9, "only {compared} of {} cases fit the budget", rules.len());
}

#[test]
fn a_proof_leads_from_the_layer_to_its_rewritten_form() {
    let layer = Graph::parse(include_str!("layer.graph")).expect("the layer parses");
    let (rewritten, report) = rewrite(&layer, &rules(), &Limits::default()).expect("the layer rewrites");
    let proof = prove(&layer, &rewritten, &rules(), &Limits::default()).expect("there is a proof");
    assert!(proof.contains("cascade"), "{proof}");
    assert!(report.cost_after < report.cost_before);
}

#[test]
fn the_name_of_the_residual_stream_is_reserved() {
    let text = "graph @g {\n %0 = input[\"residual\", (T, 4), f32]\n %1 = neg %0\n return \"y\" %1\n}";
    let graph = Graph::parse(text).expect("the graph parses");
    let error = sinter_passes::compile(&graph, &Default::default()).expect_err("the name is refused");
    assert!(error.to_string().contains("\"residual\" is reserved"), "{error}");
}
