//! The kernels of the golden models on a real GPU and on the virtual GPU, and the speed of kernels: `run.sh` calls it.
//!
//! ```text
//! gpu_check kernels --goldens DIR --out FILE [--dump DIR] [--virtual sm_80] [--parts N] [--seconds N] [--case-seconds N]
//! gpu_check speed --out FILE [--virtual sm_80]
//! ```
//!
//! The cases are done by several processes side by side, and each tells what it does before it does it. So a kernel that
//! hangs or takes its process with it is one bad case, and the others are done all the same. `--virtual` takes the virtual
//! GPU in the GPU's place, which checks nothing but this tool and what comes after it.

use serde_json::{Value, json};
use sinter_gpu_tests::device_check::{check_draw, subjects};
use sinter_gpu_tests::device_speed;
use sinter_ir::{GpuDevice, Target};
use sinter_runtime::CudaDevice;
use sinter_vgpu::VirtualGpu;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let arguments = Arguments { words };
    let done = match arguments.words.first().map(String::as_str) {
        Some("kernels") => supervise(&arguments),
        Some("part") => part(&arguments),
        Some("speed") => speed(&arguments),
        _ => Err("wanted kernels or speed".into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}

/// The command line.
struct Arguments {
    words: Vec<String>,
}

impl Arguments {
    fn find(&self, flag: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == flag)?;
        self.words.get(at + 1).map(String::as_str)
    }
    fn path(&self, flag: &str) -> Result<PathBuf, String> {
        self.find(flag).map(PathBuf::from).ok_or_else(|| format!("{flag} is missing"))
    }
    fn number(&self, flag: &str, otherwise: u64) -> Result<u64, String> {
        match self.find(flag) {
            None => Ok(otherwise),
            Some(text) => text.parse().map_err(|_| format!("{flag} wants a number, found {text}")),
        }
    }
    /// The device, and the newest code that it runs.
    fn device(&self) -> Result<(Box<dyn GpuDevice>, Target), String> {
        let device: Box<dyn GpuDevice> = match self.find("--virtual") {
            Some(name) => {
                let target = Target::parse(name).ok_or_else(|| format!("there is no target {name}"))?;
                Box::new(VirtualGpu::new(target))
            }
            None => Box::new(CudaDevice::open(0).map_err(|error| error.to_string())?),
        };
        let (major, minor) = device.capability();
        let target = Target::ALL.into_iter().rev().find(|target| target.runs_on(major, minor));
        let target = target.ok_or_else(|| format!("{} of {major}.{minor} is too old", device.name()))?;
        Ok((device, target))
    }
}

fn write(path: &PathBuf, value: &Value) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Has all cases done and writes the results; whether all were good.
fn supervise(arguments: &Arguments) -> Result<bool, String> {
    let out = arguments.path("--out")?;
    if let Some(dump) = arguments.find("--dump") {
        std::fs::create_dir_all(dump).map_err(|error| format!("{dump}: {error}"))?;
    }
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let parts = arguments.number("--parts", cores.div_ceil(2).min(8))?.max(1);
    let end = Instant::now() + Duration::from_secs(arguments.number("--seconds", 3600)?);
    let each = Duration::from_secs(arguments.number("--case-seconds", 120)?);
    let watch = |number: u64| Watched { arguments, part: format!("{number}/{parts}"), end, each }.run();
    let mut results: Vec<Value> = std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..parts).map(|number| scope.spawn(move || watch(number))).collect();
        let lost = || vec![json!({ "kernel": "a part", "good": false, "error": "its watcher panicked" })];
        watchers.into_iter().flat_map(|watcher| watcher.join().unwrap_or_else(|_| lost())).collect()
    });
    results.sort_by_key(|result| result["number"].as_u64());
    let good = !results.is_empty() && results.iter().all(|result| result["good"] == true);
    write(&out, &json!(results))?;
    Ok(good)
}

/// One part of the cases, and the process that does it.
struct Watched<'a> {
    arguments: &'a Arguments,
    part: String,
    end: Instant,
    each: Duration,
}

