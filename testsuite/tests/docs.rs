//! What the documents show is true: their graphs and tile programs are read back, their file tests pass.

use sinter_ir::{Graph, TileProgram, verify, verify_tile};
use sinter_testsuite::files::Case;
use std::path::{Path, PathBuf};

fn documents() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let entries = std::fs::read_dir(folder).expect("the documents").flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).expect("a document"))).collect()
}

/// The fenced blocks of a document that are marked with a word, without the indentation of the list that they stand in.
fn blocks(text: &str, mark: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), None);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match (open, line.trim()) {
            (None, fence) if fence.strip_prefix("```") == Some(mark) => {
                open = Some(indent);
                found.push(String::new());
            }
            (Some(_), "```") => open = None,
            (Some(outer), _) => {
                if let Some(block) = found.last_mut() {
                    block.push_str(line.get(outer..).unwrap_or_default());
                    block.push('\n');
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn graphs_and_tile_programs_are_read_back() {
    let (mut graphs, mut tiles) = (0, 0);
    for (path, text) in documents() {
        for block in blocks(&text, "graph") {
            let graph =
                Graph::parse(&block).unwrap_or_else(|error| panic!("{}: {error}\n{block}", path.display()));
            assert_eq!(verify(&graph), []);
            assert_eq!(Graph::parse(&graph.to_string()), Ok(graph), "{}", path.display());
            graphs += 1;
        }
        for block in blocks(&text, "tile") {
            let tile = TileProgram::parse(&block)
                .unwrap_or_else(|error| panic!("{}: {error}\n{block}", path.display()));
            assert_eq!(verify_tile(&tile), []);
            assert_eq!(TileProgram::parse(&tile.to_string()), Ok(tile), "{}", path.display());
            tiles += 1;
        }
    }
    assert!(graphs >= 1 && tiles >= 1, "{graphs} graphs, {tiles} tile programs");
}

#[test]
fn shown_file_tests_pass() {
    let mut count = 0;
    for (path, text) in documents() {
        for block in blocks(&text, "test") {
            for case in Case::read(&path.display().to_string(), &block).expect("the cases") {
                let output = case.output().unwrap_or_else(|error| panic!("{}: {error}", case.place));
                assert!(
                    case.complaints(&output).is_empty(),
                    "{}: {:#?}\n{output}",
                    case.place,
                    case.complaints(&output)
                );
                count += 1;
            }
        }
    }
    assert!(count >= 2, "{count} cases");
}

#[test]
fn the_glossary_and_the_steps_name_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, text) in documents() {
        // A word in back quotes with a slash and a known ending is a file of the repository.
        for word in text.split('`').skip(1).step_by(2) {
            let ending =
                [".rs", ".test", ".toml", ".md", ".py", ".graph"].iter().any(|ending| word.ends_with(ending));
            let is_path = ending && word.contains('/') && !word.contains([' ', '*', '<', '\n']);
            assert!(!is_path || root.join(word).exists(), "{}: {word} is not there", path.display());
        }
    }
}
