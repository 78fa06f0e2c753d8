//! From the metadata of a file to `tokenizer.json` and `tokenizer_config.json`.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use super::GgufError;
use super::metadata::Metadata;
use super::pretokenizers::{self, known};
use crate::source::shorten;

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Special tokens that end an answer, besides those that entries name: files of chat models name the end of a text only.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<EOT>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_utterance>",
];

/// What a token is, as the file has it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    /// Found in texts before anything else.
    UserDefined,
    /// Never produced.
    Unused,
    /// One byte.
    Byte,
}

/// The tokens of a file.
struct Vocabulary<'a> {
    tokens: &'a [Box<str>],
    kinds: Vec<Kind>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &Metadata<'a>) -> Result<Option<Self>, GgufError> {
        let Some(tokens) = metadata.texts(TOKENS)? else { return Ok(None) };
        let key = "tokenizer.ggml.token_type";
        let kinds = match metadata.wholes(key)? {
            None => vec![Kind::Normal; tokens.len()],
            Some(kinds) if kinds.len() == tokens.len() => {
                let kind = |number: &i64| {
                    Some(match number {
                        1 => Kind::Normal,
                        2 => Kind::Unknown,
                        3 => Kind::Control,
                        4 => Kind::UserDefined,
                        5 => Kind::Unused,
                        6 => Kind::Byte,
                        _ => return None,
                    })
                };
                let kinds: Option<Vec<Kind>> = kinds.iter().map(kind).collect();
                kinds.ok_or_else(|| metadata.wrong(key, "numbers from 1 to 6"))?
            }
            Some(kinds) => {
                let wanted = format!("{} numbers, one a token, not {}", tokens.len(), kinds.len());
                return Err(metadata.wrong(key, wanted));
            }
        };
        Ok(Some(Vocabulary { tokens, kinds }))
    }

    /// The token whose id stands in an entry.
    fn named(&self, metadata: &Metadata<'_>, entry: &str) -> Result<Option<(u64, &'a str)>, GgufError> {
        let key = format!("tokenizer.ggml.{entry}_token_id");
        let Some(id) = metadata.whole(&key)? else { return Ok(None) };
        let token = usize::try_from(id).ok().and_then(|id| self.tokens.get(id));
        let token = token.ok_or_else(|| metadata.wrong(&key, format!("below {}", self.tokens.len())))?;
        Ok(Some((id, token)))
    }

    fn all(&self) -> impl Iterator<Item = (usize, &'a str, Kind)> {
        self.tokens.iter().zip(&self.kinds).enumerate().map(|(id, (token, kind))| (id, &**token, *kind))
    }

    /// Every token and its id.
    fn ids(&self, metadata: &Metadata<'_>) -> Result<Map<String, Json>, GgufError> {
        let mut ids = Map::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            if ids.insert(token.to_string(), json!(id)).is_some() {
                let wanted = format!("every token once, and {:?} is there twice", shorten(token));
                return Err(metadata.wrong(TOKENS, wanted));
            }
        }
        Ok(ids)
    }

    fn added(&self) -> Vec<Json> {
        let added = self.all().filter_map(|(id, token, kind)| {
            let special = match kind {
                Kind::Control | Kind::Unknown => true,
                Kind::UserDefined => false,
                Kind::Normal | Kind::Unused | Kind::Byte => return None,
            };
            Some(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            }))
        });
        added.collect()
    }
}

/// The ids that `config.json` has: of the token that begins a text, and of those that end one.
pub(super) fn ids(metadata: &Metadata<'_>, config: &mut Map<String, Json>) -> Result<(), GgufError> {
    let Some(vocabulary) = Vocabulary::read(metadata)? else { return Ok(()) };
    if let Some((id, _)) = vocabulary.named(metadata, "bos")? {
        config.insert("bos_token_id".into(), json!(id));
    }
    let mut ends = Vec::new();
    for entry in ["eos", "eot", "eom"] {
        ends.extend(vocabulary.named(metadata, entry)?.map(|(id, _)| id));
    }
    let control = vocabulary.all().filter(|(_, token, kind)| *kind == Kind::Control && ENDS.contains(token));
    ends.extend(control.map(|(id, ..)| id as u64));
    ends.sort_unstable();
    ends.dedup();
    config.insert("eos_token_id".into(), json!(ends));
    Ok(())
}

