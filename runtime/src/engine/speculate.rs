//! Guesses of what comes next. A guess costs little and changes nothing: it only lets the model look at several tokens in
//! one step, and those that are not what it would have said are thrown away.

use super::draft::DraftModel;
use super::{Scheduler, Turn};

/// Who guesses.
pub enum Speculation {
    /// Nobody.
    None,
    /// The text itself.
    NGram(NGram),
    /// A small model.
    Draft(DraftModel),
}

impl Speculation {
    /// Tells the scheduler the guesses for the sequences that decode. A draft model that fails guesses nothing.
    pub(super) fn propose(&mut self, scheduler: &mut Scheduler) {
        let decodes = scheduler.running().iter().filter(|(_, sequence)| sequence.decodes());
        let wishes: Vec<(Turn, &[u32])> =
            decodes.map(|(turn, sequence)| (*turn, sequence.tokens())).collect();
        let guesses = match self {
            Speculation::None => return,
            Speculation::NGram(ngram) => wishes.iter().map(|(_, tokens)| ngram.guess(tokens)).collect(),
            Speculation::Draft(draft) => draft.guess(&wishes).unwrap_or_default(),
        };
        let turns: Vec<Turn> = wishes.iter().map(|(turn, _)| *turn).collect();
        for (turn, drafts) in turns.into_iter().zip(guesses) {
            scheduler.propose(turn, drafts);
        }
    }
}

/// Looks the newest tokens up in what was said before, and guesses that it goes on as it did then.
///
/// Saxena: Prompt lookup decoding, 2023.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NGram {
    /// The most newest tokens that are looked up; tried first.
    pub longest: usize,
    /// The fewest.
    pub shortest: usize,
    /// Tokens that are guessed.
    pub drafts: usize,
}

impl Default for NGram {
    fn default() -> Self {
        Self { longest: 4, shortest: 2, drafts: 5 }
    }
}

impl NGram {
    /// What followed the last place where the newest tokens stood before; empty if there is none.
    pub fn guess(&self, tokens: &[u32]) -> Vec<u32> {
        for size in (self.shortest.max(1)..=self.longest).rev() {
            let Some(begin) = tokens.len().checked_sub(size) else { continue };
            let newest = &tokens[begin..];
            let place = (0..begin).rev().find(|at| tokens[*at..].starts_with(newest));
            if let Some(place) = place {
                let next = place + size;
                return tokens[next..tokens.len().min(next + self.drafts)].to_vec();
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::NGram;

    #[test]
    fn the_longest_and_latest_place_wins() {
        let guess = |tokens: &[u32]| NGram { longest: 3, shortest: 2, drafts: 2 }.guess(tokens);
        assert_eq!(guess(&[1, 2, 3, 9, 1, 2, 3]), [9, 1]);
        assert_eq!(guess(&[7, 2, 3, 8, 1, 2, 3, 9, 5, 2, 3]), [9, 5]);
        assert_eq!(guess(&[4, 4, 4, 4]), [4]);
        assert_eq!(guess(&[1, 2, 3]), []);
        assert_eq!(guess(&[]), []);
    }
}
