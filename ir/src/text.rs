//! The text form of graphs: `parse(print(g)) == g`, so every dump is a valid input.
//!
//! ```text
//! graph @name {
//!   %0 = input["x", (T, 4), f32] : f32[T, 4]
//!   %1 = exp %0 : f32[T, 4]
//!   return "y" %1
//! }
//! ```

use crate::op::Float;
use crate::{Attr, Dim, Graph, Op, Sym, ValueId};
use std::fmt;

/// Why a text is no graph, with the line.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What was wanted and what was found.
    pub reason: String,
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph @{} {{", self.name)?;
        for (value, node) in self.nodes.iter() {
            write!(f, "  {value} = {}", OpText(&node.op))?;
            for (index, arg) in node.args.iter().enumerate() {
                write!(f, "{}{arg}", if index == 0 { " " } else { ", " })?;
            }
            writeln!(f, " : {}", node.ty)?;
        }
        for (name, value) in &self.outputs {
            writeln!(f, "  return {name:?} {value}")?;
        }
        writeln!(f, "}}")
    }
}

/// An op as it stands in the text: name and bracketed attributes.
struct OpText<'a>(&'a Op);

impl fmt::Display for OpText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())?;
        let attrs: Vec<String> = self.0.attrs().iter().map(Attr::to_string).collect();
        if attrs.is_empty() { Ok(()) } else { write!(f, "[{}]", attrs.join(", ")) }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OpText(self).fmt(f)
    }
}

impl Graph {
    /// Reads the text form. Types are checked against what the type rules infer.
    pub fn parse(text: &str) -> Result<Graph, ParseError> {
        let mut graph = Graph::default();
        for (index, line) in text.lines().enumerate() {
            let error = |reason: String| ParseError { line: index + 1, reason };
            let code = line.split("; ").next().unwrap_or_default().trim();
            if code.is_empty() || code.starts_with(';') || code == "}" {
                continue;
            }
            let mut cursor = Cursor { rest: code };
            if cursor.eat("graph @") {
                graph.name = cursor.rest.trim_end_matches('{').trim().into();
            } else if cursor.eat("return") {
                let Some(Attr::Text(name)) = cursor.attr() else {
                    return Err(error("an output's name".into()));
                };
                let value = cursor.value().filter(|value| graph.nodes.get(*value).is_some());
                graph.outputs.push((name, value.ok_or_else(|| error(format!("a value, found {code:?}")))?));
            } else {
                statement(&mut graph, &mut cursor).map_err(error)?;
            }
        }
        Ok(graph)
    }
}

fn statement(graph: &mut Graph, cursor: &mut Cursor<'_>) -> Result<(), String> {
    let value = cursor.value().ok_or("a statement starts with its value")?;
    if value.0 as usize != graph.nodes.len() {
        return Err(format!("the next value is %{}, found {value}", graph.nodes.len()));
    }
    if !cursor.eat("=") {
        return Err("= after the value".into());
    }
    let name = cursor.word().ok_or("an operation's name")?;
    let mut attrs = Vec::new();
    if cursor.eat("[") {
        while !cursor.eat("]") {
            attrs.push(cursor.attr().ok_or_else(|| format!("an attribute, found {:?}", cursor.rest))?);
            cursor.eat(",");
        }
    }
    let mut args = Vec::new();
    while let Some(arg) = cursor.value() {
        args.push(arg);
        cursor.eat(",");
    }
    let value = graph.push_named(name, &attrs, &args).map_err(|error| error.to_string())?;
    if cursor.eat(":") {
        let (wanted, found) = (graph.ty(value).to_string(), cursor.rest.trim());
        if wanted != found {
            return Err(format!("{value} is {wanted}, the text says {found}"));
        }
    }
    Ok(())
}

/// A position in one line.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let found = self.rest.strip_prefix(token);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }
    fn take(&mut self, accept: impl Fn(char) -> bool) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }
    fn word(&mut self) -> Option<&'a str> {
        self.take(|c| c.is_ascii_alphanumeric() || c == '_')
    }
    fn value(&mut self) -> Option<ValueId> {
        if !self.eat("%") {
            return None;
        }
        self.word()?.parse().ok().map(ValueId)
    }
    fn attr(&mut self) -> Option<Attr> {
        if self.eat("\"") {
            let (text, rest) = self.rest.split_once('"')?;
            self.rest = rest;
            return Some(Attr::Text(text.into()));
        }
        if self.eat("(") {
            let mut dims = Vec::new();
            while !self.eat(")") {
                dims.push(dim(self.word()?)?);
                self.eat(",");
            }
            return Some(Attr::Dims(dims));
        }
        let token = self.take(|c| !matches!(c, ',' | ']' | ' '))?;
        if let Some(dim) = dim(token) {
            return Some(Attr::Dim(dim));
        }
        match token.parse::<f64>() {
            Ok(value) => Some(Attr::Float(Float::new(value))),
            Err(_) => Some(Attr::Word(token.into())),
        }
    }
}

/// `12`, `T` or `12T`.
pub(crate) fn dim(token: &str) -> Option<Dim> {
    let digits = token.len() - token.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, symbol) = token.split_at(digits);
    let coeff = if number.is_empty() { 1 } else { number.parse().ok()? };
    match symbol {
        "" => (!number.is_empty()).then_some(Dim { coeff, sym: None }),
        _ => Sym::ALL.into_iter().find(|sym| sym.to_string() == symbol).map(|sym| Dim::times(sym, coeff)),
    }
}
