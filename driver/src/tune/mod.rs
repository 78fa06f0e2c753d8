//! Tuning: how kernels are run, chosen by measurement.
//!
//! ```text
//! plan ─ space ─▶ candidates ─ build ─▶ kernels ─ rounds ─▶ samples ─ judge ─▶ verdicts ─▶ database ─▶ run, serve
//!                 (cost model)                     (journal)
//! ```
//!
//! - [`machine`] is what the cost model is told of this machine, and its name in databases.
//! - [`space`] lists what each kernel could be, the model's choice first, and drops what the model thinks hopeless.
//! - [`rounds`] measures candidates inside of real steps, in turn, and compares every result with that of the model's choice bit
//!   for bit; [`journal`] keeps what was measured, so that a tuner that was killed goes on where it was.
//! - [`judge`] says what is faster for certain; what is not leaves the model's choice in place.
//! - [`database`] keeps verdicts by device, kernel and rows; [`choices`] is what the rest of the house asks.
//! - [`exchange`] takes a plan to another machine, and its results back; [`synthetic`] makes weights there.
//! - [`report`] and [`plot`] show it; [`floors`] says how long a kernel takes at least.

pub mod database;
pub mod exchange;
pub mod floors;
pub mod journal;
pub mod judge;
pub mod machine;
pub mod plot;
pub mod report;
pub mod rounds;
pub mod space;
pub mod synthetic;

use crate::environment::Environment;
use crate::output::Output;
use anyhow::Result;
use database::{Database, Rows};
use sinter_codegen_host::{Choice, Choices};
use sinter_ir::{Plan, TileProgram};
use std::path::Path;

/// Where the choices of a plan's kernels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// Choices that were measured, of two for each kernel.
    pub measured: usize,
    /// All choices.
    pub all: usize,
}

/// How the cost model runs each kernel of a plan with so many threads.
///
/// # Errors
/// If a program is malformed.
pub fn modelled(plan: &Plan, threads: usize) -> Result<Vec<Choices>> {
    let machine = machine::machine(threads);
    plan.kernels.values().map(|tile| Ok(sinter_codegen_host::choose(tile, &machine)?)).collect()
}

/// How each kernel of a plan is run with so many threads: as the database says, and as the cost model says where it is silent.
///
/// # Errors
/// If a program is malformed. A database that cannot be read or does not fit is a note, and the model's choice counts.
pub fn choices(
    plan: &Plan,
    threads: usize,
    (env, output): (&Environment, &Output),
) -> Result<(Vec<Choices>, Origin)> {
    let database = env.cache.as_deref().map(|cache| database::of_this_machine(cache, threads));
    let database = database.as_deref().filter(|path| path.exists()).and_then(|path| read(path, output));
    let mut origin = Origin::default();
    let (device, mut all) = (machine::device(threads), modelled(plan, threads)?);
    for (tile, choices) in plan.kernels.values().zip(&mut all) {
        if let Some(database) = &database {
            let key = database::kernel_key(tile);
            for (rows, choice) in [(Rows::Few, &mut choices.few), (Rows::Many, &mut choices.many)] {
                if let Some(measured) = database.choice(&device, &key, rows) {
                    match fitting(tile, measured) {
                        Some(measured) => (*choice, origin.measured) = (measured, origin.measured + 1),
                        None => output
                            .note(format!("{}: `{measured}` of the database does not fit it", tile.name)),
                    }
                }
            }
        }
        origin.all += 2;
    }
    if database.is_some() && origin.measured < origin.all {
        let Origin { measured, all } = origin;
        output.note(format!(
            "tuning: {measured} of {all} schedules were measured, the cost model chose the others"
        ));
    }
    Ok((all, origin))
}

/// A choice of a database as one that the program can be run by.
fn fitting(tile: &TileProgram, text: &str) -> Option<Choice> {
    let choice = text.parse().ok()?;
    sinter_codegen_host::candidates(tile).ok()?.contains(&choice).then_some(choice)
}

/// A database, or a note why there is none.
fn read(path: &Path, output: &Output) -> Option<Database> {
    let read = Database::read(path);
    if let Err(reason) = &read {
        output.note(format!("the tuning database {} is not used: {reason:#}", path.display()));
    }
    read.ok()
}
