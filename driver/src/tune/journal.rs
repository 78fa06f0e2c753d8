//! What was measured so far, on the disk: a tuner that was killed goes on where it was.
//!
//! The first line names what is measured; each other line is a turn. A journal of something else is begun anew, and a last
//! line that was not written whole is left out.

use super::database::Rows;
use crate::atomic_file::{parent, private_directory};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The times of one turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// The rows.
    pub rows: Rows,
    /// Nanoseconds of each step of the plan.
    pub nanos: Vec<u64>,
    /// The clock in MHz, where the system says it.
    pub clock: Option<f64>,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal of what `key` names, and the turns that are in it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn open(path: &Path, key: &str) -> Result<(Self, Vec<Turn>)> {
        private_directory(parent(path))?;
        let text = fs::read_to_string(path).unwrap_or_default();
        let turns = match text.split_once('\n') {
            Some((head, body)) if head == key => read(body),
            _ => Vec::new(),
        };
        // What is kept is written anew, so that a torn line does not stand in the middle.
        let mut kept = format!("{key}\n");
        for turn in &turns {
            kept += &(serde_json::to_string(turn)? + "\n");
        }
        crate::atomic_file::replace(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok((Self { path: path.into(), file }, turns))
    }

    /// Adds a turn.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, turn: &Turn) -> Result<()> {
        let line = serde_json::to_string(turn)? + "\n";
        let written = self.file.write_all(line.as_bytes());
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Ends it: everything is in the database.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn finish(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

/// The turns of whole lines, up to the first that is none.
fn read(body: &str) -> Vec<Turn> {
    let whole = body.rfind('\n').map_or("", |end| &body[..end]);
    whole.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(nanos: u64) -> Turn {
        Turn { rows: Rows::Few, nanos: vec![nanos, 7], clock: Some(2400.0) }
    }

    #[test]
    fn turns_survive_a_kill_and_a_torn_line_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/j");
        let (mut journal, turns) = Journal::open(&path, "key").unwrap();
        assert!(turns.is_empty());
        journal.add(&turn(1)).unwrap();
        journal.add(&turn(2)).unwrap();
        drop(journal);
        let text = fs::read_to_string(&path).unwrap();
        for cut in [text.len(), text.len() - 1, text.len() - 9] {
            fs::write(&path, &text[..cut]).unwrap();
            let (mut journal, turns) = Journal::open(&path, "key").unwrap();
            assert_eq!(turns, if cut == text.len() { vec![turn(1), turn(2)] } else { vec![turn(1)] });
            journal.add(&turn(3)).unwrap();
            drop(journal);
            let (_, turns) = Journal::open(&path, "key").unwrap();
            assert_eq!(turns.last(), Some(&turn(3)));
        }
        let (journal, turns) = Journal::open(&path, "another").unwrap();
        assert!(turns.is_empty());
        journal.finish().unwrap();
        assert!(!path.exists());
    }
}
