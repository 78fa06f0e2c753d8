//! docs/models.md: which family is tested where. Families come from the rows, goldens from their folders, and what a test
//! covers from the lists that the tests themselves go by. `BLESS=1` writes the document anew.

use sinter_frontend::resolve::{held_fields, known_families};
use sinter_frontend::spec::{MatrixLayout, ModelKind};
use sinter_frontend::wrapper::WRAPPERS;
use sinter_testsuite::files;
use sinter_testsuite::golden::{folder, half_distances, names, open, quantised_names};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The tests that cells name: mark, file, function, what it shows.
const TESTS: &[(&str, &str, &str, &str)] = &[
    (
        "a",
        "testsuite/tests/goldens.rs",
        "logits_agree_with_transformers_on_every_instruction_set",
        "logits within 1e-3 deviations of transformers' float32",
    ),
    (
        "b",
        "testsuite/tests/goldens.rs",
        "hidden_values_of_encoders_agree_with_transformers",
        "the same of an encoder's hidden values or scores",
    ),
    (
        "c",
        "testsuite/tests/goldens.rs",
        "bf16_is_as_near_to_float32_as_transformers_is",
        "no farther from float32 than transformers' own bfloat16",
    ),
    (
        "d",
        "testsuite/tests/goldens.rs",
        "every_chunking_gives_the_same_bits",
        "prompts whole, in pieces and token by token, f32 and bf16",
    ),
    (
        "e",
        "testsuite/gpu/tests/goldens.rs",
        "f32_sm_90a",
        "PTX of whole models on the virtual GPU: as (a), (b) and (d); the same for sm_80 and in bf16 beside it. It is long, and no \
         part of `make test`: it runs by hand, as `make gpu-goldens`",
    ),
    (
        "f",
        "testsuite/tests/same_bits.rs",
        "every_decoder_answers_with_the_same_bits",
        "guessed tokens, cached beginnings and sequences put back change no bit",
    ),
    (
        "g",
        "testsuite/tests/quantised.rs",
        "logits_are_those_of_the_dequantised_weights",
        "quantised checkpoints, codes in memory or dequantised while they are packed: logits of transformers on the dequantised weights",
    ),
    (
        "h",
        "testsuite/tests/quantised.rs",
        "every_family_is_read_quantised",
        "each golden with its products in 8-bit floats: the results of the numbers that these stand for",
    ),
    (
        "i",
        "testsuite/gpu/tests/assembles.rs",
        "goldens_in_bf16_for_hopper",
        "NVIDIA's assembler takes every kernel, by this test and those for Ampere and Ada beside it. In `make test` these take \
         every second golden, each for one target; all of them for all targets run by hand, as `make gpu-goldens`. It shows that \
         kernels compile, not what they compute",
    ),
];

/// What is known of a family.
struct Row {
    goldens: Vec<String>,
    decoder: bool,
    /// Whether every golden has a distance of transformers' bfloat16 to be held to.
    half: bool,
    /// Whether a quantised checkpoint of the family is among the goldens.
    quantised: bool,
    /// Whether its products are stored outputs first, as quantised ones are.
    copied: bool,
}

/// The families of the quantised goldens.
fn quantised_families() -> BTreeSet<&'static str> {
    quantised_names().iter().map(|name| open(name).model.spec.family).collect()
}

fn table() -> BTreeMap<&'static str, Row> {
    let half = half_distances();
    let quantised = quantised_families();
    let mut table: BTreeMap<&'static str, Row> = BTreeMap::new();
    for name in names() {
        let spec = open(&name).model.spec;
        // What makes vectors or scores of texts goes by the encoders' tests.
        let decoder = spec.kind == ModelKind::Decoder;
        let quantised = quantised.contains(spec.family);
        let copied = spec.layers.iter().all(|layer| layer.attention.out.layout == MatrixLayout::OutIn);
        let fresh = Row { goldens: Vec::new(), decoder, half: true, quantised, copied };
        let row = table.entry(spec.family).or_insert(fresh);
        row.half &= half.contains_key(&name) || folder().join(&name).join("same_weights_as").exists();
        row.goldens.push(name);
    }
    table
}

