//! `sinter chat`: a conversation, by hand or from a pipe.

use super::stream::Stream;
use crate::cli::ChatArgs;
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline;
use crate::text::{TextSide, finish_word, message};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sinter_runtime::{GenerateParams, Sampler, Session};
use std::io::{self, BufRead, IsTerminal, Write};

/// Tokens of a conversation where the user does not say.
const CONTEXT: usize = 8192;

pub(super) fn run(args: &ChatArgs, env: &Environment, output: &Output) -> Result<()> {
    let program = pipeline::prepare(&args.model, &args.build, env, output)?;
    if !program.info.decoder {
        bail!("{} is an encoder, it does not answer; use `sinter embed`", program.info.architecture);
    }
    let text = TextSide::load(&program.dir, &program.info)?;
    text.defaults.notes.iter().for_each(|note| output.note(note));
    let params = text.generation(&args.sample);
    let mut sampler = Sampler::new(text.sampling(&args.sample)?)?;
    let mut model = program.load(args.context.unwrap_or(CONTEXT), params.chunk, false)?;
    let system: Vec<Value> = args.system.iter().map(|system| message("system", system)).collect();
    let mut chat = Chat { session: Session::new(&mut *model), text: &text, messages: system.clone(), params };
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
            question => chat.answer(question, &mut sampler, output)?,
        }
    }
}

/// A conversation and what of it the model has in its cache.
struct Chat<'m, 't> {
    session: Session<'m>,
    text: &'t TextSide,
    messages: Vec<Value>,
    params: GenerateParams,
}

impl Chat<'_, '_> {
    /// Answers a question; the tokens that the cache still holds are not computed again.
    fn answer(&mut self, question: &str, sampler: &mut Sampler, output: &Output) -> Result<()> {
        self.messages.push(message("user", question));
        let ids = self.text.conversation(&self.messages)?;
        let mut stream = Stream::new(&self.text.tokenizer, (!output.json).then_some(output));
        let generation =
            sinter_runtime::generate(&mut self.session, &ids, &self.params, sampler, &mut |id| {
                stream.push(id)
            })?;
        let (answer, _) = stream.finish()?;
        self.messages.push(message("assistant", &answer));
        if output.json {
            return output.json_line(&json!({
                "text": answer,
                "tokens": generation.tokens,
                "prompt_tokens": ids.len(),
                "cached_tokens": generation.cached,
                "finish": finish_word(generation.finish),
            }));
        }
        output.write("\n")
    }
}
