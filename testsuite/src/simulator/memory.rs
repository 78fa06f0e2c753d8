//! The model's memory: in each slot the fingerprint of all tokens up to its position. A page that is read before it was
//! written, or after it was given to another, does not hold the fingerprints that its reader expects.

use crate::machine::{Scheduler, StepPlan};

const PAGE: usize = sinter_ir::PAGE as usize;

/// The fingerprint of a row of tokens, if `before` is that of all but the last.
pub fn fingerprint(before: u64, token: u32) -> u64 {
    let mixed = (before ^ u64::from(token).wrapping_add(0x9e37_79b9)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed ^ (mixed >> 29)) | 1
}

/// What the model says after some tokens.
pub fn next_token(tokens: &[u32], vocab: u32) -> u32 {
    let print = tokens.iter().fold(1, |print, token| fingerprint(print, *token));
    ((print >> 33) % u64::from(vocab)) as u32
}

/// What a step writes: slots and their new contents.
pub type Writes = Vec<(usize, u64)>;

/// The slots of the KV cache.
#[derive(Debug)]
pub struct Memory {
    slots: Vec<u64>,
}

impl Memory {
    /// A cache of `pages` pages in which nothing was written.
    pub fn new(pages: usize) -> Self {
        Self { slots: vec![0; pages * PAGE] }
    }

    /// What lies at an offset of a page; 0 if nothing.
    pub fn at(&self, page: u32, offset: usize) -> u64 {
        self.slots[page as usize * PAGE + offset]
    }

    /// Computes a step: checks all that it reads, and gives what it writes.
    pub fn compute(&self, plan: &StepPlan, scheduler: &Scheduler) -> Result<Writes, String> {
        let mut writes: Writes = Vec::new();
        for chunk in &plan.chunks {
            let turn = chunk.turn;
            let sequence =
                scheduler.running().get(&turn).ok_or(format!("{turn} is planned, but does not run"))?;
            let (tokens, pages) = (sequence.tokens(), sequence.pages());
            let all = tokens[..chunk.start + chunk.len].iter().chain(&sequence.drafts()[..chunk.drafts]);
            let mut print = 1;
            for (position, token) in all.enumerate() {
                print = fingerprint(print, *token);
                let page =
                    *pages.get(position / PAGE).ok_or(format!("{turn} lacks a page for {position}"))?;
                if position < chunk.start {
                    if self.at(page, position % PAGE) != print {
                        return Err(format!("{turn} reads what it did not write at position {position}"));
                    }
                    continue;
                }
                let cache = scheduler.cache();
                if cache.pool().users(page) != 1 || cache.tree().edge(page).is_some() {
                    return Err(format!("{turn} writes to page {page}, which others may use"));
                }
                writes.push((page as usize * PAGE + position % PAGE, print));
            }
        }
        let mut slots: Vec<usize> = writes.iter().map(|(slot, _)| *slot).collect();
        slots.sort_unstable();
        match slots.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("slot {} is written twice", pair[0])),
            None => Ok(writes),
        }
    }

    /// Writes what a step computed.
    pub fn write(&mut self, writes: Writes) {
        for (slot, print) in writes {
            self.slots[slot] = print;
        }
    }
}
