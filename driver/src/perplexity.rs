//! How well a model predicts a text: e to the mean negative log-likelihood of its tokens, over windows that slide.
//!
//! A window of so many tokens moves over the text in steps of a stride. Of each window only the tokens that no window
//! before had are scored, with all tokens of the window before them as context; the first token of the text has none and
//! is not scored. This is the definition in the documentation of transformers ("Perplexity of fixed-length models").

use anyhow::{Result, ensure};
use sinter_runtime::{DeviceModel, Rows, Session};

/// Bytes of logits that a step gives at most, about.
const STEP_BYTES: usize = 64 << 20;

/// How a text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of a window.
    pub window: usize,
    /// Tokens from the beginning of one window to that of the next.
    pub stride: usize,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Perplexity {
    /// e to the mean negative log-likelihood.
    pub perplexity: f64,
    /// Tokens that were scored.
    pub scored: usize,
}

impl Windows {
    /// The windows over so many tokens: first token, last token, and the first that is scored.
    fn over(self, tokens: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let mut scored = 0;
        (0..tokens).step_by(self.stride.max(1)).map_while(move |begin| {
            let end = (begin + self.window).min(tokens);
            let from = std::mem::replace(&mut scored, end);
            // A token needs one before it in its window.
            (from < tokens).then_some((begin, end, from.max(begin + 1)))
        })
    }
}

/// Measures a model that was loaded for sequences as long as a window. `done` is told after each window.
pub fn measure(
    model: &mut dyn DeviceModel,
    tokens: &[u32],
    windows: Windows,
    mut done: impl FnMut(),
) -> Result<Perplexity> {
    ensure!(tokens.len() > 1, "the text has {} tokens; two or more are wanted", tokens.len());
    let width = model.width().max(1);
    let chunk = (STEP_BYTES / 4 / width).clamp(1, model.limits().max_tokens);
    let (mut sum, mut scored) = (0.0f64, 0);
    for (begin, end, from) in windows.over(tokens.len()) {
        let mut session = Session::new(model);
        for start in (begin..end).step_by(chunk) {
            let part = &tokens[start..(start + chunk).min(end)];
            let logits = session.feed(part, Rows::All)?;
            for (at, row) in logits.chunks_exact(width).enumerate() {
                let next = start + at + 1;
                if next >= from && next < end {
                    sum += surprise(row, tokens[next] as usize);
                    scored += 1;
                }
            }
        }
        done();
    }
    Ok(Perplexity { perplexity: (sum / scored.max(1) as f64).exp(), scored })
}

/// The negative log-likelihood of a token under a row of logits.
pub(crate) fn surprise(row: &[f32], token: usize) -> f64 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - most).exp()).sum();
    sum.ln() - f64::from(row[token] - most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_but_the_first_is_scored_once() {
        for (tokens, window, stride) in [(10, 4, 2), (10, 4, 3), (9, 20, 10), (10, 5, 1), (2, 2, 1)] {
            let mut seen = vec![0; tokens];
            for (begin, end, from) in (Windows { window, stride }).over(tokens) {
                assert!(begin < from && end - begin <= window);
                (from..end).for_each(|at| seen[at] += 1);
            }
            assert_eq!(seen, [vec![0], vec![1; tokens - 1]].concat(), "{tokens} {window} {stride}");
        }
        // Windows that do not overlap leave out the first token of each.
        let whole: Vec<_> = Windows { window: 4, stride: 4 }.over(9).collect();
        assert_eq!(whole, [(0, 4, 1), (4, 8, 5), (8, 9, 9)]);
    }

    #[test]
    fn a_surprise_is_the_log_of_a_softmax() {
        let row = [1.0f32, 2.0, 3.0];
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        assert!((surprise(&row, 1) - (sum.ln() - 2.0)).abs() < 1e-12);
    }
}
