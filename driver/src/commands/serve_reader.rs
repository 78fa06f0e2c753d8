//! `sinter serve` of a model that writes no text: what its reader is like.

use super::serve::limits;
use crate::UsageError;
use crate::cli::{ServeArgs, SpeculateArg};
use crate::output::Output;
use crate::pipeline::{Program, Ready};
use crate::serve::work::{Reading, Reads, Work};
use crate::vectors;
use anyhow::{Result, bail};
use sinter_frontend::config::RawConfig;
use sinter_frontend::scoring::Scoring;
use sinter_runtime::reader::{Grid, Reader, ReaderConfig};
use sinter_runtime::{DeviceModel, Limits};
use std::thread::JoinHandle;

/// A reader that works, the tokens that it reads of a text at most, and what it was told of the model.
pub(super) struct Started {
    pub(super) work: Work,
    /// The thread that works.
    pub(super) thread: JoinHandle<()>,
    pub(super) context: usize,
    pub(super) limits: Limits,
    pub(super) device: String,
}

/// Starts a reader for a model that gives hidden values or scores.
pub(super) fn start(args: &ServeArgs, program: &Program, output: &Output) -> Result<Started> {
    refuse_flags(args, program)?;
    let (reads, own) = match program.result_name() {
        Some("hidden") => {
            let (pooling, note) = vectors::pooling(program)?;
            note.iter().for_each(|note| output.note(note));
            (Reads::Vectors(pooling), pooling.max_len)
        }
        Some("scores") => (Reads::Scores(Scoring::read(&RawConfig::load(&program.dir)?)?), None),
        _ => bail!("{} gives nothing that could be served", program.info.architecture),
    };
    let limits = sizes(args, program, (own, output))?;
    let model: Box<dyn DeviceModel> = program.load_with(limits, false)?;
    let device = model.device();
    let config = ReaderConfig {
        step_tokens: args.max_step_tokens.min(limits.max_tokens),
        texts: match &reads {
            Reads::Scores(scoring) if scoring.mean => 1,
            Reads::Scores(_) | Reads::Vectors(_) => args.max_sequences,
        },
        grid: match program.ready {
            Ready::Host(_) => Grid::LANES,
            Ready::Gpu(..) => Grid::BLOCKS,
        },
        max_requests: args.max_queue,
        max_waiting_tokens: args.max_queue_tokens,
    };
    let (handle, thread) = Reader::spawn(model, config)?;
    let context = handle.admission().capacity;
    Ok(Started { work: Work::Reader(Reading { handle, reads }), thread, context, limits, device })
}

/// How large steps are, and the KV cache of a decoder. An encoder reads a text in one step, however long.
fn sizes(args: &ServeArgs, program: &Program, (own, output): (Option<usize>, &Output)) -> Result<Limits> {
    let own = own.unwrap_or(usize::MAX);
    if program.info.decoder {
        let limits = limits(args, program, output)?;
        return Ok(Limits { max_positions: limits.max_positions.min(own), ..limits });
    }
    let context = args.max_context.unwrap_or(usize::MAX).min(program.info.context).min(own);
    Ok(Limits {
        vocab: program.info.vocab,
        max_positions: context,
        max_tokens: args.max_step_tokens.max(context),
        // One more for the rows between texts.
        max_sequences: args.max_sequences + 1,
        pages: 0,
    })
}

/// Refuses what would do nothing.
fn refuse_flags(args: &ServeArgs, program: &Program) -> Result<()> {
    let speculates = args.speculate.speculate != SpeculateArg::None || args.speculate.draft_model.is_some();
    let given = [
        ("--speculate", speculates),
        ("--tool-parser", args.tool_parser.is_some()),
        ("--reasoning-parser", args.reasoning_parser.is_some()),
        ("--no-prefix-cache", args.no_prefix_cache),
        ("--kv-memory", args.kv_memory.is_some() && !program.info.decoder),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => {
            let name = &program.info.architecture;
            Err(UsageError(format!("{flag} means nothing here: {name} writes no text")).into())
        }
    }
}
