//! `sinter inspect`: what a model or a bundle holds.

use super::gpu_kernels;
use crate::bundle::{self, Bundle};
use crate::checkpoint::Checkpoint;
use crate::cli::InspectArgs;
use crate::environment::Environment;
use crate::info::{ModelInfo, kv_bytes_per_token, weight_bytes};
use crate::output::{Output, bytes, rows};
use anyhow::Result;
use serde_json::{Value, json};

use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn run(args: &InspectArgs, env: &Environment, output: &Output) -> Result<()> {
    if bundle::is_bundle(Path::new(&args.model)) {
        return inspect_bundle(&bundle::open(Path::new(&args.model))?, args, output);
    }
    let checkpoint = Checkpoint::open(&args.model, env, output)?;
    let info = &checkpoint.info;
    let kv_f32: u64 = checkpoint.kv_values_per_token() as u64 * 4;
    let at = |bytes_each: u64| info.parameters * bytes_each;
    let value = json!({
        "kind": "model",
        "model": info,
        "checkpoint_bytes": checkpoint.model.weights.total_bytes(),
        "memory_bytes": { "f32": at(4), "bf16": at(2) },
        "kv_bytes_per_token": { "f32": kv_f32, "bf16": kv_f32 / 2 },
    });
    output.result(&value, || {
        let mut table = facts(info);
        table.push(("checkpoint", bytes(checkpoint.model.weights.total_bytes())));
        table.push(("memory", format!("{} in f32, {} in bf16", bytes(at(4)), bytes(at(2)))));
        if info.decoder {
            let text = format!("{} a token in f32, {} in bf16", bytes(kv_f32), bytes(kv_f32 / 2));
            table.push(("KV cache", text));
        }
        rows(&table)
    })
}

fn facts(info: &ModelInfo) -> Vec<(&'static str, String)> {
    let kind = if info.decoder { "decoder" } else { "encoder" };
    vec![
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
    let mut launches: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &plan.steps {
        *launches.entry(&plan.kernels[step.kernel].name).or_default() += 1;
    }
    let kv = kv_bytes_per_token(plan);
    let kernels: Vec<Value> =
        launches.iter().map(|(name, launches)| json!({ "name": name, "launches": launches })).collect();
    let gpus: Vec<gpu_kernels::Gpu> = bundle
        .programs
        .iter()
        .map(|program| gpu_kernels::describe(plan, program, args.ptxas.as_deref()))
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
            table.push(("KV cache", format!("{} a token", bytes(kv))));
        }
        table.push(("step", format!("{} launches of {} kernels", plan.steps.len(), plan.kernels.len())));
        let kernels = launches.iter().map(|(name, count)| format!("  {count:>5} × {name}\n"));
        rows(&table) + &kernels.collect::<String>() + &gpus.iter().map(gpu_kernels::text).collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinter_ir::DType;

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
        // `architecture` and `decoder` share a row.
        assert_eq!(facts(&info).len(), fields - 1);
    }
}
