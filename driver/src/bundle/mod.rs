//! Bundles: a compiled model as a directory that starts without compiling or packing.
//!
//! ```text
//! manifest.json     versions, target, element type, model facts, size and SHA-256 of every other file
//! plan.json         the plan with its tile programs
//! kernels/*.tile    each tile program on its own, to be read by people
//! weights.json      where each weight lies in weights.bin
//! weights.bin       packed weights, each at a 64-byte boundary; mapped into memory, never copied
//! model/…           config, tokenizer and chat template as they came
//! ```
//!
//! A bundle is written under a temporary name, synced and renamed, so it is there whole or not at all. The manifest's own
//! hash is its id. Loading checks everything but the bytes of the weights, whose size is checked; [`verify`] checks every
//! byte. Whatever does not match is refused with the reason. A bundle does not depend on when or where it was written.

mod read;
mod write;

pub use read::{Bundle, is_bundle, open, verify};
pub use write::{Contents, Destination, Packed, write};

use crate::atomic_file::sha256;
use crate::info::ModelInfo;
use serde::{Deserialize, Serialize};
use sinter_ir::DType;

/// The word that says what a manifest is.
const FORMAT: &str = "sinter-bundle";
/// The version of the layout above; any other is refused.
const FORMAT_VERSION: u32 = 1;
const MANIFEST: &str = "manifest.json";
const PLAN: &str = "plan.json";
const WEIGHTS: &str = "weights.bin";
const INDEX: &str = "weights.json";
const KERNELS: &str = "kernels";
/// The folder with the model's own small files.
const MODEL: &str = "model";
/// The boundary at which each weight starts.
const BOUNDARY: u64 = 64;

/// What a bundle is and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `sinter-bundle`.
    pub format: String,
    /// The version of the layout.
    pub format_version: u32,
    /// The version of the compiler.
    pub sinter: String,
    /// What the kernels are for.
    pub target: String,
    /// The element type of weights and KV cache.
    pub dtype: DType,
    /// What must be equal for the bundle to be used: a hash of the format, the compiler's version and the target.
    pub compatibility: String,
    /// Where the model came from.
    pub model: Identity,
    /// The facts of the model.
    pub info: ModelInfo,
    /// Every other file, sorted by path.
    pub sections: Vec<Section>,
    /// The hash of all of the above: the bundle's content address.
    pub id: String,
}

/// Which model a bundle was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The hub id, or the name of the directory.
    pub name: String,
    /// The hash of all bytes of its weights and of its config.json.
    pub content: String,
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// The path inside the bundle.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// Where a weight lies in weights.bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    offset: u64,
    bytes: u64,
}

impl Manifest {
    /// Sets the id to what the content gives.
    pub fn seal(&mut self) -> anyhow::Result<()> {
        self.id = self.computed_id()?;
        Ok(())
    }
    /// The hash of everything but the id.
    fn computed_id(&self) -> anyhow::Result<String> {
        let plain = Manifest { id: String::new(), ..self.clone() };
        Ok(sha256(&serde_json::to_vec(&plain)?))
    }
}

/// The key that a bundle for a target must have.
fn compatibility(target: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    sha256(format!("{FORMAT} {FORMAT_VERSION} {version} {target}").as_bytes())
}
