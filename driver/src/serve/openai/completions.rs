//! `POST /v1/completions`

use super::chat::STREAM_OPTIONS;
use super::logprobs::of_completion;
use super::shape::{Shape, failed, stop_reason, usage_of};
use crate::serve::body::{Fields, JsonBody, Kind, MODEL, Row, STREAM, row};
use crate::serve::conversation::encode;
use crate::serve::error::ApiError;
use crate::serve::generate::{Generation, Output};
use crate::serve::inputs::{Input, inputs};
use crate::serve::many::{Answer, Whole, merge};
use crate::serve::record::Caller;
use crate::serve::sampling::{CHOICES, EXTENSIONS, HARMLESS, SAMPLING};
use crate::serve::sse::{self, Render};
use crate::serve::state::App;
use crate::serve::structured::{STRUCTURED, grammar};
use axum::Extension;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sinter_runtime::engine::Logprob;
use std::sync::Arc;

/// The most prompts of a request.
const PROMPTS_MAX: usize = 128;
/// Tokens of an answer where nobody says otherwise: OpenAI's default.
const MAX_TOKENS: usize = 16;

/// The name of a completion and of its pieces.
const OBJECT: &str = "text_completion";

/// The fields of a completion.
pub const COMPLETIONS: &[Row] = &[
    MODEL,
    row("prompt", Kind::Any, "A text, a list of texts, a list of token ids, or a list of such lists."),
    STREAM,
    row("stream_options", Kind::Object, "Whether the stream ends with the usage."),
    row("max_tokens", Kind::Int(0, 1 << 31), "Tokens of an answer at most; 16 if left out."),
    row("echo", Kind::Bool, "Gives the prompt before the answer."),
    row("logprobs", Kind::Int(0, 20), "Log probabilities of the tokens, and of so many likeliest."),
    row("prompt_logprobs", Kind::Only(&[]), "Not supported; use echo with logprobs."),
    row("best_of", Kind::Int(1, 16), "Generates so many answers and gives the n likeliest."),
    row("add_special_tokens", Kind::Bool, "Adds the tokens that mark the begin of a text; true if left out."),
    row("suffix", Kind::Only(&["\"\""]), "Not supported."),
];

/// All tables of a completion.
pub const TABLES: &[&[Row]] = &[COMPLETIONS, SAMPLING, CHOICES, EXTENSIONS, STRUCTURED, HARMLESS];

/// A prompt.
#[derive(Debug, Clone)]
struct Prompt {
    ids: Vec<u32>,
    /// Its text, if it is wanted back.
    text: String,
}

/// A request that was understood.
struct Job {
    prompts: Vec<Prompt>,
    generation: Generation,
    /// Answers to a prompt that are given back.
    n: usize,
    echo: bool,
    /// Whether log probabilities are given back.
    logprobs: bool,
}

/// Continues prompts.
pub async fn completions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let fields = body.fields(&app, TABLES)?;
    let options = fields.object("stream_options", &[STREAM_OPTIONS])?;
    let stream = fields.flag("stream");
    let shape = Shape::new("cmpl-", &app, fields.text("model"), options.flag("include_usage"));
    let job = app.aside(move |app| job(app, &fields)).await?;
    let most = job.generation.n;
    if stream && most > job.n {
        return Err(ApiError::field("best_of", "a stream cannot give the best of several answers"));
    }
    let one = |prompt: &Prompt| {
        let generation = Generation { prompt: prompt.ids.clone(), ..job.generation.clone() };
        generation.start(&app, &caller)
    };
    let started = job.prompts.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    let outputs = merge(started, most);
    if stream {
        let offsets = vec![0; job.prompts.len() * job.n];
        return Ok(sse::respond(outputs, CompletionStream { app, shape, job, offsets }));
    }
    let answers = Whole::of(outputs, job.prompts.len() * most).await?;
    let usage = usage_of(&answers.usage);
    let mut value = shape.around(OBJECT, choices(&app, &job, best(answers.answers, most, job.n)));
    value["usage"] = usage;
    Ok(axum::Json(value).into_response())
}

fn job(app: &App, fields: &Fields) -> Result<Job, ApiError> {
    let prompts = prompts(app, fields)?;
    let mut generation = Generation::new(Vec::new());
    generation.take(app, fields)?;
    let (n, echo) = (generation.n, fields.flag("echo"));
    generation.n = fields.count("best_of").unwrap_or(n);
    if generation.n < n {
        return Err(
            fields.wrong("best_of", format!("best_of is {}, less than n, which is {n}", generation.n))
        );
    }
    generation.max_tokens = Some(fields.count("max_tokens").unwrap_or(MAX_TOKENS));
    let logprobs = fields.count("logprobs");
    generation.logprobs = logprobs.or((generation.n > n).then_some(0));
    generation.prompt_logprobs = logprobs.filter(|_| echo);
    generation.constraint = grammar(fields)?.map(|grammar| app.compile(&grammar)).transpose()?;
    Ok(Job { prompts, generation, n, echo, logprobs: logprobs.is_some() })
}

