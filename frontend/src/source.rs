//! Finds the model directory and guards every access to its files.
//!
//! A model directory comes from strangers. [`ModelDir`] therefore opens nothing outside it: names are
//! checked word by word, links are followed only inside the directory (or, for a snapshot of the hub cache,
//! inside the cached repository, where the blobs lie), only regular files are opened, and each kind of file
//! has a size cap that is checked before any memory is taken.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::gguf::{Gguf, GgufError};

/// The local hub cache, given by the caller: this crate never reads the environment.
#[derive(Clone, Debug)]
pub struct HubCache {
    /// The directory that holds the `models--org--name` folders (`$HF_HOME/hub` by custom).
    pub root: PathBuf,
}

/// The longest hub id and revision that are looked up.
const ID_MAX: usize = 200;
/// A revision file holds one commit hash.
const REVISION_FILE_MAX: u64 = 1024;

/// Why a model directory or one of its files cannot be used.
#[derive(Debug, Error)]
pub enum SourceError {
    /// Neither a directory nor a hub id.
    #[error(
        "model `{model}` was not found: wanted a directory or a hub id such as `org/name`, found {found}; \
         give the path of a directory that holds config.json and model.safetensors"
    )]
    NotAModel {
        /// What the user typed.
        model: String,
        /// What is there instead.
        found: String,
    },
    /// A well-formed hub id that the cache does not hold.
    #[error(
        "model `{model}` was not found: there is no such directory, and the hub cache has no `{looked_for}`; \
         download it first (for example `hf download {model}`) or give a directory"
    )]
    NotInCache {
        /// What the user typed.
        model: String,
        /// The path that was looked for.
        looked_for: String,
    },
    /// A cached repository whose revision cannot be chosen.
    #[error("the cached model `{model}` cannot be used: {reason}; download it again or give a directory")]
    BrokenCache {
        /// What the user typed.
        model: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that must be there is not.
    #[error("{place}: file not found; {hint}")]
    Missing {
        /// The file.
        place: String,
        /// What to do.
        hint: String,
    },
    /// A name that would leave the directory.
    #[error(
        "refused file name {name:?}: wanted a plain relative name inside the model directory, found {reason}"
    )]
    BadName {
        /// The name as written in the model's files.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A link that leaves the directory.
    #[error(
        "{place}: the link leads to {target}, outside the model directory; \
         copy the file into the directory, or name the directory it lies in"
    )]
    Escapes {
        /// The link.
        place: String,
        /// Where it leads.
        target: String,
    },
    /// A FIFO, a device, a socket or a directory.
    #[error("{place}: wanted a regular file, found {found}; put the file itself there")]
    NotRegular {
        /// The path.
        place: String,
        /// What is there.
        found: &'static str,
    },
    /// A file over its cap.
    #[error("{place}: the file has {found} bytes, at most {cap} are accepted; is it the right file?")]
    TooLarge {
        /// The file.
        place: String,
        /// Its size in bytes.
        found: u64,
        /// The cap in bytes.
        cap: u64,
    },
    /// A GGUF file that cannot be used.
    #[error(transparent)]
    Gguf(#[from] Box<GgufError>),
    /// Several GGUF files where one is wanted.
    #[error("{place}: wanted one GGUF file, found {}; name the file itself", found.join(", "))]
    ManyGguf {
        /// The directory.
        place: String,
        /// The files.
        found: Vec<String>,
    },
    /// The system refused.
    #[error("{place}: {source}")]
    Io {
        /// The file or directory.
        place: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// The files of a model directory that are read whole, each with its name and its cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// `config.json`: the architecture.
    Config,
    /// `generation_config.json`: defaults for sampling.
    GenerationConfig,
    /// `model.safetensors.index.json`: which tensor is in which shard.
    WeightIndex,
    /// `tokenizer.json`.
    Tokenizer,
    /// `tokenizer_config.json`: special tokens and, often, the chat template.
    TokenizerConfig,
    /// `chat_template.jinja`: the chat template as a file of its own.
    ChatTemplate,
    /// `modules.json`: the pipeline of a sentence encoder.
    SentenceModules,
    /// `sentence_bert_config.json`: the length limit of a sentence encoder.
    SentenceConfig,
}

impl FileKind {
    /// The name inside the directory.
    pub const fn name(self) -> &'static str {
        match self {
            FileKind::Config => "config.json",
            FileKind::GenerationConfig => "generation_config.json",
            FileKind::WeightIndex => "model.safetensors.index.json",
            FileKind::Tokenizer => "tokenizer.json",
            FileKind::TokenizerConfig => "tokenizer_config.json",
            FileKind::ChatTemplate => "chat_template.jinja",
            FileKind::SentenceModules => "modules.json",
            FileKind::SentenceConfig => "sentence_bert_config.json",
        }
    }

    /// The most bytes that are accepted.
    pub const fn cap(self) -> u64 {
        const MIB: u64 = 1 << 20;
        match self {
            FileKind::WeightIndex | FileKind::Tokenizer => 64 * MIB,
            FileKind::TokenizerConfig => 8 * MIB,
            FileKind::Config | FileKind::GenerationConfig | FileKind::ChatTemplate => MIB,
            FileKind::SentenceModules | FileKind::SentenceConfig => MIB / 16,
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            FileKind::Config => "a model directory must hold config.json",
            FileKind::Tokenizer => {
                "text needs tokenizer.json; convert older tokenizer files with `save_pretrained`"
            }
            _ => "add the file to the model directory",
        }
    }
}

