//! Results go to stdout, as text or as JSON; notes and progress go to stderr.

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Where a command writes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Whether results are JSON.
    pub json: bool,
}

impl Output {
    /// Results as JSON or as text.
    pub fn new(json: bool) -> Self {
        Self { json }
    }
    /// Prints the one result of a command: `value` as JSON, or the text.
    pub fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let mut line = if self.json { serde_json::to_string_pretty(value)? } else { text() };
        if !line.ends_with('\n') {
            line.push('\n');
        }
        self.write(&line)
    }
    /// Prints one JSON value on one line, for commands that give several.
    pub fn json_line(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(value)?;
        line.push('\n');
        self.write(&line)
    }
    /// Writes a piece of text at once.
    pub fn write(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }
    /// Tells the user something beside the result.
    pub fn note(&self, note: impl Display) {
        // Nobody reads a closed stderr.
        let _ = writeln!(io::stderr(), "note: {note}");
    }
    /// A bar for work of `steps` steps; invisible when stderr is no terminal.
    pub fn progress(&self, what: &'static str, steps: u64) -> ProgressBar {
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg:>10} {wide_bar} {pos}/{len} {eta}");
        let bar = ProgressBar::new(steps).with_message(what);
        match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// A number of bytes in words: `1.4 GiB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Rows of names and values, the values in one column.
pub fn rows(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_rounded_to_a_readable_unit() {
        let texts = [0, 1023, 1024, 1 << 20, 3 << 29].map(super::bytes);
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.5 GiB"]);
    }
}
