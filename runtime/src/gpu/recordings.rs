//! Which steps are worth recording: the second of its kind is recorded, those after it are replayed.

use sinter_ir::{Binding, GpuRecording};

/// Recordings that are kept; the one that was used longest ago goes first.
const CAPACITY: usize = 64;

/// What makes two steps the same launches with the same parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// The position of the bucket.
    pub(super) bucket: usize,
    /// The values of the symbols.
    pub(super) binding: Binding,
    /// Whether tokens are drawn.
    pub(super) draws: bool,
}

/// What to do with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Launch it.
    Launch,
    /// Record it, then replay it.
    Record,
    /// Replay it.
    Replay(GpuRecording),
}

/// The steps that were seen, the latest last.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    seen: Vec<(Key, Option<GpuRecording>)>,
}

impl Recordings {
    /// What to do with a step of this kind.
    pub(super) fn choose(&mut self, key: Key) -> Choice {
        let Some(at) = self.seen.iter().position(|(known, _)| *known == key) else {
            self.seen.push((key, None));
            return Choice::Launch;
        };
        let entry = self.seen.remove(at);
        self.seen.push(entry);
        entry.1.map_or(Choice::Record, Choice::Replay)
    }
    /// Keeps a recording; gives those that are to be forgotten.
    pub(super) fn keep(&mut self, key: Key, recording: GpuRecording) -> Vec<GpuRecording> {
        self.seen.retain(|(known, _)| *known != key);
        self.seen.push((key, Some(recording)));
        let surplus = self.seen.len().saturating_sub(CAPACITY);
        self.seen.drain(..surplus).filter_map(|(_, recording)| recording).collect()
    }
    /// Gives all recordings to be forgotten, because addresses have changed.
    pub(super) fn clear(&mut self) -> Vec<GpuRecording> {
        self.seen.drain(..).filter_map(|(_, recording)| recording).collect()
    }
}

/// The smallest power of two that is not below the pages of the longest block table, or all pages: steps whose tables
/// differ a little are then launched alike. The pages after a sequence's own are never looked at.
pub(super) fn rounded_pages(pages: u64, most: u64) -> u64 {
    if pages == 0 {
        return 0;
    }
    pages.checked_next_power_of_two().unwrap_or(pages).min(most.max(pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pages: u64) -> Key {
        Key { bucket: 0, binding: Binding::new(1, 1, pages, 64), draws: false }
    }

    #[test]
    fn the_second_step_is_recorded_and_the_third_replayed() {
        let mut recordings = Recordings::default();
        assert_eq!(recordings.choose(key(1)), Choice::Launch);
        assert_eq!(recordings.choose(key(2)), Choice::Launch);
        assert_eq!(recordings.choose(key(1)), Choice::Record);
        assert!(recordings.keep(key(1), GpuRecording(7)).is_empty());
        assert_eq!(recordings.choose(key(1)), Choice::Replay(GpuRecording(7)));
        assert_eq!(recordings.choose(key(2)), Choice::Record);
        assert_eq!(recordings.clear(), [GpuRecording(7)]);
        assert_eq!(recordings.choose(key(1)), Choice::Launch);
    }

    #[test]
    fn the_one_that_was_used_longest_ago_is_forgotten() {
        let mut recordings = Recordings::default();
        for pages in 0..CAPACITY as u64 {
            assert!(recordings.keep(key(pages), GpuRecording(pages as usize)).is_empty());
        }
        assert_eq!(recordings.choose(key(0)), Choice::Replay(GpuRecording(0)));
        assert_eq!(recordings.keep(key(1000), GpuRecording(1000)), [GpuRecording(1)]);
    }

    #[test]
    fn tables_are_rounded_within_the_pool() {
        let rounded: Vec<u64> = (0..10).map(|pages| rounded_pages(pages, 6)).collect();
        assert_eq!(rounded, [0, 1, 2, 4, 4, 6, 6, 7, 8, 9]);
        assert_eq!(rounded_pages(u64::MAX, u64::MAX), u64::MAX);
    }
}
