//! The compile cache: plans and GPU kernels by what they were made from.
//!
//! An entry is a file whose first line is the SHA-256 of the rest. An entry that cannot be read or does not match is a
//! miss with the reason on stderr; a cache that cannot be written is a note. Neither ever changes a result.

use crate::atomic_file::sha256;
use crate::output::Output;
use crate::sealed;
use anyhow::Result;
use serde::{Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

/// Things of one kind, below one directory.
#[derive(Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// What is kept of a kind below a cache directory; without one, nothing is kept.
    pub fn new(cache: Option<&Path>, kind: &str) -> Self {
        Self { folder: cache.map(|cache| cache.join(kind)) }
    }

    /// The thing of this key, if it passes `check`, or what `make` makes, which is then kept.
    pub fn get_or<T: Serialize + DeserializeOwned>(
        &self,
        (key, output): (&str, &Output),
        check: impl Fn(&T) -> Result<()>,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(folder) = &self.folder else { return make() };
        let path = folder.join(format!("{key}.json"));
        if path.exists() {
            match sealed::read(&path).and_then(|kept| check(&kept).map(|()| kept)) {
                Ok(kept) => return Ok(kept),
                Err(reason) => output.note(format!("the cached {} is not used: {reason:#}", path.display())),
            }
        }
        let made = make()?;
        if let Err(reason) = sealed::write(&path, &made) {
            output.note(format!("{} is not kept: {reason:#}", path.display()));
        }
        Ok(made)
    }
}

/// The key of a compilation: the model's content, the options, and the compiler itself. During development the version
/// stays the same while the compiler changes, so the executable counts too.
pub fn key(model: &str, options: &str) -> String {
    let (version, executable) = (env!("CARGO_PKG_VERSION"), &*EXECUTABLE);
    sha256(format!("{version}\n{executable}\n{model}\n{options}").as_bytes())
}

/// Size and time of the executable, looked up once: kernels are compiled while a process lives, and a newer executable may lie
/// in the place of its own by then.
static EXECUTABLE: LazyLock<String> = LazyLock::new(|| {
    let executable = std::env::current_exe().and_then(std::fs::metadata);
    let stamp = executable.map(|meta| {
        let time = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        format!("{} {}", meta.len(), time.unwrap_or_default().as_nanos())
    });
    stamp.unwrap_or_default()
});

#[cfg(test)]
mod tests {
    use super::*;
    use sinter_ir::Plan;

    #[test]
    fn a_plan_is_made_once_and_again_when_its_entry_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path()), "plans");
        let output = Output::new(false);
        let made = std::cell::Cell::new(0);
        let get = || {
            let make = || {
                made.set(made.get() + 1);
                Ok(Plan { name: "p".into(), ..Plan::default() })
            };
            assert_eq!(cache.get_or(("k", &output), |_| Ok(()), make).unwrap().name, "p");
            made.get()
        };
        assert_eq!((get(), get()), (1, 1));
        let file = folder.path().join("plans/k.json");
        let text = std::fs::read_to_string(&file).unwrap();
        for damaged in [text.replace("\"p\"", "\"q\""), text[..text.len() - 1].into(), String::new()] {
            std::fs::write(&file, damaged).unwrap();
            let before = made.get();
            assert_eq!((get(), get()), (before + 1, before + 1));
        }
        assert_eq!(std::fs::read_dir(folder.path().join("plans")).unwrap().count(), 1);
    }

    #[test]
    fn keys_differ_where_anything_differs() {
        assert_eq!(key("a", "b"), key("a", "b"));
        assert_ne!(key("a", "b"), key("a", "c"));
        assert_ne!(key("a", "b"), key("b", "b"));
    }
}
