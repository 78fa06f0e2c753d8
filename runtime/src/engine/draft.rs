//! Guesses by a small model: it reads what the large one reads, in a cache of its own, and says greedily what it would say.

use super::Turn;
use crate::{BatchBuilder, BlockPool, Chunk, DeviceModel, Rows, RuntimeError};
use std::collections::BTreeMap;

/// A small model with the same vocabulary as the large one.
///
/// It keeps a sequence for each that the large model runs. A sequence for which its cache has no room gets no guesses; a
/// step that fails costs its guesses and nothing else.
pub struct DraftModel {
    model: Box<dyn DeviceModel>,
    pool: BlockPool,
    sequences: BTreeMap<Turn, crate::Sequence>,
    /// Tokens that are guessed.
    drafts: usize,
}

/// A sequence that wants guesses: its name, and its tokens with the guesses so far.
type Wish = (Turn, Vec<u32>);

impl DraftModel {
    /// A draft model that guesses `drafts` tokens.
    ///
    /// # Errors
    /// It is an encoder.
    pub fn new(model: Box<dyn DeviceModel>, drafts: usize) -> Result<Self, RuntimeError> {
        let limits = model.limits();
        if limits.pages == 0 {
            return Err(RuntimeError::Parameter(
                "a draft model must be a decoder, this is an encoder".into(),
            ));
        }
        Ok(Self { pool: BlockPool::new(limits.pages), model, sequences: BTreeMap::new(), drafts })
    }

    /// The vocabulary.
    pub fn vocab(&self) -> usize {
        self.model.limits().vocab
    }

    /// Guesses for each of these sequences, in order. Sequences that are not named are forgotten.
    pub fn guess(&mut self, wishes: &[(Turn, &[u32])]) -> Result<Vec<Vec<u32>>, RuntimeError> {
        self.keep_only(wishes)?;
        let mut all: Vec<Wish> = wishes.iter().map(|(turn, tokens)| (*turn, tokens.to_vec())).collect();
        for _ in 0..self.drafts {
            self.read(&mut all)?;
        }
        let guesses = all.into_iter().zip(wishes);
        Ok(guesses.map(|((_, mut all), (_, tokens))| all.split_off(tokens.len())).collect())
    }

    /// Forgets what is not wanted any more, and of the rest what turned out differently.
    fn keep_only(&mut self, wishes: &[(Turn, &[u32])]) -> Result<(), RuntimeError> {
        let wanted: BTreeMap<Turn, &[u32]> = wishes.iter().copied().collect();
        for (turn, sequence) in &mut self.sequences {
            let tokens = wanted.get(turn).copied().unwrap_or_default();
            let known = sequence.tokens().iter().zip(tokens).take_while(|(a, b)| a == b).count();
            sequence.truncate(known.min(tokens.len().saturating_sub(1)), &mut self.pool)?;
        }
        self.sequences.retain(|turn, _| wanted.contains_key(turn));
        Ok(())
    }

    /// Reads what was not read yet and adds the likeliest next token of each sequence that was read to its end.
    fn read(&mut self, wishes: &mut [Wish]) -> Result<(), RuntimeError> {
        let limits = self.model.limits();
        let mut rest: Vec<&mut Wish> = wishes.iter_mut().collect();
        while !rest.is_empty() {
            let (mut builder, mut left, mut ends, mut fed) =
                (BatchBuilder::new(), limits.max_tokens, Vec::new(), Vec::new());
            let mut later = Vec::new();
            for wish in rest {
                let sequence = self.sequences.entry(wish.0).or_default();
                let start = sequence.len();
                let count = (wish.1.len() - start).min(left);
                if count == 0 || fed.len() == limits.max_sequences {
                    later.push(wish);
                    continue;
                }
                let tokens = &wish.1[start..start + count];
                let fits = start + count <= limits.max_positions;
                if !fits || sequence.extend(tokens, &mut self.pool).is_err() {
                    sequence.release(&mut self.pool)?;
                    continue;
                }
                left -= count;
                let last = start + count == wish.1.len();
                let rows = if last { Rows::Last } else { Rows::None };
                builder.push(Chunk { tokens, start, pages: sequence.pages(), rows });
                fed.push((wish.0, start));
                if last { ends.push(wish) } else { later.push(wish) }
            }
            if fed.is_empty() {
                return Ok(());
            }
            let width = self.model.width();
            match self.model.step(&builder.finish()) {
                Ok(logits) => {
                    let rows = logits.chunks_exact(width);
                    ends.into_iter().zip(rows).for_each(|(wish, row)| wish.1.push(likeliest(row)));
                }
                Err(error) => {
                    for (turn, start) in fed {
                        let sequence = self.sequences.entry(turn).or_default();
                        sequence.truncate(start, &mut self.pool)?;
                    }
                    return Err(error);
                }
            }
            rest = later;
        }
        Ok(())
    }
}

/// The largest logit, the first of those that are equal.
fn likeliest(row: &[f32]) -> u32 {
    let best = (0..row.len() as u32).max_by(|a, b| {
        let (a_logit, b_logit) = (row[*a as usize], row[*b as usize]);
        a_logit.total_cmp(&b_logit).then(b.cmp(a))
    });
    best.unwrap_or(0)
}
