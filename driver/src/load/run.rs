//! The load itself: clients that ask, and the check afterwards.

use super::arrivals::arrivals;
use super::child::Server;
use super::client::{Answer, LoadClient};
use super::options::LoadArgs;
use super::prompts::{Shape, prompt};
use super::report::{Check, Report};
use super::statistics::figures;
use crate::cli::bench::{BenchServeArgs, given};
use crate::output::Output;
use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Threads of the clients. They must not take the cores from a server on the same machine.
const THREADS: usize = 2;

/// Loads a server, reports what its clients saw, and fails if answers were not the same when asked for again.
pub fn run(model: &str, args: &BenchServeArgs, output: &Output) -> Result<()> {
    let (prefix, prompt) = (args.load.prefix, args.prompt);
    ensure!(prefix <= prompt, "--prefix {prefix} is longer than --prompt {prompt}");
    let server = match &args.load.url {
        Some(_) => None,
        None => Some(Server::start(model, &given(args.build.as_ref())?)?),
    };
    let url = args.load.url.as_deref().or(server.as_ref().map(|server| server.url.as_str()));
    let url = url.context("there is no server")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let runtime = runtime.context("cannot start the threads of the clients")?;
    let report = runtime.block_on(load(args, url, output))?;
    if let Some(path) = &args.load.plot {
        let drawing = super::plot::svg(&report);
        std::fs::write(path, drawing).with_context(|| format!("cannot write {}", path.display()))?;
    }
    output.result(&report.json(), || report.text())?;
    ensure!(report.figures.completed > 0, "no request was answered: {}", report.reasons());
    let different = report.check.different;
    ensure!(different == 0, "{different} of {} answers were others when asked for alone", report.check.asked);
    Ok(())
}

/// Loads the server at `url`.
pub(super) async fn load(args: &BenchServeArgs, url: &str, output: &Output) -> Result<Report> {
    let load = &args.load;
    let mut client = LoadClient::new(url, load.key.clone())?;
    let models = client.get("/v1/models").await?;
    let model = models["data"][0]["id"].as_str().context("the server names no model")?.to_owned();
    let shape = Shape {
        prompt: args.prompt,
        prefix: load.prefix,
        prefixes: load.prefixes,
        vocab: vocab(load, &client).await?,
    };
    // What is done once, such as the first kernels, has no part in the times. It is no prompt of the load.
    let warm = prompt(&shape, load.seed.wrapping_add(1), 0);
    client.complete(&model, &warm, load.output.min(4), false).await.context("the first request failed")?;
    client.restart();
    let bar = output.progress("loading", load.requests as u64);
    let job = Arc::new(Job { client, model, shape, load: load.clone(), bar });
    let answers = match load.rate {
        None => closed(&job).await?,
        Some(rate) => open(&job, rate).await?,
    };
    let check = check(&job, &answers).await?;
    job.bar.finish_and_clear();
    let figures = figures(&answers, &load.goodput);
    Ok(Report { model: job.model.clone(), prompt: args.prompt, load: load.clone(), figures, check, answers })
}

/// Token ids are below this.
async fn vocab(load: &LoadArgs, client: &LoadClient) -> Result<usize> {
    if let Some(vocab) = load.vocab {
        return Ok(vocab);
    }
    let info = client.get("/get_model_info").await.ok();
    let vocab = info.and_then(|info| info["vocab_size"].as_u64());
    let Some(vocab) = vocab else { bail!("the server does not say how many tokens there are: give --vocab") };
    Ok(vocab as usize)
}

/// What every client knows.
struct Job {
    client: LoadClient,
    model: String,
    shape: Shape,
    load: LoadArgs,
    bar: ProgressBar,
}

impl Job {
    fn is_checked(&self, at: usize) -> bool {
        is_checked(at, self.load.requests, self.load.check)
    }

    async fn ask(&self, at: usize) -> Result<Answer, String> {
        let prompt = prompt(&self.shape, self.load.seed, at);
        let answer = self.client.complete(&self.model, &prompt, self.load.output, self.is_checked(at)).await;
        answer.map_err(|error| format!("{error:#}"))
    }
}

/// Whether an answer is asked for again: `check` of `all` are, spread evenly.
fn is_checked(at: usize, all: usize, check: usize) -> bool {
    let count = check.min(all);
    (at + 1) * count / all > at * count / all
}

/// All that are asked for again.
#[cfg(test)]
pub(super) fn checked(all: usize, check: usize) -> Vec<usize> {
    (0..all).filter(|at| is_checked(*at, all, check)).collect()
}

type Answers = Vec<Result<Answer, String>>;

/// So many clients, each of which asks again when it has its answer.
async fn closed(job: &Arc<Job>) -> Result<Answers> {
    let next = Arc::new(AtomicUsize::new(0));
    let one = |job: Arc<Job>, next: Arc<AtomicUsize>| async move {
        let mut own = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= job.load.requests {
                return own;
            }
            own.push((at, job.ask(at).await));
            job.bar.inc(1);
        }
    };
    let count = job.load.concurrency.min(job.load.requests);
    let clients: Vec<_> = (0..count).map(|_| tokio::spawn(one(job.clone(), next.clone()))).collect();
    let mut all = Vec::with_capacity(job.load.requests);
    for client in clients {
        all.extend(client.await.context("a client gave up")?);
    }
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, answer)| answer).collect())
}

/// Requests at their times, whether or not there are answers.
async fn open(job: &Arc<Job>, rate: f64) -> Result<Answers> {
    let start = tokio::time::Instant::now();
    let times = arrivals(job.load.requests, rate, job.load.burstiness, job.load.seed);
    let one = |job: Arc<Job>, at: usize, time: f64| async move {
        tokio::time::sleep_until(start + Duration::from_secs_f64(time)).await;
        let answer = job.ask(at).await;
        job.bar.inc(1);
        answer
    };
    let asked = times.into_iter().enumerate();
    let asked: Vec<_> = asked.map(|(at, time)| tokio::spawn(one(job.clone(), at, time))).collect();
    let mut all = Vec::with_capacity(asked.len());
    for request in asked {
        all.push(request.await.context("a request was given up")?);
    }
    Ok(all)
}

/// Asks again, one at a time, what was asked in company.
async fn check(job: &Arc<Job>, answers: &Answers) -> Result<Check> {
    let mut check = Check::default();
    for (at, answer) in answers.iter().enumerate() {
        let Some(answer) = answer.as_ref().ok().filter(|_| job.is_checked(at)) else { continue };
        let again = job.ask(at).await;
        let again = again.map_err(anyhow::Error::msg).context("asked for again alone")?;
        check.asked += 1;
        check.different += usize::from(!again.equals(answer));
    }
    Ok(check)
}
