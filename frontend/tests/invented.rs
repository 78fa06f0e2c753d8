//! docs/add-a-model.md, followed for a family that nobody has: it is Llama with other names. So its model must be Llama's,
//! to the last operation, and its logits are those that the golden model is held to.

use sinter_frontend::build::{BuildOptions, build};
use sinter_frontend::config::{ConfigError, RawConfig};
use sinter_frontend::family::{EmbeddingRow, Family, Keys, KvHeads, QkvRow};
use sinter_frontend::resolve::{known_families, resolve_in, rows};
use sinter_frontend::spec::ModelSpec;
use sinter_ir::{DType, verify};
use std::path::Path;

/// The fields that the family calls by other names.
const RENAMED: [(&str, &str); 4] = [
    ("hidden_size", "d_model"),
    ("num_hidden_layers", "depth"),
    ("num_attention_heads", "query_heads"),
    ("num_key_value_heads", "memory_heads"),
];

/// Step 1: a row, most of it an old one.
fn tessera() -> Family {
    let llama: Family = **rows("llama").first().expect("llama has a row");
    Family {
        model_type: "tessera",
        keys: Keys {
            hidden: "d_model",
            layers: "depth",
            heads: "query_heads",
            kv_heads: KvHeads::Field("memory_heads"),
            ..llama.keys
        },
        ignored: &["tile_colour"],
        prefixes: &["mosaic."],
        embedding: EmbeddingRow { tokens: "pieces", ..llama.embedding },
        attention: sinter_frontend::family::AttentionRow {
            qkv: QkvRow::Separate("rows.{i}.ask", "rows.{i}.tell", "rows.{i}.give"),
            ..llama.attention
        },
        ..llama
    }
}

/// The config of the golden Llama as the family writes it, with one more field.
fn config(extra: &str) -> RawConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/goldens/llama/config.json");
    let mut text = std::fs::read_to_string(path).expect("the golden config");
    for (old, new) in RENAMED {
        assert!(text.contains(&format!("\"{old}\"")), "{old} is in the golden config");
        text = text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
    }
    let text = text.replace("\"model_type\": \"llama\"", &format!("\"model_type\": \"tessera\"{extra}"));
    RawConfig::parse(text.as_bytes()).expect("JSON")
}

fn resolved(family: &'static Family, extra: &str) -> Result<ModelSpec, ConfigError> {
    resolve_in(&[family], &config(extra), &|name| name.starts_with("mosaic."))
}

#[test]
fn a_new_family_is_a_row() {
    assert!(!known_families().contains(&"tessera"));
    let row: &'static Family = Box::leak(Box::new(tessera()));
    let spec = resolved(row, ", \"tile_colour\": \"blue\"").expect("the row reads the config");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/goldens/llama/config.json");
    let llama = RawConfig::parse(&std::fs::read(path).expect("the golden config")).expect("JSON");
    let llama = resolve_in(&rows("llama"), &llama, &|name| name.starts_with("model.")).expect("llama");
    let text = |spec: &ModelSpec| {
        let graph = build(spec, BuildOptions::new(DType::F32)).expect("the graph builds");
        assert!(verify(&graph).is_empty());
        graph.to_string()
    };
    let names = [
        ("graph @tessera", "graph @llama"),
        ("\"mosaic.pieces.", "\"model.embed_tokens."),
        ("\"mosaic.rows.", "\"model.layers."),
        (".ask.", ".self_attn.q_proj."),
        (".tell.", ".self_attn.k_proj."),
        (".give.", ".self_attn.v_proj."),
        ("\"mosaic.", "\"model."),
    ];
    let renamed = names.iter().fold(text(&spec), |text, (new, old)| text.replace(new, old));
    assert_eq!(renamed, text(&llama));
}

/// The messages that the document's last table names.
#[test]
fn what_the_row_does_not_read_is_refused_by_name() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/add-a-model.md");
    let document = std::fs::read_to_string(document).expect("the document");
    let row: &'static Family = Box::leak(Box::new(tessera()));
    let error = resolved(row, ", \"grout_width\": 3").expect_err("nobody reads the field").to_string();
    assert!(error.contains("unsupported field `grout_width` = 3"), "{error}");
    let told = "this build would compute something else than the model means";
    assert!(error.contains(told) && document.contains(told), "{error}");
    let unknown =
        resolve_in(&rows("llama"), &config(""), &|_| false).expect_err("tessera is no llama").to_string();
    assert!(unknown.contains("unknown model_type `tessera`; this build knows llama"), "{unknown}");
}

/// The row that the document shows is the one in the table.
#[test]
fn the_shown_row_is_the_real_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = std::fs::read_to_string(root.join("docs/add-a-model.md")).expect("the document");
    let shown = document.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a row");
    let source = std::fs::read_to_string(root.join("frontend/src/families/llama.rs")).expect("the rows");
    assert!(source.contains(&format!("pub(super) {shown}")), "{shown}");
}
