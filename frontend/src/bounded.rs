//! What keeps a template's memory finite: every operation that makes text longer draws on one budget.
//!
//! Counting instructions is not enough, because forty doublings of a string are few instructions and a terabyte.
//! So the compiled template is rewritten: `+`, `~` and `*` become calls of the functions here, literal text is
//! printed through the formatter here, and the filters and methods that can make text longer than their inputs
//! are replaced. What remains of the engine only makes values shorter or as long as they were.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, WhitespaceConfig, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use serde::Serialize;

/// Bytes of text that one rendering may make, intermediate results included.
const TEXT_MAX: usize = 64 << 20;
/// Elements of lists that one rendering may make.
const ELEMENTS_MAX: usize = 8 << 20;
/// The words that mark an exhausted budget, so that the caller can tell it from other errors.
pub(crate) const EXHAUSTED: &str = "the template makes more than";

/// What one rendering has left.
pub(crate) struct Budget {
    text: AtomicUsize,
    elements: AtomicUsize,
    deadline: Instant,
}

impl Budget {
    pub(crate) fn new(deadline: Instant) -> Arc<Self> {
        let (text, elements) = (AtomicUsize::new(TEXT_MAX), AtomicUsize::new(ELEMENTS_MAX));
        Arc::new(Budget { text, elements, deadline })
    }

    fn take_text(&self, bytes: usize) -> Result<(), Error> {
        self.take(&self.text, bytes, "64 MiB of text")
    }

    fn take_elements(&self, count: usize) -> Result<(), Error> {
        self.take(&self.elements, count, "8388608 list elements")
    }

    fn take(&self, left: &AtomicUsize, amount: usize, limit: &str) -> Result<(), Error> {
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount));
        if taken.is_ok() && Instant::now() < self.deadline {
            return Ok(());
        }
        let limit = if taken.is_ok() { "its time allows" } else { limit };
        Err(Error::new(ErrorKind::InvalidOperation, format!("{EXHAUSTED} {limit}")))
    }

    /// Prints a value, and stops where the budget ends.
    fn print(&self, value: &Value) -> Result<String, Error> {
        let mut out = Drawn { budget: self, text: String::new(), failure: None };
        match write!(out, "{value}") {
            Ok(()) => Ok(out.text),
            Err(_) => Err(out.failure.unwrap_or_else(|| Error::from(ErrorKind::WriteFailure))),
        }
    }

    fn elements_of(&self, value: &Value) -> Result<Vec<Value>, Error> {
        let mut elements = Vec::new();
        for element in value.try_iter()? {
            self.take_elements(1)?;
            elements.push(element);
        }
        Ok(elements)
    }
}

/// Text that draws on the budget as it grows.
struct Drawn<'a> {
    budget: &'a Budget,
    text: String,
    failure: Option<Error>,
}

impl fmt::Write for Drawn<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if let Err(e) = self.budget.take_text(part.len()) {
            self.failure = Some(e);
            return Err(fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}

impl std::io::Write for Drawn<'_> {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        let text = std::str::from_utf8(part).map_err(std::io::Error::other)?;
        self.write_str(text).map_err(|_| std::io::Error::other(EXHAUSTED))?;
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Compiles a template with every growing operation turned into a call.
///
/// The names of the functions are the operators themselves: no template can give such a name to anything.
pub(crate) fn compile(source: &str) -> Result<Instructions<'_>, Error> {
    let whitespace =
        WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };
    let ast = parse(source, "chat_template", SyntaxConfig, whitespace)?;
    let mut generator = CodeGenerator::new("chat_template", source);
    generator.compile_stmt(&ast);
    let (mut code, blocks) = generator.finish();
    if !blocks.is_empty() {
        // Nothing can extend a chat template, so a block is a mistake or an attempt.
        return Err(Error::new(ErrorKind::SyntaxError, "blocks have no use in a chat template"));
    }
    let end = code.len() as u32;
    let leave = code.add(Instruction::Jump(0));
    for at in 0..end {
        let line = code.get_line(at);
        let Some(instruction) = code.get_mut(at) else { continue };
        match instruction {
            Instruction::Add => *instruction = Instruction::CallFunction("+", Some(2)),
            Instruction::Mul => *instruction = Instruction::CallFunction("*", Some(2)),
            Instruction::StringConcat => *instruction = Instruction::CallFunction("~", Some(2)),
            Instruction::EmitRaw(text) => {
                // Literal text goes the way of all values: aside, through the formatter, and back.
                let text = Value::from(*text);
                let line = u16::try_from(line.unwrap_or(0)).unwrap_or(u16::MAX);
                let aside = code.add_with_line(Instruction::LoadConst(text), line);
                code.add(Instruction::Emit);
                code.add(Instruction::Jump(at.saturating_add(1)));
                if let Some(instruction) = code.get_mut(at) {
                    *instruction = Instruction::Jump(aside);
                }
            }
            _ => {}
        }
    }
    let past = code.len() as u32;
    if let Some(instruction) = code.get_mut(leave) {
        *instruction = Instruction::Jump(past);
    }
    Ok(code)
}

