//! What is faster for certain.
//!
//! Candidates are measured in rounds: in each, every candidate runs every launch of its kernel once. What a machine does
//! beside the measurement changes from round to round more than from one end of a round to the other, so a candidate is
//! compared with the model's choice within each round, and the median of these ratios counts. It lies between two of the
//! sorted ratios with 95 % (the binomial interval of a median, which assumes no distribution).

use crate::load::statistics::percentile;
use serde::{Deserialize, Serialize};
use sinter_runtime::uniform;

/// The fewest rounds from which an interval of 95 % follows.
pub const LEAST_ROUNDS: usize = 6;
/// What is not faster by this much stays a tie, and ties go to the model's choice.
const MARGIN: f64 = 0.01;

/// A median and the bounds between which it lies with 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The median.
    pub median: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

impl Interval {
    /// Of values; without certainty, which is what fewer than [`LEAST_ROUNDS`] give, the bounds are infinite.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let median = percentile(&sorted, 50.0);
        if count < LEAST_ROUNDS {
            return Self { median, low: f64::NEG_INFINITY, high: f64::INFINITY };
        }
        let n = count as f64;
        let at = ((n - 1.96 * n.sqrt()) / 2.0).max(0.0) as usize;
        Self { median, low: sorted[at], high: sorted[count - 1 - at] }
    }
}

/// What the rounds say of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The candidate to run: the first, which is the model's choice, or one that is faster for certain.
    pub best: usize,
    /// Of each candidate the nanoseconds of a launch.
    pub nanos: Vec<Interval>,
    /// Of each candidate its time over that of the first.
    pub ratios: Vec<Interval>,
    /// Rounds that were measured.
    pub rounds: usize,
}

impl Verdict {
    /// Of the nanoseconds of each candidate in each round; every candidate has as many rounds.
    pub fn of(rounds: &[Vec<f64>]) -> Self {
        let first = rounds.first().map_or(&[][..], |first| first);
        let ratio = |candidate: &Vec<f64>| -> Vec<f64> {
            candidate.iter().zip(first).map(|(time, model)| time / model.max(1.0)).collect()
        };
        let ratios: Vec<Interval> = rounds.iter().map(|candidate| Interval::of(&ratio(candidate))).collect();
        let certain = |at: &usize| ratios[*at].high < 1.0 - MARGIN;
        let faster = (1..ratios.len()).filter(certain);
        let best = faster.min_by(|a, b| ratios[*a].median.total_cmp(&ratios[*b].median)).unwrap_or(0);
        let nanos = rounds.iter().map(|candidate| Interval::of(candidate)).collect();
        Self { best, nanos, ratios, rounds: first.len() }
    }

    /// Whether there were rounds enough to say anything.
    pub fn is_certain(&self) -> bool {
        self.rounds >= LEAST_ROUNDS
    }

    /// The least median of all candidates over that of the first: how near the model's choice is to the best.
    pub fn model_share(&self) -> f64 {
        self.ratios.iter().map(|ratio| ratio.median).fold(1.0, f64::min)
    }
}

/// The nanoseconds of each candidate of a kernel in each whole round: the median of a round's launches. After as many turns
/// as there are candidates each has run each launch.
pub fn rounds((kernel, steps): (u64, &[usize]), candidates: usize, turns: &[Vec<u64>]) -> Vec<Vec<f64>> {
    let mut all = vec![Vec::new(); candidates];
    for (round, turns) in turns.chunks_exact(candidates.max(1)).enumerate() {
        let mut times = vec![Vec::new(); candidates];
        for (turn, nanos) in turns.iter().enumerate() {
            for (launch, step) in steps.iter().enumerate() {
                let at = candidate((kernel, launch), round * candidates + turn, candidates);
                times[at].extend(nanos.get(*step).map(|nanos| *nanos as f64));
            }
        }
        for (all, mut times) in all.iter_mut().zip(times) {
            times.sort_by(f64::total_cmp);
            all.push(percentile(&times, 50.0));
        }
    }
    all
}

