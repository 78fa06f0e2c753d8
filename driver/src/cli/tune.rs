//! The grammar of `sinter tune`.

use super::{BuildArgs, positive};
use crate::device::BuildTarget;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// `sinter tune`
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// The model or bundle.
    #[arg(required_unless_present_any = ["measure", "import"], conflicts_with_all = ["measure", "import"])]
    pub model: Option<String>,
    /// What the kernels are for: host; schedules for GPUs are chosen by the cost model so far.
    #[arg(long, default_value = "host", value_parser = BuildTarget::parse)]
    pub target: BuildTarget,
    /// How long to measure, as in 60s or 5m. What is left is measured by the next call.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = budget)]
    pub budget: Duration,
    /// The tuning database to write; this machine's own in the cache, which `run` and `serve` read, if left out.
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
    /// Draw each kernel on the machine's roofline, as SVG.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Schedules of a kernel that are measured: those that the cost model thinks best.
    #[arg(long, value_name = "N", default_value = "6", value_parser = positive)]
    pub candidates: usize,
    /// Measure every schedule, whatever the cost model thinks of it.
    #[arg(long, conflicts_with = "candidates")]
    pub exhaustive: bool,
    /// Rounds to measure: in each, every schedule runs every launch of its kernel once. At least 6 make a verdict.
    #[arg(long, value_name = "N", default_value = "15", value_parser = positive)]
    pub rounds: usize,
    /// Positions that a token sees in the step of few rows.
    #[arg(long, value_name = "N", default_value = "512", value_parser = positive)]
    pub context: usize,
    /// Tokens of the step of many rows.
    #[arg(long, value_name = "N", default_value = "128", value_parser = positive)]
    pub prompt: usize,
    /// Measure nothing, but write what another machine needs to measure.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["measure", "import", "plot", "db"])]
    pub export: Option<PathBuf>,
    /// Measure what was exported, and write the results into the same directory.
    #[arg(long, value_name = "DIR", conflicts_with = "import")]
    pub measure: Option<PathBuf>,
    /// Add another database, or the results in a directory, to this machine's.
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "plot")]
    pub import: Option<PathBuf>,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// A time: `60`, `60s`, `1.5m`.
fn budget(text: &str) -> Result<Duration, String> {
    let wanted = || "wanted a time such as 60s or 5m".to_owned();
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let found = number.parse::<f64>().ok().map(|number| number * unit);
    found.filter(|seconds| (0.0..=1e6).contains(seconds)).map(Duration::from_secs_f64).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::Parser;

    #[test]
    fn budgets_are_times() {
        let seconds = |text| budget(text).map(|time| time.as_secs_f64());
        assert_eq!([seconds("60s"), seconds("60"), seconds("1.5m")], [Ok(60.0), Ok(60.0), Ok(90.0)]);
        for wrong in ["", "s", "m", "-1s", "nan", "1h", "1e9m"] {
            assert!(budget(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_thing_is_done_at_a_time() {
        let code = |line: &str| {
            let parsed = Cli::try_parse_from(format!("sinter tune {line}").split_whitespace());
            parsed.map(drop).map_err(|error| error.exit_code())
        };
        for right in
            ["m", "m --target host --budget 60s --db F", "--measure D", "--import D --db F", "m --export D"]
        {
            assert_eq!(code(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "m --measure D",
            "m --import D",
            "m --export D --db F",
            "--measure D --import D",
            "m --exhaustive --candidates 3",
            "m --target sm_70",
        ] {
            assert_eq!(code(wrong), Err(2), "{wrong}");
        }
    }
}
