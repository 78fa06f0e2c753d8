//! Structured output: JSON schemas, regular expressions and grammars as masks over a model's tokens.
//!
//! The engine knows nothing of text, and the tokenizer nothing of grammars, so they meet here. The grammars are those of
//! the `llguidance` crate.

use crate::cli::FormArgs;
use anyhow::{Context, Result};
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use sinter_frontend::token_bytes::TokenBytes;
use sinter_frontend::tokenizer::Tokenizer;
use sinter_runtime::TokenSet;
use sinter_runtime::engine::{Constraint, TokenMask};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The most bytes of a grammar.
const GRAMMAR_MAX: usize = 64 << 10;

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema describes.
    JsonSchema(Value),
    /// Text that a regular expression matches from begin to end.
    Regex(String),
    /// Text of a grammar in Lark's notation.
    Lark(String),
}

impl Grammar {
    /// One of these texts.
    pub fn choice(texts: &[&str]) -> Self {
        let quoted: Vec<String> = texts.iter().map(|text| Value::from(*text).to_string()).collect();
        Grammar::Lark(format!("start: {}", quoted.join(" | ")))
    }
}

impl FormArgs {
    /// The grammar that the flags ask for, if any.
    pub fn grammar(&self) -> Result<Option<Grammar>> {
        let file = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        if let Some(schema) = &self.json_schema {
            let inline = schema.trim_start().starts_with('{') || ["true", "false"].contains(&schema.trim());
            let text = if inline { schema.clone() } else { file(Path::new(schema))? };
            let value = serde_json::from_str(&text).context("--json-schema is no JSON")?;
            return Ok(Some(Grammar::JsonSchema(value)));
        }
        if let Some(path) = &self.grammar {
            return Ok(Some(Grammar::Lark(file(path)?)));
        }
        Ok(self.regex.clone().map(Grammar::Regex))
    }
}

/// Compiles grammars for one tokenizer.
pub struct Grammars {
    factory: Arc<ParserFactory>,
    vocab: usize,
}

impl Grammars {
    /// A compiler for a tokenizer, whose answers end with one of `ends`.
    ///
    /// # Errors
    /// The tokenizer spells bytes in a way that is not known, or there is no token that ends an answer.
    pub fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Result<Self> {
        let tokens = tokenizer.token_bytes().context(
            "the tokenizer's decoder is neither byte-level nor that of SentencePiece, so its answers cannot be \
             constrained",
        )?;
        let end = ends.first().context("the model names no token that ends an answer (eos_token_id)")?;
        let words: Vec<Vec<u8>> = tokens.iter().map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, *end), &words).with_eos_tokens(ends);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env)?;
        factory.quiet();
        Ok(Self { factory: Arc::new(factory), vocab: words.len() })
    }

    /// A constraint that holds answers to a grammar.
    ///
    /// # Errors
    /// What is wrong with the grammar.
    pub fn compile(&self, grammar: &Grammar) -> Result<Arc<dyn Constraint>> {
        let source = match grammar {
            Grammar::JsonObject => {
                TopLevelGrammar::from_json_schema(one_spacing(json!({ "type": "object" })))
            }
            Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(one_spacing(schema.clone())),
            Grammar::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Grammar::Lark(lark) => TopLevelGrammar::from_lark(lark.clone()),
        };
        let size = serde_json::to_string(&source)?.len();
        anyhow::ensure!(size <= GRAMMAR_MAX, "a grammar of {size} bytes, wanted at most {GRAMMAR_MAX}");
        let first = Matcher::new(self.factory.create_parser(source));
        // A grammar that is wrong is refused now, not when the first answer begins.
        match first.get_error() {
            None => Ok(Arc::new(Compiled { first: Mutex::new(first), vocab: self.vocab })),
            Some(error) => Err(anyhow::Error::msg(error)),
        }
    }
}

/// A schema whose JSON has one way to be spaced. Models that are held to a grammar tend to wander off into blanks, which
/// JSON allows without end.
pub fn one_spacing(mut schema: Value) -> Value {
    if let Some(map) = schema.as_object_mut() {
        let spacing = json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
        map.entry("x-guidance").or_insert(spacing);
    }
    schema
}

/// The bytes of a token as the trie wants them; special tokens begin with a byte that no text has.
fn word(token: &TokenBytes) -> Vec<u8> {
    match token {
        TokenBytes::Text(bytes) => bytes.clone(),
        TokenBytes::Special(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
        TokenBytes::Unused => Vec::new(),
    }
}

/// A grammar that was compiled once. Answers begin on the engine's thread, so each gets a copy, which takes no time, and
/// shares nothing with the others.
struct Compiled {
    first: Mutex<Matcher>,
    vocab: usize,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compiled")
    }
}

