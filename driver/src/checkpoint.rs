//! A model directory on its way to a program: its facts, its graph, its plan, its packed weights.

use crate::atomic_file::sha256;
use crate::bundle::{Identity, Packed, WeightLayout};
use crate::cache::{self, Cache};
use crate::cli::{ActivationsArg, BuildArgs, DTypeArg, KvCacheArg, QuantArg};
use crate::device::BuildTarget;
use crate::environment::Environment;
use crate::info::ModelInfo;
use crate::output::Output;
use crate::quantize::AtLoad;
use anyhow::{Context, Result, bail};
use sinter_codegen_host::micro::Isa;
use sinter_codegen_weights::{AlignedBytes, RawTensor};
use sinter_frontend::build::{Activations, BuildOptions, KvCache, KvCodes, build};
use sinter_frontend::model::Model;
use sinter_frontend::source::{self, FileKind};
use sinter_frontend::spec::{ModelKind, ModelSpec};
use sinter_frontend::weights::Weights;
use sinter_ir::{Binding, DType, Graph, Op, Plan, WeightDef};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The largest file of the folder that modules.json names.
const POOLING_MAX: u64 = 1 << 16;

/// A model directory, read and understood.
pub struct Checkpoint {
    /// The facts of the model.
    pub info: ModelInfo,
    /// The model as the front end gives it.
    pub model: Model,
    name: String,
    at_load: Option<AtLoad>,
    quant: QuantArg,
}

/// What is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// How the graph is written.
    pub options: BuildOptions,
}

impl Choice {
    /// The element type of weights and KV cache.
    pub fn dtype(&self) -> DType {
        self.options.weight_dtype
    }

    /// The model in an element type for GPUs, whatever its weights are.
    pub fn for_gpus(dtype: DType) -> Self {
        Self { options: BuildOptions::new(dtype) }
    }

    /// What the passes are asked to do: quantised weights stay codes in memory where they can.
    pub fn passes(&self) -> sinter_passes::Options {
        sinter_passes::Options { codes: true, ..sinter_passes::Options::default() }
    }
}

impl Checkpoint {
    /// Finds and reads a model; what the user should know of it goes to stderr.
    pub fn open(name: &str, env: &Environment, output: &Output) -> Result<Self> {
        let model = Model::open(source::resolve(name, env.hub_cache.as_ref())?)?;
        model.notes.iter().for_each(|note| output.note(note));
        let info = info(&model.spec, &model)?;
        Ok(Self { info, model, name: plain_name(name), at_load: None, quant: QuantArg::None })
    }

    /// As [`Self::open`], with the weights quantised while they are loaded where that is asked for.
    pub fn open_as(name: &str, quant: QuantArg, env: &Environment, output: &Output) -> Result<Self> {
        let mut checkpoint = Self::open(name, env, output)?;
        if let Some((at_load, quantised)) = AtLoad::new(&checkpoint.model, quant)? {
            quantised.left.iter().for_each(|(name, reason)| {
                output.note(format!("`{name}` stays as it is: {reason}"));
            });
            checkpoint.model.store(quantised.stored);
            (checkpoint.at_load, checkpoint.quant) = (Some(at_load), quant);
        }
        Ok(checkpoint)
    }

    /// What to compile for some targets.
    ///
    /// # Errors
    /// If activations are to be quantised for a GPU, or where that would change nothing.
    pub fn choice(&self, build: &BuildArgs, targets: &[BuildTarget]) -> Result<Choice> {
        let host = targets.iter().all(|target| *target == BuildTarget::Host);
        let quantised = !self.model.spec.stored.is_empty();
        let activations = match build.activations {
            ActivationsArg::Exact => Activations::Exact,
            ActivationsArg::Auto if self.at_load.is_some() && host => Activations::Int8,
            ActivationsArg::Auto => Activations::Exact,
            ActivationsArg::Int8 if !quantised => {
                bail!("--activations int8 wants quantised weights: add --quant int8 or --quant int4")
            }
            ActivationsArg::Int8 if !host => bail!("--activations int8 is for the host alone so far"),
            ActivationsArg::Int8 => Activations::Int8,
        };
        let kv_cache = kv_cache(build.kv_cache);
        let dtype = self.dtype(build.dtype, targets);
        let options = BuildOptions { activations, kv_cache, ..BuildOptions::new(dtype) };
        if build.activations == ActivationsArg::Int8 {
            let exact = BuildOptions { activations: Activations::Exact, ..options };
            if self.model.build(options)? == self.model.build(exact)? {
                bail!(
                    "--activations int8 is for weights whose codes are whole numbers, the model has none; leave it out"
                );
            }
        }
        Ok(Choice { options })
    }