impl Watched<'_> {
    /// All results of the part. A process that hangs is ended; one that ended early is followed by another, which goes on
    /// behind the case that was under way.
    fn run(&self) -> Vec<Value> {
        let (mut results, mut from) = (Vec::new(), 0);
        loop {
            let mut under_way = json!({ "kernel": format!("part {}", self.part) });
            let ended = self.child(from).and_then(|(mut child, lines)| {
                let ended = self.listen(&lines, &mut under_way, &mut results);
                // It may have ended by itself.
                let _ = child.kill();
                let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                ended.map_err(|reason| format!("{reason} ({status})"))
            });
            match ended {
                Ok(None) => return results,
                Ok(Some(next)) => from = next,
                Err(reason) => {
                    let number = under_way["number"].as_u64();
                    (under_way["good"], under_way["error"]) = (json!(false), json!(reason));
                    println!("{under_way}");
                    results.push(under_way);
                    match number {
                        Some(number) if Instant::now() < self.end => from = number + 1,
                        _ => return results,
                    }
                }
            }
        }
    }

    fn child(&self, from: u64) -> Result<(Child, Receiver<String>), String> {
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(this)
            .arg("part")
            .args(&self.arguments.words[1..])
            .args(["--part", &self.part, "--from", &from.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let (tell, lines) = channel();
        let stdout = child.stdout.take().ok_or("a process without stdout")?;
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Ok((child, lines))
    }

    /// Takes what a process tells until it says that all is done, or from where another process must go on.
    fn listen(
        &self,
        lines: &Receiver<String>,
        under_way: &mut Value,
        results: &mut Vec<Value>,
    ) -> Result<Option<u64>, String> {
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            let line = lines.recv_timeout(self.each.min(left)).map_err(|error| match error {
                RecvTimeoutError::Timeout if left <= self.each => "the time for all kernels is up".into(),
                RecvTimeoutError::Timeout => format!("no answer in {} s", self.each.as_secs()),
                RecvTimeoutError::Disconnected => "the process ended".to_owned(),
            })?;
            let value: Value = serde_json::from_str(&line).map_err(|_| format!("the process said {line}"))?;
            if value["done"] == true {
                return Ok(None);
            }
            if let Some(next) = value["again"].as_u64() {
                return Ok(Some(next));
            }
            if value.get("good").is_some() {
                println!("{value}");
                results.push(value);
            } else {
                *under_way = value;
            }
        }
    }
}

/// Does the cases of one part from a number on, and tells each before and after it is done.
fn part(arguments: &Arguments) -> Result<bool, String> {
    let text = arguments.find("--part").unwrap_or("0/1");
    let numbers = text.split_once('/').and_then(|(part, all)| Some((part.parse().ok()?, all.parse().ok()?)));
    let (part, parts): (usize, usize) = numbers.ok_or_else(|| format!("--part wants I/N, found {text}"))?;
    let from = arguments.number("--from", 0)? as usize;
    let subjects = subjects(&arguments.path("--goldens")?)?;
    let dump = arguments.find("--dump").map(PathBuf::from);
    let (mut gpu, target) = arguments.device()?;
    let tell = |value: &Value| {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{value}").and_then(|()| stdout.flush()).map_err(|error| error.to_string())
    };
    let own = |number: usize| number >= from && number % parts == part;
    let draw = subjects.len();
    for subject in subjects.iter().filter(|subject| own(subject.number)) {
        tell(&json!({ "number": subject.number, "kernel": subject.tile.name, "model": subject.model }))?;
        let (result, usable) = subject.run(&mut *gpu, target, dump.as_deref());
        tell(&result)?;
        if !usable {
            // After some errors a context refuses everything; the next process has a new one.
            tell(&json!({ "again": subject.number + 1 }))?;
            return Ok(true);
        }
    }
    if own(draw) {
        tell(&json!({ "number": draw, "kernel": "draw" }))?;
        tell(&check_draw(&mut *gpu, target, draw).0)?;
    }
    tell(&json!({ "done": true }))?;
    Ok(true)
}

/// Measures kernels at the shapes of real models.
fn speed(arguments: &Arguments) -> Result<bool, String> {
    let out = arguments.path("--out")?;
    let small = arguments.find("--virtual").is_some();
    let (mut device, target) = arguments.device()?;
    let result = device_speed::measure_all(&mut *device, target, small);
    write(&out, &result)?;
    Ok(result["good"] == true)
}
