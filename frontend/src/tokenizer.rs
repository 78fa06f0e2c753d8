//! Text to token ids and back, from `tokenizer.json`.
//!
//! The `tokenizers` crate does the work; this module adds what a server needs around it: a size cap, panics
//! turned into errors, ids checked against the model's vocabulary, and a decoder that streams whole characters.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use thiserror::Error;

use crate::json;
use crate::source::{FileKind, ModelDir, SourceError, shorten};
use crate::spelled::{Finder, Renamed};

/// The longest text that is encoded at once, in bytes.
pub const TEXT_MAX: usize = 16 << 20;

/// Why text cannot be turned into tokens or back.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file is not a tokenizer.
    #[error("{place}: {reason}; write tokenizer.json again with `save_pretrained`")]
    Malformed {
        /// The file.
        place: String,
        /// What the library says.
        reason: String,
    },
    /// A text over the cap.
    #[error("the text has {found} bytes, at most {TEXT_MAX} are encoded at once; split it")]
    TooLong {
        /// Its length in bytes.
        found: usize,
    },
    /// The library refused a text or ids.
    #[error("cannot {action}: {reason}; is tokenizer.json damaged?")]
    Failed {
        /// `encode the text` or `decode the tokens`.
        action: &'static str,
        /// What the library says.
        reason: String,
    },
    /// An id that the model has no row for.
    #[error(
        "token id {id}: wanted ids below the vocabulary size {vocabulary}; \
         the tokenizer and the model do not belong together"
    )]
    OutOfVocabulary {
        /// The id.
        id: u32,
        /// The model's vocabulary size.
        vocabulary: usize,
    },
}

/// The tokenizer of a model. Cloning shares it.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    vocabulary: usize,
    /// What texts need that spell special tokens; made when the first one comes.
    spelled: Arc<Spelled>,
}

#[derive(Default)]
struct Spelled {
    finder: OnceLock<Result<Finder, String>>,
    renamed: OnceLock<Result<Renamed, String>>,
}

/// How well a text packs into tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenStats {
    /// Tokens.
    pub tokens: usize,
    /// Unicode characters.
    pub chars: usize,
    /// Bytes of UTF-8.
    pub bytes: usize,
}

impl TokenStats {
    /// Tokens per character; zero for an empty text.
    pub fn tokens_per_char(&self) -> f64 {
        ratio(self.tokens, self.chars)
    }

    /// Tokens per byte; zero for an empty text.
    pub fn tokens_per_byte(&self) -> f64 {
        ratio(self.tokens, self.bytes)
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A text, or two, as a model takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The token ids.
    pub ids: Vec<u32>,
    /// The type of each token: which of two texts it belongs to.
    pub types: Vec<u32>,
}

impl Tokenizer {
    /// Loads `tokenizer.json` for a model with `vocabulary` rows in its embedding.
    pub fn load(dir: &ModelDir, vocabulary: usize) -> Result<Self, TokenizerError> {
        let bytes = dir.read(FileKind::Tokenizer)?;
        Tokenizer::parse_at(&bytes, vocabulary, dir.place(FileKind::Tokenizer.name()))
    }

    /// Parses a tokenizer without a file.
    pub fn parse(bytes: &[u8], vocabulary: usize) -> Result<Self, TokenizerError> {
        Tokenizer::parse_at(bytes, vocabulary, "tokenizer.json".to_owned())
    }

    fn parse_at(bytes: &[u8], vocabulary: usize, place: String) -> Result<Self, TokenizerError> {
        let malformed =
            |reason: String| TokenizerError::Malformed { place: place.clone(), reason: shorten(&reason) };
        json::check_depth(bytes).map_err(malformed)?;
        let parsed = guarded(|| tokenizers::Tokenizer::from_bytes(bytes));
        let mut inner = parsed.map_err(malformed)?;
        // Files of sentence encoders ask for cutting and padding; both are the caller's decisions here.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| malformed(e.to_string()))?;
        Ok(Tokenizer { inner: Arc::new(inner), vocabulary, spelled: Arc::default() })
    }

