//! What cannot be provoked from outside: a model that hangs, fails or panics.

use super::error::ApiError;
use super::generate::{Answers, Generation, Output};
use super::log::{Log, LogStyle};
use super::record::{Caller, Record};
use super::state::{App, ModelFacts, Parts, ServeLimits};
use super::work::Work;
use super::{auth::Keys, health};
use crate::info::ModelInfo;
use crate::text::TextSide;
use crate::tools::Dialect;
use sinter_frontend::source::ModelDir;
use sinter_ir::DType;
use sinter_runtime::engine::{Engine, EngineConfig};
use sinter_runtime::{Batch, DeviceModel, KernelTime, Limits, RuntimeError};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const VOCAB: usize = 1024;

/// What a step does.
const WORKS: u8 = 0;
const FAILS: u8 = 1;
const PANICS: u8 = 2;

/// Lets steps through or holds them.
#[derive(Default)]
struct Gate {
    held: Mutex<bool>,
    moved: Condvar,
    mood: AtomicU8,
}

impl Gate {
    fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.moved.notify_all();
    }
    fn pass(&self) {
        let held = self.held.lock().unwrap();
        drop(self.moved.wait_while(held, |held| *held).unwrap());
    }
}

/// A model that always says the same token, if the gate lets it.
struct Moody {
    gate: Arc<Gate>,
    rows: Vec<f32>,
}

impl DeviceModel for Moody {
    fn device(&self) -> String {
        "a test".into()
    }
    fn limits(&self) -> Limits {
        Limits { vocab: VOCAB, max_positions: 4096, max_tokens: 64, max_sequences: 8, pages: 512 }
    }
    fn result_name(&self) -> &str {
        "logits"
    }
    fn width(&self) -> usize {
        VOCAB
    }
    fn step(&mut self, batch: &Batch) -> Result<&[f32], RuntimeError> {
        self.gate.pass();
        match self.gate.mood.swap(WORKS, SeqCst) {
            FAILS => return Err(RuntimeError::Logits("a planted failure".into())),
            PANICS => panic!("a planted panic"),
            _ => {}
        }
        self.rows.clear();
        self.rows.resize(batch.rows.len() * VOCAB, 0.0);
        self.rows.chunks_mut(VOCAB).for_each(|row| row[70] = 9.0);
        Ok(&self.rows)
    }
    fn times(&self) -> Vec<KernelTime> {
        Vec::new()
    }
}

fn app(stalled_after: Duration) -> (Arc<App>, Arc<Gate>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_chat/model");
    let info = ModelInfo {
        architecture: "test".into(),
        decoder: true,
        vocab: VOCAB,
        context: 4096,
        layers: 1,
        hidden: 1,
        parameters: 1,
        stored: DType::F32,
    };
    let text = TextSide::load(&ModelDir::open(&path).unwrap(), &info).unwrap();
    let gate = Arc::new(Gate::default());
    let model = Box::new(Moody { gate: gate.clone(), rows: Vec::new() });
    let (engine, _) = Engine::spawn(model, EngineConfig::default()).unwrap();
    let model = ModelFacts {
        names: vec!["test".into()],
        created: 0,
        architecture: "test".into(),
        vocab: VOCAB,
        context: 4096,
        dtype: "f32",
        cache_dtype: "f32",
        device: "a test".into(),
        step_tokens: 64,
        sequences: 8,
        speculation: "none",
    };
    let limits = ServeLimits { body_bytes: 1 << 20, timeout: Duration::from_secs(600), stalled_after };
    let (keys, log, traces) = (Keys::default(), Log::new(LogStyle::Off), None);
    let dialect = Dialect::default();
    (
        App::new(Parts {
            model,
            text: Arc::new(text),
            limits,
            keys,
            log,
            traces,
            dialect,
            work: Work::Writer(engine),
        }),
        gate,
    )
}

