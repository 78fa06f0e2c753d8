//! The tools of a request: which may be called, how calls are forced, and what of an answer is content, reasoning or a
//! call. How models write all that is known by [`crate::tools`]; interfaces turn it into their shapes.

use super::body::{Fields, Kind, Row, row};
use super::error::ApiError;
use super::generate::Generation;
use super::sampling::random;
use super::state::App;
use crate::grammar::Grammar;
pub use crate::tools::Delta;
use crate::tools::{AnswerParser, Choice, TOOLS_MAX, Tool, ToolError, forced_grammar};
use serde_json::Value;

/// The tools of a request.
pub const TOOLS: Row = row("tools", Kind::List(TOOLS_MAX), "Functions that the model may call.");
/// What OpenAI's interfaces say about tools.
pub const CALLING: &[Row] = &[
    TOOLS,
    row("tool_choice", Kind::Any, "Whether and which function is called."),
    row("parallel_tool_calls", Kind::Bool, "Whether several calls may stand in one answer."),
];

/// What a request says about tools, checked.
#[derive(Debug, Clone, Default)]
pub struct ToolUse {
    /// The tools that the model is told of.
    tools: Vec<Tool>,
    /// The names of those that may be called; all if none.
    allowed: Option<Vec<String>>,
    /// Whether the model may or must call them.
    choice: Choice,
    /// Whether at most one call may stand in an answer.
    single: bool,
    /// Whether the answer is held to a grammar of the client.
    constrained: bool,
    /// Whether the prompt has opened the reasoning already.
    thinking: bool,
}

/// An answer that has ended, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Text for the reader.
    pub content: String,
    /// Reasoning.
    pub reasoning: String,
    /// Calls.
    pub calls: Vec<Call>,
}

/// A call of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// Its id.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments as JSON text.
    pub arguments: String,
}

impl From<ToolError> for ApiError {
    fn from(error: ToolError) -> Self {
        let ToolError { place, reason } = error;
        ApiError::field(place, reason)
    }
}

impl ToolUse {
    /// A use of these tools.
    ///
    /// # Errors
    /// A name that stands twice, a choice among no tools, or a model that writes no calls that are known here.
    pub fn new(app: &App, tools: Vec<Tool>, choice: Choice, single: bool) -> Result<Self, ApiError> {
        Tool::check_all(&tools, "tools")?;
        if tools.is_empty() && matches!(choice, Choice::Required | Choice::One) {
            return Err(ApiError::field("tool_choice", "a call is wanted, but there are no tools"));
        }
        if !tools.is_empty() && choice == Choice::Auto && app.dialect.calls.is_none() {
            let words = "the model's chat template knows no tools, so it can only be made to call one: set tool_choice \
                         to required, or to a function";
            return Err(ApiError::field("tool_choice", words));
        }
        Ok(Self { tools, choice, single, ..Self::default() })
    }

    /// What the fields `tools`, `tool_choice` and `parallel_tool_calls` say in OpenAI's form for conversations.
    pub fn of_openai(app: &App, fields: &Fields) -> Result<Self, ApiError> {
        let list = fields.value("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let one = |(at, tool): (usize, &Value)| {
            let place = fields.path(&format!("tools[{at}]"));
            match (tool["type"].as_str(), tool["function"].as_object()) {
                (Some("function"), Some(_)) => {
                    function(&tool["function"], "parameters", &format!("{place}.function"))
                }
                _ => Err(ApiError::field(place, "wanted a tool of type function")),
            }
        };
        let tools = list.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
        let single = fields.bool("parallel_tool_calls") == Some(false);
        let name = |choice: &Value| choice["function"]["name"].as_str().map(str::to_owned);
        Self::chosen(app, tools, (fields.value("tool_choice"), name), single)
    }

    /// A use of tools with a choice in one of OpenAI's forms, in which `name` finds the name of a function.
    pub fn chosen(
        app: &App,
        tools: Vec<Tool>,
        (choice, name): (Option<&Value>, impl Fn(&Value) -> Option<String>),
        single: bool,
    ) -> Result<Self, ApiError> {
        let wrong = |words: &str| ApiError::field("tool_choice", words);
        let Some(choice) = choice else { return Self::new(app, tools, Choice::Auto, single) };
        let word = |text: &str| match text {
            "none" => Some(Choice::None),
            "auto" => Some(Choice::Auto),
            "required" => Some(Choice::Required),
            _ => None,
        };
        let wanted = "wanted none, auto, required, a function, or allowed_tools";
        let (kind, names) = match (choice.as_str(), choice["type"].as_str()) {
            (Some(text), _) => (word(text).ok_or_else(|| wrong(wanted))?, None),
            (None, Some("function")) => {
                let name = name(choice).ok_or_else(|| wrong("the function has no name"))?;
                (Choice::One, Some(vec![name]))
            }
            (None, Some("allowed_tools")) => {
                // Conversations have the list one level deeper than responses.
                let inner =
                    if choice["allowed_tools"].is_object() { &choice["allowed_tools"] } else { choice };
                let mode = inner["mode"].as_str().and_then(word).ok_or_else(|| wrong(wanted))?;
                let list = inner["tools"].as_array().filter(|list| !list.is_empty());
                let list = list.ok_or_else(|| wrong("allowed_tools wants a list of tools"))?;
                let names: Option<Vec<String>> = list.iter().map(&name).collect();
                (mode, Some(names.ok_or_else(|| wrong("a tool has no name"))?))
            }
            _ => return Err(wrong(wanted)),
        };
        if let Some(missing) =
            names.iter().flatten().find(|name| tools.iter().all(|tool| tool.name != **name))
        {
            return Err(wrong(&format!("there is no tool {missing:?}")));
        }
        let all = Self::new(app, tools, kind, single)?;
        Ok(match names {
            Some(names) => all.only(names),
            None => all,
        })
    }

