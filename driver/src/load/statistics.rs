//! Arithmetic on the stamps of requests.

use super::client::Answer;
use super::options::{Bound, Time};
use serde::Serialize;

/// Mean, percentiles and the largest, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many values.
    pub count: usize,
    /// Their sum divided by their number.
    pub mean_ms: f64,
    /// Half are below.
    pub median_ms: f64,
    /// 90 of 100 are below.
    pub p90_ms: f64,
    /// 99 of 100 are below.
    pub p99_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

impl Summary {
    /// Of values in seconds; none if there are none.
    pub fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        let count = seconds.len();
        let max = *seconds.last()?;
        Some(Self {
            count,
            mean_ms: 1e3 * seconds.iter().sum::<f64>() / count as f64,
            median_ms: 1e3 * percentile(&seconds, 50.0),
            p90_ms: 1e3 * percentile(&seconds, 90.0),
            p99_ms: 1e3 * percentile(&seconds, 99.0),
            max_ms: 1e3 * max,
        })
    }
}

/// The value below which `percent` of the sorted values lie, on the line between its two neighbours (R-7, which numpy
/// and vLLM's bench use). 0 if there are none.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = percent / 100.0 * last as f64;
    let below = (at.floor() as usize).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

/// What all requests together show.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Requests that were answered.
    pub completed: usize,
    /// Requests that were not.
    pub failed: usize,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Tokens of the answers.
    pub output_tokens: usize,
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Those of them that the server had in its cache, where it says so.
    pub cached_tokens: usize,
    /// Answers a second.
    pub requests_per_second: f64,
    /// Tokens of answers a second.
    pub output_tokens_per_second: f64,
    /// Tokens of prompts and answers a second.
    pub total_tokens_per_second: f64,
    /// Good requests a second, if bounds were given.
    pub goodput_per_second: Option<f64>,
    /// Time to the first token.
    pub ttft: Option<Summary>,
    /// Mean time of each later token of a request.
    pub tpot: Option<Summary>,
    /// Each gap between two events of a request.
    pub itl: Option<Summary>,
    /// Time to the last token.
    pub e2e: Option<Summary>,
}

impl Answer {
    /// Seconds to the first token.
    pub fn ttft(&self) -> Option<f64> {
        Some(self.stamps.first()? - self.sent)
    }
    /// Seconds to the last token.
    pub fn e2e(&self) -> Option<f64> {
        Some(self.stamps.last()? - self.sent)
    }
    /// Seconds of each token after the first, on average; none for answers of one token.
    pub fn tpot(&self) -> Option<f64> {
        let later = self.output_tokens.checked_sub(1).filter(|later| *later > 0)?;
        Some((self.stamps.last()? - self.stamps.first()?) / later as f64)
    }

    /// Whether a request keeps all bounds. A time that it does not have is kept.
    fn is_good(&self, bounds: &[Bound]) -> bool {
        let kept = |bound: &Bound| {
            let time = match bound.time {
                Time::Ttft => self.ttft(),
                Time::Tpot => self.tpot(),
                Time::E2e => self.e2e(),
            };
            time.is_none_or(|time| 1e3 * time <= bound.most)
        };
        bounds.iter().all(kept)
    }
}

/// The figures of requests; those that failed only count as such.
pub fn figures(answers: &[Result<Answer, String>], bounds: &[Bound]) -> Figures {
    let good: Vec<&Answer> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    let first = good.iter().map(|answer| answer.sent).fold(f64::INFINITY, f64::min);
    let last = good.iter().filter_map(|answer| answer.stamps.last()).fold(0.0f64, |last, at| last.max(*at));
    let seconds = (last - first).max(0.0);
    let sum = |count: fn(&Answer) -> usize| good.iter().map(|answer| count(answer)).sum::<usize>();
    let (output, prompt) = (sum(|answer| answer.output_tokens), sum(|answer| answer.prompt_tokens));
    let a_second = |count: usize| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let times = |time: fn(&Answer) -> Option<f64>| {
        Summary::of(good.iter().filter_map(|answer| time(answer)).collect())
    };
    let gaps = good.iter().flat_map(|answer| answer.stamps.windows(2).map(|pair| pair[1] - pair[0]));
    let kept = good.iter().filter(|answer| answer.is_good(bounds)).count();
    Figures {
        completed: good.len(),
        failed: answers.len() - good.len(),
        seconds,
        output_tokens: output,
        prompt_tokens: prompt,
        cached_tokens: sum(|answer| answer.cached_tokens),
        requests_per_second: a_second(good.len()),
        output_tokens_per_second: a_second(output),
        total_tokens_per_second: a_second(output + prompt),
        goodput_per_second: (!bounds.is_empty()).then(|| a_second(kept)),
        ttft: times(Answer::ttft),
        tpot: times(Answer::tpot),
        itl: Summary::of(gaps.collect()),
        e2e: times(Answer::e2e),
    }
}