/// The cells of a family: goldens, host in f32 and bf16, PTX, guesses, cached beginnings, quantised weights.
fn cells(family: &str, row: &Row) -> [String; 7] {
    let tested = |marks: &[&str]| format!("tested ({})", marks.join(", "));
    let host = if row.decoder { tested(&["a", "d"]) } else { tested(&["b"]) };
    let half = match (row.half, row.decoder) {
        (true, true) => tested(&["c", "d"]),
        (true, false) => tested(&["c"]),
        (false, _) => panic!("{family}: a golden is missing in bf16.json; run make_bf16.py"),
    };
    let (guesses, cached) = match row.decoder {
        true => (tested(&["f"]), tested(&["f"])),
        false => ("not supported: it writes no text".into(), "not supported: it keeps no cache".into()),
    };
    let quantised = match (row.quantised, row.copied) {
        (true, true) => tested(&["g", "h"]),
        (true, false) => tested(&["g"]),
        (false, true) => tested(&["h"]),
        (false, false) => panic!("{family}: no quantised golden; add one to make_quantised.py"),
    };
    // `make test` runs no whole model of every family on the virtual GPU, and assembles every second golden.
    let ptx = "by hand (e, i)".into();
    [row.goldens.len().to_string(), host, half, ptx, guesses, cached, quantised]
}

fn document() -> String {
    let table = table();
    let mut text = String::from(
        "# Models\n\nWritten by `testsuite/tests/models.rs` (`BLESS=1` writes it anew): families are the rows of the front end, a cell says\n\
         which test covers all goldens of the family, or why the thing is not there. Tests are part of `make test` but for those by hand.\n\n\
         | family | goldens | host f32 | host bf16 | PTX | speculative | prefix cache | quantised |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for family in known_families() {
        let row = table.get(family).unwrap_or_else(|| panic!("{family} has no golden"));
        let _ = writeln!(text, "| {family} | {} |", cells(family, row).join(" | "));
    }
    text.push_str("\n| mark | test | what it shows |\n| --- | --- | --- |\n");
    for (mark, file, function, shows) in TESTS {
        let _ = writeln!(text, "| {mark} | `{function}` in `{file}` | {shows} |");
    }
    let wrappers: Vec<String> = WRAPPERS.iter().map(|(whole, part)| format!("{whole} ({part})")).collect();
    let _ = writeln!(text, "\nOf these the text model alone is read: {}.", wrappers.join(", "));
    text.push_str("\nFields of `config.json` that a family reads at one value only; another value is refused with the field's name:\n\n");
    for (family, fields) in held_fields() {
        let _ = writeln!(text, "- {family}: {}", fields.join(", "));
    }
    text
}

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/models.md")
}

#[test]
fn the_table_is_true() {
    let wanted = document();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(place(), &wanted).expect("the document is written");
    }
    let found = std::fs::read_to_string(place()).unwrap_or_default();
    assert!(found == wanted, "docs/models.md is stale: BLESS=1 writes it anew");
}

#[test]
fn the_named_tests_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (_, file, function, _) in TESTS {
        let text = std::fs::read_to_string(root.join(file)).expect("the test's file");
        assert!(text.contains(&format!("#[test]\nfn {function}()")), "{file} has no test {function}");
    }
}

/// So that a rule that stops firing is seen.
#[test]
fn every_golden_has_its_fusions_counted() {
    let path = files::folder().join("fusions/goldens.test");
    let text = std::fs::read_to_string(path).expect("the file test");
    let cases = files::Case::read("goldens.test", &text).expect("the cases");
    let counted: BTreeSet<String> = cases.iter().map(|case| case.input.trim().to_owned()).collect();
    assert_eq!(counted, names().into_iter().collect());
    assert!(
        cases.iter().all(|case| case.expected.is_some()),
        "a case without its counts: BLESS=1 writes them"
    );
}
