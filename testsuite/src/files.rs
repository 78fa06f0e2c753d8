//! File tests: a case is text — what to do, an input, and what must come out.
//!
//! ```text
//! ; test fuse                        the command; a file may hold several cases, each begins so
//! ; why: two products of one operand are one kernel
//! ; check: kernels 1                 a line of the output holds this
//! ; check-not: split                 no line does
//! graph @g {
//!   …
//! }
//! ----                               optional: the whole output, rewritten by BLESS=1
//! kernels 1
//! ```
//!
//! [`Case::read`] takes a file apart, [`Case::output`] runs one case, [`Case::complaints`] compares.

mod commands;
mod leaves;

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The commands, each with what it prints.
pub const COMMANDS: &[(&str, &str)] = &[
    ("verify", "the error or the violations of a graph, or `ok`"),
    ("roundtrip", "the graph with its types, after it was printed and read back"),
    ("eval", "the outputs on the values given by `let`"),
    ("cut", "the distinct blocks, and what their names stand for"),
    ("rewrite", "the rules that fired or were refused, and the cheapest graph"),
    ("merge", "the graph with sibling products merged"),
    ("lower", "the tile programs of a graph as it stands, and what was split off"),
    ("fuse", "what the whole pipeline found: kernels, patterns, rules, splits"),
    ("tiles", "the kernels of the whole pipeline"),
    ("plan", "weights, buffers and launches"),
    ("explain", "the report, without times"),
    ("fusions", "of a golden model: launches of a step with each pattern, and the rules that were kept"),
    ("tile", "a tile program, verified, after it was printed and read back"),
];

/// One case of a file.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// The file and the line of its first header, for messages.
    pub place: String,
    /// What to do.
    pub command: String,
    /// The header, as it stands.
    pub header: String,
    /// Key and value of each header line but the first.
    pub settings: Vec<(String, String)>,
    /// The graph or tile program.
    pub input: String,
    /// The whole output, if the case has it.
    pub expected: Option<String>,
}

impl Case {
    /// All cases of a file's text.
    pub fn read(place: &str, text: &str) -> Result<Vec<Case>, String> {
        let mut cases: Vec<Case> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if let Some(command) = line.strip_prefix("; test ") {
                let command = command.trim();
                if COMMANDS.iter().all(|(known, _)| *known != command) {
                    return Err(format!("{place}:{}: there is no command {command:?}", number + 1));
                }
                let place = format!("{place}:{}", number + 1);
                cases.push(Case { place, command: command.into(), ..Case::default() });
            }
            let case = cases.last_mut().ok_or_else(|| format!("{place}: a file begins with `; test …`"))?;
            case.line(line);
        }
        Ok(cases)
    }

    fn line(&mut self, line: &str) {
        let setting = line.strip_prefix("; ").and_then(|line| line.split_once(':'));
        let (target, line) = match (&mut self.expected, self.input.is_empty(), line) {
            (Some(expected), ..) => (expected, line),
            (None, false, "----") => {
                self.expected = Some(String::new());
                return;
            }
            (None, true, header) if header.starts_with(';') || header.is_empty() => (&mut self.header, line),
            _ => (&mut self.input, line),
        };
        let _ = writeln!(target, "{line}");
        if let (true, Some((key, value))) = (self.input.is_empty() && self.expected.is_none(), setting) {
            self.settings.push((key.trim().into(), value.trim().into()));
        }
    }

    /// The values of a header key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.settings.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// What the command prints. The error is a broken promise: no round trip, or results that differ.
    pub fn output(&self) -> Result<String, String> {
        commands::run(self)
    }

    /// What is wrong with an output.
    pub fn complaints(&self, output: &str) -> Vec<String> {
        let has = |wanted: &str| output.lines().any(|line| squeezed(line).contains(&squeezed(wanted)));
        let missing = self.all("check").filter(|wanted| !has(wanted));
        let mut found: Vec<String> = missing.map(|wanted| format!("no line has {wanted:?}")).collect();
        let unwanted = self.all("check-not").filter(|unwanted| has(unwanted));
        found.extend(unwanted.map(|unwanted| format!("a line has {unwanted:?}")));
        match &self.expected {
            Some(expected) if expected.trim_end() != output.trim_end() => {
                found.push("the output is another one (BLESS=1 takes it)".into());
            }
            None if self.all("check").next().is_none() => {
                found.push(
                    "the case checks nothing: add `; check:` or a line `----` and run with BLESS=1".into(),
                );
            }
            _ => {}
        }
        found
    }

    /// The case as text, with the output in place of the expected one.
    pub fn blessed(&self, output: &str) -> String {
        let whole = self.expected.is_some() || self.all("check").next().is_none();
        let expected = if whole { format!("----\n{}\n", output.trim_end()) } else { String::new() };
        format!("{}{}\n{expected}", self.header, self.input.trim_end())
    }
}

/// A line with single spaces, for checks.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The folder of the file tests.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("files")
}

/// Every file test, sorted.
pub fn paths() -> std::io::Result<Vec<PathBuf>> {
    let (mut open, mut found) = (vec![folder()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
