//! Quantised copies of model directories, in the layout of compressed-tensors, which transformers and vLLM load.
//!
//! Every product with a weight but the head is quantised: embeddings, norms, biases and the head stay as they are. A row of a
//! weight, or each group of so many of its columns, has one scale. Numbers are rounded to the nearest code ([`round`]), or, with
//! a calibration text ([`capture`]), so that the products change little ([`gptq`], [`awq`]).

mod products;
mod round;

mod awq;
mod calibrate;
mod capture;
mod folds;
mod gptq;

mod evaluate;
mod file;
mod load;

use crate::atomic_file;
use crate::checkpoint::Checkpoint;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use calibrate::{Calibrated, Found, calibrate};
use file::{Content, Planned};
use products::{Choice, choose};
use safetensors::Dtype;
use serde_json::{Value, json};
use sinter_frontend::source::FileKind;
use sinter_frontend::weights::Weights;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use calibrate::{Calibration, Method};
pub use evaluate::{Answers, Examination, Marks, Question};
pub use load::{AtLoad, Made};
pub use round::{Format, Rounding};

/// How well one matrix was kept.
#[derive(Debug, serde::Serialize)]
pub struct MatrixReport {
    /// The tensor.
    pub name: String,
    /// The root of the squared differences' sum over that of the squares.
    pub error: f64,
    /// The same of the products on the calibration text; none without one, or where none of its tokens comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
    /// The power of its inputs' sizes by which its columns were multiplied, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    /// What the method could not do for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// A weight of a product that stays as it is.
#[derive(Debug, serde::Serialize)]
pub struct Left {
    /// The tensor.
    pub name: String,
    /// Why.
    pub reason: &'static str,
}

/// What was written.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    /// The quantised matrices, sorted by name.
    pub matrices: Vec<MatrixReport>,
    /// Weights of products, the head aside, that stay as they are, sorted by name.
    pub left: Vec<Left>,
    /// Bytes of all tensors before.
    pub before: u64,
    /// Bytes of all tensors after.
    pub after: u64,
}

/// Writes a quantised copy of a model to a directory that does not exist yet.
///
/// # Errors
/// If the model is quantised already, has nothing to quantise, or cannot be written.
pub fn quantise(
    checkpoint: &Checkpoint,
    (rounding, calibration): (&Rounding, Option<&Calibration>),
    out: &Path,
    output: &Output,
) -> Result<Report> {
    if out.exists() {
        bail!("{} exists; name a directory that does not", out.display());
    }
    if !checkpoint.model.spec.stored.is_empty() {
        bail!("the model is quantised already; start from the original");
    }
    let choice = choose(&checkpoint.model, rounding)?;
    if choice.chosen.is_empty() {
        let reason = choice.left.first_key_value().map(|(name, reason)| format!(": `{name}`: {reason}"));
        bail!("no weight of the model can be quantised{}", reason.unwrap_or_default());
    }
    let calibrated = match calibration {
        None => Calibrated::default(),
        Some(calibration) => calibrate(checkpoint, (rounding, calibration), &choice.chosen, output)?,
    };
    let temporary = atomic_file::temporary(out);
    std::fs::create_dir_all(&temporary).with_context(|| format!("cannot make {}", temporary.display()))?;
    let written = write(checkpoint, (rounding, calibrated), &choice, &temporary).and_then(|report| {
        std::fs::rename(&temporary, out).with_context(|| format!("cannot write {}", out.display()))?;
        Ok(report)
    });
    if written.is_err() {
        // The reason why it was not written matters more than what is left of it.
        let _ = std::fs::remove_dir_all(&temporary);
    }
    written
}

