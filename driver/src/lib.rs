//! The `sinter` command, as a library so that tests can call its parts.
//!
//! This is the one crate that sees all the others, and the one that reads the environment. The way from a model to
//! tokens is one function, [`pipeline::prepare`]: it resolves the model, takes the plan from the compile cache or
//! makes it, compiles the kernels and packs the weights; or it opens a [`bundle`], where all of that is done already.
//!
//! ```text
//! MODEL  → frontend → Graph → passes → Plan ─┬→ codegen → kernels ─┐
//!                        (cache) ────────────┤                     ├→ Program → DeviceModel → a command
//! BUNDLE → manifest, hashes ─────────────────┴→ mapped weights ────┘
//! ```
//!
//! - [`cli`] is the grammar of the command line; each command is one file under [`commands`].
//! - [`output`] keeps the promise that results go to stdout, everything else to stderr, and that `--json` works
//!   everywhere.
//! - [`device`] chooses where a model runs; [`gpu`] compiles for GPUs if this build can (feature `nvptx`) and opens them;
//!   [`jit`] compiles when kernels are needed.
//! - [`tune`] measures how kernels are run best, and keeps what it found.
//! - [`tools`] reads tool calls and reasoning out of answers, and forces calls.
//! - [`bundle`] writes and reads bundles, [`cache`] keeps plans and GPU kernels; both refuse what does not match, with the reason.
//!
//! The exit code is 0 when the command did what was asked, 2 for bad usage, and 1 with a reason otherwise:
//!
//! ```
//! assert_eq!(sinter_driver::main_with(["sinter", "--version"]), 0);
//! assert_eq!(sinter_driver::main_with(["sinter", "run"]), 2);
//! ```

pub mod cli;
pub mod environment;
pub mod output;

mod atomic_file;
pub mod bundle;
pub mod cache;
mod sealed;

pub mod checkpoint;
pub mod device;
pub mod gpu;
pub mod grammar;
pub mod info;
pub mod jit;
pub mod perplexity;
pub mod pipeline;
pub mod ptx;
pub mod quantize;
pub mod speculation;
pub mod text;
pub mod text_stream;
pub mod tools;
pub mod vectors;

pub mod load;
pub mod serve;

pub mod tune;

pub mod commands;
mod entry;

pub use entry::{UsageError, main_with};
