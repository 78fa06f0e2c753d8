//! Fuzzing of what strangers write: headers of safetensors files, `config.json` and GGUF files, mutated from the goldens.
//!
//! A case is a pure function of its seed, so a seed is all that a failure has to report. Most mutations happen in a tree
//! of the JSON text, where a number can be swapped for a worse one and the rest stays well formed; some happen in the
//! bytes. [`Corpus::case`] makes a case, [`Case::run`] runs it and checks what an accepted input promises.

use crate::golden;
use sinter_frontend::build::{BuildOptions, build};
use sinter_frontend::config::RawConfig;
use sinter_frontend::gguf::Gguf;
use sinter_frontend::header::parse_header;
use sinter_frontend::quant::Quantisation;
use sinter_frontend::resolve::resolve;
use sinter_frontend::source::FileKind;
use sinter_frontend::tokenizer::Tokenizer;
use sinter_ir::DType;
use std::fmt::Write;

/// A configuration with more layers than this is resolved, but no graph is built of it.
const BUILT_LAYERS: usize = 8;
/// The longest file that is also shown to the reference implementation.
const REFERENCE_BYTES: u64 = 1 << 20;

/// Numbers at which careless code breaks, as text with spaces between.
const NUMBERS: &str = r#"
    0 -0 1 -1 2 3 7 0.5 1e-300 1e308 -1e308 1e400 4095 65536 1048576 1048577 4294967295 4294967296
    9007199254740993 9223372036854775807 9223372036854775808 18446744073709551615 18446744073709551616
    NaN Infinity 01 1.
"#;

/// Values of other types, and words that mean something somewhere.
const VALUES: &str = r#"
    null true false "" "NaN" "\u0000" "\ud800" [] {} [0] [[]] {"a":{}} "F32" "F4" "BOOL" "llama3" "yarn"
    "linear" "dynamic" "longrope" "default" "relu" "gelu" "llama" "mistral" "qwen2" "qwen3" "gemma2"
    "phi3" "gpt2" "gpt_neox" "bert" ["full_attention","sliding_attention"]
"#;

/// Bytes that are put in between.
const PIECES: &str = "{ } [ ] , : \" \\ \0 \u{feff} é // e - 9";

/// Small deterministic random numbers: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
    /// One of the words of a list.
    fn pick(&mut self, words: &'static str) -> &'static str {
        let at = self.below(words.split_whitespace().count());
        words.split_whitespace().nth(at).unwrap_or_default()
    }
}

/// JSON text as a tree. Unlike a parsed value it holds any leaf, and a key as often as one likes.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(String),
    List(Vec<Tree>),
    Table(Vec<(String, Tree)>),
}

impl Tree {
    fn new(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Array(items) => Tree::List(items.iter().map(Tree::new).collect()),
            serde_json::Value::Object(map) => {
                Tree::Table(map.iter().map(|(key, value)| (key.clone(), Tree::new(value))).collect())
            }
            leaf => Tree::Leaf(leaf.to_string()),
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Tree::Leaf(leaf) => text.push_str(leaf),
            Tree::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    text.push(if at == 0 { '[' } else { ',' });
                    item.write(text);
                }
                text.push_str(if items.is_empty() { "[]" } else { "]" });
            }
            Tree::Table(entries) => {
                text.push('{');
                for (at, (key, value)) in entries.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    // A key is a JSON string; Rust's own quoting differs for control characters.
                    let _ = write!(text, "{comma}{}:", serde_json::Value::String(key.clone()));
                    value.write(text);
                }
                text.push('}');
            }
        }
    }

    /// A place in the tree, nearer to the root or farther from it.
    fn descend(&mut self, random: &mut Random) -> &mut Tree {
        let count = self.len();
        if count == 0 || random.one_in(5) {
            return self;
        }
        let at = random.below(count);
        match self {
            Tree::List(items) => items[at].descend(random),
            Tree::Table(entries) => entries[at].1.descend(random),
            Tree::Leaf(_) => self,
        }
    }

    fn len(&self) -> usize {
        match self {
            Tree::Leaf(_) => 0,
            Tree::List(items) => items.len(),
            Tree::Table(entries) => entries.len(),
        }
    }

    /// Some leaf of the tree, as text.
    fn some_leaf(&self, random: &mut Random) -> String {
        match self {
            Tree::Leaf(leaf) => leaf.clone(),
            Tree::List(items) if !items.is_empty() => items[random.below(items.len())].some_leaf(random),
            Tree::Table(entries) if !entries.is_empty() => {
                entries[random.below(entries.len())].1.some_leaf(random)
            }
            Tree::List(_) | Tree::Table(_) => "0".into(),
        }
    }

    /// One structured mutation; `other` lends its parts.
    fn mutate(&mut self, other: &Tree, random: &mut Random) {
        let leaf = if random.one_in(2) { self.some_leaf(random) } else { other.some_leaf(random) };
        let place = self.descend(random);
        match place {
            Tree::Leaf(text) => mutate_leaf(text, leaf, random),
            Tree::List(items) => mutate_items(items, Tree::Leaf(leaf), random),
            Tree::Table(entries) => mutate_entries(entries, other, random),
        }
        if random.one_in(40) {
            let levels = [1, 2, 63, 64, 65, 127, 128, 5000][random.below(8)];
            *place = Tree::Leaf(nested(levels, random));
        }
    }
}

