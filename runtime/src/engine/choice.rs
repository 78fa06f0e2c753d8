//! One answer on its way: from rows of logits to tokens and the reason of its end.

use super::RequestId;
use super::event::{Logprob, Token};
use super::plan::Outcome;
use super::request::{Request, TokenMask};
use crate::{Finish, Row, RuntimeError, SampleContext, Sampler, SamplingParams};
use sinter_ir::draw::Draw;

/// What a choice keeps from step to step.
pub(super) struct Choice {
    pub(super) request: RequestId,
    pub(super) index: usize,
    sampler: Sampler,
    mask: Option<Box<dyn TokenMask>>,
    stop_ids: Vec<u32>,
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    /// Prompt and generated tokens.
    history: Vec<u32>,
    prompt: usize,
    /// The length of the history at which it must end, and why.
    most: (usize, Finish),
    /// Tokens of the prompt whose log probabilities were given out.
    told: usize,
}

/// What one step gave for a choice.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) prompt: Vec<Option<Logprob>>,
    pub(super) tokens: Vec<Token>,
    pub(super) finish: Option<Finish>,
    /// Tokens of the prompt that were found in the cache.
    pub(super) cached: usize,
}

impl Step {
    /// What the scheduler needs to know of it.
    pub(super) fn outcome(&self) -> Outcome {
        let tokens = self.tokens.iter().map(|token| token.id).collect();
        Outcome { tokens, finished: self.finish.is_some() }
    }
}

impl Choice {
    /// Choice `index` of a request, of which the cache holds `capacity` tokens at most.
    pub(super) fn new(
        id: RequestId,
        request: &Request,
        index: usize,
        capacity: usize,
    ) -> Result<Self, RuntimeError> {
        let sampling = SamplingParams { seed: request.seed_of(index), ..request.sampling.clone() };
        let mask = request.constraint.as_ref().map(|constraint| constraint.start()).transpose();
        let prompt = request.prompt.len();
        // The last token is given out but need not be in the cache.
        let most = match prompt.saturating_add(request.max_tokens) {
            wanted if wanted <= capacity + 1 => (wanted, Finish::Length),
            _ => (capacity + 1, Finish::Context),
        };
        Ok(Self {
            request: id,
            index,
            sampler: Sampler::new(sampling)?,
            mask: mask.map_err(RuntimeError::Constraint)?,
            stop_ids: request.stop_ids.clone(),
            logprobs: request.logprobs,
            prompt_logprobs: request.prompt_logprobs.filter(|_| index == 0),
            history: request.prompt.clone(),
            prompt,
            most,
            told: 0,
        })
    }

    /// Whether the logits of all tokens of the prompt are wanted.
    pub(super) fn wants_prompt(&self) -> bool {
        self.prompt_logprobs.is_some()
    }

    /// How a device may choose after row `at` of those that are chosen from; none if it takes more than the row.
    pub(super) fn on_device(&self, at: usize) -> Option<Draw> {
        let alone = self.mask.is_none() && self.logprobs.is_none();
        alone.then(|| self.sampler.on_device((self.history.len() + at) as u64)).flatten()
    }

    /// Chooses the tokens after the rows of a chunk that ends with `drafts`.
    ///
    /// Each row is sampled as if there were no drafts; a draft is right if it is the token that was chosen, and then the
    /// next row is the one that plain decoding would have computed. So drafts never change an answer, greedy or not.
    pub(super) fn choose<'r>(
        &mut self,
        rows: impl Iterator<Item = Row<'r>>,
        drafts: &[u32],
        step: &mut Step,
    ) -> Result<(), RuntimeError> {
        for (at, row) in rows.enumerate() {
            let Some(token) = self.next(row, &mut step.finish)? else { return Ok(()) };
            step.tokens.push(token);
            let right = drafts.get(at) == self.history.last();
            if step.finish.is_some() || !right {
                return Ok(());
            }
        }
        Ok(())
    }

    fn next(&mut self, row: Row<'_>, finish: &mut Option<Finish>) -> Result<Option<Token>, RuntimeError> {
        let (most, reason) = self.most;
        if self.history.len() >= most {
            *finish = Some(reason);
            return Ok(None);
        }
        let allowed = self.mask.as_mut().map(|mask| mask.allowed()).transpose();
        let allowed = allowed.map_err(RuntimeError::Constraint)?;
        if allowed.as_ref().is_some_and(|allowed| allowed.is_empty()) {
            *finish = Some(Finish::Complete);
            return Ok(None);
        }
        let position = self.history.len() as u64;
        let context = SampleContext {
            history: &self.history,
            prompt: self.prompt,
            position,
            allowed: allowed.as_ref(),
        };
        let id = match row {
            Row::Token(id) => id,
            Row::Logits(row) => self.sampler.sample(row, &context)?,
        };
        if self.stop_ids.contains(&id) {
            *finish = Some(Finish::Stop(id));
            return Ok(None);
        }
        if let Some(mask) = &mut self.mask {
            mask.accept(id).map_err(RuntimeError::Constraint)?;
        }
        self.history.push(id);
        if self.history.len() >= most {
            *finish = Some(reason);
        }
        let logprob = match row {
            Row::Logits(row) => self.logprobs.map(|top| logprob(row, id, top)),
            Row::Token(_) => None,
        };
        Ok(Some(Token { id, logprob }))
    }

    /// The log probabilities of the prompt's tokens after the rows that begin at position `start`; those that were given
    /// out before, when the same rows were computed for the first time, are left out.
    pub(super) fn tell_prompt<'r>(
        &mut self,
        start: usize,
        rows: impl Iterator<Item = Row<'r>>,
        step: &mut Step,
    ) {
        let Some(top) = self.prompt_logprobs else { return };
        if self.told == 0 {
            self.told = 1;
            step.prompt.push(None);
        }
        for (position, row) in (start + 1..self.prompt).zip(rows) {
            // A row before the prompt's last is never drawn from.
            if let Row::Logits(row) = row
                && position == self.told
            {
                self.told += 1;
                step.prompt.push(Some(logprob(row, self.history[position], top)));
            }
        }
    }
}

/// The log probability of a token and of the `top` likeliest. Sums run over the ids in order.
fn logprob(row: &[f32], id: u32, top: usize) -> Logprob {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|logit| f64::from(logit - most).exp()).sum();
    let shift = f64::from(most) + sum.ln();
    let log = |logit: f32| (f64::from(logit) - shift) as f32;
    let own = row[id as usize];
    let rank = 1 + row.iter().filter(|logit| **logit > own).count() as u32;
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    let order = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
    let top = top.min(ids.len());
    if top < ids.len() {
        ids.select_nth_unstable_by(top, order);
        ids.truncate(top);
    }
    ids.sort_unstable_by(order);
    Logprob { logprob: log(own), rank, top: ids.into_iter().map(|id| (id, log(row[id as usize]))).collect() }
}
