//! The choice of the next token. The filters, their order and their meaning are those of `transformers`: repetition
//! penalty, temperature, top-k, top-p, min-p. Between the first two stand the penalties and the bias of the OpenAI
//! interface.
//!
//! Equal logits are ordered by id, the lower first. The one random number of a choice depends on the seed and the
//! position, not on what was drawn before, so the same request gives the same tokens in every batch.

use crate::{RuntimeError, TokenSet, uniform};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Logits are divided by this; 0 takes the largest logit and no random number.
    pub temperature: f32,
    /// Only the `k` largest logits, and those equal to the last of them; 0 keeps all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 1 keeps all.
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Logits of tokens seen before are divided by this if positive and multiplied if negative; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens that were generated before, once each; 0 changes nothing.
    pub presence_penalty: f32,
    /// Taken from the logits of tokens that were generated before, as often as they were; 0 changes nothing.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens; ids without a logit are passed over.
    pub logit_bias: Vec<(u32, f32)>,
    /// Where the random numbers start.
    pub seed: u64,
}

impl SamplingParams {
    /// Always the largest logit.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// What a choice depends on besides the logits.
#[derive(Debug, Clone, Copy, Default)]
pub struct SampleContext<'a> {
    /// The tokens before, of the prompt and generated.
    pub history: &'a [u32],
    /// How many of them, from the first, are the prompt.
    pub prompt: usize,
    /// The position of the token that is chosen.
    pub position: u64,
    /// The ids that may be chosen; all if there is none.
    pub allowed: Option<&'a TokenSet>,
}

/// Chooses tokens; keeps the memory it needs from one choice to the next.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    /// The logits after the penalty and the ban.
    scores: Vec<f32>,
    /// The candidates: weight relative to the likeliest, and id.
    kept: Vec<(f64, u32)>,
}

impl Sampler {
    /// A sampler; parameters out of range are refused.
    pub fn new(params: SamplingParams) -> Result<Self, RuntimeError> {
        check("temperature", params.temperature, |x| (0.0..=1e4).contains(&x), "0 to 10000")?;
        check("top-p", params.top_p, |x| (0.0..=1.0).contains(&x), "0 to 1")?;
        check("min-p", params.min_p, |x| (0.0..=1.0).contains(&x), "0 to 1")?;
        check("repetition penalty", params.repetition_penalty, |x| x > 0.0 && x <= 1e4, "above 0")?;
        check("presence penalty", params.presence_penalty, |x| x.abs() <= 100.0, "-100 to 100")?;
        check("frequency penalty", params.frequency_penalty, |x| x.abs() <= 100.0, "-100 to 100")?;
        for (_, bias) in &params.logit_bias {
            check("a logit bias", *bias, |x| x.abs() <= 100.0, "-100 to 100")?;
        }
        Ok(Self { params, scores: Vec::new(), kept: Vec::new() })
    }

    /// The next token after one row of logits.
    pub fn sample(&mut self, logits: &[f32], context: &SampleContext<'_>) -> Result<u32, RuntimeError> {
        let best = self.penalise(logits, context)?;
        if self.params.temperature == 0.0 {
            return Ok(best);
        }
        self.weigh(best);
        self.keep_top_k();
        self.keep_top_p();
        self.keep_min_p();
        self.kept.sort_unstable_by_key(|(_, id)| *id);
        Ok(self.draw(context.position))
    }

