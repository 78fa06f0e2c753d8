//! A server of one's own, as a process of its own: it shares nothing with the clients but the cores.

use crate::cli::BuildArgs;
use crate::device::DeviceArg;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A running `sinter serve`. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub url: String,
}

impl Server {
    /// Starts a server for a model, on a free port, and waits until it listens.
    pub fn start(model: &str, build: &BuildArgs) -> Result<Self> {
        let program = std::env::current_exe().context("the path of this program is not known")?;
        let mut command = Command::new(program);
        command.args(["--json", "serve", model, "--port", "0"]).args(flags(build)?);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a server")?;
        let stdout = child.stdout.take().context("the server has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("cannot read from the server")?;
        let told = serde_json::from_str::<Value>(&line).ok();
        let address = told.and_then(|value| value["address"].as_str().map(str::to_owned));
        let Some(address) = address else {
            let status = child.kill().and_then(|()| child.wait()).context("the server does not end")?;
            bail!("the server did not start ({status}); what it said stands above");
        };
        Ok(Self { child, url: format!("http://{address}") })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to save, and if it has ended already, so much the better.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How the model is compiled, in the words of the command line; the server writes no line for each request.
fn flags(build: &BuildArgs) -> Result<Vec<String>> {
    // All of them by name, so that one that comes later is not forgotten here.
    let BuildArgs { dtype, quant, activations, kv_cache, device: place, threads } = build;
    let said = [
        ("--log", "off".into()),
        ("--dtype", word(*dtype)?),
        ("--quant", word(*quant)?),
        ("--activations", word(*activations)?),
        ("--kv-cache", word(*kv_cache)?),
        ("--device", device(*place)),
    ];
    let threads = threads.map(|threads| ("--threads", threads.to_string()));
    Ok(said.into_iter().chain(threads).flat_map(|(flag, value)| [flag.to_owned(), value]).collect())
}

/// A value as it is read.
fn word(value: impl ValueEnum) -> Result<String> {
    let value = value.to_possible_value().context("a value without a word")?;
    Ok(value.get_name().to_owned())
}

/// A device as `--device` takes it.
fn device(device: DeviceArg) -> String {
    match device {
        DeviceArg::Auto => "auto".into(),
        DeviceArg::Host => "host".into(),
        DeviceArg::Vgpu(None) => "vgpu".into(),
        DeviceArg::Vgpu(Some(target)) => format!("vgpu:{target}"),
        DeviceArg::Cuda(number) => format!("cuda:{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_compiled_as_the_bench_was_told() {
        use clap::{Args, FromArgMatches};
        let read = |line: &[String]| {
            let command = BuildArgs::augment_args(clap::Command::new("serve")).no_binary_name(true);
            BuildArgs::from_arg_matches(&command.try_get_matches_from(line).unwrap()).unwrap()
        };
        let line =
            "--dtype bf16 --quant int4 --activations exact --kv-cache fp8 --device vgpu:sm_80 --threads 3";
        let wanted = read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let flags = flags(&wanted).unwrap();
        assert_eq!(flags[..2], ["--log", "off"]);
        assert_eq!(format!("{:?}", read(&flags[2..])), format!("{wanted:?}"));
    }

    #[test]
    fn devices_are_said_as_they_are_read() {
        for text in ["auto", "host", "vgpu", "vgpu:sm_90a", "cuda:0", "cuda:3"] {
            assert_eq!(device(DeviceArg::parse(text).unwrap()), text);
        }
    }
}
