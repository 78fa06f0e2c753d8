//! `sinter inspect`: what a model or a bundle holds.

use super::gpu_kernels;
use crate::UsageError;
use crate::bundle::{self, Bundle};
use crate::checkpoint::{Checkpoint, Choice};
use crate::cli::{InspectArgs, KvCacheArg};
use crate::device::BuildTarget;
use crate::environment::Environment;
use crate::gpu;
use crate::info::{ModelInfo, kv_bytes_per_token, kv_dtype, weight_bytes};
use crate::output::{Output, bytes, rows};
use anyhow::Result;
use serde_json::{Value, json};
use sinter_frontend::config::RawConfig;
use sinter_frontend::source::{self, ModelDir};
use sinter_frontend::spec::{ModelKind, ModelSpec};
use sinter_frontend::weights::Weights;
use sinter_ir::{DType, Target};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub(super) fn run(args: &InspectArgs, env: &Environment, output: &Output) -> Result<()> {
    if bundle::is_bundle(Path::new(&args.model)) {
        if args.target.is_some() {
            let reason = "--target is for models: a bundle shows the kernels that it has";
            return Err(UsageError(reason.into()).into());
        }
        return inspect_bundle(&bundle::open(Path::new(&args.model))?, args, output);
    }
    if args.target.is_none() && args.asks_of_kernels() {
        let reason = "what is asked is of GPU kernels: add --target, or give a bundle that has some";
        return Err(UsageError(reason.into()).into());
    }
    let dir = source::resolve(&args.model, env.hub_cache.as_ref())?;
    let checkpoint = match Checkpoint::open(&args.model, env, output) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return inspect_unknown(&dir, &error, output),
    };
    let kernels = args.target.map(|target| kernels(&checkpoint, target, args, (env, output))).transpose()?;
    let info = &checkpoint.info;
    let kv = kv_bytes(&checkpoint);
    let at = |bytes_each: u64| info.parameters * bytes_each;
    let value = json!({
        "kind": "model",
        "supported": true,
        "gives": gives(&checkpoint.model.spec),
        "model": info,
        "checkpoint_bytes": checkpoint.model.weights.total_bytes(),
        "memory_bytes": { "f32": at(4), "bf16": at(2) },
        "kv_bytes_per_token": kv.iter().copied().collect::<BTreeMap<&str, u64>>(),
        "gpu": kernels,
    });
    output.result(&value, || {
        let mut table = facts(info);
        table.push(("gives", gives(&checkpoint.model.spec).into()));
        table.push(("checkpoint", bytes(checkpoint.model.weights.total_bytes())));
        table.push(("memory", format!("{} in f32, {} in bf16", bytes(at(4)), bytes(at(2)))));
        if info.decoder {
            let each = kv.iter().map(|(name, size)| format!("{} in {name}", bytes(*size)));
            table.push(("KV cache", format!("a token takes {}", each.collect::<Vec<_>>().join(", "))));
        }
        rows(&table) + &kernels.as_ref().map(gpu_kernels::text).unwrap_or_default()
    })
}

/// Bytes that a token takes in each KV cache, if it has so many rows of such a width; rows of codes have a scale.
fn kv_bytes_unknown(rows: u64, width: u64) -> BTreeMap<&'static str, u64> {
    let numbers = |bytes: u64| rows.saturating_mul(width.saturating_mul(bytes));
    let codes = |bytes: u64| rows.saturating_mul(bytes.saturating_add(4));
    let mut sizes = BTreeMap::from([("f32", numbers(4)), ("bf16", numbers(2))]);
    sizes.extend([("int8", codes(width)), ("fp8", codes(width))]);
    sizes.extend(width.is_multiple_of(2).then(|| ("int4", codes(width / 2))));
    sizes
}

