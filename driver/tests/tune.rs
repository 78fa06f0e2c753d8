//! The tuner from end to end: measured, kept, used by other commands, and never a bit changed.

use sinter_driver::tune::database::{Database, Entry};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// As little as makes a verdict.
const SHORT: [&str; 8] = ["--rounds", "6", "--candidates", "3", "--context", "20", "--prompt", "40"];

fn golden(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "testsuite", "goldens", name].iter().collect();
    path.display().to_string()
}

/// The command with a cache of its own.
fn sinter(cache: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
    command.args(args).env("SINTER_CACHE", cache).env("HF_HUB_CACHE", "/nonexistent");
    command.stdin(Stdio::null());
    command
}

fn done(cache: &Path, args: &[&str]) -> Output {
    let output = sinter(cache, args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    output
}

fn json(cache: &Path, args: &[&str]) -> serde_json::Value {
    serde_json::from_slice(&done(cache, &[args, &["--json"]].concat()).stdout).unwrap()
}

/// All logits of a prompt and of tokens after it, as bytes.
fn logits(cache: &Path, (model, threads): (&str, &str)) -> Vec<u8> {
    let out = cache.join("out.safetensors");
    let tokens: Vec<String> = (0..60).map(|at| (at * 7 % 50 + 1).to_string()).collect();
    let (tokens, file) = (tokens.join(","), out.display().to_string());
    done(
        cache,
        &["logits", model, "--tokens", &tokens, "--out", &file, "--decode", "5", "--threads", threads],
    );
    std::fs::read(out).unwrap()
}

/// The one database below a cache.
fn database(cache: &Path) -> PathBuf {
    let folder = std::fs::read_dir(cache.join("tuning")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> =
        folder.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    assert_eq!(files.len(), 1);
    files[0].clone()
}

#[test]
fn what_was_measured_is_used_and_changes_no_bit() {
    // Two threads on a machine whose cores are busy wait for each other, so the larger model gets one.
    for (model, threads) in [("llama", "2"), ("mixtral", "1")] {
        let model = golden(model);
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path();
        let untuned = logits(cache, (&model, threads));
        let value = json(cache, &[&["tune", &model, "--threads", threads], &SHORT[..]].concat());
        let report = &value["report"];
        let kernels = report["kernels"].as_array().unwrap();
        let rows = |wanted: &str| kernels.iter().filter(|kernel| kernel["rows"] == wanted).count();
        assert!(rows("few") > 3 && rows("many") > 3, "{report}");
        for kernel in kernels {
            assert!(kernel["rounds"].as_u64().unwrap() >= 6, "{kernel}");
            assert!(kernel["microseconds"].as_f64().unwrap() > 0.0, "{kernel}");
            assert!(kernel["floor"]["bytes"].as_u64().unwrap() > 0, "{kernel}");
        }
        // Every kernel is now run in a way that the cost model did not choose, which the database says.
        let path = database(cache);
        let read = Database::read(&path).unwrap();
        let mut other = Database::default();
        for entry in read.entries() {
            let kernel = kernels.iter().find(|kernel| {
                kernel["name"] == entry.name.as_str() && kernel["rows"] == entry.rows.to_string().as_str()
            });
            let schedules = kernel.unwrap()["candidates"].as_array().unwrap();
            let last = schedules.last().unwrap()["schedule"].as_str().unwrap();
            other.put(Entry { choice: last.into(), ..entry.clone() });
        }
        other.write(&path).unwrap();
        let shown = json(cache, &["explain", &model, "--schedule", "--threads", threads]);
        let shown = shown.as_array().unwrap();
        for entry in other.entries() {
            let of = |kernel: &&serde_json::Value| {
                kernel["kernel"] == entry.name.as_str() && kernel["rows"] == entry.rows.to_string().as_str()
            };
            assert!(shown.iter().filter(of).any(|kernel| kernel["schedule"] == entry.choice.as_str()));
        }
        assert!(shown.iter().any(|kernel| kernel["tuned"] == true));
        assert_eq!(logits(cache, (&model, threads)), untuned, "{model}");
    }
}

#[test]
fn a_tuner_that_was_killed_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path();
    let model = golden("llama");
    let args = ["tune", &model, "--threads", "2", "--rounds", "400", "--context", "20", "--prompt", "40"];
    let mut child = sinter(cache, &[&args[..], &["--budget", "600s"]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let journal = || {
        let folder = std::fs::read_dir(cache.join("tuning")).into_iter().flatten().flatten();
        let mut files = folder.map(|entry| entry.path());
        let file = files.find(|path| path.extension().is_some_and(|end| end == "journal"))?;
        std::fs::read_to_string(file).ok()
    };
    let started = Instant::now();
    while journal().is_none_or(|text| text.lines().count() < 60) {
        assert!(started.elapsed() < Duration::from_secs(120), "nothing was measured");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = journal().unwrap().lines().count();
    let output = done(cache, &[&args[..], &["--budget", "1s", "--json"]].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("turns were measured before"), "{stderr}");
    assert!(stderr.contains("the same command again goes on"), "{stderr}");
    assert!(journal().unwrap().lines().count() >= before - 1);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let certain = value["report"]["kernels"].as_array().unwrap().iter();
    assert!(certain.filter(|kernel| kernel["rounds"].as_u64().unwrap() >= 6).count() > 0);
    assert!(!Database::read(&database(cache)).unwrap().is_empty());
}

#[test]
fn built_here_and_measured_there() {
    let folder = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| folder.path().join(name));
    let model = golden("qwen2");
    let parcel = folder.path().join("parcel").display().to_string();
    done(&here, &["tune", &model, "--export", &parcel]);
    let again = sinter(&here, &["tune", &model, "--export", &parcel]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let plot = folder.path().join("roofline.svg").display().to_string();
    let args = ["tune", "--measure", &parcel, "--threads", "2", "--plot", &plot];
    let value = json(&there, &[&args[..], &SHORT[..]].concat());
    assert_eq!(value["report"]["model"], "qwen2");
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    assert!(svg.matches("<circle").count() > 3 && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    let added = json(&here, &["tune", "--import", &parcel, "--threads", "2"]);
    assert!(added["imported"].as_u64().unwrap() > 3);
    assert_eq!(added["entries"], added["imported"]);
    // A damaged file is refused, and what was there stays.
    let results = folder.path().join("parcel/results.json");
    let text = std::fs::read_to_string(&results).unwrap();
    std::fs::write(&results, text.replace("few", "fev")).unwrap();
    let refused = sinter(&here, &["tune", "--import", &parcel, "--threads", "2"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("its hash is wrong"));
    let kept = Database::read(&database(&here)).unwrap();
    assert_eq!(kept.len() as u64, added["entries"].as_u64().unwrap());
}

#[test]
fn a_database_that_does_not_fit_is_a_note_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path();
    let model = golden("bert");
    let flags = [&["tune", &model, "--threads", "2"], &SHORT[..]].concat();
    done(cache, &flags);
    let path = database(cache);
    let tokens = |cache: &Path| {
        let out = cache.join("o").display().to_string();
        let args = ["logits", &model, "--tokens", "2,3,4,5", "--out", &out, "--threads", "2"];
        let stderr = String::from_utf8(done(cache, &args).stderr).unwrap();
        (std::fs::read(&out).unwrap(), stderr)
    };
    let (wanted, _) = tokens(cache);
    let mut wrong = Database::default();
    for entry in Database::read(&path).unwrap().entries() {
        wrong.put(Entry { choice: "attend 4096 rows".into(), ..entry.clone() });
    }
    wrong.write(&path).unwrap();
    let (found, stderr) = tokens(cache);
    assert!(stderr.contains("does not fit it") && stderr.contains("the cost model chose"), "{stderr}");
    assert_eq!(found, wanted);
    std::fs::write(&path, "x").unwrap();
    let (found, stderr) = tokens(cache);
    assert!(stderr.contains("is not used: it has no hash"), "{stderr}");
    assert_eq!(found, wanted);
}
