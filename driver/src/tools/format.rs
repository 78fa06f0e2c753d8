//! The table of formats: how families of models write tool calls and reasoning.

use super::tagged_calls::TagStyle;

/// How a family writes tool calls.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// Its name, as `--tool-parser` takes it.
    pub name: &'static str,
    /// A chat template that contains all words of one of these lists belongs to it. The first row that fits is taken.
    pub signs: &'static [&'static [&'static str]],
    /// What begins a region of calls.
    pub open: &'static [&'static str],
    /// What ends it; empty if it ends where no further call begins.
    pub close: &'static str,
    /// Whether an answer that begins like a call is one without `open`.
    pub bare: bool,
    /// How calls are written in a region.
    pub body: Body,
    /// How calls are forced.
    pub forced: Forced,
    /// Whether ids of calls have exactly nine letters and digits, as the family's templates demand.
    pub short_ids: bool,
}

/// How calls are written in a region.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// JSON objects with `name` and `arguments` or `parameters`, one or several, or a list of them.
    Json,
    /// The name, then the arguments as a JSON object. Each call begins with `item` if that is not empty; `name` finds the
    /// name in the text between there and the object.
    Named {
        /// What begins each call.
        item: &'static str,
        /// The name in the text before the arguments.
        name: fn(&str) -> Option<&str>,
    },
    /// One call with a tag for each argument; the region ends with it.
    Tagged(TagStyle),
    /// Calls as Python writes them: one, or a list.
    Python,
}

/// How calls are written if they are forced, so that the same parser reads them. The arguments are a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forced {
    /// Before the first call.
    pub begin: &'static str,
    /// Before a name.
    pub before: &'static str,
    /// Between a name and its arguments.
    pub between: &'static str,
    /// After the arguments.
    pub after: &'static str,
    /// Between calls.
    pub separator: &'static str,
    /// After the last call.
    pub end: &'static str,
}

/// How a family writes its reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reasoning {
    /// Its name, as `--reasoning-parser` takes it.
    pub name: &'static str,
    /// What begins it.
    pub open: &'static str,
    /// What ends it.
    pub close: &'static str,
}

/// A list of objects with `name` and `arguments`.
const LIST: Forced = Forced {
    begin: "[",
    before: r#"{"name": ""#,
    between: r#"", "arguments": "#,
    after: "}",
    separator: ", ",
    end: "]",
};