/// A model directory: every file of the model is read through it. A GGUF file is one too.
#[derive(Clone, Debug)]
pub struct ModelDir {
    root: PathBuf,
    /// Links may lead anywhere below this one.
    boundary: PathBuf,
    /// The file that stands for all files of the directory.
    gguf: Option<Arc<Gguf>>,
}

/// What to do with an adapter.
pub(crate) const ADAPTER: &str =
    "this is an adapter; merge it into its base model with `merge_and_unload` and `save_pretrained`";

/// How the names of GGUF files end.
const GGUF: &str = ".gguf";

/// Turns what the user typed into a directory: a path first, then a hub id in the cache.
pub fn resolve(model: &str, cache: Option<&HubCache>) -> Result<ModelDir, SourceError> {
    let path = Path::new(model);
    let not_a_model = |found: &str| SourceError::NotAModel { model: shorten(model), found: found.to_owned() };
    if path.is_dir() {
        return ModelDir::open(path);
    }
    if path.exists() && model.ends_with(GGUF) {
        return ModelDir::of_gguf(path);
    }
    if path.exists() {
        return Err(not_a_model("a file; name the directory it lies in, or a file of the ending .gguf"));
    }
    if !is_hub_id(model) {
        return Err(not_a_model("no such directory, and the text is not a hub id"));
    }
    match cache {
        Some(cache) => find_in_cache(model, cache),
        None => Err(not_a_model("no such directory, and no hub cache is known")),
    }
}

/// `name` or `org/name` in the letters the hub allows.
fn is_hub_id(model: &str) -> bool {
    let mut words = model.split('/');
    let well_formed = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            && !word.contains("..")
            && !word.contains("--")
    };
    let count = model.split('/').count();
    model.len() <= ID_MAX && count <= 2 && words.all(well_formed)
}

fn find_in_cache(model: &str, cache: &HubCache) -> Result<ModelDir, SourceError> {
    let repository = cache.root.join(format!("models--{}", model.replace('/', "--")));
    if !repository.is_dir() {
        return Err(SourceError::NotInCache {
            model: model.to_owned(),
            looked_for: repository.display().to_string(),
        });
    }
    let broken = |reason: String| SourceError::BrokenCache { model: model.to_owned(), reason };
    let revision = main_revision(&repository).map_err(broken)?;
    let snapshot = repository.join("snapshots").join(&revision);
    if !snapshot.is_dir() {
        return Err(broken(format!(
            "refs/main names revision {revision}, but {} is not there",
            snapshot.display()
        )));
    }
    let mut dir = ModelDir::open(&snapshot)?;
    dir.boundary = canonical(&repository)?;
    Ok(dir)
}

