//! The state machine that reads an answer as it comes.

use super::choice::Tool;
use super::dialect::Dialect;
use super::format::{Body, Format, Reasoning};
use super::json_calls::JsonCalls;
use super::python_calls::PythonCalls;
use super::tagged_calls;

/// The next of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// Text for the reader.
    Content(String),
    /// Reasoning.
    Reasoning(String),
    /// A call begins.
    Call {
        /// The call, from 0.
        index: usize,
        /// The function.
        name: String,
    },
    /// More of a call's arguments, as JSON text.
    Arguments {
        /// The call.
        index: usize,
        /// The text.
        text: String,
    },
}

/// Takes an answer apart. What it gives, put together, does not depend on how the text was split.
///
/// Text that may be the beginning of markup is held back until it is certain. A region that turns out not to hold calls
/// is content, word for word.
#[derive(Debug)]
pub struct AnswerParser {
    reasoning: Option<&'static Reasoning>,
    format: Option<&'static Format>,
    tools: Vec<Tool>,
    state: State,
    /// Text that is not consumed yet.
    pending: String,
    /// Blanks that belong to the text only if more of it follows.
    blank: String,
    out: Calls,
}

#[derive(Debug)]
enum State {
    /// Before the first word: reasoning may begin here, or a call without markers.
    Start { reasons: bool },
    /// Reasoning; `begun` after its first word.
    Thinking { begun: bool },
    /// Content; before its first word blanks are dropped if not `begun`.
    Text { begun: bool },
    /// A region of calls.
    Calls(Region),
}

/// The calls and words that were found, not yet given out.
#[derive(Debug, Default)]
pub(super) struct Calls {
    deltas: Vec<Delta>,
    count: usize,
}

/// What a reader says after it looked at the pending text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// It took something; look again.
    Go,
    /// It needs more text.
    Wait,
    /// The region ends here.
    Leave,
    /// This is no call.
    Fail,
}

/// A region of calls on its way.
#[derive(Debug)]
struct Region {
    reader: Reader,
    /// Whether a marker opened it.
    marked: bool,
    /// What was consumed since the last call began: content, if no call comes of it.
    raw: String,
    /// Calls before this region.
    before: usize,
}

#[derive(Debug)]
enum Reader {
    Undecided,
    Json(JsonCalls),
    Named(Named),
    Tagged,
    Python(PythonCalls),
    /// All calls were read; the closing marker follows.
    Closing,
}

#[derive(Debug)]
enum Named {
    Item,
    Name(String),
    Arguments(JsonCalls),
}

impl Calls {
    /// Begins a call.
    pub(super) fn begin(&mut self, name: &str) {
        self.deltas.push(Delta::Call { index: self.count, name: name.to_owned() });
        self.count += 1;
    }
    /// Adds to the arguments of the newest call.
    pub(super) fn arguments(&mut self, more: &str) {
        let index = self.count.saturating_sub(1);
        match self.deltas.last_mut() {
            _ if more.is_empty() => {}
            Some(Delta::Arguments { text, .. }) => *text += more,
            _ => self.deltas.push(Delta::Arguments { index, text: more.to_owned() }),
        }
    }
    fn content(&mut self, more: &str) {
        match self.deltas.last_mut() {
            _ if more.is_empty() => {}
            Some(Delta::Content(text)) => *text += more,
            _ => self.deltas.push(Delta::Content(more.to_owned())),
        }
    }
    fn reasoning(&mut self, more: &str) {
        match self.deltas.last_mut() {
            _ if more.is_empty() => {}
            Some(Delta::Reasoning(text)) => *text += more,
            _ => self.deltas.push(Delta::Reasoning(more.to_owned())),
        }
    }
}

