//! The rules of the house, enforced: what the compiler and clippy cannot see.

#[path = "tidy/source.rs"]
mod source;

use sinter_ir::{Graph, OP_NAMES, ScalarOp};
use sinter_testsuite::files::{COMMANDS, Case, folder, paths};
use source::{Source, functions, root, sources};
use std::collections::{BTreeMap, BTreeSet};

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 80;

/// Fails with every line of `found`.
fn none(found: Vec<String>) {
    assert!(found.is_empty(), "{} found\n{}", found.len(), found.join("\n"));
}

/// Complaints about the lines of all files that `wanted` picks.
fn each_line(wanted: impl Fn(&Source) -> bool, complain: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| wanted(source)) {
        for (number, line) in source.text.lines().enumerate() {
            found.extend(complain(line).map(|what| format!("{}:{}: {what}", source.path, number + 1)));
        }
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.has_extension(&["rs", "py"])) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES {
            found.push(format!("{}: {lines} lines, at most {FILE_LINES}", source.path));
        }
    }
    let mut count = 0;
    for source in sources().iter().filter(|source| source.has_extension(&["rs"])) {
        for (line, name, length) in functions(&source.text) {
            count += 1;
            if length > FUNCTION_LINES {
                found.push(format!(
                    "{}:{line}: {name} has {length} lines, at most {FUNCTION_LINES}",
                    source.path
                ));
            }
        }
    }
    assert!(count > 1000, "only {count} functions were seen");
    none(found);
}

/// Lines of a row of the table of families, but for those that list fields of no meaning or of one value.
const ROW_LINES: usize = 40;

#[test]
fn a_family_costs_few_lines() {
    let (mut found, mut count) = (Vec::new(), 0);
    for source in sources().iter().filter(|source| source.path.starts_with("frontend/src/families/")) {
        let mut lines = source.text.lines();
        while let Some(line) = lines.next() {
            let Some((name, "Family = Family {")) = line.split_once(": ") else { continue };
            let row: Vec<&str> = lines.by_ref().take_while(|line| *line != "};").collect();
            let (mut length, mut listing) = (2, false);
            for line in &row {
                listing |= ["    ignored: &[", "    only: &["].contains(line);
                length += usize::from(!listing);
                listing &= *line != "    ],";
            }
            count += 1;
            if length > ROW_LINES {
                found.push(format!("{}: {name} has {length} lines, at most {ROW_LINES}", source.path));
            }
        }
    }
    assert!(count > 50, "only {count} rows were seen");
    none(found);
}

#[test]
fn files_are_named_after_what_is_in_them() {
    let vague = ["utils", "util", "helpers", "helper", "common", "misc"];
    let is_vague = |source: &&Source| source.path.split(['/', '.']).any(|part| vague.contains(&part));
    none(sources().iter().filter(is_vague).map(|source| source.path.clone()).collect());
}

/// What each crate may depend on in the house. Tests of a crate may use nothing more.
const IMPORTS: &[(&str, &[&str])] = &[
    ("ir", &[]),
    ("frontend", &["sinter-ir"]),
    ("passes", &["sinter-ir"]),
    ("codegen/weights", &["sinter-ir"]),
    ("codegen/schedule", &["sinter-ir"]),
    ("codegen/host", &["sinter-ir", "sinter-codegen-weights"]),
    ("codegen/nvptx", &["sinter-ir", "sinter-codegen-schedule"]),
    ("runtime", &["sinter-ir"]),
    ("testsuite/vgpu", &["sinter-ir"]),
    (
        "driver",
        &[
            "sinter-ir",
            "sinter-frontend",
            "sinter-passes",
            "sinter-codegen-weights",
            "sinter-codegen-schedule",
            "sinter-codegen-host",
            "sinter-codegen-nvptx",
            "sinter-runtime",
            "sinter-vgpu",
        ],
    ),
    (
        "testsuite",
        &[
            "sinter-ir",
            "sinter-frontend",
            "sinter-passes",
            "sinter-codegen-weights",
            "sinter-codegen-host",
            "sinter-runtime",
            "sinter-driver",
            "sinter-vgpu",
        ],
    ),
    (
        "testsuite/gpu",
        &[
            "sinter-ir",
            "sinter-frontend",
            "sinter-passes",
            "sinter-codegen-weights",
            "sinter-codegen-schedule",
            "sinter-codegen-host",
            "sinter-codegen-nvptx",
            "sinter-runtime",
            "sinter-driver",
            "sinter-vgpu",
            "sinter-testsuite",
        ],
    ),
];

