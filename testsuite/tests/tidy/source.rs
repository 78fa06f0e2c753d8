//! The files of the repository, and the functions in them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// One text file.
pub(crate) struct Source {
    /// The path from the root of the repository.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

impl Source {
    /// Whether the name ends in one of these.
    pub(crate) fn has_extension(&self, extensions: &[&str]) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension))
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every text file that git knows or would take; without git, every file outside the build folders.
pub(crate) fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let mut paths = listed().unwrap_or_else(walked);
        paths.sort();
        let read =
            |path: String| std::fs::read_to_string(root().join(&path)).ok().map(|text| Source { path, text });
        let sources: Vec<Source> = paths.into_iter().filter_map(read).collect();
        assert!(sources.len() > 150, "only {} files were found", sources.len());
        sources
    })
}

fn listed() -> Option<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.lines().map(str::to_string).collect())
}

fn walked() -> Vec<String> {
    let (mut open, mut found) = (vec![root()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let skipped = ["target", ".git", ".venv", "__pycache__"].iter().any(|skipped| name == *skipped);
            match path.is_dir() {
                true if !skipped => open.push(path),
                true => {}
                false => found.extend(path.strip_prefix(root()).ok().map(|path| path.display().to_string())),
            }
        }
    }
    found
}

/// Line, name and number of lines of every function, as rustfmt lays them out: a body ends at a brace under the `fn`.
pub(crate) fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let closes = |line: &&str| {
            line.strip_prefix(indent)
                .is_some_and(|rest| rest.starts_with('}') || (rest.starts_with(')') && rest.ends_with(';')))
        };
        let alone = line.ends_with('}') || line.ends_with(';');
        let length = if alone { Some(0) } else { lines[at + 1..].iter().position(closes).map(|end| end + 1) };
        found.extend(length.map(|length| (at + 1, name.to_string(), length + 1)));
    }
    found
}

/// The name, if a line begins a function.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let mut word = words.next()?;
    while word.starts_with("pub")
        || matches!(word, "const" | "async" | "unsafe" | "extern" | "\"C\"" | "default")
    {
        word = words.next()?;
    }
    let name = (word == "fn").then(|| words.next()).flatten()?;
    name.split(['(', '<']).next()
}

#[test]
fn functions_are_found_and_measured() {
    let text = "fn one() {}\n\nimpl X {\n    pub(crate) const fn two(\n        a: u8,\n    ) -> u8 {\n        a\n    }\n    fn three(&self);\n}\n// fn no() {\n";
    let found: Vec<(usize, String, usize)> = functions(text);
    assert_eq!(found, [(1, "one".into(), 1), (4, "two".into(), 5), (9, "three".into(), 1)]);
}
