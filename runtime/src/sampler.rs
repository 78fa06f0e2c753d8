//! The choice of the next token. The filters, their order and their meaning are those of `transformers`: repetition
//! penalty, temperature, top-k, top-p, min-p. Between the first two stand the penalties and the bias of the OpenAI
//! interface.
//!
//! Equal logits are ordered by id, the lower first. The one random number of a choice depends on the seed and the
//! position, not on what was drawn before, so the same request gives the same tokens in every batch. The arithmetic is
//! that of [`sinter_ir::draw`], so a GPU that draws from the same logits gives the same token.

use crate::{RuntimeError, TokenSet, uniform};
use sinter_ir::draw::{self, Draw, OCTAVES};

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

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// Octaves below the likeliest.
    octave: usize,
    /// Its weight within the octave.
    mass: u32,
    id: u32,
}

/// Chooses tokens; keeps the memory it needs from one choice to the next.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    /// The logits after the penalty and the ban.
    scores: Vec<f32>,
    kept: Vec<Candidate>,
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
        let likeliest = self.weigh(best);
        self.keep_top_k();
        self.keep_top_p();
        self.keep_min_p(likeliest);
        Ok(self.draw(context.position))
    }

    /// What a device needs in order to choose the token at a position; none if the choice depends on other tokens.
    pub fn on_device(&self, position: u64) -> Option<Draw> {
        let params = &self.params;
        let alone = params.repetition_penalty == 1.0
            && params.presence_penalty == 0.0
            && params.frequency_penalty == 0.0
            && params.logit_bias.is_empty();
        alone.then(|| Draw {
            scale: if params.temperature == 0.0 { 0.0 } else { self.scale() },
            uniform: uniform(params.seed, position),
            // More than a row has keeps all.
            top_k: u32::try_from(params.top_k).unwrap_or(0),
            top_p: params.top_p,
            min_p: params.min_p,
        })
    }

    fn scale(&self) -> f64 {
        std::f64::consts::LOG2_E / f64::from(self.params.temperature)
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

    /// The weights of all possible tokens; returns the mass of the likeliest.
    fn weigh(&mut self, best: u32) -> u32 {
        let scale = self.scale();
        let (top, likeliest) = draw::weight(self.scores[best as usize], scale);
        self.kept.clear();
        for (score, id) in self.scores.iter().zip(0..) {
            let (exponent, mass) = draw::weight(*score, scale);
            let below = top - exponent;
            if *score > f32::NEG_INFINITY && below < OCTAVES as f64 {
                self.kept.push(Candidate { octave: below as usize, mass, id });
            }
        }
        likeliest
    }

    fn keep_top_k(&mut self) {
        let k = self.params.top_k;
        if k == 0 || k >= self.kept.len() {
            return;
        }
        let scores = &self.scores;
        let score = |kept: &Candidate| scores[kept.id as usize];
        let (_, kth, _) = self.kept.select_nth_unstable_by(k - 1, |a, b| score(b).total_cmp(&score(a)));
        let least = score(kth);
        self.kept.retain(|kept| score(kept) >= least);
    }

    /// Sums of the masses of each octave.
    fn masses(&self) -> [u64; OCTAVES] {
        let mut masses = [0; OCTAVES];
        self.kept.iter().for_each(|kept| masses[kept.octave] += u64::from(kept.mass));
        masses
    }

    /// Keeps the shortest list of largest logits whose probability reaches top-p, at least one.
    fn keep_top_p(&mut self) {
        if self.params.top_p >= 1.0 {
            return;
        }
        let masses = self.masses();
        let (octave, need) = draw::reach(&masses, f64::from(self.params.top_p) * draw::total(&masses));
        self.kept.retain(|kept| kept.octave <= octave);
        let mut last: Vec<Candidate> =
            self.kept.iter().filter(|kept| kept.octave == octave).copied().collect();
        let score = |kept: &Candidate| self.scores[kept.id as usize] + 0.0;
        last.sort_unstable_by(|a, b| score(b).total_cmp(&score(a)).then(a.id.cmp(&b.id)));
        let mut sum = 0;
        let reached = last.iter().position(|kept| {
            sum += u64::from(kept.mass);
            sum >= need
        });
        last.truncate(reached.map_or(last.len(), |at| at + 1));
        self.kept.retain(|kept| kept.octave < octave);
        self.kept.extend(last);
    }

    fn keep_min_p(&mut self, likeliest: u32) {
        let least = f64::from(self.params.min_p) * f64::from(likeliest);
        if least > 0.0 {
            let weight = |kept: &Candidate| f64::from(kept.mass) * draw::power_of_two(-(kept.octave as i32));
            self.kept.retain(|kept| weight(kept) >= least);
        }
    }

    /// Inverts the cumulative distribution over the octaves and, in one octave, over the ids in order.
    fn draw(&mut self, position: u64) -> u32 {
        let masses = self.masses();
        let wanted = uniform(self.params.seed, position) * draw::total(&masses);
        let (octave, need) = draw::reach(&masses, wanted);
        self.kept.retain(|kept| kept.octave == octave);
        self.kept.sort_unstable_by_key(|kept| kept.id);
        let (mut sum, mut last) = (0, 0);
        for kept in &self.kept {
            last = kept.id;
            sum += u64::from(kept.mass);
            if sum >= need {
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