    /// The ids of a text; `add_special` adds the begin and end tokens that the model's post-processor asks for.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > TEXT_MAX {
            return Err(TokenizerError::TooLong { found: text.len() });
        }
        let encoded = guarded(|| self.inner.encode_fast(text, add_special));
        let encoded = encoded.map_err(|reason| failed("encode the text", &reason))?;
        let ids = encoded.get_ids();
        self.check(ids)?;
        Ok(ids.to_vec())
    }

    /// The ids of a text, or of two as one, with the special tokens and the token types of the model's post-processor.
    pub fn encode_pair(&self, first: &str, second: Option<&str>) -> Result<Encoded, TokenizerError> {
        let found = first.len().saturating_add(second.map_or(0, str::len));
        if found > TEXT_MAX {
            return Err(TokenizerError::TooLong { found });
        }
        let encoded = guarded(|| match second {
            None => self.inner.encode_fast(first, true),
            Some(second) => self.inner.encode_fast((first, second), true),
        });
        let encoded = encoded.map_err(|reason| failed("encode the text", &reason))?;
        self.check(encoded.get_ids())?;
        Ok(Encoded { ids: encoded.get_ids().to_vec(), types: encoded.get_type_ids().to_vec() })
    }

    /// The text of a row of ids, without the special tokens if `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.check(ids)?;
        self.decode_checked(ids, skip_special)
    }

    fn decode_checked(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        let decoded = guarded(|| self.inner.decode(ids, skip_special));
        decoded.map_err(|reason| failed("decode the tokens", &reason))
    }

    /// Refuses ids that the model has no row for.
    pub fn check(&self, ids: &[u32]) -> Result<(), TokenizerError> {
        let outside = |id: &&u32| usize::try_from(**id).map_or(true, |id| id >= self.vocabulary);
        match ids.iter().find(outside) {
            None => Ok(()),
            Some(&id) => Err(TokenizerError::OutOfVocabulary { id, vocabulary: self.vocabulary }),
        }
    }

    /// How many ids the model has rows for.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The tokens that were added to the vocabulary: name, and whether it is special.
    pub(crate) fn added_tokens(&self) -> BTreeMap<u32, (String, bool)> {
        let added = self.inner.get_added_tokens_decoder();
        added.iter().map(|(id, token)| (*id, (token.content.clone(), token.special))).collect()
    }

    /// Finds the names of added tokens in texts.
    pub(crate) fn finder(&self) -> Result<&Finder, TokenizerError> {
        let made = self.spelled.finder.get_or_init(|| Finder::new(&self.added_tokens()));
        made.as_ref().map_err(|reason| failed("look for special tokens", reason))
    }

    /// The tokenizer with private names for its special tokens.
    pub(crate) fn renamed(&self) -> Result<&Renamed, TokenizerError> {
        let made = self.spelled.renamed.get_or_init(|| Renamed::new(&self.inner));
        made.as_ref().map_err(|reason| failed("rename special tokens", reason))
    }

    /// How the tokenizer turns tokens into text, as its file says it.
    pub(crate) fn decoder_json(&self) -> String {
        serde_json::to_string(&self.inner.get_decoder()).unwrap_or_default()
    }

    /// The token as it stands in the vocabulary, for display.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token as it stands in the vocabulary.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.inner.token_to_id(piece)
    }

    /// Whether an id is a special token, such as the end of a text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// The ids of all special tokens, sorted.
    pub fn special_ids(&self) -> Vec<u32> {
        let added = self.inner.get_added_tokens_decoder();
        let mut ids: Vec<u32> = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// How well a text packs into tokens, special ones not counted.
    pub fn stats(&self, text: &str) -> Result<TokenStats, TokenizerError> {
        let tokens = self.encode(text, false)?.len();
        Ok(TokenStats { tokens, chars: text.chars().count(), bytes: text.len() })
    }

    /// A decoder for tokens that come one by one.
    pub fn detokenizer(&self, skip_special: bool) -> Detokenizer {
        Detokenizer { tokenizer: self.clone(), skip_special, ids: Vec::new(), shown: 0 }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer(vocabulary {})", self.vocabulary)
    }
}

/// Runs a call of the library and turns both its errors and its panics into words.
pub(crate) fn guarded<T, E: std::fmt::Display>(call: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("the tokenizer library gave up: {}", words.unwrap_or("no reason given")))
        }
    }
}

pub(crate) fn failed(action: &'static str, reason: &str) -> TokenizerError {
    TokenizerError::Failed { action, reason: shorten(reason) }
}

/// Decodes tokens as they come and gives out whole characters only.
///
/// A character may take several tokens, and how a token reads may depend on the one before it. So the decoder
/// keeps the tokens of the last piece it gave out as context, decodes context and new tokens together, and holds
/// text back while it ends in U+FFFD, the sign of bytes that are not a whole character yet.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// The context, then the tokens that have not been given out.
    ids: Vec<u32>,
    /// How many of `ids` are context.
    shown: usize,
}

/// A character has at most four bytes; tokens that still give no whole character after this many never will.
const HELD_MAX: usize = 8;
const UNFINISHED: char = '\u{FFFD}';

impl Detokenizer {
    /// Takes a token and gives the text that is now certain, which may be empty.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.tokenizer.check(&[id])?;
        self.ids.push(id);
        let held = self.ids.len().saturating_sub(self.shown);
        self.advance(held >= HELD_MAX)
    }

    /// Gives what was held back; for the end of a text.
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        self.advance(true)
    }

    fn advance(&mut self, force: bool) -> Result<String, TokenizerError> {
        let context = self.ids.get(..self.shown).unwrap_or_default();
        let before = self.tokenizer.decode_checked(context, self.skip_special)?;
        let after = self.tokenizer.decode_checked(&self.ids, self.skip_special)?;
        if after.ends_with(UNFINISHED) && !force {
            return Ok(String::new());
        }
        let piece = new_text(&before, &after).to_owned();
        if piece.is_empty() && !force {
            // A special token that is left out, or a blank that the next token decides about.
            let held = self.ids.len().saturating_sub(self.shown);
            if held < HELD_MAX {
                return Ok(piece);
            }
        }
        self.ids.drain(..self.shown.min(self.ids.len()));
        self.shown = self.ids.len();
        Ok(piece)
    }
}

/// What `after` has beyond `before`; the common beginning where one does not begin with the other.
fn new_text<'a>(before: &str, after: &'a str) -> &'a str {
    if let Some(rest) = after.strip_prefix(before) {
        return rest;
    }
    let common = before.char_indices().zip(after.chars()).take_while(|((_, a), b)| a == b).last();
    let start = common.map_or(0, |((at, c), _)| at.saturating_add(c.len_utf8()));
    after.get(start..).unwrap_or_default()
}
