//! Which pages hold which beginnings of texts: a radix tree whose edges are blocks of tokens.
//!
//! Each node is a page, named by its number: the page that holds the keys and values of one block of tokens after the
//! blocks on the way from the root. An edge is found by comparing its tokens, so two texts never share a page by accident.
//! Each salt has a root of its own.

use sinter_ir::PAGE;
use std::collections::{BTreeMap, BTreeSet};

/// The tokens of a full page.
pub type Block = [u32; PAGE as usize];

/// Where an edge begins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parent {
    /// At the root of a salt.
    Root(Vec<u8>),
    /// At a page.
    Page(u32),
}

/// One step on the way from a root: where it begins and the tokens it stands for.
pub type Edge = (Parent, Block);

/// The tree, and which of its pages may be forgotten in which order.
///
/// Whoever uses a page uses all pages on the way to it, and leaves the end of the way first. So of the pages that nobody
/// uses, the one that was left longest ago is a leaf.
#[derive(Debug, Default)]
pub struct PrefixTree {
    pages: BTreeMap<Edge, u32>,
    nodes: BTreeMap<u32, Node>,
    /// The pages that nobody uses, by the time of their last use.
    idle: BTreeSet<(u64, u32)>,
    /// The number of the next use.
    now: u64,
}

#[derive(Debug)]
struct Node {
    edge: Edge,
    /// When its last user left; none while it is used.
    left: Option<u64>,
}

impl PrefixTree {
    /// The page at the end of an edge.
    pub fn get(&self, edge: &Edge) -> Option<u32> {
        self.pages.get(edge).copied()
    }
    /// The number of pages in the tree.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
    /// The pages in the tree, in order.
    pub fn pages(&self) -> impl Iterator<Item = u32> {
        self.nodes.keys().copied()
    }
    /// The edge that ends in a page.
    pub fn edge(&self, page: u32) -> Option<&Edge> {
        self.nodes.get(&page).map(|node| &node.edge)
    }
    /// Hangs a used page into the tree. The edge is new, and its parent is in the tree.
    pub fn insert(&mut self, edge: Edge, page: u32) {
        self.pages.insert(edge.clone(), page);
        self.nodes.insert(page, Node { edge, left: None });
    }
    /// Says that a page has users again.
    pub fn used(&mut self, page: u32) {
        let Some(node) = self.nodes.get_mut(&page) else { return };
        if let Some(left) = node.left.take() {
            self.idle.remove(&(left, page));
        }
    }
    /// Says that the last user of a page has left.
    pub fn left(&mut self, page: u32) {
        let Some(node) = self.nodes.get_mut(&page) else { return };
        node.left = Some(self.now);
        self.idle.insert((self.now, page));
        self.now += 1;
    }
    /// Takes the leaf out of the tree that was left longest ago.
    pub fn evict(&mut self) -> Option<u32> {
        let (_, page) = self.idle.pop_first()?;
        let node = self.nodes.remove(&page)?;
        self.pages.remove(&node.edge);
        Some(page)
    }
}

/// Full block number `block` of a row of tokens.
pub fn block_at(tokens: &[u32], block: usize) -> Option<Block> {
    let page = PAGE as usize;
    tokens.get(block * page..(block + 1) * page)?.try_into().ok()
}
