//! How a sentence encoder makes one vector of many: the files of sentence-transformers.

use serde_json::Value;
use thiserror::Error;

use crate::config::{ConfigError, RawConfig, limits};
use crate::json;
use crate::source::{FileKind, ModelDir, SourceError, shorten};

/// Why the pooling of a sentence encoder cannot be reproduced.
#[derive(Debug, Error)]
pub enum PoolingError {
    /// A file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file has a wrong field.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `modules.json` is not a list of modules.
    #[error("{place}: wanted a list of modules with `type` and `path`, found {found}; download it again")]
    Malformed {
        /// The file.
        place: String,
        /// What is there.
        found: String,
    },
    /// A step that is not supported.
    #[error("{place}: unsupported {what}; wanted mean, CLS or last-token pooling, then at most Normalize")]
    Unsupported {
        /// The file.
        place: String,
        /// The module or the mode.
        what: String,
    },
}

/// Which rows of the last layer make the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolingMode {
    /// The mean over all tokens.
    Mean,
    /// The first token.
    Cls,
    /// The last token.
    LastToken,
}

/// How the rows of the last layer become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Which rows are used.
    pub mode: PoolingMode,
    /// Whether the vector is scaled to length one.
    pub normalize: bool,
    /// The most tokens of a text, special ones included; longer texts are cut.
    pub max_len: Option<usize>,
}

const POOLING_CAP: u64 = 1 << 16;

impl Pooling {
    /// Reads `modules.json` and what it names; `None` if the model is no sentence encoder.
    pub fn load(dir: &ModelDir) -> Result<Option<Self>, PoolingError> {
        let Some(bytes) = dir.read_optional(FileKind::SentenceModules)? else { return Ok(None) };
        let place = dir.place(FileKind::SentenceModules.name());
        let modules = parse_modules(&bytes, &place)?;
        let mut mode = None;
        let mut normalize = false;
        for (step, module) in modules.iter().enumerate() {
            match (step, module.kind.as_str()) {
                (0, "Transformer") => {}
                (1, "Pooling") => mode = Some(read_mode(dir, &module.path)?),
                (2, "Normalize") => normalize = true,
                _ => {
                    let what = format!("module {step}, `{}`", shorten(&module.kind));
                    return Err(PoolingError::Unsupported { place, what });
                }
            }
        }
        let Some(mode) = mode else {
            return Err(PoolingError::Unsupported { place, what: "pipeline without pooling".into() });
        };
        Ok(Some(Pooling { mode, normalize, max_len: read_max_len(dir)? }))
    }
}

struct Module {
    /// The last word of the Python class path.
    kind: String,
    path: String,
}

fn parse_modules(bytes: &[u8], place: &str) -> Result<Vec<Module>, PoolingError> {
    let malformed =
        |found: String| PoolingError::Malformed { place: place.to_owned(), found: shorten(&found) };
    json::check_depth(bytes).map_err(malformed)?;
    let value: Value = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
    let Value::Array(items) = value else { return Err(malformed(json::kind(&value).to_owned())) };
    let module = |item: &Value| {
        let field = |key| item.get(key).and_then(Value::as_str);
        let kind = field("type")?.rsplit('.').next()?.to_owned();
        Some(Module { kind, path: field("path").unwrap_or_default().to_owned() })
    };
    items.iter().map(|item| module(item).ok_or_else(|| malformed(item.to_string()))).collect()
}

/// The words of newer files and the switches of older ones.
const MODES: &[(&str, &str, Option<PoolingMode>)] = &[
    ("mean", "pooling_mode_mean_tokens", Some(PoolingMode::Mean)),
    ("cls", "pooling_mode_cls_token", Some(PoolingMode::Cls)),
    ("lasttoken", "pooling_mode_lasttoken", Some(PoolingMode::LastToken)),
    ("max", "pooling_mode_max_tokens", None),
    ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", None),
    ("weightedmean", "pooling_mode_weightedmean_tokens", None),
];

fn read_mode(dir: &ModelDir, folder: &str) -> Result<PoolingMode, PoolingError> {
    let name = format!("{folder}/config.json");
    let place = dir.place(&name);
    let bytes = dir.read_named(&name, POOLING_CAP)?.ok_or_else(|| SourceError::Missing {
        place: place.clone(),
        hint: "modules.json names it; download the whole model".to_owned(),
    })?;
    let raw = RawConfig::parse_at(&bytes, place.clone())?;
    let root = raw.root();
    let mut chosen: Vec<(&str, Option<PoolingMode>)> = Vec::new();
    if let Some(word) = root.opt_str("pooling_mode")? {
        let known = MODES.iter().find(|(name, _, _)| *name == word);
        chosen.push((word, known.and_then(|(_, _, mode)| *mode)));
    } else {
        for (name, switch, mode) in MODES {
            if root.bool_or(switch, false)? {
                chosen.push((name, *mode));
            }
        }
    }
    match chosen.as_slice() {
        [(_, Some(mode))] => Ok(*mode),
        [] => Err(PoolingError::Unsupported { place, what: "pooling without a mode".into() }),
        others => {
            let names: Vec<String> = others.iter().map(|(name, _)| shorten(name)).collect();
            Err(PoolingError::Unsupported { place, what: format!("pooling mode `{}`", names.join(" + ")) })
        }
    }
}

fn read_max_len(dir: &ModelDir) -> Result<Option<usize>, PoolingError> {
    let Some(bytes) = dir.read_optional(FileKind::SentenceConfig)? else { return Ok(None) };
    let raw = RawConfig::parse_at(&bytes, dir.place(FileKind::SentenceConfig.name()))?;
    Ok(raw.root().opt_usize("max_seq_length", limits::POSITIONS)?)
}
