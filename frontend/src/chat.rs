//! Messages to the text that the model was trained on, by the model's own template.
//!
//! A chat template is a program from a stranger. It runs on a thread of its own with counted instructions, a
//! budget of memory, a deadline and a capped output (the module `bounded`); it can reach no file and no other
//! template. An endless template is an error within a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use minijinja::machinery::{Vm, make_string_output};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::bounded::{self, Budget, EXHAUSTED};
use crate::clock;
use crate::json;
use crate::source::{FileKind, ModelDir, SourceError, shorten};

/// Instructions that one rendering may take; a conversation of 4096 messages needs a tenth of it.
const FUEL: u64 = 3_000_000;
/// The time that one rendering may take.
const DEADLINE: Duration = Duration::from_millis(900);
/// Bytes of the longest prompt.
pub const PROMPT_MAX: usize = 16 << 20;
/// Stack for the deepest nesting that the instructions allow; only touched pages cost memory.
const STACK: usize = 256 << 20;
/// Marks the words that a template itself raised.
const RAISED: char = '\u{1}';

/// Why there is no prompt.
#[derive(Debug, Error)]
pub enum ChatError {
    /// A file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file has a wrong field.
    #[error("{place}: {reason}; correct the file")]
    Malformed {
        /// The file.
        place: String,
        /// The fault.
        reason: String,
    },
    /// The model has no template.
    #[error(
        "{place}: the model has no chat template; complete plain text instead, or add chat_template.jinja"
    )]
    NoTemplate {
        /// The directory.
        place: String,
    },
    /// The template is not a valid program.
    #[error("{place}: the chat template does not compile: {reason}; correct the template")]
    Compile {
        /// The file.
        place: String,
        /// The engine's words.
        reason: String,
    },
    /// The template refused the conversation.
    #[error("the chat template refuses the conversation: {reason}")]
    Refused {
        /// The template's words.
        reason: String,
    },
    /// The template ran too long or made too much.
    #[error("the chat template does not end within its limits: {reason}; use another template")]
    Endless {
        /// Which limit.
        reason: String,
    },
    /// The template failed.
    #[error("the chat template failed: {reason}; do the messages have the fields it wants?")]
    Failed {
        /// The engine's words.
        reason: String,
    },
}

/// A conversation to be rendered.
#[derive(Clone, Debug, Default)]
pub struct ChatInput {
    /// The messages: objects with `role` and `content` and what else the template knows.
    pub messages: Vec<Value>,
    /// Descriptions of tools; empty for none.
    pub tools: Vec<Value>,
    /// Whether the text ends where the model is to answer.
    pub add_generation_prompt: bool,
    /// Further variables of the template, such as `enable_thinking`. Names that are no identifiers are ignored.
    pub extra: Map<String, Value>,
    /// The present, in seconds since 1970, for templates that print the date.
    pub now: i64,
}

/// The chat templates of a model with the special tokens that they print.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    /// Sources by name; the plain one is `default`.
    sources: Arc<BTreeMap<String, String>>,
    /// `bos_token`, `eos_token` and the like.
    tokens: Map<String, Value>,
}