/// Who alone may depend on a package from outside; a name that ends in `-` stands for all that begin so.
const OWNED: &[(&str, &[&str])] = &[
    ("egg", &["passes"]),
    ("cranelift-", &["codegen/host"]),
    ("melior", &["codegen/nvptx"]),
    ("mlir-", &["codegen/nvptx"]),
    ("inkwell", &["codegen/nvptx"]),
    ("cudarc", &["runtime"]),
    ("tokenizers", &["frontend"]),
    ("minijinja", &["frontend"]),
    ("minijinja-contrib", &["frontend"]),
    ("safetensors", &["frontend", "driver", "testsuite"]),
    ("memmap2", &["frontend", "runtime"]),
    ("clap", &["driver"]),
    ("clap_complete", &["driver"]),
    ("indicatif", &["driver"]),
    ("llguidance", &["driver"]),
    ("axum", &["driver"]),
    ("hyper", &["driver"]),
    ("hyper-", &["driver"]),
    ("http-body-", &["driver"]),
    ("tikv-jemallocator", &["driver"]),
    ("tokio", &["driver"]),
    ("futures-", &["driver"]),
];

/// The names under the dependency tables of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let (mut inside, mut names) = (false, BTreeSet::new());
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies");
            if let Some((_, name)) = table.split_once("dependencies.") {
                names.insert(name.into());
            }
        } else if let (true, Some((name, _))) = (inside, line.split_once('=')) {
            names.insert(name.trim().split('.').next().unwrap_or_default().trim_matches('"').into());
        }
    }
    names
}

#[test]
fn imports_follow_the_law() {
    let mut found = Vec::new();
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    for member in members.trim_matches(['[', ']']).split(',').map(|member| member.trim().trim_matches('"')) {
        let manifest = std::fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a manifest");
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == member) else {
            found.push(format!("{member} is not in the table of imports"));
            continue;
        };
        for name in dependencies(&manifest) {
            if name.starts_with("sinter-") && !allowed.contains(&name.as_str()) {
                found.push(format!("{member} must not depend on {name}"));
            }
            let owned = |pattern: &str| {
                if pattern.ends_with('-') { name.starts_with(pattern) } else { name == pattern }
            };
            let owners = OWNED.iter().find(|(pattern, _)| owned(pattern));
            if owners.is_some_and(|(_, owners)| !owners.contains(&member)) {
                found.push(format!("{member} must not depend on {name}"));
            }
        }
    }
    none(found);
}

/// Where `unsafe` may stand, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("codegen/host/src/micro/", "vector intrinsics and pointers from generated code"),
    ("codegen/host/src/code.rs", "addresses of generated code become functions"),
    ("codegen/weights/src/bytes.rs", "bytes are seen as numbers"),
    ("codegen/host/tests/launch/", "kernels are called with addresses"),
    ("codegen/host/examples/", "kernels are called with addresses"),
    ("codegen/nvptx/src/emit/assemble.rs", "MLIR's C interface hands a module to LLVM's"),
    ("runtime/src/host/", "kernels are called with addresses, and the pool lends closures"),
    ("runtime/src/cuda/", "the CUDA driver is called through its C interface"),
    ("frontend/src/map.rs", "a file is mapped"),
    ("ir/src/kernel.rs", "the type of a kernel's entry"),
];

#[test]
fn unsafe_code_stands_where_it_must() {
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code"];
    let free = |source: &Source| {
        source.has_extension(&["rs"])
            && !source.path.ends_with("tidy.rs")
            && !UNSAFE.iter().any(|(place, _)| source.path.starts_with(place))
    };
    none(each_line(free, |line| {
        let code = !line.trim_start().starts_with("//");
        let word = words.iter().find(|word| code && line.contains(**word))?;
        Some(format!("{word:?} in a safe place"))
    }));
    for (place, _) in UNSAFE {
        let used = |source: &Source| source.path.starts_with(place) && source.text.contains("unsafe");
        assert!(sources().iter().any(used), "{place} needs no exception any more");
    }
}

#[test]
fn only_the_driver_reads_the_environment() {
    let inner = |source: &Source| {
        let library = source.path.contains("/src/") && !source.path.starts_with("testsuite/");
        source.has_extension(&["rs"]) && library && source.path != "driver/src/environment.rs"
    };
    none(each_line(inner, |line| line.contains("env::var").then(|| "reads the environment".into())));
}

#[test]
fn nothing_is_left_undone() {
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
        concat!("FIX", "ME"),
    ];
    let rust = |source: &Source| source.has_extension(&["rs"]);
    let mut found =
        each_line(rust, |line| words.iter().find(|word| line.contains(**word)).map(|word| word.to_string()));
    for source in sources().iter().filter(|source| rust(source)) {
        for (at, _) in source.text.match_indices(concat!("[", "allow(")) {
            let end = source.text[at..].find(")]").map_or(source.text.len(), |end| at + end);
            if !source.text[at..end].contains("reason") {
                found.push(format!("{}: {} without a reason", source.path, &source.text[at..end]));
            }
        }
    }
    none(found);
}

