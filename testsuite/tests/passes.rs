//! The passes against the graph's own meaning.

use sinter_ir::{Binding, DType, Graph, Tensor, evaluate};
use sinter_testsuite::reference::{Leaves, run_plan};

fn random_leaves(graph: &Graph, binding: &Binding) -> Leaves<f64> {
    let mut seed = 7u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 11) as f64 / (1u64 << 53) as f64
    };
    let leaf = |node: &sinter_ir::Node| {
        let shape: Vec<usize> = node.ty.shape.iter().map(|dim| dim.eval(binding) as usize).collect();
        let number =
            |_: &[usize]| if node.ty.dtype == DType::U32 { (random() * 3.0).floor() } else { random() - 0.5 };
        Some((node.op.leaf_name()?.to_string(), Tensor::from_fn(&shape, number)))
    };
    graph.nodes.values().filter_map(leaf).collect()
}

#[test]
fn a_layer_compiles_to_kernels_that_compute_it() {
    let graph = Graph::parse(include_str!("../../passes/tests/layer.graph")).unwrap();
    let compiled = sinter_passes::compile(&graph, &sinter_passes::Options::default()).unwrap();
    let binding = Binding::new(5, 2, 2, 64).with_rows(3);
    let mut leaves = random_leaves(&graph, &binding);
    let wanted = evaluate(&graph, &binding, &|name| leaves.get(name).cloned()).unwrap();
    let found = run_plan(&compiled.plan, &binding, &mut leaves);
    for (name, tensor) in &wanted {
        for (x, y) in tensor.data.iter().zip(&found[name].data) {
            assert!((x - y).abs() < 1e-9, "{name}: {x} and {y}\n{}", compiled.report);
        }
    }
    println!("{}", compiled.report);
}