impl Constraint for Compiled {
    fn start(&self) -> Result<Box<dyn TokenMask>, String> {
        let matcher = self.first.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        Ok(Box::new(Mask { matcher, vocab: self.vocab }))
    }
}

struct Mask {
    matcher: Matcher,
    vocab: usize,
}

impl TokenMask for Mask {
    fn allowed(&mut self) -> Result<TokenSet, String> {
        if self.matcher.is_stopped() {
            return match self.matcher.get_error() {
                Some(error) => Err(error),
                None => Ok(TokenSet::none(self.vocab)),
            };
        }
        let mask = self.matcher.compute_mask().map_err(|error| error.to_string())?;
        Ok(TokenSet::from_words(self.vocab, mask.as_slice()))
    }
    fn accept(&mut self, token: u32) -> Result<(), String> {
        self.matcher.consume_token(token).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinter_frontend::source::ModelDir;
    use sinter_runtime::uniform;

    fn grammars() -> (Tokenizer, Grammars, u32) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_chat/model");
        let dir = ModelDir::open(&path).unwrap();
        let config: Value =
            serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
        let vocab = config["vocab_size"].as_u64().unwrap() as usize;
        let end = config["eos_token_id"].as_u64().unwrap() as u32;
        let tokenizer = Tokenizer::load(&dir, vocab).unwrap();
        let grammars = Grammars::new(&tokenizer, &[end]).unwrap();
        (tokenizer, grammars, end)
    }

    /// A text of random tokens among those that are allowed.
    fn random_text(
        tokenizer: &Tokenizer,
        constraint: &dyn Constraint,
        end: u32,
        seed: u64,
    ) -> Option<String> {
        let mut mask = constraint.start().unwrap();
        let (mut tokens, mut at) = (Vec::new(), 0);
        while tokens.len() < 300 {
            let allowed = mask.allowed().unwrap();
            if allowed.is_empty() || (allowed.contains(end) && uniform(seed, at) < 0.5) {
                return Some(tokenizer.decode(&tokens, false).unwrap());
            }
            let ids: Vec<u32> = (0..2000).filter(|id| allowed.contains(*id) && *id != end).collect();
            if ids.is_empty() {
                return Some(tokenizer.decode(&tokens, false).unwrap());
            }
            let token = ids[(uniform(seed ^ 1, at) * ids.len() as f64) as usize];
            mask.accept(token).unwrap();
            tokens.push(token);
            at += 1;
        }
        None
    }

    #[test]
    fn random_tokens_become_what_the_grammar_describes() {
        let (tokenizer, grammars, end) = grammars();
        let schema = json!({
            "type": "object",
            "properties": { "ok": { "type": "boolean" }, "n": { "type": "integer", "minimum": 3, "maximum": 99 } },
            "required": ["ok", "n"],
            "additionalProperties": false,
        });
        let json = grammars.compile(&Grammar::JsonSchema(schema)).unwrap();
        let regex = grammars.compile(&Grammar::Regex("[ab]{2,4}-[0-9]".into())).unwrap();
        let lark = grammars.compile(&Grammar::Lark("start: \"x\" (\"y\" | \"z\")".into())).unwrap();
        let mut complete = 0;
        for seed in 0..20 {
            if let Some(text) = random_text(&tokenizer, &*json, end, seed) {
                let value: Value =
                    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
                assert!(
                    value["ok"].is_boolean() && (3..=99).contains(&value["n"].as_i64().unwrap()),
                    "{text}"
                );
                complete += 1;
            }
            let text = random_text(&tokenizer, &*regex, end, seed).unwrap();
            let (letters, digit) = text.split_once('-').unwrap();
            assert!((2..=4).contains(&letters.len()) && letters.chars().all(|c| "ab".contains(c)), "{text}");
            assert!(digit.len() == 1 && digit.chars().all(|c| c.is_ascii_digit()), "{text}");
            assert!(["xy", "xz"].contains(&random_text(&tokenizer, &*lark, end, seed).unwrap().as_str()));
        }
        assert!(complete > 0);
    }

    #[test]
    fn grammars_that_are_wrong_are_refused() {
        let (_, grammars, _) = grammars();
        for grammar in [
            Grammar::Regex("(".into()),
            Grammar::Lark("start: nowhere".into()),
            Grammar::JsonSchema(json!({ "type": "nonsense" })),
            Grammar::Regex("a".repeat(GRAMMAR_MAX + 1)),
        ] {
            assert!(grammars.compile(&grammar).is_err());
        }
    }
}