    /// The same, where only the tools of these names may be called.
    pub fn only(self, names: Vec<String>) -> Self {
        Self { allowed: Some(names), ..self }
    }

    /// The tools as chat templates want them.
    pub fn described(&self) -> Vec<Value> {
        if self.choice == Choice::None {
            return Vec::new();
        }
        self.tools.iter().map(Tool::template_value).collect()
    }

    /// Holds a generation to what is asked for: calls, or a grammar of the client. `prompt` is its text.
    ///
    /// # Errors
    /// The grammar is refused, or stands beside tools that the model may call.
    pub fn apply(
        &mut self,
        app: &App,
        prompt: &str,
        grammar: Option<Grammar>,
        generation: &mut Generation,
    ) -> Result<(), ApiError> {
        let opened = |open: &str| prompt.trim_end().ends_with(open);
        self.thinking = app.dialect.reasoning.is_some_and(|row| opened(row.open));
        self.constrained = grammar.is_some();
        let grammar = match (self.choice, grammar) {
            (Choice::Required | Choice::One, _) => {
                self.constrained = false;
                let thought = app.dialect.reasoning.filter(|_| self.thinking).map(|row| row.close);
                let many = self.choice == Choice::Required && !self.single;
                let format = app.dialect.forced();
                Some(forced_grammar(format, &self.callable(), many, thought, &app.text.tokenizer))
            }
            (Choice::Auto, Some(_)) if !self.tools.is_empty() => {
                let words = "an answer in a given format and tools that may be called exclude each other; set \
                             tool_choice to none or required";
                return Err(ApiError::field("tool_choice", words));
            }
            (_, grammar) => grammar,
        };
        generation.constraint = grammar.map(|grammar| app.compile(&grammar)).transpose()?;
        if self.parses() {
            generation.keep.clone_from(&app.markup);
        }
        Ok(())
    }

    /// A parser for one answer.
    pub fn parser(&self, app: &App) -> Reader {
        let forced = matches!(self.choice, Choice::Required | Choice::One);
        let format = match self.choice {
            Choice::None => None,
            Choice::Auto => app.dialect.calls.filter(|_| !self.tools.is_empty()),
            Choice::Required | Choice::One => Some(app.dialect.forced()),
        };
        let mut dialect = app.dialect;
        // What is held to a grammar from its first character on holds no reasoning.
        if !self.parses() || (forced && !self.thinking) {
            dialect.reasoning = None;
        }
        let format = format.filter(|_| !self.constrained);
        let parser = AnswerParser::new(&dialect, format, &self.callable(), self.thinking);
        let single = self.single || self.choice == Choice::One;
        Reader { parser, single, short_ids: format.is_some_and(|format| format.short_ids) }
    }

    /// Takes an answer that has ended apart.
    pub fn read(&self, app: &App, text: &str) -> Parts {
        let mut parts = Parts::default();
        let mut reader = self.parser(app);
        let mut deltas = reader.push(text);
        deltas.extend(reader.finish());
        for delta in deltas {
            match delta {
                Delta::Content(text) => parts.content += &text,
                Delta::Reasoning(text) => parts.reasoning += &text,
                Delta::Call { name, .. } => {
                    parts.calls.push(Call { id: reader.id("call_"), name, arguments: String::new() });
                }
                Delta::Arguments { text, .. } => {
                    parts.calls.last_mut().into_iter().for_each(|call| call.arguments += &text);
                }
            }
        }
        parts
    }

    fn parses(&self) -> bool {
        !self.constrained
    }

    fn callable(&self) -> Vec<Tool> {
        let allowed = |tool: &&Tool| self.allowed.as_ref().is_none_or(|names| names.contains(&tool.name));
        self.tools.iter().filter(allowed).cloned().collect()
    }
}

/// Reads one answer as it comes.
#[derive(Debug)]
pub struct Reader {
    parser: AnswerParser,
    single: bool,
    short_ids: bool,
}

impl Reader {
    /// Takes more of the text.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        let deltas = self.parser.push(text);
        self.kept(deltas)
    }
    /// Gives the rest, at the end.
    pub fn finish(&mut self) -> Vec<Delta> {
        let deltas = self.parser.finish();
        self.kept(deltas)
    }
    /// Whether a tool was called.
    pub fn called(&self) -> bool {
        self.parser.calls() > 0
    }
    /// A new id of a call.
    pub fn id(&self, prefix: &str) -> String {
        call_id(prefix, self.short_ids)
    }

    /// Where one call is wanted, those after the first are left out.
    fn kept(&self, mut deltas: Vec<Delta>) -> Vec<Delta> {
        if self.single {
            deltas.retain(|delta| {
                !matches!(delta, Delta::Call { index: 1.., .. } | Delta::Arguments { index: 1.., .. })
            });
        }
        deltas
    }
}

/// An id of a call that nobody else has; of nine characters where templates demand it.
fn call_id(prefix: &str, short: bool) -> String {
    match short {
        true => format!("{:09x}", random() >> 28),
        false => format!("{prefix}{:016x}", random()),
    }
}

/// A function with its name, its description, and in the field `schema` that of its arguments.
pub fn function(value: &Value, schema: &str, place: &str) -> Result<Tool, ApiError> {
    let name = value["name"].as_str().unwrap_or_default();
    let description = match &value["description"] {
        Value::Null => None,
        Value::String(text) => Some(text.as_str()),
        _ => return Err(ApiError::field(format!("{place}.description"), "wanted a text")),
    };
    Ok(Tool::new(name, description, value.get(schema), place)?)
}