    /// The element type to compile for: as asked for, or bf16 where the checkpoint and all targets have it. GPUs have it.
    pub fn dtype(&self, wanted: DTypeArg, targets: &[BuildTarget]) -> DType {
        let fast = || !targets.contains(&BuildTarget::Host) || Isa::detect() >= Isa::Avx512Bf16;
        match wanted {
            DTypeArg::F32 => DType::F32,
            DTypeArg::Bf16 => DType::Bf16,
            DTypeArg::Auto if self.info.stored != DType::F32 && fast() => DType::Bf16,
            DTypeArg::Auto => DType::F32,
        }
    }

    /// The graph of one step.
    pub fn graph(&self, choice: &Choice) -> Result<Graph> {
        Ok(self.model.build(choice.options)?)
    }

    /// The plan, from the compile cache if it is there.
    pub fn plan(&self, choice: &Choice, env: &Environment, output: &Output) -> Result<Plan> {
        let config = sha256(&self.model.dir.read(FileKind::Config)?);
        let options = format!("{choice:?} {:?}", self.quant);
        let key = cache::key(&format!("{config} {}", self.model.weights.content_hash()), &options);
        let make = || Ok(sinter_passes::compile(&self.graph(choice)?, &choice.passes())?.plan);
        Cache::new(env.cache.as_deref(), "plans").get_or(
            (&key, output),
            |plan: &Plan| Ok(plan.verify()?),
            make,
        )
    }

    /// One weight, packed as the kernels want it.
    pub fn pack(&self, weight: &WeightDef, layout: WeightLayout) -> Result<Packed> {
        let tensors = self.tensors(weight);
        let raw = |name: &str| raw(&tensors, name);
        Ok(Arc::new(Aligned(match layout {
            WeightLayout::Panels => sinter_codegen_host::pack(weight, &raw)?.bytes,
            WeightLayout::Rows => sinter_codegen_weights::pack_rows(weight, &raw)?,
        })))
    }

    /// One weight, packed as host kernels want it, into zeroed memory of its size.
    pub fn pack_into(&self, weight: &WeightDef, bytes: &mut [u8]) -> Result<()> {
        let tensors = self.tensors(weight);
        Ok(sinter_codegen_host::pack_into(weight, &|name: &str| raw(&tensors, name), bytes)?)
    }

    /// The tensors that a weight is made of.
    fn tensors<'a>(&'a self, weight: &'a WeightDef) -> Tensors<'a> {
        let leaves: Vec<_> = weight.source.nodes.values().filter_map(|node| node.op.leaf_name()).collect();
        let made = self.at_load.iter().flat_map(|at_load| at_load.made(&leaves, &self.model.weights));
        let made = made.map(|(name, (dtype, shape, bytes))| (name, (dtype, shape, Cow::Owned(bytes))));
        let mut tensors: Tensors<'a> = made.collect();
        for name in leaves {
            if !tensors.contains_key(name) {
                tensors.extend(self.model.tensor(name).map(|tensor| (name, tensor)));
            }
        }
        tensors
    }

    /// Which model this is: reads every byte of the weights.
    pub fn identity(&self) -> Result<Identity> {
        let config = sha256(&self.model.dir.read(FileKind::Config)?);
        let content = sha256(format!("{config} {}", self.model.weights.full_sha256()).as_bytes());
        Ok(Identity { name: self.name.clone(), content })
    }

