//! Who touched global memory within a launch: finds races between blocks, and between the warps of a block.
//!
//! Every word that a kernel touches has a mark of its last write and one of its last read, each a number of 64 bits: the
//! launch, the cluster, the agent and its time (as in [`super::Shared`]), and the bytes. What a warp knows of other
//! clusters comes from atomics and fences alone; an access that conflicts with one it has not heard of is a race. Marks are
//! made where memory is touched, so that weights cost nothing until they are read.
//!
//! A mark has room for one agent. Of several that read a word, or that write different bytes of it, what is known is that
//! there are several: a write by another cluster that has heard of nobody is a race, and nothing else is said of them.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is known of other clusters: by cluster, the time of each of its agents.
pub type Foreign = BTreeMap<u32, Vec<u32>>;

/// Learns what another knows of other clusters.
pub fn learn(known: &mut Foreign, other: &Foreign) {
    for (cluster, times) in other {
        let mine = known.entry(*cluster).or_insert_with(|| vec![0; times.len()]);
        for (mine, theirs) in mine.iter_mut().zip(times) {
            *mine = (*mine).max(*theirs);
        }
    }
}

/// Words that get their marks together.
const CHUNK: usize = 1024;

// A mark from its low bits on: bytes (4), atomic (1), time (17), agent (8), cluster (20), launch (14, never 0).
const TIME: u32 = 5;
const AGENT: u32 = 22;
const CLUSTER: u32 = 30;
const LAUNCH: u32 = 50;
const LAST_TIME: u64 = (1 << 17) - 1;
/// More than one agent of a cluster.
const SEVERAL: u64 = (1 << 8) - 1;
/// More than one cluster.
const MANY: u64 = (1 << 20) - 1;
/// Launches until marks of old ones would be taken for new.
pub const LAUNCHES: u32 = (1 << 14) - 1;
/// The most clusters of a launch that are told apart; larger launches are not watched.
pub const MOST_CLUSTERS: u32 = MANY as u32;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark(u64);

impl Mark {
    fn bytes(self) -> u64 {
        self.0 & 15
    }
    fn atomic(self) -> bool {
        self.0 >> 4 & 1 == 1
    }
    fn time(self) -> u64 {
        self.0 >> TIME & LAST_TIME
    }
    fn agent(self) -> u64 {
        self.0 >> AGENT & SEVERAL
    }
    fn cluster(self) -> u64 {
        self.0 >> CLUSTER & MANY
    }
    fn launch(self) -> u64 {
        self.0 >> LAUNCH
    }
    /// Launch, cluster and agent.
    fn owner(self) -> u64 {
        self.0 >> AGENT
    }
    /// The same of several agents of its cluster.
    fn of_several(self) -> Mark {
        Mark(self.0 | SEVERAL << AGENT)
    }
    /// The same of several clusters: with `agent` [`SEVERAL`] all touched the same bytes, with 0 each its own.
    fn of_many(self, agent: u64) -> Mark {
        Mark(self.0 & !(SEVERAL << AGENT) | MANY << CLUSTER | agent << AGENT)
    }
    /// The mark after this one and a new one that is in order with it.
    fn then(self, new: Mark, reads: bool) -> Mark {
        let both = Mark(new.0 | self.bytes());
        if self.launch() != new.launch() {
            return new;
        }
        if self.owner() == new.owner() {
            return both;
        }
        let overlap = self.bytes() & new.bytes() != 0;
        match (self.cluster() == new.cluster(), reads, overlap) {
            (true, true, _) | (true, false, false) => both.of_several(),
            (false, true, true) if self.cluster() != MANY => both.of_many(SEVERAL),
            (false, true, _) if self.cluster() == MANY => Mark(self.0 | both.bytes()),
            (false, _, false) => both.of_many(0),
            _ => new,
        }
    }
}

/// Who touches memory in a launch, and what has happened before.
#[derive(Clone, Copy)]
pub struct Touch<'a> {
    /// Launch, cluster, agent and time of the mark; 0 if the launch is not watched.
    stamp: u64,
    /// The times of the agents of the same cluster.
    seen: &'a [u32],
    /// And of others.
    foreign: &'a Foreign,
    /// Blocks in a cluster, for messages.
    blocks: u32,
}

