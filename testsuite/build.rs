//! Writes copies of the scheduler's files into which bugs are planted, each behind a number, for the test that the
//! simulator catches every one. The scheduler itself needs no hook for that.

use std::path::{Path, PathBuf};

include!("planted/bugs.rs");

/// The files of the scheduler; together they are all that it does.
const FILES: &[&str] = &[
    "blocks.rs",
    "engine/prefix.rs",
    "engine/cache.rs",
    "engine/plan.rs",
    "engine/sequence.rs",
    "engine/scheduler.rs",
];

fn main() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src");
    println!("cargo::rerun-if-changed=planted/bugs.rs");
    let mut text = String::from("const NAMES: &[&str] = &[\n");
    BUGS.iter().for_each(|(name, ..)| text += &format!("{name:?},\n"));
    text += "];\n";
    for file in FILES {
        let path = source.join(file);
        println!("cargo::rerun-if-changed={}", path.display());
        let original = std::fs::read_to_string(&path).expect("a file of the scheduler");
        let code = original.split("#[cfg(test)]").next().unwrap_or_default();
        let planted = plant(file, code).replace("use crate::", "use super::");
        let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
        text += &format!("pub mod {name} {{\n{planted}\n}}\n");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names the folder"));
    std::fs::write(out.join("planted_machine.rs"), text).expect("the copies are written");
}

/// A file with all of its bugs, each in a branch that is taken when its number is chosen.
fn plant(file: &str, code: &str) -> String {
    let mut changes: Vec<(usize, usize, String)> = Vec::new();
    for (number, (name, _, place, bug)) in BUGS.iter().enumerate().filter(|(_, bug)| bug.1 == file) {
        let (before, rest) = place.split_once('«').expect("an opening bracket");
        let (original, after) = rest.split_once('»').expect("a closing bracket");
        let whole = [before, original, after].concat();
        let found: Vec<usize> = code.match_indices(&whole).map(|(at, _)| at).collect();
        let [at] = found[..] else {
            panic!("{name}: {file} has {whole:?} {} times, wanted once", found.len())
        };
        let start = at + before.len();
        let branch = format!("(if super::planted({number}) {{ {bug} }} else {{ {original} }})");
        changes.push((start, start + original.len(), branch));
    }
    changes.sort();
    let (mut text, mut at) = (String::new(), 0);
    for (start, end, branch) in changes {
        // Places that overlap are nested by hand in the table; here each stands alone.
        assert!(start >= at, "two bugs of {file} stand at one place");
        text += &code[at..start];
        text += &branch;
        at = end;
    }
    text + &code[at..]
}