impl AnswerParser {
    /// A parser of one answer. `calls` is the format of calls to look for, if any, `tools` are those that may be called,
    /// and `thinking` tells that the prompt has opened the reasoning already.
    pub fn new(dialect: &Dialect, calls: Option<&'static Format>, tools: &[Tool], thinking: bool) -> Self {
        let state = match thinking && dialect.reasoning.is_some() {
            true => State::Thinking { begun: false },
            false => State::Start { reasons: dialect.reasoning.is_some() },
        };
        Self {
            reasoning: dialect.reasoning,
            format: calls,
            tools: tools.to_vec(),
            state,
            pending: String::new(),
            blank: String::new(),
            out: Calls::default(),
        }
    }

    /// Calls that have begun.
    pub fn calls(&self) -> usize {
        self.out.count
    }

    /// Takes more of the answer and gives what is certain.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        self.pending += text;
        while self.step(false) {}
        std::mem::take(&mut self.out.deltas)
    }

    /// Gives the rest, at the end of the answer.
    pub fn finish(&mut self) -> Vec<Delta> {
        while self.step(true) {}
        if let State::Calls(region) = &mut self.state {
            let raw = std::mem::take(&mut region.raw) + &std::mem::take(&mut self.pending);
            // Of a call that has begun, nothing is left to tell; what never became a call was text.
            if self.out.count == region.before {
                self.out.content(&raw);
            }
        }
        // Blanks after reasoning or after a call belong to neither.
        let keeps = match self.state {
            State::Text { begun } => begun,
            State::Start { reasons } => reasons || self.reasoning.is_none(),
            State::Thinking { .. } | State::Calls(_) => false,
        };
        if keeps {
            self.out.content(&std::mem::take(&mut self.blank));
        }
        std::mem::take(&mut self.out.deltas)
    }

    /// Consumes some of the pending text; false if it needs more.
    fn step(&mut self, last: bool) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        match self.state {
            State::Start { reasons } => self.start(reasons, last),
            State::Thinking { begun } => self.think(begun, last),
            State::Text { begun } => self.text(begun, last),
            State::Calls(_) => self.region(),
        }
    }

    fn start(&mut self, reasons: bool, last: bool) -> bool {
        let begin = self.pending.trim_start();
        if begin.is_empty() {
            self.blank += &std::mem::take(&mut self.pending);
            return false;
        }
        let blank = self.pending.len() - begin.len();
        if let Some(row) = self.reasoning.filter(|_| reasons) {
            if begin.starts_with(row.open) {
                self.blank.clear();
                self.pending.drain(..blank + row.open.len());
                self.state = State::Thinking { begun: false };
                return true;
            }
            if row.open.starts_with(begin) && !last {
                return false;
            }
        }
        let bare = self.format.is_some_and(|format| format.bare) && begin.starts_with(['{', '[']);
        self.blank += &self.pending[..blank];
        self.pending.drain(..blank);
        self.state = match bare {
            true => State::Calls(Region::new(false, std::mem::take(&mut self.blank), self.out.count)),
            // After reasoning, blanks before the text belong to neither; at the begin they are the model's own.
            false => State::Text { begun: reasons || self.reasoning.is_none() },
        };
        true
    }

    fn think(&mut self, begun: bool, last: bool) -> bool {
        let Some(row) = self.reasoning else {
            self.state = State::Text { begun: true };
            return true;
        };
        let (end, found) = match self.pending.find(row.close) {
            Some(at) => (at, true),
            None if last => (self.pending.len(), false),
            None => (held_from(&self.pending, &[row.close]), false),
        };
        let words: String = self.pending.drain(..end).collect();
        let (words, rest) = split_blank(&words);
        if !words.is_empty() {
            let before = std::mem::take(&mut self.blank);
            self.out.reasoning(if begun { &before } else { "" });
            self.out.reasoning(if begun { words } else { words.trim_start() });
            self.state = State::Thinking { begun: true };
        }
        self.blank += rest;
        if found {
            self.blank.clear();
            self.pending.drain(..row.close.len());
            self.state = State::Start { reasons: false };
        }
        found
    }

    fn text(&mut self, begun: bool, last: bool) -> bool {
        let opens = self.format.map_or(&[][..], |format| format.open);
        let found = opens.iter().filter_map(|open| Some((self.pending.find(open)?, open.len())));
        let found = found.min();
        let end = match found {
            Some((at, _)) => at,
            None if last => self.pending.len(),
            None => held_from(&self.pending, opens),
        };
        let words: String = self.pending.drain(..end).collect();
        // Blanks are held back only where a call may follow, before which they mean nothing.
        let (words, rest) = if opens.is_empty() { (&words[..], "") } else { split_blank(&words) };
        if !words.is_empty() {
            let before = std::mem::take(&mut self.blank);
            self.out.content(if begun { &before } else { "" });
            self.out.content(if begun { words } else { words.trim_start() });
            self.state = State::Text { begun: true };
        }
        self.blank += rest;
        if let Some((_, length)) = found {
            let mut raw = std::mem::take(&mut self.blank);
            raw.extend(self.pending.drain(..length));
            self.state = State::Calls(Region::new(true, raw, self.out.count));
        }
        found.is_some()
    }

    fn region(&mut self) -> bool {
        let (State::Calls(region), Some(format)) = (&mut self.state, self.format) else { return false };
        let (count, length) = (self.out.count, self.pending.len());
        let copy = self.pending.clone();
        let flow = region.read(format, &self.tools, &mut self.pending, &mut self.out);
        region.raw += &copy[..length - self.pending.len()];
        if self.out.count > count {
            region.raw.clear();
        }
        match flow {
            Flow::Go => true,
            Flow::Wait => false,
            Flow::Leave => {
                self.state = State::Text { begun: false };
                true
            }
            Flow::Fail => {
                let raw = std::mem::take(&mut region.raw);
                self.out.content(&raw);
                self.state = State::Text { begun: true };
                true
            }
        }
    }
}

