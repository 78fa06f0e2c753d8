//! `sinter score`: a text, or a query with each of several documents, becomes scores by the head of an encoder.

use crate::cli::ScoreArgs;
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline::{self, Program};
use anyhow::{Result, bail, ensure};
use serde_json::json;
use sinter_frontend::tokenizer::{Encoded, Tokenizer};
use sinter_runtime::encode_typed;

pub(super) fn run(args: &ScoreArgs, env: &Environment, output: &Output) -> Result<()> {
    let program = pipeline::prepare(&args.model, &args.build, env, output)?;
    if program.result_name() != Some("scores") {
        let found = if program.info.decoder { "a decoder" } else { "an encoder without such a head" };
        bail!(
            "{} is {found}; scores come from an encoder with a head for sequences",
            program.info.architecture
        );
    }
    let tokenizer = Tokenizer::load(&program.dir, program.info.vocab)?;
    let texts = encoded(args, &tokenizer)?;
    let longest = longest(&texts, &program)?;
    let mut model = program.load(longest, longest, false)?;
    let bar = output.progress("scoring", texts.len() as u64);
    let mut scores = Vec::with_capacity(texts.len());
    for text in &texts {
        scores.push(encode_typed(&mut *model, &text.ids, &text.types)?.to_vec());
        bar.inc(1);
    }
    bar.finish_and_clear();
    let tokens: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
    output.result(&json!({ "scores": scores, "tokens": tokens }), || {
        let line = |row: &Vec<f32>| row.iter().map(f32::to_string).collect::<Vec<_>>().join(" ") + "\n";
        scores.iter().map(line).collect()
    })
}

/// The query with each document, or alone.
fn encoded(args: &ScoreArgs, tokenizer: &Tokenizer) -> Result<Vec<Encoded>> {
    if args.documents.is_empty() {
        return Ok(vec![tokenizer.encode_pair(&args.query, None)?]);
    }
    let pair = |document: &String| Ok(tokenizer.encode_pair(&args.query, Some(document))?);
    args.documents.iter().map(pair).collect()
}

/// Nothing is cut: which of two texts would lose its end is not for this command to say.
fn longest(texts: &[Encoded], program: &Program) -> Result<usize> {
    let longest = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0);
    ensure!(texts.iter().all(|text| !text.ids.is_empty()), "a text has no tokens");
    let most = program.info.context;
    ensure!(
        longest <= most,
        "{longest} tokens are more than the model's context of {most}; shorten the text"
    );
    Ok(longest)
}
