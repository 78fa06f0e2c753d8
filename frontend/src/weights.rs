//! The weights of a model: names, types, shapes and bytes, straight from the memory-mapped files.
//!
//! [`Weights::open`] checks every file whole before it gives out a byte: a truncated shard is refused here and
//! not found as zeros in the middle of a run. Opening costs no reading of the tensors themselves.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use safetensors::Dtype;
use sha2::{Digest, Sha256};
use sinter_ir::DType;
use thiserror::Error;

use crate::header::{HeaderError, TensorEntry};
use crate::quant::StoredMatrix;
use crate::shards::{self, Shard};
use crate::source::{ModelDir, SourceError, shorten};

/// Why the weights cannot be used.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// The directory holds nothing that can be read as weights.
    #[error("{place}: wanted model.safetensors or model.safetensors.index.json, found {found}")]
    NoWeights {
        /// The directory.
        place: String,
        /// What is there instead, and what to do about it.
        found: String,
    },
    /// A file cannot be reached.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The system refused the memory map.
    #[error("{place}: cannot map the file into memory: {source}")]
    Map {
        /// The file.
        place: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what the format asks for.
    #[error("{place}: {source}")]
    Header {
        /// The file.
        place: String,
        /// The fault.
        source: HeaderError,
    },
    /// The index of a sharded model is wrong.
    #[error("{place}: {reason}; {advice}")]
    Index {
        /// The index.
        place: String,
        /// The fault.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// The index names a shard that is not there.
    #[error("{place}: shard not found; {index} places {tensors} tensors in it; download the whole model")]
    MissingShard {
        /// The shard.
        place: String,
        /// The index that names it.
        index: String,
        /// How many tensors it should hold.
        tensors: usize,
    },
    /// A tensor that two shards hold.
    #[error("tensor `{tensor}` is in {first} and in {second}; download both again")]
    Twice {
        /// The tensor.
        tensor: String,
        /// The shard that was read first.
        first: String,
        /// The other one.
        second: String,
    },
    /// A tensor that no file holds.
    #[error("tensor `{tensor}`: not in {place}; {nearest}")]
    Missing {
        /// The tensor that was wanted.
        tensor: String,
        /// Where it was looked for.
        place: String,
        /// Names that come near.
        nearest: Nearest,
    },
    /// A tensor of another shape.
    #[error(
        "tensor `{tensor}`: wanted shape {wanted:?}, found {found:?} in {place}; \
         config.json and the weights do not belong together"
    )]
    Shape {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        place: String,
        /// The shape the architecture asks for.
        wanted: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of a type that is not computed with.
    #[error(
        "tensor `{tensor}`: wanted {wanted}, found {found:?} in {place}; \
         use a checkpoint in one of these types, or one whose config.json says how it is quantised"
    )]
    Type {
        /// The tensor.
        tensor: String,
        /// The types that would do.
        wanted: String,
        /// The file that holds it.
        place: String,
        /// The type in the file.
        found: Dtype,
    },
}

/// Up to three names of tensors that come near a missing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest(pub Vec<String>);

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("it holds no tensor at all; download the model again");
        }
        write!(f, "the nearest names are `{}`; is model_type in config.json right?", self.0.join("`, `"))
    }
}

/// Whether weights of this type are used as they are.
pub(crate) fn is_plain(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32)
}

/// The element type in the compiler's terms; none for those that no weight has.
fn element_type(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::BF16 => Some(DType::Bf16),
        Dtype::F16 => Some(DType::F16),
        Dtype::F32 => Some(DType::F32),
        Dtype::U8 => Some(DType::U8),
        Dtype::I8 => Some(DType::I8),
        Dtype::I32 => Some(DType::I32),
        Dtype::U32 => Some(DType::U32),
        Dtype::F8_E4M3 => Some(DType::F8e4m3),
        Dtype::F8_E5M2 => Some(DType::F8e5m2),
        Dtype::F8_E8M0 => Some(DType::F8e8m0),
        _ => None,
    }
}