impl Region {
    fn new(marked: bool, raw: String, before: usize) -> Self {
        Self { reader: Reader::Undecided, marked, raw, before }
    }

    /// Reads on; what it takes is removed from `pending`.
    fn read(&mut self, format: &Format, tools: &[Tool], pending: &mut String, out: &mut Calls) -> Flow {
        let close = if self.marked { format.close } else { "" };
        let begun = out.count > self.before;
        match &mut self.reader {
            Reader::Undecided => self.decide(format, tools, pending),
            Reader::Json(calls) if calls.is_inside() => calls.read(pending, out),
            Reader::Json(calls) => match seek(pending, "", close, begun && !close.is_empty()) {
                Seek::Other(c) if calls.takes(c) => {
                    pending.drain(..c.len_utf8());
                    calls.begin(c);
                    Flow::Go
                }
                Seek::Other(_) if begun && close.is_empty() => Flow::Leave,
                found => found.flow(),
            },
            Reader::Named(named) => named.read(format, (close, begun), pending, out),
            Reader::Tagged => tagged_calls::read(format, tools, pending, out),
            Reader::Python(calls) => match calls.read(pending, out) {
                Flow::Leave if !close.is_empty() => {
                    self.reader = Reader::Closing;
                    Flow::Go
                }
                flow => flow,
            },
            Reader::Closing => seek(pending, "", close, true).flow(),
        }
    }

    /// Chooses the reader by how the region begins: whatever a family's own way, all of them may write JSON.
    fn decide(&mut self, format: &Format, tools: &[Tool], pending: &str) -> Flow {
        let names = || tools.iter().map(|tool| tool.name.clone()).collect::<Vec<_>>();
        let known = (!self.marked).then(names);
        let mut begin = pending.chars().filter(|c| !c.is_whitespace());
        self.reader = match (begin.next(), begin.next(), format.body) {
            (None, ..) | (Some('['), None, _) => return Flow::Wait,
            (Some('{'), ..) | (Some('['), Some('{'), _) | (_, _, Body::Json) => {
                Reader::Json(JsonCalls::new(known))
            }
            (_, _, Body::Named { item: "", .. }) => Reader::Named(Named::Name(String::new())),
            (_, _, Body::Named { .. }) => Reader::Named(Named::Item),
            (_, _, Body::Tagged(_)) => Reader::Tagged,
            (_, _, Body::Python) => Reader::Python(PythonCalls::new(names())),
        };
        Flow::Go
    }
}

