//! Builds model directories for the tests, sound ones and broken ones.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;

use sinter_frontend::source::ModelDir;
use tempfile::TempDir;

/// A directory that disappears with the test.
pub struct Model {
    pub dir: TempDir,
}

impl Model {
    pub fn new() -> Self {
        Model { dir: tempfile::tempdir().unwrap() }
    }

    /// Writes a file, with its folders.
    pub fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn open(&self) -> ModelDir {
        ModelDir::open(self.dir.path()).unwrap()
    }
}

/// The bytes of a safetensors file of zeros: (name, type, shape) in order.
pub fn safetensors(tensors: &[(&str, &str, &[usize])]) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut at = 0;
    for (name, dtype, shape) in tensors {
        let size = match *dtype {
            "BOOL" | "U8" => 1,
            "F16" | "BF16" => 2,
            "F32" => 4,
            _ => 8,
        };
        let end = at + size * shape.iter().product::<usize>();
        entries
            .push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    let header = format!("{{{}}}", entries.join(","));
    with_header(&header, at)
}

/// A file with this header and so many bytes after it.
pub fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Small deterministic random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Asserts that an error says all of these words.
#[track_caller]
pub fn says(error: impl std::fmt::Display, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "wanted `{word}` in: {text}");
    }
}
