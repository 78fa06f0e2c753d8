//! A model directory opened: everything that the files say, checked against each other.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sinter_ir::{DType, Graph, Op};
use thiserror::Error;

use crate::build::{BuildError, BuildOptions, build};
use crate::chat::{ChatError, ChatTemplate};
use crate::config::{ConfigError, RawConfig};
use crate::generation::GenerationDefaults;
use crate::pooling::{Pooling, PoolingError};
use crate::quant::{QuantError, Quantisation, StoredMatrix};
use crate::resolve::resolve;
use crate::rope::RopeSpec;
use crate::source::{FileKind, ModelDir};
use crate::spec::{ModelKind, ModelSpec, PartSpec};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::weights::{Weights, WeightsError};

/// Why a model directory cannot be used.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The quantisation.
    #[error(transparent)]
    Quant(#[from] QuantError),
    /// The graph.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The pooling of a sentence encoder.
    #[error(transparent)]
    Pooling(#[from] PoolingError),
}

/// A model, ready to be built.
#[derive(Clone)]
pub struct Model {
    /// Where it came from.
    pub dir: ModelDir,
    /// What it computes.
    pub spec: ModelSpec,
    /// The tensors of the checkpoint.
    pub weights: Weights,
    /// Text to ids and back; none without tokenizer.json.
    pub tokenizer: Option<Tokenizer>,
    /// Messages to prompts, if the model has a template.
    pub chat: Option<ChatTemplate>,
    /// The model's wishes for sampling.
    pub generation: GenerationDefaults,
    /// How an encoder's rows become one vector, if it is a sentence encoder.
    pub pooling: Option<Pooling>,
    /// What the user should be told, a sentence each.
    pub notes: Vec<String>,
    /// The weights that no checkpoint holds.
    constants: BTreeMap<String, Vec<f32>>,
}

impl Model {
    /// Reads every file of a model directory. The spec must be understood to the last field, and the checkpoint
    /// must hold each tensor that the graph reads, in its shape and in a type that can be computed with.
    pub fn open(dir: ModelDir) -> Result<Self, ModelError> {
        let config = RawConfig::load(&dir)?;
        let weights = Weights::open(&dir)?;
        let quantisation = Quantisation::read(&config)?;
        let holds = |name: &str| match &quantisation {
            Some(quantisation) => quantisation.holds(name, &weights),
            None => weights.contains(name),
        };
        let mut spec = resolve(&config, &holds)?;
        let pooling = Pooling::load(&dir)?;
        if pooling.is_some() && spec.kind == ModelKind::Decoder {
            // What makes vectors of texts has no use for logits.
            spec.head = None;
        }
        let mut notes = config.finish()?;
        notes.extend(spec.ropes.iter().filter_map(RopeSpec::limit).next().map(|limit| {
            format!(
                "texts up to {limit} tokens only: the factors of rotary scaling for longer ones are not used"
            )
        }));
        if let Some(quantisation) = &quantisation {
            spec.stored = quantisation.locate(&build(&spec, BuildOptions::new(DType::F32))?, &weights)?;
            notes.extend(quantisation.notes.iter().cloned());
        }
        let constants: BTreeMap<_, _> = spec.constants().into_iter().collect();
        let graph = build(&spec, BuildOptions::new(DType::F32))?;
        notes.extend(check_weights(&graph, &weights, (&constants, &spec.parts))?);
        let tokenizer = match dir.has(FileKind::Tokenizer.name()) {
            true => Some(Tokenizer::load(&dir, spec.vocab)?),
            false => None,
        };
        let chat = match ChatTemplate::load(&dir) {
            Ok(template) => Some(template),
            Err(ChatError::NoTemplate { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let generation = GenerationDefaults::load(&dir, &config)?;
        notes.extend(generation.notes.iter().cloned());
        Ok(Model { dir, spec, weights, tokenizer, chat, generation, pooling, notes, constants })
    }

    /// Says that matrices are stored quantised, though the checkpoint holds them as they are: whoever says so also gives the
    /// tensors that they are stored as.
    pub fn store(&mut self, stored: BTreeMap<String, StoredMatrix>) {
        self.spec.stored = stored;
        self.constants = self.spec.constants().into_iter().collect();
    }

    /// Writes the graph of one step.
    pub fn build(&self, options: BuildOptions) -> Result<Graph, BuildError> {
        build(&self.spec, options)
    }

    /// The value of a parameter of the graph: its stored type, its shape and its elements, row-major and little
    /// endian. It serves tensors of the checkpoint and constants of the spec alike.
    pub fn tensor(&self, name: &str) -> Option<(DType, Vec<usize>, Cow<'_, [u8]>)> {
        if let Some(values) = self.constants.get(name) {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            return Some((DType::F32, vec![values.len()], Cow::Owned(bytes)));
        }
        let Some(part) = self.spec.parts.get(name) else {
            let view = self.weights.get(name).ok()?;
            return Some((view.dtype, view.shape.to_vec(), view.bytes));
        };
        let view = self.weights.get(&part.tensor).ok()?;
        let (start, len, columns) = (part.start, part.len, part.shape[1]);
        let size = view.dtype.bytes();
        if part.axis == 0 {
            let range = start * columns * size..(start + len) * columns * size;
            let bytes = match view.bytes {
                Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(range)?),
                Cow::Owned(bytes) => Cow::Owned(bytes.get(range)?.to_vec()),
            };
            return Some((view.dtype, vec![len, columns], bytes));
        }
        let rows = view.bytes.chunks_exact(columns * size);
        let bytes = rows.flat_map(|row| &row[start * size..(start + len) * size]).copied().collect();
        Some((view.dtype, vec![part.shape[0], len], Cow::Owned(bytes)))
    }
}

/// Holds every parameter of the graph against the checkpoint. Returns notes on tensors that nothing reads.
fn check_weights(
    graph: &Graph,
    weights: &Weights,
    (constants, parts): (&BTreeMap<String, Vec<f32>>, &BTreeMap<String, PartSpec>),
) -> Result<Option<String>, WeightsError> {
    let mut wanted = BTreeMap::new();
    for node in graph.nodes.values() {
        let Op::Param { name, shape, dtype } = &node.op else { continue };
        if let Some(part) = parts.get(name) {
            wanted.insert(part.tensor.as_str(), (*dtype, part.shape.to_vec()));
        } else if !constants.contains_key(name) {
            let extents = shape.iter().map(|dim| dim.coeff as usize).collect::<Vec<_>>();
            wanted.insert(name.as_str(), (*dtype, extents));
        }
    }
    for (name, (dtype, shape)) in &wanted {
        weights.check_as(name, *dtype, shape)?;
    }
    let unread: Vec<&str> =
        weights.names().filter(|name| !wanted.contains_key(name) && !is_leftover(name)).collect();
    let Some(first) = unread.first() else { return Ok(None) };
    let others = unread.len() - 1;
    Ok(Some(match others {
        0 => format!("the checkpoint's tensor `{first}` is not used"),
        _ => format!("the checkpoint's tensor `{first}` and {others} more are not used"),
    }))
}

/// Buffers that checkpoints carry along: masks and frequencies that are computed here, and what a quantised weight says
/// besides.
fn is_leftover(name: &str) -> bool {
    const ENDS: [&str; 12] = [
        ".rotary_emb.inv_freq",
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".position_ids",
        ".weight_shape",
        ".weight_g_idx",
        ".g_idx",
        ".weight_format",
        ".input_scale",
        ".bitsandbytes__nf4",
        ".bitsandbytes__fp4",
    ];
    ENDS.iter().any(|end| name.ends_with(end)) || name.ends_with(".attention.masked_bias")
}
