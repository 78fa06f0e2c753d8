//! A sequence: its tokens, and the pages that hold their keys and values.

use crate::{BlockPool, RuntimeError};
use sinter_ir::PAGE;

/// Tokens of one request whose keys and values are in the cache.
///
/// The pages belong to the pool; [`Sequence::release`] gives them back.
#[derive(Debug, Default)]
pub struct Sequence {
    tokens: Vec<u32>,
    pages: Vec<u32>,
}

impl Sequence {
    /// An empty sequence.
    pub fn new() -> Self {
        Self::default()
    }
    /// The tokens that were fed, in order.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
    /// The block table: position `c` lies in page `pages()[c / 16]`.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }
    /// Appends tokens and takes the pages that they need; nothing changes on an error.
    pub fn extend(&mut self, tokens: &[u32], pool: &mut BlockPool) -> Result<(), RuntimeError> {
        let wanted = (self.tokens.len() + tokens.len()).div_ceil(PAGE as usize);
        self.pages.extend(pool.take(wanted.saturating_sub(self.pages.len()))?);
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }
    /// Forgets all but the first `len` tokens and gives back the pages that are no longer needed.
    pub fn truncate(&mut self, len: usize, pool: &mut BlockPool) -> Result<(), RuntimeError> {
        self.tokens.truncate(len);
        let kept = self.tokens.len().div_ceil(PAGE as usize);
        self.pages.drain(kept..).try_for_each(|page| pool.release(page).map(drop))
    }
    /// Forgets everything and gives all pages back.
    pub fn release(&mut self, pool: &mut BlockPool) -> Result<(), RuntimeError> {
        self.truncate(0, pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_length() {
        let mut pool = BlockPool::new(3);
        let mut sequence = Sequence::new();
        sequence.extend(&[1; 16], &mut pool).unwrap();
        assert_eq!(sequence.pages().len(), 1);
        sequence.extend(&[2], &mut pool).unwrap();
        assert_eq!(sequence.pages().len(), 2);
        assert!(sequence.extend(&[3; 32], &mut pool).is_err());
        assert_eq!((sequence.len(), pool.free()), (17, 1));
        sequence.truncate(16, &mut pool).unwrap();
        assert_eq!((sequence.len(), sequence.pages().len(), pool.free()), (16, 1, 2));
        sequence.truncate(99, &mut pool).unwrap();
        assert_eq!(sequence.len(), 16);
        sequence.release(&mut pool).unwrap();
        assert_eq!((sequence.len(), pool.free()), (0, 3));
    }
}