/// Whether a file has a tokenizer.
pub(super) fn is_there(metadata: &Metadata<'_>) -> bool {
    metadata.text(MODEL).is_ok_and(|model| model.is_some_and(|model| !["none", "no_vocab"].contains(&model)))
}

/// `tokenizer_config.json`: the special tokens and the chat template.
pub(super) fn config(metadata: &Metadata<'_>) -> Result<Vec<u8>, GgufError> {
    let mut config = Map::new();
    if let Some(vocabulary) = Vocabulary::read(metadata)? {
        let names = [
            ("bos", "bos_token"),
            ("eos", "eos_token"),
            ("unknown", "unk_token"),
            ("padding", "pad_token"),
            ("seperator", "sep_token"),
            ("mask", "mask_token"),
        ];
        for (entry, field) in names {
            if let Some((_, token)) = vocabulary.named(metadata, entry)? {
                config.insert(field.into(), json!(token));
            }
        }
    }
    if let Some(template) = metadata.text(TEMPLATE)? {
        let mut named = vec![json!({ "name": "default", "template": template })];
        let start = format!("{TEMPLATE}.");
        for key in metadata.beginning(&start).collect::<Vec<_>>() {
            let template = metadata.text(key)?;
            named.push(json!({ "name": key.strip_prefix(&start), "template": template }));
        }
        let plain = json!(template);
        config.insert("chat_template".into(), if named.len() == 1 { plain } else { Json::Array(named) });
    }
    Ok(Json::Object(config).to_string().into_bytes())
}

/// `tokenizer.json`.
pub(super) fn tokenizer(metadata: &Metadata<'_>) -> Result<Vec<u8>, GgufError> {
    let model = metadata.text(MODEL)?.unwrap_or_default();
    let vocabulary =
        Vocabulary::read(metadata)?.ok_or_else(|| metadata.wrong(TOKENS, "an array of texts"))?;
    let (parts, begins) = match model {
        "gpt2" => pairs(metadata, &vocabulary)?,
        "llama" => (pieces(metadata, &vocabulary)?, true),
        _ => return Err(metadata.wrong(MODEL, "gpt2 or llama")),
    };
    let mut whole = parts;
    whole.insert("version".into(), json!("1.0"));
    whole.insert("added_tokens".into(), Json::Array(vocabulary.added()));
    let begins = metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(begins);
    let ends = metadata.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let begin = vocabulary.named(metadata, "bos")?.filter(|_| begins);
    let end = vocabulary.named(metadata, "eos")?.filter(|_| ends);
    whole.insert("post_processor".into(), frame(begin, end));
    Ok(Json::Object(whole).to_string().into_bytes())
}

/// The tokens that stand around a text.
fn frame(begin: Option<(u64, &str)>, end: Option<(u64, &str)>) -> Json {
    let special = |token: Option<(u64, &str)>, text: usize| {
        token.map(|(_, token)| json!({ "SpecialToken": { "id": token, "type_id": text } }))
    };
    let around = |name: &str, text: usize| {
        let sequence = json!({ "Sequence": { "id": name, "type_id": text } });
        special(begin, text).into_iter().chain([sequence]).chain(special(end, text)).collect::<Vec<_>>()
    };
    let tokens: Map<String, Json> = [begin, end]
        .into_iter()
        .flatten()
        .map(|(id, token)| (token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] })))
        .collect();
    let pair = [around("A", 0), around("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": pair,
        "special_tokens": tokens,
    })
}