/// Puts the budgeted operators, filters, methods and formatter into an environment.
pub(crate) fn install(env: &mut Environment<'_>, budget: &Arc<Budget>) {
    let with = |f: fn(&Budget, Value, Value) -> Result<Value, Error>| {
        let budget = Arc::clone(budget);
        move |a: Value, b: Value| f(&budget, a, b)
    };
    env.add_function("+", with(add));
    env.add_function("*", with(multiply));
    env.add_function("~", with(concat));
    let shared = || Arc::clone(budget);
    let b = shared();
    env.set_formatter(move |out, _, value| {
        // Undefined and none print as in Python's engine.
        let text = match value.as_str() {
            Some(text) => {
                return b.take_text(text.len()).and_then(|()| out.write_str(text).map_err(unwritten));
            }
            None if value.is_none() => "None".to_owned(),
            None => python_text(&b, value)?,
        };
        out.write_str(&text).map_err(unwritten)
    });
    let b = shared();
    env.add_filter("string", move |value: Value| python_text(&b, &value));
    let b = shared();
    env.add_filter("tojson", move |value: Value, rest: Rest<Value>, options: Kwargs| {
        tojson(&b, &value, rest.first(), &options)
    });
    let b = shared();
    env.add_filter("list", move |value: Value| b.elements_of(&value).map(Value::from));
    let b = shared();
    env.add_filter("join", move |values: Value, joiner: Option<Value>| {
        let joiner = joiner.map(|joiner| b.print(&joiner)).transpose()?.unwrap_or_default();
        join(&b, &values, &joiner)
    });
    let b = shared();
    env.add_filter("replace", move |text: Value, from: String, to: String| {
        replace(&b, &b.print(&text)?, (&from, &to), None)
    });
    let b = shared();
    env.add_filter("indent", move |text: String, width: Rest<Value>, options: Kwargs| {
        let named = |name: &str| options.get::<Option<Value>>(name);
        let given = width.first().cloned().or(named("width")?).and_then(|width| width.as_usize());
        let first = width.get(1).cloned().or(named("first")?).is_some_and(|on| on.is_true());
        let blank = width.get(2).cloned().or(named("blank")?).is_some_and(|on| on.is_true());
        indent(&b, &text, given.unwrap_or(4), (first, blank))
    });
    // Formatting can pad to any width; no chat template needs it.
    for unused in ["format", "pprint", "urlencode"] {
        env.remove_filter(unused);
    }
    let b = shared();
    env.set_unknown_method_callback(move |state, value, method, args| {
        method_call(&b, state, (value, method, args))
    });
}

fn unwritten(_: fmt::Error) -> Error {
    Error::new(ErrorKind::WriteFailure, format!("{EXHAUSTED} the output may hold"))
}

/// A value as Python prints it, as far as the engines differ for plain values.
fn python_text(budget: &Budget, value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Bool => Ok(if value.is_true() { "True" } else { "False" }.to_owned()),
        ValueKind::None => Ok("None".to_owned()),
        _ => budget.print(value),
    }
}

fn add(budget: &Budget, a: Value, b: Value) -> Result<Value, Error> {
    let is_list = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        budget.take_text(left.len().saturating_add(right.len()))?;
        return Ok(Value::from([left, right].concat()));
    }
    if is_list(&a) && is_list(&b) {
        let mut all = budget.elements_of(&a)?;
        all.extend(budget.elements_of(&b)?);
        return Ok(Value::from(all));
    }
    arithmetic("+", (&a, &b), i64::checked_add, |x, y| x + y)
}

fn multiply(budget: &Budget, a: Value, b: Value) -> Result<Value, Error> {
    let (what, times) = if a.is_number() && !b.is_number() { (&b, &a) } else { (&a, &b) };
    if what.is_number() {
        return arithmetic("*", (&a, &b), i64::checked_mul, |x, y| x * y);
    }
    let times = times.as_i64().map(|n| usize::try_from(n).unwrap_or(0));
    let times = times.ok_or_else(|| mismatch("*", &a, &b))?;
    if let Some(text) = what.as_str() {
        budget.take_text(text.len().saturating_mul(times))?;
        return Ok(Value::from(text.repeat(times)));
    }
    if !matches!(what.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(mismatch("*", &a, &b));
    }
    let once = budget.elements_of(what)?;
    budget.take_elements(once.len().saturating_mul(times))?;
    let mut all = Vec::with_capacity(once.len().saturating_mul(times));
    (0..times).for_each(|_| all.extend(once.iter().cloned()));
    Ok(Value::from(all))
}