/// Brackets inside brackets, sometimes without their ends.
fn nested(levels: usize, random: &mut Random) -> String {
    let (open, close) = if random.one_in(2) { ("[", "]") } else { ("{\"a\":", "}") };
    let ends = if random.one_in(3) { 0 } else { levels };
    format!("{}1{}", open.repeat(levels), close.repeat(ends))
}

fn mutate_leaf(text: &mut String, other: String, random: &mut Random) {
    let number = text.parse::<i64>().ok();
    match (random.below(5), number) {
        (0, Some(number)) => *text = number.saturating_add(random.below(5) as i64 - 2).to_string(),
        (1, Some(number)) => *text = number.saturating_mul(2).to_string(),
        (0 | 1, None) | (2, _) => *text = random.pick(VALUES).into(),
        (3, _) => *text = random.pick(NUMBERS).into(),
        _ => *text = other,
    }
}

fn mutate_items(items: &mut Vec<Tree>, other: Tree, random: &mut Random) {
    let at = random.below(items.len());
    match random.below(5) {
        0 if !items.is_empty() => drop(items.remove(at)),
        1 if !items.is_empty() => items.push(items[at].clone()),
        2 if !items.is_empty() => items.swap(0, at),
        3 => items.resize(items.len() + random.below(20), other),
        _ => items.insert(at, other),
    }
}

/// Keys removed, repeated, exchanged, renamed, or taken from elsewhere.
fn mutate_entries(entries: &mut Vec<(String, Tree)>, other: &Tree, random: &mut Random) {
    let (at, to) = (random.below(entries.len()), random.below(entries.len()));
    match random.below(7) {
        0 if !entries.is_empty() => drop(entries.remove(at)),
        1 if !entries.is_empty() => entries.push(entries[at].clone()),
        2 if !entries.is_empty() => entries.swap(at, to),
        3 if !entries.is_empty() => entries[at].1 = entries[to].1.clone(),
        4 if !entries.is_empty() => entries[at].0.push('x'),
        5 => entries.insert(at, ("__metadata__".into(), Tree::Table(Vec::new()))),
        _ => match other {
            Tree::Table(lent) if !lent.is_empty() => {
                entries.insert(at, lent[random.below(lent.len())].clone())
            }
            _ => entries.insert(at, (String::new(), other.clone())),
        },
    }
}

/// One mutation of bytes.
fn mutate_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    let (at, to) = (random.below(bytes.len()), random.below(bytes.len()));
    match random.below(6) {
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        2 => bytes.truncate(at),
        3 if !bytes.is_empty() => drop(bytes.remove(at)),
        4 => {
            let part = bytes[at.min(to)..at.max(to)].to_vec();
            let place = random.below(bytes.len());
            drop(bytes.splice(place..place, part));
        }
        _ => drop(bytes.splice(at..at, random.pick(PIECES).bytes())),
    }
}

/// What a case is given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The first bytes of a safetensors file of this length.
    Header {
        /// The file's length.
        file_len: u64,
    },
    /// `config.json`.
    Config,
    /// A GGUF file.
    Gguf,
}

