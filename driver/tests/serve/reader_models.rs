//! Models that write no text, made of goldens: their weights, and a tokenizer whose words are `w4`, `w5` and so on.

use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Token ids of all goldens are below this.
pub const VOCAB: usize = 101;

/// Words of a text: `w4`, `w5`, ...
pub fn words(ids: impl IntoIterator<Item = usize>) -> String {
    ids.into_iter().map(|id| format!("w{}", 4 + id % (VOCAB - 4))).collect::<Vec<_>>().join(" ")
}

/// Texts of different lengths.
pub fn texts(count: usize) -> Vec<String> {
    (0..count).map(|at| words((0..1 + at * 7 % 40).map(|place| at * 31 + place * place * 5))).collect()
}

/// A golden with a tokenizer that marks begin and end as BERT does.
pub fn encoder(golden: &str) -> TempDir {
    let special = |name: &str, kind: u32| json!({ "SpecialToken": { "id": name, "type_id": kind } });
    let sequence = |name: &str, kind: u32| json!({ "Sequence": { "id": name, "type_id": kind } });
    let single = json!([special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)]);
    let pair = json!([
        special("[CLS]", 0),
        sequence("A", 0),
        special("[SEP]", 0),
        sequence("B", 1),
        special("[SEP]", 1)
    ]);
    model(golden, single, pair)
}

/// The same with what sentence-transformers writes beside a model: how rows become a vector of length one.
pub fn sentence_encoder(golden: &str, mode: &str) -> TempDir {
    let folder = encoder(golden);
    add_pooling(folder.path(), mode);
    folder
}

/// A decoder that makes vectors: the last token, an end mark, stands for the text.
pub fn sentence_decoder(golden: &str) -> TempDir {
    let single = json!([
        { "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": "[SEP]", "type_id": 0 } }
    ]);
    let folder = model(golden, single.clone(), single);
    add_pooling(folder.path(), "lasttoken");
    folder
}

fn model(golden: &str, single: Value, pair: Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "testsuite", "goldens", golden].iter().collect();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    let marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
    let mut vocab = Map::new();
    let all = marks.iter().map(|mark| (*mark).to_owned()).chain((4..VOCAB).map(|id| format!("w{id}")));
    vocab.extend(all.enumerate().map(|(id, word)| (word, json!(id))));
    let added = |(id, mark): (usize, &&str)| {
        json!({ "id": id, "content": mark, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    };
    let mark = |id: usize| json!({ "id": marks[id], "ids": [id], "tokens": [marks[id]] });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": marks.iter().enumerate().map(added).collect::<Vec<_>>(),
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": { "type": "TemplateProcessing", "single": single, "pair": pair,
            "special_tokens": { "[CLS]": mark(2), "[SEP]": mark(3) } },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

fn add_pooling(folder: &Path, mode: &str) {
    let module = |at: usize, path: &str, kind: &str| json!({ "idx": at, "name": at.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}") });
    let modules = json!([
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        module(2, "2_Normalize", "Normalize")
    ]);
    std::fs::write(folder.join("modules.json"), modules.to_string()).unwrap();
    std::fs::create_dir(folder.join("1_Pooling")).unwrap();
    std::fs::write(folder.join("1_Pooling/config.json"), json!({ "pooling_mode": mode }).to_string())
        .unwrap();
}
