//! How one model writes: the rows that belong to it.

use super::format::{FORMATS, Format, REASONINGS, Reasoning};

/// How one model writes calls and reasoning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dialect {
    /// Its tool calls; none if its template knows no tools, or in a way that is not known here.
    pub calls: Option<&'static Format>,
    /// Its reasoning, if it shows any.
    pub reasoning: Option<&'static Reasoning>,
}

impl Dialect {
    /// The dialect of a chat template, of which `contains` tells whether words stand in it.
    pub fn detect(contains: impl Fn(&str) -> bool) -> Self {
        let fits =
            |format: &&Format| format.signs.iter().any(|words| words.iter().all(|word| contains(word)));
        Self {
            calls: FORMATS.iter().find(fits),
            reasoning: REASONINGS.iter().find(|row| contains(row.open) || contains(row.close)),
        }
    }

    /// The same with the rows that the user names instead; `none` means no row.
    ///
    /// # Errors
    /// A name that is not in the tables, with those that are.
    pub fn with_names(self, calls: Option<&str>, reasoning: Option<&str>) -> Result<Self, String> {
        let calls = match calls {
            None => self.calls,
            Some(name) => pick(name, FORMATS, |row| row.name, "--tool-parser")?,
        };
        let reasoning = match reasoning {
            None => self.reasoning,
            Some(name) => pick(name, REASONINGS, |row| row.name, "--reasoning-parser")?,
        };
        Ok(Self { calls, reasoning })
    }

    /// The format that forced calls have: the model's own, or plain JSON.
    pub fn forced(&self) -> &'static Format {
        self.calls.unwrap_or(&FORMATS[FORMATS.len() - 1])
    }

    /// Whether a special token of this name is part of the dialect, so that its text must be kept for the parser.
    pub fn keeps(&self, token: &str) -> bool {
        let reasoning = self.reasoning.iter().flat_map(|row| [row.open, row.close]);
        let part = |words: &str| words.contains(token);
        reasoning.chain(self.calls.iter().flat_map(|row| row.markup())).any(part)
    }
}

impl Format {
    /// Every text that the format is written with.
    fn markup(&self) -> Vec<&'static str> {
        let forced = &self.forced;
        let mut all = self.open.to_vec();
        all.extend([self.close, forced.begin, forced.before, forced.between, forced.after, forced.end]);
        // Not every model of these families forces them, but all may write them.
        all.extend(["<｜tool▁sep｜>", "[CALL_ID]"]);
        all
    }
}

fn pick<T>(
    name: &str,
    rows: &'static [T],
    of: fn(&T) -> &'static str,
    flag: &str,
) -> Result<Option<&'static T>, String> {
    if name == "none" {
        return Ok(None);
    }
    let row = rows.iter().find(|row| of(row) == name);
    row.map(Some).ok_or_else(|| {
        let names: Vec<&str> = rows.iter().map(of).collect();
        format!("{flag} is {name:?}, wanted none or one of {}", names.join(", "))
    })
}
