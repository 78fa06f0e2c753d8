//! A set of token ids, one bit each: what a grammar allows next.

/// A set of ids below a fixed vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    /// Bit `id % 32` of word `id / 32`.
    words: Vec<u32>,
    vocab: usize,
}

impl TokenSet {
    /// No id of a vocabulary.
    pub fn none(vocab: usize) -> Self {
        Self { words: vec![0; vocab.div_ceil(32)], vocab }
    }
    /// These ids of a vocabulary; ids outside of it are left out.
    pub fn of(vocab: usize, ids: impl IntoIterator<Item = u32>) -> Self {
        let mut set = Self::none(vocab);
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
    /// The ids of a vocabulary whose bits are set in `words`: bit `id % 32` of word `id / 32`.
    pub fn from_words(vocab: usize, words: &[u32]) -> Self {
        let mut set = Self::none(vocab);
        for (own, given) in set.words.iter_mut().zip(words) {
            *own = *given;
        }
        if let Some(last) = set.words.last_mut()
            && !vocab.is_multiple_of(32)
        {
            *last &= (1 << (vocab % 32)) - 1;
        }
        set
    }
    /// Adds an id, if it is in the vocabulary.
    pub fn insert(&mut self, id: u32) {
        if (id as usize) < self.vocab {
            self.words[id as usize / 32] |= 1 << (id % 32);
        }
    }
    /// Whether an id is in the set.
    pub fn contains(&self, id: u32) -> bool {
        (id as usize) < self.vocab && self.words[id as usize / 32] >> (id % 32) & 1 == 1
    }
    /// Whether no id is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
    /// Makes every score whose id is not in the set impossible.
    pub fn mask(&self, scores: &mut [f32]) {
        for (id, score) in scores.iter_mut().enumerate() {
            if !self.contains(id as u32) {
                *score = f32::NEG_INFINITY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside_of_the_vocabulary_are_in_no_set() {
        let mut set = TokenSet::of(33, [0, 32, 33, 64]);
        assert!(set.contains(0) && set.contains(32) && !set.contains(33) && !set.contains(1));
        set.insert(1);
        let mut scores = [1.0; 3];
        set.mask(&mut scores);
        assert_eq!(scores, [1.0, 1.0, f32::NEG_INFINITY]);
        let given = TokenSet::from_words(33, &[3, u32::MAX, 7]);
        assert!(given.contains(1) && given.contains(32) && !given.contains(33) && !given.contains(64));
    }
}
