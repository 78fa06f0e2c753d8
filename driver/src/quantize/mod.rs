//! Quantised copies of model directories, in the layout of compressed-tensors, which transformers and vLLM load.
//!
//! Every product with a weight but the head is quantised: embeddings, norms, biases and the head stay as they are. A row of a
//! weight, or each group of so many of its columns, has one scale; numbers are rounded to the nearest code.

mod file;
mod load;
mod round;

use crate::atomic_file;
use crate::checkpoint::Checkpoint;
use anyhow::{Context, Result, bail};
use file::{Content, Planned};
use safetensors::Dtype;
use serde_json::{Value, json};
use sinter_frontend::build::BuildOptions;
use sinter_frontend::model::Model;
use sinter_frontend::source::FileKind;
use sinter_ir::{DType, Op};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use load::{AtLoad, Made};
pub use round::{Format, Rounding};

/// How well one matrix was kept.
#[derive(Debug, serde::Serialize)]
pub struct MatrixReport {
    /// The tensor.
    pub name: String,
    /// The root of the squared differences' sum over that of the squares.
    pub error: f64,
}

/// What was written.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    /// The quantised matrices, sorted by name.
    pub matrices: Vec<MatrixReport>,
    /// Products whose weight stays as it is, because the groups do not divide its columns.
    pub left: Vec<String>,
    /// Bytes of all tensors before.
    pub before: u64,
    /// Bytes of all tensors after.
    pub after: u64,
}

/// Writes a quantised copy of a model to a directory that does not exist yet.
///
/// # Errors
/// If the model is quantised already, has nothing to quantise, or cannot be written.
pub fn quantise(checkpoint: &Checkpoint, rounding: &Rounding, out: &Path) -> Result<Report> {
    if out.exists() {
        bail!("{} exists; name a directory that does not", out.display());
    }
    if !checkpoint.model.spec.stored.is_empty() {
        bail!("the model is quantised already; start from the original");
    }
    let (chosen, left) = choose(&checkpoint.model, rounding, false)?;
    if chosen.is_empty() {
        let groups = rounding.group.map(|group| format!(" in groups of {group}")).unwrap_or_default();
        bail!("no weight of the model can be quantised{groups}");
    }
    let temporary = atomic_file::temporary(out);
    std::fs::create_dir_all(&temporary).with_context(|| format!("cannot make {}", temporary.display()))?;
    let written = write(checkpoint, rounding, (&chosen, &left), &temporary).and_then(|report| {
        std::fs::rename(&temporary, out).with_context(|| format!("cannot write {}", out.display()))?;
        Ok(report)
    });
    if written.is_err() {
        // The reason why it was not written matters more than what is left of it.
        let _ = std::fs::remove_dir_all(&temporary);
    }
    written
}

/// The weights of products that are quantised, and those that are not because their shape does not fit. The head, and tables
/// that are read by rows too, are among them only if `all` are wanted.
fn choose(model: &Model, rounding: &Rounding, all: bool) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let graph = model.build(BuildOptions::new(DType::F32))?;
    let head = model.spec.head.as_ref().map(|head| head.linear.weight.as_str()).filter(|_| !all);
    let (mut chosen, mut left) = (BTreeSet::new(), BTreeSet::new());
    for node in graph.nodes.values() {
        let Op::Contract { spec } = &node.op else { continue };
        if spec.to_string() != "tk,nk->tn" {
            continue;
        }
        let weight = graph.node(node.args[1]);
        let Op::Param { name, shape, .. } = &weight.op else { continue };
        if Some(name.as_str()) == head || name.strip_suffix(".weight").is_none() {
            continue;
        }
        let columns = shape.get(1).and_then(|dim| dim.as_const()).unwrap_or(0) as usize;
        let fits = columns > 0 && rounding.group.is_none_or(|group| columns.is_multiple_of(group));
        if fits {
            chosen.insert(name.clone())
        } else {
            left.insert(name.clone())
        };
    }
    if all {
        return Ok((chosen, left));
    }
    // A table that is read by rows too stays as it is.
    let gathered = graph.nodes.values().filter(|node| matches!(node.op, Op::Gather {}));
    for table in gathered.filter_map(|node| graph.node(node.args[0]).op.leaf_name()) {
        chosen.remove(table);
    }
    Ok((chosen, left))
}

