//! Groups of asynchronous operations: `cp.async`, `cp.async.bulk` and `wgmma` each have their own.
//!
//! A thread (for wgmma a warp) collects operations, closes them into a group with `commit_group`, and `wait_group N`
//! waits until all but the newest N groups are done (PTX ISA, "cp.async.wait_group"). Groups are done in order.

use std::collections::VecDeque;

/// Operations under way, by group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Groups<T> {
    open: Vec<T>,
    committed: VecDeque<Vec<T>>,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Groups { open: Vec::new(), committed: VecDeque::new() }
    }
}

impl<T> Groups<T> {
    /// An operation begins; it belongs to the next group that is committed.
    pub fn begin(&mut self, operation: T) {
        self.open.push(operation);
    }
    /// `commit_group`. A group may be empty.
    pub fn commit(&mut self) {
        self.committed.push_back(std::mem::take(&mut self.open));
    }
    /// `wait_group newest`: the operations that are known to be done from now on, oldest first.
    pub fn wait(&mut self, newest: usize) -> Vec<T> {
        let done = self.committed.len().saturating_sub(newest);
        self.committed.drain(..done).flatten().collect()
    }
    /// `cp.async.wait_all`: as a commit and a wait for everything.
    pub fn wait_all(&mut self) -> Vec<T> {
        self.commit();
        self.wait(0)
    }
    /// Groups that are committed and not known to be done.
    pub fn pending(&self) -> usize {
        self.committed.len()
    }
    /// The operations that are under way: committed ones first, oldest first, then those of no group yet.
    pub fn under_way(&self) -> impl Iterator<Item = &T> {
        self.committed.iter().flatten().chain(&self.open)
    }
    /// Operations that no `commit_group` has closed.
    pub fn uncommitted(&self) -> &[T] {
        &self.open
    }
}
