//! What `sinter bench` measures. Each kind has the options that mean something to it, and no others.

use super::{BuildArgs, positive};
use crate::UsageError;
use crate::load::options::LoadArgs;
use anyhow::Result;
use clap::{Args, Subcommand};

/// `sinter bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The model or bundle.
    pub model: String,
    /// What to measure; prefill and decode if left out.
    #[command(subcommand)]
    pub what: Option<BenchWhat>,
    /// Where nothing is named: how much of both.
    #[command(flatten)]
    pub lengths: Option<LengthArgs>,
    /// Where nothing is named: how to compile.
    #[command(flatten)]
    pub build: Option<BuildArgs>,
}

/// The kinds.
#[derive(Debug, Subcommand)]
pub enum BenchWhat {
    /// A prompt at once.
    Prefill(PrefillArgs),
    /// One token after the other.
    Decode(DecodeArgs),
    /// A server under load.
    Serve(BenchServeArgs),
    /// The time in each kernel of both.
    Kernels(KernelsArgs),
}

/// How long prompts and answers are, and how often both are measured.
#[derive(Debug, Clone, Args)]
pub struct LengthArgs {
    /// Tokens of the prompt.
    #[arg(long, value_name = "N", default_value = "512", value_parser = positive)]
    pub prompt: usize,
    /// Tokens that are decoded.
    #[arg(long, value_name = "N", default_value = "128", value_parser = positive)]
    pub decode: usize,
    /// How often each is measured; the median counts.
    #[arg(long, value_name = "N", default_value = "5", value_parser = positive)]
    pub repetitions: usize,
}

