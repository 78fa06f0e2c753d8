//! The golden models: tiny random checkpoints with what transformers computes on them in float32.

use sinter_frontend::model::Model;
use sinter_frontend::source::{self, ModelDir};
use sinter_frontend::spec::ModelKind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One golden model.
pub struct Golden {
    /// The folder's name.
    pub name: String,
    /// The opened model.
    pub model: Model,
    /// The prompt.
    pub tokens: Vec<u32>,
    /// `logits` or `hidden` of each token, row-major, or the `scores` of the whole text.
    pub expected: Vec<f32>,
    /// The greedy continuation; none for models that write no text.
    pub greedy: Option<Vec<u32>>,
    /// The vector of the text, if the model makes vectors of texts.
    pub vector: Option<Vec<f32>>,
    /// Texts over which a run in bf16 is judged, and what is expected for each, one after another; none if the prompt is
    /// enough for that.
    pub many: Option<(Vec<Vec<u32>>, Vec<f32>)>,
}

impl Golden {
    /// Whether the model has a cache, and so is fed in steps.
    pub fn is_decoder(&self) -> bool {
        self.model.spec.kind == ModelKind::Decoder
    }

    /// How far the results of a run in bf16 are from transformers' float32, and how far transformers' own bfloat16 is
    /// (`goldens/make_bf16.py`), both over the same texts.
    pub fn half<E>(&self, mut run: impl FnMut(&[u32]) -> Result<Vec<f32>, E>) -> Result<(f64, f64), E> {
        // Another spelling of a config is the same model to transformers.
        let sibling = std::fs::read_to_string(folder().join(&self.name).join("same_weights_as")).ok();
        let name = sibling.as_deref().map_or(self.name.as_str(), str::trim);
        let theirs = *half_distances().get(name).unwrap_or_else(|| panic!("bf16.json does not have {name}"));
        let own = (vec![self.tokens.clone()], self.expected.clone());
        let (texts, expected) = self.many.as_ref().unwrap_or(&own);
        let found = texts.iter().map(|text| run(text)).collect::<Result<Vec<_>, E>>()?;
        Ok((distance_in_deviations(&found.concat(), expected), theirs))
    }
}

/// How far transformers' own bfloat16 runs are from its float32 ones, by golden.
pub fn half_distances() -> BTreeMap<String, f64> {
    let table = std::fs::read_to_string(folder().join("bf16.json")).expect("the table");
    serde_json::from_str(&table).expect("names and distances")
}

/// The folder with the golden models.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens")
}

/// The names of all golden models, sorted.
pub fn names() -> Vec<String> {
    models_in("")
}

/// The golden models for a test of many minutes: those that `SINTER_GOLDENS` names, or all.
pub fn chosen() -> Vec<String> {
    let all = names();
    let Ok(list) = std::env::var("SINTER_GOLDENS") else { return all };
    let list: Vec<String> = list.split(',').map(|name| name.trim().to_string()).collect();
    for name in &list {
        assert!(
            all.contains(name),
            "SINTER_GOLDENS names {name}, which is no golden model: {}",
            all.join(" ")
        );
    }
    list
}

/// The names of all quantised golden models, sorted.
pub fn quantised_names() -> Vec<String> {
    models_in("quantised/")
}

/// The models in a folder of the goldens, by their names from the goldens' own folder on.
fn models_in(place: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder().join(place)).expect("the goldens are there");
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().join("config.json").exists())
        .map(|entry| format!("{place}{}", entry.file_name().to_string_lossy()))
        .collect();
    names.sort();
    names
}

/// Opens a golden. A folder that names a sibling in `same_weights_as` has a config of its own and the sibling's files.
pub fn open(name: &str) -> Golden {
    let path = folder().join(name);
    let sibling = std::fs::read_to_string(path.join("same_weights_as")).ok();
    let (place, _joined) = match &sibling {
        None => (path, None),
        Some(sibling) => {
            let joined = tempfile::tempdir().expect("a temporary folder");
            for file in std::fs::read_dir(folder().join(sibling.trim())).expect("the sibling").flatten() {
                std::fs::copy(file.path(), joined.path().join(file.file_name())).expect("a copy");
            }
            std::fs::copy(path.join("config.json"), joined.path().join("config.json")).expect("a copy");
            (joined.path().to_path_buf(), Some(joined))
        }
    };
    let model = Model::open(ModelDir::open(&place).expect("the folder opens"))
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    expected(name, model, &place.join("expected.safetensors"))
}

