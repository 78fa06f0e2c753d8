//! The passes on the golden models, run by the naive evaluator of tile programs: before any back end has a part in it,
//! the lowered plan must compute what transformers does.

use sinter_frontend::build::BuildOptions;
use sinter_ir::{Binding, DType, PAGE, Tensor};
use sinter_testsuite::golden::{error_in_deviations, names, open};
use sinter_testsuite::reference::{Leaves, run_plan};

#[test]
fn lowered_goldens_agree_with_transformers() {
    for name in names() {
        let golden = open(&name);
        let graph = golden.model.build(BuildOptions::new(DType::F32)).unwrap();
        let compiled = sinter_passes::compile(&graph, &sinter_passes::Options::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let tokens = golden.tokens.len();
        let pages = tokens as u64 / PAGE + 2;
        let binding = Binding::new(tokens as u64, 1, pages, (pages + 1) * PAGE).with_rows(tokens as u64);
        let mut leaves: Leaves<f32> = Leaves::new();
        for node in graph.nodes.values() {
            let Some(leaf) = node.op.leaf_name() else { continue };
            let shape: Vec<usize> = node.ty.shape.iter().map(|dim| dim.eval(&binding) as usize).collect();
            let value = match leaf {
                "tokens" => golden.tokens.iter().map(|token| *token as f32).collect(),
                "positions" | "rows" => (0..tokens).map(|at| at as f32).collect(),
                // Pages from 1 on, so that a wrong table shows.
                "slots" => (0..tokens).map(|at| (at as u64 + PAGE) as f32).collect(),
                "table" => (0..pages).map(|page| (page + 1) as f32).collect(),
                "seq" | "types" => vec![0.0; tokens],
                _ if leaf.contains("_cache.") => vec![0.0; shape.iter().product()],
                _ => weight(&golden.model, leaf),
            };
            leaves.insert(leaf.into(), Tensor::new(shape, value));
        }
        let outputs = run_plan(&compiled.plan, &binding, &mut leaves);
        let found =
            ["logits", "hidden", "scores"].iter().find_map(|name| outputs.get(*name)).expect("a result");
        // Scores are those of the first row.
        let wanted = if outputs.contains_key("scores") { golden.expected.len() } else { found.data.len() };
        let error = error_in_deviations(&found.data[..wanted], &golden.expected);
        println!("{name}: {error:.2e} deviations, {} launches", compiled.plan.steps.len());
        assert!(error <= 1e-3, "{name}: {error} deviations\n{}", compiled.report);
    }
}

fn weight(model: &sinter_frontend::model::Model, name: &str) -> Vec<f32> {
    let (dtype, _, bytes) = model.tensor(name).unwrap_or_else(|| panic!("{name} is not in the checkpoint"));
    match dtype {
        DType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        DType::Bf16 => bytes
            .chunks_exact(2)
            .map(|b| f32::from_bits(u32::from(b[1]) << 24 | u32::from(b[0]) << 16))
            .collect(),
        other => panic!("{name} is {other}"),
    }
}
