//! The pages of the KV cache: a free list and a count of users for each page.

use crate::RuntimeError;

/// Hands out pages. Pages are numbered from 0; the lowest free page is not promised, only that none is given twice.
#[derive(Debug, Clone)]
pub struct BlockPool {
    /// The pages nobody uses; the last is given next.
    free: Vec<u32>,
    /// The users of each page.
    users: Vec<u32>,
}

impl BlockPool {
    /// A pool of `pages` free pages.
    pub fn new(pages: usize) -> Self {
        Self { free: (0..pages as u32).rev().collect(), users: vec![0; pages] }
    }
    /// Pages in all.
    pub fn total(&self) -> usize {
        self.users.len()
    }
    /// Pages nobody uses.
    pub fn free(&self) -> usize {
        self.free.len()
    }
    /// The number of users of a page.
    pub fn users(&self, page: u32) -> u32 {
        self.users.get(page as usize).copied().unwrap_or(0)
    }
    /// Takes `count` pages, or none if there are fewer.
    pub fn take(&mut self, count: usize) -> Result<Vec<u32>, RuntimeError> {
        let Some(rest) = self.free.len().checked_sub(count) else {
            let (free, total) = (self.free(), self.total());
            return Err(RuntimeError::CacheFull { wanted: count, free, total });
        };
        let mut taken = self.free.split_off(rest);
        taken.reverse();
        for page in &taken {
            self.users[*page as usize] = 1;
        }
        Ok(taken)
    }
    /// Adds a user to a page that is in use.
    pub fn share(&mut self, page: u32) -> Result<(), RuntimeError> {
        match self.users.get_mut(page as usize) {
            Some(users) if *users > 0 => {
                *users += 1;
                Ok(())
            }
            _ => Err(RuntimeError::Parameter(format!("page {page} is not in use, so it cannot be shared"))),
        }
    }
    /// Takes a user from a page; the page is free when it was the last.
    pub fn release(&mut self, page: u32) -> Result<(), RuntimeError> {
        match self.users.get_mut(page as usize) {
            Some(users) if *users > 0 => {
                *users -= 1;
                if *users == 0 {
                    self.free.push(page);
                }
                Ok(())
            }
            _ => Err(RuntimeError::Parameter(format!("page {page} is not in use, so it cannot be released"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uniform;

    #[test]
    fn a_page_is_never_given_twice_and_none_is_lost() {
        let mut pool = BlockPool::new(13);
        let mut held: Vec<u32> = Vec::new();
        for step in 0..4000 {
            let dice = uniform(7, step);
            if dice < 0.4 {
                match pool.take((dice * 10.0) as usize) {
                    Ok(pages) => held.extend(pages),
                    Err(error) => assert!(matches!(error, RuntimeError::CacheFull { total: 13, .. })),
                }
            } else if dice < 0.5 && !held.is_empty() {
                let page = held[step as usize % held.len()];
                pool.share(page).unwrap();
                held.push(page);
            } else if !held.is_empty() {
                let at = step as usize % held.len();
                pool.release(held.swap_remove(at)).unwrap();
            }
            for page in 0..13 {
                let users = held.iter().filter(|held| **held == page).count();
                assert_eq!(pool.users(page) as usize, users);
            }
            let mut distinct = held.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(pool.free() + distinct.len(), pool.total());
        }
    }

    #[test]
    fn misuse_is_refused() {
        let mut pool = BlockPool::new(2);
        assert!(pool.release(0).is_err());
        assert!(pool.share(5).is_err());
        let pages = pool.take(2).unwrap();
        assert_eq!(pages, [0, 1]);
        let error = pool.take(1).unwrap_err();
        assert_eq!(error, RuntimeError::CacheFull { wanted: 1, free: 0, total: 2 });
        pool.release(1).unwrap();
        assert!(pool.release(1).is_err());
    }
}