/// The special tokens that tokenizer_config.json names and templates print.
const TOKENS: &[&str] =
    &["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl ChatTemplate {
    /// Reads the template of a model: `chat_template.jinja`, or the field of tokenizer_config.json.
    pub fn load(dir: &ModelDir) -> Result<Self, ChatError> {
        let place = dir.place(FileKind::TokenizerConfig.name());
        let config = dir.read_optional(FileKind::TokenizerConfig)?.unwrap_or_else(|| b"{}".to_vec());
        let config = json::parse_object(&config);
        let config = config.map_err(|reason| ChatError::Malformed { place: place.clone(), reason })?;
        let file = dir.read_optional(FileKind::ChatTemplate)?;
        let (sources, place) = match file {
            Some(bytes) => {
                let place = dir.place(FileKind::ChatTemplate.name());
                let source = String::from_utf8(bytes).map_err(|_| ChatError::Malformed {
                    place: place.clone(),
                    reason: "wanted UTF-8 text".to_owned(),
                })?;
                (BTreeMap::from([("default".to_owned(), source)]), place)
            }
            None => (inline_templates(&config, &place)?, place),
        };
        if sources.is_empty() {
            return Err(ChatError::NoTemplate { place: dir.root().display().to_string() });
        }
        ChatTemplate::build(sources, special_tokens(&config), &place)
    }

    /// A template given as text.
    pub fn parse(source: &str, tokens: Map<String, Value>) -> Result<Self, ChatError> {
        let sources = BTreeMap::from([("default".to_owned(), source.to_owned())]);
        ChatTemplate::build(sources, tokens, "chat template")
    }

    fn build(
        mut sources: BTreeMap<String, String>,
        tokens: Map<String, Value>,
        place: &str,
    ) -> Result<Self, ChatError> {
        for source in sources.values_mut() {
            if source.len() as u64 > FileKind::ChatTemplate.cap() {
                let reason = format!("the template has {} bytes, at most 1 MiB is accepted", source.len());
                return Err(ChatError::Malformed { place: place.to_owned(), reason });
            }
            *source = without_generation_marks(source);
            bounded::compile(source).map_err(|e| ChatError::Compile {
                place: place.to_owned(),
                reason: shorten(&e.to_string()),
            })?;
        }
        Ok(ChatTemplate { sources: Arc::new(sources), tokens })
    }

    /// A special token by the name of its field, such as `eos_token`.
    pub fn token(&self, field: &str) -> Option<&str> {
        self.tokens.get(field).and_then(Value::as_str)
    }

    /// Whether words stand in the source of one of the templates.
    pub fn contains(&self, words: &str) -> bool {
        self.sources.values().any(|source| source.contains(words))
    }

    /// The prompt for a conversation. Encode it without adding special tokens: the template prints them.
    pub fn render(&self, input: &ChatInput) -> Result<String, ChatError> {
        let wanted = if input.tools.is_empty() { "default" } else { "tool_use" };
        let named = self.sources.get_key_value(wanted).or_else(|| self.sources.get_key_value("default"));
        let (name, _) = named
            .or_else(|| self.sources.first_key_value())
            .ok_or_else(|| ChatError::Failed { reason: "there is no template".to_owned() })?;
        let (sources, name, context) = (Arc::clone(&self.sources), name.clone(), self.context(input));
        let (now, deadline) = (input.now, Instant::now() + DEADLINE);
        let (send, receive) = sync_channel(1);
        let work = move || {
            let source = sources.get(&name).map(String::as_str).unwrap_or_default();
            // The receiver is gone if the deadline passed first; then nobody wants the result.
            let _ = send.send(run(source, context, now, deadline));
        };
        let thread = std::thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK);
        thread.spawn(work).map_err(|e| ChatError::Failed { reason: format!("no thread: {e}") })?;
        let result = receive.recv_timeout(DEADLINE);
        match result {
            Ok(Ok(prompt)) => Ok(prompt),
            Ok(Err(e)) => Err(explain(&e)),
            Err(RecvTimeoutError::Timeout) => {
                Err(ChatError::Endless { reason: format!("it ran for {} ms", DEADLINE.as_millis()) })
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(ChatError::Failed { reason: "the template engine gave up".to_owned() })
            }
        }
    }

    fn context(&self, input: &ChatInput) -> Value {
        let mut context = self.tokens.clone();
        context.insert("messages".to_owned(), Value::Array(input.messages.clone()));
        let tools = if input.tools.is_empty() { Value::Null } else { Value::Array(input.tools.clone()) };
        context.insert("tools".to_owned(), tools);
        context.insert("documents".to_owned(), Value::Null);
        context.insert("add_generation_prompt".to_owned(), Value::Bool(input.add_generation_prompt));
        let identifier = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let extra = input.extra.iter().filter(|(name, _)| identifier(name));
        context.extend(extra.map(|(name, value)| (name.clone(), value.clone())));
        Value::Object(context)
    }
}

