//! What the documents show is true: their graphs and tile programs are read back, their file tests pass.

use sinter_frontend::build::BuildOptions;
use sinter_ir::{DType, Graph, TileProgram, verify, verify_tile};
use sinter_testsuite::files::Case;
use sinter_testsuite::golden;
use std::path::{Path, PathBuf};

/// The most lines of a document.
const LINES: usize = 120;

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

/// `docs/one-block.md` follows the second distinct block of a golden model: its graph, and the kernels in their order.
#[test]
fn the_followed_block_is_the_one_that_is_compiled() {
    let (_, text) =
        documents().into_iter().find(|(path, _)| path.ends_with("one-block.md")).expect("the block");
    let graph = golden::open("llama").model.build(BuildOptions::new(DType::F32)).expect("the graph builds");
    let compiled = sinter_passes::compile(&graph, &sinter_passes::Options::default()).expect("it compiles");
    assert_eq!(blocks(&text, "graph"), [compiled.fused[1].to_string()]);
    let kernels: Vec<String> = compiled.plan.kernels.values().map(TileProgram::to_string).collect();
    let shown = blocks(&text, "tile");
    let first = kernels.iter().position(|kernel| *kernel == shown[0]);
    let first = first.unwrap_or_else(|| panic!("not a kernel of the model:\n{}", shown[0]));
    assert_eq!(shown, kernels[first..first + shown.len()]);
}

#[test]
fn documents_are_short_and_name_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, text) in documents() {
        assert!(text.lines().count() <= LINES, "{} has more than {LINES} lines", path.display());
    }
    let at_the_root = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root.join(name));
    let at_the_root = at_the_root.map(|path| (path.clone(), std::fs::read_to_string(path).expect("a page")));
    for (path, text) in documents().into_iter().chain(at_the_root) {
        let place = path.display();
        // A word in back quotes that begins with a folder of the repository is a path, with a line number at most;
        // what is built is not there yet.
        for word in text.split('`').skip(1).step_by(2) {
            let Some((folder, _)) = word.split_once('/').filter(|(folder, _)| *folder != "target") else {
                continue;
            };
            let plain = !word.contains([' ', '*', '<', '{', '\n']) && !folder.is_empty();
            let file = word.split(':').next().unwrap_or(word);
            assert!(!(plain && root.join(folder).is_dir()) || root.join(file).exists(), "{place}: {word}");
        }
    }
}
