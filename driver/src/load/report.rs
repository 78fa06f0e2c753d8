//! What a load showed, for people and for programs.

use super::client::Answer;
use super::options::LoadArgs;
use super::statistics::{Figures, Summary};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The answers that were asked for again alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Check {
    /// How many.
    pub asked: usize,
    /// Those whose text, number of tokens or log probabilities were not the same to the last bit.
    pub different: usize,
}

/// A load and what it showed.
#[derive(Debug, Clone)]
pub struct Report {
    /// The model's name, as the server says it.
    pub model: String,
    /// Tokens of a prompt.
    pub prompt: usize,
    /// What was sent.
    pub load: LoadArgs,
    /// The figures.
    pub figures: Figures,
    /// The check beside them.
    pub check: Check,
    /// Each request.
    pub answers: Vec<Result<Answer, String>>,
}

impl Report {
    /// The load in words.
    pub fn load_words(&self) -> String {
        let load = &self.load;
        let how = match load.rate {
            None => format!("{} clients", load.concurrency.min(load.requests)),
            Some(rate) => format!("{rate} requests/s, burstiness {}", load.burstiness),
        };
        let mut words =
            format!("{} requests, {how}, {} + {} tokens", load.requests, self.prompt, load.output);
        if load.prefix > 0 {
            words += &format!(", {} of them one of {} beginnings", load.prefix, load.prefixes);
        }
        words
    }

    /// How often each reason to fail was given.
    fn errors(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for error in self.answers.iter().filter_map(|answer| answer.as_ref().err()) {
            *counts.entry(error.as_str()).or_insert(0) += 1;
        }
        counts
    }

    /// The reasons to fail in one line.
    pub fn reasons(&self) -> String {
        let each = self.errors().into_iter().map(|(reason, count)| format!("{count} × {reason}"));
        each.collect::<Vec<_>>().join("; ")
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let load = &self.load;
        json!({
            "model": self.model,
            "load": {
                "requests": load.requests,
                "concurrency": load.rate.is_none().then_some(load.concurrency),
                "rate": load.rate,
                "burstiness": load.rate.map(|_| load.burstiness),
                "prompt_tokens": self.prompt,
                "output_tokens": load.output,
                "prefix_tokens": load.prefix,
                "prefixes": load.prefixes,
                "seed": load.seed,
            },
            "figures": self.figures,
            "errors": self.errors(),
            "check": { "asked_alone": self.check.asked, "different": self.check.different },
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let figures = &self.figures;
        let mut text = format!("{}: {}\n", self.model, self.load_words());
        text +=
            &format!("{} answered, {} failed, {:.2} s\n", figures.completed, figures.failed, figures.seconds);
        for (reason, count) in self.errors() {
            text += &format!("  {count} × {reason}\n");
        }
        text += &format!(
            "{:.2} requests/s  {:.1} output tokens/s  {:.1} tokens/s in all\n",
            figures.requests_per_second, figures.output_tokens_per_second, figures.total_tokens_per_second
        );
        if let Some(goodput) = figures.goodput_per_second {
            text += &format!("{goodput:.2} good requests/s\n");
        }
        text += &format!("{:<5}{:>11}{:>11}{:>11}{:>11}\n", "ms", "mean", "median", "p99", "max");
        for (name, summary) in self.times() {
            let Summary { mean_ms, median_ms, p99_ms, max_ms, .. } = summary;
            text += &format!("{name:<5}{mean_ms:>11.2}{median_ms:>11.2}{p99_ms:>11.2}{max_ms:>11.2}\n");
        }
        let Check { asked, different } = self.check;
        text += &match (asked, different) {
            (0, _) => "check: no answer was asked for again\n".to_owned(),
            (_, 0) => format!("check: {asked} answers asked for again alone are the same to the last bit\n"),
            _ => format!("check: FAILED, {different} of {asked} answers differ when asked for alone\n"),
        };
        text
    }

    /// The times that there are, by name.
    pub fn times(&self) -> Vec<(&'static str, Summary)> {
        let figures = &self.figures;
        let all =
            [("TTFT", figures.ttft), ("TPOT", figures.tpot), ("ITL", figures.itl), ("E2E", figures.e2e)];
        all.into_iter().filter_map(|(name, summary)| Some((name, summary?))).collect()
    }
}