/// The commit that `refs/main` names, or the only snapshot where that file is missing.
fn main_revision(repository: &Path) -> Result<String, String> {
    let reference = repository.join("refs").join("main");
    if let Ok(file) = open_regular(&reference) {
        let mut text = String::new();
        file.0.take(REVISION_FILE_MAX).read_to_string(&mut text).map_err(|e| format!("refs/main: {e}"))?;
        let revision = text.trim();
        let plain = !revision.is_empty() && revision.chars().all(|c| c.is_ascii_alphanumeric());
        return if plain {
            Ok(revision.to_owned())
        } else {
            Err(format!("refs/main holds {:?}, wanted a commit hash", shorten(revision)))
        };
    }
    let entries = std::fs::read_dir(repository.join("snapshots")).map_err(|e| format!("snapshots: {e}"))?;
    let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).take(2);
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err("it has no snapshot".to_owned()),
        _ => Err("refs/main is missing and there are several snapshots".to_owned()),
    }
}

impl ModelDir {
    /// Opens a local directory.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let root = canonical(path)?;
        if !root.is_dir() {
            return Err(SourceError::NotAModel {
                model: path.display().to_string(),
                found: "something that is not a directory".to_owned(),
            });
        }
        // The cache keeps the bytes in `blobs/` beside `snapshots/<revision>/` and links to them.
        let repository = root.parent().filter(|p| p.ends_with("snapshots")).and_then(Path::parent);
        let cached = repository.filter(|p| {
            p.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models--"))
                && p.join("blobs").is_dir()
        });
        let boundary = cached.map_or_else(|| root.clone(), Path::to_path_buf);
        let dir = ModelDir { root, boundary, gguf: None };
        if dir.has(FileKind::Config.name()) {
            return Ok(dir);
        }
        let mut names = dir.list();
        names.retain(|name| name.ends_with(GGUF));
        match &names[..] {
            [] => Ok(dir),
            [name] => dir.with_gguf(name),
            _ => Err(SourceError::ManyGguf { place: dir.root.display().to_string(), found: names }),
        }
    }

    /// Opens a GGUF file, which may be a link.
    fn of_gguf(path: &Path) -> Result<Self, SourceError> {
        let target = canonical(path)?;
        let root = target.parent().map(Path::to_path_buf).unwrap_or_default();
        let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        ModelDir { boundary: root.clone(), root, gguf: None }.with_gguf(&name)
    }

    fn with_gguf(self, name: &str) -> Result<Self, SourceError> {
        let missing = || SourceError::Missing { place: self.place(name), hint: "is the name right?".into() };
        let (file, size) = self.open_file(name)?.ok_or_else(missing)?;
        let gguf = Gguf::open(&self.root.join(name), &file, size).map_err(Box::new)?;
        Ok(ModelDir { gguf: Some(Arc::new(gguf)), ..self })
    }

    /// The file that stands for the directory, if it is one.
    pub(crate) fn gguf(&self) -> Option<&Arc<Gguf>> {
        self.gguf.as_ref()
    }

    /// The directory's absolute path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file for messages.
    pub fn place(&self, name: &str) -> String {
        if let Some(gguf) = &self.gguf {
            return format!("{}, as {}", gguf.place(), shorten(name));
        }
        self.root.join(shorten(name)).display().to_string()
    }

    /// Whether something with this name is there.
    pub fn has(&self, name: &str) -> bool {
        if let Some(gguf) = &self.gguf {
            return gguf.has(name);
        }
        check_name(name).is_ok() && self.root.join(name).exists()
    }

    /// Reads a file that must be there.
    pub fn read(&self, kind: FileKind) -> Result<Vec<u8>, SourceError> {
        self.read_optional(kind)?.ok_or_else(|| SourceError::Missing {
            place: self.place(kind.name()),
            hint: self.instead(kind).unwrap_or(kind.hint()).to_owned(),
        })
    }

    /// What the directory holds in the place of a model, if that is known.
    fn instead(&self, kind: FileKind) -> Option<&'static str> {
        const KNOWN: [(&str, &str); 4] = [
            ("adapter_config.json", ADAPTER),
            (
                "model_index.json",
                "model_index.json is of a pipeline that makes images; wanted the directory of a text model",
            ),
            (
                "0_Transformer/config.json",
                "the model lies in 0_Transformer; save it anew with sentence-transformers, which lays it beside modules.json",
            ),
            (
                "params.json",
                "params.json is in the form of the model's makers; wanted the checkpoint in the form of transformers",
            ),
        ];
        let found = KNOWN.iter().find(|(name, _)| kind == FileKind::Config && self.has(name))?;
        Some(found.1)
    }

    /// Reads a file that may be missing.
    pub fn read_optional(&self, kind: FileKind) -> Result<Option<Vec<u8>>, SourceError> {
        match &self.gguf {
            Some(gguf) => Ok(gguf.file(kind).map_err(Box::new)?),
            None => self.read_named(kind.name(), kind.cap()),
        }
    }

    /// Reads a file whose name stands in another file, at most `cap` bytes of it; a GGUF file names none.
    pub fn read_named(&self, name: &str, cap: u64) -> Result<Option<Vec<u8>>, SourceError> {
        if self.gguf.is_some() {
            return Ok(None);
        }
        let Some((file, size)) = self.open_file(name)? else { return Ok(None) };
        let place = self.place(name);
        if size > cap {
            return Err(SourceError::TooLarge { place, found: size, cap });
        }
        let mut bytes = Vec::new();
        // One byte more than the cap shows a file that grew since it was measured.
        let read = file.take(cap.saturating_add(1)).read_to_end(&mut bytes);
        let read = read.map_err(|source| SourceError::Io { place: place.clone(), source })? as u64;
        if read > cap {
            return Err(SourceError::TooLarge { place, found: read, cap });
        }
        Ok(Some(bytes))
    }

    /// Opens a regular file inside the directory and tells its size; `None` if it is not there.
    pub fn open_file(&self, name: &str) -> Result<Option<(File, u64)>, SourceError> {
        check_name(name)?;
        let path = self.root.join(name);
        let place = || self.place(name);
        let target = match path.canonicalize() {
            Ok(target) => target,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
                return Ok(None);
            }
            Err(source) => return Err(SourceError::Io { place: place(), source }),
        };
        if !target.starts_with(&self.boundary) {
            return Err(SourceError::Escapes { place: place(), target: target.display().to_string() });
        }
        match open_regular(&target) {
            Ok(opened) => Ok(Some(opened)),
            Err(OpenFailure::Kind(found)) => Err(SourceError::NotRegular { place: place(), found }),
            Err(OpenFailure::Io(source)) => Err(SourceError::Io { place: place(), source }),
        }
    }

    /// The names in the directory, sorted, at most 4096 of them: only for messages.
    pub fn list(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten().take(4096);
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

enum OpenFailure {
    Kind(&'static str),
    Io(std::io::Error),
}

/// Opens only regular files. The kind is looked at before the opening, because opening a FIFO waits and
/// opening a device may act, and again after it, because the name may have changed hands in between.
fn open_regular(path: &Path) -> Result<(File, u64), OpenFailure> {
    let kind = |meta: &std::fs::Metadata| {
        if meta.is_file() {
            Ok(())
        } else if meta.is_dir() {
            Err(OpenFailure::Kind("a directory"))
        } else {
            Err(OpenFailure::Kind("a pipe, socket or device"))
        }
    };
    kind(&std::fs::metadata(path).map_err(OpenFailure::Io)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        const O_NONBLOCK: i32 = 0o4000;
        options.custom_flags(O_NONBLOCK);
    }
    let file = options.open(path).map_err(OpenFailure::Io)?;
    let meta = file.metadata().map_err(OpenFailure::Io)?;
    kind(&meta)?;
    Ok((file, meta.len()))
}

/// Refuses names that are absolute, climb, or hold what no file name should.
fn check_name(name: &str) -> Result<(), SourceError> {
    let bad = |reason| Err(SourceError::BadName { name: shorten(name), reason });
    if name.is_empty() {
        return bad("an empty name");
    }
    if name.len() > 255 {
        return bad("more than 255 bytes");
    }
    if name.contains(|c: char| c.is_control()) {
        return bad("a control character");
    }
    if name.contains('\\') {
        return bad("a backslash");
    }
    if name.split('/').any(|word| word == "..") {
        return bad("`..`");
    }
    if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
        return bad("an absolute path or `.`");
    }
    Ok(())
}

fn canonical(path: &Path) -> Result<PathBuf, SourceError> {
    path.canonicalize().map_err(|source| SourceError::Io { place: path.display().to_string(), source })
}

/// Cuts untrusted text to a length that fits a message.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 120;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
