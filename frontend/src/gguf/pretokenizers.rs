//! The ways of cutting a text into words before pairs are merged, by the names that files have for them.
//!
//! Each is a row: regular expressions that are applied one after the other, each to the pieces that the one before left.
//! They are those of the tokenizers that the names stand for.

/// A way of cutting.
#[derive(Debug)]
pub(super) struct Row {
    /// What `tokenizer.ggml.pre` says.
    pub(super) names: &'static [&'static str],
    /// What is cut out, one expression after the other.
    pub(super) splits: &'static [&'static str],
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub(super) whole_words: bool,
    /// Whether texts begin with the token for it where no entry says so.
    pub(super) begins: bool,
}

const PLAIN: Row = Row { names: &[], splits: &[], whole_words: false, begins: false };

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const CL100K: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

/// All ways.
pub(super) const ROWS: &[Row] = &[
    Row {
        names: &["default"],
        splits: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        ..PLAIN
    },
    Row {
        names: &["llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "midm-2.0", "lfm2"],
        splits: &[CL100K],
        whole_words: true,
        begins: true,
    },
    Row { names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], splits: &[CL100K], ..PLAIN },
    Row {
        names: &["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"],
        splits: &[QWEN2],
        ..PLAIN
    },
    Row {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "trillion",
            "granite-docling",
        ],
        splits: &[GPT2],
        ..PLAIN
    },
    Row {
        names: &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"],
        splits: &[r"\p{N}", GPT2],
        ..PLAIN
    },
    Row { names: &["falcon"], splits: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], ..PLAIN },
    Row { names: &["tekken"], splits: &[TEKKEN], whole_words: true, begins: true },
    Row { names: &["gpt-4o", "llama4", "kanana2", "minimax-m2"], splits: &[O200K], ..PLAIN },
    Row {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        splits: &[r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
        ..PLAIN
    },
    Row {
        names: &["deepseek-coder"],
        splits: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
        ..PLAIN
    },
    Row { names: &["poro-chat", "bloom", "gpt3-finnish"], splits: &[BLOOM], ..PLAIN },
    Row { names: &["viking"], splits: &[BLOOM, r"\p{N}"], ..PLAIN },
];

/// The way of a name.
pub(super) fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.names.contains(&name))
}

/// All names.
pub(super) fn known() -> Vec<&'static str> {
    ROWS.iter().flat_map(|row| row.names).copied().collect()
}