/// `sinter bench MODEL prefill`
#[derive(Debug, Args)]
pub struct PrefillArgs {
    /// Tokens of the prompt.
    #[arg(long, value_name = "N", default_value = "512", value_parser = positive)]
    pub prompt: usize,
    /// How often it is measured; the median counts.
    #[arg(long, value_name = "N", default_value = "5", value_parser = positive)]
    pub repetitions: usize,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter bench MODEL decode`
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// Tokens that are decoded.
    #[arg(long, value_name = "N", default_value = "128", value_parser = positive)]
    pub decode: usize,
    /// Sequences that the engine decodes together; they are measured beside one alone.
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive)]
    pub sequences: usize,
    /// How often it is measured; the median counts.
    #[arg(long, value_name = "N", default_value = "5", value_parser = positive)]
    pub repetitions: usize,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter bench MODEL kernels`
#[derive(Debug, Args)]
pub struct KernelsArgs {
    /// How much.
    #[command(flatten)]
    pub lengths: LengthArgs,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter bench MODEL serve`
#[derive(Debug, Args)]
pub struct BenchServeArgs {
    /// Tokens of a prompt.
    #[arg(long, value_name = "N", default_value = "512", value_parser = positive)]
    pub prompt: usize,
    /// How the model of a server that is started is compiled; one that runs already is what it is.
    #[command(flatten)]
    pub build: Option<BuildArgs>,
    /// What the server is loaded with.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// What is measured of a model alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Prompt and answer.
    Both,
    /// The prompt.
    Prefill,
    /// The answer.
    Decode,
    /// Each kernel of both.
    Kernels,
}

/// A measurement of a model alone, with all that is said or meant.
#[derive(Debug, Clone)]
pub struct Speed {
    /// What is measured.
    pub phase: Phase,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that are decoded.
    pub decode: usize,
    /// Sequences that are decoded together.
    pub sequences: usize,
    /// How often.
    pub repetitions: usize,
    /// How to compile.
    pub build: BuildArgs,
}

/// A measurement.
#[derive(Debug)]
pub enum Bench<'a> {
    /// Of a model alone.
    Speed(Speed),
    /// Of a server.
    Serve(&'a BenchServeArgs),
}

impl BenchArgs {
    /// What is to be measured.
    ///
    /// # Errors
    /// Options stand before the kind, which has its own.
    pub fn bench(&self) -> Result<Bench<'_>> {
        if self.what.is_some() && (self.lengths.is_some() || self.build.is_some()) {
            let words =
                "options of a kind of measurement stand after it: sinter bench MODEL decode --sequences 4";
            return Err(UsageError(words.into()).into());
        }
        let speed = |phase, lengths: &LengthArgs, build: &BuildArgs| Speed {
            phase,
            prompt: lengths.prompt,
            decode: lengths.decode,
            sequences: 1,
            repetitions: lengths.repetitions,
            build: build.clone(),
        };
        Ok(match &self.what {
            Some(BenchWhat::Serve(args)) => Bench::Serve(args),
            Some(BenchWhat::Kernels(args)) => Bench::Speed(speed(Phase::Kernels, &args.lengths, &args.build)),
            Some(BenchWhat::Prefill(PrefillArgs { prompt, repetitions, build })) => {
                let lengths = LengthArgs { prompt: *prompt, decode: 1, repetitions: *repetitions };
                Bench::Speed(speed(Phase::Prefill, &lengths, build))
            }
            Some(BenchWhat::Decode(DecodeArgs { decode, sequences, repetitions, build })) => {
                let lengths = LengthArgs { prompt: 1, decode: *decode, repetitions: *repetitions };
                Bench::Speed(Speed { sequences: *sequences, ..speed(Phase::Decode, &lengths, build) })
            }
            None => {
                let lengths = self.lengths.clone().map_or_else(defaults, Ok)?;
                Bench::Speed(speed(Phase::Both, &lengths, &given(self.build.as_ref())?))
            }
        })
    }
}

/// How to compile, as said or meant.
pub fn given(build: Option<&BuildArgs>) -> Result<BuildArgs> {
    build.cloned().map_or_else(defaults, Ok)
}

/// Options of which none was given, with the values that they have then.
fn defaults<T: Args>() -> Result<T> {
    let command = T::augment_args(clap::Command::new("sinter"));
    Ok(T::from_arg_matches(&command.try_get_matches_from(["sinter"])?)?)
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn parse(line: &str) -> Result<BenchArgs, i32> {
        let cli = Cli::try_parse_from(format!("sinter bench {line}").split_whitespace());
        match cli.map_err(|error| error.exit_code())?.command {
            Command::Bench(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    fn speed(line: &str) -> Speed {
        match parse(line).unwrap().bench().unwrap() {
            Bench::Speed(speed) => speed,
            Bench::Serve(_) => panic!("{line} is of a server"),
        }
    }

    #[test]
    fn every_kind_has_its_options() {
        let both = speed("m --dtype f32 --decode 3");
        assert_eq!((both.phase, both.prompt, both.decode, both.repetitions), (Phase::Both, 512, 3, 5));
        assert_eq!(both.build.dtype, super::super::DTypeArg::F32);
        assert_eq!(speed("m").build.dtype, super::super::DTypeArg::Auto);
        let decode = speed("m decode --sequences 4 --threads 2 --repetitions 1 --json");
        assert_eq!((decode.phase, decode.sequences, decode.repetitions), (Phase::Decode, 4, 1));
        assert_eq!(decode.build.threads, Some(2));
        assert_eq!(speed("m prefill --prompt 7").prompt, 7);
        assert_eq!(speed("m kernels --prompt 7 --decode 2").decode, 2);
        let served = parse("m serve --prompt 9 --device host --requests 3").unwrap();
        let Bench::Serve(args) = served.bench().unwrap() else { panic!("no server") };
        assert_eq!((args.prompt, args.load.requests, args.build.is_some()), (9, 3, true));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for line in [
            "m decode --url http://127.0.0.1:8000",
            "m decode --prompt 3",
            "m prefill --decode 3",
            "m prefill --sequences 2",
            "m serve --decode 3",
            "m serve --repetitions 3",
            "m serve --sequences 2",
            "m serve --url http://127.0.0.1:8000 --dtype f32",
            "m kernels --sequences 2",
            "m kernels --requests 2",
            "m --requests 2",
            "m --sequences 2",
            "m frobnicate",
            "",
        ] {
            assert_eq!(parse(line).map(drop), Err(2), "{line}");
        }
        for line in ["m --prompt 3 decode", "m --dtype f32 serve"] {
            let error = parse(line).unwrap().bench().map(drop).unwrap_err();
            assert!(error.is::<UsageError>(), "{line}");
        }
    }
}
