//! `sinter logits`: every row of logits, or of an encoder's hidden values, into a safetensors file.

use crate::UsageError;
use crate::atomic_file::replace;
use crate::cli::LogitsArgs;
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline;
use anyhow::{Result, bail};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use sinter_runtime::{BatchBuilder, Chunk, DeviceModel, Rows, Session};

pub(super) fn run(args: &LogitsArgs, env: &Environment, output: &Output) -> Result<()> {
    let count = args.tokens.len();
    if args.decode >= count {
        let decode = args.decode;
        return Err(
            UsageError(format!("--decode {decode} leaves nothing of {count} tokens to begin with")).into()
        );
    }
    if let Some(mask) = args.mask.as_ref().filter(|mask| mask.len() != count) {
        return Err(UsageError(format!("--mask has {} values for {count} tokens", mask.len())).into());
    }
    let program = pipeline::prepare(&args.model, &args.build, env, output)?;
    if count > program.info.context {
        bail!("{count} tokens are more than the model's context of {}", program.info.context);
    }
    let mut model = program.load(count, count, false)?;
    let width = model.width();
    let values = if program.info.decoder { decoder(args, &mut *model)? } else { encoder(args, &mut *model)? };
    let name = model.result_name().to_owned();
    let count = values.len() / width;
    write(args, &name, [1, count, width], &values)?;
    let last = &values[values.len() - width..];
    let likeliest = (0..width).max_by(|a, b| last[*a].total_cmp(&last[*b]).then(b.cmp(a)));
    let likeliest = likeliest.filter(|_| program.info.decoder);
    let value = json!({ "out": args.out, "name": name, "shape": [1, count, width], "next": likeliest });
    output.result(&value, || {
        let next = likeliest.map_or(String::new(), |id| format!(", likeliest next token {id}"));
        format!("{}: {name} [1, {count}, {width}]{next}", args.out.display())
    })
}

/// The prompt at once or in chunks, the last tokens one by one.
fn decoder(args: &LogitsArgs, model: &mut dyn DeviceModel) -> Result<Vec<f32>> {
    if args.mask.as_ref().is_some_and(|mask| mask.contains(&0)) {
        bail!("--mask leaves out tokens, but the model is a decoder: leave them out of --tokens");
    }
    let (prompt, rest) = args.tokens.split_at(args.tokens.len() - args.decode);
    let mut session = Session::new(model);
    let mut values = Vec::new();
    for chunk in prompt.chunks(args.chunk.unwrap_or(prompt.len())).chain(rest.chunks(1)) {
        values.extend_from_slice(session.feed(chunk, Rows::All)?);
    }
    Ok(values)
}

/// The tokens that the mask lets through, each at its own position; the rows of the others are zero.
fn encoder(args: &LogitsArgs, model: &mut dyn DeviceModel) -> Result<Vec<f32>> {
    if args.decode > 0 || args.chunk.is_some() {
        return Err(UsageError("the model is an encoder, which has no --decode and no --chunk".into()).into());
    }
    let counts = |at: &usize| args.mask.as_ref().is_none_or(|mask| mask[*at] == 1);
    let kept: Vec<usize> = (0..args.tokens.len()).filter(counts).collect();
    let tokens: Vec<u32> = kept.iter().map(|at| args.tokens[*at]).collect();
    let mut builder = BatchBuilder::new();
    builder.push(Chunk { tokens: &tokens, start: 0, pages: &[], rows: Rows::None });
    let mut batch = builder.finish();
    batch.positions = kept.iter().map(|at| *at as u32).collect();
    let width = model.width();
    if model.result_name() == "scores" {
        batch.rows = vec![0];
        return Ok(model.step(&batch)?.to_vec());
    }
    let mut values = vec![0.0; args.tokens.len() * width];
    for (row, at) in model.step(&batch)?.chunks_exact(width).zip(kept) {
        values[at * width..(at + 1) * width].copy_from_slice(row);
    }
    Ok(values)
}

fn write(args: &LogitsArgs, name: &str, shape: [usize; 3], values: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes)?;
    replace(&args.out, &safetensors::serialize([(name, view)], None)?)
}