impl<'a> Touch<'a> {
    /// An agent of a cluster at a time; `launch` is the number of the launch.
    pub fn new(
        (launch, blocks): (u32, u32),
        cluster: u32,
        (agent, time): (usize, u32),
        (seen, foreign): (&'a [u32], &'a Foreign),
    ) -> Touch<'a> {
        let stamp = u64::from(1 + launch % LAUNCHES) << LAUNCH
            | u64::from(cluster) << CLUSTER
            | (agent as u64) << AGENT
            | u64::from(time).min(LAST_TIME) << TIME;
        Touch { stamp: if cluster < MOST_CLUSTERS { stamp } else { 0 }, seen, foreign, blocks }
    }

    /// The same as part of an atomic operation that other blocks take part in.
    pub fn atomic(self) -> Touch<'a> {
        Touch { stamp: self.stamp | u64::from(self.stamp != 0) << 4, ..self }
    }

    /// Whether what a mark tells of happened before, or does no harm.
    fn follows(&self, mark: Mark) -> bool {
        let (own, time) = (Mark(self.stamp), mark.time());
        if mark.launch() != own.launch() || mark.owner() == own.owner() || (mark.atomic() && own.atomic()) {
            return true;
        }
        let heard = |times: &[u32]| {
            let agent = mark.agent();
            agent == SEVERAL || times.get(agent as usize).is_some_and(|seen| u64::from(*seen) >= time)
        };
        match mark.cluster() {
            cluster if cluster == own.cluster() => heard(self.seen),
            MANY => mark.agent() != SEVERAL || !self.foreign.is_empty(),
            cluster => self.foreign.get(&(cluster as u32)).is_some_and(|times| heard(times)),
        }
    }

    /// What is wrong, in words.
    #[cold]
    fn race(&self, mark: Mark, address: u64, does: &str, other: &str) -> String {
        let own = Mark(self.stamp).cluster();
        let (who, lacks) = match mark.cluster() {
            cluster if cluster == own => (format!("warp {} of its block", mark.agent()), "barrier"),
            MANY => ("other blocks".into(), "atomic with acquire and release"),
            cluster => {
                (format!("block {}", cluster * u64::from(self.blocks)), "atomic with acquire and release")
            }
        };
        format!(
            "race: global address {address:#x} is {does} while {who} {other} it: no {lacks} stands between"
        )
    }
}

type Chunk = OnceLock<Box<[AtomicU64]>>;

/// The marks of an allocation.
pub struct Marks {
    written: Vec<Chunk>,
    read: Vec<Chunk>,
}

fn chunk(chunks: &[Chunk], word: usize) -> &[AtomicU64] {
    chunks[word / CHUNK].get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(0)).collect())
}

/// The words of a range, with the bytes of each.
fn words(offset: u64, bytes: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = offset + bytes;
    (offset / 4..end.div_ceil(4)).map(move |word| {
        let (first, last) = (offset.max(4 * word) & 3, (end - 4 * word).min(4));
        (word as usize, (1 << last) - (1 << first))
    })
}

impl Marks {
    /// No marks, for so many words.
    pub fn new(words: u64) -> Marks {
        let chunks = || (0..words.div_ceil(CHUNK as u64)).map(|_| OnceLock::new()).collect();
        Marks { written: chunks(), read: chunks() }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.written.iter_mut().chain(&mut self.read).for_each(|chunk| drop(chunk.take()));
    }

