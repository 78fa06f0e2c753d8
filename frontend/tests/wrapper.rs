//! Models of several kinds of input: their text model is the one that it is alone.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use sinter_frontend::build::BuildOptions;
use sinter_frontend::model::Model;
use sinter_frontend::wrapper::WRAPPERS;
use sinter_ir::DType;
use support::says;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/goldens").join(name)
}

/// A golden of the text model of each whole.
const PARTS: &[(&str, &str)] = &[
    ("cohere2", "cohere2"),
    ("gemma3_text", "gemma3"),
    ("gemma4_text", "gemma4"),
    ("llama", "llama"),
    ("mistral", "mistral_window"),
];

fn config(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden(name).join("config.json")).unwrap()).unwrap()
}

/// A golden's weights with its names changed, and a tensor of another kind of input beside them.
fn weights(name: &str, rename: impl Fn(&str) -> String) -> Vec<u8> {
    let bytes = std::fs::read(golden(name).join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut renamed: BTreeMap<String, _> =
        tensors.tensors().into_iter().map(|(name, view)| (rename(&name), view)).collect();
    let other = renamed.values().next().unwrap().clone();
    renamed.insert("vision_tower.weight".into(), other);
    safetensors::serialize(renamed, None).unwrap()
}

/// What the graph computes, with the names of weights as they are in the part alone.
fn graph(model: &Model, prefix: &str) -> String {
    let text = model.build(BuildOptions::new(DType::F32)).unwrap().to_string();
    text.replace(prefix, "model.").replace("language_model.lm_head", "lm_head")
}

/// How files spell the names: what stands in place of `model.`, and what before the head.
const SPELLINGS: [(&str, &str); 2] =
    [("model.language_model.", ""), ("language_model.model.", "language_model.")];

#[test]
fn the_text_part_is_the_model_that_it_is_alone() {
    for (whole, part) in WRAPPERS {
        let Some((_, name)) = PARTS.iter().find(|(family, _)| family == part) else { continue };
        let alone = support::Model::new()
            .file("config.json", config(name).to_string())
            .file("model.safetensors", std::fs::read(golden(name).join("model.safetensors")).unwrap());
        let wanted = graph(&Model::open(alone.open()).unwrap(), "model.");
        for (prefix, before_head) in SPELLINGS {
            let rename = |name: &str| match name.strip_prefix("model.") {
                Some(rest) => format!("{prefix}{rest}"),
                None => format!("{before_head}{name}"),
            };
            let config = json!({
                "model_type": whole,
                "text_config": config(name),
                "vision_config": { "depth": 3 },
                "image_token_id": 7,
            });
            let dir = support::Model::new()
                .file("config.json", config.to_string())
                .file("model.safetensors", weights(name, rename));
            let model = Model::open(dir.open()).unwrap_or_else(|error| panic!("{whole}: {error}"));
            assert_eq!(graph(&model, prefix), wanted, "{whole}");
            assert!(model.notes.iter().any(|note| note.contains("text model alone")), "{:?}", model.notes);
            assert!(model.notes.iter().any(|note| note.contains("vision_tower.weight")), "{:?}", model.notes);
        }
    }
}

/// Old files have the fields of the text model beside those of the others.
#[test]
fn the_text_part_of_an_old_file_is_told_of_too() {
    let mut whole = config("llama");
    whole["model_type"] = "llava".into();
    whole["vision_config"] = json!({ "depth": 3 });
    let weights = std::fs::read(golden("llama").join("model.safetensors")).unwrap();
    let dir = support::Model::new().file("config.json", whole.to_string()).file("model.safetensors", weights);
    let notes = Model::open(dir.open()).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("text model alone")), "{notes:?}");
}

#[test]
fn what_the_whole_says_besides_is_read_or_refused() {
    let open = |config: Value| {
        let weights = std::fs::read(golden("llama").join("model.safetensors")).unwrap();
        let dir =
            support::Model::new().file("config.json", config.to_string()).file("model.safetensors", weights);
        Model::open(dir.open()).map(|model| model.spec).map_err(|error| error.to_string())
    };
    let whole = |field: &str, value: Value| {
        let mut whole = json!({ "model_type": "llava", "text_config": config("llama") });
        whole[field] = value;
        open(whole)
    };
    says(whole("surprise", 3.into()).err().unwrap(), &["unsupported field `surprise` = 3"]);
    says(whole("text_config", 3.into()).err().unwrap(), &["text_config", "wanted an object"]);
    let mut inner = config("llama");
    inner["surprise"] = 4.into();
    says(whole("text_config", inner).err().unwrap(), &["text_config", "unsupported field `surprise` = 4"]);
    // The part is tied if the whole is, and says nothing itself.
    let mut inner = config("llama");
    inner.as_object_mut().unwrap().remove("tie_word_embeddings");
    let tied = json!({ "model_type": "llava", "text_config": inner, "tie_word_embeddings": true });
    let spec = open(tied).unwrap();
    assert_eq!(spec.head.unwrap().linear.weight, spec.embedding.tokens);
}
