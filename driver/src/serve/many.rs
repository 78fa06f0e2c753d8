//! Several generations as one, and outputs as a whole.

use super::error::ApiError;
use super::generate::{Answers, Output, Reason, Usage};
use futures_util::stream::{Stream, StreamExt, select_all};
use sinter_runtime::engine::{Logprob, Token};
use std::pin::Pin;

/// Outputs on their way.
pub type Outputs = Pin<Box<dyn Stream<Item = Output> + Send>>;

/// The outputs of several generations of `n` answers each: the answers of the second begin with number `n`. There is one
/// [`Output::Done`] at the end, and nothing after an error.
pub fn merge(generations: Vec<Answers>, n: usize) -> Outputs {
    let mut open = generations.len();
    let one = |(index, answers): (usize, Answers)| {
        Box::pin(answers.stream().map(move |output| shifted(output, index * n)))
    };
    let outputs = select_all(generations.into_iter().enumerate().map(one));
    let mut usage = Usage::default();
    let summed = outputs.filter_map(move |output| {
        let output = match output {
            Output::Done(one) => {
                usage += one;
                open -= 1;
                (open == 0).then_some(Output::Done(usage))
            }
            other => Some(other),
        };
        std::future::ready(output)
    });
    let mut failed = false;
    let until_error = summed.take_while(move |output| {
        let more = !failed;
        failed |= matches!(output, Output::Failed(_));
        std::future::ready(more)
    });
    Box::pin(until_error)
}

fn shifted(output: Output, by: usize) -> Output {
    match output {
        Output::Prompt(choice, logprobs) => Output::Prompt(choice + by, logprobs),
        Output::Piece(mut piece) => {
            piece.choice += by;
            Output::Piece(piece)
        }
        Output::Finished(choice, reason) => Output::Finished(choice + by, reason),
        other => other,
    }
}

/// Outputs that have all come.
#[derive(Debug, Default)]
pub struct Whole {
    /// The answers.
    pub answers: Vec<Answer>,
    /// What they took.
    pub usage: Usage,
}

/// An answer that has ended.
#[derive(Debug, Default)]
pub struct Answer {
    /// Log probabilities of the prompt's tokens, if asked for; with the first answer to a prompt.
    pub prompt: Vec<Option<Logprob>>,
    /// Its text.
    pub text: String,
    /// Its tokens, if log probabilities were asked for.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub reason: Option<Reason>,
}

impl Whole {
    /// Waits for all of `count` answers.
    ///
    /// # Errors
    /// That of the generation.
    pub async fn of(mut outputs: Outputs, count: usize) -> Result<Self, ApiError> {
        let mut whole = Self::default();
        whole.answers.resize_with(count, Answer::default);
        while let Some(output) = outputs.next().await {
            match output {
                Output::Prompt(choice, logprobs) => whole.answers[choice].prompt.extend(logprobs),
                Output::Piece(piece) => {
                    let answer = &mut whole.answers[piece.choice];
                    answer.text += &piece.text;
                    answer.tokens.extend(piece.tokens);
                }
                Output::Finished(choice, reason) => whole.answers[choice].reason = Some(reason),
                Output::Done(usage) => whole.usage = usage,
                Output::Failed(error) => return Err(error),
            }
        }
        Ok(whole)
    }
}