/// One mutated input.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is given to.
    pub door: Door,
    /// The input.
    pub bytes: Vec<u8>,
}

/// What the cases are made from.
#[derive(Debug)]
pub struct Corpus {
    /// Headers, each with the number of bytes that follow it.
    headers: Vec<(Tree, u64)>,
    configs: Vec<Tree>,
    /// GGUF files, each with the length of what stands before its tensors.
    ggufs: Vec<(Vec<u8>, usize)>,
}

impl Corpus {
    /// The headers and the configurations of all goldens.
    pub fn goldens() -> std::io::Result<Self> {
        let mut corpus = Corpus { headers: Vec::new(), configs: Vec::new(), ggufs: Vec::new() };
        for name in ["formats_32", "pieces", "pairs"] {
            let file = std::fs::read(golden::gguf_file(name))?;
            // Tensors follow the head; a mutation among them would only change numbers.
            let head = file.windows(13).rposition(|part| part.starts_with(b"blk.0.")).unwrap_or(0) + 100;
            corpus.ggufs.push((file, head));
        }
        for name in golden::names() {
            let folder = golden::folder().join(name);
            corpus
                .configs
                .push(Tree::new(&serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?));
            for file in ["model.safetensors", "model-00001-of-00002.safetensors", "expected.safetensors"] {
                let path = folder.join(file);
                if path.exists() {
                    corpus.headers.extend(header_of(&std::fs::read(path)?));
                }
            }
        }
        Ok(corpus)
    }

    /// The case of a seed.
    pub fn case(&self, seed: u64) -> Case {
        let mut random = Random(seed);
        match random.below(5) {
            0 | 1 => self.header(&mut random),
            2 | 3 => self.config(&mut random),
            _ => self.gguf(&mut random),
        }
    }

    /// A file with up to four changes in its head, mostly of numbers and names.
    fn gguf(&self, random: &mut Random) -> Case {
        let (file, head) = &self.ggufs[random.below(self.ggufs.len())];
        let mut bytes = file.clone();
        for _ in 0..random.below(5) {
            let at = random.below(*head);
            let number = match random.below(3) {
                0 => random.next() >> random.below(64),
                1 => 1 << random.below(64),
                _ => random.below(256) as u64,
            };
            match random.below(6) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at..at + 8].copy_from_slice(&number.to_le_bytes()),
                2 => bytes[at..at + 4].copy_from_slice(&(number as u32).to_le_bytes()),
                3 => bytes.copy_within(at..at + random.below(8), random.below(*head)),
                4 if random.one_in(4) => bytes.truncate((*head + 8).max(random.below(bytes.len()))),
                _ => bytes[at] = random.next() as u8,
            }
        }
        if random.one_in(20) {
            mutate_bytes(&mut bytes, random);
        }
        Case { door: Door::Gguf, bytes }
    }

    fn config(&self, random: &mut Random) -> Case {
        let mut tree = self.configs[random.below(self.configs.len())].clone();
        let other = &self.configs[random.below(self.configs.len())];
        Case { door: Door::Config, bytes: mutated(&mut tree, other, random) }
    }

    fn header(&self, random: &mut Random) -> Case {
        let (tree, data) = &self.headers[random.below(self.headers.len())];
        let (other, _) = &self.headers[random.below(self.headers.len())];
        let mut tree = tree.clone();
        // The order in the text need not be that of the offsets.
        if let (Tree::Table(entries), true) = (&mut tree, random.one_in(3)) {
            let at = random.below(entries.len());
            entries.rotate_left(at);
        }
        let json = mutated(&mut tree, other, random);
        let stated = if random.one_in(20) { random.next() >> random.below(64) } else { json.len() as u64 };
        let mut bytes = stated.to_le_bytes().to_vec();
        bytes.extend(json);
        if random.one_in(50) {
            mutate_bytes(&mut bytes, random);
        }
        let file_len = match random.below(30) {
            0 => random.next() >> random.below(64),
            1 => u64::MAX,
            2 => (bytes.len() as u64 + data).saturating_sub(1),
            _ => bytes.len() as u64 + data,
        };
        Case { door: Door::Header { file_len }, bytes }
    }
}

