//! Files whose first line is the SHA-256 of the rest: what is damaged is never believed.

use crate::atomic_file::{parent, private_directory, replace, sha256};
use anyhow::{Context, Result, ensure};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

/// Reads what [`write`] wrote.
///
/// # Errors
/// If the file cannot be read, is damaged, or holds something else.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).context("it cannot be read")?;
    let (hash, body) = text.split_once('\n').context("it has no hash")?;
    ensure!(sha256(body.as_bytes()) == hash, "its hash is wrong");
    serde_json::from_str(body).context("it was written by another version")
}

/// Writes a value as JSON and replaces what was there; readers see the old file or the new one.
///
/// # Errors
/// If the file or its directory cannot be written.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    private_directory(parent(path))?;
    let body = serde_json::to_string(value)?;
    replace(path, format!("{}\n{body}", sha256(body.as_bytes())).as_bytes())
}
