//! The KV cache as sequences see it: pages, some of which several sequences use, and some that are kept for later.

use super::prefix::{Edge, Parent, PrefixTree, block_at};
use crate::{BlockPool, RuntimeError};
use sinter_ir::PAGE;
use std::ops::Range;

/// The pages of the KV cache and the tree of what is in them.
///
/// A page comes into the tree after the step that filled it, never before. Whoever uses a page uses all pages on the way
/// to it, so a page without users has no page with users below it, and all idle pages can be had again.
#[derive(Debug)]
pub struct KvCache {
    pool: BlockPool,
    tree: PrefixTree,
    /// Whether full pages are kept for later sequences.
    keeps: bool,
}

impl KvCache {
    /// A cache of `pages` pages, which keeps full pages for later sequences if `keeps`.
    pub fn new(pages: usize, keeps: bool) -> Self {
        Self { pool: BlockPool::new(pages), tree: PrefixTree::default(), keeps }
    }
    /// Pages in all.
    pub fn total(&self) -> usize {
        self.pool.total()
    }
    /// Pages that can be had: free ones, and kept ones that nobody uses.
    pub fn available(&self) -> usize {
        self.pool.free() + self.pool.idle()
    }
    /// Pages that sequences hold.
    pub fn used(&self) -> usize {
        self.total() - self.available()
    }
    /// The pages' users.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }
    /// What is in them.
    pub fn tree(&self) -> &PrefixTree {
        &self.tree
    }

    /// Takes `count` pages, or none if there are fewer. What was left longest ago is forgotten for them.
    pub fn take(&mut self, count: usize) -> Result<Vec<u32>, RuntimeError> {
        if count <= self.available() {
            while self.pool.free() < count {
                let Some(page) = self.tree.evict() else { break };
                self.pool.forget(page)?;
            }
        }
        self.pool.take(count)
    }

    /// Gives pages back, the last first, so that the ends of texts are forgotten before their beginnings.
    pub fn release(&mut self, pages: Vec<u32>) {
        for page in pages.into_iter().rev() {
            match self.pool.release(page) {
                Ok(true) => self.tree.left(page),
                Ok(false) => {}
                // Sequences own their lists of pages, so none is given back twice.
                Err(error) => debug_assert!(false, "{error}"),
            }
        }
    }

    /// The pages that hold the full blocks at the begin of `tokens`, as far as they are known; the caller uses them from
    /// now on. The last token is left out, so that there is something to compute.
    pub fn find(&mut self, salt: &[u8], tokens: &[u32]) -> Vec<u32> {
        let mut pages: Vec<u32> = Vec::new();
        let most = tokens.len().saturating_sub(1) / PAGE as usize;
        while pages.len() < most {
            let page = edge(salt, tokens, &pages, pages.len()).and_then(|edge| self.tree.get(&edge));
            let Some(page) = page.filter(|page| self.pool.share(*page).is_ok()) else { break };
            self.tree.used(page);
            pages.push(page);
        }
        pages
    }

    /// Takes blocks that were computed into the tree. Where the same block is there already, the sequence uses that page
    /// from now on and gives its own back: the same tokens give the same bits.
    pub fn keep(
        &mut self,
        salt: &[u8],
        tokens: &[u32],
        pages: &mut [u32],
        blocks: Range<usize>,
    ) -> Result<(), RuntimeError> {
        if !self.keeps {
            return Ok(());
        }
        for block in blocks {
            let Some(edge) = edge(salt, tokens, pages, block) else { break };
            let own = pages[block];
            match self.tree.get(&edge) {
                Some(page) if page == own => {}
                Some(page) => {
                    self.pool.share(page)?;
                    self.tree.used(page);
                    self.release(vec![own]);
                    pages[block] = page;
                }
                None => {
                    self.pool.keep(own)?;
                    self.tree.insert(edge, own);
                }
            }
        }
        Ok(())
    }
}

/// The edge of a full block after the pages before it.
pub fn edge(salt: &[u8], tokens: &[u32], pages: &[u32], block: usize) -> Option<Edge> {
    let parent = match block.checked_sub(1) {
        None => Parent::Root(salt.to_vec()),
        Some(before) => Parent::Page(*pages.get(before)?),
    };
    Some((parent, block_at(tokens, block)?))
}