/// Compiles and runs a template on the present thread.
fn run(source: &str, context: Value, now: i64, deadline: Instant) -> Result<String, Error> {
    let budget = Budget::new(deadline);
    let mut env = Environment::new();
    env.set_fuel(Some(FUEL));
    env.set_auto_escape_callback(|_| AutoEscape::None);
    bounded::install(&mut env, &budget);
    env.add_function("raise_exception", |words: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{words}{RAISED}")))
    });
    env.add_function("strftime_now", move |format: String| clock::format(now, &format));
    let code = bounded::compile(source)?;
    let blocks = BTreeMap::new();
    let mut prompt = String::new();
    let root = minijinja::Value::from_serialize(context);
    Vm::new(&env).eval(&code, root, &blocks, &mut make_string_output(&mut prompt), AutoEscape::None)?;
    if prompt.len() > PROMPT_MAX {
        let words = format!("{EXHAUSTED} {PROMPT_MAX} bytes of output");
        return Err(Error::new(ErrorKind::InvalidOperation, words));
    }
    Ok(prompt)
}

fn explain(error: &Error) -> ChatError {
    if error.kind() == ErrorKind::OutOfFuel {
        return ChatError::Endless { reason: format!("it took {FUEL} instructions") };
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        let words = error.to_string();
        if let Some(raised) = words.split(RAISED).nth(1) {
            return ChatError::Refused { reason: shorten(raised) };
        }
        if let Some(at) = words.find(EXHAUSTED) {
            return ChatError::Endless { reason: shorten(words.get(at..).unwrap_or_default()) };
        }
        if error.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfFuel) {
            return ChatError::Endless { reason: format!("it took {FUEL} instructions") };
        }
        source = error.source();
    }
    ChatError::Failed { reason: shorten(&error.to_string()) }
}

/// The `chat_template` field: one text, or a list of named ones.
fn inline_templates(config: &Map<String, Value>, place: &str) -> Result<BTreeMap<String, String>, ChatError> {
    let wrong = || ChatError::Malformed {
        place: place.to_owned(),
        reason: "field `chat_template`: wanted a string or a list of objects with `name` and `template`"
            .into(),
    };
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::String(source)) => Ok(BTreeMap::from([("default".to_owned(), source.clone())])),
        Some(Value::Array(items)) => {
            let text = |item: &Value, key| item.get(key).and_then(Value::as_str).map(str::to_owned);
            items
                .iter()
                .map(|item| text(item, "name").zip(text(item, "template")).ok_or_else(wrong))
                .collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// The special tokens, given as a text or as an object with `content`.
fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    let text = |name: &&str| {
        let value = config.get(*name)?;
        let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str))?;
        Some(((*name).to_owned(), Value::String(text.to_owned())))
    };
    TOKENS.iter().filter_map(text).collect()
}

/// Turns `{% generation %}` blocks, which only mark the assistant's words for training, into plain conditions.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag, after)) = next_tag(rest) {
        let bare = tag.trim_matches(['-', '+']).trim();
        let plain = match bare {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => bare,
        };
        out.push_str(before);
        out.push_str("{%");
        if plain == bare {
            out.push_str(tag)
        } else {
            out.push_str(&tag.replacen(bare, &format!(" {plain} "), 1))
        }
        out.push_str("%}");
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The text before the next `{% … %}`, what stands inside, and the text after it.
fn next_tag(source: &str) -> Option<(&str, &str, &str)> {
    let (before, tail) = source.split_once("{%")?;
    let (tag, after) = tail.split_once("%}")?;
    Some((before, tag, after))
}