/// A tensor of the checkpoint, dense and row-major, little endian, at any alignment.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// The element type.
    pub dtype: DType,
    /// The extent of each dimension.
    pub shape: &'a [usize],
    /// The elements: the product of `shape` times the size of the type. They are the file's own where they lie in it so.
    pub bytes: Cow<'a, [u8]>,
}

impl TensorView<'_> {
    /// Every element as f32, which is exact for floats and small integers.
    pub fn to_f32(&self) -> Vec<f32> {
        self.bytes.chunks_exact(self.dtype.bytes()).map(|bytes| self.dtype.read(bytes) as f32).collect()
    }
}

/// A SHA-256 digest; prints as hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// All tensors of a model. Cloning shares the maps, so every thread can hold one.
#[derive(Clone)]
pub struct Weights {
    inner: Arc<Files>,
}

struct Files {
    place: String,
    shards: Vec<Shard>,
    /// Tensor name to the shard that holds it.
    shard_of: BTreeMap<String, usize>,
}

impl Weights {
    /// Opens and checks all files of weights of a model directory.
    pub fn open(dir: &ModelDir) -> Result<Self, WeightsError> {
        let shards = shards::open_all(dir)?;
        let mut shard_of: BTreeMap<String, usize> = BTreeMap::new();
        for (number, shard) in shards.iter().enumerate() {
            for tensor in shard.header.tensors.keys() {
                let Some(first) = shard_of.insert(tensor.clone(), number) else { continue };
                return Err(WeightsError::Twice {
                    tensor: shorten(tensor),
                    first: shards.get(first).map(|s| s.name.clone()).unwrap_or_default(),
                    second: shard.name.clone(),
                });
            }
        }
        let place = dir.root().display().to_string();
        Ok(Weights { inner: Arc::new(Files { place, shards, shard_of }) })
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.shard_of.keys().map(String::as_str)
    }

    /// Whether a tensor is there, whatever its type.
    pub fn contains(&self, name: &str) -> bool {
        self.inner.shard_of.contains_key(name)
    }

    /// The stored type and shape of a tensor, also of one that cannot be computed with.
    pub fn stored(&self, name: &str) -> Option<(Dtype, &[usize])> {
        let (_, entry) = self.find(name)?;
        Some((entry.dtype, &entry.shape))
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> Result<TensorView<'_>, WeightsError> {
        let (dtype, shape) = self.described(name)?;
        let bytes = self.find(name).and_then(|(shard, entry)| shard.tensor(name, entry));
        Ok(TensorView { dtype, shape, bytes: bytes.ok_or_else(|| self.missing(name))? })
    }

    /// The type and the shape of a tensor that can be computed with; its bytes are not touched.
    pub fn described(&self, name: &str) -> Result<(DType, &[usize]), WeightsError> {
        let (shard, entry) = self.find(name).ok_or_else(|| self.missing(name))?;
        let dtype = element_type(entry.dtype).ok_or_else(|| type_error(name, PLAIN, (shard, entry)))?;
        Ok((dtype, &entry.shape))
    }

    /// A matrix that is stored in blocks of codes and scales.
    pub(crate) fn in_blocks(&self, name: &str) -> Option<&StoredMatrix> {
        self.inner.shards.iter().find_map(|shard| shard.in_blocks(name))
    }

    fn missing(&self, name: &str) -> WeightsError {
        WeightsError::Missing {
            tensor: shorten(name),
            place: self.inner.place.clone(),
            nearest: self.nearest(name),
        }
    }

