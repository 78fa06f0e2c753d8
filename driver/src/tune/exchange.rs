//! Built here, measured there: a plan on its way to another machine, and its verdicts on the way back.
//!
//! The directory holds `plan.json`, and once it was measured `results.json`, which is a database. Host kernels are compiled in
//! milliseconds by every build of the command, so the plan goes and not machine code: what is worth a measurement depends on
//! the threads and caches of the machine where it is measured. No weight goes with it; see [`super::synthetic`].

use super::rounds::Facts;
use crate::sealed;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sinter_ir::Plan;
use std::path::{Path, PathBuf};

/// The version of the directory's form.
const VERSION: u32 = 1;

/// A plan with what measuring it needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Parcel {
    version: u32,
    /// The model's name.
    pub model: String,
    /// The plan.
    pub plan: Plan,
    /// Whether it continues texts.
    pub decoder: bool,
    /// Token ids are below this.
    pub vocab: usize,
    /// Positions are below this.
    pub context: usize,
}

impl Parcel {
    /// Of a plan.
    pub fn new(model: String, plan: Plan, facts: Facts) -> Self {
        let Facts { decoder, vocab, context } = facts;
        Self { version: VERSION, model, plan, decoder, vocab, context }
    }

    /// The facts of the model.
    pub fn facts(&self) -> Facts {
        Facts { decoder: self.decoder, vocab: self.vocab, context: self.context }
    }

    /// Writes a new directory.
    ///
    /// # Errors
    /// If it is there, or cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        if folder.join(PLAN).exists() {
            bail!("{} holds an exported plan already; name another directory", folder.display());
        }
        sealed::write(&folder.join(PLAN), self)
    }

    /// Reads a directory and checks the plan.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or holds no plan that may be run.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(PLAN);
        let read = || -> Result<Self> {
            let parcel: Self = sealed::read(&path)?;
            ensure!(parcel.version == VERSION, "it has version {}, wanted {VERSION}", parcel.version);
            parcel.plan.verify()?;
            Ok(parcel)
        };
        read().with_context(|| format!("{} is no exported plan", path.display()))
    }
}

const PLAN: &str = "plan.json";

/// Where a directory has its verdicts.
pub fn results(folder: &Path) -> PathBuf {
    folder.join("results.json")
}
