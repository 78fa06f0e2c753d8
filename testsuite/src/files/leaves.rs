//! Values for the leaves of a case: given by `; let x: 1, 2.5`, bounded by `; below seq: 2`, or random.

use super::Case;
use crate::reference::Leaves;
use sinter_ir::{Binding, DType, Graph, Node, Real, Tensor};

/// The step of a case: 5 tokens of 3 sequences with 2 pages each at most, in a pool of 64 slots; logits of 2 rows. The
/// values 0, 1 and 2 are then sequences, pages and rows alike, so random indices below 3 are always good.
pub(super) fn binding(case: &Case) -> Binding {
    let tokens = case.all("T").next().and_then(|value| value.parse().ok()).unwrap_or(5);
    Binding::new(tokens, 3, 2, 64).with_rows(2)
}

/// A tensor for every leaf of the graph.
pub(super) fn leaves(case: &Case, graph: &Graph, binding: &Binding) -> Result<Leaves<f64>, String> {
    let mut random = Random(7);
    let mut leaves = Leaves::new();
    for node in graph.nodes.values() {
        let Some(name) = node.op.leaf_name() else { continue };
        leaves.insert(name.into(), leaf(case, node, name, binding, &mut random)?);
    }
    Ok(leaves)
}

fn leaf(
    case: &Case,
    node: &Node,
    name: &str,
    binding: &Binding,
    random: &mut Random,
) -> Result<Tensor<f64>, String> {
    let shape: Vec<usize> = node.ty.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
    let setting = |key: &str| case.all(&format!("{key} {name}")).next().map(str::to_string);
    if let Some(text) = setting("let") {
        let values: Option<Vec<f64>> = text.split(',').map(|value| value.trim().parse().ok()).collect();
        let values = values.filter(|values| values.len() == shape.iter().product::<usize>());
        return values
            .map(|values| Tensor::new(shape, values))
            .ok_or_else(|| format!("let {name} does not give the elements of {}", node.ty));
    }
    let below = setting("below").and_then(|text| text.parse().ok()).unwrap_or(3.0);
    Ok(Tensor::from_fn(&shape, |_| match node.ty.dtype {
        DType::U32 | DType::U8 => (random.next() * below).floor(),
        DType::I8 | DType::I32 => ((random.next() - 0.5) * 2.0 * below).floor(),
        DType::Bool => (random.next() * 2.0).floor(),
        dtype => (random.next() - 0.5).stored(dtype),
    }))
}

/// A small deterministic generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
