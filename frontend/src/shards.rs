//! The files that hold the weights: one `model.safetensors`, or the shards that an index names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::gguf::{Bytes, Gguf};
use crate::header::{Header, TENSORS_MAX, TensorEntry, parse_header};
use crate::map;
use crate::quant::StoredMatrix;
use crate::source::{ADAPTER, FileKind, ModelDir, shorten};
use crate::weights::WeightsError;

/// The name of an unsharded checkpoint.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The most shards that are opened.
const SHARDS_MAX: usize = 4096;

/// One open file of weights with its checked header.
pub(crate) struct Shard {
    /// The name inside the model directory.
    pub(crate) name: String,
    bytes: FileBytes,
    /// Nanoseconds since 1970 of the last change, zero where the system does not say.
    pub(crate) modified: u128,
    /// The tensors.
    pub(crate) header: Header,
}

enum FileBytes {
    Safetensors(Bytes),
    Gguf(Arc<Gguf>),
}

impl Shard {
    /// The tensors of a GGUF file.
    pub(crate) fn of_gguf(gguf: &Arc<Gguf>) -> Self {
        let header = Header { data_start: gguf.data_start() as u64, tensors: gguf.sources.entries.clone() };
        let (name, modified) = (gguf.place().to_owned(), gguf.modified);
        Shard { name, bytes: FileBytes::Gguf(Arc::clone(gguf)), modified, header }
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            FileBytes::Safetensors(bytes) => bytes,
            FileBytes::Gguf(gguf) => &gguf.bytes,
        }
    }

    /// The bytes of a tensor; none if it lies outside the file.
    pub(crate) fn tensor(&self, name: &str, entry: &TensorEntry) -> Option<Cow<'_, [u8]>> {
        if let FileBytes::Gguf(gguf) = &self.bytes {
            return Some(gguf.tensor(name)?.2);
        }
        let range = usize::try_from(entry.begin).ok().zip(usize::try_from(entry.end).ok());
        range.and_then(|(begin, end)| self.bytes().get(begin..end)).map(Cow::Borrowed)
    }

    /// A matrix that the file stores in blocks.
    pub(crate) fn in_blocks(&self, name: &str) -> Option<&StoredMatrix> {
        match &self.bytes {
            FileBytes::Safetensors(_) => None,
            FileBytes::Gguf(gguf) => gguf.sources.matrices.get(name),
        }
    }

    /// Opens a shard; `None` if it is not there.
    pub(crate) fn open(dir: &ModelDir, name: &str) -> Result<Option<Shard>, WeightsError> {
        let Some((file, size)) = dir.open_file(name)? else { return Ok(None) };
        let place = || dir.place(name);
        let io = |source| WeightsError::Map { place: place(), source };
        let modified = file.metadata().and_then(|meta| meta.modified());
        let modified = modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let bad = |source| WeightsError::Header { place: place(), source };
        // An empty file cannot be mapped; the parser has the words for it.
        if size < 8 {
            parse_header(&[], size).map_err(bad)?;
        }
        let len = usize::try_from(size).map_err(|_| io(std::io::Error::other("too large to map")))?;
        let bytes = map::map(&file, len).map_err(io)?;
        let header = parse_header(&bytes, size).map_err(bad)?;
        let modified = modified.map_or(0, |elapsed| elapsed.as_nanos());
        let bytes = FileBytes::Safetensors(Bytes::Map(bytes));
        Ok(Some(Shard { name: name.to_owned(), bytes, modified, header }))
    }

    /// The header as it stands in the file, length field included.
    pub(crate) fn header_bytes(&self) -> &[u8] {
        let end = usize::try_from(self.header.data_start).unwrap_or(usize::MAX);
        self.bytes().get(..end).unwrap_or_default()
    }
}

