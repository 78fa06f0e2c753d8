//! The KV cache as sequences see it: pages that are theirs alone, and pages whose content others may use too.

use crate::{BlockPool, RuntimeError};

/// The pages of the KV cache.
#[derive(Debug)]
pub struct KvCache {
    pool: BlockPool,
}

impl KvCache {
    /// A cache of `pages` pages.
    pub fn new(pages: usize) -> Self {
        Self { pool: BlockPool::new(pages) }
    }
    /// Pages in all.
    pub fn total(&self) -> usize {
        self.pool.total()
    }
    /// Pages that can be had.
    pub fn available(&self) -> usize {
        self.pool.free()
    }
    /// Pages that sequences hold.
    pub fn used(&self) -> usize {
        self.total() - self.available()
    }
    /// Takes `count` pages, or none if there are fewer.
    pub fn take(&mut self, count: usize) -> Result<Vec<u32>, RuntimeError> {
        self.pool.take(count)
    }
    /// Gives pages back.
    pub fn release(&mut self, pages: Vec<u32>) {
        for page in pages {
            // A page that nobody holds cannot be given back: sequences own their lists.
            let released = self.pool.release(page);
            debug_assert!(released.is_ok(), "{released:?}");
        }
    }
}