/// Bytes that a token takes in each KV cache that the model can have.
fn kv_bytes(checkpoint: &Checkpoint) -> Vec<(&'static str, u64)> {
    let kinds = [
        ("f32", DType::F32, KvCacheArg::Auto),
        ("bf16", DType::Bf16, KvCacheArg::Auto),
        ("int8", DType::Bf16, KvCacheArg::Int8),
        ("int4", DType::Bf16, KvCacheArg::Int4),
        ("fp8", DType::Bf16, KvCacheArg::Fp8),
    ];
    let size = |(name, dtype, kind)| Some((name, checkpoint.kv_bytes_per_token(dtype, kind)?));
    kinds.into_iter().filter_map(size).collect()
}

/// The kernels that a model is compiled to.
fn kernels(
    checkpoint: &Checkpoint,
    target: Target,
    args: &InspectArgs,
    (env, output): (&Environment, &Output),
) -> Result<gpu_kernels::Kernels> {
    let dtype = checkpoint.dtype(args.dtype, &[BuildTarget::Gpu(target)]);
    let plan = Arc::new(checkpoint.plan(&Choice::for_gpus(dtype), env, output)?);
    gpu_kernels::describe(&plan, &gpu::jit(plan.clone(), target, env, output)?.all()?, args)
}

/// What a step of the model gives, and which command takes it.
fn gives(spec: &ModelSpec) -> &'static str {
    match (spec.kind, &spec.head, &spec.classifier) {
        (ModelKind::Decoder, Some(_), _) => "logits, for `sinter run` and `sinter chat`",
        (ModelKind::Decoder, None, _) => "hidden states, for `sinter embed`",
        (ModelKind::Encoder, _, None) => "hidden states of all tokens, for `sinter embed`",
        (ModelKind::Encoder, _, Some(_)) => "scores of a text or a pair of texts, for `sinter score`",
    }
}

/// What can be known of a model that cannot be compiled: why not, its tensors, and its cache as far as the common fields
/// tell it. Files that are missing or broken are an error.
fn inspect_unknown(dir: &ModelDir, error: &anyhow::Error, output: &Output) -> Result<()> {
    let config = RawConfig::load(dir)?;
    let field = |names: &[&str]| names.iter().find_map(|name| config.root().peek(name).cloned());
    let number = |names: &[&str]| field(names).and_then(|value| value.as_u64());
    let weights = Weights::open(dir)?;
    let shapes = weights.names().filter_map(|name| weights.stored(name));
    let counts =
        shapes.map(|(_, shape)| shape.iter().fold(1u64, |n, extent| n.saturating_mul(*extent as u64)));
    let (count, size) = (counts.fold(0u64, u64::saturating_add), weights.total_bytes());
    let heads = number(&["num_attention_heads", "n_head"]);
    let head_dim =
        number(&["head_dim"]).or_else(|| Some(number(&["hidden_size", "n_embd"])? / heads?.max(1)));
    let layers = number(&["num_hidden_layers", "n_layer"]);
    let kv_heads = number(&["num_key_value_heads"]).or(heads);
    let kv = layers.zip(kv_heads).zip(head_dim);
    // Numbers that no model has are not counted with.
    let kv = kv.and_then(|((layers, heads), width)| {
        let rows = layers.checked_mul(heads)?.checked_mul(2)?;
        rows.checked_mul(width)?.checked_mul(4).filter(|bytes| *bytes > 0).map(|_| (rows, width))
    });
    let reason = format!("{error:#}");
    let value = json!({
        "kind": "model",
        "supported": false,
        "reason": reason,
        "architecture": field(&["model_type"]),
        "elements": count,
        "checkpoint_bytes": size,
        "memory_bytes": { "f32": count.saturating_mul(4), "bf16": count.saturating_mul(2) },
        "kv_bytes_per_token": kv.map(|(rows, width)| kv_bytes_unknown(rows, width)),
    });
    output.result(&value, || {
        let mut table = vec![("supported", format!("no: {reason}"))];
        table.extend(
            field(&["model_type"]).map(|name| ("architecture", name.as_str().unwrap_or_default().into())),
        );
        table.push(("elements", format!("{count} in all tensors of the checkpoint")));
        table.push(("checkpoint", bytes(size)));
        let memory = [4, 2].map(|each| bytes(count.saturating_mul(each)));
        table.push(("memory", format!("{} in f32, {} in bf16", memory[0], memory[1])));
        table.extend(kv.map(|(kept, width)| {
            let sizes = kv_bytes_unknown(kept, width);
            let each = sizes.iter().map(|(name, size)| format!("{} in {name}", bytes(*size)));
            let each = each.collect::<Vec<_>>().join(", ");
            ("KV cache", format!("{each} a token, if it is keys and values of every layer"))
        }));
        rows(&table)
    })
}