fn start(app: &Arc<App>, tokens: usize) -> Answers {
    let id: Arc<str> = "test".into();
    let record = Arc::new(Record::new(app.log, id.clone(), "TEST".into()));
    let generation = Generation { max_tokens: Some(tokens), ..Generation::new(vec![1, 2, 3]) };
    generation.start(app, &Caller { id, record }).unwrap()
}

async fn last(mut answers: Answers) -> Output {
    let mut last = None;
    while let Some(output) = answers.next().await {
        last = Some(output);
    }
    last.unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_stalled_engine_turns_health_red_within_five_seconds() {
    let (app, gate) = app(Duration::from_secs(4));
    let _context = runtime();
    let _entered = _context.enter();
    assert_eq!(health::check(&app), Ok(()));
    gate.hold(true);
    let answers = start(&app, 4);
    let stalled = Instant::now();
    wait_for("health turns red", || health::check(&app).is_err());
    let took = stalled.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(5), "it took {took:?}");
    let error = health::check(&app).unwrap_err();
    assert!(error.status.as_u16() == 503 && error.message.contains("no progress"), "{}", error.message);
    gate.hold(false);
    assert!(matches!(_context.block_on(last(answers)), Output::Done(usage) if usage.generated == 4));
    wait_for("health turns green again", || health::check(&app).is_ok());
}

#[test]
fn an_engine_without_work_is_healthy_and_one_that_is_gone_is_not() {
    let (app, _) = app(Duration::from_secs(2));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(health::check(&app), Ok(()));
    app.work().stop();
    wait_for("health turns red", || health::check(&app).is_err());
}

#[test]
fn a_failed_or_panicked_step_costs_its_own_requests_alone() {
    let (app, gate) = app(Duration::from_secs(4));
    let runtime = runtime();
    for mood in [FAILS, PANICS] {
        let _entered = runtime.enter();
        gate.mood.store(mood, SeqCst);
        let failed = runtime.block_on(last(start(&app, 4)));
        assert!(matches!(&failed, Output::Failed(error) if error.status.as_u16() == 500), "{failed:?}");
        let next = runtime.block_on(last(start(&app, 4)));
        assert!(matches!(next, Output::Done(usage) if usage.generated == 4), "{next:?}");
        assert_eq!(app.work().stats().blocks_used, 0);
        assert_eq!(health::check(&app), Ok(()));
    }
}

#[test]
fn an_answer_that_nobody_reads_is_cut_off_and_says_so() {
    let (app, _) = app(Duration::from_secs(4));
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut answers = start(&app, 4000);
    let engine = app.work();
    wait_for("the request ends", || engine.stats().finished == 1);
    assert_eq!(engine.stats().blocks_used, 0);
    let (error, pieces) = runtime.block_on(async {
        let mut pieces = 0;
        loop {
            match answers.next().await {
                Some(Output::Failed(error)) => return (error, pieces),
                Some(_) => pieces += 1,
                None => panic!("no error"),
            }
        }
    });
    assert_eq!((error.code, runtime.block_on(answers.next())), ("slow_reader", None));
    assert!((1..4000).contains(&pieces), "{pieces}");
}

#[test]
fn dropping_an_answer_frees_its_pages() {
    let (app, gate) = app(Duration::from_secs(4));
    let runtime = runtime();
    let _entered = runtime.enter();
    gate.hold(true);
    let answers: Vec<Answers> = (0..20).map(|_| start(&app, 4000)).collect();
    drop(answers);
    gate.hold(false);
    let stats = || app.work().stats();
    wait_for("all end", || stats().finished == 20 && stats().blocks_used == 0 && stats().running == 0);
}

#[test]
fn a_server_that_closes_refuses_with_503() {
    let (app, _) = app(Duration::from_secs(4));
    app.work().close();
    let id: Arc<str> = "test".into();
    let record = Arc::new(Record::new(app.log, id.clone(), "TEST".into()));
    let refused = Generation::new(vec![1]).start(&app, &Caller { id, record });
    assert!(matches!(refused, Err(ApiError { status, .. }) if status.as_u16() == 503));
}
