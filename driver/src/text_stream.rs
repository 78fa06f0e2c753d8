//! Tokens to text as they come, and the stop strings that end a text.
//!
//! The engine knows tokens, not text, so stop strings are found here. Text that may be the beginning of a stop string is
//! held back until it is certain; what comes after a stop string is never shown.

use anyhow::Result;
use sinter_frontend::tokenizer::{Detokenizer, Tokenizer};

/// The text of one answer.
#[derive(Debug)]
pub struct TextStream {
    detokenizer: Detokenizer,
    stops: Stops,
    /// Special tokens that are left out, sorted.
    hidden: Vec<u32>,
}

/// Which special tokens are part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Special {
    /// All.
    All,
    /// These.
    Only(Vec<u32>),
}

/// Text that is certain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// The next of it; may be empty.
    pub text: String,
    /// The stop string after it: the answer has ended.
    pub stop: Option<String>,
}

impl TextStream {
    /// The begin of a text that ends before the first of `stops`. Special tokens are left out.
    pub fn new(tokenizer: &Tokenizer, stops: Vec<String>) -> Self {
        Self::with_special(tokenizer, stops, Special::Only(Vec::new()))
    }
    /// The same, with some special tokens as text.
    pub fn with_special(tokenizer: &Tokenizer, stops: Vec<String>, special: Special) -> Self {
        let hidden = match special {
            Special::All => Vec::new(),
            Special::Only(kept) => {
                tokenizer.special_ids().into_iter().filter(|id| !kept.contains(id)).collect()
            }
        };
        Self { detokenizer: tokenizer.detokenizer(false), stops: Stops::new(stops), hidden }
    }
    /// Takes a token.
    pub fn push(&mut self, id: u32) -> Result<Piece> {
        if self.hidden.binary_search(&id).is_ok() {
            return Ok(Piece::default());
        }
        let text = self.detokenizer.push(id)?;
        Ok(self.stops.push(&text))
    }
    /// Gives what was held back, at the end of the answer.
    pub fn finish(&mut self) -> Result<Piece> {
        let text = self.detokenizer.finish()?;
        let mut piece = self.stops.push(&text);
        if piece.stop.is_none() {
            piece.text += &std::mem::take(&mut self.stops.held);
        }
        Ok(piece)
    }
}

/// Looks for stop strings in text that comes in pieces.
#[derive(Debug, Default)]
struct Stops {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: bool,
}

impl Stops {
    fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, ..Self::default() }
    }

    fn push(&mut self, text: &str) -> Piece {
        if self.stopped {
            return Piece::default();
        }
        self.held += text;
        // The stop string that is complete first wins, and of those that end together the one that begins first.
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)));
        if let Some((at, stop)) = found.min_by_key(|(at, stop)| (at + stop.len(), *at)) {
            let piece = Piece { text: self.held[..at].to_owned(), stop: Some(stop.clone()) };
            self.stopped = true;
            return piece;
        }
        let begins = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]));
        let at = self.held.char_indices().map(|(at, _)| at).find(|at| begins(*at));
        let rest = self.held.split_off(at.unwrap_or(self.held.len()));
        Piece { text: std::mem::replace(&mut self.held, rest), stop: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that is shown if `text` comes in pieces of `size` characters, and the stop string.
    fn shown(stops: &[&str], text: &str, size: usize) -> (String, Option<String>) {
        let mut state = Stops::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let (mut all, mut found) = (String::new(), None);
        for piece in text.chars().collect::<Vec<_>>().chunks(size) {
            let piece = state.push(&piece.iter().collect::<String>());
            all += &piece.text;
            found = found.or(piece.stop);
        }
        if found.is_none() {
            all += &state.held;
        }
        (all, found)
    }

    #[test]
    fn stop_strings_are_found_across_pieces() {
        for size in 1..9 {
            assert_eq!(shown(&["END"], "an EN ENEND END", size), ("an EN EN".into(), Some("END".into())));
            assert_eq!(shown(&["", "xyz"], "xyxyxy", size), ("xyxyxy".into(), None));
            assert_eq!(shown(&["\u{e9}\u{e9}"], "a\u{e9}b\u{e9}\u{e9}c", size).0, "a\u{e9}b");
        }
        assert_eq!(shown(&["bcd", "c"], "abcd", 1), ("ab".into(), Some("c".into())));
    }

    #[test]
    fn what_cannot_be_a_stop_string_is_shown_at_once() {
        let mut stops = Stops::new(vec!["\n\nUser".into()]);
        assert_eq!(stops.push("hello\n").text, "hello");
        assert_eq!(stops.push("\nyou").text, "\n\nyou");
        assert_eq!(stops.push("\n\nUser: x"), Piece { text: String::new(), stop: Some("\n\nUser".into()) });
        assert_eq!(stops.push("more"), Piece::default());
    }
}
