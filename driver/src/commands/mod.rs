//! The commands, one file each.

mod compile;
mod explain;
mod gpu_kernels;
mod inspect;
mod quantize;
mod registers;
mod verify;

mod chat;
mod embed;
mod logits;
mod perplexity;
mod run;
mod score;
mod serve;
mod serve_reader;
mod stream;
mod tokenize;

mod bench;
mod bench_kernels;
mod bench_together;
mod doctor;
mod schedules;
mod tune;

pub(crate) use doctor::meminfo;

use crate::cli::{Cli, Command};
use crate::environment::Environment;
use crate::output::Output;
use anyhow::{Context, Result};
use clap::CommandFactory;
use std::io::Read;

/// Runs the command that the user named.
pub fn dispatch(cli: &Cli, env: &Environment, output: &Output) -> Result<()> {
    match &cli.command {
        Command::Compile(args) => compile::run(args, env, output),
        Command::Run(args) => run::run(args, env, output),
        Command::Chat(args) => chat::run(args, env, output),
        Command::Serve(args) => serve::run(args, env, output),
        Command::Embed(args) => embed::run(args, env, output),
        Command::Score(args) => score::run(args, env, output),
        Command::Tokenize(args) => tokenize::run(args, env, output),
        Command::Logits(args) => logits::run(args, env, output),
        Command::Perplexity(args) => perplexity::run(args, env, output),
        Command::Bench(args) => bench::run(args, env, output),
        Command::Tune(args) => tune::run(args, env, output),
        Command::Explain(args) => explain::run(args, env, output),
        Command::Inspect(args) => inspect::run(args, env, output),
        Command::Quantize(args) => quantize::run(args, env, output),
        Command::Verify(args) => verify::run(args, output),
        Command::Doctor => doctor::run(env, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "sinter", &mut script);
            output.write(&String::from_utf8_lossy(&script))
        }
    }
}

/// The text of an argument; `-` is all of stdin without its last line end.
fn text_or_stdin(argument: &str) -> Result<String> {
    if argument != "-" {
        return Ok(argument.into());
    }
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).context("cannot read the text from stdin")?;
    Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
}