/// The name of a module: that of its weight without the ending.
fn module(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

fn write(
    checkpoint: &Checkpoint,
    rounding: &Rounding,
    (chosen, left): (&BTreeSet<String>, &BTreeSet<String>),
    out: &Path,
) -> Result<Report> {
    let weights = &checkpoint.model.weights;
    let mut planned = Vec::new();
    for name in weights.names() {
        let (dtype, shape) = weights.stored(name).context("a name without a tensor")?;
        if !chosen.contains(name) {
            planned.push(Planned::new(
                name.to_owned(),
                dtype,
                shape.to_vec(),
                Content::Kept(name.to_owned()),
            ));
            continue;
        }
        let &[rows, columns] = shape else {
            bail!("tensor `{name}`: wanted a matrix, found shape {shape:?}")
        };
        if let Some(bytes) = rounding.shape_bytes((rows, columns)) {
            let name = format!("{}.weight_shape", module(name));
            planned.push(Planned::new(name, Dtype::I64, vec![2], Content::Bytes(bytes)));
        }
        for (part, (ending, dtype, shape)) in rounding.parts((rows, columns), dtype).into_iter().enumerate() {
            let content = Content::Part(name.to_owned(), part);
            planned.push(Planned::new(format!("{}.{ending}", module(name)), dtype, shape, content));
        }
    }
    // As all writers do: the widest elements first, so that each tensor begins at a multiple of its elements' size.
    planned.sort_by_key(|tensor| std::cmp::Reverse(tensor.width()));
    let after = planned.iter().map(Planned::bytes).sum();
    let mut matrices = Vec::new();
    // Scales and zeros wait for their turn; codes are too many, and are computed again.
    let mut waiting: BTreeMap<(String, usize), Vec<u8>> = BTreeMap::new();
    file::write(&out.join("model.safetensors"), &planned, |content| {
        let (name, part) = match content {
            Content::Kept(name) => return Ok(weights.get(name)?.bytes.to_vec()),
            Content::Bytes(bytes) => return Ok(bytes.clone()),
            Content::Part(name, part) => (name, *part),
        };
        if let Some(bytes) = waiting.remove(&(name.clone(), part)) {
            return Ok(bytes);
        }
        let view = weights.get(name)?;
        let rounded = rounding.apply(&view.to_f32(), (view.shape[0], view.shape[1]), view.dtype);
        if part == 0 {
            matrices.push(MatrixReport { name: name.clone(), error: rounded.error });
        }
        let mut wanted = None;
        for (at, bytes) in rounded.parts.into_iter().enumerate() {
            match at {
                _ if at == part => wanted = Some(bytes),
                0 => {}
                _ => drop(waiting.insert((name.clone(), at), bytes)),
            }
        }
        wanted.with_context(|| format!("tensor `{name}` has no part {part}"))
    })?;
    matrices.sort_by(|a, b| a.name.cmp(&b.name));
    small_files(checkpoint, rounding, left, out)?;
    let left = left.iter().cloned().collect();
    Ok(Report { matrices, left, before: weights.total_bytes(), after })
}

/// The model's own files, and its configuration with the quantisation.
fn small_files(
    checkpoint: &Checkpoint,
    rounding: &Rounding,
    left: &BTreeSet<String>,
    out: &Path,
) -> Result<()> {
    for (name, bytes) in checkpoint.small_files()? {
        let path = out.join(&name);
        std::fs::create_dir_all(atomic_file::parent(&path))?;
        let bytes = if name == FileKind::Config.name() {
            configured(&bytes, rounding, left, checkpoint)?
        } else {
            bytes
        };
        atomic_file::write_synced(&path, &bytes)?;
    }
    Ok(())
}

fn configured(
    config: &[u8],
    rounding: &Rounding,
    left: &BTreeSet<String>,
    checkpoint: &Checkpoint,
) -> Result<Vec<u8>> {
    let mut config: Value = serde_json::from_slice(config).context("config.json")?;
    let head = checkpoint.model.spec.head.as_ref().map(|head| &head.linear.weight);
    let mut ignore: BTreeSet<&str> = left.iter().chain(head).map(|name| module(name)).collect();
    // Where the head is the embedding, its module is still called so.
    ignore.insert("lm_head");
    let group = json!({
        "targets": ["Linear"],
        "weights": rounding.description(),
        "input_activations": null,
        "output_activations": null,
    });
    config["quantization_config"] = json!({
        "quant_method": "compressed-tensors",
        "format": rounding.layout(),
        "quantization_status": "compressed",
        "config_groups": { "group_0": group },
        "ignore": ignore,
        "kv_cache_scheme": null,
    });
    Ok(serde_json::to_vec_pretty(&config)?)
}
