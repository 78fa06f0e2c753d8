//! `sinter perplexity`: how well a model predicts a text.

use crate::UsageError;
use crate::cli::PerplexityArgs;
use crate::environment::Environment;
use crate::output::{Output, rows};
use crate::perplexity::{Windows, measure};
use crate::pipeline;
use anyhow::{Context, Result};
use serde_json::json;
use sinter_frontend::tokenizer::Tokenizer;

/// Tokens of a window where nobody says otherwise and the model takes as many.
const WINDOW: usize = 2048;

pub(super) fn run(args: &PerplexityArgs, env: &Environment, output: &Output) -> Result<()> {
    let text = std::fs::read_to_string(&args.file)
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    let program = pipeline::prepare(&args.model, &args.build, env, output)?;
    program.check_writes()?;
    let windows = windows(args, program.info.context)?;
    let tokenizer = Tokenizer::load(&program.dir, program.info.vocab)?;
    let tokens = tokenizer.encode(&text, !args.no_special)?;
    let mut model = program.load(windows.window, windows.window.min(512), false)?;
    let count = tokens.len().saturating_sub(windows.window).div_ceil(windows.stride) + 1;
    let bar = output.progress("scoring", count as u64);
    let found = measure(&mut *model, &tokens, windows, || bar.inc(1))?;
    bar.finish_and_clear();
    let value = json!({
        "perplexity": found.perplexity, "tokens": tokens.len(), "scored": found.scored,
        "window": windows.window, "stride": windows.stride,
    });
    output.result(&value, || {
        rows(&[
            ("perplexity", format!("{:.4}", found.perplexity)),
            ("tokens", format!("{}, {} of them scored", tokens.len(), found.scored)),
            (
                "windows",
                format!("of {} tokens, each {} after the one before", windows.window, windows.stride),
            ),
        ])
    })
}

fn windows(args: &PerplexityArgs, context: usize) -> Result<Windows> {
    let window = args.window.unwrap_or(WINDOW.min(context));
    let stride = args.stride.unwrap_or((window / 2).max(1));
    if window > context {
        return Err(
            UsageError(format!("--window {window} is more than the model's context of {context}")).into()
        );
    }
    if window < 2 || stride > window {
        return Err(UsageError("--window wants 2 or more, and --stride at most as many".into()).into());
    }
    Ok(Windows { window, stride })
}
