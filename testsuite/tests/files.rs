//! Runs every case under `files/`. With BLESS=1 in the environment, whole outputs are rewritten instead of compared.

use sinter_testsuite::files::{Case, folder, paths};
use std::panic::catch_unwind;

#[test]
fn every_case_gives_what_it_says() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let (mut failures, mut count) = (Vec::new(), 0);
    for path in paths().expect("the folder of file tests") {
        let text = std::fs::read_to_string(&path).expect("a readable file test");
        let place = path.strip_prefix(folder()).unwrap_or(&path).display().to_string();
        let cases = Case::read(&place, &text).unwrap_or_else(|error| panic!("{error}"));
        let mut blessed = Vec::new();
        for case in &cases {
            count += 1;
            let output = catch_unwind(|| case.output()).unwrap_or_else(|_| Err("it panics".into()));
            let complaints = match &output {
                Ok(output) => case.complaints(output),
                Err(error) => vec![error.clone()],
            };
            let output = output.unwrap_or_default();
            blessed.push(case.blessed(&output));
            if !complaints.is_empty() {
                failures.push(format!("{}: {}\n{output}", case.place, complaints.join("\n  ")));
            }
        }
        let blessed = blessed.join("\n");
        if bless && blessed != text {
            std::fs::write(&path, blessed).expect("a writable file test");
        }
    }
    println!("{count} cases");
    assert!(bless || failures.is_empty(), "{} of {count} cases\n\n{}", failures.len(), failures.join("\n\n"));
}
