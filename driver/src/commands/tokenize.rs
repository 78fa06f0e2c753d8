//! `sinter tokenize`: how a text becomes tokens.

use super::text_or_stdin;
use crate::cli::TokenizeArgs;
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline;
use anyhow::Result;
use serde_json::json;
use sinter_frontend::tokenizer::Tokenizer;

pub(super) fn run(args: &TokenizeArgs, env: &Environment, output: &Output) -> Result<()> {
    let (dir, info) = pipeline::describe(&args.model, env, output)?;
    let tokenizer = Tokenizer::load(&dir, info.vocab)?;
    let text = text_or_stdin(&args.text)?;
    let ids = tokenizer.encode(&text, !args.no_special)?;
    let pieces: Vec<String> = ids.iter().map(|id| tokenizer.piece(*id).unwrap_or_default()).collect();
    let stats = tokenizer.stats(&text)?;
    let (per_char, per_byte) = (stats.tokens_per_char(), stats.tokens_per_byte());
    let value = json!({
        "ids": ids, "pieces": pieces, "chars": stats.chars, "bytes": stats.bytes,
        "tokens_per_char": per_char, "tokens_per_byte": per_byte,
    });
    output.result(&value, || {
        let lines: String =
            ids.iter().zip(&pieces).map(|(id, piece)| format!("{id:>8}  {piece:?}\n")).collect();
        let count = ids.len();
        format!(
            "{lines}{count} tokens; {per_char:.3} a character and {per_byte:.3} a byte, special ones left out"
        )
    })
}
