//! Where a model comes from, and what a directory may hold.

mod support;

use sinter_frontend::source::{FileKind, HubCache, ModelDir, resolve};
use support::{Model, says};

#[test]
fn a_directory_is_taken_first() {
    let model = Model::new().file("config.json", "{}");
    let dir = resolve(model.path().to_str().unwrap(), None).unwrap();
    assert_eq!(dir.read(FileKind::Config).unwrap(), b"{}");
    assert_eq!(dir.read_optional(FileKind::GenerationConfig).unwrap(), None);
    says(dir.read(FileKind::Tokenizer).unwrap_err(), &["tokenizer.json", "not found"]);
}

#[test]
fn what_is_no_model_is_told_apart() {
    let model = Model::new().file("f", "");
    says(resolve("no/such/dir", None).unwrap_err(), &["no/such/dir", "not a hub id"]);
    says(resolve("org/name", None).unwrap_err(), &["no hub cache"]);
    says(resolve(model.path().join("f").to_str().unwrap(), None).unwrap_err(), &["a file"]);
    let cache = HubCache { root: model.path().to_path_buf() };
    says(resolve("org/name", Some(&cache)).unwrap_err(), &["models--org--name", "download it first"]);
    says(resolve("../name", Some(&cache)).unwrap_err(), &["not a hub id"]);
    says(resolve("", Some(&cache)).unwrap_err(), &["not a hub id"]);
}

#[cfg(unix)]
fn cached() -> (Model, HubCache) {
    let model = Model::new()
        .file("hub/models--org--name/refs/main", "abc123\n")
        .file("hub/models--org--name/blobs/feed", "{\"a\":1}")
        .file("hub/models--org--name/snapshots/abc123/plain.txt", "x")
        .file("secret.json", "{}");
    let snapshot = model.path().join("hub/models--org--name/snapshots/abc123");
    std::os::unix::fs::symlink("../../blobs/feed", snapshot.join("config.json")).unwrap();
    std::os::unix::fs::symlink("../../../../secret.json", snapshot.join("generation_config.json")).unwrap();
    let cache = HubCache { root: model.path().join("hub") };
    (model, cache)
}

#[test]
#[cfg(unix)]
fn the_cache_is_read_and_its_links_followed_no_further() {
    let (model, cache) = cached();
    let dir = resolve("org/name", Some(&cache)).unwrap();
    assert_eq!(dir.read(FileKind::Config).unwrap(), b"{\"a\":1}");
    says(dir.read_optional(FileKind::GenerationConfig).unwrap_err(), &["secret.json", "outside"]);
    // The same snapshot named as a directory.
    let snapshot = model.path().join("hub/models--org--name/snapshots/abc123");
    assert!(ModelDir::open(&snapshot).unwrap().read(FileKind::Config).is_ok());
}

#[test]
#[cfg(unix)]
fn a_broken_cache_is_told() {
    let (model, cache) = cached();
    let reference = model.path().join("hub/models--org--name/refs/main");
    std::fs::write(&reference, "../../..").unwrap();
    says(resolve("org/name", Some(&cache)).unwrap_err(), &["wanted a commit hash"]);
    std::fs::write(&reference, "fff").unwrap();
    says(resolve("org/name", Some(&cache)).unwrap_err(), &["fff", "not there"]);
    std::fs::remove_file(&reference).unwrap();
    assert!(resolve("org/name", Some(&cache)).is_ok());
}

#[test]
#[cfg(unix)]
fn only_regular_files_inside_are_opened() {
    let model = Model::new().file("other/x", "x");
    let inner = model.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::os::unix::fs::symlink("../other/x", inner.join("config.json")).unwrap();
    std::os::unix::fs::symlink("loop.json", inner.join("loop.json")).unwrap();
    std::fs::create_dir(inner.join("tokenizer.json")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(inner.join("pipe")).status();
    let dir = ModelDir::open(&inner).unwrap();
    says(dir.read(FileKind::Config).unwrap_err(), &["outside the model directory"]);
    says(dir.read(FileKind::Tokenizer).unwrap_err(), &["regular file", "a directory"]);
    assert!(dir.read_named("loop.json", 10).is_err());
    if made.is_ok_and(|status| status.success()) {
        says(dir.read_named("pipe", 10).unwrap_err(), &["a pipe"]);
    }
    for name in ["/etc/passwd", "../other/x", "a/../b", "./x", "", "a\0b", "a\\b"] {
        says(dir.read_named(name, 10).unwrap_err(), &["refused file name"]);
    }
}

#[test]
fn large_files_are_refused_by_their_size() {
    let model = Model::new().file("config.json", vec![b' '; (1 << 20) + 1]);
    says(model.open().read(FileKind::Config).unwrap_err(), &["1048577 bytes", "at most 1048576"]);
}
