//! What a client asks for.

use crate::{RuntimeError, Sampler, SamplingParams, TokenSet};
use std::fmt;
use std::sync::Arc;

/// Continuations of one prompt.
#[derive(Debug, Clone)]
pub struct Request {
    /// The token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// How the next token is chosen. Choice `i` draws its random numbers from [`Request::seed_of`] `i`.
    pub sampling: SamplingParams,
    /// Independent continuations, numbered from 0.
    pub n: usize,
    /// Tokens to generate at most, for each choice.
    pub max_tokens: usize,
    /// Ids that end a choice; they are not part of the result.
    pub stop_ids: Vec<u32>,
    /// Log probabilities of the generated tokens, and of so many likeliest alternatives; none if left out.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// Who goes first: smaller is sooner. A unit is a head start of
    /// [`SchedulerConfig::patience`](super::SchedulerConfig) steps, so nobody waits for ever.
    pub priority: i32,
    /// Only requests with the same salt share cached prefixes; tenants with different salts learn nothing of each other.
    pub cache_salt: Vec<u8>,
    /// What the answer must look like, if anything.
    pub constraint: Option<Arc<dyn Constraint>>,
}

impl Request {
    /// One greedy continuation of at most `max_tokens` tokens, without stop ids.
    pub fn new(prompt: Vec<u32>, max_tokens: usize) -> Self {
        Self {
            prompt,
            sampling: SamplingParams::greedy(),
            n: 1,
            max_tokens,
            stop_ids: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            priority: 0,
            cache_salt: Vec::new(),
            constraint: None,
        }
    }

    /// The seed of a choice: that of the request for the first.
    pub fn seed_of(&self, choice: usize) -> u64 {
        self.sampling.seed.wrapping_add((choice as u64).wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    /// Refuses what no state of the engine could serve.
    pub(super) fn check(&self, vocab: usize, capacity: usize, most: &Bounds) -> Result<(), RuntimeError> {
        let refuse = |reason: String| Err(RuntimeError::Parameter(reason));
        let found = self.prompt.len();
        if found == 0 {
            return refuse("the prompt has no tokens".into());
        }
        if found > capacity {
            return refuse(format!("a prompt of {found} tokens, the context has {capacity}"));
        }
        if !(1..=most.n).contains(&self.n) {
            return refuse(format!("n is {}, wanted 1 to {}", self.n, most.n));
        }
        for (what, count) in [("logprobs", self.logprobs), ("prompt logprobs", self.prompt_logprobs)] {
            if count.is_some_and(|count| count > most.logprobs) {
                return refuse(format!("{what} is {count:?}, wanted at most {}", most.logprobs));
            }
        }
        let bias = self.sampling.logit_bias.iter().map(|(id, _)| id);
        let ids = [
            ("the prompt", self.prompt.iter().max()),
            ("the stop ids", self.stop_ids.iter().max()),
            ("the logit bias", bias.max()),
        ];
        for (place, id) in ids {
            if let Some(id) = id.filter(|id| **id as usize >= vocab) {
                return refuse(format!("{place} names token {id}, the vocabulary has {vocab}"));
            }
        }
        Sampler::new(self.sampling.clone()).map(drop)
    }
}

/// The largest values of a request's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Choices of a request.
    pub n: usize,
    /// Alternatives in log probabilities.
    pub logprobs: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { n: 16, logprobs: 20 }
    }
}

/// A grammar or a schema, ready to watch over any number of answers.
pub trait Constraint: Send + Sync + fmt::Debug {
    /// The watch over one answer.
    fn start(&self) -> Result<Box<dyn TokenMask>, String>;
}

/// The watch over one answer: says which tokens may come next, and is told which one came.
///
/// Every error ends the request. There is no way to go on without the constraint.
pub trait TokenMask: Send {
    /// The tokens that may come next. An empty set means that the answer is complete.
    fn allowed(&mut self) -> Result<TokenSet, String>;
    /// Takes the token that came: one of those allowed, and no stop id.
    fn accept(&mut self, token: u32) -> Result<(), String>;
}
