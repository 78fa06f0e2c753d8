//! Bundles: a compiled model as a directory that starts without compiling or packing.
//!
//! ```text
//! manifest.json     versions, target, element type, model facts, size and SHA-256 of every other file
//! plan.json         the plan with its tile programs
//! kernels/host/…    each tile program on its own, to be read by people
//! kernels/sm_80/…   program.json and the PTX of each kernel, for each GPU target
//! weights.json      where each weight lies in weights.bin
//! weights.bin       packed weights, each at a 64-byte boundary; mapped into memory, never copied
//! model/…           config, tokenizer and chat template as they came
//! ```
//!
//! A bundle is written under a temporary name, synced and renamed, so it is there whole or not at all. The manifest's own
//! hash is its id. Weights are there once: in the host's panels if the host is a target, which need not be copied to be
//! used, else in the rows of GPUs. What goes to a GPU is copied anyway, and is brought into rows on the way.
//! Loading checks everything but the bytes of the weights, whose size is checked; [`verify`] checks every
//! byte. Whatever does not match is refused with the reason. A bundle does not depend on when or where it was written.

mod read;
mod write;

pub(crate) use read::rows_of;
pub use read::{Bundle, is_bundle, open, verify};
pub use write::{Contents, Destination, Packed, write};

use crate::atomic_file::sha256;
use crate::device::BuildTarget;
use crate::info::ModelInfo;
use serde::{Deserialize, Serialize};
use sinter_ir::DType;

/// The word that says what a manifest is.
const FORMAT: &str = "sinter-bundle";
/// The version of the layout above; any other is refused.
const FORMAT_VERSION: u32 = 2;
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
    /// What there are kernels for, sorted: `host`, `sm_80`.
    pub targets: Vec<String>,
    /// How the weights lie.
    pub weights: WeightLayout,
    /// The element type of weights and KV cache.
    pub dtype: DType,
    /// What must be equal for the bundle to be used: a hash of the format, the compiler's version and the targets.
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

/// How weights lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightLayout {
    /// Those of contractions in the host's panels.
    Panels,
    /// As in GPU memory.
    Rows,
}

impl WeightLayout {
    /// The layout for a set of targets.
    pub fn of(targets: &[BuildTarget]) -> Self {
        if targets.contains(&BuildTarget::Host) { WeightLayout::Panels } else { WeightLayout::Rows }
    }
    /// The bytes of a weight.
    pub fn bytes(self, weight: &sinter_ir::WeightDef) -> Option<u64> {
        match self {
            WeightLayout::Panels => sinter_runtime::packed_bytes(&weight.ty, weight.layout),
            WeightLayout::Rows => sinter_ir::gpu_weight_bytes(&weight.ty, weight.layout),
        }
    }
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

/// The key that a bundle for some targets must have.
fn compatibility(targets: &[String]) -> String {
    let (version, targets) = (env!("CARGO_PKG_VERSION"), targets.join(" "));
    sha256(format!("{FORMAT} {FORMAT_VERSION} {version} {targets}").as_bytes())
}

/// A name that can be a file's.
fn file_name(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// The folder of a target's kernels.
fn kernel_folder(target: BuildTarget) -> String {
    format!("{KERNELS}/{target}")
}

/// The file of a kernel of a GPU target.
fn ptx_file(target: sinter_ir::Target, number: usize, name: &str) -> String {
    format!("{}/{number:03}-{}.ptx", kernel_folder(BuildTarget::Gpu(target)), file_name(name))
}

/// The file that says how a GPU target's kernels are launched.
fn program_file(target: sinter_ir::Target) -> String {
    format!("{}/program.json", kernel_folder(BuildTarget::Gpu(target)))
}