    /// Notes a read of bytes of the allocation at `base`, which must come after their last write.
    #[inline(always)]
    pub fn read(&self, base: u64, (offset, bytes): (u64, u64), touch: &Touch) -> Result<(), String> {
        if touch.stamp == 0 {
            return Ok(());
        }
        for (word, mask) in words(offset, bytes) {
            let new = Mark(touch.stamp | mask);
            let place = &chunk(&self.read, word)[word % CHUNK];
            let old = Mark(place.load(Relaxed));
            if old != new {
                place.store(old.then(new, true).0, Relaxed);
            }
            let Some(written) = self.written[word / CHUNK].get() else { continue };
            let mark = Mark(written[word % CHUNK].load(Relaxed));
            if mark.bytes() & mask != 0 && !touch.follows(mark) {
                return Err(touch.race(mark, base + 4 * word as u64, "read", "writes"));
            }
        }
        Ok(())
    }

    /// Notes a write, which must come after the last write and after the reads before it.
    #[inline(always)]
    pub fn write(&self, base: u64, (offset, bytes): (u64, u64), touch: &Touch) -> Result<(), String> {
        if touch.stamp == 0 {
            return Ok(());
        }
        for (word, mask) in words(offset, bytes) {
            let new = Mark(touch.stamp | mask);
            let place = &chunk(&self.written, word)[word % CHUNK];
            let old = Mark(place.load(Relaxed));
            if old.bytes() & mask != 0 && !touch.follows(old) {
                return Err(touch.race(old, base + 4 * word as u64, "written", "writes"));
            }
            place.store(old.then(new, false).0, Relaxed);
            let Some(read) = self.read[word / CHUNK].get() else { continue };
            let read = &read[word % CHUNK];
            let mark = Mark(read.load(Relaxed));
            if mark.bytes() & mask == 0 {
                continue;
            }
            if !touch.follows(mark) {
                return Err(touch.race(mark, base + 4 * word as u64, "written", "may still read"));
            }
            read.store(0, Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_bytes_of_their_range() {
        let of = |offset, bytes| words(offset, bytes).collect::<Vec<_>>();
        assert_eq!(of(4, 8), [(1, 15), (2, 15)]);
        assert_eq!(of(2, 2), [(0, 12)]);
        assert_eq!(of(3, 6), [(0, 8), (1, 15), (2, 1)]);
        assert_eq!(of(5, 1), [(1, 2)]);
    }

    #[test]
    fn a_mark_holds_what_it_is_given() {
        let nothing = Foreign::new();
        let touch = Touch::new((16383 * 3 + 5, 1), 77_777, (127, 99_999), (&[], &nothing)).atomic();
        let mark = Mark(touch.stamp | 5);
        assert_eq!((mark.launch(), mark.cluster(), mark.agent(), mark.time()), (6, 77_777, 127, 99_999));
        assert!(mark.atomic() && mark.bytes() == 5);
        let late = Touch::new((0, 1), 0, (0, u32::MAX), (&[], &nothing));
        assert_eq!((Mark(late.stamp).time(), Mark(late.stamp).agent()), (LAST_TIME, 0));
        assert_eq!(Touch::new((0, 1), MOST_CLUSTERS, (0, 0), (&[], &nothing)).stamp, 0);
    }

    #[test]
    fn words_that_several_have_read_are_not_written_by_others() {
        let (marks, nothing) = (Marks::new(8), Foreign::new());
        let touch = |cluster| Touch::new((1, 1), cluster, (0, 1), (&[1], &nothing));
        for cluster in [1, 2] {
            marks.read(0, (0, 8), &touch(cluster)).unwrap();
        }
        // Each reads half of the third word, and may write it.
        for cluster in [1, 2] {
            marks.read(0, (8 + 2 * u64::from(cluster - 1), 2), &touch(cluster)).unwrap();
        }
        marks.write(0, (8, 2), &touch(1)).unwrap();
        let error = marks.write(0, (4, 4), &touch(1)).unwrap_err();
        assert_eq!(
            error,
            "race: global address 0x4 is written while other blocks may still read it: no atomic with acquire and release \
             stands between"
        );
        let heard = Foreign::from([(2, vec![1])]);
        marks.write(0, (4, 4), &Touch::new((1, 1), 1, (0, 1), (&[1], &heard))).unwrap();
        // Another launch begins anew.
        marks.write(0, (0, 8), &Touch::new((2, 1), 1, (0, 1), (&[1], &nothing))).unwrap();
    }
}
