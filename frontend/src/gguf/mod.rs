//! GGUF files as models: one file holds metadata, vocabulary and tensors.
//!
//! A file is seen as the model directory that it was converted from. Its metadata becomes what `config.json` would say
//! ([`architectures`], [`config`]), its vocabulary becomes `tokenizer.json` ([`vocabulary`]), and its tensors have the
//! checkpoint's names, with what the conversion changed undone ([`tensors`]). From there on the way is that of every
//! model. Matrices in blocks are a scheme of quantisation like others: the fields of the blocks ([`formats`]) are tensors,
//! and what they mean is an expression.
//!
//! ```text
//! bytes ──parse──▶ Head ──config──▶ config.json      ──▶ RawConfig
//!                   │   ──vocabulary──▶ tokenizer.json ─▶ Tokenizer
//!                   └── tensors ──▶ names, fields    ──▶ Weights
//! ```

mod architectures;
mod config;
mod formats;
mod metadata;
mod parse;
mod pretokenizers;
pub(crate) mod tensors;
mod vocabulary;

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;
use std::time::UNIX_EPOCH;

use memmap2::Mmap;
use safetensors::Dtype;
use serde_json::Value as Json;
use thiserror::Error;

use crate::map;
use crate::source::FileKind;
use metadata::Metadata;
use parse::Head;
use tensors::Sources;

pub use parse::FormatError;

/// The type, the shape and the bytes of a tensor.
pub type TypedBytes<'a> = (Dtype, &'a [usize], Cow<'a, [u8]>);

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum GgufError {
    /// It is not what the format asks for.
    #[error("{place}: {source}")]
    Format {
        /// The file.
        place: String,
        /// The fault.
        source: FormatError,
    },
    /// The system refused.
    #[error("{place}: {source}")]
    Io {
        /// The file.
        place: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An architecture that no row describes.
    #[error("{place}: unknown general.architecture `{found}`; this build reads {}", known.join(", "))]
    Architecture {
        /// The file.
        place: String,
        /// The name in the file.
        found: String,
        /// The architectures in the table.
        known: Vec<&'static str>,
    },
    /// An entry of the metadata that is missing or wrong.
    #[error("{place}: metadata `{key}`: wanted {wanted}, found {found}")]
    Entry {
        /// The file.
        place: String,
        /// The entry.
        key: String,
        /// What was wanted.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// Entries that nothing reads.
    #[error("{place}: unsupported metadata {}; this build would compute something else than the model means", keys.join(", "))]
    Unread {
        /// The file.
        place: String,
        /// Their names.
        keys: Vec<String>,
    },
    /// A tensor.
    #[error("{place}: tensor `{tensor}`: {reason}")]
    Tensor {
        /// The file.
        place: String,
        /// Its name in the file.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
}

/// The bytes of a file.
pub(crate) enum Bytes {
    /// Mapped.
    Map(Mmap),
    /// In memory.
    Plain(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Map(map) => map,
            Bytes::Plain(bytes) => bytes,
        }
    }
}

/// A file that was read and understood.
pub struct Gguf {
    /// The file for messages.
    place: String,
    pub(crate) bytes: Bytes,
    /// Nanoseconds since 1970 of the last change, zero where the system does not say.
    pub(crate) modified: u128,
    head: Head,
    config: Vec<u8>,
    pub(crate) sources: Sources,
}

impl Gguf {
    /// Opens a file.
    pub(crate) fn open(path: &Path, file: &File, size: u64) -> Result<Self, GgufError> {
        let place = path.display().to_string();
        let io = |source| GgufError::Io { place: place.clone(), source };
        let modified = file.metadata().and_then(|meta| meta.modified());
        let modified = modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let len = usize::try_from(size).map_err(|_| io(std::io::Error::other("too large to map")))?;
        // An empty file cannot be mapped; the parser has the words for it.
        let bytes =
            if len == 0 { Bytes::Plain(Vec::new()) } else { Bytes::Map(map::map(file, len).map_err(io)?) };
        let modified = modified.map_or(0, |elapsed| elapsed.as_nanos());
        Self::read(place, bytes, modified)
    }

    /// Reads a file that is in memory.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, GgufError> {
        Self::read("model.gguf".to_owned(), Bytes::Plain(bytes), 0)
    }

    fn read(place: String, bytes: Bytes, modified: u128) -> Result<Self, GgufError> {
        let head =
            parse::parse(&bytes).map_err(|source| GgufError::Format { place: place.clone(), source })?;
        let described = config::describe(&place, &head, &bytes)?;
        let sources = tensors::find(&place, &head, &described)?;
        let config = Json::Object(described.config).to_string().into_bytes();
        Ok(Gguf { place, bytes, modified, head, config, sources })
    }

    /// The file for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether the model directory would have a file of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        let metadata = Metadata::new(&self.place, &self.head.metadata);
        let (config, tokenizer) = (FileKind::Config, FileKind::Tokenizer);
        [config, FileKind::TokenizerConfig].iter().any(|kind| kind.name() == name)
            || (name == tokenizer.name() && vocabulary::is_there(&metadata))
    }

    /// The names of all tensors, as a checkpoint has them, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.entries.keys().map(String::as_str)
    }

    /// A tensor by the checkpoint's name: its type, its shape and its bytes.
    pub fn tensor(&self, name: &str) -> Option<TypedBytes<'_>> {
        let entry = self.sources.entries.get(name)?;
        let bytes = match self.sources.made.get(name) {
            Some(source) => Cow::Owned(source.read(&self.bytes)),
            None => Cow::Borrowed(self.bytes.get(entry.begin as usize..entry.end as usize)?),
        };
        Some((entry.dtype, &entry.shape, bytes))
    }

    /// Where the tensors' bytes begin.
    pub(crate) fn data_start(&self) -> usize {
        self.head.data_start
    }

    /// What a file of the model directory would hold; none if it has no such file.
    pub fn file(&self, kind: FileKind) -> Result<Option<Vec<u8>>, GgufError> {
        let metadata = Metadata::new(&self.place, &self.head.metadata);
        match kind {
            FileKind::Config => Ok(Some(self.config.clone())),
            FileKind::TokenizerConfig => vocabulary::config(&metadata).map(Some),
            FileKind::Tokenizer if vocabulary::is_there(&metadata) => {
                vocabulary::tokenizer(&metadata).map(Some)
            }
            FileKind::Tokenizer
            | FileKind::GenerationConfig
            | FileKind::WeightIndex
            | FileKind::ChatTemplate
            | FileKind::SentenceModules
            | FileKind::SentenceConfig => Ok(None),
        }
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gguf({}: {} tensors)", self.place, self.head.tensors.len())
    }
}
