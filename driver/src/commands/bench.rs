//! `sinter bench`: speed, with a check of the results beside it.
//!
//! Token ids are random, so no tokenizer is needed. A decode begins with one token in the cache. The yardstick, the read
//! bandwidth of the memory, is measured in the same run.

use super::bench_together::together;
use crate::cli::BenchArgs;
use crate::cli::bench::{Bench, Phase, Speed};
use crate::device::Place;
use crate::environment::Environment;
use crate::info::{kv_dtype, streamed_bytes};
use crate::load::statistics::percentile;
use crate::output::Output;
use crate::pipeline::{self, Program, Ready};
use anyhow::{Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use sinter_runtime::{DeviceModel, KernelTime, Rows, Session, read_bandwidth, uniform};
use std::time::Instant;

/// Tokens of the check.
const CHECK: usize = 48;

/// Repeated measurements of one thing.
#[derive(Debug, Serialize)]
pub(super) struct Measure {
    tokens: usize,
    /// Seconds of each repetition, sorted.
    seconds: Vec<f64>,
    median_seconds: f64,
    tokens_per_second: f64,
    /// (slowest − fastest) / median.
    spread: f64,
}

pub(super) fn run(args: &BenchArgs, env: &Environment, output: &Output) -> Result<()> {
    match args.bench()? {
        Bench::Serve(load) => crate::load::run::run(&args.model, load, output),
        Bench::Speed(speed) => alone(&args.model, &speed, (env, output)),
    }
}

/// Measures a model without a server.
fn alone(model: &str, args: &Speed, (env, output): (&Environment, &Output)) -> Result<()> {
    let program = pipeline::prepare(model, &args.build, env, output)?.ahead();
    if !program.info.decoder && args.phase == Phase::Decode {
        bail!("{} is an encoder, which does not decode", program.info.architecture);
    }
    let check = program.info.decoder.then(|| check(&program)).transpose()?;
    let measured = match args.phase {
        Phase::Kernels => kernels(args, &program)?,
        _ if args.sequences > 1 => together(args, &program, output)?,
        _ => speed(args, &program, output)?,
    };
    let (device, isa) = place(&program);
    let mut value = json!({
        "model": program.info,
        "device": device,
        "isa": isa,
        "dtype": program.dtype,
        "kv_cache": kv_dtype(&program.plan),
        "chunked_equals_whole": check,
    });
    if let (Some(all), Value::Object(measured)) = (value.as_object_mut(), measured) {
        all.extend(measured);
    }
    output.result(&value, || text(&value))?;
    ensure!(check != Some(false), "a prompt in chunks does not give the bits of the same prompt at once");
    let together = value["together_equals_alone"].as_bool();
    ensure!(
        together != Some(false),
        "a sequence in company does not give the tokens of the same sequence alone"
    );
    Ok(())
}

/// Where it is measured, and with which instructions.
fn place(program: &Program) -> (String, String) {
    match &program.ready {
        Ready::Host(_) => {
            let isa = sinter_codegen_host::micro::Isa::detect();
            (format!("host, {} threads", program.threads), isa.to_string())
        }
        Ready::Gpu(_, place @ Place::Cuda { ordinal, .. }) => {
            (format!("cuda:{ordinal}"), place.target().to_string())
        }
        Ready::Gpu(_, place) => ("virtual GPU".into(), place.target().to_string()),
    }
}

/// Whether a prompt at once, in chunks and one by one gives the same bits.
fn check(program: &Program) -> Result<bool> {
    let count = CHECK.min(program.info.context);
    let tokens = random_tokens(program, count);
    let mut model = program.load(count, count, false)?;
    let mut feed = |chunk: usize| -> Result<Vec<u32>> {
        let mut session = Session::new(&mut *model);
        let mut bits = Vec::new();
        for piece in tokens.chunks(chunk) {
            bits.extend(session.feed(piece, Rows::All)?.iter().map(|logit| logit.to_bits()));
        }
        Ok(bits)
    };
    let whole = feed(count)?;
    Ok(feed(7)? == whole && feed(1)? == whole)
}

pub(super) fn random_tokens(program: &Program, count: usize) -> Vec<u32> {
    (0..count as u64).map(|at| (uniform(42, at) * program.info.vocab as f64) as u32).collect()
}

fn speed(args: &Speed, program: &Program, output: &Output) -> Result<Value> {
    let (prompt, decode) = lengths(args, program);
    let mut model = program.load(prompt.max(decode + 1), prompt, false)?;
    let bar = output.progress("measuring", args.repetitions as u64 * 2);
    let mut value = json!({});
    if args.phase != Phase::Decode {
        let tokens = random_tokens(program, prompt);
        let measure = repeat(args.repetitions, prompt, &bar, || prefill(&mut *model, program, &tokens))?;
        value["prefill"] = json!(measure);
    }
    if program.info.decoder && args.phase != Phase::Prefill {
        let tokens = random_tokens(program, decode + 1);
        let measure = repeat(args.repetitions, decode, &bar, || decode_once(&mut *model, &tokens))?;
        let streamed = streamed_bytes(&program.plan, program.weights.1) as f64 * measure.tokens_per_second;
        value["decode"] = json!(measure);
        value["decode_bytes_per_second"] = json!(streamed);
        if matches!(program.ready, Ready::Host(_)) {
            let bandwidth = read_bandwidth(program.threads)?;
            value["read_bandwidth_bytes_per_second"] = json!(bandwidth);
            value["decode_share_of_bandwidth"] = json!(streamed / bandwidth);
        }
    }
    bar.finish_and_clear();
    Ok(value)
}

/// The lengths that the model's context has room for.
fn lengths(args: &Speed, program: &Program) -> (usize, usize) {
    let most = program.info.context;
    (args.prompt.min(most), args.decode.min(most.saturating_sub(1)).max(1))
}

/// One warm-up that does not count, then the measurements.
fn repeat(
    repetitions: usize,
    tokens: usize,
    bar: &indicatif::ProgressBar,
    mut once: impl FnMut() -> Result<f64>,
) -> Result<Measure> {
    once()?;
    let mut seconds = Vec::with_capacity(repetitions);
    for _ in 0..repetitions {
        seconds.push(once()?);
        bar.inc(1);
    }
    Ok(measure(tokens, seconds))
}

/// What repeated measurements, at least one, say together.
pub(super) fn measure(tokens: usize, mut seconds: Vec<f64>) -> Measure {
    seconds.sort_by(f64::total_cmp);
    let (first, last) = (seconds[0], seconds[seconds.len() - 1]);
    let median = percentile(&seconds, 50.0);
    let (tokens_per_second, spread) = (tokens as f64 / median, (last - first) / median);
    Measure { tokens, tokens_per_second, median_seconds: median, seconds, spread }
}

fn prefill(model: &mut dyn DeviceModel, program: &Program, tokens: &[u32]) -> Result<f64> {
    let started = Instant::now();
    if program.info.decoder {
        Session::new(model).feed(tokens, Rows::Last)?;
    } else {
        sinter_runtime::encode(model, tokens)?;
    }
    Ok(started.elapsed().as_secs_f64())
}

fn decode_once(model: &mut dyn DeviceModel, tokens: &[u32]) -> Result<f64> {
    let mut session = Session::new(model);
    session.feed(&tokens[..1], Rows::Last)?;
    let started = Instant::now();
    for token in &tokens[1..] {
        session.feed(std::slice::from_ref(token), Rows::Last)?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// The time in each kernel of a prefill and of a decode.
fn kernels(args: &Speed, program: &Program) -> Result<Value> {
    if let Ready::Host(kernels) = &program.ready {
        return super::bench_kernels::on_host(args, program, kernels);
    }
    let (prompt, decode) = lengths(args, program);
    let mut value = json!({});
    let mut model = program.load(prompt.max(decode + 1), prompt, true)?;
    let tokens = random_tokens(program, prompt);
    prefill(&mut *model, program, &tokens)?;
    if model.times().is_empty() {
        bail!("{} has no clock that tells the time in a kernel", model.device());
    }
    let before = model.times();
    (0..args.repetitions).try_for_each(|_| prefill(&mut *model, program, &tokens).map(drop))?;
    value["prefill_kernels"] = table(&before, &model.times());
    if program.info.decoder {
        let tokens = random_tokens(program, decode + 1);
        let before = model.times();
        (0..args.repetitions).try_for_each(|_| decode_once(&mut *model, &tokens).map(drop))?;
        value["decode_kernels"] = table(&before, &model.times());
    }
    Ok(value)
}

/// The time that each kernel took between two readings, the longest first.
fn table(before: &[KernelTime], after: &[KernelTime]) -> Value {
    let spent = |(before, after): (&KernelTime, &KernelTime)| {
        (after.nanos - before.nanos, after.launches - before.launches, after.name.clone())
    };
    let mut rows: Vec<_> =
        before.iter().zip(after).map(spent).filter(|(_, launches, _)| *launches > 0).collect();
    rows.sort_by(|a, b| b.cmp(a));
    let total: u64 = rows.iter().map(|(nanos, ..)| nanos).sum();
    let row = |(nanos, launches, name): (u64, u64, String)| {
        let (each, share) = (nanos as f64 / launches as f64 / 1e3, nanos as f64 / total.max(1) as f64);
        json!({ "kernel": name, "launches": launches, "microseconds_each": each, "share": share })
    };
    rows.into_iter().map(row).collect()
}

/// How near a kernel comes to its floor, where that is known.
fn floor_words(row: &Value) -> String {
    let number = |name: &str| row[name].as_f64();
    let known = number("floor_microseconds").zip(number("floor_share")).zip(number("spread"));
    known.map_or(String::new(), |((floor, share), spread)| {
        let (share, spread) = (100.0 * share, 100.0 * spread);
        format!(", floor {floor:.1} µs ({share:.0} %), spread {spread:.0} %")
    })
}

fn text(value: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let cache = value["kv_cache"].as_str().filter(|cache| value["dtype"] != *cache);
    let cache = cache.map_or(String::new(), |cache| format!(", KV cache in {cache}"));
    let mut text = format!(
        "{} in {}{cache}, {}, {}\n",
        value["model"]["architecture"].as_str().unwrap_or_default(),
        value["dtype"].as_str().unwrap_or_default(),
        value["device"].as_str().unwrap_or_default(),
        value["isa"].as_str().unwrap_or_default(),
    );
    for name in ["prefill", "decode", "single", "together"] {
        if let measure @ Value::Object(_) = &value[name] {
            text += &format!(
                "{name:<8}{:>6} tokens  {:>10.1} tokens/s  spread {:.1} %\n",
                number(&measure["tokens"]),
                number(&measure["tokens_per_second"]),
                100.0 * number(&measure["spread"]),
            );
        }
        for row in value[format!("{name}_kernels")].as_array().into_iter().flatten() {
            text += &format!(
                "{name:<8}{:<24} {:>7} × {:>10.1} µs {:>6.1} %{}\n",
                row["kernel"].as_str().unwrap_or_default(),
                row["launches"],
                number(&row["microseconds_each"]),
                100.0 * number(&row["share"]),
                floor_words(row),
            );
        }
    }
    if let (Some(rate), None) =
        (value["decode_bytes_per_second"].as_f64(), value["read_bandwidth_bytes_per_second"].as_f64())
    {
        text += &format!("decode reads weights at {:.1} GB/s\n", rate / 1e9);
    }
    if let Some(bandwidth) = value["read_bandwidth_bytes_per_second"].as_f64() {
        let share = 100.0 * number(&value["decode_share_of_bandwidth"]);
        text += &format!(
            "decode reads weights at {share:.1} % of the {:.1} GB/s measured here\n",
            bandwidth / 1e9
        );
    }
    if let (Some(count), Some(ratio)) = (value["sequences"].as_u64(), value["ratio"].as_f64()) {
        text += &format!("{count} sequences together give {ratio:.2} times the tokens of one\n");
    }
    if let Some(good) = value["together_equals_alone"].as_bool() {
        text += if good { "check: together and alone give the same tokens\n" } else { "check: FAILED\n" };
    }
    if let Some(good) = value["chunked_equals_whole"].as_bool() {
        text += if good { "check: chunks and whole give the same bits\n" } else { "check: FAILED\n" };
    }
    text
}