/// Tokens that came in each of so many equal parts of the time, a second. Each event of an answer carries an equal
/// share of its tokens.
pub fn throughput(answers: &[Result<Answer, String>], parts: usize, seconds: f64) -> Vec<f64> {
    let mut counts = vec![0.0; parts];
    let width = seconds / parts.max(1) as f64;
    for answer in answers.iter().filter_map(|answer| answer.as_ref().ok()) {
        let each = answer.output_tokens as f64 / answer.stamps.len().max(1) as f64;
        for at in &answer.stamps {
            let part = ((at / width) as usize).min(parts.saturating_sub(1));
            if let Some(count) = counts.get_mut(part) {
                *count += each / width;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-9 * wanted.abs().max(1.0), "{found}, wanted {wanted}");
    }

    fn answer(sent: f64, stamps: &[f64], output_tokens: usize) -> Answer {
        Answer { sent, stamps: stamps.to_vec(), output_tokens, prompt_tokens: 10, ..Answer::default() }
    }

    #[test]
    fn percentiles_lie_between_their_neighbours() {
        // By hand, and as numpy.percentile gives them.
        let values = [1.0, 2.0, 4.0, 8.0, 16.0];
        for (percent, wanted) in [(0.0, 1.0), (50.0, 4.0), (90.0, 12.8), (99.0, 15.68), (100.0, 16.0)] {
            near(percentile(&values, percent), wanted);
        }
        near(percentile(&[3.0, 5.0], 50.0), 4.0);
        near(percentile(&[3.0], 99.0), 3.0);
        assert_eq!(percentile(&[], 50.0), 0.0);
        let summary = Summary::of(vec![0.016, 0.001, 0.008, 0.002, 0.004]).unwrap();
        near(summary.mean_ms, 6.2);
        near(summary.median_ms, 4.0);
        near(summary.max_ms, 16.0);
        assert_eq!(Summary::of(Vec::new()), None);
    }

    #[test]
    fn figures_are_those_computed_by_hand() {
        let answers = [
            Ok(answer(1.0, &[1.2, 1.3, 1.5], 3)),
            Ok(answer(2.0, &[2.4, 3.0], 5)),
            Ok(answer(2.5, &[3.5], 1)),
            Err("refused".to_owned()),
        ];
        let bounds = [Bound { time: Time::Ttft, most: 450.0 }, Bound { time: Time::Tpot, most: 160.0 }];
        let figures = figures(&answers, &bounds);
        assert_eq!((figures.completed, figures.failed), (3, 1));
        assert_eq!((figures.output_tokens, figures.prompt_tokens), (9, 30));
        near(figures.seconds, 2.5);
        near(figures.output_tokens_per_second, 9.0 / 2.5);
        near(figures.total_tokens_per_second, 39.0 / 2.5);
        near(figures.requests_per_second, 3.0 / 2.5);
        // TTFT 200, 400, 1000 ms; the third breaks its bound. TPOT 150 and 150 ms, none for one token.
        near(figures.goodput_per_second.unwrap(), 2.0 / 2.5);
        let ttft = figures.ttft.unwrap();
        near(ttft.mean_ms, 1600.0 / 3.0);
        near(ttft.median_ms, 400.0);
        near(ttft.p99_ms, 400.0 + 600.0 * 0.98);
        let tpot = figures.tpot.unwrap();
        assert_eq!(tpot.count, 2);
        near(tpot.mean_ms, 150.0);
        // Gaps 100, 200 and 600 ms.
        let itl = figures.itl.unwrap();
        near(itl.mean_ms, 300.0);
        near(itl.median_ms, 200.0);
        // E2E 500, 1000, 1000 ms.
        near(figures.e2e.unwrap().mean_ms, 2500.0 / 3.0);
    }

    #[test]
    fn without_answers_there_are_no_times() {
        let figures = figures(&[Err("no".into())], &[]);
        assert_eq!((figures.ttft, figures.goodput_per_second, figures.seconds), (None, None, 0.0));
        assert_eq!(figures.requests_per_second, 0.0);
    }

    #[test]
    fn throughput_counts_tokens_where_they_came() {
        let answers = [Ok(answer(0.0, &[0.5, 1.5, 3.9], 6)), Err("no".to_owned())];
        assert_eq!(throughput(&answers, 4, 4.0), [2.0, 2.0, 0.0, 2.0]);
        assert_eq!(throughput(&answers, 2, 4.0), [2.0, 1.0]);
    }
}
