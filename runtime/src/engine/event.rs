//! What a client gets.

use crate::RuntimeError;
use std::ops::ControlFlow;

/// One thing that happened to a request.
///
/// For each request: [`Event::Prompt`] as often as chunks of its prompt were computed, if asked for; for each choice
/// [`Event::Tokens`] in order, then one [`Event::Finished`]; at last exactly one [`Event::Done`] or [`Event::Failed`],
/// after which nothing comes.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Log probabilities of the next tokens of the prompt. The first token of a prompt has none.
    Prompt(Vec<Option<Logprob>>),
    /// The next tokens of a choice: one, or several after a speculation.
    Tokens {
        /// The choice, from 0.
        choice: usize,
        /// The tokens, at least one.
        tokens: Vec<Token>,
    },
    /// A choice has ended.
    Finished {
        /// The choice, from 0.
        choice: usize,
        /// Why no more comes.
        finish: Finish,
    },
    /// All choices have ended.
    Done(Usage),
    /// The request has ended with an error.
    Failed(RuntimeError),
}

impl Event {
    /// Whether nothing comes after this.
    pub fn is_last(&self) -> bool {
        matches!(self, Event::Done(_) | Event::Failed(_))
    }
}

/// A generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its log probability, if asked for.
    pub logprob: Option<Logprob>,
}

/// Log probabilities at one position, from the model's logits as they are: before penalties, temperature and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprob {
    /// The natural logarithm of the probability of the token that stands there.
    pub logprob: f32,
    /// How many tokens are likelier, plus one.
    pub rank: u32,
    /// The likeliest tokens, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// Why a choice has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model gave a stop id.
    Stop(u32),
    /// The constraint allows nothing more: the answer is complete.
    Complete,
    /// The wanted number of tokens was reached.
    Length,
    /// The context or the KV cache is full.
    Context,
    /// The client cancelled it.
    Cancelled,
}

/// What a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of the prompt that were in the cache when the first choice began.
    pub cached: usize,
    /// Tokens that were given out, of all choices.
    pub generated: usize,
    /// Tokens that were guessed by speculation.
    pub drafted: usize,
    /// Guessed tokens that were right.
    pub accepted: usize,
}

/// Where the events of a request go. It is called on the engine's thread, so it must not wait; a break cancels the
/// request.
pub type Sink = Box<dyn FnMut(Event) -> ControlFlow<()> + Send>;
