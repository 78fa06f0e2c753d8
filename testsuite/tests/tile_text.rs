//! Every tile program that real models compile to survives its text form.

use sinter_frontend::build::BuildOptions;
use sinter_ir::{DType, Graph, TileProgram};
use sinter_testsuite::golden;

fn check(name: &str, graph: &Graph) -> usize {
    let compiled = sinter_passes::compile(graph, &sinter_passes::Options::default());
    let plan = compiled.unwrap_or_else(|error| panic!("{name}: {error}")).plan;
    for tile in plan.kernels.values() {
        let text = tile.to_string();
        assert_eq!(TileProgram::parse(&text).as_ref(), Ok(tile), "{name}\n{text}");
        assert!(text.lines().all(|line| line.len() < 200), "{name}: a line is too long to read\n{text}");
    }
    plan.kernels.len()
}

#[test]
fn a_layer_is_read_back() {
    let layer = Graph::parse(include_str!("../../passes/tests/layer.graph")).expect("the layer parses");
    assert!(check("layer", &layer) > 2);
}

#[test]
fn every_golden_model_is_read_back() {
    let mut programs = 0;
    for name in golden::names() {
        let model = golden::open(&name).model;
        for dtype in [DType::F32, DType::Bf16] {
            let graph = model.build(BuildOptions::new(dtype)).expect("the graph builds");
            programs += check(&name, &graph);
        }
    }
    println!("{programs} tile programs");
    assert!(programs > 200, "only {programs} tile programs");
}
