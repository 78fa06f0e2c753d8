//! What must hold after every decision and every step.

use super::Simulation;
use super::memory::{fingerprint, next_token};
use crate::machine::{Parent, PlannedChunk, Sequence, StepPlan, Turn};
use sinter_runtime::Rows;
use std::collections::BTreeMap;

const PAGE: usize = sinter_ir::PAGE as usize;

/// An error if something that must hold does not.
fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl Simulation {
    /// The budget is kept, everyone who can be computed is, and nobody is overtaken.
    pub(super) fn check_plan(&self, plan: &StepPlan, waiting_before: &[Turn]) -> Result<(), String> {
        let (config, running) = (&self.world.config, self.scheduler.running());
        must(plan.tokens() <= config.max_tokens, || format!("{} tokens in the step", plan.tokens()))?;
        must(plan.rows() <= config.max_rows, || format!("{} rows in the step", plan.rows()))?;
        must(running.len() <= config.max_sequences, || format!("{} sequences run", running.len()))?;
        let mut planned: BTreeMap<Turn, &PlannedChunk> = BTreeMap::new();
        for chunk in &plan.chunks {
            let turn = chunk.turn;
            must(planned.insert(turn, chunk).is_none(), || format!("{turn} is planned twice"))?;
            let sequence =
                running.get(&turn).ok_or_else(|| format!("{turn} is planned, but does not run"))?;
            self.check_chunk(chunk, sequence)?;
        }
        for (turn, sequence) in running {
            let decodes = sequence.tokens().len() - sequence.computed() == 1;
            must(!decodes || planned.contains_key(turn), || format!("{turn} decodes, but is left out"))?;
        }
        if let Some((first, _)) = running.first_key_value() {
            must(planned.contains_key(first), || format!("{first} is first in line, but is left out"))?;
        }
        let idle = self.clients.keys().all(|turn| self.scheduler.sequence(*turn).is_none());
        must(idle || !plan.chunks.is_empty(), || "nothing is computed, but someone waits".into())?;
        for turn in &plan.preempted {
            let last = running.keys().all(|other| other < turn);
            must(last, || format!("{turn} was put back, but was not last in line"))?;
            must(self.scheduler.waiting().contains_key(turn), || format!("{turn} was put back and is gone"))?;
        }
        self.check_overtaking(plan, waiting_before)
    }

    fn check_chunk(&self, chunk: &PlannedChunk, sequence: &Sequence) -> Result<(), String> {
        let (turn, end) = (chunk.turn, chunk.start + chunk.count());
        must(chunk.len > 0, || format!("{turn} has an empty chunk"))?;
        must(chunk.start == sequence.computed(), || format!("{turn} goes on at {}", chunk.start))?;
        must(end <= self.world.config.capacity(), || format!("{turn} is computed to {end}"))?;
        must(end <= sequence.pages().len() * PAGE, || format!("{turn} lacks pages for {end} tokens"))?;
        let samples = chunk.samples(sequence);
        must(chunk.drafts == 0 || samples, || format!("{turn} has drafts in the middle"))?;
        let prompt = sequence.computed() < sequence.prompt();
        let all = (self.world.clients[self.clients[&turn]].all_rows && prompt) || chunk.drafts > 0;
        let wanted = match (all, samples) {
            (true, _) => Rows::All,
            (false, true) => Rows::Last,
            (false, false) => Rows::None,
        };
        must(chunk.rows == wanted, || format!("{turn} wants {:?}, gets {:?}", wanted, chunk.rows))
    }

    /// Whoever starts was before all that still wait, except those that wait for a page that is filled in this step.
    fn check_overtaking(&self, plan: &StepPlan, waiting_before: &[Turn]) -> Result<(), String> {
        let started = waiting_before.iter().filter(|turn| self.scheduler.running().contains_key(turn)).max();
        let Some(last) = started else { return Ok(()) };
        for (turn, sequence) in self.scheduler.waiting().range(..last) {
            let comes = plan.chunks.iter().any(|chunk| {
                let Some(other) = self.scheduler.sequence(chunk.turn) else { return false };
                let end = (chunk.start / PAGE + 1) * PAGE;
                let same = |tokens: &[u32]| tokens.get(..end) == other.tokens().get(..end);
                other.tokens().len() >= end && same(sequence.tokens()) && other.salt() == sequence.salt()
            });
            must(comes, || format!("{turn} is overtaken by {last}"))?;
        }
        Ok(())
    }

    /// The pages and the tree are as sequences and memory say, and the line is in order.
    pub(super) fn check_state(&self) -> Result<(), String> {
        self.check_pages()?;
        self.check_tree()?;
        for (turn, sequence) in self.scheduler.waiting() {
            let clean = sequence.pages().is_empty() && sequence.computed() == 0;
            must(clean, || format!("{turn} waits, but holds pages"))?;
            must(!self.scheduler.running().contains_key(turn), || format!("{turn} stands in both lines"))?;
        }
        for (turn, sequence) in self.scheduler.running() {
            let pages = sequence.pages().len();
            let most = (sequence.tokens().len() + 8).div_ceil(PAGE);
            must(pages <= most, || format!("{turn} holds {pages} pages, wanted at most {most}"))?;
            must(sequence.computed() < sequence.tokens().len(), || format!("{turn} has nothing to compute"))?;
        }
        self.check_line()
    }

    /// Every page has as many users as sequences name it, and none is lost.
    pub(super) fn check_pages(&self) -> Result<(), String> {
        let (cache, total) = (self.scheduler.cache(), self.world.config.pages);
        let mut users = vec![0u32; total];
        let sequences = self.scheduler.running().values().chain(self.scheduler.waiting().values());
        for page in sequences.flat_map(|sequence| sequence.pages()) {
            users[*page as usize] += 1;
        }
        for (page, wanted) in (0..).zip(&users) {
            let found = cache.pool().users(page);
            must(found == *wanted, || format!("page {page} has {found} users, wanted {wanted}"))?;
        }
        let used = users.iter().filter(|users| **users > 0).count();
        let (free, idle) = (cache.pool().free(), cache.pool().idle());
        must(free + idle + used == total, || format!("{free} free, {idle} idle and {used} used of {total}"))
    }

    /// What the tree says of a page is what lies in it, and only sequences of its salt use it.
    fn check_tree(&self) -> Result<(), String> {
        let tree = self.scheduler.cache().tree();
        let kept = tree.pages().filter(|page| self.scheduler.cache().pool().users(*page) == 0).count();
        let idle = self.scheduler.cache().pool().idle();
        must(kept == idle, || format!("{idle} pages are idle, {kept} of them in the tree"))?;
        for page in tree.pages() {
            let (salt, tokens) = self.path(page)?;
            let mut print = 1;
            for (at, token) in tokens.iter().enumerate() {
                print = fingerprint(print, *token);
                let (own, offset) = (at / PAGE + 1 == tokens.len() / PAGE, at % PAGE);
                let right = !own || self.memory.at(page, offset) == print;
                must(right, || format!("page {page} does not hold what the tree says"))?;
            }
            for (turn, sequence) in self.scheduler.running() {
                let foreign = sequence.pages().contains(&page) && sequence.salt() != salt;
                must(!foreign, || format!("{turn} uses page {page} of another salt"))?;
            }
        }
        Ok(())
    }

    /// The salt and the tokens on the way to a page of the tree.
    fn path(&self, page: u32) -> Result<(Vec<u8>, Vec<u32>), String> {
        let (mut blocks, mut at) = (Vec::new(), page);
        while blocks.len() <= self.world.config.pages {
            let edge = self.scheduler.cache().tree().edge(at);
            let (parent, block) =
                edge.ok_or_else(|| format!("page {page} hangs on page {at}, which is gone"))?;
            blocks.push(*block);
            match parent {
                Parent::Page(parent) => at = *parent,
                Parent::Root(salt) => {
                    return Ok((salt.clone(), blocks.into_iter().rev().flatten().collect()));
                }
            }
        }
        Err(format!("the way to page {page} goes in a circle"))
    }

    /// Priority is a head start of so many steps, no more.
    fn check_line(&self) -> Result<(), String> {
        let patience = self.world.config.patience as i64;
        let due = |at: usize| {
            self.states[at].arrived as i64 + i64::from(self.world.clients[at].priority) * patience
        };
        for ((a, client_a), (b, client_b)) in self.clients.iter().zip(self.clients.iter().skip(1)) {
            let ordered = due(*client_a) <= due(*client_b);
            must(ordered, || format!("{a} stands before {b}, but came too late for that"))?;
        }
        Ok(())
    }

    /// Nothing is held, and every client that stayed has its answer.
    pub(super) fn check_end(&self) -> Result<(), String> {
        let used = self.scheduler.cache().used();
        must(used == 0, || format!("{used} pages are held at the end"))?;
        let idle = self.scheduler.waiting().is_empty() && self.scheduler.running().is_empty();
        must(idle, || "sequences are left at the end".into())?;
        for (at, (client, state)) in self.world.clients.iter().zip(&self.states).enumerate() {
            let mut tokens = client.prompt.clone();
            for (place, token) in state.answer.iter().enumerate() {
                let right = next_token(&tokens, self.world.vocab) == *token;
                must(right, || format!("token {place} of client {at} is wrong"))?;
                tokens.push(*token);
            }
            let stayed = state.turn.is_some() && client.leaves.is_none() && client.fails_at.is_none();
            let found = state.answer.len();
            must(!stayed || found == client.answer, || format!("client {at} got {found} tokens"))?;
            let rows =
                !stayed || !client.all_rows || client.prompt.len() < 2 || state.rows >= client.prompt.len();
            must(rows, || format!("client {at} got {} rows of its prompt", state.rows))?;
        }
        Ok(())
    }
}