    /// Applies penalties, bias and ban, and finds the largest logit.
    fn penalise(&mut self, logits: &[f32], context: &SampleContext<'_>) -> Result<u32, RuntimeError> {
        if let Some(at) = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(RuntimeError::Logits(format!("the logit of token {at} is {}", logits[at])));
        }
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        let penalty = self.params.repetition_penalty;
        if penalty != 1.0 {
            for id in context.history {
                let Some(logit) = logits.get(*id as usize) else { continue };
                self.scores[*id as usize] = if *logit < 0.0 { logit * penalty } else { logit / penalty };
            }
        }
        self.count_generated(context);
        for (id, bias) in &self.params.logit_bias {
            if let Some(score) = self.scores.get_mut(*id as usize) {
                *score += bias;
            }
        }
        if let Some(allowed) = context.allowed {
            allowed.mask(&mut self.scores);
        }
        let mut best = None;
        for (id, score) in self.scores.iter().enumerate() {
            if *score > best.map_or(f32::NEG_INFINITY, |(_, most)| most) {
                best = Some((id as u32, *score));
            }
        }
        best.map(|(id, _)| id).ok_or_else(|| RuntimeError::Logits("no token is possible".into()))
    }

    /// Applies the presence and the frequency penalty. Counts are summed before they are multiplied, so that the result
    /// does not depend on the order of the tokens.
    fn count_generated(&mut self, context: &SampleContext<'_>) {
        let (presence, frequency) = (self.params.presence_penalty, self.params.frequency_penalty);
        if presence == 0.0 && frequency == 0.0 {
            return;
        }
        let mut generated = context.history.get(context.prompt..).unwrap_or_default().to_vec();
        generated.sort_unstable();
        for same in generated.chunk_by(|a, b| a == b) {
            if let Some(score) = self.scores.get_mut(same[0] as usize) {
                *score -= presence + frequency * same.len() as f32;
            }
        }
    }

    /// The weight of each possible token: its probability over that of the likeliest.
    fn weigh(&mut self, best: u32) {
        let most = f64::from(self.scores[best as usize]);
        let scale = 1.0 / f64::from(self.params.temperature);
        let weight = |score: f32| ((f64::from(score) - most) * scale).exp();
        self.kept.clear();
        let possible = self.scores.iter().zip(0..).filter(|(score, _)| **score > f32::NEG_INFINITY);
        self.kept.extend(possible.map(|(score, id)| (weight(*score), id)));
    }

    fn keep_top_k(&mut self) {
        let k = self.params.top_k;
        if k == 0 || k >= self.kept.len() {
            return;
        }
        // Distinct logits may have one weight after a high temperature, so the logits decide.
        let scores = &self.scores;
        let score = |kept: &(f64, u32)| scores[kept.1 as usize];
        let (_, kth, _) = self.kept.select_nth_unstable_by(k - 1, |a, b| score(b).total_cmp(&score(a)));
        let least = score(kth);
        self.kept.retain(|kept| score(kept) >= least);
    }

    /// Keeps the shortest list of likeliest tokens whose probability reaches top-p, at least one.
    fn keep_top_p(&mut self) {
        if self.params.top_p >= 1.0 {
            return;
        }
        // A fixed order of summation, whatever the selections below did to the order.
        self.kept.sort_unstable_by_key(|(_, id)| *id);
        let wanted = f64::from(self.params.top_p) * self.kept.iter().map(|(weight, _)| weight).sum::<f64>();
        let order = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let mut sorted = 0;
        let (mut sum, mut block) = (0.0, 64);
        while sorted < self.kept.len() {
            let rest = &mut self.kept[sorted..];
            let block_len = block.min(rest.len());
            if block_len < rest.len() {
                rest.select_nth_unstable_by(block_len, order);
            }
            rest[..block_len].sort_unstable_by(order);
            for at in sorted..sorted + block_len {
                sum += self.kept[at].0;
                if sum >= wanted {
                    self.kept.truncate(at + 1);
                    return;
                }
            }
            sorted += block_len;
            block *= 4;
        }
    }

    fn keep_min_p(&mut self) {
        let least = f64::from(self.params.min_p);
        if least > 0.0 {
            self.kept.retain(|(weight, _)| *weight >= least);
        }
    }

    /// Inverts the cumulative distribution over the ids in order.
    fn draw(&self, position: u64) -> u32 {
        let total: f64 = self.kept.iter().map(|(weight, _)| weight).sum();
        let mut left = uniform(self.params.seed, position) * total;
        let mut last = self.kept[0].1;
        for (weight, id) in self.kept.iter().filter(|(weight, _)| *weight > 0.0) {
            last = *id;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        last
    }
}

fn check(name: &str, value: f32, good: impl Fn(f32) -> bool, wanted: &str) -> Result<(), RuntimeError> {
    match value {
        value if good(value) => Ok(()),
        _ => Err(RuntimeError::Parameter(format!("{name} is {value}, wanted {wanted}"))),
    }
}

#[cfg(test)]
mod tests;