/// The header of a file as a tree, and the length of what follows; none for a file that is too short.
fn header_of(file: &[u8]) -> Option<(Tree, u64)> {
    let length = usize::try_from(u64::from_le_bytes(*file.first_chunk()?)).ok()?;
    let json = file.get(8..length.checked_add(8)?)?;
    let value = serde_json::from_slice(json).ok()?;
    Some((Tree::new(&value), (file.len() - 8 - length) as u64))
}

/// The text of a tree after up to four mutations.
fn mutated(tree: &mut Tree, other: &Tree, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(4) {
        tree.mutate(other, random);
    }
    let mut text = String::new();
    tree.write(&mut text);
    let mut bytes = text.into_bytes();
    if random.one_in(4) {
        mutate_bytes(&mut bytes, random);
    }
    bytes
}

impl Case {
    /// Runs the case: whether the input is accepted. The error says which promise an accepted input breaks.
    pub fn run(&self) -> Result<bool, String> {
        match self.door {
            Door::Header { file_len } => run_header(&self.bytes, file_len),
            Door::Config => run_config(&self.bytes),
            Door::Gguf => run_gguf(&self.bytes),
        }
    }
}

/// An accepted header describes its file without gap or overlap, and the reference implementation accepts it as well.
fn run_header(bytes: &[u8], file_len: u64) -> Result<bool, String> {
    let Ok(header) = parse_header(bytes, file_len) else { return Ok(false) };
    let mut places: Vec<(u64, u64)> = header.tensors.values().map(|entry| (entry.begin, entry.end)).collect();
    places.sort_unstable();
    let end = places.iter().try_fold(header.data_start, |at, (begin, end)| {
        if *begin == at && *end >= at {
            Ok(*end)
        } else {
            Err(format!("{begin}..{end} does not continue {at}"))
        }
    })?;
    if end != file_len {
        return Err(format!("the tensors end at {end}, the file at {file_len}"));
    }
    if file_len <= REFERENCE_BYTES {
        let mut file = bytes.to_vec();
        file.resize(file_len as usize, 0);
        match safetensors::SafeTensors::read_metadata(&file) {
            Ok((_, metadata)) if metadata.tensors().len() == header.tensors.len() => {}
            Ok(_) => return Err("the reference finds another number of tensors".into()),
            Err(error) => return Err(format!("the reference refuses it: {error}")),
        }
    }
    Ok(true)
}

/// An accepted file gives tensors of the lengths that their types and shapes ask for, and a configuration and a tokenizer
/// that are accepted or refused as others are.
fn run_gguf(bytes: &[u8]) -> Result<bool, String> {
    let Ok(gguf) = Gguf::parse(bytes.to_vec()) else { return Ok(false) };
    for name in gguf.names() {
        let (dtype, shape, bytes) =
            gguf.tensor(name).ok_or_else(|| format!("{name} lies outside the file"))?;
        let bits = shape.iter().product::<usize>() * dtype.bitsize();
        if bits != bytes.len() * 8 {
            return Err(format!("{name}: {dtype:?} {shape:?} has {} bytes", bytes.len()));
        }
    }
    let config = gguf.file(FileKind::Config).ok().flatten().ok_or("there is no config.json")?;
    let config = RawConfig::parse(&config).map_err(|error| error.to_string())?;
    Quantisation::read(&config).map_err(|error| error.to_string())?;
    run_parsed(&config)?;
    let Ok(Some(tokenizer)) = gguf.file(FileKind::Tokenizer) else { return Ok(true) };
    Ok(Tokenizer::parse(&tokenizer, 1 << 20).is_ok())
}

/// An accepted configuration gives a graph that the verifier accepts, or an error from the builder.
fn run_config(bytes: &[u8]) -> Result<bool, String> {
    let Ok(config) = RawConfig::parse(bytes) else { return Ok(false) };
    run_parsed(&config)
}

fn run_parsed(config: &RawConfig) -> Result<bool, String> {
    let Ok(spec) = resolve(config, &|_| true) else { return Ok(false) };
    if spec.layers.len() > BUILT_LAYERS {
        return Ok(true);
    }
    let Ok(graph) = build(&spec, BuildOptions::new(DType::F32)) else { return Ok(false) };
    match sinter_ir::verify(&graph).first() {
        Some(violation) => Err(format!("the graph breaks a rule: {violation}")),
        None => Ok(true),
    }
}
