//! GGUF files: logits equal those of transformers on the same weights, for each architecture and each format of blocks, and
//! weights that are computed have the bits of the naive evaluator.

use sinter_codegen_host::micro::Isa;
use sinter_frontend::build::BuildOptions;
use sinter_ir::{DType, Layout};
use sinter_testsuite::compiled::plan_of;
use sinter_testsuite::golden::{error_in_deviations, gguf_names, open_gguf};
use sinter_testsuite::host::{load, logits};

/// The distance from transformers, as for every golden.
const BOUND: f64 = 1e-3;
/// The distance that float32 sums of up to 256 products in another order make. The weights themselves have the bits of the naive
/// evaluator (`quantised.rs`).
const BLOCKS_BOUND: f64 = 3e-5;

#[test]
fn logits_are_those_of_the_weights_in_the_file() {
    let names = gguf_names();
    assert!(names.len() >= 30, "found only {}", names.len());
    for name in names {
        let golden = open_gguf(&name);
        let mut model = load(&golden.model, DType::F32, Isa::detect(), golden.tokens.len());
        let found = logits(&mut model, &golden.tokens, [golden.tokens.len()]);
        let error = error_in_deviations(&found, &golden.expected);
        println!("{name}: {error:.1e} deviations");
        let bound = if name.starts_with("formats") { BLOCKS_BOUND } else { BOUND };
        assert!(error <= bound, "{name}: {error} deviations");
        let unused = golden.model.notes.iter().find(|note| note.contains("not used"));
        assert!(unused.is_none(), "{name}: {unused:?}");
    }
}

/// Matrices of blocks stay codes in the host's memory; q, k and v are one weight, whose three formats here differ.
#[test]
fn blocks_stay_codes_in_memory() {
    for (name, wanted) in [
        ("formats_32", ["codes8x32m", "codes8x32", "codes8x32", "codes4x32"]),
        ("formats_256", ["codes8x16", "codes4x16m", "codes8x32", "codes4x32m"]),
    ] {
        let golden = open_gguf(name);
        let plan = plan_of(&golden.model, BuildOptions::new(DType::F32), true);
        let codes = plan.weights.values().filter(|def| matches!(def.layout, Layout::Codes(_)));
        let found: Vec<String> = codes.map(|def| def.layout.to_string()).collect();
        assert_eq!(found, wanted, "{name}: o, gate, up, down");
    }
}