    /// The model's own small files: path and bytes.
    pub fn small_files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let dir = &self.model.dir;
        let kinds = [
            FileKind::Config,
            FileKind::GenerationConfig,
            FileKind::Tokenizer,
            FileKind::TokenizerConfig,
            FileKind::ChatTemplate,
            FileKind::SentenceModules,
            FileKind::SentenceConfig,
        ];
        let mut files = Vec::new();
        for kind in kinds {
            files.extend(dir.read_optional(kind)?.map(|bytes| (kind.name().to_owned(), bytes)));
        }
        // The modules of a sentence encoder have a folder each, which modules.json names.
        let modules = dir.read_optional(FileKind::SentenceModules)?.unwrap_or_else(|| b"[]".to_vec());
        let modules: serde_json::Value = serde_json::from_slice(&modules).context("modules.json")?;
        for module in modules.as_array().into_iter().flatten() {
            let Some(folder) =
                module.get("path").and_then(|path| path.as_str()).filter(|path| !path.is_empty())
            else {
                continue;
            };
            let name = format!("{folder}/config.json");
            files.extend(dir.read_named(&name, POOLING_MAX)?.map(|bytes| (name, bytes)));
        }
        Ok(files)
    }

    /// Bytes that one token takes in a KV cache of this kind, if the model can have one.
    pub fn kv_bytes_per_token(&self, dtype: DType, kv_cache: KvCacheArg) -> Option<u64> {
        let options = BuildOptions { kv_cache: self::kv_cache(kv_cache), ..BuildOptions::new(dtype) };
        let graph = self.model.build(options).ok()?;
        let states = graph.nodes.values().filter(|node| matches!(node.op, Op::State { .. }));
        Some(states.map(|state| state.ty.bytes(&Binding::new(1, 1, 1, 1))).sum())
    }
}

fn kv_cache(wanted: KvCacheArg) -> KvCache {
    match wanted {
        KvCacheArg::Auto => KvCache::Exact,
        KvCacheArg::Int8 => KvCache::Codes(KvCodes::Int8),
        KvCacheArg::Int4 => KvCache::Codes(KvCodes::Int4),
        KvCacheArg::Fp8 => KvCache::Codes(KvCodes::Fp8),
    }
}

/// Tensors by their names.
pub(crate) type Tensors<'a> = BTreeMap<&'a str, (DType, Vec<usize>, Cow<'a, [u8]>)>;

/// A tensor as packing reads it.
pub(crate) fn raw<'t>(tensors: &'t Tensors<'_>, name: &str) -> Option<RawTensor<'t>> {
    let (dtype, shape, bytes) = tensors.get(name)?;
    Some(RawTensor { dtype: *dtype, shape: shape.clone(), bytes })
}

/// Packed bytes as the runtime borrows them.
pub(crate) struct Aligned(pub(crate) AlignedBytes);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A hub id as it is, a path by its last folder: where a model lay on some machine is nobody's business.
pub(crate) fn plain_name(name: &str) -> String {
    let path = std::path::Path::new(name);
    let last = || path.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
    if path.is_dir() { last().unwrap_or_default() } else { name.to_owned() }
}

fn info(spec: &ModelSpec, model: &Model) -> Result<ModelInfo> {
    let graph = model.build(BuildOptions::new(DType::F32))?;
    // Parameters are counted as if none were quantised.
    let as_trained = ModelSpec { stored: BTreeMap::new(), ..spec.clone() };
    let as_trained = build(&as_trained, BuildOptions::new(DType::F32))?;
    let mut parameters: BTreeMap<&str, u64> = BTreeMap::new();
    for node in as_trained.nodes.values() {
        if let Op::Param { name, shape, .. } = &node.op
            && (model.weights.contains(name)
                || spec.stored.contains_key(name)
                || spec.parts.contains_key(name))
        {
            parameters.insert(name, shape.iter().map(|dim| dim.coeff).product());
        }
    }
    Ok(ModelInfo {
        architecture: spec.family.to_owned(),
        decoder: spec.kind == ModelKind::Decoder,
        vocab: spec.vocab,
        context: spec.max_position,
        layers: spec.layers.len(),
        hidden: spec.hidden,
        parameters: parameters.values().sum(),
        stored: stored(&model.weights, graph.nodes.values().filter_map(|node| node.op.leaf_name())),
    })
}

/// The type that most bytes of these tensors have.
fn stored<'n>(weights: &Weights, names: impl Iterator<Item = &'n str>) -> DType {
    let mut bytes = [(DType::F32, 0usize), (DType::Bf16, 0), (DType::F16, 0)];
    for (found, shape) in names.filter_map(|name| weights.described(name).ok()) {
        // Of a quantised weight the scales count: their type is the one that it was made from.
        let like = bytes.iter_mut().find(|(dtype, _)| *dtype == found);
        like.into_iter().for_each(|(_, count)| *count += shape.iter().product::<usize>() * found.bytes());
    }
    bytes.iter().max_by_key(|(_, count)| *count).map_or(DType::F32, |(dtype, _)| *dtype)
}
