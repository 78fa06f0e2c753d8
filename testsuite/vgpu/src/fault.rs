//! What goes wrong in a kernel, and where.

use std::fmt;

/// A kernel did what it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The entry.
    pub kernel: String,
    /// The PTX line, counted from 1.
    pub line: u32,
    /// Its text.
    pub text: String,
    /// `ctaid.x`
    pub block: u32,
    /// The thread in the block, where one thread is to blame.
    pub thread: Option<u32>,
    /// What was wanted and what was found.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { line, text, block, what, .. } = self;
        let text = text.trim_end_matches(';');
        write!(f, "{what}; at PTX line {line}: {text}; block {block}")?;
        match self.thread {
            Some(thread) => write!(f, ", thread {thread}"),
            None => Ok(()),
        }
    }
}

/// The same before its place is known: a lane, and what was wanted and found.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// The lane of the warp.
    pub(crate) lane: Option<u32>,
    /// What.
    pub(crate) what: String,
}

impl Wrong {
    /// A fault of a lane.
    #[cold]
    pub(crate) fn of(lane: usize, what: impl Into<String>) -> Box<Wrong> {
        Box::new(Wrong { lane: Some(lane as u32), what: what.into() })
    }
    /// A fault of a warp.
    #[cold]
    pub(crate) fn warp(what: impl Into<String>) -> Box<Wrong> {
        Box::new(Wrong { lane: None, what: what.into() })
    }
}
