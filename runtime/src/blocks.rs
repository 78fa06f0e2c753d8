//! The pages of the KV cache: who uses them, which are free, and which are unused but worth keeping.

use crate::RuntimeError;

/// Hands out pages. Pages are numbered from 0; the lowest free page is not promised, only that none is given twice.
///
/// A page is free, used by one or more, or idle: nobody uses it, but what lies in it was marked to be kept. An idle page
/// becomes used when it is shared, and free when it is forgotten.
#[derive(Debug, Clone)]
pub struct BlockPool {
    /// The free pages; the last is given next.
    free: Vec<u32>,
    /// The users of each page.
    users: Vec<u32>,
    /// Whether what lies in a page is kept after its last user.
    kept: Vec<bool>,
    /// How many pages are idle.
    idle: usize,
}

impl BlockPool {
    /// A pool of `pages` free pages.
    pub fn new(pages: usize) -> Self {
        Self {
            free: (0..pages as u32).rev().collect(),
            users: vec![0; pages],
            kept: vec![false; pages],
            idle: 0,
        }
    }
    /// Pages in all.
    pub fn total(&self) -> usize {
        self.users.len()
    }
    /// Pages that can be taken.
    pub fn free(&self) -> usize {
        self.free.len()
    }
    /// Pages that nobody uses but that are kept.
    pub fn idle(&self) -> usize {
        self.idle
    }
    /// The number of users of a page.
    pub fn users(&self, page: u32) -> u32 {
        self.users.get(page as usize).copied().unwrap_or(0)
    }
    /// Takes `count` free pages, or none if there are fewer.
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
    /// Adds a user to a page that is used or idle.
    pub fn share(&mut self, page: u32) -> Result<(), RuntimeError> {
        let at = page as usize;
        match self.users.get(at) {
            Some(0) if self.kept[at] => self.idle -= 1,
            Some(users) if *users > 0 => {}
            _ => return Err(misuse(page, "shared")),
        }
        self.users[at] += 1;
        Ok(())
    }
    /// Takes a user from a page. After the last it is free, or idle if it is kept; returns whether it is idle now.
    pub fn release(&mut self, page: u32) -> Result<bool, RuntimeError> {
        let at = page as usize;
        if self.users(page) == 0 {
            return Err(misuse(page, "released"));
        }
        self.users[at] -= 1;
        let (last, kept) = (self.users[at] == 0, self.kept[at]);
        match (last, kept) {
            (true, true) => self.idle += 1,
            (true, false) => self.free.push(page),
            (false, _) => {}
        }
        Ok(last && kept)
    }
    /// Marks a used page to be kept after its last user.
    pub fn keep(&mut self, page: u32) -> Result<(), RuntimeError> {
        if self.users(page) == 0 {
            return Err(misuse(page, "kept"));
        }
        self.kept[page as usize] = true;
        Ok(())
    }
    /// Frees an idle page.
    pub fn forget(&mut self, page: u32) -> Result<(), RuntimeError> {
        let at = page as usize;
        if self.users.get(at) != Some(&0) || !self.kept[at] {
            return Err(misuse(page, "forgotten"));
        }
        self.kept[at] = false;
        self.idle -= 1;
        self.free.push(page);
        Ok(())
    }
}

fn misuse(page: u32, verb: &str) -> RuntimeError {
    RuntimeError::Parameter(format!("page {page} is in no state in which it can be {verb}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uniform;

    #[test]
    fn a_page_is_never_given_twice_and_none_is_lost() {
        let mut pool = BlockPool::new(13);
        let (mut held, mut kept): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for step in 0..6000 {
            let dice = uniform(7, step);
            let pick = |list: &[u32]| list[step as usize % list.len()];
            if dice < 0.4 {
                match pool.take((dice * 10.0) as usize) {
                    Ok(pages) => held.extend(pages),
                    Err(error) => assert!(matches!(error, RuntimeError::CacheFull { total: 13, .. })),
                }
            } else if dice < 0.5 && !held.is_empty() {
                let page = pick(&held);
                pool.share(page).unwrap();
                held.push(page);
            } else if dice < 0.55 && !held.is_empty() {
                pool.keep(pick(&held)).unwrap();
                kept.push(pick(&held));
            } else if dice < 0.6 && !kept.is_empty() {
                let page = pick(&kept);
                match pool.forget(page) {
                    Ok(()) => kept.retain(|other| *other != page),
                    Err(_) => assert!(held.contains(&page)),
                }
            } else if !held.is_empty() {
                let page = held.swap_remove(step as usize % held.len());
                let idle = pool.release(page).unwrap();
                assert_eq!(idle, kept.contains(&page) && !held.contains(&page));
            }
            for page in 0..13 {
                assert_eq!(pool.users(page) as usize, held.iter().filter(|held| **held == page).count());
            }
            let used = (0..13).filter(|page| held.contains(page)).count();
            let idle = (0..13).filter(|page| kept.contains(page) && !held.contains(page)).count();
            assert_eq!((pool.free() + used + idle, pool.idle()), (pool.total(), idle));
        }
    }

    #[test]
    fn misuse_is_refused() {
        let mut pool = BlockPool::new(2);
        assert!(pool.release(0).is_err() && pool.share(0).is_err() && pool.keep(0).is_err());
        assert!(pool.share(5).is_err() && pool.forget(5).is_err() && pool.forget(0).is_err());
        let pages = pool.take(2).unwrap();
        assert_eq!(pages, [0, 1]);
        let error = pool.take(1).unwrap_err();
        assert_eq!(error, RuntimeError::CacheFull { wanted: 1, free: 0, total: 2 });
        assert!(pool.forget(1).is_err());
        assert!(!pool.release(1).unwrap());
        assert!(pool.release(1).is_err());
    }
}