/// The name of a module: that of its weight without the ending.
fn module(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// The tensors of a copy, those of one element size together.
fn plan(weights: &Weights, rounding: &Rounding, chosen: &BTreeSet<String>) -> Result<Vec<Planned>> {
    let mut planned = Vec::new();
    for name in weights.names() {
        let (dtype, shape) = weights.stored(name).context("a name without a tensor")?;
        if !chosen.contains(name) {
            let content = Content::Kept(name.to_owned());
            planned.push(Planned::new(name.to_owned(), dtype, shape.to_vec(), content));
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
    Ok(planned)
}

fn write(
    checkpoint: &Checkpoint,
    (rounding, mut calibrated): (&Rounding, Calibrated),
    choice: &Choice,
    out: &Path,
) -> Result<Report> {
    let weights = &checkpoint.model.weights;
    let planned = plan(weights, rounding, &choice.chosen)?;
    let after = planned.iter().map(Planned::bytes).sum();
    let mut matrices: BTreeMap<String, MatrixReport> = BTreeMap::new();
    // Parts wait for their turn; codes are many, and are computed again unless they were found with a calibration text.
    let mut waiting: BTreeMap<(String, usize), Vec<u8>> = BTreeMap::new();
    file::write(&out.join("model.safetensors"), &planned, |content| {
        let (name, part) = match content {
            Content::Kept(name) => return kept(weights, &calibrated, name),
            Content::Bytes(bytes) => return Ok(bytes.clone()),
            Content::Part(name, part) => (name, *part),
        };
        if let Some(bytes) = waiting.remove(&(name.clone(), part)) {
            return Ok(bytes);
        }
        let found = calibrated.matrices.remove(name);
        let again = found.is_none();
        let found = match found {
            Some(found) => found,
            None => nearest(weights, rounding, name)?,
        };
        let mut wanted = None;
        matrices.entry(name.clone()).or_insert_with(|| MatrixReport {
            name: name.clone(),
            error: found.rounded.error,
            output_error: found.products,
            power: found.power,
            note: found.note,
        });
        for (at, bytes) in found.rounded.parts.into_iter().enumerate() {
            match at {
                _ if at == part => wanted = Some(bytes),
                0 if again => {}
                _ => drop(waiting.insert((name.clone(), at), bytes)),
            }
        }
        wanted.with_context(|| format!("tensor `{name}` has no part {part}"))
    })?;
    small_files(checkpoint, rounding, choice, out)?;
    let left = choice.left.iter().map(|(name, reason)| Left { name: name.clone(), reason }).collect();
    Ok(Report { matrices: matrices.into_values().collect(), left, before: weights.total_bytes(), after })
}

/// The bytes of a tensor that is not quantised, changed where a calibration says so.
fn kept(weights: &Weights, calibrated: &Calibrated, name: &str) -> Result<Vec<u8>> {
    let view = weights.get(name)?;
    let Some(values) = calibrated.vectors.get(name) else { return Ok(view.bytes.into_owned()) };
    let mut bytes = Vec::new();
    values.iter().for_each(|value| view.dtype.append(f64::from(*value), &mut bytes));
    Ok(bytes)
}

fn nearest(weights: &Weights, rounding: &Rounding, name: &str) -> Result<Found> {
    let view = weights.get(name)?;
    let rounded = rounding.apply(&view.to_f32(), view.shape[1], view.dtype);
    Ok(Found { rounded, products: None, note: None, power: None })
}

/// The model's own files, and its configuration with the quantisation.
fn small_files(checkpoint: &Checkpoint, rounding: &Rounding, choice: &Choice, out: &Path) -> Result<()> {
    for (name, bytes) in checkpoint.small_files()? {
        let path = out.join(&name);
        std::fs::create_dir_all(atomic_file::parent(&path))?;
        let bytes = if name == FileKind::Config.name() {
            configured(&bytes, rounding, choice, checkpoint)?
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
    choice: &Choice,
    checkpoint: &Checkpoint,
) -> Result<Vec<u8>> {
    let mut config: Value = serde_json::from_slice(config).context("config.json")?;
    let head = checkpoint.model.spec.head.as_ref().map(|head| &head.linear.weight);
    let mut ignore: BTreeSet<&str> = choice.left.keys().chain(head).map(|name| module(name)).collect();
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
