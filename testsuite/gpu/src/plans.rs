//! Plans of the golden models.

use sinter_frontend::build::BuildOptions;
use sinter_ir::{DType, Plan};
use sinter_testsuite::golden;

/// The plan of a golden model.
pub fn golden_plan(name: &str, dtype: DType) -> Plan {
    let golden = golden::open(name);
    let graph = golden.model.build(BuildOptions::new(dtype)).expect("the graph builds");
    sinter_passes::compile(&graph, &sinter_passes::Options::default()).expect("the graph compiles").plan
}