fn concat(budget: &Budget, a: Value, b: Value) -> Result<Value, Error> {
    let mut text = python_text(budget, &a)?;
    text.push_str(&python_text(budget, &b)?);
    Ok(Value::from(text))
}

fn arithmetic(
    sign: &str,
    (a, b): (&Value, &Value),
    whole: fn(i64, i64) -> Option<i64>,
    real: fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    if a.is_integer() && b.is_integer() {
        let result = a.as_i64().zip(b.as_i64()).and_then(|(x, y)| whole(x, y));
        return result.map(Value::from).ok_or_else(|| mismatch(sign, a, b));
    }
    match (f64::try_from(a.clone()), f64::try_from(b.clone())) {
        (Ok(x), Ok(y)) => Ok(Value::from(real(x, y))),
        _ => Err(mismatch(sign, a, b)),
    }
}

fn mismatch(sign: &str, a: &Value, b: &Value) -> Error {
    let words = format!("cannot use {sign} on {} and {}", a.kind(), b.kind());
    Error::new(ErrorKind::InvalidOperation, words)
}

fn join(budget: &Budget, values: &Value, joiner: &str) -> Result<String, Error> {
    let mut out = Drawn { budget, text: String::new(), failure: None };
    for (place, value) in values.try_iter()?.enumerate() {
        budget.take_elements(1)?;
        let joined = if place > 0 { out.write_str(joiner) } else { Ok(()) };
        if joined.and_then(|()| write!(out, "{value}")).is_err() {
            return Err(out.failure.unwrap_or_else(|| Error::from(ErrorKind::WriteFailure)));
        }
    }
    Ok(out.text)
}

fn replace(
    budget: &Budget,
    text: &str,
    (from, to): (&str, &str),
    most: Option<usize>,
) -> Result<String, Error> {
    let matches = text.matches(from).count().min(most.unwrap_or(usize::MAX));
    budget.take_text(text.len().saturating_add(matches.saturating_mul(to.len())))?;
    Ok(match most {
        Some(most) => text.replacen(from, to, most),
        None => text.replace(from, to),
    })
}

fn indent(budget: &Budget, text: &str, width: usize, (first, blank): (bool, bool)) -> Result<String, Error> {
    let lines = text.lines().count();
    budget.take_text(text.len().saturating_add(lines.saturating_mul(width)))?;
    let margin = " ".repeat(if lines == 0 { 0 } else { width });
    let mut out = String::new();
    for (place, line) in text.split('\n').enumerate() {
        if place > 0 {
            out.push('\n');
        }
        if (place > 0 || first) && (blank || !line.is_empty()) {
            out.push_str(&margin);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// The methods that can make text longer; every other one is the compatibility layer's.
fn method_call(
    budget: &Budget,
    state: &State<'_, '_>,
    (value, method, args): (&Value, &str, &[Value]),
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args);
    };
    match (method, args) {
        ("join", [values]) => join(budget, values, text).map(Value::from),
        ("replace", [from, to, rest @ ..]) => {
            let pair = from.as_str().zip(to.as_str());
            let pair =
                pair.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "replace wants two strings"))?;
            let most = rest.first().and_then(Value::as_i64).and_then(|n| usize::try_from(n).ok());
            replace(budget, text, pair, most).map(Value::from)
        }
        ("format", _) => Err(Error::from(ErrorKind::UnknownMethod)),
        _ => {
            budget.take_text(text.len())?;
            minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
        }
    }
}

/// JSON as Python writes it: insertion order, and a blank after commas and colons.
fn tojson(budget: &Budget, value: &Value, indent: Option<&Value>, options: &Kwargs) -> Result<String, Error> {
    let named: Option<Value> = options.get("indent")?;
    let indent = indent.cloned().or(named).and_then(|indent| indent.as_usize());
    let mut out = Drawn { budget, text: String::new(), failure: None };
    let written = match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonCompact)),
        Some(width) => {
            let margin = " ".repeat(width.min(64));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(margin.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty))
        }
    };
    match (written, out.failure) {
        (Ok(()), _) => Ok(out.text),
        (Err(_), Some(failure)) => Err(failure),
        (Err(e), None) => Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: {e}"))),
    }
}

struct PythonCompact;

impl serde_json::ser::Formatter for PythonCompact {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