/// Opens every file of weights of a directory, sorted by name.
pub(crate) fn open_all(dir: &ModelDir) -> Result<Vec<Shard>, WeightsError> {
    if let Some(gguf) = dir.gguf() {
        return Ok(vec![Shard::of_gguf(gguf)]);
    }
    if let Some(shard) = Shard::open(dir, SINGLE)? {
        return Ok(vec![shard]);
    }
    let Some(bytes) = dir.read_optional(FileKind::WeightIndex)? else {
        return Err(no_weights(dir));
    };
    let place = dir.place(FileKind::WeightIndex.name());
    let index: Index = serde_json::from_slice(&bytes).map_err(|e| WeightsError::Index {
        place: place.clone(),
        reason: shorten(&e.to_string()),
        advice: "download it again",
    })?;
    open_indexed(dir, &index.weight_map, &place)
}

fn open_indexed(
    dir: &ModelDir,
    weight_map: &BTreeMap<String, String>,
    place: &str,
) -> Result<Vec<Shard>, WeightsError> {
    let mut listed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in weight_map {
        listed.entry(shard).or_default().push(tensor);
    }
    let fault = |reason, advice| WeightsError::Index { place: place.to_owned(), reason, advice };
    if listed.is_empty() {
        return Err(fault("`weight_map` names no tensor".into(), "download it again"));
    }
    if listed.len() > SHARDS_MAX {
        let reason = format!("it names {} shards, at most {SHARDS_MAX} are opened", listed.len());
        return Err(fault(reason, "is it the right file?"));
    }
    let mut shards = Vec::with_capacity(listed.len());
    for (name, tensors) in listed {
        let shard = Shard::open(dir, name)?.ok_or_else(|| WeightsError::MissingShard {
            place: dir.place(name),
            index: place.to_owned(),
            tensors: tensors.len(),
        })?;
        if let Some(absent) = tensors.iter().find(|tensor| !shard.header.tensors.contains_key(**tensor)) {
            let reason = format!("it places tensor `{}` in {name}, which lacks it", shorten(absent));
            return Err(fault(reason, "download the index and the shard again"));
        }
        shards.push(shard);
    }
    Ok(shards)
}

/// Says what the directory holds instead of weights that can be read.
fn no_weights(dir: &ModelDir) -> WeightsError {
    let known = [
        ("adapter_model.safetensors", ADAPTER),
        ("adapter_model.bin", ADAPTER),
        (
            "consolidated.safetensors",
            "weights in the form of the model's makers; use the checkpoint of transformers' form",
        ),
        (".safetensors", "weights under another name; rename the file to model.safetensors"),
        (".bin", "PyTorch weights; convert them with `save_pretrained(safe_serialization=True)`"),
        (".pt", "PyTorch weights; convert them with `save_pretrained(safe_serialization=True)`"),
        (".pth", "PyTorch weights; convert them with `save_pretrained(safe_serialization=True)`"),
        (".gguf", "a GGUF file beside a config.json; name the file itself"),
        (".onnx", "an ONNX file; use the original checkpoint"),
    ];
    let names = dir.list();
    let found = names.iter().find_map(|name| {
        let (_, meaning) = known.iter().find(|(ending, _)| name.ends_with(ending))?;
        Some(format!("{} ({meaning})", shorten(name)))
    });
    WeightsError::NoWeights {
        place: dir.root().display().to_string(),
        found: found.unwrap_or_else(|| "no file of weights; download the whole model".to_owned()),
    }
}

/// `model.safetensors.index.json`, of which only `weight_map` matters.
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Index;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `weight_map`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Index, A::Error> {
                use serde::de::Error;
                let mut weight_map = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "weight_map" {
                        map.next_value::<IgnoredAny>()?;
                    } else if weight_map.replace(map.next_value::<WeightMap>()?).is_some() {
                        return Err(Error::duplicate_field("weight_map"));
                    }
                }
                let WeightMap(weight_map) = weight_map.ok_or_else(|| Error::missing_field("weight_map"))?;
                Ok(Index { weight_map })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Tensor name to shard name, each tensor once.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from tensor names to shard names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                use serde::de::Error;
                let mut entries = BTreeMap::new();
                while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
                    if entries.len() >= TENSORS_MAX {
                        return Err(Error::custom("more than 1048576 tensors"));
                    }
                    if let Some(twice) = entries.insert(tensor, shard) {
                        let twice = shorten(&twice);
                        return Err(Error::custom(format_args!("a tensor of {twice} is listed twice")));
                    }
                }
                Ok(WeightMap(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
