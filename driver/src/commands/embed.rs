//! `sinter embed`: texts become vectors, as the model's sentence-transformers files say.

use crate::cli::EmbedArgs;
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline::{self, Program};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use sinter_frontend::pooling::{Pooling, PoolingMode};
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
    let pooling = pooling(&program, output)?;
    let tokenizer = Tokenizer::load(&program.dir, program.info.vocab)?;
    let most = pooling.max_len.unwrap_or(usize::MAX).min(program.info.context);
    let encode = |text: &String| Ok(cut(tokenizer.encode(text, true)?, most, &tokenizer));
    let rows = texts.iter().map(encode).collect::<Result<Vec<_>>>()?;
    let longest = rows.iter().map(Vec::len).max().unwrap_or(1);
    let mut model = program.load(longest, longest, false)?;
    let mut vectors = Vec::with_capacity(rows.len());
    let bar = output.progress("embedding", rows.len() as u64);
    for (ids, text) in rows.iter().zip(&texts) {
        ensure!(!ids.is_empty(), "the text {text:?} has no tokens");
        let width = model.width();
        vectors.push(pool(hidden(&mut *model, ids, program.info.decoder)?.as_ref(), width, &pooling));
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

/// What the model's files say; the plain mean where there are none, as sentence-transformers does it.
fn pooling(program: &Program, output: &Output) -> Result<Pooling> {
    Ok(Pooling::load(&program.dir)?.unwrap_or_else(|| {
        output.note("the model has no modules.json; the vectors are plain means over all tokens");
        Pooling { mode: PoolingMode::Mean, normalize: false, max_len: None }
    }))
}

/// The hidden values of a text's tokens.
fn hidden(model: &mut dyn DeviceModel, ids: &[u32], decoder: bool) -> Result<Vec<f32>> {
    if decoder {
        return Ok(Session::new(model).feed(ids, Rows::All)?.to_vec());
    }
    Ok(sinter_runtime::encode(model, ids)?.to_vec())
}

/// Cuts a text to `most` tokens; a special token at its end stays.
fn cut(mut ids: Vec<u32>, most: usize, tokenizer: &Tokenizer) -> Vec<u32> {
    if ids.len() > most
        && let Some(last) = ids.last().copied()
    {
        ids.truncate(most);
        if let Some(end) = ids.last_mut().filter(|_| tokenizer.is_special(last)) {
            *end = last;
        }
    }
    ids
}

/// The vector of one text from the hidden values of its tokens.
fn pool(hidden: &[f32], width: usize, pooling: &Pooling) -> Vec<f32> {
    let rows = hidden.chunks_exact(width);
    let count = rows.len().max(1) as f64;
    let mut vector: Vec<f64> = match pooling.mode {
        PoolingMode::Cls => rows.take(1).flatten().map(|x| f64::from(*x)).collect(),
        PoolingMode::LastToken => rows.rev().take(1).flatten().map(|x| f64::from(*x)).collect(),
        PoolingMode::Mean => {
            let mut sum = vec![0.0; width];
            for row in rows {
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            sum.iter().map(|sum| sum / count).collect()
        }
    };
    if pooling.normalize {
        let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector.into_iter().map(|x| x as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_one_vector() {
        let hidden = [3.0, 0.0, 1.0, 8.0];
        let run = |mode, normalize| pool(&hidden, 2, &Pooling { mode, normalize, max_len: None });
        assert_eq!(run(PoolingMode::Cls, false), [3.0, 0.0]);
        assert_eq!(run(PoolingMode::LastToken, false), [1.0, 8.0]);
        assert_eq!(run(PoolingMode::Mean, false), [2.0, 4.0]);
        assert_eq!(run(PoolingMode::Cls, true), [1.0, 0.0]);
        let mean = run(PoolingMode::Mean, true);
        assert!((mean[0] - 0.2f32.sqrt()).abs() < 1e-6 && (mean[1] - 0.8f32.sqrt()).abs() < 1e-6);
    }
}
