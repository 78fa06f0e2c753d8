//! `sinter run`: a prompt is continued.

use super::stream::follow;
use super::text_or_stdin;
use crate::cli::RunArgs;
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline;
use crate::text::{TextSide, message};
use crate::text_stream::TextStream;
use anyhow::{Result, bail};
use serde_json::json;
use sinter_runtime::engine::{Engine, EngineConfig};
use std::time::Instant;

pub(super) fn run(args: &RunArgs, env: &Environment, output: &Output) -> Result<()> {
    let prompt = text_or_stdin(&args.prompt)?;
    let program = pipeline::prepare(&args.model, &args.build, env, output)?;
    program.check_writes()?;
    let text = TextSide::load(&program.dir, &program.info)?;
    text.defaults.notes.iter().for_each(|note| output.note(note));
    let ids = prompt_ids(args, &prompt, &text)?;
    let count = ids.len();
    let request = text.request(ids, &args.sample, &args.form)?;
    let model = program.load(count.saturating_add(request.max_tokens), args.sample.chunk, false)?;
    let guesses = args.speculate.load(&args.build, &model.limits(), (env, output))?;
    let (engine, _) = Engine::spawn_with(model, guesses, EngineConfig::default())?;
    let started = Instant::now();
    let stream = TextStream::new(&text.tokenizer, args.sample.stop.clone());
    let answer = follow(engine.submit(request)?, stream, (!output.json).then_some(output))?;
    let total = started.elapsed();
    if !output.json {
        return output.write("\n");
    }
    let (decoded, first) = (answer.tokens.len().saturating_sub(1) as f64, answer.first);
    let rest = first.map_or(0.0, |first| total.saturating_sub(first - started).as_secs_f64());
    let value = json!({
        "text": answer.text,
        "tokens": answer.tokens,
        "prompt_tokens": count,
        "finish": answer.finish,
        "drafted_tokens": answer.usage.drafted,
        "accepted_tokens": answer.usage.accepted,
        "seconds_to_first_token": first.map(|first| (first - started).as_secs_f64()),
        "tokens_per_second": (decoded > 0.0 && rest > 0.0).then(|| decoded / rest),
    });
    output.result(&value, String::new)
}

/// The tokens of the prompt: a user's message where the model has a chat template, the text itself otherwise.
fn prompt_ids(args: &RunArgs, prompt: &str, text: &TextSide) -> Result<Vec<u32>> {
    if args.raw || text.template.is_none() {
        if args.system.is_some() {
            bail!("the model has no chat template, so --system has no place");
        }
        return Ok(text.tokenizer.encode(prompt, true)?);
    }
    let system = args.system.iter().map(|system| message("system", system));
    text.conversation(&system.chain([message("user", prompt)]).collect::<Vec<_>>())
}
