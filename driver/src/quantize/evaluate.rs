//! What a model is worth, before and after: perplexity on a text, and questions with one right answer.

use crate::cli::{ActivationsArg, BuildArgs, DTypeArg, KvCacheArg, QuantArg};
use crate::device::DeviceArg;
use crate::environment::Environment;
use crate::output::Output;
use crate::perplexity::{Windows, measure, surprise};
use crate::pipeline;
use crate::text::{TextSide, message};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use sinter_runtime::{DeviceModel, Rows, Session};
use std::path::{Path, PathBuf};

/// Tokens that a model sees together at most.
const WINDOW: usize = 512;

/// A question with its answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Question {
    prompt: String,
    answer: String,
}

/// What is asked of a model.
#[derive(Debug, Clone, Default)]
pub struct Examination {
    /// The text whose perplexity is measured where there are no questions.
    pub text: Vec<u32>,
    /// Files of questions, by name without ending.
    pub questions: Vec<(String, Vec<Question>)>,
}

/// What came of one file of questions.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Answers {
    /// The file's name without ending.
    pub name: String,
    /// Questions whose whole answer, the end included, greedy decoding would give.
    pub right: usize,
    /// Questions.
    pub asked: usize,
    /// e to the mean negative log-likelihood of the answers' tokens, ends included. What comes before an answer is not
    /// scored: models that were tuned on answers alone predict no questions.
    pub perplexity: f64,
}

/// What came of it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Marks {
    /// e to the mean negative log-likelihood of all answers' tokens, or of the text's where there are no questions.
    pub perplexity: f64,
    /// Tokens that were scored.
    pub scored: usize,
    /// In the order in which the files were named.
    pub questions: Vec<Answers>,
}

impl Examination {
    /// Reads the files of questions.
    ///
    /// # Errors
    /// If a line is no question, or a file has none.
    pub fn new(text: Vec<u32>, files: &[PathBuf]) -> Result<Self> {
        Ok(Self { text, questions: files.iter().map(|file| read(file)).collect::<Result<_>>()? })
    }

    /// Whether anything is asked.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.text.len() < 2
    }

    /// Examines a model in f32 on the host.
    pub fn marks(&self, model: &str, env: &Environment, output: &Output) -> Result<Marks> {
        let build = BuildArgs {
            dtype: DTypeArg::F32,
            quant: QuantArg::None,
            activations: ActivationsArg::Exact,
            kv_cache: KvCacheArg::Auto,
            device: DeviceArg::Host,
            threads: None,
        };
        let program = pipeline::prepare(model, &build, env, output)?;
        program.check_writes()?;
        let window = program.info.context.min(WINDOW);
        let mut loaded = program.load(window, window, false)?;
        if self.questions.is_empty() {
            let windows = Windows { window, stride: (window / 2).max(1) };
            let found = measure(&mut *loaded, &self.text, windows, || ())?;
            return Ok(Marks { perplexity: found.perplexity, scored: found.scored, questions: Vec::new() });
        }
        let side = TextSide::load(&program.dir, &program.info)?;
        let (mut questions, mut sum, mut scored) = (Vec::new(), 0.0, 0);
        for (name, all) in &self.questions {
            let asked = ask(&mut *loaded, &side, (name, all), output)?;
            let perplexity = (asked.surprise / asked.scored.max(1) as f64).exp();
            let answers = Answers { name: name.clone(), right: asked.right, asked: all.len(), perplexity };
            questions.push(answers);
            (sum, scored) = (sum + asked.surprise, scored + asked.scored);
        }
        Ok(Marks { perplexity: (sum / scored.max(1) as f64).exp(), scored, questions })
    }
}

/// A file of questions, and its name without ending.
fn read(file: &Path) -> Result<(String, Vec<Question>)> {
    let place = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {place}"))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let question = |(at, line): (usize, &str)| {
        let wanted = || format!("{place}:{}: wanted an object with `prompt` and `answer`", at + 1);
        serde_json::from_str(line).with_context(wanted)
    };
    let questions = lines.map(question).collect::<Result<Vec<Question>>>()?;
    ensure!(!questions.is_empty(), "{place} has no questions; wanted a JSON object on each line");
    let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((name, questions))
}

/// How a model takes answers.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    right: usize,
    /// The sum of negative log-likelihoods.
    surprise: f64,
    scored: usize,
}

/// Asks all questions of a file.
fn ask(
    model: &mut dyn DeviceModel,
    side: &TextSide,
    (name, all): (&str, &[Question]),
    output: &Output,
) -> Result<Taken> {
    let bar = output.progress("asking", all.len() as u64);
    let mut taken = Taken::default();
    for question in all {
        let prompt = side.conversation(&[message("user", &question.prompt)])?;
        let answer = side.tokenizer.encode(&question.answer, false)?;
        let one = follow(model, (&prompt, &answer), &side.defaults.eos_ids);
        let one = one.with_context(|| format!("{name}: {}", question.prompt))?;
        taken.right += one.right;
        taken.surprise += one.surprise;
        taken.scored += one.scored;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(taken)
}

/// Feeds a question with its answer. Greedy decoding gives the answer if each token of it is the likeliest after those before
/// it, and a token that ends answers is after the last.
fn follow(model: &mut dyn DeviceModel, (prompt, answer): (&[u32], &[u32]), ends: &[u32]) -> Result<Taken> {
    let width = model.width().max(1);
    let tokens = [prompt, answer].concat();
    let room = model.limits().max_tokens;
    ensure!(tokens.len() <= room, "{} tokens, more than the {room} that are asked at once", tokens.len());
    ensure!(!prompt.is_empty(), "the prompt has no tokens");
    let mut session = Session::new(model);
    let logits = session.feed(&tokens, Rows::All)?;
    let rows = logits.chunks_exact(width).skip(prompt.len() - 1);
    let wanted = answer.chunks(1).chain((!ends.is_empty()).then_some(ends));
    let (mut right, mut taken) = (true, Taken::default());
    for (row, wanted) in rows.zip(wanted) {
        right &= wanted.contains(&likeliest(row));
        // Ends exclude one another: their probabilities add up.
        let likelihood: f64 = wanted.iter().map(|token| (-surprise(row, *token as usize)).exp()).sum();
        taken.surprise -= likelihood.max(f64::MIN_POSITIVE).ln();
        taken.scored += 1;
    }
    Ok(Taken { right: usize::from(right), ..taken })
}

/// The token with the greatest logit, the first of equals.
fn likeliest(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]).then(b.cmp(a))).unwrap_or(0) as u32
}
