//! Generation of one sequence: the prompt in chunks, then token by token.

use crate::{RuntimeError, SampleContext, Sampler, Session};
use std::ops::ControlFlow;

/// When a generation ends, and how its prompt is fed.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateParams {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Ids that end the generation; they are not part of the result.
    pub stop_ids: Vec<u32>,
    /// Tokens of the prompt that are fed in one step.
    pub chunk: usize,
}

/// Why a generation ended.
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
    /// The callback said so.
    Cancelled,
}

/// What was generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Why no more came.
    pub finish: Finish,
    /// Tokens of the prompt that were in the cache already.
    pub cached: usize,
}

/// Continues `prompt`, calling `on_token` with each new token. What the session already holds of the prompt is not
/// computed again.
pub fn generate(
    session: &mut Session<'_>,
    prompt: &[u32],
    params: &GenerateParams,
    sampler: &mut Sampler,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, RuntimeError> {
    if prompt.is_empty() {
        return Err(RuntimeError::Parameter("the prompt has no tokens".into()));
    }
    let capacity = session.capacity();
    if prompt.len() > capacity {
        let found = prompt.len();
        return Err(RuntimeError::Parameter(format!(
            "a prompt of {found} tokens, the context has {capacity}"
        )));
    }
    let chunk = params.chunk.clamp(1, session.model().limits().max_tokens);
    let cached = session.rewind(prompt)?;
    let mut history = prompt.to_vec();
    let mut fed = cached;
    let mut generation = Generation { tokens: Vec::new(), finish: Finish::Length, cached };
    while generation.tokens.len() < params.max_tokens {
        if history.len() > capacity {
            generation.finish = Finish::Context;
            break;
        }
        let logits = session.prefill(&history[fed..], chunk)?;
        fed = history.len();
        let context =
            SampleContext { history: &history, prompt: prompt.len(), position: fed as u64, allowed: None };
        let next = sampler.sample(logits, &context)?;
        if params.stop_ids.contains(&next) {
            generation.finish = Finish::Stop(next);
            break;
        }
        history.push(next);
        generation.tokens.push(next);
        if on_token(next).is_break() {
            generation.finish = Finish::Cancelled;
            break;
        }
    }
    Ok(generation)
}
