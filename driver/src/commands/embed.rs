//! `sinter embed`: texts become vectors, as the model's sentence-transformers files say.

use crate::cli::EmbedArgs;
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline;
use crate::vectors::{self, Pooled};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use sinter_frontend::tokenizer::Tokenizer;
use sinter_runtime::{DeviceModel, Rows, Session};
use std::io::BufRead;

pub(super) fn run(args: &EmbedArgs, env: &Environment, output: &Output) -> Result<()> {
    let texts = texts(args)?;
    let program = pipeline::prepare(&args.model, &args.build, env, output)?;
    if program.result_name() != Some("hidden") {
        let name = &program.info.architecture;
        match program.info.decoder {
            true => bail!("{name} is a decoder without modules.json, it gives no sentence vectors"),
            false => {
                bail!("{name} has a head that scores texts, it gives no sentence vectors; use `sinter score`")
            }
        }
    }
    let (pooling, note) = vectors::pooling(&program)?;
    note.iter().for_each(|note| output.note(note));
    let tokenizer = Tokenizer::load(&program.dir, program.info.vocab)?;
    let most = pooling.max_len.unwrap_or(usize::MAX).min(program.info.context);
    let encode = |text: &String| {
        let mut ids = tokenizer.encode(text, true)?;
        vectors::cut(&mut ids, most, &tokenizer);
        Ok(ids)
    };
    let rows = texts.iter().map(encode).collect::<Result<Vec<_>>>()?;
    let longest = rows.iter().map(Vec::len).max().unwrap_or(1);
    let mut model = program.load(longest, longest, false)?;
    let mut vectors = Vec::with_capacity(rows.len());
    let bar = output.progress("embedding", rows.len() as u64);
    for (ids, text) in rows.iter().zip(&texts) {
        ensure!(!ids.is_empty(), "the text {text:?} has no tokens");
        let mut pooled = Pooled::new(pooling.mode, model.width());
        pooled.add(&hidden(&mut *model, ids, program.info.decoder)?);
        vectors.push(pooled.vector(pooling.normalize, None));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let tokens: Vec<usize> = rows.iter().map(Vec::len).collect();
    output.result(&json!({ "embeddings": vectors, "tokens": tokens }), || {
        let line = |vector: &Vec<f32>| vector.iter().map(f32::to_string).collect::<Vec<_>>().join(" ") + "\n";
        vectors.iter().map(line).collect()
    })
}

fn texts(args: &EmbedArgs) -> Result<Vec<String>> {
    if args.texts != ["-"] {
        return Ok(args.texts.clone());
    }
    let lines = std::io::stdin().lock().lines().collect::<Result<Vec<_>, _>>();
    let lines = lines.context("cannot read the texts from stdin")?;
    ensure!(!lines.is_empty(), "stdin has no text");
    Ok(lines)
}

/// The hidden values of a text's tokens.
fn hidden(model: &mut dyn DeviceModel, ids: &[u32], decoder: bool) -> Result<Vec<f32>> {
    if decoder {
        return Ok(Session::new(model).feed(ids, Rows::All)?.to_vec());
    }
    Ok(sinter_runtime::encode(model, ids)?.to_vec())
}
