//! Calls as Python writes them: `[f(a=1, b="x"), g()]`, or one alone.

use super::parser::{Calls, Flow, is_name};
use serde_json::{Map, Number, Value};

/// Reads calls to their end, then gives them all.
#[derive(Debug)]
pub(super) struct PythonCalls {
    /// The functions that there are; anything else is text.
    known: Vec<String>,
    text: String,
    depth: usize,
    quote: Option<char>,
    escape: bool,
}

impl PythonCalls {
    pub(super) fn new(known: Vec<String>) -> Self {
        Self { known, text: String::new(), depth: 0, quote: None, escape: false }
    }

    /// Reads as far as there is text.
    pub(super) fn read(&mut self, pending: &mut String, out: &mut Calls) -> Flow {
        let mut taken = 0;
        let mut flow = Flow::Wait;
        for c in pending.chars() {
            taken += c.len_utf8();
            self.text.push(c);
            if !self.fits() {
                flow = Flow::Fail;
                break;
            }
            if self.ends(c) {
                flow = self.give(out);
                break;
            }
        }
        pending.drain(..taken);
        flow
    }

    /// Whether the text so far may be calls: up to the first bracket there is a name of a function.
    fn fits(&self) -> bool {
        let begin = self.text.trim_start();
        let begin = begin.strip_prefix('[').unwrap_or(begin).trim_start();
        match begin.split_once('(') {
            Some((name, _)) => self.depth > 1 || self.function(name).is_some(),
            None => begin.is_empty() || is_name(begin),
        }
    }

    /// The function of a name; built-in tools of Llama are called as `name.call`.
    fn function<'n>(&self, name: &'n str) -> Option<&'n str> {
        let plain = name.strip_suffix(".call").unwrap_or(name);
        [name, plain].into_iter().find(|name| self.known.iter().any(|known| known == name))
    }

    /// Whether a character ends the calls.
    fn ends(&mut self, c: char) -> bool {
        if let Some(quote) = self.quote {
            if !self.escape && c == quote {
                self.quote = None;
            }
            self.escape = !self.escape && c == '\\';
            return false;
        }
        match c {
            '"' | '\'' => self.quote = Some(c),
            '(' | '[' | '{' => self.depth += 1,
            ')' | ']' | '}' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    fn give(&self, out: &mut Calls) -> Flow {
        let mut reader = Reader { rest: self.text.trim(), depth: 0 };
        let Some(calls) = reader.calls() else { return Flow::Fail };
        let named = calls.iter().map(|(name, _)| self.function(name)).collect::<Option<Vec<_>>>();
        let Some(names) = named else { return Flow::Fail };
        for (name, (_, arguments)) in names.into_iter().zip(&calls) {
            out.begin(name);
            out.arguments(&Value::Object(arguments.clone()).to_string());
        }
        Flow::Leave
    }
}

/// The deepest nesting of values.
const DEPTH_MAX: usize = 64;

type Call = (String, Map<String, Value>);

/// Reads expressions.
struct Reader<'t> {
    rest: &'t str,
    depth: usize,
}

impl Reader<'_> {
    fn calls(&mut self) -> Option<Vec<Call>> {
        if !self.takes('[') {
            return Some(vec![self.call()?]);
        }
        let mut calls = Vec::new();
        while !self.takes(']') {
            calls.push(self.call()?);
            self.takes(',');
        }
        (!calls.is_empty()).then_some(calls)
    }

    fn call(&mut self) -> Option<Call> {
        let name = self.word()?;
        let mut arguments = Map::new();
        if !self.takes('(') {
            return None;
        }
        while !self.takes(')') {
            let key = self.word()?;
            if !self.takes('=') {
                return None;
            }
            arguments.insert(key, self.value()?);
            self.takes(',');
        }
        Some((name, arguments))
    }

    fn value(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        self.rest = self.rest.trim_start();
        let value = match self.rest.chars().next()? {
            '"' | '\'' => Value::String(self.string()?),
            '[' => self.list(']')?,
            '(' => self.list(')')?,
            '{' => self.dict()?,
            _ => self.word_or_number()?,
        };
        self.depth -= 1;
        Some(value)
    }

    fn list(&mut self, end: char) -> Option<Value> {
        self.rest = &self.rest[1..];
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(self.value()?);
            self.takes(',');
        }
        Some(Value::Array(items))
    }

    fn dict(&mut self) -> Option<Value> {
        self.rest = &self.rest[1..];
        let mut map = Map::new();
        while !self.takes('}') {
            let Value::String(key) = self.value()? else { return None };
            if !self.takes(':') {
                return None;
            }
            map.insert(key, self.value()?);
            self.takes(',');
        }
        Some(Value::Object(map))
    }

    fn string(&mut self) -> Option<String> {
        let mut chars = self.rest.chars();
        let quote = chars.next()?;
        let mut text = String::new();
        loop {
            match chars.next()? {
                c if c == quote => break,
                '\\' => match chars.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    '0' => text.push('\0'),
                    'x' => text.push(code(&mut chars, 2)?),
                    'u' => text.push(code(&mut chars, 4)?),
                    '\n' => {}
                    c @ ('\\' | '\'' | '"') => text.push(c),
                    c => text.extend(['\\', c]),
                },
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(text)
    }

    fn word_or_number(&mut self) -> Option<Value> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "True" | "true" => Some(Value::Bool(true)),
            "False" | "false" => Some(Value::Bool(false)),
            "None" | "null" => Some(Value::Null),
            number => match number.parse::<i64>() {
                Ok(whole) => Some(whole.into()),
                Err(_) => Number::from_f64(number.parse().ok()?).map(Value::Number),
            },
        }
    }

    /// A name, which may have dots.
    fn word(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !is_name(c.encode_utf8(&mut [0; 4]))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then(|| word.to_owned())
    }

    /// Takes a character if it is the next after blanks.
    fn takes(&mut self, c: char) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(c) {
            Some(after) => {
                self.rest = after;
                true
            }
            None => false,
        }
    }
}

/// A character by its number in hexadecimal digits.
fn code(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let mut number = 0;
    for _ in 0..digits {
        number = number * 16 + chars.next()?.to_digit(16)?;
    }
    char::from_u32(number)
}