/// All formats; where signs of several rows fit, the first counts.
pub const FORMATS: &[Format] = &[
    // DeepSeek V3, V3.1 and R1.
    Format {
        name: "deepseek_v3",
        signs: &[&["<｜tool▁calls▁begin｜>"]],
        open: &["<｜tool▁calls▁begin｜>"],
        close: "<｜tool▁calls▁end｜>",
        bare: false,
        body: Body::Named { item: "<｜tool▁call▁begin｜>", name: deepseek_name },
        forced: Forced {
            begin: "<｜tool▁calls▁begin｜>",
            before: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
            between: "\n```json\n",
            after: "\n```<｜tool▁call▁end｜>",
            separator: "\n",
            end: "<｜tool▁calls▁end｜>",
        },
        short_ids: false,
    },
    Format {
        name: "kimi_k2",
        signs: &[&["<|tool_calls_section_begin|>"]],
        open: &["<|tool_calls_section_begin|>"],
        close: "<|tool_calls_section_end|>",
        bare: false,
        body: Body::Named { item: "<|tool_call_begin|>", name: kimi_name },
        forced: Forced {
            begin: "<|tool_calls_section_begin|>",
            before: "<|tool_call_begin|>functions.",
            between: ":0<|tool_call_argument_begin|>",
            after: "<|tool_call_end|>",
            separator: "",
            end: "<|tool_calls_section_end|>",
        },
        short_ids: false,
    },
    // Mistral since v11: the name stands before the arguments.
    Format {
        name: "mistral_v11",
        signs: &[&["[TOOL_CALLS]", "[ARGS]"]],
        open: &["[TOOL_CALLS]"],
        close: "",
        bare: false,
        body: Body::Named { item: "", name: mistral_name },
        forced: Forced {
            begin: "",
            before: "[TOOL_CALLS]",
            between: "[ARGS]",
            after: "",
            separator: "",
            end: "",
        },
        short_ids: true,
    },
    Format {
        name: "mistral",
        signs: &[&["[TOOL_CALLS]"]],
        open: &["[TOOL_CALLS]"],
        close: "",
        bare: false,
        body: Body::Json,
        forced: Forced { begin: "[TOOL_CALLS][", ..LIST },
        short_ids: true,
    },
    Format {
        name: "qwen3_coder",
        signs: &[&["<function=", "<parameter="]],
        open: &["<tool_call>"],
        close: "</tool_call>",
        bare: false,
        body: Body::Tagged(TagStyle::FunctionParameter),
        forced: HERMES,
        short_ids: false,
    },
    // Llama 3.1 as Functionary and others train it.
    Format {
        name: "functionary",
        signs: &[&["<function=", "</function>"]],
        open: &["<function="],
        close: "</function>",
        bare: false,
        body: Body::Named { item: "", name: functionary_name },
        forced: Forced {
            begin: "",
            before: "<function=",
            between: ">",
            after: "</function>",
            separator: "",
            end: "",
        },
        short_ids: false,
    },
    Format {
        name: "glm4",
        signs: &[&["<arg_key>"]],
        open: &["<tool_call>"],
        close: "</tool_call>",
        bare: false,
        body: Body::Tagged(TagStyle::KeyValue),
        forced: HERMES,
        short_ids: false,
    },
    // Hermes 2 and later, Qwen 2.5 and 3, and many more.
    Format {
        name: "hermes",
        signs: &[&["<tool_call>"]],
        open: &["<tool_call>"],
        close: "</tool_call>",
        bare: false,
        body: Body::Json,
        forced: HERMES,
        short_ids: false,
    },
    Format {
        name: "phi4_mini",
        signs: &[&["<|tool_call|>", "<|/tool_call|>"], &["<|tool|>", "<|/tool|>"]],
        open: &["<|tool_call|>", "functools"],
        close: "<|/tool_call|>",
        bare: false,
        body: Body::Json,
        forced: Forced { begin: "<|tool_call|>[", end: "]<|/tool_call|>", ..LIST },
        short_ids: false,
    },
    Format {
        name: "granite",
        signs: &[&["<|tool_call|>"]],
        open: &["<|tool_call|>"],
        close: "",
        bare: false,
        body: Body::Json,
        forced: Forced { begin: "<|tool_call|>[", ..LIST },
        short_ids: false,
    },
    // Llama 3.2 and 4 write Python, with the markers or without.
    Format {
        name: "pythonic",
        signs: &[&["<|python_start|>"], &["[func_name1("]],
        open: &["<|python_start|>"],
        close: "<|python_end|>",
        bare: true,
        body: Body::Python,
        forced: LIST,
        short_ids: false,
    },
    // Llama 3.1 and 3.2: an object alone, or after the tag; the tag stands before built-in tools too.
    Format {
        name: "llama3_json",
        signs: &[&["<|python_tag|>"], &["\"parameters\": dictionary of argument name"]],
        open: &["<|python_tag|>"],
        close: "",
        bare: true,
        body: Body::Python,
        forced: Forced {
            begin: "",
            before: r#"{"name": ""#,
            between: r#"", "parameters": "#,
            after: "}",
            separator: "; ",
            end: "",
        },
        short_ids: false,
    },
    // For models whose template knows no tools: calls can be forced, and are read where they stand alone.
    Format {
        name: "json",
        signs: &[],
        open: &[],
        close: "",
        bare: true,
        body: Body::Json,
        forced: LIST,
        short_ids: false,
    },
];

const HERMES: Forced = Forced {
    begin: "",
    before: "<tool_call>\n{\"name\": \"",
    between: r#"", "arguments": "#,
    after: "}\n</tool_call>",
    separator: "\n",
    end: "",
};

/// All ways to reason.
pub const REASONINGS: &[Reasoning] = &[
    Reasoning { name: "think", open: "<think>", close: "</think>" },
    Reasoning { name: "mistral", open: "[THINK]", close: "[/THINK]" },
    Reasoning { name: "seed", open: "<seed:think>", close: "</seed:think>" },
];

/// V3: `function<sep>NAME\n```json\n`; V3.1: `NAME<sep>`.
fn deepseek_name(text: &str) -> Option<&str> {
    let (first, second) = text.split_once("<｜tool▁sep｜>")?;
    let second = second.trim().trim_end_matches("```json").trim();
    Some(if second.is_empty() { first.trim() } else { second })
}

/// `functions.NAME:0<|tool_call_argument_begin|>`
fn kimi_name(text: &str) -> Option<&str> {
    let (name, _) = text.split_once("<|tool_call_argument_begin|>")?;
    let name = name.trim();
    let name = name.strip_prefix("functions.").unwrap_or(name);
    Some(name.rsplit_once(':').map_or(name, |(name, _)| name))
}

/// `NAME[ARGS]` or `NAME[CALL_ID]…[ARGS]`; some leave the mark out.
fn mistral_name(text: &str) -> Option<&str> {
    Some(text.split('[').next().unwrap_or(text).trim())
}

/// `NAME>`
fn functionary_name(text: &str) -> Option<&str> {
    text.trim().strip_suffix('>').map(str::trim)
}
