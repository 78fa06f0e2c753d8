//! The e-graph language is the op table: an op's attributes are leading children, its operands follow. A pattern is
//! therefore a line of text, such as `(mul ?x (recip (sqrt ?y)))` or `(reduce max ?axis ?x)`.

use egg::{FromOp, Id, Language};
use sinter_ir::{Attr, Dim, Float, OP_NAMES, ScalarOp};
use std::fmt;

/// What a node is, apart from its children.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Head {
    /// An operation of the op table, by name.
    Op(&'static str),
    /// An attribute.
    Attr(Attr),
    /// The outputs of a graph together.
    Roots,
}

/// A node of the e-graph.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Node {
    /// What it is.
    pub head: Head,
    /// Attributes first, then operands.
    pub children: Vec<Id>,
}

impl Language for Node {
    type Discriminant = Head;

    fn discriminant(&self) -> Head {
        self.head.clone()
    }
    fn matches(&self, other: &Self) -> bool {
        self.head == other.head && self.children.len() == other.children.len()
    }
    fn children(&self) -> &[Id] {
        &self.children
    }
    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.head {
            Head::Op(name) => f.write_str(name),
            Head::Attr(Attr::Text(text)) => f.write_str(text),
            Head::Attr(Attr::Dims(dims)) => {
                let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
                f.write_str(&dims.join("x"))
            }
            Head::Attr(attr) => write!(f, "{attr}"),
            Head::Roots => f.write_str("roots"),
        }
    }
}

/// A word of a pattern that is neither an op nor an attribute.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither an operation nor an attribute")]
pub struct UnknownWord(String);

/// The interned name of an op.
pub fn op_name(name: &str) -> Option<&'static str> {
    let table = OP_NAMES.iter().copied().find(|known| *known == name);
    table.or_else(|| ScalarOp::from_name(name).map(ScalarOp::name))
}

impl FromOp for Node {
    type Error = UnknownWord;

    fn from_op(word: &str, children: Vec<Id>) -> Result<Self, UnknownWord> {
        if !children.is_empty() {
            let head = op_name(word).map(Head::Op).ok_or_else(|| UnknownWord(word.into()))?;
            return Ok(Self { head, children });
        }
        let attr = if word.contains("->") {
            Attr::Text(word.into())
        } else if let Ok(number) = word.parse::<usize>() {
            Attr::Dim(Dim::of(number))
        } else if let Ok(number) = word.parse::<f64>() {
            Attr::Float(Float::new(number))
        } else {
            Attr::Word(word.into())
        };
        Ok(Self { head: Head::Attr(attr), children })
    }
}
