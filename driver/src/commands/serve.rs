//! `sinter serve`: requests are answered over HTTP.

use super::serve_reader::{self, Started};
use crate::cli::ServeArgs;
use crate::environment::Environment;
use crate::output::Output;
use crate::pipeline::{self, Program};
use crate::serve::auth::Keys;
use crate::serve::log::Log;
use crate::serve::sizing::{self, Wish};
use crate::serve::state::{App, ModelFacts, Parts, ServeLimits};
use crate::serve::trace::Traces;
use crate::serve::work::Work;
use crate::serve::{openai, run as serve};
use crate::text::TextSide;
use crate::tools::Dialect;
use crate::{UsageError, info};
use anyhow::{Context, Result};
use sinter_ir::PAGE;
use sinter_runtime::Limits;
use sinter_runtime::engine::{Engine, EngineConfig};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So long the engine or reader has to end its last step.
const FAREWELL: Duration = Duration::from_secs(10);

pub(super) fn run(args: &ServeArgs, env: &Environment, output: &Output) -> Result<()> {
    let keys: Vec<String> = args.api_key.iter().cloned().chain(env.api_key.clone()).collect();
    let address = address(args, !keys.is_empty())?;
    let traces = args.otlp_endpoint.as_deref().map(|url| Traces::open(url, *output)).transpose()?;
    let program = pipeline::prepare(&args.model, &args.build, env, output)?;
    let text = TextSide::load(&program.dir, &program.info)?;
    text.defaults.notes.iter().for_each(|note| output.note(note));
    let dialect = dialect(args, &text)?;
    let started = match program.result_name() {
        Some("logits") => writer(args, &program, (env, output))?,
        _ => serve_reader::start(args, &program, output)?,
    };
    let app = App::new(Parts {
        model: facts(args, &program, &started),
        text: Arc::new(text),
        limits: ServeLimits {
            body_bytes: args.max_body,
            timeout: args.timeout,
            stalled_after: args.stalled_after,
        },
        keys: Keys::new(&keys),
        log: Log::new(args.log),
        traces: traces.clone(),
        dialect,
        work: started.work,
    });
    let (name, json) = (app.model.names[0].clone(), output.json);
    let served = serve(app, address, args.grace, |address| {
        output.note(format!("serving {name} at http://{address}"));
        if json {
            // Whoever started the server with --port 0 learns the port.
            let _ = output.json_line(&serde_json::json!({ "address": address.to_string(), "model": name }));
        }
    });
    traces.iter().for_each(Traces::close);
    // Whoever works was told to stop. While it lives a compiler may work, which the end of the process would pull from under it.
    let until = Instant::now() + FAREWELL;
    while !started.thread.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    served
}

/// Starts an engine for a model that writes.
fn writer(args: &ServeArgs, program: &Program, (env, output): (&Environment, &Output)) -> Result<Started> {
    let limits = limits(args, program, output)?;
    let model = program.load_with(limits, false)?;
    let device = model.device();
    let guesses = args.speculate.load(&args.build, &limits, (env, output))?;
    let (engine, thread) = Engine::spawn_with(model, guesses, config(args))?;
    let context = limits.max_positions.min(limits.pages * PAGE as usize);
    Ok(Started { work: Work::Writer(engine), thread, context, limits, device })
}

/// How the model writes calls and reasoning: as its template shows, or as the user says.
fn dialect(args: &ServeArgs, text: &TextSide) -> Result<Dialect> {
    let found = text.template.as_ref().map(|template| Dialect::detect(|words| template.contains(words)));
    let (calls, reasoning) = (args.tool_parser.as_deref(), args.reasoning_parser.as_deref());
    found.unwrap_or_default().with_names(calls, reasoning).map_err(|words| UsageError(words).into())
}

/// Where to listen. An address that others can reach wants a key.
fn address(args: &ServeArgs, key: bool) -> Result<SocketAddr> {
    let found = (args.host.as_str(), args.port).to_socket_addrs();
    let found = found.with_context(|| format!("--host {}", args.host))?.next();
    let address = found.with_context(|| format!("--host {} has no address", args.host))?;
    if !key && !is_loopback(address.ip()) {
        let words = format!(
            "{} can be reached from other machines: give a key with --api-key or SINTER_API_KEY, or serve at 127.0.0.1",
            address.ip()
        );
        return Err(UsageError(words).into());
    }
    Ok(address)
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address.to_ipv4_mapped().map_or(address.is_loopback(), |address| address.is_loopback())
        }
    }
}

/// How large steps and the KV cache are.
pub(super) fn limits(args: &ServeArgs, program: &Program, output: &Output) -> Result<Limits> {
    let mut limits = Limits {
        vocab: program.info.vocab,
        max_positions: args.max_context.unwrap_or(program.info.context).min(program.info.context),
        max_tokens: args.max_step_tokens.max(args.max_sequences),
        max_sequences: args.max_sequences,
        pages: 1,
    };
    let sizes = sizing::sizes(&Wish {
        model_context: program.info.context,
        context: args.max_context,
        sequences: args.max_sequences,
        kv_memory: args.kv_memory,
        page_bytes: info::kv_bytes_per_token(&program.plan) * PAGE,
        other: program.step_bytes(&limits)?,
        free: program.free_bytes(),
    });
    let sizes = sizes.map_err(anyhow::Error::msg)?;
    if sizes.cut {
        output.note(format!("the context is cut to {} tokens, for more there is no memory", sizes.context));
    }
    (limits.max_positions, limits.pages) = (sizes.context, sizes.pages);
    Ok(limits)
}

fn config(args: &ServeArgs) -> EngineConfig {
    EngineConfig {
        prefix_cache: !args.no_prefix_cache,
        max_waiting: args.max_queue,
        max_waiting_tokens: args.max_queue_tokens,
        ..EngineConfig::default()
    }
}

fn facts(args: &ServeArgs, program: &Program, started: &Started) -> ModelFacts {
    let plain = Path::new(&args.model).file_name().map(|name| name.to_string_lossy().into_owned());
    let plain = if Path::new(&args.model).exists() { plain } else { Some(args.model.clone()) };
    let names = match args.served_model_name.is_empty() {
        true => vec![plain.unwrap_or_else(|| "model".into())],
        false => args.served_model_name.clone(),
    };
    ModelFacts {
        names,
        created: openai::shape::now(),
        architecture: program.info.architecture.clone(),
        vocab: started.limits.vocab,
        context: started.context,
        dtype: program.dtype.name(),
        cache_dtype: info::kv_dtype(&program.plan).unwrap_or(program.dtype).name(),
        device: started.device.clone(),
        step_tokens: started.limits.max_tokens,
        sequences: args.max_sequences,
        speculation: args.speculate.word(),
    }
}