/// Normaliser, pre-tokenizer, model and decoder of a vocabulary of byte pairs, and whether texts begin with a token.
fn pairs(
    metadata: &Metadata<'_>,
    vocabulary: &Vocabulary<'_>,
) -> Result<(Map<String, Json>, bool), GgufError> {
    let key = "tokenizer.ggml.pre";
    let row = pretokenizers::find(metadata.text(key)?.unwrap_or("default"));
    let row = row.ok_or_else(|| metadata.wrong(key, format!("one of {}", known().join(", "))))?;
    let key = "tokenizer.ggml.merges";
    let merges = metadata.texts(key)?.ok_or_else(|| metadata.wrong(key, "an array of texts"))?;
    let pair = |merge: &str| merge.split_once(' ').map(|(left, right)| json!([left, right]));
    let merges: Option<Vec<Json>> = merges.iter().map(|merge| pair(merge)).collect();
    let merges = merges.ok_or_else(|| metadata.wrong(key, "two tokens with a blank between them in each"))?;
    let split = |regex: &&str| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false });
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let splits: Vec<Json> = row.splits.iter().map(split).chain([bytes.clone()]).collect();
    let mut parts = Map::new();
    parts.insert("pre_tokenizer".into(), json!({ "type": "Sequence", "pretokenizers": splits }));
    parts.insert("decoder".into(), bytes);
    parts.insert(
        "model".into(),
        json!({
            "type": "BPE", "fuse_unk": false, "byte_fallback": false, "ignore_merges": row.whole_words,
            "vocab": vocabulary.ids(metadata)?, "merges": merges,
        }),
    );
    Ok((parts, row.begins))
}

/// Normaliser, model and decoder of a vocabulary of pieces with scores (Kudo, Richardson: SentencePiece, 2018).
fn pieces(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<Map<String, Json>, GgufError> {
    let key = "tokenizer.ggml.scores";
    let scores = metadata.reals(key)?.filter(|scores| scores.len() == vocabulary.tokens.len());
    let scores = scores.ok_or_else(|| metadata.wrong(key, "a number for each token"))?;
    let prefix = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let blank = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" });
    let begin = json!({ "type": "Prepend", "prepend": "\u{2581}" });
    let normalizers: Vec<&Json> =
        [Some(&begin).filter(|_| prefix), Some(&blank)].into_iter().flatten().collect();
    let strip = json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 });
    let decoders = [
        Some(json!({ "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " })),
        Some(json!({ "type": "ByteFallback" })),
        Some(json!({ "type": "Fuse" })),
        Some(strip).filter(|_| prefix),
    ];
    let decoders: Vec<Json> = decoders.into_iter().flatten().collect();
    let unknown = vocabulary.all().find(|(.., kind)| *kind == Kind::Unknown).map(|(_, token, _)| token);
    let bytes = vocabulary.kinds.contains(&Kind::Byte);
    let mut parts = Map::new();
    parts.insert("normalizer".into(), json!({ "type": "Sequence", "normalizers": normalizers }));
    parts.insert("decoder".into(), json!({ "type": "Sequence", "decoders": decoders }));
    parts.insert(
        "model".into(),
        json!({
            "type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": bytes,
            "vocab": vocabulary.ids(metadata)?, "merges": merges(vocabulary, scores),
        }),
    );
    Ok(parts)
}

/// The pairs whose join is a piece, in the order in which scores have them joined: the highest first, of equals the longer
/// parts.
fn merges(vocabulary: &Vocabulary<'_>, scores: &[f32]) -> Vec<Json> {
    let normal = vocabulary.all().filter(|(.., kind)| *kind == Kind::Normal);
    let pieces: HashMap<&str, usize> = normal.map(|(id, token, _)| (token, id)).collect();
    let mut merges: Vec<(f32, usize, usize, usize, usize)> = Vec::new();
    for (id, token, _) in vocabulary.all().filter(|(.., kind)| *kind == Kind::Normal) {
        let cuts = token.char_indices().skip(1).enumerate();
        let length = token.chars().count();
        let pairs = cuts.filter_map(|(at, (place, _))| {
            let (left, right) = (pieces.get(token.get(..place)?)?, pieces.get(token.get(place..)?)?);
            Some((*left, *right, at + 1))
        });
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(left, right, at)| (scores[id], at, length - at, left, right)));
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    let text = |id: usize| &*vocabulary.tokens[id];
    merges.iter().map(|(.., left, right)| json!([text(*left), text(*right)])).collect()
}