/// The longest text before the arguments of a call that begins with its name.
const NAME_MAX: usize = 512;

impl Named {
    fn read(
        &mut self,
        format: &Format,
        (close, begun): (&str, bool),
        pending: &mut String,
        out: &mut Calls,
    ) -> Flow {
        let Body::Named { item, name } = format.body else { return Flow::Fail };
        match self {
            Named::Item => match seek(pending, item, close, begun) {
                Seek::Item => {
                    *self = Named::Name(String::new());
                    Flow::Go
                }
                found => found.flow(),
            },
            Named::Name(text) => {
                let end = pending.find('{').unwrap_or(pending.len());
                text.extend(pending.drain(..end));
                if text.len() > NAME_MAX {
                    return Flow::Fail;
                }
                if pending.is_empty() {
                    return Flow::Wait;
                }
                match name(text).filter(|name| is_name(name)) {
                    None => Flow::Fail,
                    Some(name) => {
                        out.begin(name);
                        *self = Named::Arguments(JsonCalls::arguments());
                        Flow::Go
                    }
                }
            }
            Named::Arguments(calls) => {
                let flow = calls.read(pending, out);
                if calls.is_inside() {
                    return flow;
                }
                match (item.is_empty(), close.is_empty()) {
                    (true, true) => Flow::Leave,
                    _ => {
                        *self = Named::Item;
                        Flow::Go
                    }
                }
            }
        }
    }
}

/// What stands next in a region, blanks left out.
enum Seek {
    Item,
    Close,
    Wait,
    Other(char),
    /// A character that belongs to nothing was skipped.
    Skipped,
}

impl Seek {
    fn flow(self) -> Flow {
        match self {
            Seek::Close => Flow::Leave,
            Seek::Wait => Flow::Wait,
            Seek::Skipped | Seek::Item => Flow::Go,
            Seek::Other(_) => Flow::Fail,
        }
    }
}

/// Looks for a marker at the begin of `pending` and takes it; other characters are skipped if `skips`, but for those
/// with which a JSON object begins or goes on.
fn seek(pending: &mut String, item: &str, close: &str, skips: bool) -> Seek {
    let blank = pending.len() - pending.trim_start().len();
    let begin = &pending[blank..];
    let Some(first) = begin.chars().next() else { return Seek::Wait };
    for (marker, found) in [(item, Seek::Item), (close, Seek::Close)] {
        if marker.is_empty() {
            continue;
        }
        if begin.starts_with(marker) {
            pending.drain(..blank + marker.len());
            return found;
        }
        if marker.starts_with(begin) {
            return Seek::Wait;
        }
    }
    pending.drain(..blank);
    if skips && (!item.is_empty() || !JsonCalls::SIGNS.contains(&first)) {
        pending.drain(..first.len_utf8());
        return Seek::Skipped;
    }
    Seek::Other(first)
}

/// Whether a text can be the name of a function.
pub(super) fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    !text.is_empty() && text.chars().all(fits)
}

/// Where the text begins that may be the begin of one of `markers`.
fn held_from(text: &str, markers: &[&str]) -> usize {
    let begins = |at: &usize| markers.iter().any(|marker| marker.starts_with(&text[*at..]));
    text.char_indices().map(|(at, _)| at).find(begins).unwrap_or(text.len())
}

/// The text and the blanks at its end.
fn split_blank(text: &str) -> (&str, &str) {
    text.split_at(text.trim_end().len())
}
