//! What is sent, how fast, and what is made of it.

use clap::Args;
use std::path::PathBuf;

/// The load of `sinter bench MODEL serve`.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// A server that runs already, such as http://127.0.0.1:8000; one is started for MODEL if left out.
    #[arg(long, value_name = "URL", conflicts_with = "BuildArgs")]
    pub url: Option<String>,
    /// The key that the server wants.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Requests to send.
    #[arg(long, value_name = "N", default_value = "64", value_parser = crate::cli::positive)]
    pub requests: usize,
    /// Closed loop: so many clients, each of which asks again when it has its answer.
    #[arg(long, value_name = "N", default_value = "8", conflicts_with = "rate", value_parser = crate::cli::positive)]
    pub concurrency: usize,
    /// Open loop: requests a second, at random times, whether or not there are answers.
    #[arg(long, value_name = "X", value_parser = above_zero)]
    pub rate: Option<f64>,
    /// With --rate: 1 is a Poisson process; smaller comes in bursts, larger is more even (the shape of a gamma
    /// distribution of the gaps).
    #[arg(long, value_name = "X", default_value = "1", requires = "rate", value_parser = above_zero)]
    pub burstiness: f64,
    /// Tokens of an answer.
    #[arg(long, value_name = "N", default_value = "64", value_parser = crate::cli::positive)]
    pub output: usize,
    /// Tokens at the beginning of a prompt, of those of --prompt, that others have too.
    #[arg(long, value_name = "N", default_value = "0")]
    pub prefix: usize,
    /// How many different beginnings there are.
    #[arg(long, value_name = "N", default_value = "1", value_parser = crate::cli::positive)]
    pub prefixes: usize,
    /// Token ids are below this; the server is asked if left out.
    #[arg(long, value_name = "N", value_parser = crate::cli::positive)]
    pub vocab: Option<usize>,
    /// The seed of prompts and times.
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,
    /// Answers that are asked for again alone and compared.
    #[arg(long, value_name = "N", default_value = "4")]
    pub check: usize,
    /// What a good request keeps, in milliseconds: ttft:200,tpot:50,e2e:5000. Good requests a second are counted.
    #[arg(long, value_delimiter = ',', value_name = "NAME:MS", value_parser = Bound::parse)]
    pub goodput: Vec<Bound>,
    /// A drawing of latencies and throughput.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// A time of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// To the first token.
    Ttft,
    /// The mean of each later token.
    Tpot,
    /// To the last token.
    E2e,
}

/// A time that a good request keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Which.
    pub time: Time,
    /// Milliseconds.
    pub most: f64,
}

impl Bound {
    fn parse(text: &str) -> Result<Self, String> {
        let wanted = "wanted ttft, tpot or e2e, a colon, and milliseconds, as in ttft:200";
        let (name, most) = text.split_once(':').ok_or(wanted)?;
        let time = match name {
            "ttft" => Time::Ttft,
            "tpot" => Time::Tpot,
            "e2e" => Time::E2e,
            _ => return Err(wanted.into()),
        };
        Ok(Self { time, most: above_zero(most).map_err(|_| wanted)? })
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("wanted a number above 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read() {
        assert_eq!(Bound::parse("ttft:200"), Ok(Bound { time: Time::Ttft, most: 200.0 }));
        assert_eq!(Bound::parse("e2e:0.5"), Ok(Bound { time: Time::E2e, most: 0.5 }));
        for wrong in ["ttft", "ttft:", "ttft:-1", "itl:3", "e2e:nan", "e2e:inf"] {
            assert!(Bound::parse(wrong).is_err(), "{wrong}");
        }
    }
}