fn prompts(app: &App, fields: &Fields) -> Result<Vec<Prompt>, ApiError> {
    let wrong = |words: &str| fields.wrong("prompt", words);
    let special = fields.bool("add_special_tokens").unwrap_or(true);
    let one = |input: Input<'_>| match input {
        Input::Text(text) => {
            Ok::<_, ApiError>(Prompt { ids: encode(app, text, special)?, text: text.to_owned() })
        }
        Input::Ids(ids) => {
            let text =
                if fields.flag("echo") { app.text.tokenizer.decode(&ids, true) } else { Ok(String::new()) };
            let text = text.map_err(|error| wrong(&error.to_string()))?;
            Ok(Prompt { ids, text })
        }
    };
    let found = inputs(app, fields, ("prompt", PROMPTS_MAX))?;
    let found = found.into_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    match found.iter().all(|prompt| !prompt.ids.is_empty()) {
        true => Ok(found),
        false => Err(wrong("a prompt has no tokens")),
    }
}

/// The `n` likeliest of each `most` answers, by the mean of their log probabilities.
fn best(answers: Vec<Answer>, most: usize, n: usize) -> Vec<Answer> {
    if most == n {
        return answers;
    }
    let score = |answer: &Answer| {
        let all = answer.tokens.iter().filter_map(|token| Some(f64::from(token.logprob.as_ref()?.logprob)));
        all.sum::<f64>() / answer.tokens.len().max(1) as f64
    };
    let (mut kept, mut rest) = (Vec::new(), answers.into_iter());
    while rest.len() > 0 {
        let mut of_one: Vec<Answer> = rest.by_ref().take(most).collect();
        let prompt = of_one.first_mut().map(|first| std::mem::take(&mut first.prompt)).unwrap_or_default();
        of_one.sort_by(|a, b| score(b).total_cmp(&score(a)));
        of_one.truncate(n);
        if let Some(first) = of_one.first_mut() {
            first.prompt = prompt;
        }
        kept.extend(of_one);
    }
    kept
}

/// The tokens of a prompt with their log probabilities.
fn of_prompt<'p>(
    prompt: &'p Prompt,
    logprobs: &'p [Option<Logprob>],
) -> impl Iterator<Item = (u32, Option<&'p Logprob>)> {
    prompt.ids.iter().copied().zip(logprobs.iter().map(Option::as_ref))
}

fn choices(app: &App, job: &Job, answers: Vec<Answer>) -> Vec<Value> {
    let mut all = Vec::new();
    for (index, answer) in answers.iter().enumerate() {
        let prompt = &job.prompts[index / job.n];
        // Log probabilities of the prompt come once, with its first answer.
        let of_it = &answers[index / job.n * job.n].prompt;
        let before = if job.echo { prompt.text.as_str() } else { "" };
        let logprobs = match job.logprobs {
            true => {
                let own = answer.tokens.iter().map(|token| (token.id, token.logprob.as_ref()));
                of_completion(app, of_prompt(prompt, of_it).chain(own), &mut 0)
            }
            false => Value::Null,
        };
        all.push(json!({
            "index": index,
            "text": format!("{before}{}", answer.text),
            "logprobs": logprobs,
            "finish_reason": answer.reason.as_ref().map(|reason| reason.openai()),
            "stop_reason": answer.reason.as_ref().map(stop_reason),
        }));
    }
    all
}

/// A response in pieces.
struct CompletionStream {
    app: Arc<App>,
    shape: Shape,
    job: Job,
    /// Where the next token of each answer begins in its text.
    offsets: Vec<usize>,
}

impl CompletionStream {
    fn chunk(&self, index: usize, text: &str, logprobs: Value) -> Event {
        self.shape.chunk(
            OBJECT,
            json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": null }),
        )
    }
}

impl Render for CompletionStream {
    fn begin(&mut self) -> Vec<Event> {
        let (n, echo) = (self.job.n, self.job.echo);
        let text = |index: usize| &self.job.prompts[index / n].text;
        (0..self.offsets.len())
            .filter(|_| echo)
            .map(|index| self.chunk(index, text(index), Value::Null))
            .collect()
    }

    fn output(&mut self, output: Output) -> Vec<Event> {
        match output {
            Output::Prompt(choice, logprobs) => {
                // They come in chunks; the ids that were told are taken out, so the next chunk finds its own in front.
                let prompt = &mut self.job.prompts[choice / self.job.n];
                let told = logprobs.len().min(prompt.ids.len());
                let value = of_completion(&self.app, of_prompt(prompt, &logprobs), &mut self.offsets[choice]);
                prompt.ids.drain(..told);
                vec![self.chunk(choice, "", value)]
            }
            Output::Piece(piece) => {
                let logprobs = match self.job.logprobs {
                    true => {
                        let own = piece.tokens.iter().map(|token| (token.id, token.logprob.as_ref()));
                        of_completion(&self.app, own, &mut self.offsets[piece.choice])
                    }
                    false => Value::Null,
                };
                vec![self.chunk(piece.choice, &piece.text, logprobs)]
            }
            Output::Finished(choice, reason) => vec![self.shape.chunk(
                OBJECT,
                json!({
                    "index": choice,
                    "text": "",
                    "logprobs": null,
                    "finish_reason": reason.openai(),
                    "stop_reason": stop_reason(&reason),
                }),
            )],
            Output::Done(usage) => self.shape.end(OBJECT, &usage),
            Output::Failed(error) => failed(&error),
        }
    }
}