#[test]
fn lines_end_where_their_text_ends() {
    let text = |source: &Source| !source.path.starts_with("LICENSE") && !source.has_extension(&["json"]);
    let mut found =
        each_line(text, |line| line.ends_with([' ', '\t', '\r']).then(|| "trailing white space".into()));
    let open = |source: &&Source| text(source) && !source.text.is_empty() && !source.text.ends_with('\n');
    found.extend(
        sources().iter().filter(open).map(|source| format!("{}: no newline at the end", source.path)),
    );
    none(found);
}

/// The repository speaks of the project alone. The words are written in two parts, so that this file does not say them.
#[test]
fn the_workplace_is_not_mentioned() {
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/opt/", "ref"),
        concat!("py", "pi."),
        concat!("python", "hosted"),
        concat!("crates", ".io"),
        concat!("npm", "js"),
        concat!("bash", "_jobs"),
        concat!("claude", "."),
        concat!("anth", "ropic"),
        concat!("cha", "tgpt"),
    ];
    // This one is also the name of an interface that the server has, and of the client that speaks it.
    let interface = concat!("anth", "ropic");
    let speaks = ["testsuite/clients/", "driver/src/serve/", "driver/tests/serve/"];
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !["Cargo.lock", "LICENSE-APACHE"].contains(&&*source.path))
    {
        let free =
            |word: &str| word == interface && speaks.iter().any(|place| source.path.starts_with(place));
        for (number, line) in source.text.to_lowercase().lines().enumerate() {
            let said = words.iter().find(|word| line.contains(**word) && !free(word));
            found.extend(said.map(|word| format!("{}:{}: says {word:?}", source.path, number + 1)));
        }
    }
    none(found);
}

#[test]
fn links_of_documents_lead_somewhere() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.has_extension(&["md"])) {
        let here = root().join(&source.path);
        let here = here.parent().expect("a folder");
        for (at, _) in source.text.match_indices("](") {
            let link = source.text[at + 2..].split([')', '#', ' ']).next().unwrap_or_default();
            if !link.is_empty() && !link.contains("://") && !here.join(link).exists() {
                found.push(format!("{}: {link} is not there", source.path));
            }
        }
        // Paths in back quotes that name a file of the repository, such as `docs/ir.md`.
        for word in source.text.split('`').skip(1).step_by(2) {
            let named = word.ends_with(".md") && word.contains('/') && !word.contains(' ');
            if named && !root().join(word).exists() && !here.join(word).exists() {
                found.push(format!("{}: {word} is not there", source.path));
            }
        }
    }
    none(found);
}

/// All cases of the file tests.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in paths().expect("the file tests") {
        let place = path.strip_prefix(folder()).unwrap_or(&path).display().to_string();
        let text = std::fs::read_to_string(&path).expect("a readable file test");
        cases.extend(Case::read(&place, &text).unwrap_or_else(|error| panic!("{error}")));
    }
    cases
}

#[test]
fn every_rule_says_why_and_has_a_file_test() {
    let (cases, rules) = (cases(), sinter_passes::rules());
    let mut found = Vec::new();
    for rule in &rules {
        if !rule.why.ends_with('.') || rule.why.len() < 12 {
            found.push(format!("{} does not say why", rule.name));
        }
        let checked = |key: &str| {
            let wanted = format!("{key} {}", rule.name);
            cases
                .iter()
                .any(|case| case.command == "rewrite" && case.all("check").any(|check| check == wanted))
        };
        if !checked("fired") {
            found.push(format!("no file test checks `fired {}`", rule.name));
        }
        if rule.counter.is_some() && !checked("refused") {
            found.push(format!("{} has a guard, and no file test checks `refused {}`", rule.name, rule.name));
        }
    }
    let known = |name: &str| rules.iter().any(|rule| rule.name == name);
    for name in cases.iter().filter_map(|case| case.all("rules").next()).flat_map(|names| names.split(',')) {
        if !known(name.trim()) {
            found.push(format!("a file test names the rule {name}, which does not exist"));
        }
    }
    none(found);
}

#[test]
fn every_op_has_a_type_test_and_a_value_test() {
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let cases = cases();
    for case in &cases {
        if let Ok(graph) = Graph::parse(&case.input) {
            let names = graph.nodes.values().map(|node| node.op.name().to_string());
            used.entry(&case.command).or_default().extend(names);
        }
    }
    let mut found = Vec::new();
    for (command, _) in COMMANDS {
        if cases.iter().all(|case| case.command != *command) {
            found.push(format!("no file test uses the command {command}"));
        }
    }
    for name in OP_NAMES {
        let leaf = matches!(*name, "param" | "state" | "input" | "cast" | "const");
        for command in ["roundtrip", "eval"].into_iter().filter(|command| *command == "roundtrip" || !leaf) {
            if !used.get(command).is_some_and(|names| names.contains(*name)) {
                found.push(format!("no case of `; test {command}` uses {name}"));
            }
        }
    }
    for scalar in ScalarOp::ALL {
        if !used.get("eval").is_some_and(|names| names.contains(scalar.name())) {
            found.push(format!("no case of `; test eval` uses {}", scalar.name()));
        }
    }
    none(found);
}