fn facts(info: &ModelInfo) -> Vec<(&'static str, String)> {
    let kind = if info.decoder { "decoder" } else { "encoder" };
    vec![
        ("supported", "yes: docs/models.md says what is tested".into()),
        ("architecture", format!("{}, {kind}", info.architecture)),
        ("parameters", info.parameters.to_string()),
        ("stored as", info.stored.to_string()),
        ("layers", info.layers.to_string()),
        ("width", info.hidden.to_string()),
        ("vocabulary", info.vocab.to_string()),
        ("context", info.context.to_string()),
    ]
}

fn inspect_bundle(bundle: &Bundle, args: &InspectArgs, output: &Output) -> Result<()> {
    let (manifest, plan) = (&bundle.manifest, &bundle.plan);
    if bundle.programs.is_empty() && args.asks_of_kernels() {
        return Err(UsageError("the bundle has no kernels for GPUs".into()).into());
    }
    let mut launches: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &plan.steps {
        *launches.entry(&plan.kernels[step.kernel].name).or_default() += 1;
    }
    let kv = kv_bytes_per_token(plan);
    let kernels: Vec<Value> =
        launches.iter().map(|(name, launches)| json!({ "name": name, "launches": launches })).collect();
    let gpus: Vec<gpu_kernels::Kernels> = bundle
        .programs
        .iter()
        .map(|program| gpu_kernels::describe(plan, program, args))
        .collect::<Result<_>>()?;
    let value = json!({
        "kind": "bundle",
        "id": manifest.id,
        "sinter": manifest.sinter,
        "targets": manifest.targets,
        "dtype": manifest.dtype,
        "source": manifest.model,
        "model": manifest.info,
        "weight_bytes": weight_bytes(plan, manifest.weights),
        "weights": plan.weights.len(),
        "kv_bytes_per_token": kv,
        "kv_cache": kv_dtype(plan),
        "launches": plan.steps.len(),
        "kernels": kernels,
        "gpu": gpus,
        "files": manifest.sections,
    });
    output.result(&value, || {
        let mut table = vec![("bundle", manifest.id.clone()), ("made from", manifest.model.name.clone())];
        table.push((
            "for",
            format!("{} in {}, sinter {}", manifest.targets.join(", "), manifest.dtype, manifest.sinter),
        ));
        table.extend(facts(&manifest.info));
        table.push((
            "weights",
            format!("{}, {}", plan.weights.len(), bytes(weight_bytes(plan, manifest.weights))),
        ));
        if kv > 0 {
            let dtype = kv_dtype(plan).map_or(String::new(), |dtype| format!(", kept in {dtype}"));
            table.push(("KV cache", format!("{} a token{dtype}", bytes(kv))));
        }
        table.push(("step", format!("{} launches of {} kernels", plan.steps.len(), plan.kernels.len())));
        let kernels = launches.iter().map(|(name, count)| format!("  {count:>5} × {name}\n"));
        rows(&table) + &kernels.collect::<String>() + &gpus.iter().map(gpu_kernels::text).collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_has_a_row() {
        let info = ModelInfo {
            architecture: "llama".into(),
            decoder: true,
            vocab: 1,
            context: 2,
            layers: 3,
            hidden: 4,
            parameters: 5,
            stored: DType::Bf16,
        };
        let fields = serde_json::to_value(&info).unwrap().as_object().unwrap().len();
        // `architecture` and `decoder` share a row, and there is one that says that the model is supported.
        assert_eq!(facts(&info).len(), fields);
    }
}
