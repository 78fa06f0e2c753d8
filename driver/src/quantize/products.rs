//! The products of a graph with weights of the checkpoint, and which of these weights are quantised.

use super::Rounding;
use anyhow::Result;
use sinter_frontend::build::BuildOptions;
use sinter_frontend::model::Model;
use sinter_ir::{DType, Graph, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// How a product reads its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One matrix, outputs first.
    Dense,
    /// One matrix, inputs first.
    InputsFirst,
    /// A matrix for each expert; the value `u32[T, k]` says which ones a token takes.
    Experts(ValueId),
    /// Experts that lie in one tensor.
    Stacked,
}

/// A product with weights.
#[derive(Debug)]
pub(super) struct Product {
    /// What is multiplied: `[T, K]`, or `[T, k, K]` where each of a token's experts has a row of its own.
    pub(super) operand: ValueId,
    /// How the weights are read.
    pub(super) form: Form,
    /// The weights, those of experts in their order.
    pub(super) weights: Vec<String>,
}

/// The weights that are quantised, and why others of products are not.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) chosen: BTreeSet<String>,
    pub(super) left: BTreeMap<String, &'static str>,
}

/// All products with weights, in the order of the graph.
pub(super) fn products(graph: &Graph) -> Vec<Product> {
    let product = |node: &sinter_ir::Node| {
        let Op::Contract { spec } = &node.op else { return None };
        let &[operand, weight] = &node.args[..] else { return None };
        let named = |value: ValueId| {
            let op = &graph.node(value).op;
            matches!(op, Op::Param { .. }).then(|| op.leaf_name().map(str::to_owned)).flatten()
        };
        if let Some(name) = named(weight) {
            let form = match spec.to_string().as_str() {
                "tk,nk->tn" => Form::Dense,
                "tk,kn->tn" => Form::InputsFirst,
                _ => return None,
            };
            return Some(Product { operand, form, weights: vec![name] });
        }
        let Op::Gather {} = graph.node(weight).op else { return None };
        let &[stack, experts] = &graph.node(weight).args[..] else { return None };
        let matrix = |value: &ValueId| named(*graph.node(*value).args.first()?);
        let matrices = || graph.node(stack).args.iter().map(matrix).collect::<Option<Vec<String>>>();
        let each = if graph.node(stack).op == (Op::Concat { axis: 0 }) { matrices() } else { None };
        Some(match each {
            Some(weights) => Product { operand, form: Form::Experts(experts), weights },
            None => Product { operand, form: Form::Stacked, weights: under(graph, stack) },
        })
    };
    graph.nodes.values().filter_map(product).collect()
}

/// The weights that a value is a view of.
fn under(graph: &Graph, value: ValueId) -> Vec<String> {
    let node = graph.node(value);
    if let Op::Param { name, .. } = &node.op {
        return vec![name.clone()];
    }
    let below = if node.op.is_view() { &node.args[..] } else { &[] };
    below.iter().flat_map(|arg| under(graph, *arg)).collect()
}

/// Chooses the weights that a copy has quantised: all of products but the head, and tables that are read by rows too.
pub(super) fn choose(model: &Model, rounding: &Rounding) -> Result<Choice> {
    let graph = model.build(BuildOptions::new(DType::F32))?;
    let head = model.spec.head.as_ref().map(|head| head.linear.weight.as_str());
    let gathered = graph.nodes.values().filter(|node| matches!(node.op, Op::Gather {}));
    let tables: BTreeSet<&str> =
        gathered.filter_map(|node| graph.node(node.args[0]).op.leaf_name()).collect();
    let mut choice = Choice::default();
    for product in products(&graph) {
        for name in product.weights {
            if Some(name.as_str()) == head || tables.contains(name.as_str()) {
                continue;
            }
            match refusal(&name, (product.form, model), rounding) {
                None => _ = choice.chosen.insert(name),
                Some(reason) => _ = choice.left.insert(name, reason),
            }
        }
    }
    Ok(choice)
}

/// Chooses the weights that are quantised at load: those of products with one matrix, the head and tied tables too.
pub(super) fn choose_at_load(model: &Model, rounding: &Rounding) -> Result<Choice> {
    let graph = model.build(BuildOptions::new(DType::F32))?;
    let mut choice = Choice::default();
    for product in products(&graph).into_iter().filter(|product| product.form == Form::Dense) {
        for name in product.weights.into_iter().filter(|name| name.ends_with(ENDING)) {
            match refusal(&name, (product.form, model), rounding) {
                None => _ = choice.chosen.insert(name),
                Some(reason) => _ = choice.left.insert(name, reason),
            }
        }
    }
    Ok(choice)
}

/// What the names of quantised tensors take the place of.
const ENDING: &str = ".weight";

/// Why a weight is not quantised, if it is not.
fn refusal(name: &str, (form, model): (Form, &Model), rounding: &Rounding) -> Option<&'static str> {
    match form {
        Form::InputsFirst => return Some("its inputs lie first"),
        Form::Stacked => return Some("its experts lie in one tensor"),
        Form::Dense | Form::Experts(_) => {}
    }
    if !name.ends_with(ENDING) {
        return Some("its name does not end in .weight");
    }
    let Some((_, &[_, columns])) = model.weights.stored(name) else {
        return Some("it is no matrix of its own in the checkpoint");
    };
    let whole = columns > 0 && rounding.group.is_none_or(|group| columns.is_multiple_of(group));
    (!whole).then_some("its columns are no whole groups")
}
