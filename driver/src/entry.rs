//! The outermost layer of the command: arguments in, exit code out, and nothing that looks like a crash in between.

use crate::cli::Cli;
use crate::commands;
use crate::environment::Environment;
use crate::output::Output;
use clap::Parser;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// The command line is well formed, but asks for something contradictory. Ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The last panic of any thread, as text.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Runs the command with these arguments, the program's name first, and returns its exit code.
pub fn main_with<I>(args: I) -> u8
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout, errors to stderr; a closed pipe is nobody's fault.
            let _ = error.print();
            return error.exit_code().clamp(0, 2) as u8;
        }
    };
    // A panic that a library's caller catches is not ours to announce, so the hook only takes notes.
    std::panic::set_hook(Box::new(|panic| {
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
    let run = || commands::dispatch(&cli, &Environment::read(), &Output::new(cli.json));
    let result = catch_unwind(AssertUnwindSafe(run));
    drop(std::panic::take_hook());
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => report(&error),
        Err(_) => {
            let panic = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!(
                "error: this is a bug in sinter, please report it with the command that you ran: {panic}"
            );
            1
        }
    }
}

/// Prints why the command failed, in one paragraph, and gives the exit code.
fn report(error: &anyhow::Error) -> u8 {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return 0;
    }
    // A cause that its context already tells is not told twice.
    let mut reason = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !reason.contains(&cause) {
            reason.push_str(if reason.is_empty() { "" } else { ": " });
            reason.push_str(&cause);
        }
    }
    eprintln!("error: {}", reason.split_whitespace().collect::<Vec<_>>().join(" "));
    if error.is::<UsageError>() { 2 } else { 1 }
}