/// The names of all golden GGUF files that have expected values, sorted.
pub fn gguf_names() -> Vec<String> {
    let entries = std::fs::read_dir(folder().join("gguf")).expect("the goldens are there");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".safetensors")?.to_owned())).collect();
    names.sort();
    names
}

/// The path of a golden GGUF file.
pub fn gguf_file(name: &str) -> PathBuf {
    folder().join(format!("gguf/{name}.gguf"))
}

/// Opens a golden GGUF file.
pub fn open_gguf(name: &str) -> Golden {
    let dir =
        source::resolve(&gguf_file(name).to_string_lossy(), None).unwrap_or_else(|e| panic!("{name}: {e}"));
    let model = Model::open(dir).unwrap_or_else(|e| panic!("{name}: {e}"));
    expected(name, model, &folder().join(format!("gguf/{name}.safetensors")))
}

/// A model with what is expected of it.
fn expected(name: &str, model: Model, file: &Path) -> Golden {
    let tensors = Tensors::read(file);
    let many = file.with_file_name("bf16.safetensors");
    let many = many.exists().then(|| {
        let tensors = Tensors::read(&many);
        let width = tensors.last_extent("tokens");
        let texts = tensors.ids("tokens").expect("tokens").chunks(width).map(<[u32]>::to_vec).collect();
        (texts, tensors.results())
    });
    Golden {
        name: name.into(),
        model,
        tokens: tensors.ids("tokens").expect("tokens"),
        expected: tensors.results(),
        greedy: tensors.ids("greedy"),
        vector: tensors.floats("vector"),
        many,
    }
}

/// A file of expected tensors.
struct Tensors(Vec<u8>);

impl Tensors {
    fn read(file: &Path) -> Tensors {
        Tensors(std::fs::read(file).expect("the expectation"))
    }

    fn view(&self) -> safetensors::SafeTensors<'_> {
        safetensors::SafeTensors::deserialize(&self.0).expect("the expectation parses")
    }

    fn last_extent(&self, tensor: &str) -> usize {
        let view = self.view();
        *view.tensor(tensor).expect("the tensor").shape().last().expect("an extent")
    }

    fn ids(&self, tensor: &str) -> Option<Vec<u32>> {
        let view = self.view();
        let chunks = view.tensor(tensor).ok()?.data().chunks_exact(8);
        Some(chunks.map(|chunk| i64::from_le_bytes(chunk.try_into().expect("8 bytes")) as u32).collect())
    }

    fn floats(&self, tensor: &str) -> Option<Vec<f32>> {
        let view = self.view();
        let chunks = view.tensor(tensor).ok()?.data().chunks_exact(4);
        Some(chunks.map(|chunk| f32::from_le_bytes(chunk.try_into().expect("4 bytes"))).collect())
    }

    fn results(&self) -> Vec<f32> {
        let names = ["logits", "hidden", "scores"];
        names.into_iter().find_map(|name| self.floats(name)).expect("logits, hidden or scores")
    }
}

/// The largest absolute difference as a share of the expectation's standard deviation.
pub fn error_in_deviations(found: &[f32], expected: &[f32]) -> f64 {
    let worst = differences(found, expected).fold(0.0, f64::max);
    if found.iter().any(|x| x.is_nan()) { f64::NAN } else { worst / deviation(expected) }
}

/// The root mean square difference as a share of the expectation's standard deviation.
pub fn distance_in_deviations(found: &[f32], expected: &[f32]) -> f64 {
    let squares: f64 = differences(found, expected).map(|difference| difference * difference).sum();
    (squares / expected.len() as f64).sqrt() / deviation(expected)
}

fn differences(found: &[f32], expected: &[f32]) -> impl Iterator<Item = f64> {
    assert_eq!(found.len(), expected.len(), "as many values");
    found.iter().zip(expected).map(|(x, y)| (*x as f64 - *y as f64).abs())
}

fn deviation(values: &[f32]) -> f64 {
    let mean = values.iter().map(|x| *x as f64).sum::<f64>() / values.len() as f64;
    (values.iter().map(|x| (*x as f64 - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}
