//! `sinter chat`: a conversation, by hand or from a pipe.

use super::stream::follow;
use crate::cli::{ChatArgs, FormArgs, SampleArgs};
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline;
use crate::text::{TextSide, message};
use crate::text_stream::TextStream;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sinter_runtime::engine::{Engine, EngineConfig, EngineHandle};
use std::io::{self, BufRead, IsTerminal, Write};

/// Tokens of a conversation where the user does not say.
const CONTEXT: usize = 8192;

pub(super) fn run(args: &ChatArgs, env: &Environment, output: &Output) -> Result<()> {
    let program = pipeline::prepare(&args.model, &args.build, env, output)?;
    program.check_writes()?;
    let text = TextSide::load(&program.dir, &program.info)?;
    text.defaults.notes.iter().for_each(|note| output.note(note));
    let model = program.load(args.context.unwrap_or(CONTEXT), args.sample.chunk, false)?;
    let guesses = args.speculate.load(&args.build, &model.limits(), (env, output))?;
    let (engine, _) = Engine::spawn_with(model, guesses, EngineConfig::default())?;
    let system: Vec<Value> = args.system.iter().map(|system| message("system", system)).collect();
    let mut chat =
        Chat { engine, text: &text, messages: system.clone(), sample: &args.sample, form: &args.form };
    // A model without a template is refused before the first question.
    text.conversation(&[message("user", "")])?;
    let by_hand = io::stdin().is_terminal();
    if by_hand {
        output.note("/reset begins anew, /exit or the end of input leaves");
    }
    loop {
        if by_hand {
            let _ = write!(io::stderr(), "> ");
        }
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line).context("cannot read from stdin")? == 0 {
            return Ok(());
        }
        match line.trim() {
            "" => {}
            "/exit" => return Ok(()),
            "/reset" => chat.messages.clone_from(&system),
            question => chat.answer(question, output)?,
        }
    }
}

/// A conversation and what of it the model has in its cache.
struct Chat<'t> {
    engine: EngineHandle,
    text: &'t TextSide,
    messages: Vec<Value>,
    sample: &'t SampleArgs,
    form: &'t FormArgs,
}

impl Chat<'_> {
    /// Answers a question; full pages of tokens that the cache still holds are not computed again.
    fn answer(&mut self, question: &str, output: &Output) -> Result<()> {
        self.messages.push(message("user", question));
        let ids = self.text.conversation(&self.messages)?;
        let request = self.text.request(ids, self.sample, self.form)?;
        let stream = TextStream::new(&self.text.tokenizer, self.sample.stop.clone());
        let answer = follow(self.engine.submit(request)?, stream, (!output.json).then_some(output))?;
        self.messages.push(message("assistant", &answer.text));
        if output.json {
            return output.json_line(&json!({
                "text": answer.text,
                "tokens": answer.tokens,
                "prompt_tokens": answer.usage.prompt,
                "cached_tokens": answer.usage.cached,
                "finish": answer.finish,
            }));
        }
        output.write("\n")
    }
}