    /// A tensor by name that must have this shape.
    pub fn require(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightsError> {
        self.check_shape(name, shape)?;
        self.get(name)
    }

    fn check_shape(&self, name: &str, wanted: &[usize]) -> Result<(), WeightsError> {
        let (_, found) = self.described(name)?;
        if found == wanted {
            return Ok(());
        }
        Err(WeightsError::Shape {
            tensor: shorten(name),
            place: self.find(name).map(|(shard, _)| shard.name.clone()).unwrap_or_default(),
            wanted: wanted.to_vec(),
            found: found.to_vec(),
        })
    }

    /// Whether a parameter of this type and shape can be made of a tensor: a float of the floats that are used as they are,
    /// bytes of anything, others of their like.
    pub fn check_as(&self, name: &str, dtype: DType, shape: &[usize]) -> Result<(), WeightsError> {
        let wanted: &[DType] = match dtype {
            DType::F32 | DType::Bf16 | DType::F16 => &[DType::Bf16, DType::F16, DType::F32],
            DType::U8 => &DType::ALL,
            DType::U32 => &[DType::U32, DType::I32],
            DType::I8 => &[DType::I8],
            DType::F8e4m3 => &[DType::F8e4m3],
            DType::F8e5m2 => &[DType::F8e5m2],
            DType::F8e8m0 => &[DType::F8e8m0, DType::U8],
            DType::I32 | DType::Bool => &[DType::I32],
        };
        let (stored_as, _) = self.described(name)?;
        if !wanted.contains(&stored_as)
            && let Some(found) = self.find(name)
        {
            let words: Vec<&str> = wanted.iter().map(|dtype| dtype.name()).collect();
            let words = if wanted.len() == 3 { PLAIN.to_owned() } else { words.join(" or ") };
            return Err(type_error(name, &words, found));
        }
        let mut stored = shape.to_vec();
        if dtype == DType::U8
            && let Some(last) = stored.last_mut()
            && last.is_multiple_of(stored_as.bytes())
        {
            *last /= stored_as.bytes();
        }
        self.check_shape(name, &stored)
    }

    /// The bytes of all tensors together, as they lie in the files.
    pub fn total_bytes(&self) -> u64 {
        let sizes = self.inner.shards.iter().flat_map(|shard| shard.header.tensors.values());
        sizes.fold(0u64, |sum, entry| sum.saturating_add(entry.end.saturating_sub(entry.begin)))
    }

    /// The quick key of a cache: names, sizes, times of change and headers of all files, but not their bytes.
    pub fn content_hash(&self) -> ContentHash {
        self.digest(|shard, hash| {
            hash.update(shard.modified.to_le_bytes());
            hash.update(shard.header_bytes());
        })
    }

    /// The true key: a digest of every byte. Reads all the weights, seconds for a large model.
    pub fn full_sha256(&self) -> ContentHash {
        self.digest(|shard, hash| hash.update(shard.bytes()))
    }

    fn digest(&self, part: impl Fn(&Shard, &mut Sha256)) -> ContentHash {
        let mut hash = Sha256::new();
        for shard in &self.inner.shards {
            // Lengths before texts, so that no two lists of files can read the same.
            hash.update((shard.name.len() as u64).to_le_bytes());
            hash.update(shard.name.as_bytes());
            hash.update((shard.bytes().len() as u64).to_le_bytes());
            part(shard, &mut hash);
        }
        ContentHash(hash.finalize().into())
    }

    fn find(&self, name: &str) -> Option<(&Shard, &TensorEntry)> {
        let shard = self.inner.shards.get(*self.inner.shard_of.get(name)?)?;
        Some((shard, shard.header.tensors.get(name)?))
    }

    /// The names that share most of their beginning and end with `name`: linear in the text, where an edit
    /// distance over 100,000 names would take seconds.
    fn nearest(&self, name: &str) -> Nearest {
        let score = |other: &str| {
            let alike = |(a, b): &(u8, u8)| a == b;
            let front = name.bytes().zip(other.bytes()).take_while(alike).count();
            let back = name.bytes().rev().zip(other.bytes().rev()).take_while(alike).count();
            front.saturating_add(back)
        };
        let mut scored: Vec<(usize, &str)> = self.names().map(|other| (score(other), other)).collect();
        scored.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        Nearest(scored.into_iter().take(3).map(|(_, other)| shorten(other)).collect())
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (files, tensors) = (self.inner.shards.len(), self.inner.shard_of.len());
        write!(f, "Weights({}: {tensors} tensors in {files} files)", self.inner.place)
    }
}

/// The types of weights that are used as they are.
const PLAIN: &str = "BF16, F16 or F32";

fn type_error(name: &str, wanted: &str, (shard, entry): (&Shard, &TensorEntry)) -> WeightsError {
    WeightsError::Type {
        tensor: shorten(name),
        wanted: wanted.to_owned(),
        place: shard.name.clone(),
        found: entry.dtype,
    }
}
