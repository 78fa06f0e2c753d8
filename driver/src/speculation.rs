//! Who guesses tokens, as the command line says it.

use crate::UsageError;
use crate::cli::{BuildArgs, SpeculateArg, SpeculateArgs};
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline;
use anyhow::Result;
use sinter_ir::PAGE;
use sinter_runtime::Limits;
use sinter_runtime::engine::{DraftModel, NGram, Speculation};

impl SpeculateArgs {
    /// Loads who guesses for a model with these limits.
    ///
    /// # Errors
    /// The flags contradict each other, or the draft model cannot be loaded.
    pub fn load(
        &self,
        build: &BuildArgs,
        limits: &Limits,
        (env, output): (&Environment, &Output),
    ) -> Result<Speculation> {
        match (self.speculate, &self.draft_model) {
            (SpeculateArg::None, None) => Ok(Speculation::None),
            (SpeculateArg::Ngram, None) => {
                Ok(Speculation::NGram(NGram { drafts: self.drafts, ..NGram::default() }))
            }
            (SpeculateArg::Draft, Some(model)) => {
                let program = pipeline::prepare(model, build, env, output)?;
                let positions = limits.max_positions.min(program.info.context);
                let pages = positions.div_ceil(PAGE as usize) * limits.max_sequences;
                let limits = Limits { vocab: program.info.vocab, max_positions: positions, pages, ..*limits };
                Ok(Speculation::Draft(DraftModel::new(program.load_with(limits, false)?, self.drafts)?))
            }
            (SpeculateArg::Draft, None) => {
                Err(UsageError("--speculate draft wants --draft-model MODEL".into()).into())
            }
            (_, Some(_)) => Err(UsageError("--draft-model wants --speculate draft".into()).into()),
        }
    }

    /// In one word.
    pub fn word(&self) -> &'static str {
        match self.speculate {
            SpeculateArg::None => "none",
            SpeculateArg::Ngram => "ngram",
            SpeculateArg::Draft => "draft",
        }
    }
}