/// The candidate that a launch of a kernel runs in a turn: all move on by one from turn to turn, and each kernel begins each
/// round with another, at random. Otherwise kernels would go in step, and a candidate of one kernel would always run in
/// the turns of the same candidates of the others, with the caches and the clock as these leave them.
pub fn candidate((kernel, launch): (u64, usize), turn: usize, candidates: usize) -> usize {
    let candidates = candidates.max(1);
    let first = (uniform(kernel, (turn / candidates) as u64) * candidates as f64) as usize;
    (first + launch + turn) % candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of two candidates; the machine halves its speed now and then for both.
    fn noisy(ratio: f64, jitter: f64, count: usize) -> Vec<Vec<f64>> {
        let speed = |round: usize| if round.is_multiple_of(3) { 2000.0 } else { 1000.0 };
        let shake = |round: usize| 1.0 + jitter * (((round * 7919) % 13) as f64 / 6.0 - 1.0);
        let first = (0..count).map(speed).collect();
        vec![first, (0..count).map(|round| ratio * speed(round) * shake(round)).collect()]
    }

    #[test]
    fn what_is_faster_in_every_round_wins_however_the_machine_changes() {
        let verdict = Verdict::of(&noisy(0.9, 0.02, 12));
        assert_eq!((verdict.best, verdict.rounds), (1, 12));
        assert!(verdict.ratios[1].high < 0.93 && verdict.ratios[1].low > 0.87, "{:?}", verdict.ratios);
        assert!((verdict.model_share() - 0.9).abs() < 0.01);
    }

    #[test]
    fn ties_and_doubts_stay_with_the_model() {
        assert_eq!(Verdict::of(&noisy(0.995, 0.0, 12)).best, 0);
        assert_eq!(Verdict::of(&noisy(0.97, 0.1, 12)).best, 0);
        assert_eq!(Verdict::of(&noisy(1.1, 0.0, 12)).best, 0);
        let few = Verdict::of(&noisy(0.5, 0.0, LEAST_ROUNDS - 1));
        assert_eq!((few.best, few.is_certain()), (0, false));
        let none = Verdict::of(&[Vec::new(), Vec::new()]);
        assert_eq!((none.best, none.rounds), (0, 0));
    }

    #[test]
    fn the_interval_holds_the_median_of_what_it_was_drawn_from() {
        // The median of uniform numbers is a half; the interval must miss it about once in twenty draws.
        let mut missed = 0;
        for seed in 0..1000u64 {
            let values: Vec<f64> = (0..15).map(|at| sinter_runtime::uniform(seed, at)).collect();
            let interval = Interval::of(&values);
            missed += usize::from(interval.low > 0.5 || interval.high < 0.5);
        }
        assert!(missed < 60, "{missed} of 1000");
    }

    #[test]
    fn every_candidate_runs_every_launch_once_a_round() {
        let candidates = 3;
        for (kernel, launch) in [(0, 0), (0, 1), (1, 0), (7, 3)] {
            for round in 0..5 {
                let turns = round * candidates..(round + 1) * candidates;
                let mut seen: Vec<usize> =
                    turns.map(|turn| candidate((kernel, launch), turn, candidates)).collect();
                seen.sort_unstable();
                assert_eq!(seen, [0, 1, 2]);
            }
        }
        // Step 1 is another kernel's. The time of a candidate is its number.
        let (kernel, steps) = (5, [0, 2]);
        let turn = |turn: usize| {
            let time = |launch: usize| candidate((kernel, launch), turn, candidates) as u64 + 1;
            vec![time(0), 99, time(1)]
        };
        let turns: Vec<Vec<u64>> = (0..7).map(turn).collect();
        assert_eq!(rounds((kernel, &steps), candidates, &turns), [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]);
    }

    #[test]
    fn kernels_do_not_go_in_step() {
        // What one kernel runs says nothing of what another runs beside it: each of the nine pairs meets in a ninth of the turns.
        let (candidates, turns) = (3, 3 * 3000);
        let mut pairs = [[0; 3]; 3];
        for turn in 0..turns {
            let [one, other] = [0, 1].map(|kernel| candidate((kernel, 0), turn, candidates));
            pairs[one][other] += 1;
        }
        for count in pairs.iter().flatten() {
            assert!((900..1100).contains(count), "{pairs:?}");
        }
    }
}
