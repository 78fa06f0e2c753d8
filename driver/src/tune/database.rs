//! The tuning database: a file of verdicts by device, kernel and rows.
//!
//! Its first line is the SHA-256 of the rest, so a damaged file is never believed. A kernel's key is the hash of its tile
//! program without its name: models that share a program share its verdict.

use crate::atomic_file::sha256;
use crate::sealed;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sinter_ir::TileProgram;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The version of the file's form.
const VERSION: u32 = 1;

/// How many rows a launch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rows {
    /// At most [`sinter_codegen_host::FEW_ROWS`].
    Few,
    /// More.
    Many,
}

impl Rows {
    /// Both.
    pub const ALL: [Rows; 2] = [Rows::Few, Rows::Many];
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Rows::Few => "few",
            Rows::Many => "many",
        })
    }
}

/// What was found of a kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it was measured on.
    pub device: String,
    /// The kernel's key.
    pub kernel: String,
    /// The rows of the launches.
    pub rows: Rows,
    /// The kernel's name in the model that was tuned.
    pub name: String,
    /// What is to be run.
    pub choice: String,
    /// What the cost model had chosen.
    pub model: String,
    /// The time of the choice over that of the model's choice, and the bounds between which it lies with 95 %.
    pub ratio: [f64; 3],
    /// Rounds that were measured.
    pub rounds: usize,
}

/// All entries of a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Database {
    entries: BTreeMap<(String, String, Rows), Entry>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    entries: Vec<Entry>,
}

/// The key of a kernel.
pub fn kernel_key(tile: &TileProgram) -> String {
    sha256(TileProgram { name: String::new(), ..tile.clone() }.to_string().as_bytes())
}

/// Where a cache directory keeps the verdicts of this machine with so many threads.
pub fn of_this_machine(cache: &Path, threads: usize) -> PathBuf {
    let device = sha256(super::machine::device(threads).as_bytes());
    cache.join("tuning").join(format!("{}.json", &device[..16]))
}

impl Database {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or has another version.
    pub fn read(path: &Path) -> Result<Self> {
        let file: File = sealed::read(path)?;
        ensure!(file.version == VERSION, "it has version {}, wanted {VERSION}", file.version);
        let mut database = Self::default();
        file.entries.into_iter().for_each(|entry| database.put(entry));
        Ok(database)
    }

    /// Reads a file if it is there.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_or_empty(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        Self::read(path).with_context(|| format!("the tuning database {}", path.display()))
    }

    /// Replaces a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        sealed::write(path, &File { version: VERSION, entries: self.entries.values().cloned().collect() })
    }

    /// Adds an entry, or replaces the one of the same device, kernel and rows.
    pub fn put(&mut self, entry: Entry) {
        let key = (entry.device.clone(), entry.kernel.clone(), entry.rows);
        self.entries.insert(key, entry);
    }

    /// Adds all entries of another database; of two for the same the other's counts.
    pub fn merge(&mut self, other: Database) {
        self.entries.extend(other.entries);
    }

    /// What is to be run.
    pub fn choice(&self, device: &str, kernel: &str, rows: Rows) -> Option<&str> {
        let key = (device.to_owned(), kernel.to_owned(), rows);
        self.entries.get(&key).map(|entry| &entry.choice[..])
    }

    /// All entries, in the order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(device: &str, kernel: &str, choice: &str) -> Entry {
        Entry {
            device: device.into(),
            kernel: kernel.into(),
            rows: Rows::Few,
            name: "k".into(),
            choice: choice.into(),
            model: "points".into(),
            ratio: [0.9, 0.8, 0.95],
            rounds: 7,
        }
    }

    #[test]
    fn what_is_written_is_read_and_merged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/db.json");
        let mut one = Database::default();
        one.put(entry("a", "k", "points"));
        one.put(entry("b", "k", "points"));
        one.write(&path).unwrap();
        let mut read = Database::read(&path).unwrap();
        assert_eq!(read, one);
        let mut other = Database::default();
        other.put(entry("a", "k", "attend 2 rows"));
        read.merge(other);
        assert_eq!((read.len(), read.choice("a", "k", Rows::Few)), (2, Some("attend 2 rows")));
        assert_eq!(read.choice("a", "k", Rows::Many), None);
        assert_eq!(read.choice("c", "k", Rows::Few), None);
        assert!(Database::read_or_empty(&folder.path().join("none.json")).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.json");
        let mut database = Database::default();
        database.put(entry("a", "k", "points"));
        database.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let other = text.split_once('\n').unwrap().1.replace("\"version\":1", "\"version\":2");
        let other = format!("{}\n{other}", sha256(other.as_bytes()));
        for (damaged, reason) in [
            (text.replace("points", "pointz"), "its hash is wrong"),
            (text[..text.len() - 3].to_owned(), "its hash is wrong"),
            (String::new(), "it has no hash"),
            (other, "it has version 2"),
        ] {
            std::fs::write(&path, damaged).unwrap();
            let found = format!("{:#}", Database::read(&path).unwrap_err());
            assert!(found.contains(reason), "{found}");
        }
    }

    #[test]
    fn a_kernel_is_known_by_what_it_does() {
        let tile = TileProgram { name: "a".into(), ..TileProgram::default() };
        let renamed = TileProgram { name: "b".into(), ..tile.clone() };
        let mut other = renamed.clone();
        other.axes.push(sinter_ir::Axis { name: "x".into(), extent: 4.into() });
        assert_eq!(kernel_key(&tile), kernel_key(&renamed));
        assert_ne!(kernel_key(&tile), kernel_key(&other));
    }
}
